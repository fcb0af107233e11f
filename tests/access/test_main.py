"""The composition root on a real database: first start, second start, and the launcher's principals."""

from __future__ import annotations

import json
import stat
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path

import mongoengine
import pyotp
import pytest
from kehu.access.v1 import access_pb2 as pb
from kehu.access.v1 import access_pb2_grpc

from services.access.bootstrap import read_bootstrap
from services.access.main import serving
from services.chassis import records
from services.chassis.access import Caller, SnapshotHolder, SnapshotPoller, TokenVerifier
from services.chassis.access.wire import batch_writer, snapshot_fetcher
from services.chassis.audit import AuditEntry, AuditSpool, Shipper
from services.chassis.config import ConfigError, ProcessConfig, load_config
from tests.harness import Harness, running

TOTP = "JBSWY3DPEHPK3PXPJBSWY3DPEHPK3PXP"
CREDENTIALS = {
    "token_url": "http://127.0.0.1:8080/oauth2/token",
    "clients": [
        {"department": department, "client_id": f"{department}-app", "client_secret": f"secret of {department}"}
        for department in ("marketing", "service", "sales", "analytics", "data-office")
    ],
    "administrator": {"username": "admin", "password": "a long password", "totp_secret": TOTP},
}

pytestmark = pytest.mark.mongo


@pytest.fixture
def config(mongo_uri: str, tmp_path: Path) -> Iterator[ProcessConfig]:
    credentials = tmp_path / "credentials.json"
    credentials.write_text(json.dumps(CREDENTIALS))
    environ = {
        "KEHU_DATA_DIR": str(tmp_path),
        "KEHU_MONGO_URI": mongo_uri,
        "KEHU_AMQP_URI": "amqp://unused",
        "KEHU_BOOTSTRAP_FILE": str(credentials),
        "KEHU_ALLOW_SELF_APPROVAL": "true",
    }
    config = load_config(environ)
    records.connect(config, "access")
    for name in ("principals", "policies", "revocations", "audit_chain", "audit_checkpoints"):
        records.database("access")[name].drop()
    yield config
    mongoengine.disconnect("access")


def started(config: ProcessConfig) -> object:
    """Return what the chassis serves, prepared as the chassis does it."""
    ready = serving(config)
    records.ensure_indexes(ready.records)
    ready.prepare()
    return ready


def sign_in(harness: Harness, **fields: str) -> str:
    stub = harness.stub(access_pb2_grpc.AccessServiceStub, caller="", purpose="")
    return stub.CreateToken(pb.CreateTokenRequest(**fields), timeout=10).access_token


def test_the_first_start_makes_keys_policy_and_principals_and_the_second_keeps_them(
    config: ProcessConfig,
) -> None:
    started(config)
    keys = {path.name: path.read_bytes() for path in config.keys_dir.glob("*.pem")}

    with running(started(config)) as harness:
        stub = harness.stub(access_pb2_grpc.AccessServiceStub)
        principals = stub.ListPrincipals(pb.ListPrincipalsRequest(), timeout=10).principals
        policies = stub.ListPolicies(pb.ListPoliciesRequest(), timeout=10).policies

    assert keys == {path.name: path.read_bytes() for path in config.keys_dir.glob("*.pem")}
    assert {"token-0001.pem", "audit.pem", "audit-checkpoint.pem"} == set(keys)
    assert all(stat.S_IMODE(path.stat().st_mode) == 0o600 for path in config.keys_dir.glob("*.pem"))
    assert [policy.version for policy in policies] == [1]
    assert len(principals) == 6


