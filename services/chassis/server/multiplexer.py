"""Answer calls that come many to a frame; each passes the same guard as a unary call.

A quick method is answered by the thread that read the call, one after the other: with the interpreter's lock, threads
would only wait for one another. What blocks is handed to workers. How long a method takes says which it is.
"""

from __future__ import annotations

import contextlib
import logging
import queue
import resource
import threading
import time
from collections.abc import Callable, Iterable, Mapping
from functools import partial
from typing import NoReturn, Protocol

import grpc
from google.rpc import code_pb2, status_pb2

from services.chassis.config import MESSAGE_BYTES
from services.chassis.server.frames import PATH, CallFrame, Metadata, pack_reply
from services.chassis.server.guard import Guard

THREAD = getattr(resource, "RUSAGE_THREAD", resource.RUSAGE_SELF)  # of Linux
QUICK_SECONDS = 0.0005
SLOW_CALLS = 4  # more of them than quick ones, and the method counts as slow
CALLS_AS_SLOW = 256  # before it is tried again
RELIEFS = 32  # threads at once that stay in a call they read
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

    __slots__ = ("_auth", "_deadline", "_is_over", "_metadata")

    def __init__(
        self,
        auth: Mapping[str, Iterable[bytes]],
        deadline: float,
        metadata: Metadata,
        is_over: Callable[[], bool] = lambda: False,
    ) -> None:
        """`deadline` by time.monotonic(); `is_over` tells whether the connection ended, so that nobody waits."""
        self._auth = auth
        self._is_over = is_over
        self._deadline = deadline
        self._metadata = metadata

    def time_remaining(self) -> float:
        """Return the seconds left, never less than 0."""
        return max(self._deadline - time.monotonic(), 0.0)

    def is_active(self) -> bool:
        """Return whether somebody still waits."""
        return self.time_remaining() > 0 and not self._is_over()

    def auth_context(self) -> Mapping[str, Iterable[bytes]]:
        """Return the identity of the connection's peer."""
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


class _Method:
    """A method's handler with the guard around it, and whether it was quick of late."""

    __slots__ = ("_slow", "_turns", "handler")

    def __init__(self, handler: grpc.RpcMethodHandler) -> None:
        self.handler = handler
        self._slow = self._turns = 0

    def is_quick(self) -> bool:
        """Whether the thread that read the call should answer it; a slow method is tried again now and then."""
        if self._turns:
            self._turns -= 1
        return not self._turns

    def took(self, long: bool) -> None:
        """Learn from a call that the reading thread answered: whether it took long."""
        self._slow = self._slow + 1 if long else max(self._slow - 1, 0)
        if self._slow >= SLOW_CALLS:
            self.hangs()

    def hangs(self) -> None:
        """Learn that the reading thread stays in a call."""
        self._slow, self._turns = SLOW_CALLS - 1, CALLS_AS_SLOW


class Answers(Protocol):
    """Where the answers of a connection's calls go."""

    def send(self, answer: bytes) -> None:
        """Send an answer, from any thread."""


_Work = tuple[CallFrame, FramedContext, _Method, Answers]


