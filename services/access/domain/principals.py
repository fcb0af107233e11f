"""Principals: people and apps, their secrets, and the rules of signing in."""

from __future__ import annotations

import hmac
import re
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field, replace
from datetime import datetime, timedelta
from typing import Literal, Protocol

import pyotp

from services.access.domain.errors import PrincipalInvalid
from services.access.domain.passwords import normalized
from services.access.domain.recovery import spent
from services.access.domain.vocabulary import DEPARTMENTS, EMERGENCY_ROLE
from services.chassis.errors import FieldViolation

Kind = Literal["app", "user"]

LOGIN = re.compile(r"[a-z0-9][a-z0-9._-]{0,62}")
ROLE = re.compile(r"role:[a-z][a-z0-9-]{0,39}")
FREE_FAILURES = 5  # wrong tries before a person has to wait
LONGEST_WAIT_SECONDS = 900
TOTP_STEP_SECONDS = 30  # RFC 6238
TOTP_DRIFT_STEPS = 1  # the code before and the one after count: clocks differ (RFC 6238 §5.2)


class Passwords(Protocol):
    """Hashes and checks secrets; slow on purpose."""

    def hash(self, secret: str) -> str:
        """Return a salted hash of the secret."""

    def matches(self, hashed: str, secret: str) -> bool:
        """Tell whether the hash is of this secret."""


CredentialKind = Literal["secret", "key", "certificate", "key_set"]
INITIAL = "initial"  # the id of the secret an app was made with


def principal_id_of(subject: str) -> str:
    """Return the id of the principal that a subject is, `user:li` → `user-li`."""
    return subject.replace(":", "-", 1)


@dataclass(frozen=True, slots=True)
class Credential:
    """One way an app proves itself: `value` is a secret's hash, a public key's JWK or a certificate's thumbprint."""

    id: str
    kind: CredentialKind
    value: str = field(repr=False)
    display_name: str = ""
    create_time: datetime | None = None
    expire_time: datetime | None = None
    request_id: str = ""


AuthenticatorKind = Literal["totp", "webauthn"]


@dataclass(frozen=True, slots=True)
class Authenticator:
    """A second factor a person added themself: one-time codes, or a WebAuthn credential by its public key.

    `secret` is of one-time codes, or while a WebAuthn credential is awaited its challenge; `credential_id` and
    `public_key` (COSE, RFC 9052) are base64url. It counts once `activation_end` is None.
    """

    id: str
    kind: AuthenticatorKind
    display_name: str
    create_time: datetime
    secret: str = field(default="", repr=False)
    step: int = 0
    credential_id: str = ""
    public_key: str = ""
    sign_count: int = 0
    transports: tuple[str, ...] = ()
    activation_end: datetime | None = None
    last_use_time: datetime | None = None

    @property
    def active(self) -> bool:
        """Tell whether it was shown once, so that it counts."""
        return self.activation_end is None


@dataclass(frozen=True, slots=True)
class Principal:
    """A person or an app; `version` is the stored version, 0 before the first write."""

    kind: Kind
    login: str
    department: str
    roles: tuple[str, ...]
    secret_hash: str = field(repr=False)
    totp_secret: str = field(default="", repr=False)
    enabled: bool = True
    failures: int = 0
    locked_until: datetime | None = None
    totp_step: int = 0
    version: int = 0
    create_time: datetime | None = None
    update_time: datetime | None = None
    credentials: tuple[Credential, ...] = ()  # of an app, beside the secret it was made with
    issuer: str = ""  # of a person who signs in at a company: the issuer's id
    external_id: str = ""  # and its `sub` there, once it is known
    directory_id: str = ""  # and its externalId in the company's directory (SCIM)
    invitation_hash: str = field(default="", repr=False)
    invitation_end: datetime | None = None
    recovery_hashes: tuple[str, ...] = field(default=(), repr=False)  # empty where the code was used
    authenticators: tuple[Authenticator, ...] = ()  # of a person, beside the one-time codes of the invitation
    user_handle: str = ""  # what their passkeys know them by: random, base64url
    inviter: str = ""  # who was shown their last invitation, and could have taken it
    invite_time: datetime | None = None
    bootstrap_hash: str = field(default="", repr=False)  # of what the bootstrap file said when it was last looked at

    @property
    def id(self) -> str:
        """The last segment of the resource name."""
        return f"{self.kind}-{self.login}"

    @property
    def subject(self) -> str:
        """The name in rules, tokens and the audit trail."""
        return f"{self.kind}:{self.login}"

    def links(self) -> list[tuple[str, str, str]]:
        """Return the principal's role links for Casbin; none while disabled."""
        return [(self.subject, role, self.department) for role in self.roles] if self.enabled else []


def checked(principal: Principal, known_roles: Iterable[str], departments: Sequence[str] = DEPARTMENTS) -> Principal:
    """Return the principal when its fields make sense.

    Raises:
        PrincipalInvalid: naming each bad field; department and roles must be of the current policy.
    """
    violations = []
    if not LOGIN.fullmatch(principal.login):
        violations.append(FieldViolation("login", "use lower-case letters, digits, '.', '_' and '-'"))
    if principal.department not in departments:
        violations.append(FieldViolation("department", f"use one of {', '.join(departments)}"))
    known = set(known_roles)
    for position, role in enumerate(principal.roles):
        if role not in known:
            violations.append(FieldViolation(f"roles[{position}]", "no role of the current policy has this name"))
        elif role.startswith(EMERGENCY_ROLE):
            violations.append(FieldViolation(f"roles[{position}]", "nobody holds it: it is opened by :breakGlass"))
    if violations:
        raise PrincipalInvalid("The principal has bad fields.", violations=violations)
    return principal


