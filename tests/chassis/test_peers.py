"""Service identity: who may call over mTLS, which service calls which method, rotation without a failed call."""

from __future__ import annotations

import asyncio
import ipaddress
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from pathlib import Path

import grpc
import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding, load_pem_private_key
from google.protobuf import descriptor_pool
from kehu.access.v1 import access_pb2 as pb
from kehu.access.v1.access_pb2_grpc import AccessServiceStub, add_AccessServiceServicer_to_server
from kehu.options.v1 import options_pb2 as options

from gateway import upstreams as gateway_upstreams
from gateway.transcoding.catalog import import_protos, methods_of
from infra.certificates import _pem, ensure_certificates
from services.access.api import AccessServicer
from services.chassis import client
from services.chassis.config import SERVICES, TlsFiles
from services.chassis.server import Guard, Serving, build_server, peer_of, plans_by_path, service_names
from services.chassis.server.peers import PeerUnknown
from services.chassis.server.serving import server_credentials
from tests.access.world import new_world
from tests.harness import MemoryTrail, OpenPolicy, StatedTokens

METHOD = "/kehu.access.v1.AccessService/GetKeySet"
PROCESSES = (*SERVICES, "gateway")


@dataclass
class Server:
    """Access behind the real guard over mTLS, with the certificates it saw."""

    port: int
    folder: Path
    seen: list[int] = field(default_factory=list)

    @property
    def addresses(self) -> dict[str, str]:
        """As ProcessConfig has them."""
        return {"access": f"127.0.0.1:{self.port}"}

    def tls(self, name: str) -> TlsFiles:
        """As ProcessConfig has them."""
        return TlsFiles(self.folder / "ca.pem", self.folder / f"{name}.pem", self.folder / f"{name}.key")

    def ask(self, credentials: grpc.ChannelCredentials | None) -> grpc.StatusCode:
        """Return how a call of the public method ends."""
        address, names = self.addresses["access"], client.channel_options("access", [])
        channel = grpc.secure_channel(address, credentials, names) if credentials else grpc.insecure_channel(address)
        try:
            AccessServiceStub(channel).GetKeySet(pb.GetKeySetRequest(), timeout=3)
        except grpc.RpcError as error:
            return error.code()
        finally:
            channel.close()
        return grpc.StatusCode.OK

    def renew(self, name: str) -> None:
        """Replace the certificate of a process."""
        (self.folder / f"{name}.pem").rename(self.folder / "old")
        fresh = self.folder.parent / "fresh"
        fresh.mkdir(exist_ok=True)
        for file in ("ca.pem", "ca.key"):
            (fresh / file).write_bytes((self.folder / file).read_bytes())
        (fresh / f"{name}.pem").unlink(missing_ok=True)
        ensure_certificates(fresh, [name])
        for suffix in ("key", "pem"):
            (fresh / f"{name}.{suffix}").replace(self.folder / f"{name}.{suffix}")


@pytest.fixture
def server(tmp_path: Path) -> Iterator[Server]:
    folder = tmp_path / "tls"
    ensure_certificates(folder, ["access", "gateway", "search"])
    running = Server(0, folder)

    def peer(context: grpc.ServicerContext) -> str:
        pem = next(iter(context.auth_context().get("x509_pem_cert", ())))
        running.seen.append(x509.load_pem_x509_certificate(pem).serial_number)
        return peer_of(context)

    serving = Serving("access", [(add_AccessServiceServicer_to_server, AccessServicer(new_world().context))])
    plans = plans_by_path(service_names(serving))
    guard = Guard("access", plans, OpenPolicy(), StatedTokens(), MemoryTrail(), peer)
    built = build_server(serving, guard, threads=4)
    running.port = built.add_secure_port("127.0.0.1:0", server_credentials(running.tls("access")))
    built.start()
    yield running
    built.stop(0.5).wait()


