"""Keep the processes of a stack running: start all, say when ready, restart what dies, stop all."""

from __future__ import annotations

import contextlib
import shutil
import signal
import subprocess
import threading
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path

from infra.processes import Server, spawn, stop

BACK_OFF_SECONDS = (0.2, 0.5, 1.0, 2.0, 5.0, 10.0)
STEADY_SECONDS = 60.0  # who lived this long before dying is restarted without delay
LOG_LIMIT = 10 << 20  # bytes; one older file is kept
TICK_SECONDS = 0.1
ROTATE_EVERY = 30.0
Say = Callable[[str], None]


class Watched:
    """One process and its restarts."""

    def __init__(self, server: Server, log: Path) -> None:
        self.server = server
        self.log = log
        self.process: subprocess.Popen[bytes] | None = None
        self.failures = 0
        self._started = 0.0
        self._look_at = 0.0

    def start(self) -> None:
        """Start it now."""
        self.server.prepare()
        self.process = spawn(self.server.command(), self.log)
        self._started = time.monotonic()

    def has_died(self) -> int | None:
        """Return the exit code once, when it is found dead, and plan its restart."""
        if self.process is None or self.process.poll() is None:
            return None
        code = self.process.returncode
        stop(self.process)  # what it left in its session
        self.process = None
        if time.monotonic() - self._started > STEADY_SECONDS:
            self.failures = 0
        self.put_off()
        self.server.tidy()
        return code

    def put_off(self) -> None:
        """Look again only after the back-off, which grows with each failure."""
        self.failures += 1
        self._look_at = time.monotonic() + self.delay

    @property
    def delay(self) -> float:
        """The back-off before the next start, in seconds."""
        return BACK_OFF_SECONDS[min(self.failures, len(BACK_OFF_SECONDS)) - 1]

    def is_due(self) -> bool:
        """Say whether it is to be looked at now."""
        return time.monotonic() >= self._look_at

    def stop(self) -> None:
        """End it and tidy up."""
        if self.process is not None:
            stop(self.process, grace_seconds=25.0)
        self.server.tidy()


class Supervisor:
    """Runs servers until told to stop. All starts happen in the thread that calls `start` and `watch`."""

    def __init__(
        self, servers: Sequence[Server], logs: Path, say: Say, renew: Callable[[], None] = lambda: None
    ) -> None:
        """`renew` is called now and then: it replaces what grows old, such as certificates."""
        self._renew = renew
        self.watched = [Watched(server, logs / f"{server.name}.log") for server in servers]
        self._say = say
        self._stop = threading.Event()
        self._rotated = time.monotonic()

    def start(self) -> None:
        """Start all; they wait for each other by themselves."""
        for watched in self.watched:
            rotate(watched.log)
            watched.start()

    def pids(self) -> dict[str, int]:
        """Return the process ids by name."""
        return {w.server.name: w.process.pid for w in self.watched if w.process is not None}

    def wait_ready(self, seconds: float) -> list[str]:
        """Watch until all are ready, a stop is asked for, or the time is over; return who is not ready."""
        waiting = {watched.server.name: watched for watched in self.watched}
        deadline = time.monotonic() + seconds
        with ThreadPoolExecutor(4) as pool:
            while waiting and time.monotonic() < deadline and not self._stop.is_set():
                answers = pool.map(lambda item: (item[0], item[1].server.is_ready()), list(waiting.items()))
                for name, ready in answers:
                    if ready:
                        del waiting[name]
                self.tick()
        return list(waiting)

    def watch(self, until: Callable[[], bool] = lambda: False) -> None:
        """Restart what dies until a stop is asked for or `until` holds."""
        while not self._stop.is_set() and not until():
            self.tick()

    def tick(self) -> None:
        """Look once at every process that is due; what fails is said and tried again, and ends nothing else."""
        for watched in filter(Watched.is_due, self.watched):
            try:
                self._look(watched)
            except Exception as error:
                watched.put_off()
                self._tell(f"{_failed(watched.server.name, error)} in {watched.delay:g} s, see {watched.log}")
        if time.monotonic() - self._rotated > ROTATE_EVERY:
            self._rotated = time.monotonic()
            self._try("certificates", self._renew)
            for watched in self.watched:
                self._try(str(watched.log), partial(rotate, watched.log))
        self._stop.wait(TICK_SECONDS)

    def _look(self, watched: Watched) -> None:
        code = watched.has_died()
        if code is not None:
            name, delay = watched.server.name, f"{watched.delay:g} s"
            self._tell(f"{name} stopped ({_reason(code)}); it starts again in {delay}, see {watched.log}")
        elif watched.process is None:
            watched.start()
            self._tell(f"{watched.server.name} started again")

    def _try(self, what: str, step: Callable[[], None]) -> None:
        try:
            step()
        except Exception as error:
            self._tell(f"{_failed(what, error)} in {ROTATE_EVERY:g} s")

    def _tell(self, text: str) -> None:
        with contextlib.suppress(OSError):  # nobody reads any more, or the disk is full
            self._say(text)

    def ask_to_stop(self) -> None:
        """End `watch` and `wait_ready`; safe in a signal handler."""
        self._stop.set()

    @property
    def is_stopping(self) -> bool:
        """Say whether a stop was asked for."""
        return self._stop.is_set()

    def stop(self) -> None:
        """Stop all: first who works for others (in parallel), then the servers they need."""
        servers = {"mongo", "rabbitmq", "smtp"}
        with ThreadPoolExecutor(len(self.watched) or 1) as pool:
            list(pool.map(Watched.stop, [w for w in self.watched if w.server.name not in servers]))
            list(pool.map(Watched.stop, [w for w in self.watched if w.server.name in servers]))


def _failed(what: str, error: Exception) -> str:
    return f"{what}: {type(error).__name__}: {error}; it is tried again"


def _reason(code: int) -> str:
    if code >= 0:
        return f"exit code {code}"
    with contextlib.suppress(ValueError):
        return signal.Signals(-code).name
    return f"signal {-code}"


def rotate(log: Path) -> None:
    """Keep a grown log as .1 and empty the file in place: its writer appends and goes on."""
    if log.exists() and log.stat().st_size > LOG_LIMIT:
        shutil.copyfile(log, log.with_suffix(".log.1"))
        with log.open("r+b") as emptied:
            emptied.truncate(0)
