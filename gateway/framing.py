"""Send calls many to a frame over one stream per service; see services.chassis.server.frames.

A stream sticks to one replica: it is renewed every minute, and whenever its connection is told to go away, so
that load spreads, certificates rotate and a draining service is let go.
"""

from __future__ import annotations

import asyncio
import logging
import struct
from collections.abc import Iterable

import grpc
from google.rpc import code_pb2, status_pb2
from grpc import aio

from services.chassis.server.frames import FRAME_BYTES, LANE, PATH, WELCOME, Metadata, pack_call, unpack_replies

RENEW_SECONDS = 60.0
CODES = {code.value[0]: code for code in grpc.StatusCode}
_log = logging.getLogger(__name__)


class FramedFailure(grpc.RpcError):
    """A framed call failed; reads like the error of a unary call."""

    def __init__(self, status: status_pb2.Status, details: bytes = b"") -> None:
        super().__init__(status.code)
        self._status = status
        self._details = details

    def code(self) -> grpc.StatusCode:
        """Return the status code."""
        return CODES.get(self._status.code, grpc.StatusCode.UNKNOWN)

    def details(self) -> str:
        """Return the status message."""
        return self._status.message

    def trailing_metadata(self) -> list[tuple[str, bytes]]:
        """Return the google.rpc.Status as unary calls carry it."""
        return [("grpc-status-details-bin", self._details)] if self._details else []


def failure(code: int, message: str) -> FramedFailure:
    """Return a failure that no service described."""
    return FramedFailure(status_pb2.Status(code=code, message=message))


class FrameStream:
    """One stream: calls go out as soon as the one before is written, together with what came meanwhile."""

    def __init__(self, channel: aio.Channel, now: float) -> None:
        self._call: aio.StreamStreamCall[bytes, bytes] = channel.stream_stream(PATH)()
        self._waiting: dict[int, asyncio.Future[bytes]] = {}
        self._unsent: list[bytes] = []
        self._number = 0
        self._writer: asyncio.Task[None] | None = None
        self._reader = asyncio.ensure_future(self._read())
        self.opened = now
        self.is_open = True
        self.is_welcome = False

    def call(self, path: str, request: bytes, metadata: Metadata, timeout: float) -> asyncio.Future[bytes]:
        """Queue a call; the future is its reply or fails with FramedFailure."""
        loop = asyncio.get_running_loop()
        self._number = number = (self._number + 1) & 0xFFFFFFFF
        reply: asyncio.Future[bytes] = loop.create_future()
        self._waiting[number] = reply
        timer = loop.call_later(timeout, self._expire, number)
        reply.add_done_callback(lambda _: timer.cancel())
        self._unsent.append(pack_call(number, path, int(timeout * 1000), metadata, request))
        if self._writer is None:
            self._writer = asyncio.ensure_future(self._write())
        return reply

    def finish(self) -> None:
        """Take no more calls; the stream ends when those under way are answered."""
        self.is_open = False
        if not self._waiting and self._writer is None:
            self._writer = asyncio.ensure_future(self._write())

    async def close(self) -> None:
        """End the stream now."""
        self.is_open = False
        self._call.cancel()
        await asyncio.wait([self._reader], timeout=1.0)

    def _expire(self, number: int) -> None:
        reply = self._waiting.pop(number, None)
        if reply is not None and not reply.done():
            reply.set_exception(failure(code_pb2.DEADLINE_EXCEEDED, "the service did not answer in time"))
        if not self.is_open and not self._waiting:
            self.finish()

    async def _write(self) -> None:
        try:
            while self._unsent:
                await self._call.write(self._next_frame())
            if not self.is_open and not self._waiting:
                await self._call.done_writing()
        except (grpc.RpcError, asyncio.InvalidStateError):
            pass  # the reader fails the calls
        finally:
            self._writer = None

    def _next_frame(self) -> bytes:
        size = count = 0
        for part in self._unsent:
            if count and size + len(part) > FRAME_BYTES:
                break
            size += len(part)
            count += 1
        frame = b"".join(self._unsent[:count])
        del self._unsent[:count]
        return frame

    async def _read(self) -> None:
        code, message = code_pb2.UNAVAILABLE, "the connection to the service was lost"
        try:
            self.is_welcome = WELCOME in tuple(await self._call.initial_metadata())
            while (frame := await self._call.read()) is not aio.EOF:
                self._settle(frame)
        except grpc.RpcError:
            pass  # the connection is gone, or the service takes no frames
        except struct.error:
            _log.error("a frame of the service could not be read")
        self.is_open = False
        for reply in self._waiting.values():
            if not reply.done():
                reply.set_exception(failure(code, message))
        self._waiting.clear()

    def _settle(self, frame: bytes) -> None:
        for answer in unpack_replies(frame):
            reply = self._waiting.pop(answer.number, None)
            if reply is None or reply.done():
                continue  # it came after its deadline
            if answer.is_failure:
                status = status_pb2.Status.FromString(answer.body)
                reply.set_exception(FramedFailure(status, answer.body))
            else:
                reply.set_result(answer.body)
        if not self.is_open and not self._waiting:
            self.finish()


