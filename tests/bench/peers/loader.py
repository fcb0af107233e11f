"""Load a URL over keep-alive connections, for machines without wrk; prints a line like wrk's, for little CPU as wrk."""

from __future__ import annotations

import asyncio
import re
import sys
import time
from urllib.parse import urlsplit

import uvloop

LENGTH = re.compile(rb"\r\ncontent-length: *(\d+)", re.IGNORECASE)


class Client(asyncio.Protocol):
    """One connection: a request, its answer, the next request, until the time is over."""

    def __init__(self, request: bytes, until: float, counts: list[int]) -> None:
        self.done = asyncio.get_running_loop().create_future()
        self._request, self._until, self._counts = request, until, counts
        self._held = b""

    def connection_made(self, transport) -> None:
        self._transport = transport
        transport.write(self._request)

    def data_received(self, data: bytes) -> None:
        self._held += data
        end = self._held.find(b"\r\n\r\n")
        if end < 0 or len(self._held) < end + 4 + int(LENGTH.search(self._held, 0, end)[1]):
            return
        self._counts[0 if self._held.startswith(b"HTTP/1.1 200") else 1] += 1
        self._held = b""
        if time.monotonic() < self._until:
            self._transport.write(self._request)
        else:
            self._transport.close()

    def connection_lost(self, error: Exception | None) -> None:
        if error is None:
            self.done.set_result(None)
        else:
            self.done.set_exception(error)


async def main(connections: int, seconds: float, url: str, headers: list[str]) -> None:
    parts = urlsplit(url)
    target = f"{parts.path}?{parts.query}" if parts.query else parts.path
    lines = [f"GET {target} HTTP/1.1", f"Host: {parts.netloc}", *headers, "", ""]
    request = "\r\n".join(lines).encode()
    counts, started = [0, 0], time.monotonic()
    loop = asyncio.get_running_loop()
    found = [
        await loop.create_connection(lambda: Client(request, started + seconds, counts), parts.hostname, parts.port)
        for _ in range(connections)
    ]
    await asyncio.gather(*(client.done for _, client in found))
    if counts[1]:
        print(f"Non-2xx: {counts[1]}")
    print(f"Requests/sec: {counts[0] / (time.monotonic() - started):.1f}")


if __name__ == "__main__":
    uvloop.run(main(int(sys.argv[1]), float(sys.argv[2]), sys.argv[3], sys.argv[4:]))
