"""Offer requests at a rate from many connections: `python loader.py PORT RATE SECONDS CONNECTIONS`, paths on stdin.

A line of stdin is a path; they are asked for in turn. Writes a JSON list of [path, status, seconds, has Retry-After].
KEHU_LOADER_HEADERS, a JSON object, stands in for token and purpose.
"""

from __future__ import annotations

import asyncio
import json
import os
import sys
import time

GIVEN = json.loads(os.environ.get("KEHU_LOADER_HEADERS", "{}"))
SENT = GIVEN or {"Authorization": "Bearer app:load@kitchen", "X-Purpose": "service"}
HEADERS = "".join(f"{name}: {value}\r\n" for name, value in {"Host": "kehu", **SENT}.items()) + "\r\n"


async def ask(reader, writer, path):
    writer.write(f"GET {path} HTTP/1.1\r\n{HEADERS}".encode())
    head = (await reader.readuntil(b"\r\n\r\n")).lower()
    length = int(head.partition(b"content-length: ")[2].partition(b"\r\n")[0])
    await reader.readexactly(length)
    return int(head.split(b" ", 2)[1]), b"retry-after" in head


async def connection(port, paths, start, number, pause, end, found):
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    due, count = start, number
    while due < end:
        await asyncio.sleep(max(due - time.perf_counter(), 0))
        began, path = time.perf_counter(), paths[count % len(paths)]
        status, advised = await ask(reader, writer, path)
        found.append((path, status, time.perf_counter() - began, advised))
        due, count = max(due + pause, time.perf_counter()), count + 1
    writer.close()


async def main():
    port, rate, seconds, connections = (float(text) for text in sys.argv[1:])
    paths, found, pause = sys.stdin.read().split(), [], connections / rate
    start = time.perf_counter() + 0.2
    await asyncio.gather(
        *(
            connection(int(port), paths, start + number * pause / connections, number, pause, start + seconds, found)
            for number in range(int(connections))
        )
    )
    json.dump(found, sys.stdout)


if __name__ == "__main__":
    asyncio.run(main())
