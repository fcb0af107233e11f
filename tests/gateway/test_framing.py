"""Framed calls mean what unary calls mean, and nothing is lost when a stream breaks."""

from __future__ import annotations

import asyncio
import struct
import time
from concurrent.futures import ThreadPoolExecutor

import grpc
import pytest
from grpc import aio

from gateway.problems import from_rpc
from gateway.transcoding.catalog import methods_of
from gateway.upstreams import Upstreams
from services.chassis.server import Guard, Serving, plans_by_path, service_names
from services.chassis.server.frames import CALL_BYTES, PATH, pack_call, pack_reply, unpack_calls, unpack_replies
from services.chassis.server.multiplexer import Multiplexer
from tests.gateway.conftest import Kitchen, adder
from tests.harness import TODAY, MemoryTrail, OpenPolicy, StatedTokens, stated_peer

GET_DISH = "/kehu.kitchen.v1.KitchenService/GetDish"
METADATA = [("authorization", "Bearer user:cook@kitchen"), ("x-request-id", "r1")]


class Side:
    """A server that takes frames, and one that does not, over the same guard."""

    def __init__(self, kitchen_file, messages):
        self.file, self.messages = kitchen_file, messages
        self.kitchen, self.policy, self.trail = Kitchen(messages), OpenPolicy(), MemoryTrail()
        self.methods = methods_of([kitchen_file])
        add = adder(kitchen_file)
        serving = Serving("kitchen", [(add, self.kitchen)])
        plans = plans_by_path(service_names(serving))
        self.guard = Guard("kitchen", plans, self.policy, StatedTokens(), self.trail, stated_peer, lambda: TODAY)
        self.add, self.servers, self.streams = add, [], 0

    def start(self, *, frames=True, port=0, threads=4):
        multiplexer = Multiplexer([(self.add, self.kitchen)], self.guard, threads)
        interceptors = [multiplexer, self.guard] if frames else [self.guard]
        server = grpc.server(ThreadPoolExecutor(8), interceptors=interceptors)
        self.add(self.kitchen, server)
        found = server.add_insecure_port(f"127.0.0.1:{port}")
        server.start()
        self.servers.append(server)
        return found

    def upstreams(self, port):
        return Upstreams(self.methods, lambda service, names: aio.insecure_channel(f"127.0.0.1:{port}"))

    def request(self, dish):
        return self.messages["GetDishRequest"](name=f"dishes/{dish}").SerializeToString()


@pytest.fixture
def side(kitchen_file, messages):
    side = Side(kitchen_file, messages)
    yield side
    for server in side.servers:
        server.stop(0)


async def ready(upstreams, side):
    """Make a first, unary call, which opens the connection; wait until the service welcomes the stream."""
    await upstreams.call("kitchen", GET_DISH, side.request("soup"), METADATA, 5)
    deadline = time.monotonic() + 5
    while upstreams._frames["kitchen"].stream() is None:
        assert time.monotonic() < deadline, "no stream was welcomed"
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


def test_more_than_may_wait_is_turned_away(side):
    upstreams = side.upstreams(side.start(threads=1))

    async def work():
        await ready(upstreams, side)
        calls = [upstreams.call("kitchen", GET_DISH, side.request("slow"), METADATA, 1) for _ in range(40)]
        found = await asyncio.gather(*calls, return_exceptions=True)
        codes = {error.code() for error in found if isinstance(error, grpc.RpcError)}
        assert grpc.StatusCode.RESOURCE_EXHAUSTED in codes
        await upstreams.close()

    run(work)


def test_a_service_without_frames_is_called_unary(side):
    upstreams = side.upstreams(side.start(frames=False))

    async def work():
        for _ in range(3):
            raw = await upstreams.call("kitchen", GET_DISH, side.request("soup"), METADATA, 5)
            assert side.messages["Dish"].FromString(raw).name == "dishes/soup"
        assert upstreams._frames["kitchen"].stream() is None
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