def a_leaf(server: Server, uris: list[str], *, by: Path | None = None, is_authority: bool = False,
           usage: str = "digital_signature", begins: int = -1, ends: int = 24) -> grpc.ChannelCredentials:  # fmt: skip
    """Return credentials with a certificate made as said, signed by our authority or by that of another folder."""
    folder = by or server.folder
    authority = x509.load_pem_x509_certificate((folder / "ca.pem").read_bytes())
    signer = load_pem_private_key((folder / "ca.key").read_bytes(), None)
    key, now = ec.generate_private_key(ec.SECP256R1()), datetime.now(UTC)
    builder = x509.CertificateBuilder(authority.subject, x509.Name([]), key.public_key(), x509.random_serial_number())
    builder = builder.not_valid_before(now + timedelta(hours=begins)).not_valid_after(now + timedelta(hours=ends))
    names = [x509.UniformResourceIdentifier(uri) for uri in uris]
    names.append(x509.IPAddress(ipaddress.ip_address("127.0.0.1")))
    flags = dict.fromkeys(
        ("digital_signature", "content_commitment", "key_encipherment", "data_encipherment", "key_agreement",
         "key_cert_sign", "crl_sign", "encipher_only", "decipher_only"), False,
    ) | dict.fromkeys(usage.split(), True)  # fmt: skip
    builder = builder.add_extension(x509.SubjectAlternativeName(names), critical=not uris)
    builder = builder.add_extension(x509.BasicConstraints(ca=is_authority, path_length=None), critical=True)
    builder = builder.add_extension(x509.KeyUsage(**flags), critical=True)
    made = builder.sign(signer, hashes.SHA256())
    trusted = (server.folder / "ca.pem").read_bytes()
    return grpc.ssl_channel_credentials(trusted, _pem(key), made.public_bytes(Encoding.PEM))


OURS = "spiffe://kehu.internal/gateway"
REFUSED: dict[str, Callable[[Server, Path], grpc.ChannelCredentials | None]] = {
    "plaintext": lambda s, other: None,
    "no certificate": lambda s, other: grpc.ssl_channel_credentials((s.folder / "ca.pem").read_bytes()),
    "another authority": lambda s, other: a_leaf(s, [OURS], by=other),
    "ended": lambda s, other: a_leaf(s, [OURS], begins=-48, ends=-1),
    "not begun": lambda s, other: a_leaf(s, [OURS], begins=1),
    "an authority": lambda s, other: a_leaf(s, [OURS], is_authority=True),
    "may sign certificates": lambda s, other: a_leaf(s, [OURS], usage="digital_signature key_cert_sign"),
    "may sign lists": lambda s, other: a_leaf(s, [OURS], usage="digital_signature crl_sign"),
    "for encryption": lambda s, other: a_leaf(s, [OURS], usage="key_encipherment"),
    "no SPIFFE id": lambda s, other: a_leaf(s, []),
    "two SPIFFE ids": lambda s, other: a_leaf(s, [OURS, "spiffe://kehu.internal/search"]),
    "another trust domain": lambda s, other: a_leaf(s, ["spiffe://kehu.internal.evil.test/gateway"]),
    "a process we do not have": lambda s, other: a_leaf(s, ["spiffe://kehu.internal/stranger"]),
    "no process": lambda s, other: a_leaf(s, ["spiffe://kehu.internal/"]),
    "a path below a process": lambda s, other: a_leaf(s, [OURS + "/admin"]),
    "capitals": lambda s, other: a_leaf(s, ["spiffe://kehu.internal/Gateway"]),
    "https": lambda s, other: a_leaf(s, ["https://kehu.internal/gateway"]),
}


@pytest.mark.parametrize("name", REFUSED)
def test_a_peer_that_is_not_one_of_our_processes_is_refused(server: Server, tmp_path: Path, name: str) -> None:
    ensure_certificates(tmp_path / "other", ["gateway"])

    assert server.ask(REFUSED[name](server, tmp_path / "other")) in (
        grpc.StatusCode.UNAVAILABLE, grpc.StatusCode.UNAUTHENTICATED,
    )  # fmt: skip


def test_a_process_of_ours_is_answered_so_that_the_refusals_mean_something(server: Server) -> None:
    assert server.ask(a_leaf(server, [OURS])) is grpc.StatusCode.OK


