"""Connections to stated addresses only, with one end for everything that happens on them."""

from __future__ import annotations

import ssl
import time
from collections.abc import Iterable, Sequence

import httpcore


def _left(end: float) -> float:
    left = end - time.monotonic()
    if left <= 0:
        raise httpcore.ReadTimeout("the time is over")
    return left


class Ending(httpcore.NetworkStream):
    """A stream that ends at a moment, however slowly the other side goes on."""

    def __init__(self, stream: httpcore.NetworkStream, end: float) -> None:
        self._stream, self._end = stream, end

    def read(self, max_bytes: int, timeout: float | None = None) -> bytes:
        """Read."""
        return self._stream.read(max_bytes, _left(self._end))

    def write(self, buffer: bytes, timeout: float | None = None) -> None:
        """Write."""
        self._stream.write(buffer, _left(self._end))

    def close(self) -> None:
        """Close."""
        self._stream.close()

    def start_tls(
        self, ssl_context: ssl.SSLContext, server_hostname: str | None = None, timeout: float | None = None
    ) -> httpcore.NetworkStream:
        """Begin TLS with the name that was asked for, never with the address."""
        return Ending(self._stream.start_tls(ssl_context, server_hostname, _left(self._end)), self._end)

    def get_extra_info(self, info: str) -> object:
        """Return what the stream knows."""
        return self._stream.get_extra_info(info)


class Pinned(httpcore.NetworkBackend):
    """Connects to the addresses that were checked, whatever host it is asked for."""

    def __init__(self, addresses: Sequence[str], end: float) -> None:
        self._addresses, self._end = addresses, end

    def connect_tcp(
        self,
        host: str,
        port: int,
        timeout: float | None = None,
        local_address: str | None = None,
        socket_options: Iterable[object] | None = None,
    ) -> httpcore.NetworkStream:
        """Connect to the first address that answers."""
        last: Exception = httpcore.ConnectError("the name has no address")
        for address in self._addresses:
            try:
                return Ending(httpcore.SyncBackend().connect_tcp(address, port, _left(self._end)), self._end)
            except (httpcore.ConnectError, httpcore.ConnectTimeout) as error:
                last = error
        raise last

    def connect_unix_socket(self, path: str, *rest: object, **named: object) -> httpcore.NetworkStream:
        """Refuse."""
        raise httpcore.ConnectError("no sockets of this machine")
