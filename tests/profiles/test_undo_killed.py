"""An unmerge on the real database, killed with SIGKILL at each write: repeated, it ends in the same state."""

from __future__ import annotations

import signal
import subprocess
import sys
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from services.chassis import records
from services.chassis.records import new_id
from services.profiles.aliases import resolve_one
from services.profiles.errors import UnmergeImpossible
from services.profiles.store import MongoStore
from tests.profiles.people import person
from tests.profiles.test_store import mongo_store
from tests.profiles.test_undo import World

__all__ = ["mongo_store"]
ROOT = Path(__file__).parents[2]
WRITES = 5  # of this unmerge; the last process is not killed


@pytest.mark.parametrize("is_repeated", [True, False], ids=["repeated", "settled"])
def test_an_unmerge_killed_at_any_write_ends_as_an_undisturbed_one(
    mongo_uri: str, mongo_store: MongoStore, tmp_path: Path, is_repeated: bool
) -> None:
    world = World(tmp_path / "keys", mongo_store)
    deaths = 0
    for writes in range(WRITES):
        first = 3 * writes
        ids = [
            world.take(source, f"{first + at}", fields)
            for at, source, fields in (
                (0, "till", person(first)), (1, "till", person(first + 1)), (2, "till", person(first + 2)),
            )
        ]  # fmt: skip
        apart = [world.state(item) for item in ids]
        world.merger.merge([ids[1], ids[2]])
        world.merger.merge([ids[0], ids[1]])
        leaving = [f"till/{first + 1}", f"till/{first + 2}"]
        argv = [sys.executable, "-m", "tests.profiles.unmerge_process", mongo_uri, records.database("profiles").name,
                str(tmp_path / "keys"), str(writes), ids[0], *leaving]  # fmt: skip
        died = subprocess.run(argv, cwd=ROOT, timeout=60, check=False).returncode
        assert died in (-signal.SIGKILL, 0)
        deaths += died != 0

        if is_repeated:
            try:
                assert world.merger.split(ids[0], leaving, new_id()) == (ids[0], ids[1])
            except UnmergeImpossible:
                assert died == 0, "only what was done already cannot be done again"
        else:
            world.merger.settle_abandoned(datetime.now(UTC) + timedelta(minutes=1))
        if writes or is_repeated:
            assert [resolve_one(mongo_store, item).profile_id for item in ids] == [ids[0], ids[1], ids[1]]
            assert sorted(mongo_store.profiles([ids[1]])[ids[1]].record_keys) == leaving
            assert world.state(ids[0]) == apart[0]
            _, part = world.merger.split(ids[1], leaving[1:], new_id())
            assert [world.state(item) for item in (*ids[:2], part)] == apart
    assert deaths >= 3
    assert not mongo_store.handing_over()
