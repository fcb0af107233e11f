"""Send calls many to a frame over one connection per service; see services.chassis.server.frames.

A connection sticks to one replica: it is renewed every minute, and let go when the service says that it takes no more
calls or says nothing, so that load spreads, certificates rotate and a draining service is left.
"""

from __future__ import annotations

import asyncio
import logging
import random
import socket
import ssl
import struct
from collections import deque
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import cast

import grpc
from google.rpc import code_pb2, status_pb2
from grpc import aio

from gateway.failures import LOST, ConnectionLost, FramedFailure, failure
from services.chassis.config import TRUST_DOMAIN, ProcessConfig
from services.chassis.server.frames import (
    FRAME_BYTES,
    PATH,
    Inbox,
    Metadata,
    pack_call,
    pack_calls,
    pack_headers,
    unpack_replies,
)
from services.chassis.server.pipes import client_context, tend

RENEW_SECONDS = 60.0
OLDEST_SECONDS = 3 * RENEW_SECONDS  # when no other one can be had
SILENCE_SECONDS = 2.0  # a call that waited so long, nothing being heard meanwhile, was the connection's last
OPEN_SECONDS = 2.0
LEAVE_SECONDS = 0.5  # that a connection is used after the service said that it takes no more calls
AGAIN_SECONDS = 5.0  # between two tries to connect
CALLS = 12  # that wait for no more of the same moment: the service would have nothing to do meanwhile
LOOK_SECONDS = 0.02  # between two looks at what expired: a timer for each call costs as much as sending it
_log = logging.getLogger(__name__)


@dataclass(slots=True)
class _Waiting:
    """A call that is not answered; `made` by the loop's clock, seconds."""

    reply: asyncio.Future[bytes]
    path: str
    headers: bytes
    request: bytes
    made: float
    timeout: float


class FrameConnection(asyncio.Protocol):
    """One connection: calls that are made in the same moment go out together."""

    def __init__(self) -> None:
        self._loop = asyncio.get_running_loop()
        self._transport: asyncio.Transport | None = None
        self._waiting: dict[int, _Waiting] = {}
        self._unsent: deque[int] = deque()
        self._inbox = Inbox()
        self._number = 0
        self._is_looking = False
        self._is_paused = False
        self.opened = self._heard = self._loop.time()
        self.is_open = True
        self.is_leaving = False  # the service said that it takes no more calls

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Begin."""
        self._transport = cast(asyncio.Transport, transport)  # uvloop's own are no subclass

    def call(self, path: str, request: bytes, metadata: Metadata, timeout: float) -> asyncio.Future[bytes]:
        """Queue a call; the future is its reply or fails with FramedFailure.

        Raises:
            FramedFailure: the metadata is too long.
        """
        try:
            headers = pack_headers(metadata)
        except ValueError as error:
            raise failure(code_pb2.RESOURCE_EXHAUSTED, str(error)) from error
        self._number = number = (self._number + 1) & 0xFFFFFFFF
        reply: asyncio.Future[bytes] = self._loop.create_future()
        self._waiting[number] = _Waiting(reply, path, headers, request, self._loop.time(), timeout)
        if not self._is_looking:
            self._is_looking = True
            self._loop.call_later(LOOK_SECONDS, self._look)
        if not self._unsent:
            self._loop.call_soon(self._send)
        self._unsent.append(number)
        if len(self._unsent) >= CALLS:
            self._send()
        return reply

    def finish(self) -> None:
        """Take no more calls; the connection ends when those under way are answered."""
        self.is_open = False
        if not self._waiting:
            self.close()

    def close(self) -> None:
        """End the connection now."""
        self.is_open = False
        if self._transport is not None:
            self._transport.close()

    def pause_writing(self) -> None:
        """Keep calls back: the service takes none."""
        self._is_paused = True

    def resume_writing(self) -> None:
        """Send what was kept back."""
        self._is_paused = False
        self._send()

    def _send(self) -> None:
        while self._unsent and not self._is_paused and self._transport is not None:
            now = self._loop.time()
            calls = self._take_calls(now)
            if calls:
                self._transport.write(pack_calls(int(now * 1000), calls))

    def _take_calls(self, now: float) -> list[bytes]:
        """Return the next calls that somebody still waits for, as many as one frame holds."""
        calls, size = [], 0
        while self._unsent and size < FRAME_BYTES:
            number = self._unsent.popleft()
            call = self._waiting.get(number)
            if call is None:
                continue  # it expired
            if call.reply.done():
                del self._waiting[number]
                continue
            left = max(int((call.made + call.timeout - now) * 1000), 1)
            calls.append(pack_call(number, call.path, left, call.headers, call.request))
            size += len(calls[-1])
            call.request = b""
        return calls

    def _look(self) -> None:
        """End the calls whose time is over, as long as any wait."""
        now = self._loop.time()
        for number in [number for number, call in self._waiting.items() if now - call.made >= call.timeout]:
            self._expire(number)
        self._is_looking = bool(self._waiting)
        if self._waiting:
            self._loop.call_later(LOOK_SECONDS, self._look)

    def _expire(self, number: int) -> None:
        call = self._waiting.pop(number)
        if not call.reply.done():
            call.reply.set_exception(failure(code_pb2.DEADLINE_EXCEEDED, "the service did not answer in time"))
        is_silent = call.timeout >= SILENCE_SECONDS and self._heard < call.made
        if is_silent or not self.is_open:  # a replica that vanished says nothing: another one is looked for
            self.finish()

    def data_received(self, data: bytes) -> None:
        """Hand replies to those who wait for them."""
        self._heard = self._loop.time()
        try:
            for frame in self._inbox.take(data):
                if frame:
                    self._settle(frame)
                else:
                    self.is_leaving = True  # another one is opened; this one serves until then
                    self._loop.call_later(LEAVE_SECONDS, self.finish)
        except struct.error:
            _log.error("a frame of the service could not be read")
            self.close()

    def _settle(self, frame: bytes) -> None:
        for answer in unpack_replies(frame):
            call = self._waiting.pop(answer.number, None)
            if call is None:
                continue  # it came after its deadline
            reply = call.reply
            if reply.done():
                continue  # nobody waits for it any more
            if answer.is_failure:
                status = status_pb2.Status.FromString(answer.body)
                reply.set_exception(FramedFailure(status, answer.body))
            else:
                reply.set_result(answer.body)
        if not self.is_open:
            self.finish()

    def connection_lost(self, error: Exception | None) -> None:
        """Fail the calls that wait."""
        self.is_open = False
        for call in self._waiting.values():
            if not call.reply.done():
                call.reply.set_exception(ConnectionLost(LOST))
        self._waiting.clear()


@dataclass(frozen=True, slots=True)
class Reach:
    """Where a service's frames are taken: its host, the name its certificate must be of, and what we show it."""

    host: str
    name: str
    context: ssl.SSLContext

    async def open(self, port: int) -> FrameConnection:
        """Return a connection to one of the replicas behind the host.

        Raises:
            OSError: there is none.
        """
        loop = asyncio.get_running_loop()
        found = await loop.getaddrinfo(self.host, port, type=socket.SOCK_STREAM)
        family, kind, protocol, _, address = random.choice(found)
        plain = socket.socket(family, kind, protocol)
        try:
            plain.setblocking(False)
            tend(plain)
            await loop.sock_connect(plain, address)
            _, connection = await loop.create_connection(
                FrameConnection, sock=plain, ssl=self.context, server_hostname=self.name
            )
        except BaseException:
            plain.close()
            raise
        return connection


