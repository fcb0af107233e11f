"""What is in force now: policy, principals, revocations and keys, kept in memory and refreshed from the stores.

Every process of the system asks for this twice a second, so a request costs three queries by an index at
most, and usually none. Two access processes give the same version marks to the same state.
"""

from __future__ import annotations

import hashlib
import logging
import threading
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta

from kehu.access.v1 import access_pb2 as pb
from kehu.access.v1 import shares_pb2

from services.access.domain.policies import Content, Policy, Row
from services.access.domain.principals import Principal
from services.access.domain.requests import AccessRequest
from services.access.domain.shares import Lent
from services.access.domain.tokens import Revocation, SigningKey
from services.access.publication import LONGEST_REPLY, key_message, revocation_set, rule_set, sorted_set
from services.access.store.issuers import Issuers
from services.access.store.ports import Policies, Principals, Revocations
from services.access.store.requests import Requests
from services.access.store.shares import ShareStore
from services.chassis.access import MODEL, PolicySnapshot
from services.chassis.access import Revocations as Revoked
from services.chassis.access.matcher import PARSING
from services.chassis.access.rules import Shape
from services.chassis.access.shares import Share
from services.chassis.access.tables import Table
from services.chassis.access.wire_conditions import organization
from services.chassis.access.wire_shares import share_message, shares_of
from services.chassis.errors import Invalid, Unavailable

log = logging.getLogger("kehu.access")

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
    has_password: bool  # or a passkey: who has one has the other
    issuer: str


@dataclass(frozen=True, slots=True)
class _InForce:
    """What was read last; replaced whole, so that every answer comes from one moment."""

    policy: Policy | None = None
    people: Mapping[str, _Person] = field(default_factory=dict)
    revoked: tuple[Revocation, ...] = ()
    lent: tuple[AccessRequest, ...] = ()
    shares: Mapping[str, Lent] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class _Made:
    """What was made of a state: its tables, and the message that carries them."""

    state: _InForce
    rules: Table
    links: Table
    message: pb.RuleSet


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
        shares: ShareStore | None = None,
        issuers: Issuers | None = None,
    ) -> None:
        self._requests, self._shares, self._issuers = requests, shares, issuers
        self._principals, self._policies, self._revocations, self._now = principals, policies, revocations, now
        self._keys = [key_message(key) for key in keys]
        self._lock, self._making = threading.Lock(), threading.Lock()
        self.compiling = PARSING  # pycasbin parses too, when it compiles and when it decides
        self._read_at = LONG_AGO
        self._state = _InForce()
        self._made: _Made | None = None
        self._withheld = ""
        self._share_set: tuple[_InForce, shares_pb2.ShareSet] | None = None
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

    def persons(self, changed: Principal | None = None, ended: str = "") -> list[tuple[str, str]]:
        """Return subject and department of all people who can sign in; as if one were changed, an issuer ended.

        Who was invited and has no password yet cannot, nor people of an issuer that is out of use.
        """
        people = {**self.refresh().people, **({changed.id: _person(changed)} if changed is not None else {})}
        issuers = self._issuers.all() if self._issuers else []
        trusted = {issuer.id for issuer in issuers if not issuer.disabled and issuer.id != ended}
        return [
            (person.subject, person.department)
            for person in people.values()
            if person.kind == "user" and person.enabled
            and (person.issuer in trusted if person.issuer else person.has_password)
        ]  # fmt: skip

    def everybody(self) -> list[tuple[str, str]]:
        """Return subject and department of all people and apps that may sign in, by subject."""
        people = self.refresh().people.values()
        return sorted((person.subject, person.department) for person in people if person.enabled)

    def snapshot_of(self, policy: Policy, more: Sequence[Row] = ()) -> PolicySnapshot:
        """Return another revision compiled with the roles people have now, and more links.

        Raises:
            Invalid: it does not compile.
        """
        links = sorted({*policy.content.links, *self.links(), *more})
        made = self._compiled(policy, policy.content.rules, links, "")
        return made.with_shares(shares_of(self._shared(self.refresh())))

    def snapshot(self) -> PolicySnapshot:
        """Return the state in force, compiled as every process compiles it."""
        state = self.refresh()
        made, snapshot = self._tables(state), self._snapshot
        mark = made.message.rules_version
        if snapshot is None or snapshot.rules_version != mark:
            snapshot = self._compiled(_seeded(state), made.rules, made.links, mark)
            self._snapshot = snapshot
        shared = self._shared(state)
        if snapshot.shares.version != shared.shares_version:
            snapshot = self._snapshot = snapshot.with_shares(shares_of(shared))
        return snapshot

    def revoked(self) -> Revoked:
        """Return what no longer counts at this very moment."""
        found = revocation_set(self.refresh(at_once=True).revoked)
        return Revoked(frozenset(found.token_ids), dict(found.subjects), found.revocations_version)

    def reply(self, request: pb.GetPolicySnapshotRequest) -> pb.GetPolicySnapshotResponse:
        """Return what is newer than what the asker holds; what is revoked arrives even if the rules cannot."""
        state = self.refresh()
        reply, revoked = pb.GetPolicySnapshotResponse(keys=self._keys), revocation_set(state.revoked)
        if request.revocations_version != revoked.revocations_version:
            reply.revocations.CopyFrom(revoked)
        shared = self._shared(state)
        if request.shares_version != shared.shares_version:
            reply.shares.CopyFrom(shared)
        self._add_rules(reply, request, state)
        return reply

    def _add_rules(
        self, reply: pb.GetPolicySnapshotResponse, request: pb.GetPolicySnapshotRequest, state: _InForce
    ) -> None:
        """Add the rules if the asker has others; tables it holds go by their digest."""
        try:
            rules = self._tables(state).message
        except Invalid as error:
            return self._withhold(reply, type(error).__name__)
        if request.rules_version == rules.rules_version:
            return None
        reply.rule_set.CopyFrom(rules)
        found = reply.rule_set
        for table, digest in ((found.rule_table, request.rules_digest), (found.link_table, request.links_digest)):
            if table.digest == digest:
                table.CopyFrom(pb.WordTable(digest=digest))
        if reply.ByteSize() > LONGEST_REPLY:
            reply.ClearField("rule_set")
            self._withhold(reply, "they are too large for one message")
        return None

    def _withhold(self, reply: pb.GetPolicySnapshotResponse, why: str) -> None:
        reply.rules_withheld = True
        if why != self._withheld:
            log.error("the newest rules reach no process: %s", why)
            self._withheld = why

    def bytes_of(self, content: Content) -> int:
        """Return how large the rules would be on their way to a process, with the links of now.

        Raises:
            Invalid: they do not compile.
        """
        return sorted_set(content, 0, sorted({*content.links, *self.links()})).ByteSize()

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
        published = self._policies.newest_after(known.policy.number if known.policy else 0)
        revoked = tuple(sorted(self._revocations.unexpired(now), key=lambda revocation: revocation.id))
        lent = tuple(self._requests.lent(now)) if self._requests else ()
        shares = self._shares_now(known.shares, since, now)
        is_same = revoked == known.revoked and lent == known.lent and shares is known.shares
        if is_same and not changed and not published:
            return known
        return _InForce(
            published or known.policy, {**known.people, **changed} if changed else known.people, revoked, lent, shares
        )

    def _shares_now(self, known: Mapping[str, Lent], since: datetime, now: datetime) -> Mapping[str, Lent]:
        """Return the shares in force; what was known when nothing is new."""
        if self._shares is None:
            return known
        found = self._shares.in_force(now) if since == LONG_AGO else self._shares.changed_since(since)
        fresh = {**known, **{share.id: share for share in found}}
        fresh = {key: share for key, share in fresh.items() if share.is_in_force(now)}
        return known if fresh == known else fresh

    def _shared(self, state: _InForce) -> shares_pb2.ShareSet:
        """Return the shares in force of lenders who may sign in, each with the department they are in now."""
        with self._making:
            known = self._share_set
            if known is None or known[0].shares is not state.shares or known[0].people is not state.people:
                known = self._share_set = (state, share_set(state.shares.values(), state.people.values()))
            return known[1]

    def _tables(self, state: _InForce) -> _Made:
        with self._making:  # every process asks at once for what is new: it is made once
            known = self._made
            if known is None or not _alike(known.state, state):
                known = self._made = self._make(state, known)
            return known

    def _make(self, state: _InForce, known: _Made | None) -> _Made:
        policy = _seeded(state)
        shape = Shape.of(policy.content.model)
        same = known is not None and known.state.policy is policy
        rules = known.rules if known and same else shape.rules(policy.content.rules)
        links = shape.links(self._all_links(state))
        mark = f"{policy.number}-{rules.digest[:16]}-{links.digest[:16]}"
        return _Made(state, rules, links, rule_set(policy.content, policy.number, rules, links, mark))

    def _compiled(
        self, policy: Policy, rules: Sequence[Row] | Table, links: Sequence[Row] | Table, mark: str
    ) -> PolicySnapshot:
        content = policy.content
        with self.compiling:
            return PolicySnapshot(
                policy.number, content.model, rules, links, content.row_filters, rules_version=mark,
                conditions=content.conditions, organization=organization(content.departments, content.teams),
                now=lambda: self._now().timestamp(),
            )  # fmt: skip

    def _all_links(self, state: _InForce) -> list[Row]:
        content = _seeded(state).content
        own = {link for person in state.people.values() for link in person.links}
        return sorted({*content.links, *own, *_lent_links(state, content.model)})


