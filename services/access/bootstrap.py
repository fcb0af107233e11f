"""The first state of an installation: policy version 1, and the principals the launcher names."""

from __future__ import annotations

import json
from contextlib import suppress
from dataclasses import dataclass, replace
from pathlib import Path

import pyotp

from services.access.defaults import ROLES, default_content
from services.access.domain.errors import PrincipalExists
from services.access.domain.policies import Policy
from services.access.domain.principals import LOGIN, Kind, Principal
from services.access.methods.context import Context
from services.chassis.config import ConfigError
from services.chassis.errors import AlreadyExists, Conflict

FIRST_POLICY = "default"
ROLE_OF_DEPARTMENT = {department: role for role, department, _ in ROLES if department != "*"}


@dataclass(frozen=True, slots=True)
class Wanted:
    """A principal that must exist with this secret."""

    kind: Kind
    login: str
    department: str
    secret: str
    totp_secret: str = ""


def read_bootstrap(path: Path | None) -> list[Wanted]:
    """Return the principals a bootstrap file names: `clients`, `administrator`, `people`, as in credentials.json.

    Raises:
        ConfigError: the file is not there or not of this form; its content is not shown.
    """
    if path is None:
        return []
    try:
        raw = json.loads(path.read_text(encoding="utf-8"))
        wanted = [Wanted("app", c["client_id"], c["department"], c["client_secret"]) for c in raw["clients"]]
        people = [{**person} for person in raw.get("people", ())]
        if raw.get("administrator"):
            people.append({**raw["administrator"], "department": "administration"})
        for person in people:
            secret, totp = person["password"], person["totp_secret"]
            pyotp.TOTP(totp)  # raises ValueError below the 112 bits of RFC 4226
            wanted.append(Wanted("user", person["username"], person["department"], secret, totp))
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise ConfigError(f"KEHU_BOOTSTRAP_FILE cannot be read ({type(error).__name__})") from None
    for found in wanted:
        if not LOGIN.fullmatch(found.login) or found.department not in ROLE_OF_DEPARTMENT or not found.secret:
            raise ConfigError("KEHU_BOOTSTRAP_FILE names a principal with a bad login, department or secret")
    return wanted


def seed(context: Context, wanted: list[Wanted]) -> None:
    """Make the first policy and the wanted principals, whatever is there already; safe to repeat."""
    if not context.policies.published_after(0):
        first = Policy(FIRST_POLICY, "published", 1, 0, "the default policy", default_content(), "svc:access")
        with suppress(AlreadyExists):  # another access process was first
            context.policies.insert(replace(first, submitter="svc:access", approver="svc:access"))
    for found in wanted:
        with suppress(PrincipalExists, Conflict):
            _upsert(context, found)
    context.directory.refresh(at_once=True)


def _upsert(context: Context, wanted: Wanted) -> None:
    """Create the principal, or give it the wanted secret; roles and state of an existing one are kept."""
    known = context.principals.get(f"{wanted.kind}-{wanted.login}")
    if known is None:
        roles = (ROLE_OF_DEPARTMENT[wanted.department],)
        hashed = context.passwords.hash(wanted.secret)
        context.principals.insert(
            Principal(wanted.kind, wanted.login, wanted.department, roles, hashed, wanted.totp_secret)
        )
    elif not known.secret_hash:
        return  # an administrator retired this secret: a restart does not bring it back
    elif not context.passwords.matches(known.secret_hash, wanted.secret) or (wanted.totp_secret != known.totp_secret):
        hashed = context.passwords.hash(wanted.secret)
        changed = replace(known, secret_hash=hashed, totp_secret=wanted.totp_secret, totp_step=0)
        context.principals.save(changed)
