"""Bodies of lines: taken in batches as they come, answered batch by batch, and read no faster than they are taken."""

from __future__ import annotations

import json
import os
import socket
import threading
import time
from contextlib import contextmanager
from dataclasses import replace

import psutil
import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.routes.lines import BATCH_BYTES, BATCH_LINES, LINE_BYTES, LineBatches
from tests.gateway.conftest import LIMITS, KitchenBusy, a_world
from tests.gateway.test_gateway import problem

PATH = "/v1/kitchens/k/orders:stream"
LINES = {"Content-Type": "application/x-ndjson"}
MIB = 1024 * 1024


class Sender:
    """A connection that sends a body of no known length and reads the answers while it does."""

    def __init__(self, port, query="", caller="user:cook@kitchen"):
        self.socket = socket.create_connection(("127.0.0.1", port), timeout=20)
        head = (
            f"POST {PATH}{query} HTTP/1.1\r\nHost: kitchen\r\nAuthorization: Bearer {caller}\r\n"
            "Content-Type: application/x-ndjson\r\nTransfer-Encoding: chunked\r\n\r\n"
        )
        self.socket.sendall(head.encode())
        self.file = self.socket.makefile("rb")
        self.status = 0

    def send(self, part):
        self.socket.sendall(b"%x\r\n%b\r\n" % (len(part), part))

    def end(self):
        self.socket.sendall(b"0\r\n\r\n")

    def answer(self):
        """Return the next line of the reply, None at its end."""
        if not self.status:
            self.status = int(self.file.readline().split()[1])
            while self.file.readline().strip():
                pass
        size = int(self.file.readline() or b"0", 16)
        line = self.file.read(size)
        self.file.readline()
        return json.loads(line) if line else None

    def answers(self):
        return list(iter(self.answer, None))

    def close(self):
        self.file.close()
        self.socket.close()


@contextmanager
def sending(world, query="", **how):
    sender = Sender(world.port, query, **how)
    try:
        yield sender
    finally:
        sender.close()


def until(claim, seconds=10):
    deadline = time.monotonic() + seconds
    while not claim():
        assert time.monotonic() < deadline, "it did not happen in time"
        time.sleep(0.01)


def post(world, body, query="", **headers):
    return world.http.post(PATH + query, content=body, headers={**LINES, **headers})


def taken(world):
    return [line for _, lines, _ in world.kitchen.orders for line in lines]


@given(st.lists(st.binary(max_size=30).map(lambda line: line.replace(b"\n", b"")), max_size=40), st.data())
def test_however_a_body_is_cut_into_parts_its_lines_are_the_same(lines, data):
    body, batches, found = b"\n".join(lines), LineBatches(7), []
    while body:
        size = data.draw(st.integers(1, len(body)))
        batches.feed(body[:size])
        body = body[size:]
    batches.finish()
    while not batches.is_empty:
        batch = batches.take()
        assert batch.first_line == 7 + len(found)
        found += batch.lines.split(b"\n")[:-1]

    assert found == (lines[:-1] if lines and not lines[-1] else lines)


def test_a_batch_holds_so_many_lines_and_bytes_and_never_part_of_a_line():
    batches = LineBatches()
    batches.feed(b"x\n" * (BATCH_LINES + 1))
    assert (batches.is_full, len(batches.take().lines)) == (True, 2 * BATCH_LINES)
    batches.take()
    batches.feed((b"y" * 60_000 + b"\n") * 5)

    sizes = [len(batches.take().lines) for _ in range(2)]
    assert sizes == [3 * 60_001, 2 * 60_001]
    assert max(sizes) <= BATCH_BYTES + 3
    assert batches.is_empty


def test_a_line_without_end_is_kept_to_a_limit_and_the_next_line_is_whole():
    batches = LineBatches()
    for _ in range(20):
        batches.feed(b"z" * 10_000)
    batches.feed(b"\nnext\n")

    assert [len(line) for line in batches.take().lines.split(b"\n")] == [LINE_BYTES + 1, 4, 0]


