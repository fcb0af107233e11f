"""The real process of access over mTLS: killed in the middle of policy changes, nothing acknowledged is lost."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

import grpc
import pymongo
import pyotp
import pytest
from kehu.access.v1 import access_pb2 as pb
from kehu.access.v1.access_pb2_grpc import AccessServiceStub

import services.chassis.server  # noqa: F401  before the client, which it imports
from infra.certificates import ensure_certificates
from infra.processes import free_port
from services.chassis.access import SnapshotHolder, SnapshotPoller, TokenVerifier
from services.chassis.access.wire import snapshot_fetcher
from services.chassis.client import Channels
from services.chassis.config import ProcessConfig, load_config
from services.chassis.errors import Unauthenticated

pytestmark = [pytest.mark.mongo, pytest.mark.slow]
TOTP = "JBSWY3DPEHPK3PXPJBSWY3DPEHPK3PXP"
ROOT = Path(__file__).parents[2]


@dataclass
class Access:
    """The process and the way to start it again."""

    environ: dict[str, str]
    config: ProcessConfig
    log: Path
    process: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        code = "from infra.process import serve; serve('access')"
        with self.log.open("ab") as log:
            self.process = subprocess.Popen(
                [sys.executable, "-c", code], env=self.environ, cwd=ROOT, stdout=log, stderr=log
            )

    def kill(self) -> None:
        assert self.process is not None
        os.kill(self.process.pid, signal.SIGKILL)
        self.process.wait()


@pytest.fixture
def access(mongo_uri: str, tmp_path: Path) -> Iterator[Access]:
    with pymongo.MongoClient(mongo_uri) as client:
        client.drop_database("kehu_access")  # what another test sealed, this one has no key for
    ensure_certificates(tmp_path / "tls", ["access", "gateway", "search"])
    (tmp_path / "credentials.json").write_text(
        json.dumps(
            {
                "clients": [{"department": "sales", "client_id": "sales-app", "client_secret": "secret"}],
                "administrator": {"username": "boss", "password": "a password", "totp_secret": TOTP},
            }
        )
    )
    environ = {
        **os.environ,
        "KEHU_DATA_DIR": str(tmp_path),
        "KEHU_MONGO_URI": mongo_uri,
        "KEHU_AMQP_URI": "amqp://nobody:none@127.0.0.1:1/",
        "KEHU_ADDRESSES": f"access=127.0.0.1:{free_port()}",
        "KEHU_BOOTSTRAP_FILE": str(tmp_path / "credentials.json"),
        "KEHU_ALLOW_SELF_APPROVAL": "true",
        "PYTHONPATH": f"{ROOT}:{ROOT / 'proto'}",
    }
    running = Access(environ, load_config(environ), tmp_path / "access.log")
    running.start()
    yield running
    assert running.process is not None
    running.process.terminate()
    running.process.wait(30)


def answered(call: Callable[[], object], seconds: float = 60) -> object:
    """Repeat a call until the service answers it, and return the answer."""
    deadline = time.monotonic() + seconds
    while True:
        try:
            return call()
        except grpc.RpcError as error:
            if error.code() is not grpc.StatusCode.UNAVAILABLE or time.monotonic() > deadline:
                raise
            time.sleep(0.1)


def administrator(access: Access, channels: Channels) -> list[tuple[str, str]]:
    """Return the metadata of a signed-in administrator."""
    stub = channels.stub(AccessServiceStub)

    def sign_in() -> str:
        code = pyotp.TOTP(TOTP).at(datetime.now(UTC))
        request = pb.CreateTokenRequest(grant_type="password", username="boss", password="a password", totp=code)
        return stub.CreateToken(request, timeout=10).access_token

    return [("authorization", f"Bearer {answered(sign_in)}"), ("x-purpose", "administration")]


def test_acknowledged_policy_changes_survive_kills_and_reach_other_processes(access: Access) -> None:
    channels = Channels(access.config, "gateway")
    stub = channels.stub(AccessServiceStub)
    holder = SnapshotHolder()
    poller = SnapshotPoller(holder, snapshot_fetcher(Channels(access.config, "search").stub(AccessServiceStub)))
    poller.start()
    metadata = administrator(access, channels)
    assert holder.wait_loaded(20)
    acknowledged = holder.current.version

    for turn in range(3):
        current = answered(
            lambda: stub.GetPolicy(pb.GetPolicyRequest(policy_id="current"), timeout=5, metadata=metadata)
        )
        draft = pb.Policy(rules=current.rules, model=current.model, comment=f"turn {turn}")
        made = stub.CreatePolicy(pb.CreatePolicyRequest(policy=draft), timeout=5, metadata=metadata)
        policy_id = made.name.removeprefix("policies/")
        stub.SubmitPolicy(pb.SubmitPolicyRequest(policy_id=policy_id), timeout=5, metadata=metadata)
        request = pb.ApprovePolicyRequest(policy_id=policy_id)
        approving = stub.ApprovePolicy.future(request, timeout=5, metadata=metadata)
        if turn != 1:
            acknowledged = approving.result().version
        access.kill()  # on turn 1 in the middle of the approval
        access.start()
        if turn == 1:
            again = answered(lambda r=request: stub.ApprovePolicy(r, timeout=5, metadata=metadata))
            acknowledged = again.version

    deadline = time.monotonic() + 20
    while holder.current.version < acknowledged and time.monotonic() < deadline:
        time.sleep(0.05)
    poller.stop()
    listed = answered(lambda: stub.ListPolicies(pb.ListPoliciesRequest(), timeout=5, metadata=metadata))
    versions = sorted(policy.version for policy in listed.policies if policy.version)

    assert holder.current.version == acknowledged == 4
    assert versions == [1, 2, 3, 4]
    channels.close()


def test_a_revocation_reaches_another_process_within_five_seconds(access: Access) -> None:
    channels = Channels(access.config, "gateway")
    stub = channels.stub(AccessServiceStub)
    holder = SnapshotHolder()
    poller = SnapshotPoller(holder, snapshot_fetcher(Channels(access.config, "search").stub(AccessServiceStub)))
    poller.start()
    request = pb.CreateTokenRequest(grant_type="client_credentials", client_id="sales-app", client_secret="secret")
    token = answered(lambda: stub.CreateToken(request, timeout=5)).access_token
    assert holder.wait_loaded(20)
    verifier = TokenVerifier(holder, access.config.token_issuer, access.config.token_audience)
    verifier.verify(token)

    stub.RevokeToken(pb.RevokeTokenRequest(token=token), timeout=5)
    revoked_at = time.monotonic()
    with pytest.raises(Unauthenticated):
        while time.monotonic() < revoked_at + 10:
            verifier.verify(token)
            time.sleep(0.02)

    assert time.monotonic() - revoked_at <= 5
    poller.stop()
    channels.close()


def test_a_process_that_is_not_listed_cannot_fetch_the_policy(access: Access, tmp_path: Path) -> None:
    """It shows a certificate of our authority, for another name."""
    ensure_certificates(tmp_path / "tls", ["stranger"])
    channels = Channels(access.config, "stranger")
    answered(
        lambda: Channels(access.config, "search").stub(AccessServiceStub).GetKeySet(pb.GetKeySetRequest(), timeout=5)
    )

    with pytest.raises(grpc.RpcError) as caught:
        channels.stub(AccessServiceStub).GetPolicySnapshot(pb.GetPolicySnapshotRequest(), timeout=5)

    assert caught.value.code() is grpc.StatusCode.UNAUTHENTICATED
    channels.close()
