"""The audit spool outlives its process, and the shipper loses and repeats nothing that matters."""

from __future__ import annotations

import subprocess
import sys
import threading
import time
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path

import pytest

from services.chassis.audit import AuditEntry, AuditSpool, Batch, Shipper
from services.chassis.errors import Invalid

WRITER = """
import sys
from pathlib import Path
from services.chassis.audit import AuditEntry, AuditSpool
spool = AuditSpool(Path(sys.argv[1]))
number = 0
while True:
    spool.append(AuditEntry.of(service="profiles", subject="user:a", target=str(number)))
    print(number, flush=True)  # the reply is released
    number += 1
"""


def entry(number: int = 0) -> AuditEntry:
    return AuditEntry.of(service="profiles", subject="user:a", action="read", target=str(number), outcome="allowed")


def targets(batches: list[Batch]) -> list[int]:
    return [int(entry.target) for batch in batches for entry in batch.entries]


@pytest.mark.parametrize("round_", range(3))
def test_what_was_answered_before_a_kill_is_in_the_spool(tmp_path: Path, round_: int) -> None:
    process = subprocess.Popen([sys.executable, "-c", WRITER, str(tmp_path)], stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None
    for _ in range(200 + 300 * round_):
        last = int(process.stdout.readline())
    process.kill()
    answered = [int(line) for line in process.stdout.read().split("\n")[:-1]]
    process.wait()
    last = max([last, *answered])
    shipped: list[Batch] = []

    Shipper(AuditSpool(tmp_path), shipped.append).ship_once()

    assert targets(shipped)[: last + 1] == list(range(last + 1))


def test_entries_arrive_in_order_and_leave_the_spool(tmp_path: Path) -> None:
    spool, shipped = AuditSpool(tmp_path), []
    for number in range(1200):
        spool.append(entry(number))

    assert Shipper(spool, shipped.append).ship_once()
    assert targets(shipped) == list(range(1200))
    assert [len(batch.entries) for batch in shipped] == [500, 500, 200]
    assert spool.pending() == 0


def test_access_down_keeps_everything_in_order(tmp_path: Path) -> None:
    spool, shipped, down = AuditSpool(tmp_path), [], [True]

    def write(batch: Batch) -> None:
        if down[0]:
            raise ConnectionError
        shipped.append(batch)

    shipper = Shipper(spool, write)
    for number in range(3):
        spool.append(entry(number))
        assert not shipper.ship_once()
    down[0] = False

    assert shipper.ship_once()
    assert targets(shipped) == [0, 1, 2]


def test_a_batch_sent_again_carries_the_same_id_and_entries(tmp_path: Path) -> None:
    """The reply of the first sending was lost, then the process died."""
    spool, seen = AuditSpool(tmp_path), []

    def lose_the_reply(batch: Batch) -> None:
        seen.append(batch)
        raise TimeoutError

    spool.append(entry())
    Shipper(spool, lose_the_reply).ship_once()
    spool.close()
    Shipper(AuditSpool(tmp_path), seen.append).ship_once()

    assert seen[0] == seen[1]


def test_two_spools_never_share_a_batch_id(tmp_path: Path) -> None:
    seen: list[Batch] = []
    for name in ("one", "two"):
        spool = AuditSpool(tmp_path / name)
        spool.append(entry())
        Shipper(spool, seen.append).ship_once()

    assert len({batch.batch_id for batch in seen}) == 2


def test_a_refused_segment_is_kept_aside_and_does_not_block_the_next(tmp_path: Path) -> None:
    spool, shipped, refuse = AuditSpool(tmp_path), [], [True]

    def write(batch: Batch) -> None:
        if refuse[0]:
            raise Invalid("no")
        shipped.append(batch)

    shipper = Shipper(spool, write)
    spool.append(entry(1))
    shipper.ship_once()
    refuse[0] = False
    spool.append(entry(2))
    shipper.ship_once()

    assert targets(shipped) == [2]
    assert len(list(tmp_path.glob("*.refused"))) == 1


def test_a_torn_last_line_is_left_out(tmp_path: Path) -> None:
    spool, shipped = AuditSpool(tmp_path), []
    spool.append(entry(1))
    spool.close()
    newest = max(tmp_path.glob("*.jsonl"))
    newest.write_bytes(newest.read_bytes() + b'{"service":"prof')

    Shipper(AuditSpool(tmp_path), shipped.append).ship_once()

    assert targets(shipped) == [1]


def test_a_second_process_cannot_take_the_directory(tmp_path: Path) -> None:
    spool = AuditSpool(tmp_path)

    with pytest.raises(RuntimeError, match="in use"):
        AuditSpool(tmp_path)
    spool.close()
    AuditSpool(tmp_path).close()


def test_many_threads_write_whole_lines_while_the_shipper_ships(tmp_path: Path) -> None:
    spool, shipped = AuditSpool(tmp_path), []
    shipper = Shipper(spool, shipped.append, interval_seconds=0.01)
    shipper.start()

    def write(first: int) -> None:
        for number in range(first, first + 1000):
            spool.append(entry(number))

    threads = [threading.Thread(target=write, args=(1000 * n,)) for n in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    shipper.stop()

    assert sorted(targets(shipped)) == list(range(8000))


def test_long_values_are_cut_rather_than_lost() -> None:
    assert len(AuditEntry.of(target="x" * 1000).target) == 256


def test_an_entry_says_when_in_utc() -> None:
    stamped = AuditEntry.of(now=datetime(2026, 11, 21, 8, 0, tzinfo=UTC))

    assert stamped.time == "2026-11-21T08:00:00.000000+00:00"
    assert replace(stamped, entry_id="") == replace(
        AuditEntry.of(now=datetime(2026, 11, 21, 8, tzinfo=UTC)), entry_id=""
    )


def test_appending_costs_microseconds(tmp_path: Path) -> None:
    spool, one, best = AuditSpool(tmp_path), entry(), 1.0
    for _ in range(5):
        started = time.perf_counter()
        for _ in range(1000):
            spool.append(one)
        best = min(best, (time.perf_counter() - started) / 1000)

    assert best < 100e-6  # 3 to 10 µs on a quiet machine
