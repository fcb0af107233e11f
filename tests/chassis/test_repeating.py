"""The loop of a process's threads: it goes on whatever a turn does, waits longer after each failure, and ends."""

from __future__ import annotations

import json
import logging
import threading
import time

import pytest

from services.chassis import repeating, telemetry
from services.chassis.logs import JsonFormatter
from services.chassis.repeating import Repeating


class Worker(Repeating):
    """Fails as often as it is told, then counts."""

    def __init__(self, failures: int = 0, wait: float = 0.01, **how: float) -> None:
        super().__init__("worker", **how)
        self.failures, self.wait = failures, wait
        self.turns: list[float] = []
        self.reached = threading.Event()

    def turn(self) -> float:
        self.turns.append(time.monotonic())
        if len(self.turns) <= self.failures:
            raise ValueError("13812345678")
        if len(self.turns) >= self.failures + 3:
            self.reached.set()
        return self.wait


@pytest.fixture
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(repeating, "BACK_OFF_SECONDS", (0.05, 0.1, 0.2))


def test_turns_follow_each_other_until_it_is_stopped() -> None:
    worker = Worker()
    worker.start()
    assert worker.reached.wait(10)
    worker.stop()
    done = len(worker.turns)
    time.sleep(0.1)

    assert len(worker.turns) == done


def test_a_turn_that_fails_is_counted_and_followed_by_longer_waits(
    quick: None, caplog: pytest.LogCaptureFixture
) -> None:
    counted = telemetry.TURNS_FAILED.labels("worker")._value.get()
    worker = Worker(failures=4)
    with caplog.at_level(logging.ERROR):
        worker.start()
        assert worker.reached.wait(10)
        worker.stop()

    waits = [after - before for before, after in zip(worker.turns, worker.turns[1:], strict=False)]
    assert all(wait >= least for wait, least in zip(waits, (0.05, 0.1, 0.2, 0.2), strict=False))
    assert telemetry.TURNS_FAILED.labels("worker")._value.get() == counted + 4
    written = [JsonFormatter("test").format(record) for record in caplog.records if record.name == "kehu.threads"]
    assert [json.loads(line)["failures"] for line in written] == [1, 2, 3, 4]
    assert not any("13812345678" in line for line in written), "what a record says is in no log"


def test_it_ends_at_once_in_the_middle_of_a_wait() -> None:
    worker = Worker(wait=60)
    worker.start()
    began = time.monotonic()
    worker.stop()

    assert time.monotonic() - began < 2 and len(worker.turns) <= 1


def test_it_may_be_stopped_before_it_began_or_waits_first() -> None:
    Worker().stop()
    late = Worker(first_wait=60)
    late.start()
    late.stop()

    assert late.turns == []
