"""A real gateway process under clients that mean harm: raw bytes to its socket, its memory watched from outside."""

from __future__ import annotations

import gzip
import json
import os
import signal
import socket
import time
import zlib
from contextlib import ExitStack, suppress
from dataclasses import dataclass

import psutil
import pytest

from infra.certificates import ensure_certificates
from infra.processes import free_port
from tests.bench.bench_gateway import PEERS, process, wait_until_answers
from tests.bench.peers.scene import PATH, PURPOSE, config_of, token_of

MEGABYTE = 1024 * 1024
GROWTH = 50 * MEGABYTE
ZSTD_BOMB = bytes.fromhex("28b52ffd 8458 0000 0001 00") + b"\x00" * 64  # only its name has to be read


@dataclass
class Running:
    port: int
    gateway: psutil.Process
    service: int
    headers: dict[str, str]

    def head(self, line, *more):
        own = [f"{name}: {value}" for name, value in self.headers.items()]
        return "\r\n".join([line, "Host: kehu", *own, *more, "", ""]).encode()

    def ask(self, *pieces, timeout=20.0):
        """Send pieces; return the status of the answer, 0 when the connection was closed without one."""
        with socket.create_connection(("127.0.0.1", self.port), timeout=timeout) as connection:
            received = b""
            try:
                for piece in pieces:
                    connection.sendall(piece)
                received = connection.recv(65536)
            except (BrokenPipeError, ConnectionResetError):
                with suppress(OSError):
                    received = received or connection.recv(65536)
        return int(received.split(b" ", 2)[1]) if received.startswith(b"HTTP/") else 0

    def read(self, *more):
        return self.ask(self.head(f"GET {PATH} HTTP/1.1", *more))


@pytest.fixture(scope="module")
def running(tmp_path_factory):
    folder = tmp_path_factory.mktemp("hostile")
    address, port = f"127.0.0.1:{free_port()}", free_port()
    config = config_of(folder, {"consent": address})
    ensure_certificates(config.tls_dir, ["consent", "gateway"])
    headers = {"Authorization": f"Bearer {token_of(folder, config)}", "X-Purpose": PURPOSE}
    with ExitStack() as stack:
        service = stack.enter_context(process(["-m", f"{PEERS}.kehu_service", str(folder), address]))
        gateway = stack.enter_context(process(["-m", f"{PEERS}.kehu_gateway", str(folder), address, str(port)]))
        wait_until_answers(f"http://127.0.0.1:{port}{PATH}", headers, seconds=120.0)
        yield Running(port, psutil.Process(gateway), service, headers)


@pytest.fixture
def watched(running):
    """The gateway, which must be up afterwards and no more than 50 MB larger."""
    before = running.gateway.memory_info().rss
    yield running
    assert running.read() == 200
    assert running.gateway.memory_info().rss - before <= GROWTH


POST = "POST /v1/consents:decide HTTP/1.1"
PUBLIC = "POST /v1/invitations:accept HTTP/1.1"
AS_JSON = "Content-Type: application/json"


@pytest.mark.parametrize("line", [POST, PUBLIC])
def test_a_body_over_the_limit_is_refused_with_and_without_its_length(watched, line):
    chunk = b"10000\r\n" + b" " * 0x10000 + b"\r\n"
    for _ in range(5):
        assert watched.ask(watched.head(line, AS_JSON, f"Content-Length: {MEGABYTE + 1}"), b"{") == 413
        assert watched.ask(watched.head(line, AS_JSON, "Transfer-Encoding: chunked"), *[chunk] * 40) == 413
    assert watched.ask(watched.head(PUBLIC, AS_JSON, "Content-Length: 99999999999999999999"), b"{") in (400, 413, 0)


@pytest.mark.parametrize(
    ("coding", "bomb"),
    [
        ("gzip", gzip.compress(b"\x00" * (64 * MEGABYTE))),
        ("deflate", zlib.compress(b"\x00" * (64 * MEGABYTE))),
        ("zstd", ZSTD_BOMB),
        ("br", ZSTD_BOMB),
        ("gzip, gzip", gzip.compress(gzip.compress(b"\x00" * (64 * MEGABYTE)))),
    ],
)
def test_a_compressed_body_is_never_opened(watched, coding, bomb):
    encoded = f"Content-Encoding: {coding}"

    for _ in range(3):
        assert watched.ask(watched.head(PUBLIC, AS_JSON, encoded, f"Content-Length: {len(bomb)}"), bomb) in (413, 415)


@pytest.mark.parametrize("opening", [b"[", b'{"a":'])
def test_json_ten_thousand_deep_is_refused(watched, opening):
    body = opening * 10_000

    assert watched.ask(watched.head(PUBLIC, AS_JSON, f"Content-Length: {len(body)}"), body) == 400


def test_ten_thousand_headers_are_refused(watched):
    many = [f"X-H{number}: a" for number in range(10_000)]

    assert watched.read(*many) in (400, 431, 0)


def test_a_form_of_a_thousand_parts_is_refused(watched):
    body = b'--b\r\nContent-Disposition: form-data; name="grant_type"\r\n\r\npassword\r\n' * 1000 + b"--b--\r\n"
    kind = "Content-Type: multipart/form-data; boundary=b"
    line = "POST /oauth2/token HTTP/1.1"

    assert watched.ask(watched.head(line, kind, f"Content-Length: {len(body)}"), body) == 400


def test_two_hundred_slow_heads_and_bodies_stop_nobody_and_one_address_takes_few_places(watched):
    slow = []
    for number in range(200):
        connection = socket.create_connection(("127.0.0.1", watched.port), timeout=20)
        if number % 2:
            connection.sendall(b"GET /v1/profiles HTTP/1.1\r\nHost: kehu\r\nX-Slow:")
        else:
            connection.sendall(watched.head(PUBLIC, AS_JSON, "Content-Length: 1000") + b"{")
        slow.append(connection)
    time.sleep(0.5)

    assert [watched.read() for _ in range(5)] == [200] * 5
    answered = 0
    for connection in slow[::2]:
        connection.settimeout(0.01)
        with suppress(TimeoutError):
            answered += connection.recv(4096).startswith(b"HTTP/1.1 429")
    for connection in slow:
        connection.close()
    assert answered >= 100 - 64 - 1


def test_a_stopped_service_is_answered_for_within_the_callers_two_seconds(watched):
    os.kill(watched.service, signal.SIGSTOP)
    try:
        began = time.monotonic()
        status = watched.read("X-Request-Timeout: 1.5")
        seconds = time.monotonic() - began
    finally:
        os.kill(watched.service, signal.SIGCONT)
    for _ in range(50):
        if watched.read() == 200:
            break
        time.sleep(0.1)

    assert status in (503, 504)
    assert seconds <= 2.0


def test_pages_and_batches_beyond_measure_are_refused_or_cut(watched):
    asked = PATH.replace("page_size=20", "page_size=1000000000")

    assert watched.ask(watched.head(f"GET {asked} HTTP/1.1")) in (200, 400)
    entry = {"profile_id": "p1"}
    body = json.dumps({"requests": [entry] * 100_000}).encode()[:MEGABYTE]
    line = "POST /v1/consents:batchDecide HTTP/1.1"
    assert watched.ask(watched.head(line, AS_JSON, f"Content-Length: {len(body)}"), body) in (400, 403, 404, 413)