def reach_by(config: ProcessConfig, identity: str) -> Callable[[str], Reach]:
    """Return how a service is reached with the certificate of `identity`."""

    def reach(service: str) -> Reach:
        host = config.addresses[service].rpartition(":")[0].strip("[]")
        return Reach(host, f"{service}.{TRUST_DOMAIN}", client_context(config.tls(identity)))

    return reach


class Frames:
    """The connection to one service, opened when needed; None from `connection` means: call it unary."""

    def __init__(self, channel: aio.Channel, reach: Callable[[], Reach]) -> None:
        self._channel, self._reach = channel, reach
        self._connection: FrameConnection | None = None
        self._opening: asyncio.Task[None] | None = None
        self._not_before = 0.0

    def connection(self) -> FrameConnection | None:
        """Return the open connection, renewed when it is old and given up when that fails for long."""
        now = asyncio.get_running_loop().time()
        found = self._connection
        if found is not None and found.is_open:
            age = now - found.opened
            if age < RENEW_SECONDS and not found.is_leaving:
                return found
            if age >= OLDEST_SECONDS:
                found.finish()
        if self._opening is None and now >= self._not_before:
            self._not_before = now + AGAIN_SECONDS
            self._opening = asyncio.ensure_future(self._open())
        return found if found is not None and found.is_open else None

    async def _open(self) -> None:
        """Ask by gRPC which port takes frames, and connect; the one before ends when its calls are answered."""
        try:
            async with asyncio.timeout(OPEN_SECONDS):
                port = await self._channel.unary_unary(PATH)(b"", timeout=OPEN_SECONDS)
                opened = await self._reach().open(int(port))
        except (grpc.RpcError, OSError, ValueError, asyncio.InvalidStateError) as error:
            _log.info("no frames", extra={"error": type(error).__name__})
            return
        finally:
            self._opening = None
        before, self._connection = self._connection, opened
        if before is not None:
            before.finish()

    async def close(self) -> None:
        """End the connection."""
        if self._opening is not None:
            self._opening.cancel()
        if self._connection is not None:
            self._connection.close()


async def close_all(frames: Iterable[Frames]) -> None:
    """End the connections to all services."""
    for one in frames:
        await one.close()
