"""Opens a recertification per department each quarter, reminds of it, and revokes what nobody confirmed.

Several processes may, and each step may be repeated after a kill: ids are made from what they are about, states are
written by compare-and-set, a role is marked before it is taken away.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass, replace
from datetime import datetime, timedelta

from services.access.changing import change, leaves_nobody, living
from services.access.domain import recertification as domain
from services.access.domain.anomalies import Alert
from services.access.domain.errors import LastAdministrator
from services.access.domain.policies import at_most, can_administer
from services.access.domain.principals import principal_id_of
from services.access.domain.recertification import Grant, Recertification
from services.access.methods.context import Context
from services.chassis.access.values import NO_PURPOSE
from services.chassis.audit import AuditEntry
from services.chassis.errors import Conflict

RESOURCE, SELF = "recertifications", "svc:access"
OVERSEES = ("principals", "update")  # who could take the role away anyway answers where no owner can
OPENED_EVERY = timedelta(hours=1)
PAGE = 500
TRIES = 5


@dataclass(frozen=True, slots=True)
class Answerers:
    """Who may answer, at times or under conditions at least: by department, and those who oversee all."""

    owners: dict[str, frozenset[str]]
    overseers: frozenset[str]
    administrators: frozenset[str] = frozenset()

    def could_answer(self, grant: Grant) -> bool:
        """Tell whether somebody other than its holder could."""
        return domain.answerable(grant, self.owners.get(grant.department, ()), self.overseers)


def answerers(context: Context) -> Answerers:
    """Return who may answer by the policy in force."""
    directory = context.directory
    content = living(directory.policy.content, context.now().timestamp())
    with directory.compiling:
        rules = at_most(content, directory.links())

    def may(person: tuple[str, str], *right: str) -> bool:
        return any(rules.decide((*person, *right, purpose)).allowed for purpose in (NO_PURPOSE, "administration"))

    owners: dict[str, set[str]] = {}
    overseers, administrators = set(), set()
    for person in directory.persons():
        if can_administer(rules, *person):
            administrators.add(person[0])
        if may(person, RESOURCE, "answer"):
            owners.setdefault(person[1], set()).add(person[0])
            if may(person, *OVERSEES):
                overseers.add(person[0])
    by_department = {name: frozenset(found) for name, found in owners.items()}
    return Answerers(by_department, frozenset(overseers), frozenset(administrators))


class Recertifier:
    """Looks at what is due; `days` is how long owners have to answer, 0 for no recertification at all."""

    def __init__(self, context: Context, days: float) -> None:
        self._context, self._days = context, days
        self._opened: datetime | None = None

    def look(self, now: datetime) -> None:
        """Do what is due."""
        if not self._days:
            return
        if self._opened is None or now >= self._opened + OPENED_EVERY:
            self._opened = now
            self._open(now)
        for review in self._context.recertifications.unfinished():
            with suppress(Conflict):  # another process was first
                self._go_on(review, now)

    def _open(self, now: datetime) -> None:
        c = self._context
        busy = {review.department for review in c.recertifications.unfinished()}
        people, who = list(c.everybody()), answerers(c)
        for department in c.directory.policy.content.department_names():
            review = domain.opening(department, self._days, now)
            if department in busy or c.recertifications.get(review.id) is not None:
                continue
            grants = list(domain.grants_of(review, people, c.directory.policy.content.links))
            if any(who.could_answer(grant) for grant in grants):
                c.recertifications.add(replace(review, escalated=not who.owners.get(department)))
            elif grants:
                self._alert(review.id, "", department, f"nobody could answer for {len(grants)} roles", now)

    def _go_on(self, review: Recertification, now: datetime) -> None:
        c = self._context
        if review.state == domain.OPENING:
            grants = domain.grants_of(review, c.everybody(), c.directory.policy.content.links)
            c.recertifications.add_grants(grants)
            review = c.recertifications.save(replace(review, state=domain.OPEN), self._count_open(review))
        for grant in self._all(review, domain.REVOKING):
            settle(c, grant, now)
        if now >= review.due_time:
            self._close(review, now)
        elif domain.reminder_due(review, now):
            reminders = sum(review.due_time - before <= now for before in domain.REMINDED_BEFORE)
            c.recertifications.save(replace(review, reminders=reminders), self._count_open(review), reminder=True)

    def _close(self, review: Recertification, now: datetime) -> None:
        c, who = self._context, answerers(self._context)
        for grant in self._all(review, domain.OPEN):
            state, reason = judged(c, grant, who)
            marked = c.recertifications.save_grant(replace(grant, state=state, comment=reason, answer_time=now))
            settle(c, marked, now)
        c.recertifications.save(replace(review, state=domain.CLOSED))

    def _all(self, review: Recertification, state: str) -> list[Grant]:
        return list(grants_in(self._context, review, state))

    def _count_open(self, review: Recertification) -> int:
        return len(self._all(review, domain.OPEN))

    def _alert(self, id: str, subject: str, department: str, detail: str, now: datetime) -> None:
        raise_alert(self._context, id, subject, department, detail, now)


def judged(context: Context, grant: Grant, who: Answerers) -> tuple[str, str]:
    """Return what becomes of a grant that nobody answered, and why."""
    principal = context.principals.get(principal_id_of(grant.subject))
    held = domain.is_held(grant, principal, context.directory.policy.content.links)
    state, reason = domain.outcome(grant, held, who.could_answer(grant))
    if state == domain.REVOKING and principal is not None and grant.subject in who.administrators:
        changed = replace(principal, roles=tuple(role for role in principal.roles if role != grant.role))
        if leaves_nobody(context, changed):
            return domain.KEPT, domain.LAST
    return state, reason


def settle(context: Context, grant: Grant, now: datetime) -> Grant:
    """Take away what is marked so, and tell of what is kept against the rule; to be repeated until it is done.

    The order: marked, taken away, written into the audit trail, done. Killed in between, it goes on from the mark.
    """
    if grant.state == domain.KEPT:
        raise_alert(context, grant.id, grant.subject, grant.department, f"{grant.role}: {grant.comment}", now)
    if grant.state != domain.REVOKING:
        return grant
    try:
        _take_away(context, grant)
        done = replace(grant, state=domain.REVOKED)
    except LastAdministrator:
        done = replace(grant, state=domain.KEPT, comment=domain.LAST)
        raise_alert(context, grant.id, grant.subject, grant.department, f"{grant.role}: {domain.LAST}", now)
    _write(context, done, now)
    return context.recertifications.save_grant(done)


def grants_in(context: Context, review: Recertification, state: str = "") -> Iterator[Grant]:
    """Yield the roles of a review, by id; those of a state are read before the caller changes any of their page."""
    after = ""
    while found := context.recertifications.grants(review.id, state, after, PAGE):
        yield from found
        after = found[-1].id


def raise_alert(context: Context, about: str, subject: str, department: str, detail: str, now: datetime) -> None:
    """Have auditors look at something; the same thing once."""
    id = hashlib.sha256(f"recertification {about}".encode()).hexdigest()[:32]
    context.alerts.add(Alert(id, "recertification", 0, subject or SELF, department, now, 1, detail, ()))


def _take_away(context: Context, grant: Grant) -> None:
    """Remove the role, unless somebody did; of several who change the principal the last sees what the others did."""
    for turn in range(TRIES):
        known = context.principals.get(principal_id_of(grant.subject))
        if known is None or grant.role not in known.roles or known.department != grant.department:
            return
        try:
            change(context, replace(known, roles=tuple(role for role in known.roles if role != grant.role)))
            return
        except Conflict:
            if turn == TRIES - 1:
                raise


def _write(context: Context, grant: Grant, now: datetime) -> None:
    """Write into the trail what was done, once, whoever repeats it."""
    batch = f"recertification-{grant.id}"
    if context.chain.blocks.by_batch(batch) is not None:
        return
    entry = AuditEntry.of(
        now=now, service="access", subject=grant.answerer or SELF, department=grant.department, resource=RESOURCE,
        action="revoke", target=f"{grant.recertification_id}/{grant.id}", outcome="allowed", status="OK",
        reason=f"{grant.state} {grant.role} of {grant.subject}: {grant.comment}",
    )  # fmt: skip
    context.chain.append(batch, [entry])
