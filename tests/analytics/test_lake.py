"""The lake adds every row exactly once, whatever is repeated, raced or late."""

from __future__ import annotations

import threading
from dataclasses import replace
from datetime import UTC, datetime, timedelta

import pyarrow as pa
import pytest
from deltalake import DeltaTable, write_deltalake

from services.analytics import warehouse as folding
from services.analytics.domain.tables import ALIASES, INTERACTIONS, PROFILES, SCORES, TABLES
from services.analytics.engine import Engine
from services.analytics.lake import Lake, WriterRaced, arrow_schema, rows_table
from services.analytics.warehouse import FILES_PER_PARTITION, RECENT_FILES, Warehouse

NOON = datetime(2025, 3, 15, 12, tzinfo=UTC)


def interactions(*ids: str, profile: str = "a", at: datetime = NOON, cents: int = 100) -> pa.Table:
    return rows_table(
        INTERACTIONS,
        [
            {
                "message_id": name,
                "profile_id": profile,
                "event_type": "order_completed",
                "event_time": at,
                "amount_cents": cents,
                "month": at.strftime("%Y-%m"),
            }
            for name in ids
        ],
    )


def profile(profile_id: str, version: int, tier: str = "gold") -> pa.Table:
    row = {"profile_id": profile_id, "version": version, "deleted": False, "tier": tier, "part": "recent"}
    return rows_table(PROFILES, [row])


def alias(old: str, survivor: str | None, version: int = 2) -> pa.Table:
    row = {"profile_id": old, "survivor_id": survivor, "event_time": NOON, "version": version, "part": "recent"}
    return rows_table(ALIASES, [row])


def message_ids(warehouse: Warehouse) -> list[str]:
    pinned = warehouse.pin([])
    body = "SELECT message_id FROM interactions ORDER BY message_id"
    return [str(row[0]) for row in warehouse.rows(pinned, ["interactions"], body, {})]


def tiers(warehouse: Warehouse) -> dict[str, str]:
    rows = warehouse.rows(warehouse.pin([]), ["profiles"], "SELECT profile_id, tier FROM profiles", {})
    return {str(name): str(tier) for name, tier in rows}


def test_a_message_sent_again_changes_nothing(warehouse: Warehouse) -> None:
    first = warehouse.add(INTERACTIONS, interactions("m1", "m2", "m2"))
    again = warehouse.add(INTERACTIONS, interactions("m2", "m3"))

    assert (first, again) == (2, 1)
    assert message_ids(warehouse) == ["m1", "m2", "m3"]


def test_an_older_state_after_a_newer_one_changes_nothing(warehouse: Warehouse) -> None:
    warehouse.add(PROFILES, profile("a", 5, "gold"))

    assert warehouse.add(PROFILES, profile("a", 4, "silver")) == 0
    assert warehouse.add(PROFILES, profile("a", 5, "silver")) == 0
    assert tiers(warehouse) == {"a": "gold"}


def test_many_small_files_of_recent_states_become_one(warehouse: Warehouse) -> None:
    warehouse.add(PROFILES, profile("z", 1))
    warehouse._rewrite(warehouse.lake.snapshot(PROFILES), "base")
    for version in range(1, RECENT_FILES + 2):
        warehouse.add(PROFILES, profile("a", version, f"tier{version}"))

    assert warehouse.tidy() == 1
    files = sorted((file.partition, file.rows) for file in warehouse.lake.snapshot(PROFILES).files)
    assert files == [("base", 1), ("recent", 1)]
    assert tiers(warehouse) == {"a": f"tier{RECENT_FILES + 1}", "z": "gold"}


@pytest.mark.parametrize("partition", ["base", "recent"])
def test_of_two_tidiers_from_one_snapshot_only_the_first_writes(warehouse: Warehouse, partition: str) -> None:
    warehouse.add(PROFILES, profile("a", 1))
    warehouse.add(PROFILES, profile("b", 1))
    old = warehouse.lake.snapshot(PROFILES)
    warehouse._rewrite(old, partition)

    with pytest.raises(WriterRaced):
        warehouse._rewrite(old, partition)
    assert warehouse.lake.snapshot(PROFILES).rows == 2


def test_states_added_while_the_base_is_written_stay(warehouse: Warehouse) -> None:
    warehouse.add(PROFILES, profile("a", 1))
    old = warehouse.lake.snapshot(PROFILES)
    warehouse.add(PROFILES, profile("a", 2, "silver"))
    warehouse.add(PROFILES, profile("b", 1))
    warehouse._rewrite(old, "base")

    assert tiers(warehouse) == {"a": "silver", "b": "gold"}