class Lane:
    """A stream for one call at a time, answered in the thread that reads it: the quickest way when idle."""

    def __init__(self, channel: aio.Channel) -> None:
        self._call: aio.StreamStreamCall[bytes, bytes] = channel.stream_stream(PATH)(metadata=(LANE,))
        self._opening = asyncio.ensure_future(self._open())
        self.opened = asyncio.get_running_loop().time()
        self.is_free = False
        self.is_open = True
        self._is_retired = False

    async def _open(self) -> None:
        try:
            is_welcome = WELCOME in tuple(await self._call.initial_metadata())
            self.is_free = self.is_open = is_welcome and not self._is_retired
        except grpc.RpcError:
            self.is_open = False

    async def call(self, path: str, request: bytes, metadata: Metadata, timeout: float) -> bytes:
        """Send a call and wait for its reply; a lane that fails or is left waiting is closed."""
        self.is_free = False
        reply: bytes | None = None
        try:
            async with asyncio.timeout(timeout):
                await self._call.write(pack_call(0, path, int(timeout * 1000), metadata, request))
                reply = await self._call.read()
        except TimeoutError:
            raise failure(code_pb2.DEADLINE_EXCEEDED, "the service did not answer in time") from None
        except (grpc.RpcError, asyncio.InvalidStateError):
            raise failure(code_pb2.UNAVAILABLE, "the connection to the service was lost") from None
        finally:
            self.is_free = self.is_open = isinstance(reply, bytes) and not self._is_retired
            if not self.is_open:
                self._call.cancel()
        if not isinstance(reply, bytes):
            raise failure(code_pb2.UNAVAILABLE, "the connection to the service was lost")
        return settled(reply)

    def retire(self) -> None:
        """Take no more calls; the one under way is answered."""
        busy = self.is_open and not self.is_free
        self.is_free = self.is_open = False
        self._is_retired = True
        if not busy:
            self._call.cancel()

    def close(self) -> None:
        """End the stream now."""
        self.is_free = self.is_open = False
        self._call.cancel()


def settled(frame: bytes) -> bytes:
    """Return the reply in a frame of one.

    Raises:
        FramedFailure: the call failed.
    """
    answer = next(unpack_replies(frame))
    if answer.is_failure:
        raise FramedFailure(status_pb2.Status.FromString(answer.body), answer.body)
    return answer.body


class Frames:
    """The stream to one service, opened when needed; None from `stream` means: call it unary."""

    def __init__(self, channel: aio.Channel) -> None:
        self._channel = channel
        self._lane: Lane | None = None
        self._stream: FrameStream | None = None
        self._unary_until = 0.0
        self._watcher: asyncio.Task[None] | None = None

    def stream(self) -> FrameStream | None:
        """Return the open stream once the service has welcomed it, renewed when it is old."""
        now = asyncio.get_running_loop().time()
        stream = self._stream
        if stream is not None and stream.is_open and now - stream.opened < RENEW_SECONDS:
            return stream if stream.is_welcome else None
        if stream is not None:
            if not stream.is_welcome:
                self._unary_until = now + RENEW_SECONDS
            stream.finish()
            self._stream = None
        if now < self._unary_until or self._channel.get_state() != grpc.ChannelConnectivity.READY:
            return None  # unary calls wait for a connection and retry; a stream would only fail
        self._stream = FrameStream(self._channel, now)
        if self._watcher is None or self._watcher.done():
            self._watcher = asyncio.ensure_future(self._watch())
        return None

    def lane(self) -> Lane | None:
        """Return the lane when the service is sure to take frames and nothing is on it."""
        lane, stream = self._lane, self._stream
        now = asyncio.get_running_loop().time()
        if lane is not None and lane.is_free and now - lane.opened > RENEW_SECONDS:
            lane.close()
        if lane is not None and lane.is_free:
            return lane
        if (lane is None or not lane.is_open) and stream is not None and stream.is_open and stream.is_welcome:
            self._lane = Lane(self._channel)
        return None

    async def _watch(self) -> None:
        """Let the stream go when its connection is not ready any more: the service drains or is gone."""
        await self._channel.wait_for_state_change(grpc.ChannelConnectivity.READY)
        if self._lane is not None:
            self._lane.retire()
            self._lane = None
        if self._stream is not None:
            self._stream.finish()
            self._stream = None

    async def close(self) -> None:
        """End the stream."""
        if self._watcher is not None:
            self._watcher.cancel()
        if self._lane is not None:
            self._lane.close()
        if self._stream is not None:
            await self._stream.close()


async def close_all(frames: Iterable[Frames]) -> None:
    """End the streams to all services."""
    for one in frames:
        await one.close()
