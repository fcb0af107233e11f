"""A peer that mostly fails is left alone, and found again within a second of its return."""

from __future__ import annotations

import threading
import time
from concurrent import futures
from types import SimpleNamespace

import grpc
import pytest
from kehu.consent.v1 import consent_pb2_grpc  # noqa: F401 - the options are read from its methods

from services.chassis.breaker import AT_LEAST, OPEN_SECONDS, SPAN_SECONDS, Breaker
from services.chassis.client import PeerLeftAlone, channel_options, intercepted


class Clock:
    def __init__(self) -> None:
        self.now = 1000.0

    def __call__(self) -> float:
        return self.now


def opened() -> tuple[Breaker, Clock]:
    clock = Clock()
    breaker = Breaker(clock)
    for _ in range(AT_LEAST):
        assert breaker.allows()
        breaker.record(True)
    return breaker, clock


def test_it_opens_when_half_of_many_calls_failed_and_not_before() -> None:
    breaker = Breaker(Clock())
    for number in range(AT_LEAST * 5):
        breaker.record(number % 5 < 2)
    assert not breaker.is_open

    breaker, _ = opened()
    assert breaker.is_open
    assert not breaker.allows()


def test_failures_of_long_ago_are_forgotten() -> None:
    clock = Clock()
    breaker = Breaker(clock)
    for _ in range(AT_LEAST - 1):
        breaker.record(True)
    clock.now += 2 * SPAN_SECONDS + 0.1
    breaker.record(True)

    assert not breaker.is_open


def test_half_open_one_call_goes_through_and_closes_it_within_a_second() -> None:
    breaker, clock = opened()
    clock.now += OPEN_SECONDS

    assert OPEN_SECONDS <= 1.0
    assert [breaker.allows() for _ in range(5)] == [True, False, False, False, False]
    breaker.record(False)
    assert [breaker.allows() for _ in range(5)] == [True] * 5


def test_half_open_a_call_that_fails_or_is_given_up_leaves_it_open() -> None:
    breaker, clock = opened()
    clock.now += OPEN_SECONDS
    assert breaker.allows()
    breaker.record(True)
    assert not breaker.allows()

    clock.now += OPEN_SECONDS
    assert breaker.allows()
    breaker.forgo()
    assert breaker.allows()


PATH = "/kehu.consent.v1.ConsentService/GetPurpose"


class Faulty(grpc.GenericRpcHandler):
    """A server that fails the calls `fails` says so of, by their number, and counts them."""

    def __init__(self) -> None:
        self.calls, self.fails, self.lock = 0, lambda number: False, threading.Lock()

    def service(self, handler_call_details: grpc.HandlerCallDetails) -> grpc.RpcMethodHandler:
        return grpc.unary_unary_rpc_method_handler(self._answer)

    def _answer(self, request: bytes, context: grpc.ServicerContext) -> bytes:
        with self.lock:
            self.calls += 1
            number = self.calls
        if self.fails(number):
            context.abort(grpc.StatusCode.UNAVAILABLE, "no")
        return b""


@pytest.fixture
def peer() -> object:
    handler = Faulty()
    server = grpc.server(futures.ThreadPoolExecutor(8), handlers=[handler])
    port = server.add_insecure_port("127.0.0.1:0")
    server.start()
    options = [pair for pair in channel_options("consent", ["kehu.consent.v1.ConsentService"]) if "ssl" not in pair[0]]
    with grpc.insecure_channel(f"127.0.0.1:{port}", options) as channel:
        call = intercepted(channel).unary_unary(PATH, lambda message: message, lambda raw: raw)
        yield SimpleNamespace(handler=handler, call=call)
    server.stop(0)


def outcome(peer: SimpleNamespace) -> grpc.StatusCode:
    try:
        peer.call(b"", timeout=5)
    except grpc.RpcError as error:
        return error.code()  # type: ignore[attr-defined, no-any-return]
    return grpc.StatusCode.OK


def refusal(peer: SimpleNamespace) -> grpc.RpcError:
    with pytest.raises(grpc.RpcError) as refused:
        peer.call(b"", timeout=5)
    return refused.value


def test_half_of_the_calls_failing_makes_no_more_than_a_fifth_more_of_them(peer: SimpleNamespace) -> None:
    peer.handler.fails = lambda number: number % 2 == 0
    found = [outcome(peer) for _ in range(400)]

    assert peer.handler.calls <= 1.2 * len(found)
    assert found.count(grpc.StatusCode.OK) > 0


def test_a_peer_that_is_gone_is_not_asked_and_found_again_within_a_second(peer: SimpleNamespace) -> None:
    peer.handler.fails = lambda number: True
    found = [outcome(peer) for _ in range(200)]
    asked = peer.handler.calls
    refusals = [refusal(peer) for _ in range(5)]
    peer.handler.fails = lambda number: False
    began = time.monotonic()
    while outcome(peer) is not grpc.StatusCode.OK:
        time.sleep(0.02)
        assert time.monotonic() - began < 5
    seconds = time.monotonic() - began

    assert set(found) == {grpc.StatusCode.UNAVAILABLE}
    assert any(isinstance(error, PeerLeftAlone) for error in refusals)
    assert all(isinstance(error, grpc.Call) for error in refusals)  # who looks at the code of a failed call may
    assert asked < 100
    assert seconds <= 1.0
