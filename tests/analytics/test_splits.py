"""Claims about profiles that were one and are two again: rows follow their source record, scores are those of each."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime, timedelta
from itertools import permutations
from pathlib import Path

import pyarrow as pa
import pytest
from deltalake import DeltaTable, write_deltalake
from kehu.analytics.v1 import analytics_pb2 as pb
from kehu.profiles.v1.events_pb2 import ProfileChanged, ProfileErased, ProfilesMerged, ProfilesUnmerged, SourceLink

from services.analytics.domain.tables import INTERACTIONS
from services.analytics.engine import Engine
from services.analytics.events import AnalyticsConsumer
from services.analytics.feeding import flush
from services.analytics.lake import Lake, arrow_schema, rows_table
from services.analytics.reading import Reader
from services.analytics.scoring import compute_scores
from services.analytics.store import Entry, MemoryInbox
from services.analytics.warehouse import Warehouse
from tests.analytics.test_events import NOON, event, plain, stamp


class Lakeside:
    """Facts and interactions on their way into a lake, and what it answers."""

    def __init__(self, warehouse: Warehouse) -> None:
        self.warehouse = warehouse
        self.inbox = MemoryInbox()
        self.consumer = AnalyticsConsumer(self.inbox, plain)
        self._sent = 0

    def live(self, *profile_ids: str, version: int = 1) -> None:
        for item in profile_ids:
            fact = ProfileChanged(profile_id=item, version=version, event_time=stamp())
            self.consumer.on_profile_changed(event(fact, f"{item}-{version}"))
        flush(self.inbox, self.warehouse)

    def buy(self, profile_id: str, message_id: str, record: str = "", days_ago: int = 0, cents: int = 100) -> None:
        one = pb.Interaction(
            profile=f"profiles/{profile_id}", message_id=message_id, event_type="order_completed", quantity=1,
            amount_cents=cents, event_time=stamp(NOON - timedelta(days=days_ago)),
        )  # fmt: skip
        if record:
            one.source_record.source_record_id = plain("record", f"shop/{record}")
        request = pb.BatchCreateInteractionsRequest(interactions=[one])
        self.inbox.put(Entry(message_id, request.DESCRIPTOR.full_name, request.SerializeToString()))
        flush(self.inbox, self.warehouse)

    def tell(self, *facts: ProfilesMerged | ProfilesUnmerged) -> None:
        for fact in facts:
            self._sent += 1
            is_merge = isinstance(fact, ProfilesMerged)
            handle = self.consumer.on_profiles_merged if is_merge else self.consumer.on_profiles_unmerged
            handle(event(fact, f"e{self._sent}"))
            flush(self.inbox, self.warehouse)

    def rows(self, profile_id: str) -> list[str]:
        """Return the interactions as the profile's page shows them."""
        reader, pinned = Reader(self.warehouse), self.warehouse.pin([])
        found = reader.interactions(reader.survivor(profile_id, pinned), pinned, None, 100)
        return sorted(str(row[0]) for row in found)

    def owners(self) -> dict[str, str]:
        """Return the interactions' profiles as audiences, metrics and scores see them."""
        pinned = self.warehouse.pin([])
        join = "LEFT JOIN aliases a ON a.profile_id = i.profile_id" if pinned.has_aliases else ""
        owner = "coalesce(a.survivor_id, i.profile_id)" if pinned.has_aliases else "i.profile_id"
        tables = ["interactions", *(["aliases"] if pinned.has_aliases else [])]
        found = self.warehouse.rows(pinned, tables, f"SELECT i.message_id, {owner} FROM interactions i {join}", {})
        return {str(name): str(profile) for name, profile in found}

    def score(self, profile_id: str) -> tuple[object, ...] | None:
        """Return recency in days, baskets and cents."""
        found = Reader(self.warehouse).scores(profile_id)
        return found[5:8] if found else None


@pytest.fixture
def side(warehouse: Warehouse) -> Lakeside:
    return Lakeside(warehouse)


def merged(survivor: str, gone: str, version: int) -> ProfilesMerged:
    return ProfilesMerged(
        profile_id=survivor, merged_profile_id=gone, merged_profile_version=version, event_time=stamp()
    )


def unmerged(old: str, out: str, version: int, *records: str, at: datetime = NOON) -> ProfilesUnmerged:
    links = [SourceLink(source_id="shop", source_record_id=item) for item in records]
    return ProfilesUnmerged(profile_id=old, unmerged_profile_id=out, version=version, links=links, event_time=stamp(at))


