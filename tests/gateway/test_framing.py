"""Framed calls mean what unary calls mean, and nothing is lost when a connection breaks."""

from __future__ import annotations

import asyncio
import math
import socket
import ssl
import struct
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from functools import partial

import grpc
import pytest
from google.rpc import status_pb2
from grpc import aio

from gateway import framing
from gateway.framing import Reach
from gateway.problems import from_rpc
from gateway.transcoding.catalog import methods_of
from gateway.upstreams import Upstreams
from infra.certificates import ensure_certificates
from services.chassis.config import MESSAGE_BYTES, TlsFiles
from services.chassis.server import Guard, Serving, connections, plans_by_path, service_names
from services.chassis.server.connections import RELIEF_SECONDS, Listener
from services.chassis.server.frames import (
    CALL_BYTES,
    METADATA_BYTES,
    Inbox,
    pack_call,
    pack_calls,
    pack_headers,
    pack_reply,
    sent_ms_of,
    take_frame,
    unpack_calls,
    unpack_replies,
)
from services.chassis.server.multiplexer import CALLS_AS_SLOW, RELIEFS, SLOW_CALLS, Multiplexer, waits_so_far
from services.chassis.server.pipes import client_context
from tests.gateway.conftest import Kitchen, adder
from tests.harness import TODAY, MemoryTrail, OpenPolicy, StatedTokens, stated_peer

GET_DISH = "/kehu.kitchen.v1.KitchenService/GetDish"
METADATA = [("authorization", "Bearer user:cook@kitchen"), ("x-request-id", "r1")]


class Side:
    """A server that takes frames, and one that does not, over the same guard."""

    def __init__(self, kitchen_file, messages, folder):
        self.file, self.messages = kitchen_file, messages
        self.kitchen, self.policy, self.trail = Kitchen(messages), OpenPolicy(), MemoryTrail()
        self.methods = methods_of([kitchen_file])
        self.add, self.folder, self.stops = adder(kitchen_file), folder, []
        plans = plans_by_path(service_names(Serving("kitchen", [(self.add, self.kitchen)])))
        self.guard = Guard("kitchen", plans, self.policy, StatedTokens(), self.trail, stated_peer, lambda: TODAY)
        ensure_certificates(folder, ["kitchen", "gateway"])

    def files(self, name):
        return TlsFiles(self.folder / "ca.pem", self.folder / f"{name}.pem", self.folder / f"{name}.key")

    def start(self, *, frames=True, port=0, threads=4):
        self.multiplexer = Multiplexer([(self.add, self.kitchen)], self.guard, threads)
        server = grpc.server(ThreadPoolExecutor(8), interceptors=[self.multiplexer, self.guard])
        self.add(self.kitchen, server)
        found = server.add_insecure_port(f"127.0.0.1:{port}")
        server.start()
        self.stops.append(lambda: server.stop(0).wait())
        if frames:
            self.listen()
        return found

    def listen(self):
        self.listener = Listener(self.multiplexer, self.files("kitchen"))
        self.listener.start("127.0.0.1", 0)
        self.stops.append(partial(self.listener.stop, 0))

    def stop(self):
        while self.stops:
            self.stops.pop()()

    def upstreams(self, port):
        reach = Reach("127.0.0.1", "kitchen.kehu.internal", client_context(self.files("gateway")))
        connect = lambda service, names: aio.insecure_channel(f"127.0.0.1:{port}")  # noqa: E731
        return Upstreams(self.methods, connect, reach=lambda service: reach)

    def request(self, dish):
        return self.messages["GetDishRequest"](name=f"dishes/{dish}").SerializeToString()


@pytest.fixture
def side(kitchen_file, messages, tmp_path):
    side = Side(kitchen_file, messages, tmp_path)
    yield side
    side.stop()


async def ready(upstreams, side):
    """Call until there is a connection for frames; return it."""
    deadline = time.monotonic() + 20
    while True:
        await upstreams.call("kitchen", GET_DISH, side.request("soup"), METADATA, 5)
        found = upstreams._frames["kitchen"].connection()
        if found is not None:
            return found
        assert time.monotonic() < deadline, "there is no connection"
        await asyncio.sleep(0.01)