@dataclass(frozen=True, slots=True)
class Shown:
    """What a person shows beside the password: a one-time code, a recovery code, or an authenticator's answer.

    `answer` judges the last one: it returns the person with the authenticator's counter moved on, None when wrong.
    """

    totp: str = field(default="", repr=False)
    recovery_code: str = field(default="", repr=False)
    answer: Callable[[Principal | None], Principal | None] | None = field(default=None, repr=False)

    @property
    def method(self) -> str:
        """Return the word for `amr` (RFC 8176); which hardware keeps the key is not asked, so it is possession."""
        return "pop" if self.answer else "otp"


def sign_in_person(
    principal: Principal | None, password: str, shown: Shown, now: datetime, passwords: Passwords, decoy: str
) -> tuple[Principal | None, bool]:
    """Return the person's next state and whether they are in; the state must be stored either way.

    Five wrong tries are free, then the wait doubles from one second to fifteen minutes; a code counts once.
    During a wait even right credentials are refused, in the same words. Whatever is wrong takes as long.
    """
    known = principal.secret_hash if principal else ""
    right = passwords.matches(known or decoy, normalized(password)) and bool(known)
    after = _after(principal, shown, now, passwords, decoy)
    return _tried(principal, after if right else None, now)


def confirm_person(
    principal: Principal | None, shown: Shown, now: datetime, passwords: Passwords, decoy: str
) -> tuple[Principal | None, bool]:
    """Return the next state of a person who is signed in, and whether the code shows it is still them.

    Wrong codes count as wrong sign-ins do: six digits would be guessed otherwise.
    """
    return _tried(principal, _after(principal, shown, now, passwords, decoy), now)


def sign_in_by_passkey(principal: Principal | None, shown: Shown, now: datetime) -> tuple[Principal | None, bool]:
    """Return the next state of a person whose authenticator verified them itself, in place of a password."""
    known = principal if principal is not None and principal.secret_hash else None  # an invited one has none yet
    return _tried(principal, shown.answer(known) if shown.answer else None, now)


def confirm_password(
    principal: Principal, password: str, now: datetime, passwords: Passwords
) -> tuple[Principal | None, bool]:
    """Return the next state of a person who is signed in, and whether they know their password."""
    right = bool(principal.secret_hash) and passwords.matches(principal.secret_hash, normalized(password))
    return _tried(principal, principal if right else None, now)


def _after(
    principal: Principal | None, shown: Shown, now: datetime, passwords: Passwords, decoy: str
) -> Principal | None:
    """Return the person with the code used up, None when it is not right."""
    if shown.answer is not None:
        return shown.answer(principal)
    if shown.recovery_code:
        hashes = spent(principal.recovery_hashes if principal else (), shown.recovery_code, passwords.matches, decoy)
        return replace(principal, recovery_hashes=hashes) if principal and hashes is not None else None
    return _by_code(principal, shown.totp, now) if principal else None


def _by_code(principal: Principal, code: str, now: datetime) -> Principal | None:
    step = matching_step(principal.totp_secret, code, now, principal.totp_step)
    if step is not None:
        return replace(principal, totp_step=step)
    for one in principal.authenticators:
        step = matching_step(one.secret, code, now, one.step) if one.kind == "totp" and one.active else None
        if step is not None:
            return with_authenticator(principal, replace(one, step=step, last_use_time=now))
    return None


def with_authenticator(principal: Principal, changed: Authenticator) -> Principal:
    """Return the person with another state of one of their authenticators."""
    kept = principal.authenticators
    return replace(principal, authenticators=tuple(changed if one.id == changed.id else one for one in kept))


def _tried(principal: Principal | None, after: Principal | None, now: datetime) -> tuple[Principal | None, bool]:
    """Return the state after a right try (`after`), or after a wrong one."""
    if principal is None or principal.kind != "user" or not principal.enabled:
        return None, False
    if principal.locked_until is not None and now < principal.locked_until:
        return principal, False
    if after is not None:
        return replace(after, failures=0, locked_until=None), True
    failures = principal.failures + 1
    wait = min(2 ** min(failures - FREE_FAILURES, 20), LONGEST_WAIT_SECONDS) if failures >= FREE_FAILURES else 0
    locked = now + timedelta(seconds=wait) if wait else None
    return replace(principal, failures=failures, locked_until=locked), False


def matching_step(totp_secret: str, code: str, now: datetime, last_step: int) -> int | None:
    """Return the time step of a one-time code that is right and was not used before, else None."""
    if not totp_secret:
        return None
    current = int(now.timestamp()) // TOTP_STEP_SECONDS
    totp = pyotp.TOTP(totp_secret)
    found = None
    for step in range(current - TOTP_DRIFT_STEPS, current + TOTP_DRIFT_STEPS + 1):
        same = hmac.compare_digest(totp.generate_otp(step).encode(), code.encode())
        if same and step > last_step:
            found = step
    return found