def _alike(one: _InForce, other: _InForce) -> bool:
    """Tell whether two states have the same rules and role links."""
    return one.policy is other.policy and one.people is other.people and one.lent == other.lent


def _lent_links(state: _InForce, model: str) -> Iterator[Row]:
    """Yield the links of granted requests whose people may sign in, in the department they had it granted in."""
    here = {person.subject: person.department for person in state.people.values() if person.enabled}
    if model == MODEL:  # another may not know links with an end: they would keep the policy from compiling
        for request in state.lent:
            if here.get(request.subject) == request.department:
                yield from request.links()


def _person(principal: Principal) -> _Person:
    links = tuple(principal.links())
    return _Person(
        principal.subject, principal.kind, principal.department, links, principal.enabled,
        bool(principal.secret_hash), principal.issuer,
    )  # fmt: skip


def _seeded(state: _InForce) -> Policy:
    if state.policy is None:
        raise Unavailable("There is no policy yet; the access service is starting.")
    return state.policy


def share_set(shares: Iterable[Lent], people: Iterable[_Person]) -> shares_pb2.ShareSet:
    """Return all shares as a message; one whose lender may not sign in is left out."""
    here = {person.subject: person.department for person in people if person.enabled}
    lent = [
        share_message(
            Share(
                share.resource, share.record_id, share.borrower, share.purpose, share.lender, here[share.lender],
                share.lender_purpose, share.end_time.timestamp(),
            )
        )
        for share in sorted(shares, key=lambda each: each.id)
        if share.lender in here
    ]  # fmt: skip
    if not lent:
        return shares_pb2.ShareSet()
    content = b"".join(message.SerializeToString(deterministic=True) for message in lent)
    return shares_pb2.ShareSet(shares_version=hashlib.sha256(content).hexdigest()[:16], shares=lent)