def run(work):
    async def bounded():
        await asyncio.wait_for(work(), 30)

    asyncio.run(bounded())


def test_many_calls_at_once_come_back_to_their_callers(side):
    upstreams = side.upstreams(side.start())

    async def work():
        await ready(upstreams, side)
        calls = [upstreams.call("kitchen", GET_DISH, side.request(n), METADATA, 5) for n in range(60)]
        names = [side.messages["Dish"].FromString(raw).name for raw in await asyncio.gather(*calls)]
        assert names == [f"dishes/{n}" for n in range(60)]
        await upstreams.close()

    run(work)


@pytest.mark.parametrize("dish", ["gone", "spicy", "full", "crash"])
def test_a_framed_refusal_reads_like_a_unary_one(side, dish):
    framed, unary = side.upstreams(side.start()), side.upstreams(side.start(frames=False))

    async def work():
        await ready(framed, side)
        seen = []
        for upstreams in (framed, unary):
            with pytest.raises(grpc.RpcError) as caught:
                await upstreams.call("kitchen", GET_DISH, side.request(dish), METADATA, 5)
            found = from_rpc(caught.value)
            seen.append((found.status, found.reason, found.detail, list(found.faults)))
            await upstreams.close()
        assert seen[0] == seen[1]

    run(work)


def test_the_guard_stands_before_framed_calls_too(side):
    upstreams = side.upstreams(side.start())

    async def refused(metadata):
        with pytest.raises(grpc.RpcError) as caught:
            await upstreams.call("kitchen", GET_DISH, side.request("soup"), metadata, 5)
        return caught.value.code()

    async def work():
        await ready(upstreams, side)
        assert await refused([]) == grpc.StatusCode.UNAUTHENTICATED
        assert await refused([("authorization", "Bearer nobody")]) == grpc.StatusCode.UNAUTHENTICATED
        side.policy.denied.add(("dishes", "read"))
        assert await refused(METADATA) == grpc.StatusCode.PERMISSION_DENIED
        assert side.trail.entries[-1][3] == "PERMISSION_DENIED"
        await upstreams.close()

    run(work)


def test_a_slow_call_misses_its_own_deadline_and_holds_up_nobody(side):
    upstreams = side.upstreams(side.start())

    async def work():
        await ready(upstreams, side)
        slow = asyncio.ensure_future(upstreams.call("kitchen", GET_DISH, side.request("slow"), METADATA, 0.2))
        await upstreams.call("kitchen", GET_DISH, side.request("soup"), METADATA, 0.5)
        with pytest.raises(grpc.RpcError) as caught:
            await slow
        assert caught.value.code() == grpc.StatusCode.DEADLINE_EXCEEDED
        await upstreams.close()

    run(work)


def slow_down(side):
    """Have GetDish count as a method that takes long."""
    method = side.multiplexer._method(GET_DISH)
    for _ in range(SLOW_CALLS):
        method.took(True)


async def asked_for(upstreams, side, dish, timeout):
    """Return the code that a read ends with."""
    with pytest.raises(grpc.RpcError) as caught:
        await upstreams.call("kitchen", GET_DISH, side.request(dish), METADATA, timeout)
    return caught.value.code()


def test_a_replica_that_says_nothing_is_left_and_one_that_is_slow_at_something_is_not(side, monkeypatch):
    upstreams = side.upstreams(side.start())
    monkeypatch.setattr(framing, "SILENCE_SECONDS", 0.2)

    async def work():
        found = await ready(upstreams, side)
        slow = asyncio.ensure_future(asked_for(upstreams, side, "slow", 0.3))
        await asyncio.sleep(0.05)
        await upstreams.call("kitchen", GET_DISH, side.request("soup"), METADATA, 5)
        assert await slow == grpc.StatusCode.DEADLINE_EXCEEDED and found.is_open
        assert await asked_for(upstreams, side, "slow", 0.1) == grpc.StatusCode.DEADLINE_EXCEEDED and found.is_open
        await asyncio.sleep(0.7)
        assert await asked_for(upstreams, side, "slow", 0.3) == grpc.StatusCode.DEADLINE_EXCEEDED
        assert not found.is_open
        upstreams._frames["kitchen"]._not_before = 0.0
        assert await ready(upstreams, side) is not found
        await upstreams.close()

    run(work)


