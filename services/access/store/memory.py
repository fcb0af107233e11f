"""The stores in memory, for tests and for trying things out; same promises as MongoDB."""

from __future__ import annotations

import threading
from dataclasses import replace
from datetime import UTC, datetime

from services.access.domain.errors import PrincipalExists
from services.access.domain.policies import Heading, Policy
from services.access.domain.principals import Principal
from services.access.domain.tokens import Revocation
from services.chassis.errors import AlreadyExists, Conflict
from services.chassis.paging import Seen


class MemoryPrincipals:
    """People and apps in a dict."""

    def __init__(self) -> None:
        self._rows: dict[str, Principal] = {}
        self._requests: dict[str, str] = {}
        self._lock = threading.Lock()

    def insert(self, principal: Principal, request_id: str = "") -> Principal:
        """Add one."""
        with self._lock:
            if principal.id in self._rows:
                raise PrincipalExists("This login is taken.", metadata={"principal_id": principal.id})
            now = datetime.now(UTC)
            stored = replace(principal, version=1, create_time=now, update_time=now)
            self._rows[principal.id] = stored
            self._requests[principal.id] = request_id
            return stored

    def get(self, principal_id: str) -> Principal | None:
        """Return one by id."""
        return self._rows.get(principal_id)

    def by_handle(self, user_handle: str) -> Principal | None:
        """Return one by what its passkeys know it by."""
        found = (p for p in list(self._rows.values()) if user_handle and p.user_handle == user_handle)
        return next(found, None)

    def made_by(self, request_id: str, principal_id: str) -> bool:
        """Tell whether this request created this principal."""
        return bool(request_id) and self._requests.get(principal_id) == request_id

    def save(self, principal: Principal) -> Principal:
        """Write the state if nobody changed it."""
        with self._lock:
            known = self._rows.get(principal.id)
            if known is None or known.version != principal.version:
                raise Conflict("the record was changed meanwhile; read it again and repeat")
            stored = replace(principal, version=principal.version + 1, update_time=datetime.now(UTC))
            self._rows[principal.id] = stored
            return stored

    def page(self, after: str, limit: int, department: str, locked_at: datetime | None = None) -> list[Principal]:
        """Return a page by id."""
        found = sorted((p for p in self._rows.values() if p.id > after), key=lambda p: p.id)
        if locked_at is not None:
            found = [p for p in found if p.locked_until is not None and p.locked_until > locked_at]
        return [p for p in found if department in ("", p.department)][:limit]

    def changed_since(self, when: datetime) -> list[Principal]:
        """Return the changed ones."""
        return [p for p in self._rows.values() if p.update_time is not None and p.update_time >= when]


class MemoryRevocations:
    """Revocations in a dict."""

    def __init__(self) -> None:
        self._rows: dict[str, Revocation] = {}

    def add(self, revocation: Revocation) -> None:
        """Add or renew one; never back to an earlier moment."""
        known = self._rows.get(revocation.id, revocation)
        at, until = max(known.at, revocation.at), max(known.expire_time, revocation.expire_time)
        self._rows[revocation.id] = Revocation(revocation.id, at, until)

    def unexpired(self, now: datetime) -> list[Revocation]:
        """Return those still of use."""
        return [revocation for revocation in list(self._rows.values()) if revocation.expire_time > now]


class MemoryPolicies:
    """Policy revisions in a dict."""

    def __init__(self) -> None:
        self._rows: dict[str, Policy] = {}
        self._lock = threading.Lock()

    def insert(self, policy: Policy, request_id: str = "") -> Policy:
        """Add one."""
        with self._lock:
            if policy.id in self._rows:
                raise AlreadyExists("a record with this name or key exists already")
            self._check_number(policy)
            now = datetime.now(UTC)
            stored = replace(policy, version=1, create_time=now, update_time=now)
            self._rows[policy.id] = stored
            return stored

    def get(self, policy_id: str) -> Policy | None:
        """Return one by id."""
        return self._rows.get(policy_id)

    def save(self, policy: Policy) -> Policy:
        """Write a new state if nobody changed it."""
        with self._lock:
            known = self._rows.get(policy.id)
            if known is None or known.version != policy.version:
                raise Conflict("the record was changed meanwhile; read it again and repeat")
            self._check_number(policy)
            stored = replace(policy, version=policy.version + 1, update_time=datetime.now(UTC))
            self._rows[policy.id] = stored
            return stored

    def page(self, before: Seen | None, limit: int) -> list[Heading]:
        """Return a page, the newest first."""
        dated = {(p.create_time, p.id): p for p in list(self._rows.values()) if p.create_time}
        seen = sorted((place for place in dated if before is None or place < before), reverse=True)
        return [dated[place].heading() for place in seen[:limit]]

    def newest_after(self, number: int) -> Policy | None:
        """Return the highest."""
        return max((p for p in list(self._rows.values()) if p.number > number), key=lambda p: p.number, default=None)

    def numbered(self, number: int) -> Policy | None:
        """Return one."""
        return next((p for p in list(self._rows.values()) if p.number == number > 0), None)

    def _check_number(self, policy: Policy) -> None:
        if policy.number and any(p.number == policy.number and p.id != policy.id for p in self._rows.values()):
            raise AlreadyExists("a record with this name or key exists already")
