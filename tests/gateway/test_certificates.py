"""A token bound to a client's TLS certificate: a thief without it is 401 at the gateway and in the service."""

from __future__ import annotations

import base64
import http.client
import socket
import ssl
import threading
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from ipaddress import ip_network
from pathlib import Path
from types import SimpleNamespace
from urllib.parse import quote

import grpc
import httpx
import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

from gateway.certificates import CertificateReader
from services.access.domain.credentials import thumbprint
from services.chassis.config import ConfigError, load_config
from tests.gateway.conftest import a_world

PATH = "/v1/dishes/d1"


@pytest.fixture(scope="module")
def client(tmp_path_factory) -> tuple[Path, bytes]:
    """An app's certificate with its key in one file, and its DER."""
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "shop")])
    now = datetime.now(UTC)
    builder = x509.CertificateBuilder(name, name, key.public_key(), x509.random_serial_number())
    builder = builder.not_valid_before(now - timedelta(days=1)).not_valid_after(now + timedelta(days=1))
    builder = builder.add_extension(x509.SubjectAlternativeName([x509.DNSName("localhost")]), critical=False)
    made = builder.sign(key, hashes.SHA256())
    path = tmp_path_factory.mktemp("client") / "client.pem"
    pem = key.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
    path.write_bytes(pem + made.public_bytes(serialization.Encoding.PEM))
    return path, made.public_bytes(serialization.Encoding.DER)


@pytest.fixture(scope="module")
def world(kitchen_file, messages):
    with a_world(kitchen_file, messages, proxies=("127.0.0.1/32",)) as running:
        yield running


def field(der: bytes) -> str:
    return f":{base64.b64encode(der).decode()}:"


def bound(der: bytes) -> dict[str, str]:
    return {"Authorization": f"Bearer app:shop@kitchen bound={thumbprint(der)}"}


def escaped(der: bytes) -> str:
    pem = x509.load_der_x509_certificate(der).public_bytes(serialization.Encoding.PEM).decode()
    return quote(pem, safe="")


def test_a_bound_token_counts_with_its_certificate_in_either_form(world, client) -> None:
    der = client[1]
    for written in (field(der), escaped(der)):
        reply = world.http.get(PATH, headers={**bound(der), "Client-Cert": written})
        assert reply.status_code == 200, reply.text
    assert world.kitchen.calls[-1].thumbprint == thumbprint(der), "the service was told, to check by itself"


@pytest.mark.parametrize("header", [None, ":MAMBAf8=:", "nonsense"])
def test_a_stolen_token_without_its_certificate_is_refused_at_the_gateway(world, client, header) -> None:
    headers = bound(client[1]) | ({"Client-Cert": header} if header else {})
    before = len(world.kitchen.calls)

    assert world.http.get(PATH, headers=headers).status_code in (400, 401)
    assert len(world.kitchen.calls) == before


def test_a_stolen_token_is_refused_by_the_service_itself(world, client) -> None:
    """The service compares again; and only a process with a certificate of ours can ask it at all."""
    der = client[1]
    channel = grpc.insecure_channel(world.harness.address)
    ask = channel.unary_unary("/kehu.kitchen.v1.KitchenService/GetDish")
    token = bound(der)["Authorization"]

    for thumb in ("", "B" * 43):
        metadata = [("authorization", token), *([("x-client-certificate", thumb)] if thumb else [])]
        with pytest.raises(grpc.RpcError) as refused:
            ask(b"", timeout=5, metadata=metadata)
        assert refused.value.code() is grpc.StatusCode.UNAUTHENTICATED
    ask(b"", timeout=5, metadata=[("authorization", token), ("x-client-certificate", thumbprint(der))])
    channel.close()


def test_nobody_but_a_configured_proxy_is_believed(kitchen_file, messages, client) -> None:
    der = client[1]
    for proxies in ((), ("10.1.0.0/16",)):
        with a_world(kitchen_file, messages, proxies=proxies) as world:
            reply = world.http.get(PATH, headers={**bound(der), "Client-Cert": field(der)})
            assert (reply.status_code, reply.json()["reason"]) == (401, "TOKEN_INVALID")


@pytest.mark.parametrize("peer", ["10.1.2.3", "::ffff:10.1.2.3"])
def test_a_proxy_is_believed_however_its_address_is_written(client, peer) -> None:
    reader = CertificateReader([ip_network("10.1.0.0/16")])
    header = {b"client-cert": field(client[1]).encode()}

    assert reader.thumbprint(SimpleNamespace(headers=header, peer=peer)) == thumbprint(client[1])


def test_a_client_cannot_hand_its_own_word_to_the_service(world, client) -> None:
    headers = {**bound(client[1]), "X-Client-Certificate": thumbprint(client[1])}

    assert world.http.get(PATH, headers=headers).status_code == 401


def test_two_certificates_in_one_request_are_refused(world, client) -> None:
    twice = [*bound(client[1]).items(), ("Client-Cert", field(client[1])), ("Client-Cert", ":MAMBAf8=:")]

    assert world.http.get(PATH, headers=twice).status_code == 400


@pytest.mark.parametrize("value", ["0.0.0.0/0", "::/0", "nowhere", "10.1.0.1/16"])
def test_a_proxy_of_everybody_or_of_nobody_is_a_fault_of_the_configuration(value) -> None:
    with pytest.raises(ConfigError, match="KEHU_CERTIFICATE_PROXIES"):
        load_config({"KEHU_CERTIFICATE_PROXIES": value}, with_stores=False)


@pytest.fixture(scope="module")
def proxy(world, client) -> Iterator[int]:
    """A TLS-terminating proxy as docs/identity.md sets it up: it drops what clients wrote and tells what it saw."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(client[0])
    context.load_verify_locations(client[0])
    context.verify_mode = ssl.CERT_OPTIONAL
    listener = socket.create_server(("127.0.0.1", 0))

    def serve() -> None:
        while True:
            try:
                raw = listener.accept()[0]
            except OSError:
                return
            with context.wrap_socket(raw, server_side=True) as connection:
                head = connection.recv(65536).decode()
                line, *rest = head.split("\r\n\r\n")[0].split("\r\n")
                der = connection.getpeercert(binary_form=True)
                kept = dict(item.split(": ", 1) for item in rest if not item.lower().startswith("client-cert"))
                if der:
                    kept["Client-Cert"] = field(der)
                onward = http.client.HTTPConnection("127.0.0.1", world.port, timeout=5)
                onward.request(line.split()[0], line.split()[1], headers=kept)
                reply = onward.getresponse()
                body = reply.read()
                connection.sendall(
                    f"HTTP/1.1 {reply.status} x\r\nContent-Length: {len(body)}\r\nConnection: close\r\n\r\n".encode()
                    + body
                )

    threading.Thread(target=serve, daemon=True).start()
    yield listener.getsockname()[1]
    listener.close()


def test_through_a_real_tls_proxy_the_token_counts_for_the_holder_of_the_key_only(proxy, client) -> None:
    path, der = client
    trust = ssl.create_default_context(cafile=str(path))
    with_key = ssl.create_default_context(cafile=str(path))
    with_key.load_cert_chain(path)
    url = f"https://localhost:{proxy}{PATH}"

    owner = httpx.get(url, headers=bound(der), verify=with_key, trust_env=False)
    thief = httpx.get(url, headers={**bound(der), "Client-Cert": field(der)}, verify=trust, trust_env=False)

    assert (owner.status_code, thief.status_code) == (200, 401)
