"""What a hostile client sends, over raw sockets, and how much any client may send."""

from __future__ import annotations

import json
import socket
import threading
import time

import grpc
import psutil
import pytest

from gateway.auth import Doorkeeper
from gateway.limits import Buckets, Limits
from gateway.problems import Problem
from gateway.wire import open_exchange
from tests.gateway.conftest import LIMITS, a_world
from tests.harness import MemoryTrail, OpenPolicy, StatedTokens

HOST = "127.0.0.1"


def head(line, *headers):
    return "\r\n".join([line, "Host: kehu", "Authorization: Bearer user:cook@kitchen", *headers, "", ""]).encode()


POST = "POST /v1/dishes HTTP/1.1"
AS_JSON = "Content-Type: application/json"


def talk(port, *pieces, pause=0.0, timeout=15):
    """Send the pieces as they are and return the status line and the body of the first reply."""
    with socket.create_connection((HOST, port), timeout=timeout) as connection:
        try:
            for piece in pieces:
                connection.sendall(piece)
                if pause:
                    time.sleep(pause)
        except (BrokenPipeError, ConnectionResetError):
            pass  # it answered before everything was sent
        received = b""
        try:
            while chunk := connection.recv(65536):
                received += chunk
                if complete(received):
                    break
        except ConnectionResetError:
            pass
    status = int(received.split(b" ", 2)[1]) if received.startswith(b"HTTP/") else 0
    return status, received.partition(b"\r\n\r\n")[2]


def complete(received):
    before, found, body = received.partition(b"\r\n\r\n")
    lengths = [int(line.split(b":")[1]) for line in before.lower().split(b"\r\n") if line.startswith(b"content-length")]
    return bool(found and lengths and len(body) >= lengths[0])


def alive(world):
    return world.http.get("/v1/dishes/soup").status_code == 200


def test_a_body_too_long_by_its_length_is_refused_unread(world):
    status, body = talk(world.port, head(POST, AS_JSON, "Content-Length: 99999999999"), b"{")

    assert (status, json.loads(body)["reason"]) == (413, "BODY_TOO_LARGE")


def test_a_body_too_long_without_a_length_is_cut_off(world):
    chunk = b"10000\r\n" + b"a" * 0x10000 + b"\r\n"
    status, _ = talk(world.port, head(POST, AS_JSON, "Transfer-Encoding: chunked"), *[chunk] * 40)

    assert status == 413
    assert alive(world)


@pytest.mark.parametrize("beginning", [b"", b"PRI * HT", b"GET /heal"])
def test_a_connection_without_a_whole_head_is_closed_whatever_it_began_with(hasty, beginning):
    with socket.create_connection((HOST, hasty.port), timeout=10) as connection:
        connection.sendall(beginning)
        assert connection.recv(1) == b""


def test_a_connection_kept_without_another_request_is_closed(hasty):
    with socket.create_connection((HOST, hasty.port), timeout=10) as connection:
        connection.sendall(head("GET /healthz HTTP/1.1"))
        received = b""
        while more := connection.recv(4096):
            received += more

    assert complete(received)


