"""Write what the guard decided to the audit spool, before the reply is released."""

from __future__ import annotations

from services.chassis.audit import AuditEntry, AuditSpool
from services.chassis.server.calls import Call
from services.chassis.server.plans import MethodPlan
from services.chassis.server.seen import NOTHING, Seen


class SpoolTrail:
    """The audit trail of one process."""

    def __init__(self, service: str, spool: AuditSpool) -> None:
        self._service = service
        self._spool = spool

    def record(
        self, call: Call | None, plan: MethodPlan, resource: str, code: str, reason: str, seen: Seen = NOTHING
    ) -> str:
        """Append one entry and return its id; it outlives a kill of this process when this returns.

        Raises:
            OSError: the disk is full; the reply must not be released.
        """
        caller = call.caller if call else None
        entry = AuditEntry.of(
            service=self._service,
            subject=caller.subject if caller else "",
            department=caller.department if caller else "",
            purpose=caller.purpose if caller else "",
            resource=plan.resource,
            action=plan.action,
            target=resource,
            outcome="allowed" if code == "OK" else "denied",
            reason=reason,
            status=code,
            policy_version=call.decision.policy_version if call else 0,
            request_id=call.request_id if call else "",
            method=plan.path.removeprefix("/"),
            profiles=seen.profiles,
            shown=seen.shown,
            masked=seen.masked,
            emergency=call.emergency if call else "",
        )
        self._spool.append(entry)
        return entry.entry_id
