"""What the sender does with real servers: TLS against the name, no redirects, bounded time and size."""

from __future__ import annotations

import datetime
import ipaddress
import socket
import ssl
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

from services.webhooks.sender import Sender
from tests.webhooks.receivers import Receiver, receiving

HOST = "hooks.example.com"


def certificate(folder: Path, names: list[str], addresses: tuple[str, ...] = ()) -> Path:
    """Write a self-signed certificate with its key and return the file."""
    key = ec.generate_private_key(ec.SECP256R1())
    subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "test")])
    now = datetime.datetime.now(datetime.UTC)
    alternatives = [x509.DNSName(name) for name in names]
    alternatives += [x509.IPAddress(ipaddress.ip_address(each)) for each in addresses]  # type: ignore[misc]
    builder = (
        x509.CertificateBuilder().subject_name(subject).issuer_name(subject).public_key(key.public_key())
        .serial_number(x509.random_serial_number()).not_valid_before(now - datetime.timedelta(hours=1))
        .not_valid_after(now + datetime.timedelta(hours=1))
        .add_extension(x509.SubjectAlternativeName(alternatives), critical=False)
        .add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
    )  # fmt: skip
    made = builder.sign(key, hashes.SHA256())
    path = folder / f"{names[0]}.pem"
    secret = key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )
    path.write_bytes(made.public_bytes(serialization.Encoding.PEM) + secret)
    return path


class TlsServer:
    """Answers every request with 204 over TLS, and keeps the names that SNI asked for."""

    def __init__(self, pem: Path) -> None:
        self.asked: list[str | None] = []
        self.requests: list[bytes] = []
        self._context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        self._context.load_cert_chain(pem)
        self._context.sni_callback = lambda sock, name, context: self.asked.append(name)
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.port = self._listener.getsockname()[1]
        threading.Thread(target=self._serve, daemon=True).start()

    def _serve(self) -> None:
        while True:
            try:
                raw, _ = self._listener.accept()
            except OSError:
                return
            try:
                with self._context.wrap_socket(raw, server_side=True) as wrapped:
                    request = wrapped.recv(65536)
                    while not request.endswith(b"}"):
                        request += wrapped.recv(65536)
                    self.requests.append(request)
                    wrapped.sendall(b"HTTP/1.1 204 No Content\r\n\r\n")
                    wrapped.recv(1)
            except OSError:
                continue

    def close(self) -> None:
        self._listener.close()


@pytest.fixture
def authority(tmp_path: Path) -> Path:
    return certificate(tmp_path, [HOST])


@pytest.fixture
def server(authority: Path) -> Iterator[TlsServer]:
    found = TlsServer(authority)
    yield found
    found.close()


def sender_to(port: int, authority: Path | None, **how: object) -> Sender:
    """Return a sender for which HOST is this machine, named by the configuration."""
    return Sender([f"{HOST}:{port}"], authority, resolve=lambda *_: ["127.0.0.1"], **how)


def test_tls_is_verified_against_the_name_at_the_address_that_was_checked(server: TlsServer, authority: Path) -> None:
    found = sender_to(server.port, authority).send(f"https://{HOST}:{server.port}/hook?a=1", b'{"a": 1}', {"x": "y"})

    assert (found.kind, found.status) == ("delivered", 204)
    assert server.asked == [HOST]
    assert server.requests[0].startswith(b"POST /hook?a=1 HTTP/1.1\r\n")
    assert f"host: {HOST}:{server.port}".encode() in server.requests[0].lower()


def test_a_certificate_of_another_name_or_of_nobody_is_refused_before_anything_is_sent(
    server: TlsServer, authority: Path, tmp_path: Path
) -> None:
    other = TlsServer(certificate(tmp_path, ["other.example.com"], ("127.0.0.1",)))
    trusted = tmp_path / "other.example.com.pem"
    try:
        of_another_name = sender_to(other.port, trusted).send(f"https://{HOST}:{other.port}/", b"{}", {})
        of_nobody = sender_to(server.port, None).send(f"https://{HOST}:{server.port}/", b"{}", {})
    finally:
        other.close()

    assert (of_another_name.kind, of_nobody.kind) == ("tls", "tls")
    assert other.requests == server.requests == []


def test_a_redirect_is_not_followed() -> None:
    with receiving() as inside, receiving(Receiver(lambda got: (307, {"location": inside.url}))) as outside:
        found = Sender(["127.0.0.1"]).send(outside.url, b"{}", {})

    assert (found.kind, found.status) == ("status", 307)
    assert (len(outside.got), len(inside.got)) == (1, 0)


def drip(piece: bytes, first: bytes = b"") -> int:
    """Serve one connection that goes on for ever with a little each time; return the port."""
    listener = socket.create_server(("127.0.0.1", 0))

    def serve() -> None:
        connection, _ = listener.accept()
        connection.recv(65536)
        connection.sendall(first)
        try:
            while True:
                connection.sendall(piece)
                time.sleep(0.05)
        except OSError:
            return

    threading.Thread(target=serve, daemon=True).start()
    return listener.getsockname()[1]


@pytest.mark.parametrize("read", [False, True])
@pytest.mark.parametrize(
    ("first", "piece"),
    [(b"", b"H"), (b"HTTP/1.1 200 OK\r\n", b"x-a: b\r\n"), (b"HTTP/1.1 200 OK\r\ncontent-length: 99999\r\n\r\n", b"a")],
    ids=["status", "headers", "body"],
)
def test_a_target_that_drips_is_left_after_the_time(first: bytes, piece: bytes, read: bool) -> None:
    port, began = drip(piece, first), time.monotonic()
    found = Sender(["127.0.0.1"], seconds=0.6).send(f"http://127.0.0.1:{port}/", b"{}", {}, read=read)

    assert time.monotonic() - began < 2.0
    assert found.kind in (("timeout",) if read or b"length" not in first else ("delivered",))


def test_a_long_reply_is_not_read_and_not_kept() -> None:
    port = drip(b"a" * 100_000, b"HTTP/1.1 200 OK\r\ncontent-length: 900000000\r\n\r\n")
    found = Sender(["127.0.0.1"], seconds=3).send(f"http://127.0.0.1:{port}/", b"{}", {}, read=True)

    assert (found.status, found.body) == (200, b"")


def test_nonsense_instead_of_http_is_told_as_such() -> None:
    port = drip(b"nonsense\r\n\r\n", b"SSH-2.0-OpenSSH_9\r\n\r\n")

    assert Sender(["127.0.0.1"], seconds=2).send(f"http://127.0.0.1:{port}/", b"{}", {}).kind == "protocol"


@pytest.mark.parametrize(("value", "seconds"), [("7", 7), ("", None), ("soon", None), ("-3", None)])
def test_retry_after_is_read(value: str, seconds: int | None) -> None:
    with receiving(Receiver(lambda got: (503, {"retry-after": value}))) as receiver:
        found = Sender(["127.0.0.1"]).send(receiver.url, b"{}", {})

    assert found.asked_wait == (None if seconds is None else datetime.timedelta(seconds=seconds))