def test_http2_in_clear_is_not_spoken(hasty):
    status, _ = talk(hasty.port, b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n" + bytes(3) + b"\x04" + bytes(5))

    assert status in (0, 400, 505)
    assert alive(hasty)


@pytest.fixture(scope="module")
def hasty(kitchen_file, messages):
    """A gateway that waits half a second for a head."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("gateway.main.HEADER_MILLISECONDS", 500)
        with a_world(kitchen_file, messages) as world:
            yield world


def test_a_body_that_stalls_is_given_up(world):
    status, _ = talk(world.port, head(POST, AS_JSON, "Content-Length: 100"), b"{")

    assert status == 408


def test_length_and_chunks_together_are_never_both_believed(world):
    smuggled = b"0\r\n\r\nGET /v1/dishes/smuggled HTTP/1.1\r\nHost: kehu\r\n\r\n"
    talk(world.port, head(POST, AS_JSON, "Content-Length: 6", "Transfer-Encoding: chunked"), smuggled)

    assert not any("smuggled" in str(call) for call in world.kitchen.calls)


@pytest.mark.parametrize("doubled", ["Authorization: Bearer user:boss@kitchen", "Content-Type: text/plain"])
def test_a_header_given_twice_is_refused(world, doubled):
    status, _ = talk(world.port, head(POST, AS_JSON, doubled, "Content-Length: 2"), b"{}")

    assert status in (400, 415)


@pytest.mark.parametrize(
    "request_head",
    [
        b"GET /v1/dishes/soup HTTP/1.1\r\n" + b"".join(b"X-H%d: a\r\n" % n for n in range(10_000)) + b"\r\n",
        b"GET /v1/dishes/soup HTTP/1.1\r\nX-Long: " + b"a" * 1_000_000 + b"\r\n\r\n",
        b"GET /" + b"a" * 100_000 + b" HTTP/1.1\r\nHost: kehu\r\n\r\n",
        b"GET /v1/dishes/so up HTTP/1.1\r\nHost: kehu\r\n\r\n",
        b"GET /v1/dishes/soup\x00 HTTP/1.1\r\nHost: kehu\r\n\r\n",
        b"\x16\x03\x01\x02\x00\x01\x00",
    ],
)
def test_a_head_beyond_measure_or_malformed_is_turned_away(world, request_head):
    status, _ = talk(world.port, request_head)

    assert status == 0 or 400 <= status < 500
    assert alive(world)


@pytest.mark.parametrize(
    "path", [b"/v1//dishes/soup", b"/v1/dishes/%2e%2e", b"/v1/dishes/soup;a", b"/v1/dishes/soup/", b"/v1/dishes/%00"]
)
def test_a_path_in_another_form_reaches_nothing(world, path):
    status, _ = talk(world.port, head(f"GET {path.decode()} HTTP/1.1"))

    assert status in (400, 404)
    assert world.kitchen.calls == []


def test_deep_json_reaches_nobody(world):
    body = b"[" * 500_000

    status, reply = talk(world.port, head(POST, AS_JSON, f"Content-Length: {len(body)}"), body)
    assert (status, json.loads(reply)["reason"], world.kitchen.calls) == (400, "MALFORMED_JSON", [])
    assert alive(world)


def test_a_form_of_many_parts_is_refused(world):
    part = b'--b\r\nContent-Disposition: form-data; name="language"\r\n\r\nzh\r\n'
    kind = "Content-Type: multipart/form-data; boundary=b"
    body = part * 1000

    status, _ = talk(
        world.port, head("POST /v1/kitchens/k:import HTTP/1.1", kind, f"Content-Length: {len(body)}"), body
    )
    assert status == 400


def test_two_hundred_slow_connections_stop_nobody(world):
    slow = [socket.create_connection((HOST, world.port)) for _ in range(200)]
    for connection in slow:
        connection.sendall(b"GET /v1/dishes/soup HTTP/1.1\r\nHost: kehu\r\n")

    assert alive(world)
    for connection in slow:
        connection.close()


def test_large_bodies_are_not_kept(world):
    chunk = b"40000\r\n" + b"a" * 0x40000 + b"\r\n"
    before = psutil.Process().memory_info().rss
    for _ in range(10):
        talk(world.port, head(POST, AS_JSON, "Transfer-Encoding: chunked"), *[chunk] * 20)

    assert psutil.Process().memory_info().rss - before < 50 * 1024 * 1024


def test_a_service_takes_no_message_over_four_megabytes_and_no_metadata_over_sixteen_kilobytes(world):
    """Whoever gets past the gateway with mTLS meets the same bounds at each service."""
    with grpc.insecure_channel(world.harness.address) as channel:
        call = channel.unary_unary("/kehu.kitchen.v1.KitchenService/GetDish", lambda raw: raw, lambda raw: raw)
        before = psutil.Process().memory_info().rss
        refused = []
        for request, metadata in ((b"\x0a" * (5 * 1024 * 1024), ()), (b"", (("x-purpose", "a" * 40 * 1024),))):
            with pytest.raises(grpc.RpcError) as error:
                call(request, timeout=10, metadata=(("authorization", "Bearer user:cook@kitchen"), *metadata))
            refused.append(error.value.code())

    assert refused == [grpc.StatusCode.RESOURCE_EXHAUSTED] * 2
    assert world.kitchen.calls == []
    assert alive(world)
    assert psutil.Process().memory_info().rss - before < 50 * 1024 * 1024


def test_a_bucket_gives_its_burst_then_its_rate():
    buckets = Buckets(rate=2, burst=3)

    assert [buckets.take("a", 0.0) for _ in range(4)] == [0, 0, 0, 0.5]
    assert buckets.take("b", 0.0) == 0
    assert buckets.take("a", 0.5) == 0
    assert buckets.take("a", 0.5) > 0


def test_a_caller_above_its_rate_waits_and_others_do_not(kitchen_file, messages):
    limits = Limits(rate=0.1, burst=3, anonymous_rate=100, anonymous_burst=1000)
    with a_world(kitchen_file, messages, limits) as world:
        forged = [{"X-Forwarded-For": f"10.0.0.{n}"} for n in range(5)]
        replies = [world.http.get("/v1/dishes/soup", headers=headers) for headers in forged]
        other = world.http.get("/v1/dishes/soup", headers={"Authorization": "Bearer user:other@kitchen"})

    assert [reply.status_code for reply in replies] == [200, 200, 200, 429, 429]
    assert int(replies[-1].headers["retry-after"]) >= 1
    assert replies[-1].headers["ratelimit"].startswith('"rate";r=0;t=')
    assert replies[-1].headers["ratelimit-policy"] == '"rate";q=3;w=30'
    assert other.status_code == 200


def test_bad_tokens_are_counted_by_address(kitchen_file, messages):
    with a_world(kitchen_file, messages, Limits(anonymous_rate=0.1, anonymous_burst=3)) as world:
        bad = {"Authorization": "Bearer nobody"}
        statuses = [world.http.get("/v1/dishes/soup", headers=bad).status_code for _ in range(5)]

    assert statuses == [401, 401, 401, 429, 429]


@pytest.fixture
def door():
    limits = Limits(anonymous_rate=0.1, anonymous_burst=3, anonymous_at_once=2)
    return Doorkeeper(OpenPolicy(), StatedTokens(), MemoryTrail(), limits, now=lambda: 0.0)


def whoever(peer):
    return open_exchange({"headers": [], "client": (peer, 1)}, None)


def knock(door, peer):
    with pytest.raises(Problem) as caught:
        door.authenticate(whoever(peer))
    return caught.value.status


def test_all_addresses_of_an_ipv6_site_are_one_stranger(door):
    assert [knock(door, f"2001:db8::{n}:1") for n in range(5)] == [401, 401, 401, 429, 429]
    assert knock(door, "2001:db8:0:1::1") == 401
    with door.stranger(whoever("2001:db8::1")), door.stranger(whoever("2001:db8::2")):
        with pytest.raises(Problem, match="at once"), door.stranger(whoever("2001:db8::3")):
            pass
        with door.stranger(whoever("2001:db8:0:1::3")):
            pass


def test_an_ipv4_address_is_one_stranger_however_it_is_written(door):
    written = ["192.0.2.1", "::ffff:192.0.2.1", "192.0.2.1", "::ffff:c000:201"]

    assert [knock(door, peer) for peer in written] == [401, 401, 401, 429]
    assert knock(door, "::ffff:192.0.2.2") == knock(door, "") == knock(door, "/run/socket") == 401


def test_beyond_the_requests_in_flight_one_is_turned_away_at_once(kitchen_file, messages):
    with a_world(kitchen_file, messages, Limits(in_flight=2)) as world:
        threads = [threading.Thread(target=world.http.get, args=("/v1/dishes/slow",)) for _ in range(2)]
        for thread in threads:
            thread.start()
        wait_until(lambda: len(world.kitchen.calls) == 2)
        reply = world.http.get("/v1/dishes/soup")
        for thread in threads:
            thread.join()

    assert reply.status_code == 503
    assert reply.headers["retry-after"] == "1"


def wait_until(is_so, seconds=5.0):
    deadline = time.monotonic() + seconds
    while not is_so():
        assert time.monotonic() < deadline
        time.sleep(0.005)


def test_the_limits_of_the_tests_are_those_of_production_where_it_matters():
    assert LIMITS.body_bytes == Limits().body_bytes == 1024 * 1024
