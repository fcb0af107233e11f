"""Open channels to the services and call them with raw bytes: one HTTP/2 connection each, kept open."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import Any, TypeAlias

import grpc
from google.rpc import code_pb2, status_pb2
from grpc import aio

from gateway.failures import ConnectionLost, FramedFailure
from gateway.framing import FrameConnection, Frames, Reach, close_all
from gateway.problems import Problem, refusal, status_of
from gateway.reasons import Reason
from gateway.shedding import Limiter, Overloaded, Worth, worth_of
from gateway.transcoding.catalog import Method
from gateway.wire import Exchange
from services.chassis.breaker import Breaker, is_missing
from services.chassis.client import LOOK_SECONDS, OLD_SECONDS, channel_credentials, channel_options
from services.chassis.config import ProcessConfig
from services.chassis.server.calls import CALLER_ADDRESS, CERTIFICATE_HEADER
from services.chassis.server.frames import CALL_BYTES
from services.chassis.telemetry import trace_headers

OPERATIONS = "google.longrunning.Operations"
IDENTITY = "gateway"  # the name in our certificate
# Probing for bandwidth sends pings along with small messages: a tenth of a call's cost, no use on our networks.
NO_PROBE = ("grpc.http2.bdp_probe", 0)
LEFT_ALONE = status_pb2.Status(code=code_pb2.UNAVAILABLE, message="the service does not answer")
Metadata: TypeAlias = list[tuple[str, str]]
Connect: TypeAlias = Callable[[str, list[str]], aio.Channel]


def connect_by(config: ProcessConfig) -> Connect:
    """Return how a channel to a service is opened: mTLS, its identity expected, reads retried."""

    def connect(service: str, names: list[str]) -> aio.Channel:
        return aio.secure_channel(
            config.addresses[service],
            channel_credentials(config, IDENTITY),
            [*channel_options(service, names), NO_PROBE],
        )

    return connect


@dataclass(slots=True)
class Gate:
    """What stands before one service."""

    limiter: Limiter = field(default_factory=Limiter)
    breaker: Breaker = field(default_factory=Breaker)


class Upstreams:
    """The channels of this process, opened on first use because grpc.aio binds them to the running loop."""

    def __init__(
        self,
        methods: Sequence[Method],
        connect: Connect,
        stamp: Callable[[], object] = lambda: None,
        reach: Callable[[str], Reach] | None = None,
    ) -> None:
        """`stamp` changes when our certificate was replaced: then channels are opened anew.

        Without `reach` every call is unary.
        """
        self._connect = connect
        self._reach = reach
        self._stamp = stamp
        self._known = stamp()
        self._looked = time.monotonic()
        self._closing: set[asyncio.Task[None]] = set()
        self._names: dict[str, set[str]] = {}
        for method in methods:
            self._names.setdefault(method.service, {OPERATIONS}).add(method.path.split("/")[1])
        self._reads = frozenset(method.path for method in methods if method.is_read)
        self._worth = {method.path: worth_of(method) for method in methods}
        self._gates: dict[str, Gate] = {}
        self._channels: dict[str, aio.Channel] = {}
        self._frames: dict[str, Frames] = {}
        # Multicallables by (service, method); grpc's own types are not generic over bytes.
        self._unary: dict[tuple[str, str], Any] = {}

    @property
    def services(self) -> frozenset[str]:
        """The services any method belongs to."""
        return frozenset(self._names)

    def channel(self, service: str) -> aio.Channel:
        """Return the channel to a service."""
        self._follow()
        channel = self._channels.get(service)
        if channel is None:
            channel = self._connect(service, sorted(self._names[service]))
            self._channels[service] = channel
        return channel

    def check(self, service: str, worth: Worth) -> None:
        """Turn a call away before anything was done for it.

        Raises:
            Problem: 503, the service is taking on no more.
        """
        gate = self._gates.get(service)
        if gate is not None and gate.limiter.is_shut(worth):
            raise overloaded()

    async def call(self, service: str, path: str, request: bytes, metadata: Metadata, timeout: float) -> bytes:
        """Call a unary method, when there is a place for it and the service is not left alone.

        Raises:
            Problem: 503, there was no place.
            grpc.RpcError: it failed.
        """
        gate = self._gates.get(service)
        if gate is None:
            gate = self._gates[service] = Gate()
        try:
            await gate.limiter.enter(self._worth.get(path, Worth.VITAL))
        except Overloaded:
            raise overloaded() from None
        started = time.monotonic()
        is_answered = False
        try:
            if not gate.breaker.allows():
                raise FramedFailure(LEFT_ALONE)
            try:
                reply = await self._call(service, path, request, metadata, timeout)
            except grpc.RpcError as error:
                is_answered = described(error)
                gate.breaker.record(not is_answered and is_missing(error.code(), timeout))
                raise
            except BaseException:
                gate.breaker.forgo()
                raise
            gate.breaker.record(False)
            is_answered = True
            return reply
        finally:
            gate.limiter.leave(path, time.monotonic() - started, is_answered)

    async def _call(self, service: str, path: str, request: bytes, metadata: Metadata, timeout: float) -> bytes:
        """Call a unary method, in a frame when the service takes frames."""
        self._follow()
        connection = self._connection(service) if len(request) <= CALL_BYTES else None
        if connection is not None:
            started = time.monotonic()
            try:
                return await connection.call(path, request, metadata, timeout)
            except ConnectionLost:
                timeout -= time.monotonic() - started
                if path not in self._reads or timeout <= 0:
                    raise
        return await self._call_unary(service, path, request, metadata, timeout)

    def _connection(self, service: str) -> FrameConnection | None:
        """Return the connection that takes frames, when there is one."""
        frames = self._frames.get(service)
        if frames is None:
            if self._reach is None:
                return None
            frames = self._frames[service] = Frames(self.channel(service), partial(self._reach, service))
        return frames.connection()

    async def _call_unary(self, service: str, path: str, request: bytes, metadata: Metadata, timeout: float) -> bytes:
        """Call a method on its own: the channel waits for a connection, and retries reads (AIP-194)."""
        key = (service, path)
        unary = self._unary.get(key)
        if unary is None:
            unary = self._unary[key] = self.channel(service).unary_unary(path)
        reply: bytes = await unary(request, timeout=timeout, metadata=metadata)
        return reply

    def _follow(self) -> None:
        """Let the channels of a replaced certificate go."""
        now = time.monotonic()
        if now - self._looked < LOOK_SECONDS:
            return
        self._looked = now
        try:
            found = self._stamp()
        except OSError:  # it is being replaced at this moment
            return
        if found != self._known:
            self._known = found
            closing = asyncio.ensure_future(_close_later(list(self._frames.values()), list(self._channels.values())))
            self._closing.add(closing)
            closing.add_done_callback(self._closing.discard)
            self._frames, self._channels, self._unary = {}, {}, {}

    def stream(self, service: str, path: str, metadata: Metadata, timeout: float) -> aio.StreamUnaryCall[bytes, bytes]:
        """Open a client-streaming call to write to."""
        return self.channel(service).stream_unary(path)(timeout=timeout, metadata=metadata)

    async def close(self) -> None:
        """Close every channel; calls under way get a second."""
        for closing in self._closing:
            closing.cancel()
        await close_all(self._frames.values())
        for channel in self._channels.values():
            await channel.close(grace=1.0)


async def _close_later(frames: list[Frames], channels: list[aio.Channel]) -> None:
    """Close what new calls use no more, when the calls under way are over."""
    try:
        await asyncio.sleep(OLD_SECONDS)
    finally:
        await close_all(frames)
        for channel in channels:
            await channel.close(grace=1.0)


def metadata_of(exchange: Exchange, *, with_token: bool) -> Metadata:
    """Return what travels with a call: request id, certificate, the caller's own token, purpose and address, trace."""
    metadata = [("x-request-id", exchange.request_id)]
    if exchange.thumbprint:
        metadata.append((CERTIFICATE_HEADER, exchange.thumbprint))
    if with_token:
        metadata.append(("authorization", exchange.text(b"authorization")))
        if exchange.caller is not None and exchange.caller.purpose:
            metadata.append(("x-purpose", exchange.caller.purpose))
        metadata.append((CALLER_ADDRESS, exchange.peer))
    metadata.extend(trace_headers().items())
    return metadata


def overloaded() -> Problem:
    """Return the refusal of a call there is no place for."""
    return refusal(503, Reason.OVERLOADED, "the service behind the route has too much to do", retry_seconds=1)


def described(error: grpc.RpcError) -> bool:
    """Whether the failure was written by the service itself, and not by what is between us and it."""
    status = status_of(error)
    return status is not None and bool(status.details)
