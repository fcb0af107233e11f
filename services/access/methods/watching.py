"""What a published policy does: decisions before and after, from the audit trail."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import datetime, timedelta
from itertools import groupby

import grpc
from kehu.access.v1 import review_pb2

from services.access.chain import BLOCKS_AT_ONCE, BLOCKS_READ, newest_blocks
from services.access.domain.errors import PolicyState
from services.access.domain.watching import FACTOR, Counts, counted, span_of
from services.access.methods.policies import PolicyMethods
from services.chassis.audit import AuditEntry

MINUTES = 60
ACTIONS_SHOWN = 200
SUBJECTS_SHOWN = 20


class WatchMethods(PolicyMethods):
    """The watching methods of AccessService."""

    def WatchPolicy(
        self, request: review_pb2.WatchPolicyRequest, context: grpc.ServicerContext
    ) -> review_pb2.WatchPolicyResponse:
        """Count before and after."""
        policy, factor = self._find_policy(request.policy_id), request.factor or FACTOR
        if policy.state != "published" or policy.update_time is None:
            metadata = {"policy_id": policy.id, "state": policy.state}
            raise PolicyState("Only a published revision can be watched.", metadata=metadata)
        span = span_of(policy.update_time, self._context.now(), timedelta(minutes=request.minutes or MINUTES))
        trail = _Trail(self._context.chain.head(), span.start)
        found = counted(trail.entries(self), span)
        reply = review_pb2.WatchPolicyResponse(
            publish_time=span.published,
            end_time=span.end,
            alert=any(counts.alerts(factor) for counts in found.values()),
            allowed_before=sum(counts.allowed_before for counts in found.values()),
            denied_before=sum(counts.denied_before for counts in found.values()),
            allowed_after=sum(counts.allowed_after for counts in found.values()),
            denied_after=sum(counts.denied_after for counts in found.values()),
            previous_policy_id=self._id_of_version(policy.number - 1),
            complete=trail.complete,
        )
        growth = sorted(found.items(), key=lambda item: (item[1].denied_before - item[1].denied_after, item[0]))
        reply.actions.extend(_action_message(*key, counts, factor) for key, counts in growth[:ACTIONS_SHOWN])
        return reply

    def _id_of_version(self, number: int) -> str:
        found = self._context.policies.numbered(number)
        return found.id if found else ""


class _Trail:
    """The entries of the trail since a time, and whether all of them were read."""

    def __init__(self, head: int, start: datetime) -> None:
        self._head, self._start = head, start.isoformat()
        self.complete = head <= BLOCKS_READ

    def entries(self, methods: WatchMethods) -> Iterator[AuditEntry]:
        """Yield entries, the newest block first; they end with a stretch of blocks that are all older."""
        blocks = newest_blocks(methods._context.chain, self._head)
        for _, stretch in groupby(blocks, key=lambda block: (self._head - block.sequence) // BLOCKS_AT_ONCE):
            found = [entry for block in stretch for entry in block.entries]
            yield from found
            if all(entry.time < self._start for entry in found):
                self.complete = True
                return


def _action_message(resource: str, action: str, counts: Counts, factor: float) -> review_pb2.WatchedAction:
    return review_pb2.WatchedAction(
        resource=resource,
        action=action,
        allowed_before=counts.allowed_before,
        denied_before=counts.denied_before,
        allowed_after=counts.allowed_after,
        denied_after=counts.denied_after,
        alert=counts.alerts(factor),
        denied_subjects=sorted(counts.denied_subjects)[:SUBJECTS_SHOWN],
    )