def test_everyone_of_the_credentials_file_signs_in_and_is_decided_for_in_another_process(
    config: ProcessConfig,
) -> None:
    with running(started(config)) as harness:
        other = harness.stub(access_pb2_grpc.AccessServiceStub, caller="", purpose="", peer="gateway")
        holder = SnapshotHolder()
        assert SnapshotPoller(holder, snapshot_fetcher(other)).poll_once()
        verifier = TokenVerifier(holder, config.token_issuer, config.token_audience)
        callers = [
            verifier.verify(
                sign_in(
                    harness,
                    grant_type="client_credentials",
                    client_id=client["client_id"],
                    client_secret=client["client_secret"],
                )
            )
            for client in CREDENTIALS["clients"]
        ]
        code = pyotp.TOTP(TOTP).at(datetime.now(UTC))
        administrator = verifier.verify(
            sign_in(harness, grant_type="password", username="admin", password="a long password", totp=code)
        )

        assert [c["department"] for c in CREDENTIALS["clients"]] == [caller.department for caller in callers]
        assert administrator.methods == ("pwd", "otp")
        decide = holder.current.decide
        assert decide(administrator, "policies", "approve").allowed
        steward = callers[-1].with_purpose("stewardship")
        assert decide(steward, "sources", "import").obligations.disposition("personal", "contact") == "show"
        marketer = callers[0].with_purpose("marketing")
        assert decide(marketer, "search", "read").obligations.disposition("personal", "contact") == "mask"
        assert not decide(marketer, "sources", "import").allowed


def test_a_policy_change_and_the_trail_survive_a_restart(config: ProcessConfig, tmp_path: Path) -> None:
    with running(started(config)) as harness:
        admin = harness.stub(access_pb2_grpc.AccessServiceStub, caller="user:admin@administration")
        current = admin.GetPolicy(pb.GetPolicyRequest(policy_id="current"), timeout=10)
        draft = pb.Policy(rules=current.rules, model=current.model, comment="a test")
        draft.rules.add(
            subject="role:seller", department="sales", resource="tickets", action="list", purpose="*", effect="allow"
        )
        made = admin.CreatePolicy(pb.CreatePolicyRequest(policy=draft), timeout=10)
        policy_id = made.name.removeprefix("policies/")
        admin.SubmitPolicy(pb.SubmitPolicyRequest(policy_id=policy_id), timeout=10)
        admin.ApprovePolicy(pb.ApprovePolicyRequest(policy_id=policy_id), timeout=10)
        spool = AuditSpool(tmp_path / "spool")
        spool.append(AuditEntry.of(service="profiles", subject="user:x"))
        own = harness.stub(access_pb2_grpc.AccessServiceStub, caller="", purpose="", peer="profiles")
        assert Shipper(spool, batch_writer(own)).ship_once()

    with running(started(config)) as harness:
        own = harness.stub(access_pb2_grpc.AccessServiceStub, caller="", purpose="", peer="search")
        snapshot = snapshot_fetcher(own)(None)
        assert snapshot is not None
        admin = harness.stub(access_pb2_grpc.AccessServiceStub, caller="user:admin@administration")
        verified = admin.VerifyAuditEntries(pb.VerifyAuditEntriesRequest(), timeout=10)

        assert snapshot.version == 2
        assert snapshot.decide(Caller("app:sales-app", "app", "sales"), "tickets", "list").allowed
        assert (verified.intact, verified.entries) == (True, 1)


def test_a_new_secret_in_the_credentials_file_replaces_the_old(config: ProcessConfig, tmp_path: Path) -> None:
    started(config)
    changed = json.loads(json.dumps(CREDENTIALS))
    changed["clients"][0]["client_secret"] = "another secret"
    (tmp_path / "credentials.json").write_text(json.dumps(changed))

    with running(started(config)) as harness:
        assert sign_in(
            harness,
            grant_type="client_credentials",
            client_id="marketing-app",
            client_secret="another secret",
        )


@pytest.mark.parametrize(
    "text",
    [
        "",
        "[]",
        '{"clients": [{"department": "moon", "client_id": "a", "client_secret": "b"}]}',
        '{"clients": [{"department": "sales", "client_id": "A b", "client_secret": "b"}]}',
        '{"clients": [{"department": "sales", "client_id": "a", "client_secret": ""}]}',
        '{"clients": [], "administrator": {"username": "a", "password": "b", "totp_secret": "AAAA"}}',
    ],
)
def test_a_bad_credentials_file_is_said_at_the_start_without_its_content(text: str, tmp_path: Path) -> None:
    path = tmp_path / "credentials.json"
    path.write_text(text)

    with pytest.raises(ConfigError, match="KEHU_BOOTSTRAP_FILE"):
        read_bootstrap(path)
