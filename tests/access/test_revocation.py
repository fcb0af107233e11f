"""Revocation reaches every gateway in time: measured over two real ones, and the bound proven to matter.

The broker is down all the while (KEHU_AMQP_URI names a closed port): nothing of this depends on it.
"""

from __future__ import annotations

import math
import os
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass

import httpx
import pyotp
import pytest
from google.protobuf.field_mask_pb2 import FieldMask
from kehu.access.v1 import access_pb2 as pb
from kehu.access.v1 import people_pb2
from kehu.access.v1.access_pb2_grpc import AccessServiceStub

from infra.certificates import ensure_certificates
from infra.processes import free_port
from services.chassis.access import SnapshotHolder, SnapshotPoller, TokenVerifier
from services.chassis.access.wire import snapshot_fetcher
from services.chassis.client import Channels
from services.chassis.errors import Unauthenticated
from tests.access.test_process import ROOT, Access, access, administrator, answered  # noqa: F401 - a fixture
from tests.access.world import AUDIENCE, ISSUER, World, running_world

REACHED_SECONDS = 2.0  # p99, in all processes (issue 5 §1)
ROUNDS = int(os.environ.get("KEHU_REVOCATIONS", "5"))  # of each kind
KINDS = ("token", "app", "role", "person")


@dataclass
class Gateways:
    """Two gateway processes, and access as an administrator sees it."""

    ports: tuple[int, int]
    http: httpx.Client
    stub: AccessServiceStub
    as_administrator: list[tuple[str, str]]

    def statuses(self, token: str) -> list[int]:
        headers = {"Authorization": f"Bearer {token}", "X-Purpose": "administration"}
        found = [self.http.get(f"http://127.0.0.1:{port}/v1/roles", headers=headers) for port in self.ports]
        return [reply.status_code for reply in found]

    def create(self, kind: int, login: str) -> pb.Principal:
        principal = pb.Principal(kind=kind, login=login, department="administration", roles=["role:administrator"])
        request = pb.CreatePrincipalRequest(principal=principal)
        return self.stub.CreatePrincipal(request, timeout=20, metadata=self.as_administrator)

    def token(self, made: pb.Principal) -> str:
        secret = made.secret
        request = pb.CreateTokenRequest(
            grant_type="client_credentials", client_id=made.login, client_secret=secret.client_secret
        )
        if secret.invitation_token:
            request = self.enrolled(made)
        return self.stub.CreateToken(request, timeout=20).access_token

    def enrolled(self, made: pb.Principal) -> pb.CreateTokenRequest:
        """Accept a person's invitation, and return what they sign in with: a code of its own, each counts once."""
        token, password = made.secret.invitation_token, "Nine-blue-otters-swim-41"
        invitation = self.stub.OpenInvitation(people_pb2.OpenInvitationRequest(token=token), timeout=20)
        codes = pyotp.TOTP(invitation.totp_secret)
        request = people_pb2.AcceptInvitationRequest(token=token, password=password, totp=codes.now())
        self.stub.AcceptInvitation(request, timeout=20)
        code = codes.at(int(time.time()) + 30)
        return pb.CreateTokenRequest(grant_type="password", username=made.login, password=password, totp=code)

    def revoke(self, kind: str, made: pb.Principal, token: str) -> None:
        """Take the right away, in the way of this kind; returns when access acknowledged it."""
        principal_id, how = made.name.partition("/")[2], {"timeout": 20, "metadata": self.as_administrator}
        if kind == "token":
            self.stub.RevokeToken(pb.RevokeTokenRequest(token=token), timeout=20)
        elif kind == "role":
            request = pb.UpdatePrincipalRequest(
                principal_id=principal_id, principal=pb.Principal(), update_mask=FieldMask(paths=["roles"])
            )
            self.stub.UpdatePrincipal(request, **how)
        else:
            self.stub.DisablePrincipal(pb.DisablePrincipalRequest(principal_id=principal_id), **how)


