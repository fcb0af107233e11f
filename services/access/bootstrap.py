"""The first state of an installation: policy version 1, and the principals the launcher names."""

from __future__ import annotations

import json
from contextlib import suppress
from dataclasses import dataclass, replace
from pathlib import Path

import pyotp

from services.access.defaults import ROLES, default_content
from services.access.domain.errors import PrincipalExists
from services.access.domain.passwords import normalized
from services.access.domain.policies import Policy
from services.access.domain.principals import LOGIN, Kind, Principal
from services.access.methods.context import Context
from services.chassis.config import ConfigError
from services.chassis.errors import AlreadyExists, Conflict

FIRST_POLICY = "default"
ROLE_OF_DEPARTMENT = {department: role for role, department, _ in ROLES if department != "*"}


@dataclass(frozen=True, slots=True)
class Wanted:
    """A principal that must exist, first with this secret."""

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
            secret, totp = normalized(person["password"]), person["totp_secret"]
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
    if context.policies.newest_after(0) is None:
        first = Policy(FIRST_POLICY, "published", 1, 0, "the default policy", default_content(), "svc:access")
        with suppress(AlreadyExists):  # another access process was first
            context.policies.insert(replace(first, submitter="svc:access", approver="svc:access"))
    for found in wanted:
        with suppress(PrincipalExists, Conflict):
            _upsert(context, found)
    context.directory.refresh(at_once=True)


def _upsert(context: Context, wanted: Wanted) -> None:
    """Create the principal; give one that is there the file's secret only when the file says another than before.

    What was rotated, retired or changed since is never undone by a restart. Department and roles are kept.
    """
    known, hashed = context.principals.get(f"{wanted.kind}-{wanted.login}"), context.passwords.hash
    said = json.dumps([wanted.secret, wanted.totp_secret])
    if known is None:
        roles, secret = (ROLE_OF_DEPARTMENT[wanted.department],), hashed(wanted.secret)
        new = Principal(wanted.kind, wanted.login, wanted.department, roles, secret, wanted.totp_secret)
        context.principals.insert(replace(new, bootstrap_hash=hashed(said)))
        return
    if known.bootstrap_hash and context.passwords.matches(known.bootstrap_hash, said):
        return
    changed = replace(known, bootstrap_hash=hashed(said))
    if known.bootstrap_hash and known.secret_hash:  # without the first it is not known whether the file changed
        changed = replace(changed, secret_hash=hashed(wanted.secret), totp_secret=wanted.totp_secret, totp_step=0)
    context.principals.save(changed)
