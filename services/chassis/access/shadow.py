"""A candidate policy decided alongside: its answers are compared and counted, never given (OpenFGA's shadow resolver).

Every process asks access for the candidate and hands over what it counted, every five seconds; a candidate that fails
to compile or to decide changes nothing but the count of failures.
"""

from __future__ import annotations

import logging
import threading
from collections import Counter
from dataclasses import asdict, dataclass, field
from typing import Protocol

from kehu.access.v1 import access_pb2 as pb
from kehu.access.v1 import review_pb2

from services.chassis import telemetry
from services.chassis.access.holder import SnapshotHolder
from services.chassis.access.shares import NO_SHARES, Shares, guarded
from services.chassis.access.snapshot import PolicySnapshot
from services.chassis.access.values import NO_PURPOSE, Caller, Decision
from services.chassis.access.wire import updated
from services.chassis.repeating import Repeating

ANY_FIELD = frozenset("*")
KEPT = 1_000  # different differences between two reports; more are counted in the sum only
TIMEOUT_SECONDS = 5.0
log = logging.getLogger("kehu.access.shadow")


@dataclass(frozen=True, slots=True)
class ShadowKey:
    """One request that live policy and candidate answer differently."""

    subject: str
    department: str
    purpose: str
    resource: str
    action: str
    before: str
    after: str


@dataclass(slots=True)
class ShadowCounts:
    """What was counted since the last report."""

    compared: int = 0
    differing: int = 0
    failed: int = 0
    differences: Counter[ShadowKey] = field(default_factory=Counter)

    def add(self, other: ShadowCounts) -> None:
        """Take over the counts of another; of its differences those for which there is room."""
        self.compared += other.compared
        self.differing += other.differing
        self.failed += other.failed
        for key, count in other.differences.items():
            self.see(key, count)

    def see(self, key: ShadowKey, count: int = 1) -> None:
        """Count a difference, unless it is a new one and KEPT others are known."""
        if key in self.differences or len(self.differences) < KEPT:
            self.differences[key] += count


class Shadow:
    """One candidate in one process."""

    def __init__(self, policy_id: str, mark: str, snapshot: PolicySnapshot | None) -> None:
        """`snapshot` is None when the candidate did not compile: then every comparison is a failure."""
        self.policy_id, self.mark, self._snapshot = policy_id, mark, snapshot
        self._counts = ShadowCounts()
        self._lock = threading.Lock()

    def compare(
        self,
        caller: Caller,
        resource: str,
        action: str,
        rows_of: tuple[str, ...],
        live: Decision,
        shares: Shares = NO_SHARES,
        row_fields: frozenset[str] = ANY_FIELD,
    ) -> None:
        """Decide alongside, by the same shares, and count; never raises, for the live decision is made already.

        A method narrows by `row_fields`: what the guard will refuse for that counts as denied.
        """
        try:
            if self._snapshot is None:
                raise ValueError("not compiled")
            if self._snapshot.shares is not shares:
                self._snapshot = self._snapshot.with_shares(shares)
            other = guarded(self._snapshot.decide(caller, resource, action, rows_of), row_fields)
            live = guarded(live, row_fields)
            same = other.allowed == live.allowed and (not live.allowed or other.obligations == live.obligations)
            failed = False
        except Exception:  # whatever a candidate does, the live policy has answered
            other, same, failed = None, True, True
        telemetry.SHADOWED.labels("failed" if failed else "same" if same else _outcome(live, other)).inc()
        with self._lock:
            counts = self._counts
            counts.compared += 1
            counts.failed += failed
            if same or other is None:
                return
            counts.differing += 1
            counts.see(_key(caller, resource, action, live, other))

    def take(self) -> ShadowCounts:
        """Return the counts and begin anew."""
        with self._lock:
            taken, self._counts = self._counts, ShadowCounts()
            return taken

    def put_back(self, counts: ShadowCounts) -> None:
        """Keep counts that could not be handed over."""
        with self._lock:
            self._counts.add(counts)


def _outcome(live: Decision, other: Decision | None) -> str:
    """Return how a candidate differs, in one of three words."""
    if other is None or live.allowed == other.allowed:
        return "other_rights"
    return "would_deny" if live.allowed else "would_allow"


def _key(caller: Caller, resource: str, action: str, live: Decision, other: Decision) -> ShadowKey:
    if live.allowed != other.allowed:
        words = ("denied", "allowed")
        before, after = words[live.allowed], words[other.allowed]
    else:
        fields = ("shown", "masked", "searchable", "revealable", "row_filter")
        what = [name for name in fields if getattr(live.obligations, name) != getattr(other.obligations, name)]
        before, after = "allowed", f"allowed, with other {', '.join(what)}"
    purpose = caller.purpose or NO_PURPOSE
    return ShadowKey(caller.subject, caller.department, purpose[:100], resource, action, before, after)


class ShadowStub(Protocol):
    """The method of the access service that this asks."""

    def SyncShadow(self, request: pb.SyncShadowRequest, *, timeout: float) -> pb.SyncShadowResponse:
        """Hand over counts and return the candidate."""


class ShadowPoller(Repeating):
    """A thread that keeps the holder's shadow as access wants it and hands over what was counted."""

    def __init__(self, holder: SnapshotHolder, stub: ShadowStub, interval_seconds: float = 5.0) -> None:
        super().__init__("shadow-poller", interval_seconds)
        self._holder, self._stub, self._interval = holder, stub, interval_seconds

    def turn(self) -> float:
        """Report and fetch."""
        self.sync_once()
        return self._interval

    def stop(self) -> None:
        """Hand over the last counts and end."""
        super().stop()
        if self._holder.shadow is not None:
            self.sync_once()

    def sync_once(self) -> bool:
        """Report and fetch once; tell whether access answered."""
        shadow = self._holder.shadow
        counts = shadow.take() if shadow else ShadowCounts()
        try:
            reply = self._stub.SyncShadow(_request(shadow, counts), timeout=TIMEOUT_SECONDS)
        except Exception as error:  # access is away: what is counted stays, the live policy goes on
            if shadow is not None:
                shadow.put_back(counts)
            log.debug("no answer about a candidate policy: %s", type(error).__name__)
            return False
        if not reply.policy_id:
            self._holder.shadow = None
        elif reply.HasField("rule_set"):
            self._holder.shadow = Shadow(reply.policy_id, reply.mark, _compiled(reply))
        return True


def _compiled(reply: pb.SyncShadowResponse) -> PolicySnapshot | None:
    try:
        return updated(None, pb.GetPolicySnapshotResponse(rule_set=reply.rule_set))
    except Exception as error:
        log.warning("a candidate policy does not compile: %s", type(error).__name__)
        return None


def _request(shadow: Shadow | None, counts: ShadowCounts) -> pb.SyncShadowRequest:
    if shadow is None:
        return pb.SyncShadowRequest()
    request = pb.SyncShadowRequest(
        policy_id=shadow.policy_id,
        mark=shadow.mark,
        compared=counts.compared,
        differing=counts.differing,
        failed=counts.failed,
    )
    request.differences.extend(difference_message(key, count) for key, count in counts.differences.items())
    return request


def difference_message(key: ShadowKey, count: int) -> review_pb2.ShadowDifference:
    """Return one difference as it is reported."""
    return review_pb2.ShadowDifference(count=count, **asdict(key))
