"""Sessions of people: begun by a sign-in, prolonged by step-up, over with the last token or when somebody ends them."""

from __future__ import annotations

from dataclasses import dataclass, replace
from datetime import datetime, timedelta

from services.access.domain.errors import SubjectTokenRefused
from services.access.domain.tokens import LIFETIME_SECONDS

LONGEST = timedelta(hours=12)  # then the password is asked for again (NIST SP 800-63B §4.2.3)
OVER = "The session is over; sign in again."


@dataclass(frozen=True, slots=True)
class Session:
    """One sign-in of a person; `methods` are those shown so far (amr, RFC 8176)."""

    id: str
    principal_id: str
    methods: tuple[str, ...]
    create_time: datetime
    last_token_time: datetime
    expire_time: datetime


def opened(session_id: str, principal_id: str, methods: tuple[str, ...], now: datetime) -> Session:
    """Return the session that a sign-in begins."""
    return Session(session_id, principal_id, methods, now, now, now + timedelta(seconds=LIFETIME_SECONDS))


def prolonged(session: Session | None, method: str, now: datetime) -> Session:
    """Return the session after the person showed themself again by `method`.

    Raises:
        SubjectTokenRefused: it was ended, or lasts twelve hours already.
    """
    if session is None or now >= min(session.create_time + LONGEST, session.expire_time):
        raise SubjectTokenRefused(OVER)
    methods = tuple(dict.fromkeys((*session.methods, method)))
    return replace(session, methods=methods, last_token_time=now, expire_time=now + timedelta(seconds=LIFETIME_SECONDS))