@pytest.mark.parametrize("order", list(permutations(range(2))))
def test_after_a_split_each_row_is_its_records_or_the_ids_it_was_recorded_under(side: Lakeside, order) -> None:
    side.live("a", "b")
    side.buy("a", "before-a", "1")
    side.buy("b", "before-b", "7")
    facts: Sequence[ProfilesMerged | ProfilesUnmerged] = (merged("a", "b", 2), unmerged("a", "b", 4, "7"))
    side.tell(facts[order[0]])
    side.buy("a", "while-of-record", "7")
    side.buy("b", "while-under-former-id")
    side.buy("a", "while-under-living-id")
    side.tell(facts[order[1]], *facts)
    side.buy("a", "late-of-record", "7")  # an import that had asked for the record's profile before the split

    of_b = ["before-b", "late-of-record", "while-of-record", "while-under-former-id"]
    assert side.rows("a") == ["before-a", "while-under-living-id"]
    assert side.rows("b") == of_b
    assert sorted(name for name, owner in side.owners().items() if owner == "b") == of_b

    side.tell(merged("a", "b", 5))
    assert side.rows("b") == side.rows("a") == sorted([*of_b, "before-a", "while-under-living-id"])
    assert set(side.owners().values()) == {"a"}


def test_a_record_split_out_again_and_again_takes_its_rows_along(side: Lakeside) -> None:
    side.live("a", "n1", "n2")
    side.buy("a", "m1", "7")
    side.buy("a", "m2", "8")
    hour = timedelta(hours=1)
    side.tell(unmerged("a", "n1", 1, "7", at=NOON + hour), merged("a", "n1", 2))
    side.tell(unmerged("a", "n2", 1, "7", at=NOON + 2 * hour), unmerged("a", "n1", 1, "7", at=NOON + hour))

    assert (side.rows("a"), side.rows("n1"), side.rows("n2")) == (["m2"], ["m2"], ["m1"])


def test_merges_and_splits_score_both_sides_anew_as_if_the_computation_had_known(side: Lakeside) -> None:
    side.live("a", "b", *(f"p{n}" for n in range(8)))
    for number in range(8):
        side.buy(f"p{number}", f"m{number}", days_ago=10 * number, cents=100 * number)
    side.buy("a", "ma", "1", days_ago=5, cents=300)
    side.buy("b", "mb", "7", days_ago=50, cents=700)
    compute_scores(side.warehouse)
    apart = side.score("a"), side.score("b")
    assert apart == ((5, 1, 300), (50, 1, 700))

    side.tell(merged("a", "b", 2))
    assert (side.score("a"), side.score("b")) == ((5, 2, 1000), None)
    side.buy("a", "mc", "7", days_ago=20, cents=50)
    side.tell(unmerged("a", "b", 4, "7"))
    assert (side.score("a"), side.score("b")) == ((5, 1, 300), (20, 2, 750))

    kept = side.score("a"), side.score("b")
    compute_scores(side.warehouse)
    assert (side.score("a"), side.score("b")) == kept, "the next computation says the same"


def test_a_lake_of_an_earlier_release_gets_the_columns_it_lacks(tmp_path: Path) -> None:
    old = pa.schema([field for field in arrow_schema(INTERACTIONS) if field.name != "record"])
    row = {name: None for name in old.names} | {
        "message_id": "old", "profile_id": "a", "event_type": "order_completed", "event_time": NOON,
        "amount_cents": 1, "quantity": 1, "month": "2025-03",
    }  # fmt: skip
    folder = str(tmp_path / "lake" / INTERACTIONS.name)
    DeltaTable.create(folder, schema=old, partition_by=["month"])
    write_deltalake(folder, pa.Table.from_pylist([row], schema=old), mode="append")

    lake = Lake(tmp_path / "lake")
    lake.create()
    lake.create()
    engine = Engine(tmp_path / "spill")
    side = Lakeside(Warehouse(lake, engine))
    assert side.rows("a") == ["old"]
    side.buy("a", "new", "7")
    assert side.warehouse.add(INTERACTIONS, rows_table(INTERACTIONS, [{**row, "record": None}])) == 0
    side.tell(unmerged("a", "b", 1, "7"))
    assert (side.rows("a"), side.rows("b")) == (["old"], ["new"])
    for number in range(13):
        side.buy("a", f"more{number}")
    assert side.warehouse.tidy() >= 1
    assert not any(file.is_older for file in lake.snapshot(INTERACTIONS).files)
    assert (side.rows("a")[-1], side.rows("b")) == ("old", ["new"])
    engine.close()


@pytest.mark.parametrize(("erased", "left"), [("a", {"while-of-7": "b"}), ("b", {"while-of-1": "a", "of-id": "a"})])
def test_an_erasure_takes_the_rows_of_the_records_a_person_has_now_and_no_others(side: Lakeside, erased, left) -> None:
    side.live("a", "b")
    side.tell(merged("a", "b", 2))
    side.buy("a", "while-of-1", "1")
    side.buy("a", "while-of-7", "7")
    side.buy("a", "of-id")
    side.tell(unmerged("a", "b", 4, "7"))
    compute_scores(side.warehouse)
    derived = side.warehouse.lake.root / "_derived"
    assert list(derived.iterdir()) != []
    told = ProfileErased(profile_id=erased, version=9, names=[erased], event_time=stamp())
    side.consumer.on_profile_erased(event(told, "erased"))
    flush(side.inbox, side.warehouse)

    assert list(derived.iterdir()) == []
    assert side.owners() == left
    assert (side.rows(erased), side.score(erased)) == ([], None)
