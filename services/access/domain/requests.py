"""Access requests: a role for a while, approved by who owns the data; break-glass: at once, reviewed afterwards.

A granted request is a role link with an end (issue C9): it ends at the moment in every process, no job ends it.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from itertools import takewhile

from services.access.domain.errors import AccessRequestInvalid, AccessRequestState, ReviewOverdue, SelfApproval
from services.access.domain.policies import Content, Row
from services.access.domain.vocabulary import EMERGENCY_ROLE
from services.chassis.access import MODEL
from services.chassis.access.snapshot import EMERGENCY_LINK
from services.chassis.errors import FieldViolation

REQUESTED, COUNTERSIGN, GRANTED = "requested", "countersign", "granted"
REJECTED, CANCELLED, RETURNED, REVOKED = "rejected", "cancelled", "returned", "revoked"
EXPIRED, REVIEW_DUE, CLOSED = "expired", "review_due", "closed"
STATES = (REQUESTED, COUNTERSIGN, GRANTED, REJECTED, CANCELLED, RETURNED, REVOKED, EXPIRED, REVIEW_DUE, CLOSED)
WAITING = (REQUESTED, COUNTERSIGN)
FINDINGS = ("justified", "mistaken", "misuse")

LONGEST = timedelta(days=90)
LONGEST_EMERGENCY = timedelta(minutes=60)  # reliability row 16
REVIEW_WITHIN = timedelta(hours=72)  # from its end; afterwards the person opens no other
REMINDED_BEFORE = timedelta(days=3)


@dataclass(frozen=True, slots=True)
class AccessRequest:
    """What somebody asked for and what became of it.

    `state` is the stored one; `state_at` tells what it is at a moment. `end_time` is the end asked for, then granted,
    then that of a return or revocation.
    """

    id: str
    subject: str
    department: str
    role: str
    purpose: str
    reason: str
    end_time: datetime
    create_time: datetime
    state: str = REQUESTED
    emergency: bool = False
    sensitive: bool = False
    renews: str = ""
    approver: str = ""
    countersigner: str = ""
    closer: str = ""  # who rejected, cancelled, returned, revoked or reviewed it
    comment: str = ""
    finding: str = ""
    reminded: bool = False
    version: int = 0
    update_time: datetime | None = None

    @property
    def review_due_time(self) -> datetime | None:
        """Return until when somebody else reviews it; None when nobody has to."""
        return self.end_time + REVIEW_WITHIN if self.emergency else None

    def is_open(self, now: datetime) -> bool:
        """Tell whether it gives its role now."""
        return self.state == GRANTED and now < self.end_time

    def state_at(self, now: datetime) -> str:
        """Return the state at a moment: what was granted ends, what nobody answered lapses."""
        if self.emergency and self.state != CLOSED and not self.is_open(now):
            return REVIEW_DUE
        if self.state in (*WAITING, GRANTED) and now >= self.end_time:
            return EXPIRED
        return self.state

    def links(self) -> list[Row]:
        """Return the role links it gives, which end with it."""
        end = ("0", str(int(self.end_time.timestamp())))
        if not self.emergency:
            return [(self.subject, self.role, self.department, *end)]
        through = f"{EMERGENCY_LINK}{self.id}"
        return [(self.subject, through, self.department, *end), (through, self.role, self.department, *end)]


def checked(request: AccessRequest, content: Content, roles: Iterable[str]) -> AccessRequest:
    """Return the request, told whether its role shows sensitive fields, when it can be granted.

    Args:
        request: as asked for.
        content: the policy in force.
        roles: the roles the person has already, for good.

    Raises:
        AccessRequestInvalid: naming each bad field.
    """
    wrong = []
    rules = _rules_of(request, content)
    if not rules:
        wrong.append(_gives_nothing(request))
    if request.role in roles:
        wrong.append(FieldViolation("access_request.role", "you have it already"))
    if request.emergency is not request.role.startswith(EMERGENCY_ROLE):
        text = f"breaking the glass opens roles named {EMERGENCY_ROLE}…, and nothing else does"
        wrong.append(FieldViolation("access_request.role", text))
    purposes = _purposes(rules) or _purposes(content.rules)
    if request.purpose not in purposes:
        text = f"the role is for {', '.join(sorted(purposes))}"
        wrong.append(FieldViolation("access_request.purpose", text))
    longest = LONGEST_EMERGENCY if request.emergency else LONGEST
    if not request.create_time < request.end_time <= request.create_time + longest:
        text = "must lie ahead, by 90 days at most (60 minutes when the glass is broken)"
        wrong.append(FieldViolation("access_request.end_time", text))
    if wrong:
        raise AccessRequestInvalid("The access request has bad fields.", violations=wrong)
    return replace(request, sensitive=any(map(_is_sensitive, rules)))


def weighed(request: AccessRequest, content: Content) -> AccessRequest:
    """Return a request made earlier, told whether its role shows sensitive fields by the policy that is in force now.

    Raises:
        AccessRequestInvalid: the policy lends the role no more.
    """
    rules = _rules_of(request, content)
    if not rules:
        text = "The policy has changed: reject the request, or have the role put back."
        raise AccessRequestInvalid(text, violations=[_gives_nothing(request)])
    return replace(request, sensitive=any(map(_is_sensitive, rules)))


def _gives_nothing(request: AccessRequest) -> FieldViolation:
    return FieldViolation("access_request.role", f"the policy gives it nothing in department {request.department}")


def _rules_of(request: AccessRequest, content: Content) -> list[Row]:
    """Return what its role allows in its department, with the roles it includes; raises AccessRequestInvalid."""
    if content.model != MODEL:
        raise AccessRequestInvalid("The policy has a model of its own, which knows no time: its roles are not lent.")
    department, names, edge = request.department, {request.role}, {request.role}
    while edge := {link[1] for link in content.links if link[0] in edge and link[2] == department} - names:
        names |= edge
    return [r for r in content.rules if r[0] in names and r[1] in ("*", department) and r[5] == "allow"]


def _purposes(rules: Iterable[Row]) -> set[str]:
    return {rule[4] for rule in rules} - {"*"}


def _is_sensitive(rule: Row) -> bool:
    return rule[2].startswith("fields/sensitive/") and rule[3] in ("show", "reveal", "*")


def approved(request: AccessRequest, by: str, now: datetime) -> AccessRequest:
    """Return it approved by the data owner: granted, or waiting for a second person where data are sensitive.

    Raises:
        AccessRequestState: it does not wait for that.
        SelfApproval: of the applicant's own.
    """
    _require(request, now, REQUESTED)
    _require_other(by, request.subject)
    return replace(request, state=COUNTERSIGN if request.sensitive else GRANTED, approver=by)


def countersigned(request: AccessRequest, by: str, now: datetime) -> AccessRequest:
    """Return it granted by the second person.

    Raises:
        AccessRequestState: it does not wait for one.
        SelfApproval: by the applicant or the first approver.
    """
    _require(request, now, COUNTERSIGN)
    _require_other(by, request.subject, request.approver)
    return replace(request, state=GRANTED, countersigner=by)


def rejected(request: AccessRequest, by: str, comment: str, now: datetime) -> AccessRequest:
    """Return it refused; raises AccessRequestState and SelfApproval as `approved` does."""
    _require(request, now, *WAITING)
    _require_other(by, request.subject)
    return replace(request, state=REJECTED, closer=by, comment=comment)


def cancelled(request: AccessRequest, now: datetime) -> AccessRequest:
    """Return it withdrawn by the applicant before anybody granted it; raises AccessRequestState."""
    _require(request, now, *WAITING)
    return replace(request, state=CANCELLED, closer=request.subject)


def returned(request: AccessRequest, now: datetime) -> AccessRequest:
    """Return it given back early by its holder; raises AccessRequestState."""
    _require(request, now, GRANTED)
    return replace(request, state=RETURNED, closer=request.subject, end_time=now)


def revoked(request: AccessRequest, by: str, comment: str, now: datetime) -> AccessRequest:
    """Return it taken away; raises AccessRequestState."""
    _require(request, now, GRANTED)
    return replace(request, state=REVOKED, closer=by, comment=comment, end_time=now)


def reviewed(request: AccessRequest, by: str, finding: str, comment: str, now: datetime) -> AccessRequest:
    """Return a broken glass closed by another person with a finding: justified, mistaken or misuse.

    Raises:
        AccessRequestState: it is none, is open still, or is closed.
        SelfApproval: by who opened it.
    """
    _require(request, now, REVIEW_DUE)
    _require_other(by, request.subject)
    return replace(request, state=CLOSED, closer=by, finding=finding, comment=comment)


def earlier_than(request_id: str, stored: Iterable[AccessRequest]) -> list[AccessRequest]:
    """Return those that were made before one of them; of two of one moment that with the smaller id."""
    in_turn = sorted(stored, key=lambda request: (request.create_time, request.id))
    return list(takewhile(lambda request: request.id != request_id, in_turn))


def require_none_open(earlier: Iterable[AccessRequest], now: datetime) -> None:
    """Let somebody break the glass.

    Raises:
        AccessRequestState: one of theirs is open.
        ReviewOverdue: one of theirs was not reviewed in time.
    """
    for request in earlier:
        if request.is_open(now):
            raise AccessRequestState("Yours is open already.", metadata={"access_request_id": request.id})
        due = request.review_due_time
        if request.state_at(now) == REVIEW_DUE and due is not None and due <= now:
            raise ReviewOverdue(
                "An earlier one was not reviewed in time: have it reviewed first.",
                metadata={"access_request_id": request.id},
            )


def check_renewable(request: AccessRequest, now: datetime) -> None:
    """Let its holder ask for longer while they have it; raises AccessRequestState."""
    _require(request, now, GRANTED)


def needs_reminder(request: AccessRequest, now: datetime) -> bool:
    """Tell whether its holder should hear that it ends soon."""
    lent = request.end_time - request.create_time
    soon = now >= request.end_time - min(REMINDED_BEFORE, lent / 4)
    return request.is_open(now) and not request.emergency and not request.reminded and soon


def _require(request: AccessRequest, now: datetime, *states: str) -> None:
    state = request.state_at(now)
    if state not in states:
        metadata = {"access_request_id": request.id, "state": state}
        raise AccessRequestState(f"The request is {state}; this needs {' or '.join(states)}.", metadata=metadata)


def _require_other(by: str, *others: str) -> None:
    if by in others:
        raise SelfApproval("Another person must do this: not the applicant, not the first approver.")
