"""An access service in memory, with a clock of its own and known people."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta

import pyotp
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from kehu.access.v1 import access_pb2_grpc

from services.access.api import AccessServicer
from services.access.bootstrap import Wanted, seed
from services.access.breaches import BreachedPasswords
from services.access.chain import Chain
from services.access.company import Companies
from services.access.directory import Directory, OwnSnapshots
from services.access.domain.tokens import Issuer, SigningKey
from services.access.domain.webauthn import RelyingParty
from services.access.inventory import descriptors_path, read_inventory
from services.access.methods.context import Context
from services.access.store.alerts import MemoryAlerts
from services.access.store.issuers import MemoryIssuers
from services.access.store.memory import MemoryPolicies, MemoryPrincipals, MemoryRevocations
from services.access.store.memory_trail import MemoryBlocks, MemoryCheckpoints
from services.access.store.names import MemoryNames
from services.access.store.once import MemoryOnce, MemoryUses
from services.access.store.recertifications import MemoryRecertifications
from services.access.store.requests import MemoryRequests
from services.access.store.sessions import MemorySessions
from services.access.store.shadows import MemoryShadows
from services.access.store.shares import MemoryShares
from services.chassis.access import TokenVerifier
from services.chassis.server import Serving
from tests.harness import Harness, running

ISSUER, AUDIENCE = "https://access.test", "kehu-test"
TOKEN_ENDPOINT = "https://kehu.test/oauth2/token"
START = datetime(2026, 11, 21, 8, 0, tzinfo=UTC)
TOTP = "JBSWY3DPEHPK3PXPJBSWY3DPEHPK3PXP"
PEOPLE = [
    Wanted("app", "marketing-app", "marketing", "marketing secret"),
    Wanted("app", "office-app", "data-office", "office secret"),
    Wanted("user", "root", "administration", "root password", TOTP),
]
SECOND = Wanted("user", "second", "administration", "second password", TOTP)


class QuickPasswords:
    """No hash at all: what the tests measure is not argon2."""

    def hash(self, secret: str) -> str:
        """Return the secret marked as hashed."""
        return f"hash of {secret}"

    def matches(self, hashed: str, secret: str) -> bool:
        """Compare."""
        return hashed == f"hash of {secret}"


@dataclass
class Clock:
    """A clock that is moved by hand."""

    time: datetime = START

    def __call__(self) -> datetime:
        return self.time

    def forward(self, seconds: float) -> None:
        self.time += timedelta(seconds=seconds)


@dataclass
class World:
    """The service, its parts, and a client."""

    context: Context
    clock: Clock
    harness: Harness | None = None
    people: list[Wanted] = field(default_factory=list)

    def stub(self, caller: str = "user:root@administration", **how: str) -> access_pb2_grpc.AccessServiceStub:
        """Return a client of the running service."""
        assert self.harness is not None
        purpose = how.pop("purpose", "administration")
        return self.harness.stub(access_pb2_grpc.AccessServiceStub, caller=caller, purpose=purpose, **how)

    def code(self, seconds: int = 0) -> str:
        """Return the one-time code that the administrator's telephone shows."""
        return pyotp.TOTP(TOTP).at(self.clock.time + timedelta(seconds=seconds))


def new_world(**changes: object) -> World:
    """Return a seeded service with the default policy, two apps and one administrator."""
    clock = Clock()
    keys = [SigningKey(Ed25519PrivateKey.generate())]
    principals, policies, revocations = MemoryPrincipals(), MemoryPolicies(), MemoryRevocations()
    passwords = QuickPasswords()
    requests, shares, issuers = MemoryRequests(), MemoryShares(), MemoryIssuers()
    directory = Directory(principals, policies, revocations, keys, clock, requests, shares, issuers)
    context = Context(
        principals=principals,
        policies=policies,
        revocations=revocations,
        directory=directory,
        chain=Chain(MemoryBlocks(), Ed25519PrivateKey.generate(), MemoryCheckpoints(), Ed25519PrivateKey.generate()),
        issuer=Issuer(keys, ISSUER, AUDIENCE),
        own_tokens=TokenVerifier(OwnSnapshots(directory, keys), ISSUER, AUDIENCE, lambda: clock.time.timestamp()),
        inventory=read_inventory(descriptors_path()),
        passwords=passwords,
        decoy=passwords.hash("nobody"),
        self_approval=False,
        uses=MemoryUses(),
        shadows=MemoryShadows(),
        once=MemoryOnce(),
        sessions=MemorySessions(),
        names=MemoryNames(),
        alerts=MemoryAlerts(),
        requests=requests,
        shares=shares,
        recertifications=MemoryRecertifications(),
        issuers=issuers,
        companies=Companies(loopback=True),
        breached=BreachedPasswords(),
        token_endpoints=(ISSUER, TOKEN_ENDPOINT),
        relying_party=RelyingParty("kehu.test", ("https://kehu.test", "https://login.kehu.test")),
        now=clock,
    )
    context = replace(context, **changes)
    seed(context, PEOPLE)
    return World(context, clock, people=list(PEOPLE))


@contextmanager
def running_world(**changes: object) -> Iterator[World]:
    """Serve a new world until the block ends."""
    world = new_world(**changes)
    adder = access_pb2_grpc.add_AccessServiceServicer_to_server
    with running(Serving("access", [(adder, AccessServicer(world.context))])) as harness:
        world.harness = harness
        yield world
