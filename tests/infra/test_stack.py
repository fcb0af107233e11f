"""What a stack lays out in its folder."""

from __future__ import annotations

import json
import socket
import stat
from contextlib import ExitStack
from datetime import UTC, datetime, timedelta

import pytest
from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import ec

from infra.certificates import ensure_certificates
from infra.servers import Rabbit
from infra.stack import StackError, free_ports, locked, prepare_stack, read_running, save_running
from services.chassis.config import SERVICES, load_config

NOW = datetime(2026, 11, 21, tzinfo=UTC)


def mode(path) -> int:
    return stat.S_IMODE(path.stat().st_mode)


def test_credentials_have_the_promised_shape_and_only_the_owner_reads_them(tmp_path):
    stack = prepare_stack(tmp_path / "data", 8099, {})
    written = json.loads(stack.credentials_file.read_text())

    assert written["token_url"] == "http://127.0.0.1:8099/oauth2/token"
    departments = [client["department"] for client in written["clients"]]
    assert departments == ["marketing", "service", "sales", "analytics", "data-office"]
    assert {frozenset(client) for client in written["clients"]} == {
        frozenset({"department", "client_id", "client_secret"})
    }
    assert set(written["administrator"]) == {"username", "password", "totp_secret"}
    (steward,) = written["people"]
    assert set(steward) == {"department", "username", "password", "totp_secret"}
    assert mode(stack.credentials_file) == 0o600


def test_a_second_start_keeps_the_secrets_and_follows_the_port(tmp_path):
    first = json.loads(prepare_stack(tmp_path, 8099, {}).credentials_file.read_text())
    again = prepare_stack(tmp_path, 8100, {})
    second = json.loads(again.credentials_file.read_text())

    assert second == first | {"token_url": "http://127.0.0.1:8100/oauth2/token"}
    assert isinstance(again.rabbit, Rabbit)


def test_a_folder_from_before_there_were_people_gets_its_steward(tmp_path):
    file = prepare_stack(tmp_path, 8099, {}).credentials_file
    older = json.loads(file.read_text())
    del older["people"]
    file.write_text(json.dumps(older))

    now = json.loads(prepare_stack(tmp_path, 8099, {}).credentials_file.read_text())

    assert [person["department"] for person in now.pop("people")] == ["data-office"]
    assert now == older


def test_two_folders_share_no_secret_and_no_port(tmp_path):
    one = prepare_stack(tmp_path / "one", 8099, {})
    with ExitStack() as running:
        for port in one.ports.values():
            running.enter_context(socket.create_server(("127.0.0.1", port)))
        two = prepare_stack(tmp_path / "two", 8098, {})

    assert one.credentials_file.read_text() != two.credentials_file.read_text()
    assert one.smtp.password != two.smtp.password
    assert set(one.ports.values()).isdisjoint(two.ports.values())


def test_named_servers_replace_our_own(tmp_path):
    stack = prepare_stack(tmp_path, 8099, {"KEHU_MONGO_URI": "mongodb://m/", "KEHU_AMQP_URI": "amqp://b/"})

    assert (stack.mongo, stack.rabbit) == (None, None)
    assert stack.environment()["KEHU_AMQP_URI"] == "amqp://b/"


def test_the_environment_of_a_stack_is_a_complete_configuration(tmp_path):
    config = load_config(prepare_stack(tmp_path, 8099, {}).environment())

    assert set(config.addresses) == set(SERVICES)
    assert config.gateway_port == 8099


def test_a_folder_holds_one_stack_at_a_time(tmp_path):
    with locked(tmp_path), pytest.raises(StackError, match="runs in"), locked(tmp_path):
        pass


def test_the_running_stack_is_found_by_its_folder(tmp_path):
    stack = prepare_stack(tmp_path, 8099, {})
    save_running(stack, {"gateway": 1})

    assert read_running(tmp_path).url == "http://127.0.0.1:8099"
    assert mode(tmp_path / "stack.json") == 0o600


def test_a_folder_without_a_stack_says_what_to_do(tmp_path):
    with pytest.raises(StackError, match="kehu up"):
        read_running(tmp_path)


def test_free_ports_are_all_different():
    assert len(set(free_ports(30))) == 30


def load(path) -> x509.Certificate:
    return x509.load_pem_x509_certificate(path.read_bytes())


def test_a_leaf_names_its_service_and_is_signed_by_the_local_authority(tmp_path):
    ensure_certificates(tmp_path, ["profiles"], NOW)
    authority, leaf = load(tmp_path / "ca.pem"), load(tmp_path / "profiles.pem")
    names = leaf.extensions.get_extension_for_class(x509.SubjectAlternativeName).value

    leaf.verify_directly_issued_by(authority)
    uris = names.get_values_for_type(x509.UniformResourceIdentifier)
    assert uris == ["spiffe://kehu.internal/profiles"]
    assert "profiles.kehu.internal" in names.get_values_for_type(x509.DNSName)
    assert mode(tmp_path / "profiles.key") == 0o600
    assert isinstance(leaf.public_key(), ec.EllipticCurvePublicKey)


def test_good_certificates_are_kept_and_old_ones_renewed(tmp_path):
    ensure_certificates(tmp_path, ["profiles"], NOW)
    first = load(tmp_path / "profiles.pem").serial_number
    ensure_certificates(tmp_path, ["profiles"], NOW + timedelta(hours=15))
    second = load(tmp_path / "profiles.pem").serial_number
    ensure_certificates(tmp_path, ["profiles"], NOW + timedelta(hours=17))

    assert second == first
    assert load(tmp_path / "profiles.pem").serial_number != first
    load(tmp_path / "profiles.pem").verify_directly_issued_by(load(tmp_path / "ca.pem"))