def test_calls_behind_one_whose_connection_ended_are_not_begun(side):
    upstreams, thawed = side.upstreams(side.start(threads=1)), threading.Event()

    async def work():
        found = await ready(upstreams, side)
        slow_down(side)
        (connection,) = side.listener._connections
        begun, side.kitchen.work = threading.Semaphore(0), lambda: (begun.release(), thawed.wait())
        calls = [found.call(GET_DISH, side.request("soup"), METADATA, 10) for _ in range(3)]
        await turns_true(lambda: begun._value == 1 and side.multiplexer._work.qsize() == 2)
        found.close()
        await asyncio.gather(*calls, return_exceptions=True)
        await turns_true(lambda: connection.is_over)
        thawed.set()
        await turns_true(lambda: side.multiplexer._work.empty())
        await asyncio.sleep(0.1)
        assert begun._value == 1
        await upstreams.close()

    try:
        run(work)
    finally:
        thawed.set()


def test_a_call_that_nobody_waits_for_is_not_sent(side):
    upstreams = side.upstreams(side.start())

    async def work():
        found, before = await ready(upstreams, side), len(side.kitchen.calls)
        found.call(GET_DISH, side.request("soup"), METADATA, 5).cancel()
        await found.call(GET_DISH, side.request("soup"), METADATA, 5)
        assert len(side.kitchen.calls) == before + 1 and not found._waiting
        found.pause_writing()
        with pytest.raises(grpc.RpcError):
            await found.call(GET_DISH, side.request("soup"), METADATA, 0.05)
        found.resume_writing()
        await found.call(GET_DISH, side.request("soup"), METADATA, 5)
        assert len(side.kitchen.calls) == before + 2
        await upstreams.close()

    run(work)


def test_a_frame_that_was_long_under_way_carries_no_fresh_deadline(side):
    """As when a service is stopped for a while and then goes on with what lay in its socket."""
    side.start()
    headers = pack_headers(METADATA)

    def asked(found, number, sent_ms):
        found.sendall(pack_calls(sent_ms, [pack_call(number, GET_DISH, 1000, headers, side.request("soup"))]))
        (frame,) = Inbox().take(found.recv(65536))
        (reply,) = unpack_replies(frame)
        return reply

    with (
        socket.create_connection(("127.0.0.1", side.multiplexer.port), timeout=10) as plain,
        client_context(side.files("gateway")).wrap_socket(plain, server_hostname="kitchen.kehu.internal") as found,
    ):
        assert not asked(found, 1, 60_000).is_failure
        assert not asked(found, 2, 60_000).is_failure
        late = asked(found, 3, 58_000)
    assert status_pb2.Status.FromString(late.body).code == grpc.StatusCode.DEADLINE_EXCEEDED.value[0]
    assert len(side.kitchen.calls) == 2


@pytest.mark.parametrize("is_too_long", [False, True])
def test_a_reply_may_be_as_long_as_a_unary_one(side, is_too_long):
    title = "x" * (MESSAGE_BYTES - 100 + 200 * is_too_long)
    side.kitchen.GetDish = lambda request, context: side.messages["Dish"](title=title)
    upstreams = side.upstreams(side.start())

    async def work():
        while side.multiplexer and (found := upstreams._connection("kitchen")) is None:
            await asyncio.sleep(0.01)
        if is_too_long:
            assert await asked_for(upstreams, side, "soup", 5) == grpc.StatusCode.RESOURCE_EXHAUSTED
        else:
            raw = await found.call(GET_DISH, side.request("soup"), METADATA, 5)
            assert side.messages["Dish"].FromString(raw).title == title
        await upstreams.close()

    run(work)


