"""Serve calls that come many to a frame over one stream; each passes the same guard as a unary call.

An interceptor before the guard: it answers frames.PATH itself and lets everything else through.
"""

from __future__ import annotations

import logging
import queue
import struct
import threading
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from functools import partial
from typing import NoReturn

import grpc
from google.rpc import code_pb2, status_pb2

from services.chassis.config import MESSAGE_BYTES
from services.chassis.server.frames import (
    FRAME_BYTES,
    LANE,
    PATH,
    WELCOME,
    CallFrame,
    Metadata,
    pack_reply,
    unpack_calls,
)
from services.chassis.server.guard import Guard

Answers = queue.SimpleQueue  # of packed replies; None ends the stream
STREAM_THREADS = 64  # each stream holds a thread of the server for as long as it lives
_log = logging.getLogger(__name__)


class _Aborted(Exception):
    """The call ends with this status."""

    def __init__(self, status: status_pb2.Status) -> None:
        super().__init__(status.code)
        self.status = status


class _Details(grpc.HandlerCallDetails):
    """What the guard is told of a method when its handler is built."""

    def __init__(self, path: str) -> None:
        self.method = path
        self.invocation_metadata = ()


def _given(handler: grpc.RpcMethodHandler, details: grpc.HandlerCallDetails) -> grpc.RpcMethodHandler:
    """Continue with this handler."""
    return handler


class FramedContext:
    """The part of grpc.ServicerContext that the guard and servicers use, for one call in a frame."""

    __slots__ = ("_auth", "_deadline", "_metadata")

    def __init__(self, auth: Mapping[str, Iterable[bytes]], deadline: float, metadata: Metadata) -> None:
        self._auth = auth
        self._deadline = deadline
        self._metadata = metadata

    def time_remaining(self) -> float:
        """Return the seconds left, never less than 0."""
        return max(self._deadline - time.monotonic(), 0.0)

    def is_active(self) -> bool:
        """Return whether somebody still waits."""
        return self.time_remaining() > 0

    def auth_context(self) -> Mapping[str, Iterable[bytes]]:
        """Return the identity of the stream's peer."""
        return self._auth

    def invocation_metadata(self) -> Metadata:
        """Return the call's metadata."""
        return self._metadata

    def abort_with_status(self, status: grpc.Status) -> NoReturn:
        """End the call."""
        for key, value in status.trailing_metadata or ():
            if key == "grpc-status-details-bin":
                raise _Aborted(status_pb2.Status.FromString(value))
        raise _Aborted(status_pb2.Status(code=status.code.value[0], message=status.details))

    def abort(self, code: grpc.StatusCode, details: str) -> NoReturn:
        """End the call."""
        raise _Aborted(status_pb2.Status(code=code.value[0], message=details))


class _Collector:
    """Takes the handlers that a generated add_…_to_server function would give a server."""

    def __init__(self) -> None:
        self._generic: list[grpc.GenericRpcHandler] = []

    def add_generic_rpc_handlers(self, handlers: Iterable[grpc.GenericRpcHandler]) -> None:
        """Take a service's handlers."""
        self._generic.extend(handlers)

    def add_registered_method_handlers(self, service: str, handlers: object) -> None:
        """Take nothing: the same handlers came before, from older generators too."""

    def find(self, path: str) -> grpc.RpcMethodHandler | None:
        """Return the handler of a method that takes one message and gives one."""
        for generic in self._generic:
            found = generic.service(_Details(path))
            if found is not None and not found.request_streaming and not found.response_streaming:
                return found
        return None


@dataclass(frozen=True, slots=True)
class _Work:
    call: CallFrame
    context: FramedContext
    answers: Answers