def test_a_connection_does_not_outlive_its_certificate(server: Server) -> None:
    pem = (server.folder / "gateway.pem").read_bytes()
    end = x509.load_pem_x509_certificate(pem).not_valid_after_utc.timestamp()

    class Connection:
        def auth_context(self) -> dict[str, tuple[bytes]]:
            return {"x509_pem_cert": (pem,)}

    assert peer_of(Connection(), lambda: end - 1) == "gateway"
    with pytest.raises(PeerUnknown):
        peer_of(Connection(), lambda: end)


def test_certificates_rotate_at_both_ends_without_a_failed_call(server: Server, monkeypatch) -> None:
    monkeypatch.setattr(client, "LOOK_SECONDS", 0.0)
    monkeypatch.setattr(client, "OLD_SECONDS", 1.0)
    channels = client.Channels(server, "search")  # type: ignore[arg-type]
    stub = channels.stub(AccessServiceStub)
    outcomes: list[str] = []
    stop = threading.Event()

    def call() -> None:
        while not stop.is_set():
            try:
                stub.GetKeySet(pb.GetKeySetRequest(), timeout=10)
                outcomes.append("OK")
            except grpc.RpcError as error:
                outcomes.append(str(error.code()))

    threads = [threading.Thread(target=call) for _ in range(3)]
    for thread in threads:
        thread.start()
    for _ in range(5):
        time.sleep(0.3)
        server.renew("search")
        server.renew("access")
    time.sleep(0.5)
    stop.set()
    for thread in threads:
        thread.join()
    channels.close()

    assert set(outcomes) == {"OK"} and len(outcomes) > 50
    assert len(set(server.seen)) >= 4, "the server saw the new certificates"


def test_the_gateways_channels_follow_its_certificate_without_a_failed_call(server: Server, monkeypatch) -> None:
    monkeypatch.setattr(gateway_upstreams, "LOOK_SECONDS", 0.0)
    monkeypatch.setattr(gateway_upstreams, "OLD_SECONDS", 0.5)
    methods = [m for m in methods_of(import_protos()) if m.path == METHOD]

    async def calls() -> int:
        connect = gateway_upstreams.connect_by(server)  # type: ignore[arg-type]
        upstreams = gateway_upstreams.Upstreams(
            methods,
            connect,
            server.tls("gateway").stamp,
        )
        done, renewed = 0, 0
        end = time.monotonic() + 2.5
        while time.monotonic() < end:
            await upstreams.call("access", METHOD, b"", [], 10)
            done += 1
            if done % 40 == 0 and renewed < 4:
                renewed += 1
                await asyncio.to_thread(server.renew, "gateway")
        assert renewed, "too few calls to mean anything"
        await upstreams.close()
        return done

    assert asyncio.run(calls()) > 40
    assert len(set(server.seen)) >= 2, "the service saw the new certificate"


def declared() -> list[tuple[str, frozenset[str], int]]:
    """Return path, services and audience of every method, read from the protos' own options."""
    import_protos()
    found = []
    pool = descriptor_pool.Default()
    for name in SERVICES:
        service = pool.FindServiceByName(f"kehu.{name}.v1.{name.capitalize()}Service")
        for method in service.methods:
            rule = method.GetOptions().Extensions[options.access]
            found.append((f"/{service.full_name}/{method.name}", frozenset(rule.services), rule.audience))
    return found


def test_the_guard_lets_each_service_call_what_the_protos_declare_and_nothing_else() -> None:
    """The NetworkPolicies are compared with the same declarations by tests/k8s: all three agree."""
    plans = plans_by_path([f"kehu.{name}.v1.{name.capitalize()}Service" for name in SERVICES])
    guard = Guard("access", plans, OpenPolicy(), StatedTokens(), MemoryTrail())
    checked = 0
    for path, services, audience in declared():
        for peer in PROCESSES if audience != options.AUDIENCE_PUBLIC else ():
            caller = guard._caller(plans[path], peer, "", {})
            try:
                allowed = guard._decide(plans[path], peer, caller).allowed
            except Exception:
                allowed = False
            assert allowed == (peer in services), (path, peer)
            checked += 1
    assert checked > 500