def test_a_read_in_a_broken_stream_is_asked_again_and_a_write_is_not(side):
    port = side.start()
    upstreams = side.upstreams(port)

    async def broken(path, request):
        await ready(upstreams, side)
        pending = asyncio.ensure_future(upstreams.call("kitchen", path, request, METADATA, 10))
        await asyncio.sleep(0.05)
        side.servers.pop().stop(0).wait()
        side.start(port=port)
        return await pending

    async def work():
        assert side.messages["Dish"].FromString(await broken(GET_DISH, side.request("slow"))).name == "dishes/slow"
        write = GET_DISH.replace("GetDish", "UpdateDish")
        request = side.messages["UpdateDishRequest"]()
        request.dish.name = "dishes/slow"
        with pytest.raises(grpc.RpcError) as caught:
            await broken(write, request.SerializeToString())
        assert caught.value.code() == grpc.StatusCode.UNAVAILABLE
        await upstreams.close()

    run(work)


async def lane_of(upstreams, side):
    """Call one after the other until the lane is open; return it."""
    deadline = time.monotonic() + 5
    while (lane := upstreams._frames["kitchen"].lane()) is None:
        assert time.monotonic() < deadline, "no lane was opened"
        await upstreams.call("kitchen", GET_DISH, side.request("soup"), METADATA, 5)
    return lane


def test_calls_one_after_the_other_take_a_lane_of_their_own(side):
    upstreams = side.upstreams(side.start())

    async def work():
        await ready(upstreams, side)
        lane = await lane_of(upstreams, side)
        slow = asyncio.ensure_future(upstreams.call("kitchen", GET_DISH, side.request("slow"), METADATA, 5))
        await asyncio.sleep(0)
        assert not lane.is_free
        raw = await upstreams.call("kitchen", GET_DISH, side.request("soup"), METADATA, 0.5)
        assert side.messages["Dish"].FromString(raw).name == "dishes/soup"
        assert side.messages["Dish"].FromString(await slow).name == "dishes/slow"
        assert lane.is_free
        await upstreams.close()

    run(work)


@pytest.mark.parametrize("dish", ["gone", "crash"])
def test_a_refusal_in_a_lane_leaves_it_open_and_a_missed_deadline_closes_it(side, dish):
    upstreams = side.upstreams(side.start())

    async def work():
        await ready(upstreams, side)
        lane = await lane_of(upstreams, side)
        with pytest.raises(grpc.RpcError):
            await upstreams.call("kitchen", GET_DISH, side.request(dish), METADATA, 5)
        assert lane.is_free
        with pytest.raises(grpc.RpcError) as caught:
            await upstreams.call("kitchen", GET_DISH, side.request("slow"), METADATA, 0.1)
        assert caught.value.code() == grpc.StatusCode.DEADLINE_EXCEEDED
        assert not lane.is_open
        assert await lane_of(upstreams, side) is not lane
        await upstreams.close()

    run(work)


def test_a_draining_service_is_let_go(side):
    """It would wait an hour for a stream that stays."""
    upstreams = side.upstreams(side.start())

    async def work():
        await ready(upstreams, side)
        lane = await lane_of(upstreams, side)
        stopped = side.servers.pop().stop(3600)
        assert await asyncio.to_thread(stopped.wait, 10)
        assert not lane.is_open
        assert upstreams._frames["kitchen"].stream() is None
        await upstreams.close()

    run(work)


def test_frames_hold_any_calls_and_replies():
    calls = [(n, f"/s/{n}", n * 10, [("a", "é")], b"x" * n) for n in range(5)]
    frame = b"".join(pack_call(*call) for call in calls)
    replies = b"".join(pack_reply(n, n % 2 == 1, b"y" * n) for n in range(5))

    found = [(c.number, c.path, c.timeout_ms, c.metadata(), c.request) for c in unpack_calls(frame)]
    assert found == calls
    assert [(r.number, r.is_failure, r.body) for r in unpack_replies(replies)] == [
        (n, n % 2 == 1, b"y" * n) for n in range(5)
    ]


@pytest.mark.parametrize("cut", [1, 10, 25])
def test_a_cut_frame_is_refused(cut):
    with pytest.raises((struct.error, UnicodeDecodeError)):
        list(unpack_calls(pack_call(1, "/s/m", 10, [], b"x" * 30)[:-cut]))


def test_a_frame_nobody_can_read_closes_the_stream_and_the_server_lives_on(side):
    port = side.start()

    async def work():
        async with aio.insecure_channel(f"127.0.0.1:{port}") as channel:
            stream = channel.stream_stream(PATH)()
            await stream.write(b"\xff" * 40)
            assert await stream.read() is aio.EOF
        upstreams = side.upstreams(port)
        await ready(upstreams, side)
        await upstreams.close()

    run(work)
