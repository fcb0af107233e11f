"""What is in force now: policy, principals, revocations and keys, kept in memory and refreshed from the stores.

Every process of the system asks for this twice a second, so a request costs three queries by an index at
most, and usually none. Two access processes give the same version marks to the same state.
"""

from __future__ import annotations

import hashlib
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta

from kehu.access.v1 import access_pb2 as pb
from kehu.access.v1 import conditions_pb2 as pb_conditions

from services.access.domain.policies import Policy, Row
from services.access.domain.principals import Principal
from services.access.domain.requests import AccessRequest
from services.access.domain.tokens import Revocation, SigningKey
from services.access.store.ports import Policies, Principals, Revocations
from services.access.store.requests import Requests
from services.chassis.access import MODEL, PolicySnapshot, RowFilter
from services.chassis.access import Revocations as Revoked
from services.chassis.access.matcher import PARSING
from services.chassis.access.rules import LINK_WORDS, RULE_WORDS
from services.chassis.access.wire import coded
from services.chassis.access.wire_conditions import condition_message, organization
from services.chassis.access.wire_quotas import quota_message
from services.chassis.errors import Unavailable

FRESH = timedelta(milliseconds=200)  # answers closer together than this share one reading
OVERLAP = timedelta(seconds=10)  # clocks of several access processes differ by less
LONG_AGO = datetime(2000, 1, 1, tzinfo=UTC)


@dataclass(frozen=True, slots=True)
class _Person:
    """As much of a principal as decisions need."""

    subject: str
    kind: str
    department: str
    links: tuple[Row, ...]
    enabled: bool


@dataclass(frozen=True, slots=True)
class _InForce:
    """What was read last; replaced whole, so that every answer comes from one moment."""

    policy: Policy | None = None
    people: Mapping[str, _Person] = field(default_factory=dict)
    revoked: tuple[Revocation, ...] = ()
    lent: tuple[AccessRequest, ...] = ()


class OwnSnapshots:
    """What access verifies tokens by itself: its keys, and the revocations of this very moment."""

    def __init__(self, directory: Directory, keys: Sequence[SigningKey]) -> None:
        self._directory = directory
        self._keys = {key.key_id: key.public for key in keys}
        self._empty = PolicySnapshot(0, MODEL, (), ())

    @property
    def current(self) -> PolicySnapshot:
        """Return a snapshot without rules."""
        return self._empty.with_revocations(self._directory.revoked(), self._keys)


class Directory:
    """The state in force, as one process of access knows it."""

    def __init__(
        self,
        principals: Principals,
        policies: Policies,
        revocations: Revocations,
        keys: Sequence[SigningKey],
        now: Callable[[], datetime] = lambda: datetime.now(UTC),
        requests: Requests | None = None,
    ) -> None:
        self._requests = requests
        self._principals, self._policies, self._revocations, self._now = principals, policies, revocations, now
        self._keys = [key_message(key) for key in keys]
        self._lock, self._coding = threading.Lock(), threading.Lock()
        self.compiling = PARSING  # pycasbin parses too, when it compiles and when it decides
        self._read_at = LONG_AGO
        self._state = _InForce()
        self._rules: tuple[_InForce, pb.RuleSet] | None = None
        self._snapshot: PolicySnapshot | None = None

    @property
    def policy(self) -> Policy:
        """Return the policy in force.

        Raises:
            Unavailable: none was seeded yet.
        """
        return _seeded(self.refresh())

    def links(self, without: str = "") -> list[Row]:
        """Return the role links of all enabled principals but one."""
        people = self.refresh().people.values()
        return [link for person in people if person.subject != without for link in person.links]

    def persons(self, without: str = "") -> list[tuple[str, str]]:
        """Return subject and department of all people who may sign in but one."""
        people = [p for p in self.refresh().people.values() if p.enabled and p.kind == "user"]
        return [(person.subject, person.department) for person in people if person.subject != without]

    def everybody(self) -> list[tuple[str, str]]:
        """Return subject and department of all people and apps that may sign in, by subject."""
        people = self.refresh().people.values()
        return sorted((person.subject, person.department) for person in people if person.enabled)

    def snapshot_of(self, policy: Policy, more: Sequence[Row] = ()) -> PolicySnapshot:
        """Return another revision compiled with the roles people have now, and more links.

        Raises:
            Invalid: it does not compile.
        """
        return self._compiled(policy, sorted({*policy.content.links, *self.links(), *more}), "")

    def snapshot(self) -> PolicySnapshot:
        """Return the state in force, compiled as every process compiles it."""
        state = self.refresh()
        rules = self._rule_set(state)
        snapshot = self._snapshot
        if snapshot is None or snapshot.rules_version != rules.rules_version:
            snapshot = self._compiled(_seeded(state), self._all_links(state), rules.rules_version)
            self._snapshot = snapshot
        return snapshot

    def revoked(self) -> Revoked:
        """Return what no longer counts at this very moment."""
        found = revocation_set(self.refresh(at_once=True).revoked)
        return Revoked(frozenset(found.token_ids), dict(found.subjects), found.revocations_version)

    def reply(self, request: pb.GetPolicySnapshotRequest) -> pb.GetPolicySnapshotResponse:
        """Return what is newer than what the asker holds."""
        state = self.refresh()
        reply = pb.GetPolicySnapshotResponse(keys=self._keys)
        rules, revoked = self._rule_set(state), revocation_set(state.revoked)
        if request.rules_version != rules.rules_version:
            reply.rules.CopyFrom(rules)
        if request.revocations_version != revoked.revocations_version:
            reply.revocations.CopyFrom(revoked)
        return reply

    def emergency_of(self, subject: str) -> str:
        """Return the id of the break-glass a person has open now, or nothing."""
        now, lent = self._now(), self.refresh().lent
        return next((r.id for r in lent if r.emergency and r.subject == subject and r.is_open(now)), "")

    def refresh(self, at_once: bool = False) -> _InForce:
        """Read what changed and return the state; `at_once` after a write of our own."""
        with self._lock:
            now = self._now()
            if at_once or now - self._read_at >= FRESH:
                self._state = self._read(self._state, now)
                self._read_at = now
            return self._state

    def _read(self, known: _InForce, now: datetime) -> _InForce:
        since = max(self._read_at - OVERLAP, LONG_AGO) if known.people else LONG_AGO
        people = {p.id: _person(p) for p in self._principals.changed_since(since)}
        changed = {key: person for key, person in people.items() if known.people.get(key) != person}
        published = self._policies.published_after(known.policy.number if known.policy else 0)
        revoked = tuple(sorted(self._revocations.unexpired(now), key=lambda revocation: revocation.id))
        lent = tuple(self._requests.lent(now)) if self._requests else ()
        if not changed and not published and revoked == known.revoked and lent == known.lent:
            return known
        policy = published[-1] if published else known.policy
        return _InForce(policy, {**known.people, **changed} if changed else known.people, revoked, lent)

    def _rule_set(self, state: _InForce) -> pb.RuleSet:
        with self._coding:  # every process asks at once for what is new: it is coded once
            return self._coded(state)

    def _coded(self, state: _InForce) -> pb.RuleSet:
        known = self._rules
        if (
            known is not None
            and known[0].policy is state.policy
            and known[0].people is state.people
            and known[0].lent == state.lent
        ):
            return known[1]
        policy, links = _seeded(state), self._all_links(state)
        mark = f"{policy.number}-{hashlib.sha256(repr(links).encode()).hexdigest()[:16]}"
        rules = rule_set(policy, links, mark)
        self._rules = (state, rules)
        return rules

    def _compiled(self, policy: Policy, links: Sequence[Row], mark: str) -> PolicySnapshot:
        content = policy.content
        with self.compiling:
            return PolicySnapshot(
                policy.number, content.model, content.rules, links, content.row_filters, rules_version=mark,
                conditions=content.conditions, organization=organization(content.departments, content.teams),
                now=lambda: self._now().timestamp(),
            )  # fmt: skip

    def _all_links(self, state: _InForce) -> list[Row]:
        content = _seeded(state).content
        own = {link for person in state.people.values() for link in person.links}
        return sorted({*content.links, *own, *_lent_links(state, content.model)})


