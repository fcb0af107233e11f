"""TLS connections that carry frames: a port beside gRPC's, with the same certificates (ADR 0027).

One thread reads each connection and answers its quick calls. One that stays in a call is relieved: another thread goes
on reading, so that a call that turns out slow holds up the others for RELIEF_SECONDS at most.
"""

from __future__ import annotations

import contextlib
import logging
import math
import socket
import ssl
import threading
import time
from collections import deque
from collections.abc import Callable

from services.chassis.config import TlsFiles
from services.chassis.server.frames import LAST_FRAME, CallFrame, Inbox, sent_ms_of, take_frame, unpack_calls
from services.chassis.server.multiplexer import FramedContext, Multiplexer
from services.chassis.server.pipes import Pipe, server_context

CONNECTIONS = 64
RELIEF_SECONDS = 0.02  # more than a busy machine lets a thread wait for its turn, mostly
OLDEST_SECONDS = 300.0  # of a connection: the peer's certificate is looked at when it begins
LEAVING_SECONDS = 60.0  # that calls under way have when a connection was let go
HELD_SECONDS = 0.0004  # how long an answer waits for those of the same frame: the gateway has nothing to do meanwhile
_log = logging.getLogger(__name__)


class Connection:
    """The calls of one peer."""

    def __init__(self, pipe: Pipe, context: ssl.SSLContext, multiplexer: Multiplexer, on_work: threading.Event) -> None:
        self.context, self.opened = context, time.monotonic()
        self.is_leaving = False
        self._pipe = pipe
        self._multiplexer = multiplexer
        self._on_work = on_work
        self._auth = {"x509_pem_cert": (pipe.peer,)}
        self._inbox = Inbox()
        self._behind = math.inf  # of our clock behind the peer's, by the frame that was quickest here
        self._calls: deque[tuple[CallFrame, FramedContext]] = deque()
        self._lock = threading.Lock()
        self._unsent: list[bytes] = []
        self._is_sending = False
        self._turn = 0  # of the thread that reads; one that was relieved has an older one
        self._under_way: tuple[float, str] | None = None  # since when the reader is in a call of which method
        self.is_over = False

    def serve(self, turn: int = 0) -> None:
        """Answer and read, until the connection ends or this thread is relieved; it never fails."""
        try:
            while self._answer(turn):
                self._read()
        except OSError as error:
            _log.info("connection ended", extra={"error": type(error).__name__})
        except Exception as error:  # its text may be of the request
            _log.error("a frame could not be read; the connection is closed", extra={"error": type(error).__name__})
        with self._lock:
            is_relieved = self._turn != turn
            if not is_relieved:
                self._under_way = None
        if is_relieved:
            self._multiplexer.return_relief()
            return
        self.is_over = True
        self._pipe.close()

    def _read(self) -> None:
        for frame in self._inbox.take(self._pipe.read()):
            sent = sent_ms_of(frame) / 1000
            self._behind = min(self._behind, time.monotonic() - sent)
            for call in unpack_calls(frame):
                deadline = sent + self._behind + call.timeout_ms / 1000
                self._calls.append((call, FramedContext(self._auth, deadline, call.metadata(), self._ended)))

    def _answer(self, turn: int) -> bool:
        """Answer the calls that were read; False when this thread was relieved meanwhile."""
        self._flush()
        held = time.monotonic()
        while self._calls:
            call, context = self._calls.popleft()
            self._under_way = time.monotonic(), call.path
            if not self._on_work.is_set():
                self._on_work.set()
            answer = self._multiplexer.take(call, context, self)
            with self._lock:
                if answer is not None:
                    self._unsent.append(answer)
                if self._turn != turn:
                    break
                self._under_way = None
            if time.monotonic() - held > HELD_SECONDS:
                self._flush()
                held = time.monotonic()
        self._flush()
        return self._turn == turn

    def relieve(self, now: float) -> bool:
        """Have another thread read when the one that does stays in a call; tell whether one is in a call."""
        with self._lock:
            if self._under_way is None:
                return False
            since, path = self._under_way
            if now - since >= RELIEF_SECONDS and self._multiplexer.lend_relief(path):
                if started(self.serve, self._turn + 1):
                    self._turn += 1
                    self._under_way = None
                else:
                    self._multiplexer.return_relief()
            return True

    def send(self, answer: bytes) -> None:
        """Send an answer, with those that came meanwhile."""
        with self._lock:
            self._unsent.append(answer)
        self._flush()

    def leave(self) -> None:
        """Tell the peer to send no more calls; it ends the connection when it has its answers."""
        if not self.is_leaving:
            self.is_leaving, self.opened = True, time.monotonic()
            started(self._say_last)  # a peer that takes nothing holds up nobody else

    def _say_last(self) -> None:
        with contextlib.suppress(OSError):
            self._pipe.write(LAST_FRAME)

    def _ended(self) -> bool:
        return self.is_over

    def _flush(self) -> None:
        """Send what there is to send, unless another thread is doing so: then it sends this too."""
        while True:
            with self._lock:
                if self._is_sending or not self._unsent:
                    return
                self._is_sending = True
                frame = take_frame(self._unsent)
            try:
                self._pipe.write(frame)
            except OSError:
                self.end()
            with self._lock:
                self._is_sending = False

    def end(self) -> None:
        """End the connection now."""
        self.is_over = True
        self._pipe.shut()