def test_more_than_may_wait_is_turned_away(side):
    upstreams = side.upstreams(side.start(threads=1))

    async def work():
        await ready(upstreams, side)
        slow_down(side)
        calls = [upstreams.call("kitchen", GET_DISH, side.request("slow"), METADATA, 1) for _ in range(40)]
        found = await asyncio.gather(*calls, return_exceptions=True)
        codes = {error.code() for error in found if isinstance(error, grpc.RpcError)}
        assert grpc.StatusCode.RESOURCE_EXHAUSTED in codes
        await upstreams.close()

    run(work)


def test_calls_that_take_long_hold_up_no_others_in_their_frame(side):
    """Whatever was quick until now: the reader of the connection is relieved."""
    upstreams = side.upstreams(side.start())

    async def work():
        await ready(upstreams, side)
        for _ in range(SLOW_CALLS):
            slow = asyncio.ensure_future(upstreams.call("kitchen", GET_DISH, side.request("slow"), METADATA, 10))
            quick = [upstreams.call("kitchen", GET_DISH, side.request(n), METADATA, 10) for n in range(5)]
            began = time.monotonic()
            await asyncio.gather(*quick)
            assert not slow.done(), f"the quick ones took {time.monotonic() - began:.2f} s"
            assert side.messages["Dish"].FromString(await slow).name == "dishes/slow"
        await upstreams.close()

    run(work)


def readers():
    """How many threads read connections, or stay in a call that they read."""
    return sum(thread.name == "frames" for thread in threading.enumerate())


async def turns_true(claim):
    deadline = time.monotonic() + 10
    while not claim():
        assert time.monotonic() < deadline
        await asyncio.sleep(0.01)


def test_calls_that_hang_take_one_more_thread_and_no_more(side):
    """As when the database freezes: whatever was quick until now goes to the workers at once."""
    upstreams, thawed = side.upstreams(side.start()), threading.Event()

    async def work():
        await ready(upstreams, side)
        before = readers()
        side.kitchen.work = thawed.wait
        calls = [asyncio.ensure_future(upstreams.call("kitchen", GET_DISH, side.request("soup"), METADATA, 10))]
        await turns_true(lambda: readers() == before + 1)
        for _ in range(10):
            calls.append(asyncio.ensure_future(upstreams.call("kitchen", GET_DISH, side.request("soup"), METADATA, 10)))
            await asyncio.sleep(2 * RELIEF_SECONDS)
        assert readers() == before + 1
        thawed.set()
        await asyncio.gather(*calls)
        await turns_true(lambda: readers() == before)
        assert side.multiplexer._reliefs._value == RELIEFS
        await upstreams.close()

    try:
        run(work)
    finally:
        thawed.set()


def test_no_more_threads_than_bounded_are_relieved(side):
    side.start()
    assert [side.multiplexer.lend_relief(GET_DISH) for _ in range(RELIEFS + 1)] == [True] * RELIEFS + [False]
    side.multiplexer.return_relief()
    assert side.multiplexer.lend_relief("/no/Such")


def test_threads_that_cannot_be_started_cost_a_call_or_a_connection_at_most(side, monkeypatch):
    upstreams, start, are_out = side.upstreams(side.start()), threading.Thread.start, threading.Event()

    def start_some(thread):
        if are_out.is_set() and thread.name.startswith("frame"):
            raise RuntimeError("can't start new thread")
        start(thread)

    async def work():
        await ready(upstreams, side)
        monkeypatch.setattr(threading.Thread, "start", start_some)
        are_out.set()
        await upstreams.call("kitchen", GET_DISH, side.request("slow"), METADATA, 5)  # nobody relieves its thread
        slow_down(side)
        with pytest.raises(grpc.RpcError) as caught:
            await upstreams.call("kitchen", GET_DISH, side.request("soup"), METADATA, 5)
        assert caught.value.code() == grpc.StatusCode.RESOURCE_EXHAUSTED
        context = client_context(side.files("gateway"))
        assert await asyncio.to_thread(said_to, side.multiplexer.port, context) == b""
        are_out.clear()
        await upstreams.call("kitchen", GET_DISH, side.request("soup"), METADATA, 5)
        assert await asyncio.to_thread(said_to, side.multiplexer.port, context) != b""
        assert side.multiplexer._reliefs._value == RELIEFS
        await upstreams.close()

    run(work)