def test_each_batch_is_answered_with_its_last_line_while_the_sender_still_sends(world):
    with sending(world) as sender:
        sender.send(b"one\ntw")
        assert sender.answer() == {"last_line": "1"}
        sender.send(b"o\n")
        assert sender.answer() == {"last_line": "2"}
        sender.send(b"three")
        sender.end()
        assert sender.answers() == [{"last_line": "3"}]

    assert (sender.status, taken(world)) == (200, [b"one", b"two", b"three"])


def test_a_body_sent_at_once_is_taken_in_batches_in_order(world):
    body = b"".join(b"order %d\n" % number for number in range(1, 2 * BATCH_LINES + 8))
    reply = post(world, body)

    assert reply.headers["content-type"] == "application/x-ndjson"
    assert [int(json.loads(line)["last_line"]) for line in reply.text.splitlines()][-1] == 2 * BATCH_LINES + 7
    assert b"".join(line + b"\n" for line in taken(world)) == body
    assert max(len(lines) for _, lines, _ in world.kitchen.orders) == BATCH_LINES


def test_an_empty_body_takes_nothing(world):
    reply = post(world, b"")

    assert (reply.status_code, reply.content, world.kitchen.orders) == (200, b"", [])


def test_who_goes_on_after_a_cut_says_with_which_line(world):
    reply = post(world, b"a\nb\n", "?first_line=1501", **{"Idempotency-Key": "night-7"})

    assert reply.json() == {"last_line": "1502"}
    assert world.kitchen.orders == [(1501, [b"a", b"b"], "night-7")]


@pytest.mark.parametrize(
    ("query", "headers", "expected"),
    [
        ("?lines=eA==", {}, (400, "INVALID_FIELD")),
        ("?first_line=x", {}, (400, "INVALID_FIELD")),
        ("?colour=red", {}, (400, "INVALID_FIELD")),
        ("", {"Content-Type": "application/json"}, (415, "UNSUPPORTED_MEDIA_TYPE")),
        ("", {"Content-Encoding": "gzip"}, (415, "UNSUPPORTED_MEDIA_TYPE")),
        ("", {"Authorization": "Bearer nobody"}, (401, "TOKEN_INVALID")),
        ("", {"X-Request-Timeout": "61"}, (400, "BAD_HEADER")),
    ],
)
def test_a_stream_that_may_not_begin_is_refused_like_any_request(world, query, headers, expected):
    assert problem(post(world, b"a\n", query, **headers)) == expected
    assert world.kitchen.orders == []


def test_each_batch_is_decided_and_audited(world):
    with sending(world) as sender:
        sender.send(b"one\n")
        sender.answer()
        sender.send(b"two\n")
        sender.answer()

    audited = [entry for entry in world.harness.trail.entries if entry[1].endswith("/StreamOrders")]
    assert [(subject, code) for subject, _, _, code in audited] == [("user:cook", "OK")] * 2


def test_who_is_revoked_in_mid_stream_gets_no_further_and_is_told_on_the_last_line(world):
    with sending(world) as sender:
        sender.send(b"one\n")
        assert sender.answer() == {"last_line": "1"}
        world.policy.denied.add(("orders", "create"))
        sender.send(b"two\n")
        (last,) = sender.answers()

    assert (last["error"]["status"], last["error"]["reason"]) == (403, "PERMISSION_DENIED")
    assert taken(world) == [b"one"]


def test_lines_that_the_service_cannot_take_now_are_sent_again_before_the_next(world):
    tries = []

    def refuse(number):
        tries.append(number)
        if len(tries) in (2, 3):
            raise KitchenBusy("not now")

    world.kitchen.before_order = refuse
    with sending(world) as sender:
        sender.send(b"one\n")
        sender.answer()
        sender.send(b"two\n")
        assert sender.answer() == {"last_line": "2"}

    assert (tries, taken(world)) == ([1, 2, 2, 2], [b"one", b"two"])


