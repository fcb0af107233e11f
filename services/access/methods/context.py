"""What the methods of the servicer share."""

from __future__ import annotations

import secrets
import uuid
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from datetime import UTC, datetime

import pyotp
from argon2 import PasswordHasher
from argon2.exceptions import InvalidHashError, VerificationError

from services.access.chain import Chain
from services.access.company import Companies
from services.access.directory import Directory
from services.access.domain.passwords import Breached
from services.access.domain.principals import Passwords, Principal
from services.access.domain.simulation import Report
from services.access.domain.tokens import Issuer
from services.access.domain.vocabulary import Inventory
from services.access.domain.webauthn import RelyingParty
from services.access.store.alerts import Alerts
from services.access.store.issuers import Issuers
from services.access.store.names import Names
from services.access.store.once import Once, Uses
from services.access.store.ports import Policies, Principals, Revocations, Shadows
from services.access.store.recertifications import Recertifications
from services.access.store.requests import Requests
from services.access.store.sessions import Sessions
from services.access.store.shares import MemoryShares, ShareStore
from services.access.store.windows import MemoryQuotaWindows, QuotaWindows
from services.chassis.access import TokenVerifier
from services.chassis.audit import AuditEntry

PAGE = 500


class Argon2:
    """Argon2id with the least cost OWASP accepts: 19 MiB, two passes, one lane; about 30 ms."""

    def __init__(self) -> None:
        self._hasher = PasswordHasher(time_cost=2, memory_cost=19_456, parallelism=1)

    def hash(self, secret: str) -> str:
        """Return a salted hash."""
        return self._hasher.hash(secret)

    def matches(self, hashed: str, secret: str) -> bool:
        """Tell whether the hash is of this secret."""
        try:
            return self._hasher.verify(hashed, secret)
        except (VerificationError, InvalidHashError):
            return False


@dataclass(frozen=True, slots=True)
class Secrets:
    """Makes secrets; given as a value so that tests can know them."""

    client_secret: Callable[[], str] = lambda: secrets.token_urlsafe(32)
    invitation: Callable[[], str] = lambda: secrets.token_urlsafe(32)
    letter: Callable[[str], str] = secrets.choice
    totp_secret: Callable[[], str] = pyotp.random_base32
    token_id: Callable[[], str] = lambda: uuid.uuid4().hex
    session_id: Callable[[], str] = lambda: secrets.token_hex(8)


@dataclass(frozen=True, slots=True)
class Context:
    """Stores, keys and clocks of the access service."""

    principals: Principals
    policies: Policies
    revocations: Revocations
    directory: Directory
    chain: Chain
    issuer: Issuer
    own_tokens: TokenVerifier
    inventory: Inventory
    passwords: Passwords
    decoy: str = field(repr=False)
    self_approval: bool
    uses: Uses
    shadows: Shadows
    once: Once
    sessions: Sessions
    names: Names
    alerts: Alerts
    requests: Requests
    recertifications: Recertifications
    issuers: Issuers
    companies: Companies
    breached: Breached
    token_endpoints: tuple[str, ...]  # what an assertion's `aud` may be: our issuer and the token endpoint's URL
    relying_party: RelyingParty = RelyingParty()
    secrets: Secrets = Secrets()
    now: Callable[[], datetime] = lambda: datetime.now(UTC)
    shares: ShareStore = field(default_factory=MemoryShares)
    windows: QuotaWindows = field(default_factory=MemoryQuotaWindows)
    reports: dict[object, Report] = field(default_factory=dict)

    def everybody(self) -> Iterator[Principal]:
        """Yield every person and app, by id, read in pages."""
        after = ""
        while found := self.principals.page(after, PAGE, ""):
            yield from found
            after = found[-1].id

    def note(
        self,
        action: str,
        subject: str,
        department: str,
        request_id: str,
        refused: bool = False,
        resource: str = "tokens",
    ) -> None:
        """Write what was done with a token into the audit chain before its outcome is told."""
        entry = AuditEntry.of(
            now=self.now(),
            service="access",
            subject=subject,
            department=department,
            resource=resource,
            action=action,
            outcome="denied" if refused else "allowed",
            reason="CREDENTIALS_REFUSED" if refused else "ALLOWED",
            status="UNAUTHENTICATED" if refused else "OK",
            request_id=request_id,
            emergency=self.directory.emergency_of(subject),
        )
        self.chain.append(f"token-{entry.entry_id}", [entry])
