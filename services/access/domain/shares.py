"""Records lent one by one: who lends what to whom, for what and until when; the scope "shared with me"."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable
from dataclasses import dataclass, replace
from datetime import datetime, timedelta

from services.access.domain.errors import ShareInvalid, ShareState
from services.access.domain.policies import Content, purposes_of
from services.chassis.errors import FieldViolation

LENT, ENDED = "lent", "ended"
REVOKED, RETURNED, ERASED = "revoked", "returned", "erased"

LONGEST = timedelta(days=90)
MOST_OF_A_BORROWER = 500  # in force at once: each is asked of every row
MOST_OF_A_LENDER = 200  # in force at once: nobody alone takes the room of a borrower or of all
MOST = 10_000  # in force at once in all: every process holds them
DEPARTMENT = "department:"


@dataclass(frozen=True, slots=True)
class Lent:
    """One share; `record_id` is the record's id now, `lent_id` the one it was lent by: a profile may merge and part.

    `state` is the stored one, `state_at` tells what it is at a moment; `department` is the lender's.
    """

    id: str
    resource: str
    record_id: str
    lent_id: str
    borrower: str
    purpose: str
    reason: str
    lender: str
    department: str
    lender_purpose: str
    end_time: datetime
    create_time: datetime
    state: str = LENT
    closer: str = ""
    version: int = 0
    update_time: datetime | None = None

    @property
    def target(self) -> str:
        """Return the resource name of the record."""
        return f"{self.resource}/{self.record_id}"

    def is_in_force(self, now: datetime) -> bool:
        """Tell whether it counts now."""
        return self.state == LENT and now < self.end_time

    def is_like(self, other: Lent) -> bool:
        """Tell whether it lends the same record to the same borrower for the same purpose, by the same lender."""
        mine, theirs = ((e.lender, e.target, e.borrower, e.purpose) for e in (self, other))
        return mine == theirs

    def state_at(self, now: datetime) -> str:
        """Return the state at a moment."""
        return ENDED if self.state == LENT and now >= self.end_time else self.state

    def is_lent_to(self, subject: str, department: str) -> bool:
        """Tell whether somebody of a department has it."""
        return self.borrower in (subject, f"{DEPARTMENT}{department}")


def checked(share: Lent, content: Content, everybody: Iterable[tuple[str, str]]) -> Lent:
    """Return the share when it may be given.

    Args:
        share: as wished for.
        content: the policy in force.
        everybody: subject and department of all who may sign in.

    Raises:
        ShareInvalid: naming each bad field.
    """
    wrong = []
    if not _is_there(share.borrower, content, everybody):
        wrong.append(FieldViolation("terms.borrower", "name a person, an app or a department that there is"))
    if share.is_lent_to(share.lender, ""):
        wrong.append(FieldViolation("terms.borrower", "you have it already"))
    purposes = purposes_of(content)
    if share.purpose not in purposes:
        wrong.append(FieldViolation("terms.purpose", f"use one of {', '.join(sorted(purposes))}"))
    if not share.create_time < share.end_time <= share.create_time + LONGEST:
        wrong.append(FieldViolation("terms.end_time", f"must lie ahead, by {LONGEST.days} days at most"))
    if wrong:
        raise ShareInvalid("The record cannot be shared like this.", violations=wrong)
    return share


def _is_there(borrower: str, content: Content, everybody: Iterable[tuple[str, str]]) -> bool:
    if borrower.startswith(DEPARTMENT):
        return borrower.removeprefix(DEPARTMENT) in content.department_names()
    return any(subject == borrower for subject, _ in everybody)


def closed(share: Lent, by: str, department: str, now: datetime) -> Lent:
    """Return it ended now: returned when its borrower ends it, else revoked.

    Raises:
        ShareState: it is over already.
    """
    state = share.state_at(now)
    if state != LENT:
        raise ShareState(f"The share is {state} already.", metadata={"share_id": share.id, "state": state})
    is_borrower = by != share.lender and share.is_lent_to(by, department)
    return replace(share, state=RETURNED if is_borrower else REVOKED, closer=by, end_time=now)


def erased(share: Lent, names: Collection[str], now: datetime) -> Lent:
    """Return it ended when it is of a person who was erased, under any of their names."""
    is_gone = share.state == LENT and share.resource == "profiles" and {share.record_id, share.lent_id} & set(names)
    return replace(share, state=ERASED, end_time=min(now, share.end_time)) if is_gone else share


def followed(share: Lent, living: Callable[[str], str]) -> Lent:
    """Return it with the profile's id of now: after a merge that of the one it went into, after a split its own."""
    if share.resource != "profiles" or share.state != LENT:
        return share
    return replace(share, record_id=living(share.lent_id))
