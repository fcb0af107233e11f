"""Bound the connections one address may hold, for the HTTP server counts them only all together.

The server accepts connections where Python does not see them; what this process holds is looked at every second
instead, and the newest of an address that has too many are shut. One who stays below the bound is never touched.
"""

from __future__ import annotations

import asyncio
import os
import resource
import socket
import stat
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass
from ipaddress import IPv4Network, IPv6Network

from prometheus_client import Counter as Total
from prometheus_client import Gauge

from gateway.limits import address_of, counted_for

ALL = 4096  # of one process, where it may have so many files; whoever comes then waits to be accepted
OTHER_FILES = 512  # that a process has open beside its connections
FEWEST = 64
LOOK_SECONDS = 1.0
FILES = "/dev/fd"

OPEN = Gauge("kehu_http_connections", "Connections held")
SHUT = Total("kehu_http_connections_shut_total", "Connections shut because their address held too many")


@dataclass(frozen=True, slots=True)
class Held:
    """A connection: the inode of its socket, and whom it counts for; for nobody when that is empty."""

    inode: int
    holder: str


class Connections:
    """The connections of the server at a port; `trusted` are proxies, whose connections are of many."""

    def __init__(self, port: int, each: int, trusted: Sequence[IPv4Network | IPv6Network] = ()) -> None:
        self._port, self._each, self._trusted = port, each, tuple(trusted)
        self._held: dict[int, Held] = {}  # by descriptor, the oldest first

    async def watch(self) -> None:
        """Look every second, until cancelled."""
        while True:
            await asyncio.sleep(LOOK_SECONDS)
            with suppress(OSError):
                await asyncio.to_thread(self.look)

    def look(self) -> int:
        """Shut what is too much and return how many that were."""
        now = dict(self._sockets())
        self._held = {number: held for number, held in self._held.items() if now.get(number) == held.inode}
        for number in sorted(now.keys() - self._held.keys(), key=lambda number: now[number]):
            self._held[number] = Held(now[number], self._holder(number))
        mine: Counter[str] = Counter()
        shut = 0
        for number, held in self._held.items():
            mine[held.holder] += 1
            if held.holder and mine[held.holder] > self._each:
                shut += self._shut(number, held.holder)
        OPEN.set(sum(bool(held.holder) for held in self._held.values()) - shut)
        SHUT.inc(shut)
        return shut

    def _sockets(self) -> Iterator[tuple[int, int]]:
        """Yield descriptor and inode of every socket of this process."""
        for name in os.listdir(FILES):
            with suppress(OSError):
                found = os.fstat(int(name))
                if stat.S_ISSOCK(found.st_mode):
                    yield int(name), found.st_ino

    def _holder(self, number: int) -> str:
        """Return whom a socket counts for; empty when it is none of the server's, or a trusted proxy's."""
        with suppress(OSError), socket.socket(fileno=os.dup(number)) as copy:
            return self._counted(copy)
        return ""

    def _shut(self, number: int, holder: str) -> bool:
        """Shut a connection, looking again: the descriptor may be another's by now."""
        with suppress(OSError), socket.socket(fileno=os.dup(number)) as copy:
            if self._counted(copy) == holder:
                copy.shutdown(socket.SHUT_RDWR)
                return True
        return False

    def _counted(self, copy: socket.socket) -> str:
        if copy.family not in (socket.AF_INET, socket.AF_INET6) or copy.getsockname()[1] != self._port:
            return ""
        peer = str(copy.getpeername()[0])
        address = address_of(peer)
        return "" if any(address in network for network in self._trusted) else counted_for(peer)


def room(wanted: int = ALL) -> int:
    """Return how many connections this process has files for, after asking for as many as it may have."""
    files = wanted + OTHER_FILES
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft != resource.RLIM_INFINITY and soft < files:
        soft = files if hard == resource.RLIM_INFINITY else min(files, hard)
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
    return wanted if soft == resource.RLIM_INFINITY else max(min(wanted, soft - OTHER_FILES), FEWEST)
