"""TLS between our processes without gRPC: the contexts, and a connection that is read while others write."""

from __future__ import annotations

import contextlib
import socket
import ssl
import struct
import threading
import time

from services.chassis.config import TlsFiles

HANDSHAKE_SECONDS = 5.0
SEND_SECONDS = 10  # after which a peer that takes no answers is let go
READ_BYTES = 256 * 1024
# a peer that vanished without a word is let go after about 25 seconds; some systems have not all of these
_TCP = {"TCP_NODELAY": 1, "TCP_KEEPIDLE": 10, "TCP_KEEPINTVL": 5, "TCP_KEEPCNT": 3, "TCP_USER_TIMEOUT": 25_000}


def server_context(files: TlsFiles) -> ssl.SSLContext:
    """Return how our processes are met: by certificates of our authority on both ends, TLS 1.3."""
    context = _context(ssl.PROTOCOL_TLS_SERVER, files)
    context.num_tickets = 0  # connections are few and long: none is resumed
    return context


def client_context(files: TlsFiles) -> ssl.SSLContext:
    """Return how a process of ours is reached; the name it must have is checked."""
    return _context(ssl.PROTOCOL_TLS_CLIENT, files)


def _context(protocol: int, files: TlsFiles) -> ssl.SSLContext:
    context = ssl.SSLContext(protocol)
    context.minimum_version = ssl.TLSVersion.TLSv1_3
    context.verify_mode = ssl.CERT_REQUIRED
    context.load_verify_locations(files.ca)
    context.load_cert_chain(files.certificate, files.key)
    return context


def tend(connection: socket.socket) -> None:
    """Have a socket send at once, and end by itself when the peer vanishes."""
    connection.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
    for name, value in _TCP.items():
        if hasattr(socket, name):
            connection.setsockopt(socket.IPPROTO_TCP, getattr(socket, name), value)


class Pipe:
    """A TLS connection that is read in one thread while others write; ssl's own sockets allow no such thing."""

    def __init__(self, connection: socket.socket, context: ssl.SSLContext) -> None:
        """Shake hands.

        Raises:
            OSError: the peer is none of ours, or too slow.
        """
        self._socket = connection
        self._came, self._goes = ssl.MemoryBIO(), ssl.MemoryBIO()
        self._tls = context.wrap_bio(self._came, self._goes, server_side=True)
        self._lock = threading.Lock()
        deadline = time.monotonic() + HANDSHAKE_SECONDS
        while True:
            try:
                self._tls.do_handshake()
                break
            except ssl.SSLWantReadError:
                self._flush()
                connection.settimeout(max(deadline - time.monotonic(), 0.001))
                self._came.write(self._received())
        self._flush()
        connection.settimeout(None)
        tend(connection)
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_SNDTIMEO, struct.pack("ll", SEND_SECONDS, 0))
        self.peer = ssl.DER_cert_to_PEM_cert(self._tls.getpeercert(binary_form=True) or b"").encode()

    def _received(self) -> bytes:
        raw = self._socket.recv(READ_BYTES)
        if not raw:
            raise ConnectionResetError("the peer is gone")
        return raw

    def _flush(self) -> None:
        if self._goes.pending:
            self._socket.sendall(self._goes.read())

    def read(self) -> bytes:
        """Return what comes next, waiting for it; in one thread at a time.

        Raises:
            OSError: the connection is over.
        """
        raw = b"" if self._came.pending else self._received()  # the first bytes may have come with the handshake's last
        parts: list[bytes] = []
        with self._lock, contextlib.suppress(ssl.SSLWantReadError):
            self._came.write(raw)
            while self._came.pending or self._tls.pending():
                part = self._tls.read(READ_BYTES)
                if not part:
                    raise ConnectionResetError("the peer ended the connection")
                parts.append(part)
        return b"".join(parts)

    def write(self, frame: bytes) -> None:
        """Send bytes, from any thread.

        Raises:
            OSError: the connection is over, or the peer takes nothing.
        """
        with self._lock:
            left = memoryview(frame)
            while left:
                left = left[self._tls.write(left) :]
            self._flush()

    def shut(self) -> None:
        """End the connection, from any thread; whoever reads then closes it."""
        with contextlib.suppress(OSError):
            self._socket.shutdown(socket.SHUT_RDWR)

    def close(self) -> None:
        """Give the socket back, from the thread that reads: in another one its number might serve a new one by then."""
        self.shut()  # whoever writes stops
        with self._lock:
            self._socket.close()
