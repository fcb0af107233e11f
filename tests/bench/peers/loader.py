"""Load a URL over keep-alive connections, for machines without wrk; prints a line like wrk's."""

from __future__ import annotations

import asyncio
import sys
import time
from urllib.parse import urlsplit


async def one_connection(host: str, port: int, request: bytes, until: float, counts: list[int]) -> None:
    reader, writer = await asyncio.open_connection(host, port)
    while time.monotonic() < until:
        writer.write(request)
        head = await reader.readuntil(b"\r\n\r\n")
        length = next(
            int(line.split(b":")[1]) for line in head.lower().split(b"\r\n") if line.startswith(b"content-length")
        )
        await reader.readexactly(length)
        counts[0 if head.startswith(b"HTTP/1.1 200") else 1] += 1
    writer.close()


async def main(connections: int, seconds: float, url: str, headers: list[str]) -> None:
    parts = urlsplit(url)
    target = f"{parts.path}?{parts.query}" if parts.query else parts.path
    lines = [f"GET {target} HTTP/1.1", f"Host: {parts.netloc}", *headers, "", ""]
    request = "\r\n".join(lines).encode()
    counts, started = [0, 0], time.monotonic()
    jobs = [
        one_connection(str(parts.hostname), int(parts.port or 80), request, started + seconds, counts)
        for _ in range(connections)
    ]
    await asyncio.gather(*jobs)
    if counts[1]:
        print(f"Non-2xx: {counts[1]}")
    print(f"Requests/sec: {counts[0] / (time.monotonic() - started):.1f}")


if __name__ == "__main__":
    asyncio.run(main(int(sys.argv[1]), float(sys.argv[2]), sys.argv[3], sys.argv[4:]))
