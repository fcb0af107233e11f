"""One whole stack for the flows, and the hands to hurt it with."""

from __future__ import annotations

import os
import signal
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import psutil
import pytest

from infra.processes import Command, free_port, spawn, stop, wait_until
from infra.roles import health
from infra.servers import RABBITMQ_SCRIPT
from infra.stack import Running, read_running
from tests.conftest import unavailable
from tests.flows.raw import Raw, RawSignIns, entries

ROOT = Path(__file__).parents[2]
START_SECONDS = 150.0
BACK_SECONDS = 60.0


class LiveStack:
    """A running stack: its API, its processes, its mailbox."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.sign_ins = RawSignIns(folder / "credentials.json")
        self.steward = self.sign_ins.person("data-office", "stewardship")  # erasing is confirmed by a person
        self.marketer = self.sign_ins.department("marketing", "marketing")
        self.analyst = self.sign_ins.department("analytics", "analysis")
        self.administrator = self.sign_ins.administrator()

    @property
    def running(self) -> Running:
        return read_running(self.folder)

    @property
    def amqp_uri(self) -> str:
        return self.running.environment["KEHU_AMQP_URI"]

    def kill(self, name: str) -> None:
        """kill -9; the supervisor starts it again."""
        os.kill(self.running.pids[name], signal.SIGKILL)

    def freeze(self, name: str) -> psutil.Process:
        """Stop it answering without ending it."""
        process = psutil.Process(self.running.pids[name])
        process.suspend()
        return process

    def is_whole(self) -> bool:
        """Say whether every process lives and every service is ready."""
        running = self.running
        alive = all(psutil.pid_exists(pid) for pid in running.pids.values())
        everybody = {"rabbitmq", "mongo", "gateway", "consume", "work", *running.health_ports}
        return alive and everybody <= set(running.pids) and all(map(health, running.health_ports.values()))

    def wait_whole(self) -> None:
        assert wait_until(self.is_whole, BACK_SECONDS, 0.5), f"not whole again: {self.running.pids}"

    def found(self, query: str) -> list[str]:
        """Return the names of the profiles that search finds for the data office."""
        hits = entries(self.steward.post("/v1/search", {"q": query, "types": ["profiles"], "page_size": 100}), "hits")
        return [str(hit["name"]) for hit in hits]


@contextmanager
def a_stack(folder: Path) -> Iterator[LiveStack]:
    """Run a stack of its own in a folder: empty, all ready."""
    if not RABBITMQ_SCRIPT.exists() and not os.environ.get("KEHU_AMQP_URI"):
        unavailable("RabbitMQ is not installed: run `apt-get install rabbitmq-server`")
    log = folder / "up.log"
    argv = (sys.executable, "-m", "infra.cli", "up", "--no-sample", "--data", str(folder), "--port", str(free_port()))
    log.touch()
    process = spawn(Command(argv, os.environ, ROOT), log)
    try:
        started = wait_until(lambda: process.poll() is not None or "ready http" in log.read_text(), START_SECONDS, 0.2)
        assert started and process.poll() is None, log.read_text()
        yield LiveStack(folder)
    finally:
        stop(process, grace_seconds=60)


@pytest.fixture(scope="session")
def stack(tmp_path_factory: pytest.TempPathFactory) -> Iterator[LiveStack]:
    """The stack that the flows share."""
    with a_stack(tmp_path_factory.mktemp("stack")) as running:
        yield running


@pytest.fixture
def whole_stack(stack: LiveStack) -> Iterator[LiveStack]:
    """The stack with every process up before the test, and again after it."""
    stack.wait_whole()
    yield stack
    stack.wait_whole()


@pytest.fixture(scope="session")
def till(stack: LiveStack) -> Raw:
    """The data office, with a source `till` registered."""
    mapping = [
        {"column": "card", "field": "source_record_id"},
        {"column": "name", "field": "name"},
        {"column": "phone", "field": "phone"},
        {"column": "email", "field": "email"},
        {"column": "born", "field": "birth_date"},
    ]
    body = {"display_name": "till", "owner_department": "sales", "trust_rank": 1, "mapping": mapping}
    stack.steward.post("/v1/sources", body, source_id="till")
    return stack.steward