def test_a_slow_method_goes_to_workers_and_is_tried_again_later(side):
    side.start()
    method = side.multiplexer._method(GET_DISH)
    assert method.is_quick()
    slow_down(side)
    turns = [method.is_quick() for _ in range(CALLS_AS_SLOW)]
    assert turns.count(True) == 1 and turns[-1]
    method.took(True)
    assert not method.is_quick()


def test_work_alone_is_no_waiting():
    def waits(work):
        before = waits_so_far()
        work()
        return waits_so_far() - before

    assert min(waits(lambda: sum(range(50_000))) for _ in range(50)) == 0
    assert min(waits(lambda: time.sleep(0.002)) for _ in range(5)) > 0


def test_answers_of_workers_come_back_to_their_callers(side):
    upstreams = side.upstreams(side.start())

    async def work():
        await ready(upstreams, side)
        slow_down(side)
        calls = [upstreams.call("kitchen", GET_DISH, side.request(n), METADATA, 5) for n in range(60)]
        names = [side.messages["Dish"].FromString(raw).name for raw in await asyncio.gather(*calls)]
        assert names == [f"dishes/{n}" for n in range(60)]
        await upstreams.close()

    run(work)


def test_a_service_without_frames_is_called_unary(side):
    upstreams = side.upstreams(side.start(frames=False))

    async def work():
        for _ in range(3):
            raw = await upstreams.call("kitchen", GET_DISH, side.request("soup"), METADATA, 5)
            assert side.messages["Dish"].FromString(raw).name == "dishes/soup"
        assert upstreams._frames["kitchen"].connection() is None
        await upstreams.close()

    run(work)


def test_a_long_request_goes_on_its_own(side):
    upstreams = side.upstreams(side.start())

    async def work():
        await ready(upstreams, side)
        request = side.messages["CreateDishRequest"](dish_id="x" * (CALL_BYTES + 1)).SerializeToString()
        path = GET_DISH.replace("GetDish", "CreateDish")
        assert await upstreams.call("kitchen", path, request, METADATA, 5) == request
        await upstreams.close()

    run(work)


def test_a_read_on_a_broken_connection_is_asked_again_and_a_write_is_not(side):
    upstreams = side.upstreams(side.start())

    async def broken(path, request):
        await ready(upstreams, side)
        pending = asyncio.ensure_future(upstreams.call("kitchen", path, request, METADATA, 10))
        await asyncio.sleep(0.05)
        await asyncio.to_thread(side.listener.stop, 0)
        side.listen()
        return await pending

    unary, left = upstreams._call_unary, []

    async def watched(service, path, request, metadata, timeout):
        left.append(timeout)
        return await unary(service, path, request, metadata, timeout)

    async def work():
        upstreams._call_unary = watched
        assert side.messages["Dish"].FromString(await broken(GET_DISH, side.request("slow"))).name == "dishes/slow"
        assert 0 < left[-1] < 10, "it has what is left of its time"
        write = GET_DISH.replace("GetDish", "UpdateDish")
        request = side.messages["UpdateDishRequest"]()
        request.dish.name = "dishes/slow"
        with pytest.raises(grpc.RpcError) as caught:
            await broken(write, request.SerializeToString())
        assert caught.value.code() == grpc.StatusCode.UNAVAILABLE
        await upstreams.close()

    run(work)


def test_a_draining_service_is_let_go_when_it_answered(side):
    upstreams = side.upstreams(side.start())

    async def work():
        found = await ready(upstreams, side)
        slow = asyncio.ensure_future(upstreams.call("kitchen", GET_DISH, side.request("slow"), METADATA, 5))
        await asyncio.sleep(0.05)
        await asyncio.wait_for(asyncio.to_thread(side.listener.stop, 3600), 10)
        assert side.messages["Dish"].FromString(await slow).name == "dishes/slow"
        assert not found.is_open
        await upstreams.call("kitchen", GET_DISH, side.request("soup"), METADATA, 5)  # by gRPC, as long as that goes
        await upstreams.close()

    run(work)