def test_a_batch_has_a_deadline_of_its_own_and_the_stream_has_none(world):
    world.kitchen.before_order = lambda number: time.sleep(0.4)
    reply = post(world, b"x" * 1000 + b"\n" + (b"y" * 60_000 + b"\n") * 12, **{"X-Request-Timeout": "0.9"})
    assert "error" not in json.loads(reply.text.splitlines()[-1])
    assert len(reply.text.splitlines()) >= 4

    reply = post(world, b"a\n", **{"X-Request-Timeout": "0.2"})
    assert problem(reply) == (504, "DEADLINE_EXCEEDED")
    until(lambda: taken(world)[-1] == b"a")  # nobody knows what became of it; sent again it would change nothing


def test_of_a_broken_connection_only_whole_batches_are_taken(world):
    with sending(world) as sender:
        sender.send(b"one\ntwo\n")
        sender.answer()
        sender.send(b"three\nfo")
    time.sleep(0.6)

    assert taken(world)[:2] == [b"one", b"two"]
    assert b"fo" not in taken(world)
    with sending(world) as sender:
        sender.socket.sendall(b"20\r\nhalf a chunk\n")
        sender.close()
    time.sleep(0.4)
    assert b"half a chunk" not in taken(world)


def test_one_caller_holds_so_many_streams_and_a_closed_one_makes_room(world):
    senders = [Sender(world.port) for _ in range(LIMITS.streams_each)]
    for sender in senders:
        sender.send(b"one\n")
        sender.answer()
    assert problem(post(world, b"two\n")) == (429, "RATE_LIMITED")
    other = post(world, b"two\n", Authorization="Bearer user:baker@kitchen")
    assert other.status_code == 200
    senders[0].end()
    assert senders[0].answers() == []

    until(lambda: post(world, b"three\n").status_code == 200)
    for sender in senders:
        sender.close()


def test_a_silent_stream_is_ended_and_says_so(kitchen_file, messages):
    limits = replace(LIMITS, idle=0.5)
    with a_world(kitchen_file, messages, limits) as world, sending(world) as sender:
        sender.send(b"one\n")
        assert sender.answer() == {"last_line": "1"}
        (last,) = sender.answers()

    assert (last["error"]["status"], last["error"]["reason"]) == (408, "BODY_TIMEOUT")


def test_a_caller_above_its_rate_is_slowed_down_and_loses_nothing(kitchen_file, messages):
    with a_world(kitchen_file, messages, replace(LIMITS, rate=10, burst=3)) as world:
        started = time.monotonic()
        reply = post(world, b"x\n" * BATCH_LINES * 12)

    assert reply.text.splitlines()[-1] == json.dumps({"last_line": str(BATCH_LINES * 12)}, separators=(",", ":"))
    assert time.monotonic() - started > 0.8


def test_a_service_that_takes_slowly_slows_the_sender_and_nothing_piles_up(world):
    """100 MiB pushed as fast as the connection takes them; this process is sender, gateway and service in one."""
    part = (b"%b\n" % (b"x" * 199)) * 320
    sent, acknowledged, far = 0, 0, 0

    def slowly(number):
        world.kitchen.orders.clear()
        time.sleep(0.004)

    world.kitchen.before_order = slowly
    process = psutil.Process(os.getpid())
    before = peak = process.memory_info().rss
    with sending(world) as sender:

        def push():
            nonlocal sent
            while sent < 100 * MIB:
                sender.send(part)
                sent += len(part)
            sender.end()

        pushing = threading.Thread(target=push)
        pushing.start()
        for answer in iter(sender.answer, None):
            acknowledged = int(answer["last_line"]) * 200
            far = max(far, sent - acknowledged)
            peak = max(peak, process.memory_info().rss)
        pushing.join()

    assert acknowledged == sent >= 100 * MIB
    assert far < 12 * MIB, f"{far / MIB:.1f} MiB were under way"
    assert peak - before < 40 * MIB, f"memory grew by {(peak - before) / MIB:.1f} MiB"


def test_a_sender_that_reads_no_answers_is_not_read_without_end(world):
    with sending(world) as sender:
        sender.socket.settimeout(1.0)
        world.kitchen.before_order = lambda number: time.sleep(0.05)
        sent = 0
        started = time.monotonic()
        try:
            while time.monotonic() - started < 3:
                sender.send(b"x" * 199 + b"\n")
                sent += 200
        except TimeoutError:
            pass

    assert sent < 60 * BATCH_BYTES