def started(work: Callable[..., None], *given: object) -> bool:
    """Start a thread; tell whether there was one to be had."""
    try:
        threading.Thread(target=work, args=given, daemon=True, name="frames").start()
    except RuntimeError:
        _log.error("no thread can be started")
        return False
    return True


class Listener:
    """Takes connections on a port and serves them until it is stopped."""

    def __init__(self, multiplexer: Multiplexer, files: TlsFiles) -> None:
        """Once the certificate was replaced, new connections are met with the new one."""
        self._multiplexer = multiplexer
        self._files = files
        self._context, self._known = server_context(files), files.stamp()
        self._connections: set[Connection] = set()
        self._places = threading.BoundedSemaphore(CONNECTIONS)
        self._on_work = threading.Event()
        self._socket: socket.socket | None = None
        self._is_stopped = self._is_drained = False

    def start(self, host: str, port: int) -> int:
        """Listen, on any port when it is 0; return the port.

        Raises:
            OSError: the port is taken.
        """
        host = "0.0.0.0" if host == "::" and not socket.has_dualstack_ipv6() else host
        family = socket.AF_INET6 if ":" in host else socket.AF_INET
        self._socket = socket.create_server((host, port), family=family, dualstack_ipv6=host == "::")
        self._multiplexer.port = int(self._socket.getsockname()[1])
        for work in (self._accept, self._watch):
            threading.Thread(target=work, daemon=True, name=f"frames{work.__name__}").start()
        return self._multiplexer.port

    def stop(self, seconds: float) -> None:
        """Take no more connections and calls; those under way have some seconds."""
        self._is_stopped = True
        self._multiplexer.port = 0
        if self._socket is not None:
            with contextlib.suppress(OSError):
                self._socket.shutdown(socket.SHUT_RDWR)
            self._socket.close()
        for connection in list(self._connections):
            connection.leave()
        deadline = time.monotonic() + seconds
        while time.monotonic() < deadline and not all(found.is_over for found in list(self._connections)):
            time.sleep(0.01)
        self._is_drained = True
        for connection in list(self._connections):
            connection.end()

    def _accept(self) -> None:
        assert self._socket is not None
        while not self._is_stopped:
            try:
                found, _ = self._socket.accept()
            except OSError:
                if not self._is_stopped:
                    time.sleep(0.1)  # no more files, mostly
                continue
            if not self._places.acquire(blocking=False):
                found.close()
            elif not started(self._serve, found):
                found.close()
                self._places.release()

    def _serve(self, found: socket.socket) -> None:
        try:
            context = self._current()
            connection = Connection(Pipe(found, context), context, self._multiplexer, self._on_work)
        except Exception as error:
            _log.info("no handshake", extra={"error": type(error).__name__})
            found.close()
            self._places.release()
            return
        self._connections.add(connection)
        if self._is_stopped:  # while hands were shaken
            connection.leave()
        connection.serve()

    def _current(self) -> ssl.SSLContext:
        with contextlib.suppress(OSError):  # it is being replaced at this moment
            stamp = self._files.stamp()
            if stamp != self._known:
                self._context, self._known = server_context(self._files), stamp
        return self._context

    def _watch(self) -> None:
        """Relieve threads that stay in a call, and let old connections go; sleeps while there are no calls."""
        looked = 0.0
        while not self._is_drained:
            self._on_work.wait(1.0)
            self._on_work.clear()
            time.sleep(RELIEF_SECONDS)
            now = time.monotonic()
            for connection in list(self._connections):
                if connection.is_over:
                    self._connections.discard(connection)
                    self._places.release()
                elif connection.relieve(now):
                    self._on_work.set()
            if now - looked >= 1.0:
                looked = now
                self._let_go(now)

    def _let_go(self, now: float) -> None:
        """End connections that are old, or were met with certificates that were replaced since."""
        current = self._current()
        for connection in list(self._connections):
            age = now - connection.opened
            if connection.is_leaving:
                if age > LEAVING_SECONDS and not self._is_stopped:
                    connection.end()
            elif age > OLDEST_SECONDS or connection.context is not current:
                connection.leave()