class Multiplexer(grpc.ServerInterceptor):
    """Runs framed calls; of slow ones `threads` at once, and what exceeds 16 waiting calls each is turned away.

    An interceptor before the guard, for gRPC's callers to ask which port takes frames: `port`, 0 for none.
    """

    def __init__(self, servicers: Iterable[tuple[Callable[..., None], object]], guard: Guard, threads: int) -> None:
        self._methods = _Collector()
        for add, servicer in servicers:
            add(servicer, self._methods)
        self._guard = guard
        self._known: dict[str, _Method] = {}
        self._work: queue.SimpleQueue[_Work] = queue.SimpleQueue()
        self._threads = threads
        self._started = threading.Lock()
        self._workers = 0
        self._reliefs = threading.Semaphore(RELIEFS)
        self.port = 0

    def intercept_service(
        self,
        continuation: Callable[[grpc.HandlerCallDetails], grpc.RpcMethodHandler | None],
        handler_call_details: grpc.HandlerCallDetails,
    ) -> grpc.RpcMethodHandler | None:
        """Tell the port here."""
        if handler_call_details.method != PATH:
            return continuation(handler_call_details)
        return grpc.unary_unary_rpc_method_handler(lambda request, context: str(self.port or "").encode())

    def take(self, call: CallFrame, context: FramedContext, answers: Answers) -> bytes | None:
        """Return the answer of a quick call at once; None: it comes to `answers` when a worker is done."""
        method = self._method(call.path)
        if method is None:
            return failed(call, code_pb2.UNIMPLEMENTED, "no such method")
        if method.is_quick():
            started, waits = time.monotonic(), waits_so_far()
            answer = self.answer(call, context, method.handler)
            method.took(time.monotonic() - started > QUICK_SECONDS and waits_so_far() > waits)
            return answer
        if self._work.qsize() > self._threads * 16:
            return failed(call, code_pb2.RESOURCE_EXHAUSTED, "too many calls are waiting")
        if not self._has_workers():
            return failed(call, code_pb2.RESOURCE_EXHAUSTED, "no thread can be started")
        self._work.put((call, context, method, answers))
        return None

    def lend_relief(self, path: str) -> bool:
        """Count a method as slow, a call of which hangs; tell whether its thread may be relieved.

        A relieved thread ends with `return_relief`. Without it the calls behind that one wait.
        """
        known = self._known.get(path)
        if known is not None:
            known.hangs()
        return self._reliefs.acquire(blocking=False)

    def return_relief(self) -> None:
        """A relieved thread is done."""
        self._reliefs.release()

    def _has_workers(self) -> bool:
        """Start the workers that there are to be; tell whether there is one."""
        if self._workers < self._threads:
            with self._started, contextlib.suppress(RuntimeError):  # no more threads: the next call tries again
                while self._workers < self._threads:
                    threading.Thread(target=self._run, daemon=True, name=f"framed-{self._workers}").start()
                    self._workers += 1
        return self._workers > 0

    def _run(self) -> None:
        while True:
            call, context, method, answers = self._work.get()
            answers.send(self.answer(call, context, method.handler))

    def _method(self, path: str) -> _Method | None:
        """Return a method, its handler built at its first call."""
        known = self._known.get(path)
        if known is None:
            found = self._methods.find(path)
            handler = found and self._guard.intercept_service(partial(_given, found), _Details(path))
            if handler is None:
                return None
            known = self._known[path] = _Method(handler)
        return known

    def answer(self, call: CallFrame, context: FramedContext, handler: grpc.RpcMethodHandler) -> bytes:
        """Return the packed answer of a call; it never fails."""
        try:
            if not context.is_active():
                context.abort(grpc.StatusCode.DEADLINE_EXCEEDED, "nobody waits for the call any more")
            request = handler.request_deserializer(call.request)
            body = handler.response_serializer(handler.unary_unary(request, context))
            if len(body) > MESSAGE_BYTES:
                context.abort(grpc.StatusCode.RESOURCE_EXHAUSTED, "the reply is too long")
            return pack_reply(call.number, False, body)
        except _Aborted as aborted:
            return pack_reply(call.number, True, aborted.status.SerializeToString())
        except Exception:
            _log.exception("framed call failed")
            return failed(call, code_pb2.INTERNAL, "the service failed")


def waits_so_far() -> int:
    """Return how often this thread gave its core up: to a database, not to other processes of a busy machine."""
    return resource.getrusage(THREAD).ru_nvcsw


def failed(call: CallFrame, code: int, message: str) -> bytes:
    """Return the packed answer of a call that was not carried out."""
    return pack_reply(call.number, True, status_pb2.Status(code=code, message=message).SerializeToString())
