"""Start, watch and stop child processes that die with their parent."""

from __future__ import annotations

import contextlib
import os
import shutil
import signal
import socket
import subprocess
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Protocol

import psutil

LOOPBACK = "127.0.0.1"
# What a process frees goes back to the system soon. Allocators keep it otherwise, each in a way of its own:
# glibc in an arena per thread and in blocks below a limit that grows, Arrow in a pool, Rust's jemalloc for 10 s.
FRUGAL: Mapping[str, str] = {
    "MALLOC_ARENA_MAX": "2",
    "MALLOC_MMAP_THRESHOLD_": str(1 << 20),
    "MALLOC_TRIM_THRESHOLD_": str(1 << 20),
    "ARROW_DEFAULT_MEMORY_POOL": "system",
    "_RJEM_MALLOC_CONF": "dirty_decay_ms:200,muzzy_decay_ms:0",
}


class StartError(Exception):
    """A process did not become ready; the message says which, and where its log is."""


@dataclass(frozen=True, slots=True)
class Command:
    """What to execute: the arguments, the whole environment, the folder and, for root only, another user."""

    argv: tuple[str, ...]
    env: Mapping[str, str] = field(default_factory=dict)
    cwd: Path | None = None
    user: str | None = None


class Server(Protocol):
    """A process the stack or a test can run: prepare, start, ask whether it is ready, tidy up."""

    @property
    def name(self) -> str:
        """The name under which it is logged."""

    def prepare(self) -> None:
        """Write its files; run again before every start."""

    def command(self) -> Command:
        """Return what to execute."""

    def is_ready(self) -> bool:
        """Tell whether it answers now; never raises, waits a second at most."""

    def tidy(self) -> None:
        """Remove what survives the process itself; runs after every end."""


def free_port() -> int:
    """Return a loopback TCP port that nobody listens on now."""
    with socket.socket() as probe:
        probe.bind((LOOPBACK, 0))
        return int(probe.getsockname()[1])


def listens(port: int, host: str = LOOPBACK) -> bool:
    """Tell whether something accepts TCP connections there."""
    with socket.socket() as probe:
        probe.settimeout(0.5)
        return probe.connect_ex((host, port)) == 0


def clean_environment(extra: Mapping[str, str]) -> dict[str, str]:
    """Return `extra` with only the harmless part of our own environment: nothing of the caller leaks in."""
    kept = ("PATH", "LANG", "LC_ALL", "TMPDIR", "HOME", "VIRTUAL_ENV")
    return {name: os.environ[name] for name in kept if name in os.environ} | dict(extra)


def _dying_with_parent(argv: tuple[str, ...]) -> tuple[str, ...]:
    """Return the command line that asks the kernel for SIGTERM when the parent is gone, however it went.

    It is util-linux's setpriv, not a preexec_fn: that would make Python fork where it can vfork, and a fork
    of a process that uses grpc is not safe.
    """
    setpriv = shutil.which("setpriv")
    return argv if setpriv is None else (setpriv, "--pdeathsig", "TERM", *argv)


def spawn(command: Command, log: Path | None = None) -> subprocess.Popen[bytes]:
    """Start `command` in a session of its own, output appended to `log`.

    Call it from a thread that lives as long as the child should: the kernel ties the child to that thread.
    """
    with contextlib.ExitStack() as stack:
        out = stack.enter_context(log.open("ab")) if log is not None else subprocess.DEVNULL
        return subprocess.Popen(
            _dying_with_parent(command.argv),
            env=dict(command.env),
            cwd=command.cwd,
            user=command.user,
            group=None if command.user is None else "nogroup",
            stdin=subprocess.DEVNULL,
            stdout=out,
            stderr=subprocess.STDOUT if log is not None else subprocess.DEVNULL,
            start_new_session=True,
        )


def stop(process: subprocess.Popen[bytes], grace_seconds: float = 15.0) -> None:
    """End the process: SIGTERM, then SIGKILL for its whole session after the grace."""
    if process.poll() is None:
        process.terminate()
        with contextlib.suppress(subprocess.TimeoutExpired):
            process.wait(grace_seconds)
    with contextlib.suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGKILL)
    process.wait()


@dataclass(frozen=True, slots=True)
class Memory:
    """Bytes held by processes: pages that they share counted in each (RSS), or split among them (PSS)."""

    resident: int
    proportional: int


def memory_of(pid: int, *, with_children: bool = True) -> Memory:
    """Return what a process and those below it hold now; nothing for what is gone or another user's."""
    resident = proportional = 0
    with contextlib.suppress(psutil.NoSuchProcess):
        process = psutil.Process(pid)
        for each in (process, *(process.children(recursive=True) if with_children else ())):
            with contextlib.suppress(psutil.Error):
                held = each.memory_full_info()
                resident, proportional = resident + held.rss, proportional + held.pss
    return Memory(resident, proportional)


def wait_until(claim: Callable[[], bool], seconds: float, every: float = 0.05) -> bool:
    """Ask `claim` until it holds or the time is over; return whether it held."""
    deadline = time.monotonic() + seconds
    while not claim():
        if time.monotonic() > deadline:
            return False
        time.sleep(every)
    return True


def tail(log: Path, lines: int = 15) -> str:
    """Return the last lines of a log, empty if there is none."""
    if not log.exists():
        return ""
    return "\n".join(log.read_text(errors="replace").splitlines()[-lines:])


@contextlib.contextmanager
def running(server: Server, log: Path, seconds: float = 60.0) -> Iterator[subprocess.Popen[bytes]]:
    """Run `server` for the length of the block.

    Raises:
        StartError: it ended, or was not ready in time; carries the end of its log.
    """
    server.prepare()
    process = spawn(server.command(), log)
    try:
        wait_until(lambda: process.poll() is not None or server.is_ready(), seconds)
        if process.poll() is not None or not server.is_ready():
            raise StartError(f"{server.name} did not start, see {log}:\n{tail(log)}")
        yield process
    finally:
        stop(process)
        server.tidy()
