"""Every process that no call reaches tells its own counts too: what a worker or a consumer did is scraped there."""

from __future__ import annotations

import contextlib
import sys
import urllib.request
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from infra.processes import LOOPBACK, Command, clean_environment, free_port, listens, spawn, stop, tail, wait_until

ROOT = Path(__file__).parents[2]


@contextlib.contextmanager
def scraped(arguments: list[str], folder: Path, amqp_uri: str) -> Iterator[Callable[[], str]]:
    """Run a process that serves metrics, once it listens; what is yielded reads them."""
    port, log = free_port(), folder / "log"
    environment = {
        "KEHU_DATA_DIR": str(folder),
        "KEHU_MONGO_URI": "mongodb://127.0.0.1:1/",
        "KEHU_AMQP_URI": amqp_uri,
        "KEHU_METRICS_PORT": str(port),
        "PYTHONPATH": f"{ROOT}:{ROOT / 'proto'}",
    }
    argv = (sys.executable, "-W", "ignore", "-m", *arguments)
    process = spawn(Command(argv, clean_environment(environment), ROOT), log)
    try:
        assert wait_until(lambda: listens(port) or process.poll() is not None, 60) and listens(port), tail(log)
        yield lambda: urllib.request.urlopen(f"http://{LOOPBACK}:{port}/metrics", timeout=5).read().decode()
    finally:
        stop(process)


def test_a_worker_tells_how_its_jobs_ended(tmp_path: Path) -> None:
    with scraped(["infra.process", "work", "consent"], tmp_path, "amqp://127.0.0.1:1/") as metrics:
        assert "# TYPE kehu_jobs_total counter" in metrics()


@pytest.mark.parametrize("broker", ["amqp_uri", "away"])
def test_a_consumer_tells_how_its_events_ended_with_and_without_a_broker(
    broker: str, request: pytest.FixtureRequest, tmp_path: Path
) -> None:
    uri = "amqp://127.0.0.1:1/" if broker == "away" else request.getfixturevalue(broker)
    with scraped(["infra.consume", "access"], tmp_path, uri) as metrics:
        assert wait_until((tmp_path / "consume.heartbeat").exists, 30) or broker == "away"
        assert "# TYPE kehu_events_total counter" in metrics()
        assert "# TYPE kehu_events_total counter" in metrics()  # while it consumes too, not once at the start
