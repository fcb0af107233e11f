"""Two of each process, one after the other restarted under load: no request fails (readiness first, then draining).

`KEHU_ROLLING_ROUNDS=3` restarts each three times; once unless told.
"""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import os
import signal
import subprocess
import sys
import threading
import time
import urllib.request
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from infra.processes import LOOPBACK, clean_environment, free_port, stop, wait_until
from infra.roles import health
from tests.flows.conftest import LiveStack
from tests.flows.load import Load
from tests.flows.raw import Raw

pytestmark = [pytest.mark.flow, pytest.mark.slow]
ROUNDS = int(os.environ.get("KEHU_ROLLING_ROUNDS", "1"))
RATE = 50.0
EXIT_SECONDS = 30.0
NOTICE_SECONDS = 2.0


def http_ready(port: int) -> bool:
    """Tell whether the gateway at this port says that it is ready."""
    try:
        with urllib.request.urlopen(f"http://{LOOPBACK}:{port}/readyz", timeout=1) as reply:
            return bool(reply.status == 200)
    except OSError:
        return False


@dataclass(slots=True)
class Instance:
    """One process of two."""

    argv: tuple[str, ...]
    environment: dict[str, str]
    port: int
    is_ready: Callable[[], bool]
    log: Path
    process: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        with self.log.open("ab") as out:
            self.process = subprocess.Popen(
                (sys.executable, "-m", "infra.process", *self.argv),
                env=clean_environment(self.environment), stdout=out, stderr=out, start_new_session=True,
            )  # fmt: skip
        assert wait_until(self.is_ready, 60, 0.1), self.log.read_text()[-2000:]

    def restart(self) -> float:
        """End it politely and start it again; return how long the end took."""
        assert self.process is not None
        began = time.monotonic()
        self.process.send_signal(signal.SIGTERM)
        self.process.wait(EXIT_SECONDS)
        took = time.monotonic() - began
        self.start()
        return took


class Balancer:
    """Passes connections on to whichever instance is ready, as a Service of Kubernetes does; it reads no request."""

    def __init__(self, instances: list[Instance]) -> None:
        self.port = free_port()
        self._instances = instances
        self._turn = itertools.count()
        self._ready: list[int] = [instance.port for instance in instances]
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._run, daemon=True)

    def __enter__(self) -> Balancer:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._loop.call_soon_threadsafe(self._serving.cancel)
        self._thread.join(5)

    def _run(self) -> None:
        with contextlib.suppress(asyncio.CancelledError), asyncio.Runner(loop_factory=lambda: self._loop) as runner:
            runner.run(self._serve())

    async def _serve(self) -> None:
        self._serving = asyncio.ensure_future(self._watch())
        async with await asyncio.start_server(self._pass_on, LOOPBACK, self.port):
            await self._serving

    async def _watch(self) -> None:
        while True:
            asked = [asyncio.to_thread(instance.is_ready) for instance in self._instances]
            ready = await asyncio.gather(*asked)
            self._ready = [i.port for i, is_ready in zip(self._instances, ready, strict=True) if is_ready]
            await asyncio.sleep(0.3)

    async def _pass_on(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        first = next(self._turn)
        for port in self._ready[first % 2 :] + self._ready[: first % 2]:
            with contextlib.suppress(OSError, asyncio.CancelledError):  # cancelled at the test's end
                there, to_there = await asyncio.open_connection(LOOPBACK, port)
                await asyncio.gather(_pump(reader, to_there), _pump(there, writer))
                return
        writer.close()


async def _pump(source: asyncio.StreamReader, target: asyncio.StreamWriter) -> None:
    try:
        while part := await source.read(65536):
            target.write(part)
            await target.drain()
    except OSError:
        pass
    finally:
        target.close()


@pytest.fixture
def instances(whole_stack: LiveStack, tmp_path: Path) -> Iterator[dict[str, list[Instance]]]:
    """Two processes each of access, profiles and gateway beside the stack's own, over its database."""
    found: dict[str, list[Instance]] = {"access": [], "profiles": [], "gateway": []}
    try:
        yield found
    finally:
        for instance in itertools.chain.from_iterable(found.values()):
            if instance.process is not None:
                stop(instance.process)


def instance_of(stack: LiveStack, role: str, folder: Path, addresses: dict[str, int]) -> Instance:
    """Return one of two; it knows the others by `addresses`."""
    port, probe = free_port(), free_port()
    folder.mkdir()
    base = dict(stack.running.environment)
    known = dict(part.split("=") for part in base["KEHU_ADDRESSES"].split(","))
    known |= {name: f"{LOOPBACK}:{other}" for name, other in addresses.items()}
    if role != "gateway":
        known[role] = f"{LOOPBACK}:{port}"
    environment = base | {
        "KEHU_ADDRESSES": ",".join(f"{name}={address}" for name, address in known.items()),
        "KEHU_DATA_DIR": str(folder),
        "KEHU_TLS_DIR": str(stack.folder / "tls"),
        "KEHU_KEYS_DIR": str(stack.folder / "keys"),
        "KEHU_HEALTH_PORT": str(probe),
        "KEHU_GATEWAY_PORT": str(port),
        "KEHU_NOTICE_SECONDS": str(NOTICE_SECONDS),
    }
    is_ready = (lambda: http_ready(port)) if role == "gateway" else (lambda: health(probe))
    argv = ("gateway",) if role == "gateway" else ("serve", role)
    return Instance(argv, environment, port, is_ready, folder / "log")


@pytest.mark.timeout(600)
def test_a_rolling_restart_of_every_process_fails_no_request(
    whole_stack: LiveStack, till: Raw, instances: dict[str, list[Instance]], tmp_path: Path
) -> None:
    behind: dict[str, int] = {}
    with contextlib.ExitStack() as stack:
        for role in ("access", "profiles", "gateway"):
            pair = instances[role]
            pair += [instance_of(whole_stack, role, tmp_path / f"{role}-{n}", behind) for n in range(2)]
            for instance in pair:
                instance.start()
            behind[role] = stack.enter_context(Balancer(pair)).port
        url = f"http://{LOOPBACK}:{behind['gateway']}"
        load = Load(url, till.headers, RATE)
        threads = load.run()
        time.sleep(2)
        ends = [one.restart() for _ in range(ROUNDS) for pair in instances.values() for one in pair]
        time.sleep(2)
        load.stopping.set()
        for thread in threads:
            thread.join(30)

    assert load.failures == []
    assert load.count > 500
    assert max(ends) <= EXIT_SECONDS
