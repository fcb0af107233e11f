"""The merges of an import are written together: every profile, record and fact ends as by one merge after another."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from services.profiles.merging import Merger
from services.profiles.store import MemoryStore, MongoStore, Store
from tests.profiles.test_store import mongo_store
from tests.profiles.test_undo import Dies, World, dying_store

__all__ = ["mongo_store"]
PEOPLE = 12
WRITES = 3  # of pairs that are merged together


def grouped(ids: Sequence[str]) -> list[tuple[str, ...]]:
    """Return pairs, one of which shares a profile with another, three that are one, and a pair of former ids."""
    return [(ids[0], ids[1]), (ids[2], ids[3]), (ids[1], ids[4]), (ids[5], ids[6], ids[7]), (ids[9], ids[10])]


def world_of(keys_dir: Path, store: Store | None = None) -> tuple[World, list[str], list[tuple[str, ...]]]:
    """Return a world with people of one to three records, two of them one already, their ids, and what to merge."""
    world = World(keys_dir, store)
    ids = world.found(PEOPLE, [1 + number % 3 for number in range(PEOPLE)])
    world.merger.merge([ids[8], ids[9]])
    return world, ids, grouped(ids)


def ends(world: World, ids: Sequence[str]) -> list[object]:
    """Return what is stored behind each id: whose it is, its version, its names, and all that is believed of it."""
    stored = world.store.profiles(ids)
    return [
        (item.merged_into, item.version, item.is_handing_over, item.aliases, item.record_keys, world.state(key))
        for key in ids
        for item in (stored[key],)
    ]


def told(world: World) -> list[tuple[str, str, int]]:
    """Return the facts of each profile in their order."""
    assert isinstance(world.store, MemoryStore)
    return sorted((fact.subject, type(fact.message).__name__, fact.version) for fact in world.store.facts)


def test_merges_written_together_end_and_tell_as_one_after_another(tmp_path: Path) -> None:
    one, ids, groups = world_of(tmp_path)
    for group in groups:
        one.merger.merge(group)
    other, same_ids, _ = world_of(tmp_path)
    assert ids == same_ids

    other.merger.merge_all(groups)

    assert ends(one, ids) == ends(other, ids)
    assert told(one) == told(other)
    assert other.merger.settle_abandoned(datetime.now(UTC) + timedelta(minutes=1)) == 0


def test_merges_written_together_end_so_on_the_real_database(mongo_store: MongoStore, tmp_path: Path) -> None:
    one, ids, groups = world_of(tmp_path)
    for group in groups:
        one.merger.merge(group)
    other, _, _ = world_of(tmp_path, mongo_store)

    other.merger.merge_all(groups)

    assert ends(one, ids) == ends(other, ids)
    assert not mongo_store.handing_over()


@pytest.mark.parametrize("writes", range(WRITES))
@pytest.mark.parametrize("is_repeated", [True, False], ids=["repeated", "settled"])
def test_a_process_that_dies_between_the_steps_leaves_what_others_finish(
    tmp_path: Path, writes: int, is_repeated: bool
) -> None:
    one, ids, _ = world_of(tmp_path)
    pairs = [(ids[0], ids[1]), (ids[2], ids[3]), (ids[5], ids[6])]
    one.merger.merge_all(pairs)
    other, _, _ = world_of(tmp_path)
    dying = Merger(dying_store(other, writes), other.service.vault, other.service.tools.dictionary)
    with pytest.raises(Dies):
        dying.merge_all(pairs)

    other.merger.settle_abandoned(datetime.now(UTC) + timedelta(minutes=1))
    if is_repeated or not writes:
        other.merger.merge_all(pairs)

    assert ends(one, ids) == ends(other, ids)


@pytest.mark.parametrize("step", range(WRITES))
def test_a_pair_that_others_change_meanwhile_is_merged_all_the_same(tmp_path: Path, step: int) -> None:
    one, ids, _ = world_of(tmp_path)
    pairs = [(ids[0], ids[1]), (ids[2], ids[3]), (ids[5], ids[6])]
    one.merger.merge_all(pairs)
    other, _, _ = world_of(tmp_path)
    store, seen = other.store, []

    class Busy:
        def __getattr__(self, name: str) -> object:
            return getattr(store, name)

        def write_profiles(self, changes: object) -> list[str]:
            """Let somebody else write both profiles of the first pair just before the n-th write."""
            seen.append(changes)
            if len(seen) == step + 1:
                store.write_profiles([(item, []) for item in store.profiles(ids[:2]).values()])
            return store.write_profiles(changes)  # type: ignore[arg-type]

    merger = Merger(Busy(), other.service.vault, other.service.tools.dictionary)  # type: ignore[arg-type]
    merger.merge_all(pairs)

    assert [other.state(item) for item in ids] == [one.state(item) for item in ids]
    assert {item.merged_into for item in store.profiles(ids[:4]).values()} == {"", ids[0], ids[2]}
    assert not store.handing_over()
    assert len(seen) > WRITES


def test_people_who_were_erased_meanwhile_hold_up_no_other_merge(tmp_path: Path) -> None:
    world = World(tmp_path)
    ids = world.found(2, [1, 1])

    world.merger.merge_all([("erased", "erased too"), ("erased", "as well", "and this"), (ids[0], ids[1])])

    assert world.store.profiles(ids)[ids[1]].merged_into == ids[0]
