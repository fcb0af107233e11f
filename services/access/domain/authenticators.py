"""Second factors a person adds themself: begun, shown once and from then on counted, removed; never the last one."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from datetime import UTC, datetime, timedelta

from services.access.domain.errors import (
    AuthenticatorLimit,
    AuthenticatorNotFound,
    AuthenticatorRefused,
    LastAuthenticator,
)
from services.access.domain.principals import (
    INITIAL,
    TOTP_STEP_SECONDS,
    Authenticator,
    AuthenticatorKind,
    Principal,
    matching_step,
    with_authenticator,
)
from services.access.domain.webauthn import Refused, RelyingParty, registered

MOST = 8  # of a person, the one of the invitation included
BEGUN_FOR = timedelta(minutes=10)


def begun(person: Principal, new: Authenticator) -> Principal:
    """Return the person with a second factor that is still to be shown; another one that was begun is given up.

    Raises:
        AuthenticatorLimit: they have eight.
    """
    kept = tuple(one for one in person.authenticators if one.active)
    if len(kept) + bool(person.totp_secret) >= MOST:
        raise AuthenticatorLimit("Remove one first.", metadata={"limit": str(MOST)})
    return replace(person, authenticators=(*kept, new))


def new(id: str, kind: AuthenticatorKind, display_name: str, secret: str, now: datetime) -> Authenticator:
    """Return a second factor to begin with: `secret` is for one-time codes, or the challenge of WebAuthn."""
    return Authenticator(id, kind, display_name, now, secret, activation_end=now + BEGUN_FOR)


def activated(
    person: Principal, authenticator_id: str, code: str, credential: str, party: RelyingParty, now: datetime
) -> Principal:
    """Return the person whose new second factor counts from now on.

    Raises:
        AuthenticatorNotFound: none of this id was begun, or too long ago.
        AuthenticatorRefused: it was not shown as it should.
    """
    found = next((one for one in person.authenticators if one.id == authenticator_id and not one.active), None)
    if found is None or found.activation_end is None or now >= found.activation_end:
        raise _not_found(authenticator_id)
    if found.kind == "totp":
        step = matching_step(found.secret, code, now, 0)
        if step is None:
            raise AuthenticatorRefused("The one-time code is not right; look at the authenticator again.")
        return with_authenticator(person, replace(found, step=step, activation_end=None))
    taken = [one.credential_id for one in person.authenticators if one.active]
    try:
        return with_authenticator(person, registered(party, credential, found, taken))
    except Refused:
        raise AuthenticatorRefused("The credential is not what was asked for; begin again.") from None


def without(person: Principal, authenticator_id: str) -> Principal:
    """Return the person without a second factor.

    Raises:
        AuthenticatorNotFound: there is none of this id.
        LastAuthenticator: nothing else but recovery codes would be left to sign in with.
    """
    if authenticator_id not in [one.id for one in listed(person)]:
        raise _not_found(authenticator_id)
    kept = tuple(one for one in person.authenticators if one.id != authenticator_id)
    changed = replace(person, authenticators=kept)
    if authenticator_id == INITIAL:
        changed = replace(changed, totp_secret="", totp_step=0)
    if not counting(changed):
        raise LastAuthenticator("Add another second factor first; or an administrator invites the person anew.")
    return changed


def counting(person: Principal) -> list[Authenticator]:
    """Return the second factors that count."""
    return [one for one in listed(person) if one.active]


def listed(person: Principal) -> Sequence[Authenticator]:
    """Return the second factors there are and one that is begun, that of the invitation first."""
    if not person.totp_secret or person.create_time is None:
        return person.authenticators
    used = datetime.fromtimestamp(person.totp_step * TOTP_STEP_SECONDS, UTC) if person.totp_step else None
    first = Authenticator(INITIAL, "totp", "", person.create_time, person.totp_secret, last_use_time=used)
    return (first, *person.authenticators)


def _not_found(authenticator_id: str) -> AuthenticatorNotFound:
    metadata = {"authenticator_id": authenticator_id}
    return AuthenticatorNotFound("There is no such second factor, or it was begun too long ago.", metadata=metadata)
