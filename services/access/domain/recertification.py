"""Recertification 定期复核: each quarter the owner of a department's data confirms who has which role there.

What is not answered by the due date is revoked (issue C9), unless nobody could answer: nobody confirms their own. Roles
that are lent need none of it: they end by themselves.
"""

from __future__ import annotations

import hashlib
from collections.abc import Collection, Iterable, Iterator
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from typing import Literal
from zoneinfo import ZoneInfo

from services.access.domain.errors import NotDataOwner, RecertificationState, SelfApproval
from services.access.domain.policies import Row
from services.access.domain.principals import Principal

ZONE = ZoneInfo("Asia/Shanghai")  # of the quarters
OPENING, OPEN, CLOSED = "opening", "open", "closed"
CONFIRMED, REVOKING, REVOKED, GONE, KEPT = "confirmed", "revoking", "revoked", "gone", "kept"
GRANT_STATES = (OPEN, CONFIRMED, REVOKING, REVOKED, GONE, KEPT)
REMINDED_BEFORE = (timedelta(days=14), timedelta(days=3))  # its end, in case it is that long

OF_POLICY = "it stands in the policy: take it out by a policy change"
NOBODY = "nobody but themselves could answer"
LAST = "the last administrator is never removed"
UNANSWERED = "not answered by the due date"
Decision = Literal["confirm", "revoke"]


@dataclass(frozen=True, slots=True)
class Recertification:
    """The review of one department in one quarter; `escalated` when the department has no owner who could answer."""

    id: str
    department: str
    start_time: datetime
    due_time: datetime
    state: str = OPENING
    escalated: bool = False
    reminders: int = 0
    version: int = 0
    create_time: datetime | None = None
    update_time: datetime | None = None


@dataclass(frozen=True, slots=True)
class Grant:
    """A role somebody has for good, and what was answered; `of_policy` when a link of the policy gives it."""

    id: str
    recertification_id: str
    subject: str
    department: str
    role: str
    of_policy: bool = False
    state: str = OPEN
    answerer: str = ""
    comment: str = ""
    answer_time: datetime | None = None
    version: int = 0
    create_time: datetime | None = None
    update_time: datetime | None = None


def quarter_of(now: datetime) -> tuple[str, datetime]:
    """Return the quarter's name, such as `2026-q4`, and when it began."""
    local = now.astimezone(ZONE)
    first = local.month - (local.month - 1) % 3
    began = datetime(local.year, first, 1, tzinfo=ZONE)
    return f"{local.year}-q{(first + 2) // 3}", began


def opening(department: str, days: float, now: datetime) -> Recertification:
    """Return a department's review of this quarter, from now on."""
    return Recertification(f"{quarter_of(now)[0]}-{department}", department, now, now + timedelta(days=days))


def grants_of(review: Recertification, people: Iterable[Principal], links: Iterable[Row]) -> Iterator[Grant]:
    """Yield what is to be confirmed: the roles of who was there when the quarter began, in the department."""
    began = quarter_of(review.start_time)[1]
    there = {
        person.subject: person
        for person in people
        if person.enabled and person.department == review.department
        and person.create_time is not None and person.create_time < began
    }  # fmt: skip
    for subject, person in sorted(there.items()):
        for role in sorted(set(person.roles)):
            yield _grant(review, subject, role, False)
    for member, role in sorted({(link[0], link[1]) for link in links if _is_standing(link, review)}):
        if member in there:
            yield _grant(review, member, role, True)


def _is_standing(link: Row, review: Recertification) -> bool:
    ends = float(link[4]) if len(link) > 4 else 0.0
    return link[2] == review.department and (not ends or ends > review.start_time.timestamp())


def _grant(review: Recertification, subject: str, role: str, of_policy: bool) -> Grant:
    id = hashlib.sha256(repr((review.id, subject, role, of_policy)).encode()).hexdigest()[:32]
    return Grant(id, review.id, subject, review.department, role, of_policy)


def is_held(grant: Grant, principal: Principal | None, links: Iterable[Row]) -> bool:
    """Tell whether somebody has the role still."""
    if principal is None or not principal.enabled or principal.department != grant.department:
        return False
    if grant.of_policy:
        return any(link[:3] == (grant.subject, grant.role, grant.department) for link in links)
    return grant.role in principal.roles


def answerable(grant: Grant, owners: Collection[str], overseers: Collection[str]) -> bool:
    """Tell whether somebody other than its holder may answer: an owner of the department, else whoever oversees."""
    return bool(set(owners) - {grant.subject}) or bool(set(overseers) - {grant.subject})


def answered(
    review: Recertification,
    grant: Grant,
    decision: Decision,
    by: tuple[str, str],
    comment: str,
    owners: Collection[str],
    oversees: bool,
    now: datetime,
) -> Grant:
    """Return the grant as somebody answered: confirmed, or about to be revoked; the same answer again changes nothing.

    Args:
        review: the review it is of.
        grant: what it is about.
        decision: what they say.
        by: subject and department of who says it.
        comment: why.
        owners: who owns the department's data and may answer.
        oversees: whether they may answer where no owner can.
        now: the time.

    Raises:
        RecertificationState: the review is over, or the grant was revoked or is gone.
        SelfApproval: it is their own.
        NotDataOwner: it is of another department, which has an owner to answer.
    """
    subject, department = by
    if grant.subject == subject:
        raise SelfApproval("Nobody confirms or revokes their own role here.")
    if department != grant.department and not (oversees and not set(owners) - {grant.subject}):
        raise NotDataOwner("An owner of that department's data answers.", metadata={"department": grant.department})
    if review.state != OPEN or now >= review.due_time or grant.state not in (OPEN, CONFIRMED):
        if decision == "revoke" and (grant.state in (REVOKING, REVOKED) or (grant.state == KEPT and grant.answerer)):
            return grant
        metadata = {"recertification_id": review.id, "state": grant.state if review.state == OPEN else review.state}
        raise RecertificationState("It is not to be answered any more.", metadata=metadata)
    state = CONFIRMED if decision == "confirm" else REVOKING
    if grant.of_policy and state == REVOKING:
        state = KEPT
    return replace(grant, state=state, answerer=subject, comment=comment, answer_time=now)


def outcome(grant: Grant, held: bool, could_be_answered: bool) -> tuple[str, str]:
    """Return what becomes of a grant that nobody answered by the due date, and why."""
    if not held:
        return GONE, ""
    if grant.of_policy:
        return KEPT, OF_POLICY
    if not could_be_answered:
        return KEPT, NOBODY
    return REVOKING, UNANSWERED


def reminder_due(review: Recertification, now: datetime) -> bool:
    """Tell whether it is time for the next reminder: 14 and 3 days before the end, or at once when it is later."""
    if review.state != OPEN or now >= review.due_time:
        return False
    passed = [before for before in REMINDED_BEFORE if review.due_time - before <= now]
    return len(passed) > review.reminders