class Multiplexer(grpc.ServerInterceptor):
    """Runs framed calls on `threads` workers of its own; what exceeds 16 waiting calls each is turned away."""

    def __init__(self, servicers: Iterable[tuple[Callable[..., None], object]], guard: Guard, threads: int) -> None:
        self._methods = _Collector()
        for add, servicer in servicers:
            add(servicer, self._methods)
        self._guard = guard
        self._handlers: dict[str, grpc.RpcMethodHandler] = {}
        self._work: queue.SimpleQueue[_Work] = queue.SimpleQueue()
        self._threads = threads
        self._started = threading.Lock()
        self._is_started = False
        self._streams = 0

    def intercept_service(
        self,
        continuation: Callable[[grpc.HandlerCallDetails], grpc.RpcMethodHandler | None],
        handler_call_details: grpc.HandlerCallDetails,
    ) -> grpc.RpcMethodHandler | None:
        """Answer the frames' path here."""
        if handler_call_details.method != PATH:
            return continuation(handler_call_details)
        return grpc.stream_stream_rpc_method_handler(self._exchange)

    def _exchange(self, frames: Iterator[bytes], context: grpc.ServicerContext) -> Iterator[bytes]:
        """Serve one stream, unless there are too many already: then the peer calls unary."""
        with self._started:
            self._streams += 1
        try:
            if self._streams > STREAM_THREADS:
                context.abort(grpc.StatusCode.RESOURCE_EXHAUSTED, "too many streams")
            context.send_initial_metadata((WELCOME,))
            auth = {key: tuple(values) for key, values in context.auth_context().items()}
            is_lane = LANE in {(key, value) for key, value in context.invocation_metadata()}
            yield from self._lane(frames, auth) if is_lane else self._many(frames, auth)
        finally:
            with self._started:
                self._streams -= 1

    def _lane(self, frames: Iterator[bytes], auth: Mapping[str, Iterable[bytes]]) -> Iterator[bytes]:
        """Answer each call in this thread before the next is read: for one at a time nothing is quicker."""
        try:
            for frame in frames:
                now = time.monotonic()
                for call in unpack_calls(frame):
                    context = FramedContext(auth, now + call.timeout_ms / 1000, call.metadata())
                    yield self._answer(call, context)
        except (struct.error, ValueError):
            _log.error("a frame could not be read; the stream is closed")

    def _many(self, frames: Iterator[bytes], auth: Mapping[str, Iterable[bytes]]) -> Iterator[bytes]:
        """Answer calls as they are done, by the workers; the frames are read by a thread."""
        self._start_workers()
        answers: Answers = queue.SimpleQueue()
        reader = threading.Thread(target=self._read, args=(frames, auth, answers), daemon=True, name="frames")
        reader.start()
        while True:
            frame = self._next_frame(answers)
            if frame:
                yield frame
            else:
                return

    def _next_frame(self, answers: Answers) -> bytes:
        """Return what is answered by now, waiting for the first; empty at the end of the stream."""
        answer = answers.get()
        parts: list[bytes] = []
        size = 0
        while answer is not None:
            parts.append(answer)
            size += len(answer)
            if size >= FRAME_BYTES:
                break
            try:
                answer = answers.get_nowait()
            except queue.Empty:
                break
        else:
            answers.put(None)  # found behind real answers: seen again when those are sent
            return b"".join(parts)
        return b"".join(parts)

    def _read(self, frames: Iterator[bytes], auth: Mapping[str, Iterable[bytes]], answers: Answers) -> None:
        try:
            for frame in frames:
                now = time.monotonic()
                for call in unpack_calls(frame):
                    context = FramedContext(auth, now + call.timeout_ms / 1000, call.metadata())
                    self._take(_Work(call, context, answers))
        except (struct.error, ValueError):
            _log.error("a frame could not be read; the stream is closed")
        except grpc.RpcError:
            pass  # the peer is gone
        except Exception as error:  # grpc raises a bare Exception when the stream is cancelled
            _log.info("stream ended", extra={"error": type(error).__name__})
        answers.put(None)

    def _take(self, work: _Work) -> None:
        if self._work.qsize() > self._threads * 16:
            full = status_pb2.Status(code=code_pb2.RESOURCE_EXHAUSTED, message="too many calls are waiting")
            work.answers.put(pack_reply(work.call.number, True, full.SerializeToString()))
            return
        self._work.put(work)

    def _start_workers(self) -> None:
        with self._started:
            if not self._is_started:
                self._is_started = True
                for number in range(self._threads):
                    threading.Thread(target=self._run, daemon=True, name=f"framed-{number}").start()

    def _run(self) -> None:
        while True:
            work = self._work.get()
            work.answers.put(self._answer(work.call, work.context))

    def _handler(self, path: str) -> grpc.RpcMethodHandler | None:
        """Return a method's handler with the guard around it, built at its first call."""
        known = self._handlers.get(path)
        if known is None:
            found = self._methods.find(path)
            if found is None:
                return None
            known = self._handlers[path] = self._guard.intercept_service(partial(_given, found), _Details(path))
        return known

    def _answer(self, call: CallFrame, context: FramedContext) -> bytes:
        try:
            handler = self._handler(call.path)
            if handler is None:
                context.abort(grpc.StatusCode.UNIMPLEMENTED, "no such method")
            if not context.is_active():
                context.abort(grpc.StatusCode.DEADLINE_EXCEEDED, "the deadline passed in the queue")
            request = handler.request_deserializer(call.request)
            body = handler.response_serializer(handler.unary_unary(request, context))
            if len(body) > MESSAGE_BYTES - FRAME_BYTES:
                context.abort(grpc.StatusCode.RESOURCE_EXHAUSTED, "the reply is too long")
            return pack_reply(call.number, False, body)
        except _Aborted as aborted:
            return pack_reply(call.number, True, aborted.status.SerializeToString())
        except Exception:
            _log.exception("framed call failed")
            failed = status_pb2.Status(code=code_pb2.INTERNAL, message="the service failed")
            return pack_reply(call.number, True, failed.SerializeToString())