def _lent_links(state: _InForce, model: str) -> Iterator[Row]:
    """Yield the links of granted requests whose people may sign in, in the department they had it granted in."""
    here = {person.subject: person.department for person in state.people.values() if person.enabled}
    if model == MODEL:  # another may not know links with an end: they would keep the policy from compiling
        for request in state.lent:
            if here.get(request.subject) == request.department:
                yield from request.links()


def _person(principal: Principal) -> _Person:
    links = tuple(principal.links())
    return _Person(principal.subject, principal.kind, principal.department, links, principal.enabled)


def _seeded(state: _InForce) -> Policy:
    if state.policy is None:
        raise Unavailable("There is no policy yet; the access service is starting.")
    return state.policy


def revocation_set(revoked: Sequence[Revocation]) -> pb.RevocationSet:
    """Return all revocations as a message; `revoked` is sorted by id."""
    mark = hashlib.sha256(repr([(r.id, r.at.timestamp()) for r in revoked]).encode()).hexdigest()[:16]
    tokens = [r.id.removeprefix("token:") for r in revoked if r.id.startswith("token:")]
    subjects = {r.id: r.at.timestamp() for r in revoked if not r.id.startswith("token:")}
    return pb.RevocationSet(revocations_version=mark, token_ids=tokens, subjects=subjects)


def key_message(key: SigningKey) -> pb.JsonWebKey:
    """Return the public half of a key as a JWK."""
    return pb.JsonWebKey(kty="OKP", crv="Ed25519", x=key.public, kid=key.key_id, use="sig", alg="EdDSA")


def rule_set(policy: Policy, links: Sequence[Row], mark: str) -> pb.RuleSet:
    """Return all rules as a message."""
    content, words = policy.content, {"": 0}
    rules, role_links = coded(content.rules, RULE_WORDS, words), coded(links, LINK_WORDS, words)
    return pb.RuleSet(
        rules_version=mark,
        policy_version=policy.number,
        model=content.model,
        words=words,
        rule_words=rules,
        link_words=role_links,
        row_filters=[row_filter_message(found) for found in content.row_filters],
        conditions=[condition_message(condition) for condition in content.conditions],
        departments=[pb_conditions.Department(name=name, parent=parent) for name, parent in content.departments],
        teams=[pb_conditions.Team(name=name, members=members) for name, members in content.teams],
        quotas=[quota_message(quota) for quota in content.quotas],
    )


def row_filter_message(found: RowFilter) -> pb.RowFilter:
    """Return a row filter as a message."""
    return pb.RowFilter(
        subject=found.subject,
        department=found.department,
        resource=found.resource,
        field=found.field,
        values=found.values,
    )