def test_an_old_connection_is_renewed_and_ends_when_its_calls_are_answered(side):
    upstreams = side.upstreams(side.start())

    async def work():
        old = await ready(upstreams, side)
        slow = asyncio.ensure_future(upstreams.call("kitchen", GET_DISH, side.request("slow"), METADATA, 5))
        await asyncio.sleep(0)
        old.opened -= framing.RENEW_SECONDS
        upstreams._frames["kitchen"]._not_before = 0.0
        deadline = time.monotonic() + 5
        while (await ready(upstreams, side)) is old:
            assert time.monotonic() < deadline, "it was never renewed"
        assert not old.is_open
        assert side.messages["Dish"].FromString(await slow).name == "dishes/slow"
        await upstreams.close()

    run(work)


def test_a_connection_that_cannot_be_renewed_is_given_up(side):
    upstreams = side.upstreams(side.start())

    async def work():
        found = await ready(upstreams, side)
        found.opened -= framing.OLDEST_SECONDS
        upstreams._frames["kitchen"]._not_before = math.inf
        assert upstreams._connection("kitchen") is None and not found.is_open
        await upstreams.call("kitchen", GET_DISH, side.request("soup"), METADATA, 5)
        await upstreams.close()

    run(work)


@pytest.mark.parametrize("is_replaced", [False, True])
def test_a_service_lets_connections_go_that_are_old_or_met_with_replaced_certificates(side, monkeypatch, is_replaced):
    upstreams = side.upstreams(side.start())

    async def work():
        found = await ready(upstreams, side)
        if is_replaced:
            side.files("kitchen").certificate.touch()
        else:
            monkeypatch.setattr(connections, "OLDEST_SECONDS", 0.0)
        await turns_true(lambda: found.is_leaving)
        (connection,) = side.listener._connections
        monkeypatch.setattr(framing, "LEAVE_SECONDS", math.inf)  # a peer that does not leave by itself
        monkeypatch.setattr(connections, "LEAVING_SECONDS", 0.0)
        await turns_true(lambda: connection.is_over)
        await upstreams.close()

    run(work)


def test_a_service_that_stops_still_relieves_threads(side):
    upstreams = side.upstreams(side.start())

    async def work():
        await ready(upstreams, side)
        slow = asyncio.ensure_future(upstreams.call("kitchen", GET_DISH, side.request("slow"), METADATA, 5))
        await asyncio.sleep(0.05)
        stopping = asyncio.ensure_future(asyncio.to_thread(side.listener.stop, 10))
        await asyncio.sleep(0.1)
        path, request = GET_DISH.replace("GetDish", "UpdateDish"), side.messages["UpdateDishRequest"]()
        request.dish.name = "dishes/slow"
        second = asyncio.ensure_future(upstreams.call("kitchen", path, request.SerializeToString(), METADATA, 5))
        await asyncio.sleep(0.02)
        third = asyncio.ensure_future(upstreams.call("kitchen", GET_DISH + "No", b"", METADATA, 5))
        with pytest.raises(grpc.RpcError) as caught:
            await third
        assert caught.value.code() == grpc.StatusCode.UNIMPLEMENTED and not second.done()
        await asyncio.gather(slow, second, stopping)
        await upstreams.close()

    run(work)


def test_peers_that_take_nothing_do_not_hold_up_the_end(side, monkeypatch):
    upstreams, thawed = side.upstreams(side.start()), threading.Event()

    async def work():
        await ready(upstreams, side)
        monkeypatch.setattr(connections.Connection, "_say_last", lambda _: thawed.wait())
        await asyncio.wait_for(asyncio.to_thread(side.listener.stop, 0.1), 5)
        await upstreams.close()

    try:
        run(work)
    finally:
        thawed.set()


NOWHERE = pack_calls(0, [pack_call(1, "/no/Such", 1000, b"[]", b"")])