@pytest.fixture
def gateways(access: Access) -> Iterator[Gateways]:  # noqa: F811
    ensure_certificates(access.config.tls_dir, ["access", "gateway", "search"])
    ports = (free_port(), free_port())
    processes = []
    channels = Channels(access.config, "gateway")
    for number, port in enumerate(ports):
        folder = access.config.data_dir / f"gateway-{number}"
        environ = {**access.environ, "KEHU_GATEWAY_PORT": str(port), "KEHU_DATA_DIR": str(folder),
                   "KEHU_TLS_DIR": str(access.config.tls_dir)}  # fmt: skip
        log = access.log.with_name(f"gateway-{number}.log").open("wb")
        command = [sys.executable, "-m", "infra.process", "gateway"]
        processes.append(subprocess.Popen(command, env=environ, cwd=ROOT, stdout=log, stderr=log))
    try:
        with httpx.Client(timeout=10, trust_env=False) as http:
            for port in ports:
                _wait_ready(http, port)
            metadata = administrator(access, channels)
            yield Gateways(ports, http, channels.stub(AccessServiceStub), metadata)
    finally:
        for process in processes:
            process.terminate()
        for process in processes:
            process.wait(30)
        channels.close()


def _wait_ready(http: httpx.Client, port: int) -> None:
    deadline = time.monotonic() + 60
    while True:
        try:
            if http.get(f"http://127.0.0.1:{port}/readyz").status_code == 200:
                return
        except httpx.HTTPError:
            pass
        assert time.monotonic() < deadline, "the gateway is not ready"
        time.sleep(0.1)


@pytest.mark.mongo
@pytest.mark.slow
def test_a_revoked_token_app_role_and_person_are_out_at_both_gateways_in_two_seconds(gateways: Gateways) -> None:
    waits = []
    for number in range(ROUNDS):
        for kind in KINDS:
            who = pb.PRINCIPAL_KIND_PERSON if kind == "person" else pb.PRINCIPAL_KIND_APP
            made = gateways.create(who, f"{kind}-{number}")
            token = gateways.token(made)
            deadline = time.monotonic() + 10
            while gateways.statuses(token) != [200, 200]:
                assert time.monotonic() < deadline, "the new right did not arrive"
                time.sleep(0.02)
            gateways.revoke(kind, made, token)
            acknowledged = time.monotonic()
            while gateways.statuses(token) != [401, 401]:
                assert time.monotonic() < acknowledged + 10, kind
                time.sleep(0.01)
            waits.append(time.monotonic() - acknowledged)

    waits.sort()
    p99 = waits[math.ceil(0.99 * len(waits)) - 1]
    print(f"{len(waits)} revocations: p50 {waits[len(waits) // 2]:.2f} s, p99 {p99:.2f} s, last {waits[-1]:.2f} s")
    assert p99 <= REACHED_SECONDS


def leaks(world: World, runs: int, interval_seconds: float) -> int:
    """Return how many of some revoked tokens another process still takes when the bound is over."""
    holder = SnapshotHolder()
    stub = world.stub(caller="", peer="search")
    poller = SnapshotPoller(holder, snapshot_fetcher(stub), interval_seconds)
    verifier = TokenVerifier(holder, ISSUER, AUDIENCE, lambda: world.clock.time.timestamp())
    request = pb.CreateTokenRequest(
        grant_type="client_credentials", client_id="marketing-app", client_secret="marketing secret"
    )
    public = world.stub(caller="")
    tokens = [public.CreateToken(request, timeout=10).access_token for _ in range(runs)]
    poller.start()
    assert holder.wait_loaded(20)
    for token in tokens:
        verifier.verify(token)
        public.RevokeToken(pb.RevokeTokenRequest(token=token), timeout=10)
    time.sleep(REACHED_SECONDS)
    poller.stop()
    return sum(_is_taken(verifier, token) for token in tokens)


def _is_taken(verifier: TokenVerifier, token: str) -> bool:
    try:
        verifier.verify(token)
    except Unauthenticated:
        return False
    return True


def test_five_hundred_revoked_tokens_are_out_everywhere_and_would_not_be_without_the_bound() -> None:
    """As SpiceDB's new-enemy test: first that the anomaly is there without the mitigation, then that it is not."""
    with running_world() as world:
        assert leaks(world, 5, interval_seconds=3600) == 5, "this test could not fail"
        assert leaks(world, 500, SnapshotPoller.INTERVAL_SECONDS) == 0
