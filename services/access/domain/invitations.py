"""Invitations: a person gets a link that is good once, sets a password and shows a first one-time code."""

from __future__ import annotations

import hashlib
import hmac
import re
from dataclasses import replace
from datetime import datetime, timedelta

from services.access.domain.errors import InvitationRefused
from services.access.domain.principals import Principal, matching_step

GOOD_FOR = timedelta(hours=72)
TOKEN = re.compile(r"(user-[a-z0-9][a-z0-9._-]{0,62})\.([A-Za-z0-9_-]{43})")  # whose, and 256 random bits


def invited(person: Principal, secret: str, totp_secret: str, now: datetime, by: str = "") -> Principal:
    """Return a person who can no longer sign in but by a new invitation with this secret; `by` may have taken it."""
    return replace(
        person,
        secret_hash="",
        totp_secret=totp_secret,
        totp_step=0,
        failures=0,
        locked_until=None,
        recovery_hashes=(),
        authenticators=(),
        user_handle="",
        invitation_hash=_hash(secret),
        invitation_end=now + GOOD_FOR,
        inviter=by,
        invite_time=now,
    )


def whose(token: str) -> tuple[str, str]:
    """Return the principal id and the secret in an invitation's token.

    Raises:
        InvitationRefused: it is not of this form.
    """
    match = TOKEN.fullmatch(token)
    if match is None:
        raise InvitationRefused
    return match[1], match[2]


def opened(person: Principal | None, secret: str, now: datetime) -> Principal:
    """Return the person an invitation is of.

    Raises:
        InvitationRefused: it is used, too old, replaced by a newer one, or none of ours.
    """
    known = person.invitation_hash if person is not None else ""
    right = hmac.compare_digest((known or "-").encode(), _hash(secret).encode())
    if person is None or not right or not person.enabled or not person.invitation_end or now >= person.invitation_end:
        raise InvitationRefused
    return person


def accepted(person: Principal, password_hash: str, code: str, codes: tuple[str, ...], now: datetime) -> Principal:
    """Return the person with password and second factor; the invitation is used up.

    Raises:
        InvitationRefused: the code is not the authenticator's.
    """
    step = matching_step(person.totp_secret, code, now, person.totp_step)
    if step is None:
        raise InvitationRefused("The one-time code is not right; look at the authenticator again.")
    return replace(
        person,
        secret_hash=password_hash,
        totp_step=step,
        recovery_hashes=codes,
        invitation_hash="",
        invitation_end=None,
    )


def _hash(secret: str) -> str:
    return hashlib.sha256(secret.encode()).hexdigest()