def said_to(port, context, name="kitchen.kehu.internal"):
    """Shake hands and say something; return the beginning of the answer, nothing when there is none."""
    with socket.create_connection(("127.0.0.1", port), timeout=10) as plain:
        try:
            with context.wrap_socket(plain, server_hostname=name) as found:
                found.sendall(NOWHERE)
                return found.recv(1)
        except OSError:
            return b""


def test_only_processes_of_ours_connect(side, tmp_path):
    side.start()
    ensure_certificates(tmp_path / "other", ["gateway"])
    theirs = [tmp_path / "other" / name for name in ("ca.pem", "gateway.pem", "gateway.key")]
    stranger = client_context(TlsFiles(side.folder / "ca.pem", *theirs[1:]))
    nobody = ssl.create_default_context(cafile=side.folder / "ca.pem")
    old = client_context(side.files("gateway"))
    old.minimum_version, old.maximum_version = ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_2
    for context in (stranger, nobody, old):
        assert said_to(side.multiplexer.port, context) == b""
    assert said_to(side.multiplexer.port, client_context(side.files("gateway")), "access.kehu.internal") == b""
    assert said_to(side.multiplexer.port, client_context(side.files("gateway"))) != b""


def test_frames_hold_any_calls_and_replies():
    metadata = [("a", "é")]
    calls = [(n, f"/s/{n}", n * 10, metadata, b"x" * n) for n in range(5)]
    packed = [pack_call(n, path, left, pack_headers(metadata), request) for n, path, left, _, request in calls]
    (frame,) = Inbox().take(pack_calls(1234567, packed))
    replies = b"".join(pack_reply(n, n % 2 == 1, b"y" * n) for n in range(5))

    found = [(c.number, c.path, c.timeout_ms, c.metadata(), c.request) for c in unpack_calls(frame)]
    assert found == calls and sent_ms_of(frame) == 1234567
    assert [(r.number, r.is_failure, r.body) for r in unpack_replies(replies)] == [
        (n, n % 2 == 1, b"y" * n) for n in range(5)
    ]


@pytest.mark.parametrize("cut", [1, 10, 25])
def test_a_cut_frame_is_refused(cut):
    with pytest.raises((struct.error, UnicodeDecodeError)):
        list(unpack_calls(pack_calls(0, [pack_call(1, "/s/m", 10, b"[]", b"x" * 30)])[4:-cut]))


def test_metadata_has_a_longest():
    with pytest.raises(ValueError):
        pack_headers([("a", "x" * METADATA_BYTES)])
    with pytest.raises(struct.error):
        list(unpack_calls(pack_calls(0, [pack_call(1, "/s/m", 10, b" " * (METADATA_BYTES + 1), b"")])[4:]))


def test_bytes_are_cut_into_frames_however_they_come():
    frames = [b"a" * 10, b"", b"b" * 70_000, b"c"]
    raw = b"".join(take_frame([frame] if frame else []) for frame in frames)
    for size in (1, 3, 5000, len(raw)):
        inbox = Inbox()
        assert [f for at in range(0, len(raw), size) for f in inbox.take(raw[at : at + size])] == frames
    with pytest.raises(struct.error):
        Inbox().take(b"\xff" * 4)


def with_headers(raw):
    """Return a frame with a call whose headers are this JSON."""
    return pack_calls(0, [struct.pack(">IIHHI", 1, 1000, 2, len(raw), 0) + b"/x" + raw])


UNREADABLE = [b"\xff" * 40, take_frame([b"\xff" * 40]), take_frame([b"\x00" * 5]), take_frame([])]


@pytest.mark.parametrize("raw", UNREADABLE + [with_headers(raw) for raw in (b"null", b"5", b"[1]", b"{")])
def test_a_frame_nobody_can_read_closes_the_connection_and_the_server_lives_on(side, raw):
    port = side.start()

    async def work():
        upstreams = side.upstreams(port)
        found = await ready(upstreams, side)
        found._transport.write(raw)
        deadline = time.monotonic() + 5
        while found.is_open:
            assert time.monotonic() < deadline
            await asyncio.sleep(0.01)
        upstreams._frames["kitchen"]._not_before = 0.0
        assert await ready(upstreams, side) is not found
        await upstreams.close()

    run(work)