def test_an_older_state_stays_out_after_the_newer_one_was_folded_into_the_base(
    warehouse: Warehouse, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(folding, "RECENT_ROWS", 3)
    for version in range(1, 6):
        warehouse.add(PROFILES, profile("a", version, f"tier{version}"))
    warehouse.add(PROFILES, profile("b", 1, "silver"))

    assert warehouse.tidy() == 1
    warehouse.add(PROFILES, profile("a", 4, "late"))
    warehouse.add(PROFILES, profile("b", 2, "gold"))

    assert tiers(warehouse) == {"a": "tier5", "b": "gold"}
    assert {"base", "recent"} == {file.partition for file in warehouse.lake.snapshot(PROFILES).files}


def test_of_two_writers_from_one_snapshot_only_the_first_appends(warehouse: Warehouse) -> None:
    snapshot = warehouse.lake.snapshot(INTERACTIONS)
    warehouse.lake.append(snapshot, interactions("m1"))

    with pytest.raises(WriterRaced):
        warehouse.lake.append(snapshot, interactions("m1"))
    assert message_ids(warehouse) == ["m1"]


def test_writers_that_race_with_the_same_messages_add_each_once(warehouse: Warehouse) -> None:
    names = [f"m{number}" for number in range(40)]
    added: list[int] = []

    def write(offset: int) -> None:
        for number in range(0, 40, 10):
            start = (number + offset) % 40
            added.append(warehouse.add(INTERACTIONS, interactions(*names[start : start + 10])))

    threads = [threading.Thread(target=write, args=(offset,)) for offset in (0, 10, 20)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()

    assert sorted(names) == message_ids(warehouse)
    assert sum(added) == 40


def test_tidying_keeps_every_row_and_leaves_one_file_a_month(warehouse: Warehouse) -> None:
    for number in range(FILES_PER_PARTITION + 1):
        warehouse.add(INTERACTIONS, interactions(f"m{number}", profile=f"p{number % 3}"))
    warehouse.add(INTERACTIONS, interactions("april", at=NOON + timedelta(days=30)))
    before = message_ids(warehouse)

    assert warehouse.tidy() == 1
    assert before == message_ids(warehouse)
    assert len(warehouse.lake.snapshot(INTERACTIONS).files) == 2
    assert warehouse.add(INTERACTIONS, interactions("m0")) == 0


def test_a_rewrite_that_missed_a_row_is_refused(warehouse: Warehouse) -> None:
    warehouse.add(INTERACTIONS, interactions("m1"))
    old = warehouse.lake.snapshot(INTERACTIONS)
    warehouse.add(INTERACTIONS, interactions("m2"))

    with pytest.raises(WriterRaced):
        warehouse.lake.rewrite(old, interactions("m1").to_reader(), "2025-03")
    assert message_ids(warehouse) == ["m1", "m2"]


def test_aliases_lead_to_the_last_survivor_and_end_with_an_unmerge(warehouse: Warehouse) -> None:
    body = "SELECT profile_id, survivor_id FROM aliases ORDER BY 1"
    warehouse.add(ALIASES, alias("a", "b"))
    warehouse.add(ALIASES, alias("b", "c"))
    merged = warehouse.rows(warehouse.pin([]), ["aliases"], body, {})
    warehouse.add(ALIASES, alias("b", None, 4))
    unmerged = warehouse.rows(warehouse.pin([]), ["aliases"], body, {})

    assert merged == [("a", "c"), ("b", "c")]
    assert unmerged == [("a", "b")]


def test_a_chain_of_merges_leads_to_its_end(warehouse: Warehouse) -> None:
    names = [f"p{number:02d}" for number in range(20)]
    for old, new in zip(names, names[1:], strict=False):
        warehouse.add(ALIASES, alias(old, new))
    pinned = warehouse.pin([])

    assert warehouse.rows(pinned, ["aliases"], "SELECT DISTINCT survivor_id FROM aliases", {}) == [("p19",)]


def test_a_circle_of_aliases_ends(warehouse: Warehouse) -> None:
    warehouse.add(ALIASES, alias("a", "b"))
    warehouse.add(ALIASES, alias("b", "a"))

    assert len(warehouse.rows(warehouse.pin([]), ["aliases"], "SELECT * FROM aliases", {})) == 2


def test_a_pinned_version_does_not_see_later_rows(warehouse: Warehouse) -> None:
    warehouse.add(INTERACTIONS, interactions("m1"))
    versions = warehouse.pin([]).versions
    warehouse.add(INTERACTIONS, interactions("m2"))
    pinned = warehouse.pin([], versions)

    assert warehouse.rows(pinned, ["interactions"], "SELECT count(*) FROM interactions", {}) == [(1,)]


def test_files_outside_the_window_are_not_named(warehouse: Warehouse) -> None:
    warehouse.add(INTERACTIONS, interactions("old", at=NOON - timedelta(days=90)))
    warehouse.add(INTERACTIONS, interactions("new"))
    snapshot = warehouse.lake.snapshot(INTERACTIONS)

    assert len(snapshot.paths(since=NOON - timedelta(days=5))) == 1
    assert len(snapshot.paths()) == 2


def test_the_tables_hold_no_direct_identifier() -> None:
    forbidden = ("name", "phone", "mail", "resident", "address", "document", "source_record")
    columns = [column for table in TABLES.values() for column in table.columns]

    assert [column for column in columns if any(word in column for word in forbidden)] == []


def test_a_row_of_another_schema_is_refused(warehouse: Warehouse) -> None:
    with pytest.raises(pa.ArrowInvalid):
        rows_table(INTERACTIONS, [{"message_id": "m1", "amount_cents": "much"}])


def test_a_lake_of_a_former_release_gets_its_new_columns_and_is_read_and_written_as_before(tmp_path):
    for table in (PROFILES, SCORES):
        former = replace(table, columns={n: k for n, k in table.columns.items() if n not in table.added}, added=())
        DeltaTable.create(
            str(tmp_path / table.name), schema=arrow_schema(former),
            partition_by=[table.partition] if table.partition else None,
        )  # fmt: skip
        sample = {"string": "x", "bool": False, "timestamp": NOON}
        row: dict[str, object] = {name: sample.get(kind, 7) for name, kind in former.columns.items()}
        row |= {"part": "recent"} if table.partition else {}
        write_deltalake(str(tmp_path / table.name), rows_table(former, [row]), mode="append")
    lake = Lake(tmp_path)
    lake.create()
    lake.create()
    warehouse = Warehouse(lake, Engine(tmp_path / "spill"))

    def stages() -> list[tuple[object, ...]]:
        pinned = warehouse.pin([PROFILES])
        return sorted(warehouse.rows(pinned, ["profiles"], "SELECT profile_id, version, stage FROM profiles", {}))

    assert stages() == [("x", 7, None)]
    fresh = {"profile_id": "y", "version": 1, "deleted": False, "event_time": NOON, "stage": "active", "part": "recent"}
    warehouse.add(PROFILES, rows_table(PROFILES, [fresh, {**fresh, "profile_id": "x", "version": 8}]))
    assert stages() == [("x", 8, "active"), ("y", 1, "active")]
    warehouse._rewrite(lake.snapshot(PROFILES), "base")
    assert stages() == [("x", 8, "active"), ("y", 1, "active")]
    pinned = warehouse.pin([SCORES])
    assert warehouse.rows(pinned, ["scores"], "SELECT profile_id, tenure_days FROM scores", {}) == [("x", None)]


def test_the_file_of_a_lost_race_is_deleted_and_no_file_that_a_version_names(warehouse: Warehouse) -> None:
    lake = warehouse.lake
    warehouse.add(INTERACTIONS, interactions("m1", profile="a"))
    base = lake.snapshot(INTERACTIONS)
    warehouse.add(INTERACTIONS, interactions("m2", profile="b"))
    with pytest.raises(WriterRaced):
        lake.append(base, interactions("m3", profile="lost"))
    warehouse._rewrite(lake.snapshot(INTERACTIONS), "2025-03")

    def files_with(text: bytes) -> int:
        return sum(text in path.read_bytes() for path in (lake.root / "interactions").rglob("*.parquet"))

    assert files_with(b"lost") == 1
    assert lake.sweep(INTERACTIONS) == 0, "it may be of somebody who is writing"
    assert lake.sweep(INTERACTIONS, hours=0) == 1
    assert files_with(b"lost") == 0
    assert message_ids(warehouse) == ["m1", "m2"]
    assert [len(lake.snapshot(INTERACTIONS, version).files) for version in (1, 2)] == [1, 2], "older versions are whole"
    assert warehouse.sweep() == 0
