"""What is in force now: policy, principals, revocations and keys, kept in memory and refreshed from the stores.

Every process of the system asks for this every two seconds, so a request costs three queries by an index at
most, and usually none. Two access processes give the same version marks to the same state.
"""

from __future__ import annotations

import hashlib
import threading
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta

from kehu.access.v1 import access_pb2 as pb

from services.access.domain.policies import Policy, Row
from services.access.domain.principals import Principal
from services.access.domain.tokens import Revocation, SigningKey
from services.access.store.ports import Policies, Principals, Revocations
from services.chassis.access import PolicySnapshot
from services.chassis.errors import Unavailable

FRESH = timedelta(milliseconds=200)  # answers closer together than this share one reading
OVERLAP = timedelta(seconds=10)  # clocks of several access processes differ by less


@dataclass(frozen=True, slots=True)
class _Person:
    """As much of a principal as decisions need."""

    subject: str
    kind: str
    department: str
    links: tuple[Row, ...]
    enabled: bool


class Directory:
    """The state in force, as one process of access knows it."""

    def __init__(
        self,
        principals: Principals,
        policies: Policies,
        revocations: Revocations,
        keys: Sequence[SigningKey],
        now: Callable[[], datetime] = lambda: datetime.now(UTC),
    ) -> None:
        self._principals, self._policies, self._revocations, self._now = principals, policies, revocations, now
        self._keys = [key_message(key) for key in keys]
        self._lock = threading.Lock()
        self._read_at = datetime.min.replace(tzinfo=UTC)
        self._people: dict[str, _Person] = {}
        self._policy: Policy | None = None
        self._revoked: list[Revocation] = []
        self._rules: pb.RuleSet | None = None
        self._snapshot: PolicySnapshot | None = None

    @property
    def policy(self) -> Policy:
        """Return the policy in force.

        Raises:
            Unavailable: none was seeded yet.
        """
        self.refresh()
        if self._policy is None:
            raise Unavailable("There is no policy yet; the access service is starting.")
        return self._policy

    def links(self, without: str = "") -> list[Row]:
        """Return the role links of all enabled principals but one."""
        self.refresh()
        return [link for person in self._people.values() if person.subject != without for link in person.links]

    def persons(self, without: str = "") -> list[tuple[str, str]]:
        """Return subject and department of all people who may sign in but one."""
        self.refresh()
        people = [p for p in self._people.values() if p.enabled and p.kind == "user" and p.subject != without]
        return [(person.subject, person.department) for person in people]

    def snapshot(self) -> PolicySnapshot:
        """Return the state in force, compiled as every process compiles it."""
        rules = self._rule_set()
        snapshot = self._snapshot
        if snapshot is None or snapshot.rules_version != rules.rules_version:
            content = self.policy.content
            links = [tuple(row.values) for row in rules.role_links]
            snapshot = PolicySnapshot(
                rules.policy_version,
                content.model,
                content.rules,
                links,
                content.row_filters,
                rules_version=rules.rules_version,
            )
            self._snapshot = snapshot
        return snapshot

    def reply(self, request: pb.GetPolicySnapshotRequest) -> pb.GetPolicySnapshotResponse:
        """Return what is newer than what the asker holds."""
        reply = pb.GetPolicySnapshotResponse(keys=self._keys)
        rules, revoked = self._rule_set(), self._revocation_set()
        if request.rules_version != rules.rules_version:
            reply.rules.CopyFrom(rules)
        if request.revocations_version != revoked.revocations_version:
            reply.revocations.CopyFrom(revoked)
        return reply

    def refresh(self, at_once: bool = False) -> None:
        """Read what changed; `at_once` after a write of our own."""
        with self._lock:
            now = self._now()
            if not at_once and now - self._read_at < FRESH:
                return
            since = self._read_at - OVERLAP if self._people else self._read_at
            for principal in self._principals.changed_since(max(since, datetime(2000, 1, 1, tzinfo=UTC))):
                self._take(principal)
            for policy in self._policies.published_after(self._policy.number if self._policy else 0):
                self._policy, self._rules = policy, None
            self._revoked = self._revocations.unexpired(now)
            self._read_at = now

    def _take(self, principal: Principal) -> None:
        person = _Person(
            principal.subject, principal.kind, principal.department, tuple(principal.links()), principal.enabled
        )
        if self._people.get(principal.id) != person:
            self._people[principal.id] = person
            self._rules = None

    def _rule_set(self) -> pb.RuleSet:
        policy, rules = self.policy, self._rules
        if rules is None:
            links = sorted({*policy.content.links, *self.links()})
            mark = f"{policy.number}-{hashlib.sha256(repr(links).encode()).hexdigest()[:16]}"
            rules = rule_set(policy, links, mark)
            self._rules = rules
        return rules

    def _revocation_set(self) -> pb.RevocationSet:
        revoked = sorted(self._revoked, key=lambda revocation: revocation.id)
        mark = hashlib.sha256(repr([(r.id, r.at.timestamp()) for r in revoked]).encode()).hexdigest()[:16]
        tokens = [r.id.removeprefix("token:") for r in revoked if r.id.startswith("token:")]
        subjects = {r.id: r.at.timestamp() for r in revoked if not r.id.startswith("token:")}
        return pb.RevocationSet(revocations_version=mark, token_ids=tokens, subjects=subjects)


def key_message(key: SigningKey) -> pb.JsonWebKey:
    """Return the public half of a key as a JWK."""
    return pb.JsonWebKey(kty="OKP", crv="Ed25519", x=key.public, kid=key.key_id, use="sig", alg="EdDSA")


def rule_set(policy: Policy, links: Sequence[Row], mark: str) -> pb.RuleSet:
    """Return all rules as a message."""
    return pb.RuleSet(
        rules_version=mark,
        policy_version=policy.number,
        model=policy.content.model,
        rules=[pb.RuleRow(values=row) for row in policy.content.rules],
        role_links=[pb.RuleRow(values=row) for row in links],
        row_filters=[
            pb.RowFilter(
                subject=f.subject, department=f.department, resource=f.resource, field=f.field, values=f.values
            )
            for f in policy.content.row_filters
        ],
    )
