"""Claims about what the lake keeps no longer: months of interactions, and states that newer ones replaced."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path

import grpc
import pytest
from deltalake import DeltaTable
from kehu.analytics.v1 import analytics_pb2_grpc, retention_pb2
from kehu.profiles.v1.events_pb2 import ProfileChanged

from services.analytics import warehouse as folding
from services.analytics.domain.errors import StalePageToken
from services.analytics.domain.tables import INTERACTIONS, PROFILES
from services.analytics.expiring import Month, delete_months, months
from services.analytics.lake import Lake
from services.analytics.warehouse import Warehouse
from services.chassis.errors import Unavailable
from services.profiles.ageing.transactions import Month as Told
from services.profiles.ageing.transactions import RemoteInteractions
from tests.analytics.test_api import World, world
from tests.analytics.test_events import event, stamp
from tests.analytics.test_splits import Lakeside, merged, side, unmerged

__all__ = ["side", "world"]


def held_bytes(warehouse: Warehouse, table: str = INTERACTIONS.name) -> bytes:
    """Return all files of a table."""
    return b"".join(path.read_bytes() for path in sorted((warehouse.lake.root / table).rglob("*.parquet")))


@pytest.fixture
def shop(side: Lakeside) -> Iterator[Lakeside]:
    """Three months of two people: March, February and January of 2025."""
    side.live("a", "b")
    for days, name in ((0, "march"), (30, "february"), (60, "january")):
        side.buy("a", f"a-{name}", days_ago=days)
        side.buy("b", f"b-{name}", days_ago=days)
    yield side


def test_a_month_is_gone_from_every_answer_and_from_every_file_and_the_others_stay(shop: Lakeside) -> None:
    assert months(shop.warehouse, []) == [Month(f"2025-0{n}", 2, 0) for n in (1, 2, 3)]
    assert b"a-january" in held_bytes(shop.warehouse)

    for _ in range(2):
        delete_months(shop.warehouse, ["2025-01", "1999-01"], [])

        assert months(shop.warehouse, []) == [Month("2025-02", 2, 0), Month("2025-03", 2, 0)]
        assert shop.rows("a") == ["a-february", "a-march"]
        assert b"january" not in held_bytes(shop.warehouse)
        assert b"b-february" in held_bytes(shop.warehouse)


def test_kept_people_are_counted_apart_and_keep_their_rows(shop: Lakeside) -> None:
    assert months(shop.warehouse, ["b", "nobody"]) == [Month(f"2025-0{n}", 2, 1) for n in (1, 2, 3)]

    delete_months(shop.warehouse, ["2025-01", "2025-02"], ["b", "nobody"])

    assert shop.rows("a") == ["a-march"]
    assert shop.rows("b") == ["b-february", "b-january", "b-march"]
    assert months(shop.warehouse, ["b"]) == [Month("2025-01", 1, 1), Month("2025-02", 1, 1), Month("2025-03", 2, 1)]
    assert b"a-january" not in held_bytes(shop.warehouse)


def test_a_row_whose_record_a_split_gave_to_a_kept_person_stays_and_so_does_one_told_of_them(side: Lakeside) -> None:
    side.live("a", "b")
    side.buy("a", "of-a", "1")
    side.tell(merged("a", "b", 2))
    side.buy("a", "of-record-of-b", "7")
    side.tell(unmerged("a", "b", 4, "7"))
    assert months(side.warehouse, ["b"]) == [Month("2025-03", 2, 1)]

    delete_months(side.warehouse, ["2025-03"], ["b"])

    assert (side.rows("a"), side.rows("b")) == ([], ["of-record-of-b"])
    assert months(side.warehouse, ["a"]) == [Month("2025-03", 1, 1)]


def test_who_reads_while_files_are_deleted_is_told_to_try_again_and_then_reads_what_is_left(shop: Lakeside) -> None:
    warehouse = shop.warehouse
    pinned = warehouse.pin([])
    delete_months(warehouse, ["2025-01"], [])

    with pytest.raises(Unavailable, match="try again"):
        warehouse.rows(pinned, ["interactions"], "SELECT count(*) FROM interactions", {})
    with pytest.raises(StalePageToken):
        warehouse.pin([], pinned.versions)
    assert warehouse.rows(warehouse.pin([]), ["interactions"], "SELECT count(*) FROM interactions", {}) == [(4,)]


def test_killed_between_the_rows_and_the_files_a_repeat_takes_the_files(
    shop: Lakeside, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Died(BaseException):
        """The process is gone."""

    def die(*_: object, **__: object) -> None:
        raise Died

    with monkeypatch.context() as patch, pytest.raises(Died):
        patch.setattr(Lake, "clean", die)
        delete_months(shop.warehouse, ["2025-01"], [])
    assert b"a-january" in held_bytes(shop.warehouse)
    delete_months(shop.warehouse, ["2025-01"], [])
    assert b"a-january" not in held_bytes(shop.warehouse)


def test_profiles_lists_and_deletes_months_over_the_wire(world: World) -> None:
    side = Lakeside(world.warehouse)
    side.live("a", "b")
    side.buy("a", "m1")
    side.buy("b", "m2")
    side.buy("b", "m3", days_ago=60)
    stub = world.harness.stub(analytics_pb2_grpc.AnalyticsServiceStub, caller="", peer="profiles")
    remote = RemoteInteractions(stub)

    assert remote.months([]) == [Told("2025-01", 1, 0), Told("2025-03", 2, 0)]
    assert remote.months(["a"]) == [Told("2025-01", 1, 0), Told("2025-03", 2, 1)]
    remote.delete(["2025-03", "2025-01"], ["a"])
    assert remote.months(["a"]) == [Told("2025-03", 1, 1)]
    assert (side.rows("a"), side.rows("b")) == (["m1"], [])
    assert [item.end.isoformat() for item in (Told("2025-03", 1, 1), Told("2024-12", 1, 1))] == [
        "2025-04-01T00:00:00+00:00", "2025-01-01T00:00:00+00:00"
    ]  # fmt: skip
    for other, code in ((stub, "INVALID_ARGUMENT"), (world.stub, "PERMISSION_DENIED")):
        with pytest.raises(grpc.RpcError) as refused:
            other.DeleteInteractionMonths(retention_pb2.DeleteInteractionMonthsRequest(months=["all"]), timeout=10)
        assert refused.value.code().name == code


def test_what_a_profile_was_is_out_of_the_lake_a_day_and_a_week_later(
    side: Lakeside, monkeypatch: pytest.MonkeyPatch
) -> None:
    def tell(version: int, district: str) -> None:
        fact = ProfileChanged(profile_id="a", version=version, event_time=stamp(), district_code=district)
        side.consumer.on_profile_changed(event(fact, f"a-{version}"))
        side.live("b", version=version)  # feeds the lake

    def later(days: float) -> None:
        """Let the files be so much older, and the lake be tidied."""
        monkeypatch.setattr(folding, "REPLACED_FOR", timedelta(days=1 - days))
        warehouse.tidy()

    warehouse = side.warehouse
    tell(1, "330106")
    later(1.1)
    tell(2, "")
    assert b"330106" in held_bytes(warehouse, PROFILES.name)
    later(0.5)
    assert [file.partition for file in warehouse.lake.snapshot(PROFILES).files].count("recent") == 1
    later(1.1)

    assert {file.partition for file in warehouse.lake.snapshot(PROFILES).files} == {"base"}
    (named,) = warehouse.rows(warehouse.pin([]), ["profiles"], "SELECT district_code FROM profiles WHERE version = 2"
                              " AND profile_id = 'a'", {})  # fmt: skip
    assert named == (None,)
    now = b"".join(Path(file.path).read_bytes() for file in warehouse.lake.snapshot(PROFILES).files)
    assert b"330106" not in now

    table = DeltaTable(str(warehouse.lake.root / PROFILES.name))
    table.alter.set_table_properties({"delta.deletedFileRetentionDuration": "interval 0 days"})
    monkeypatch.setattr(folding, "REPLACED_FOR", timedelta(0))
    warehouse.tidy()  # nothing is written any more: it is only cleaned
    assert b"330106" not in held_bytes(warehouse, PROFILES.name)


def test_full_sized_files_are_left_alone_however_many(side: Lakeside, monkeypatch: pytest.MonkeyPatch) -> None:
    side.live("a")
    for number in range(folding.FILES_PER_PARTITION + 1):
        side.buy("a", f"m{number}")
    smallest = min(file.size_bytes for file in side.warehouse.lake.snapshot(INTERACTIONS).files)
    monkeypatch.setattr(folding, "SMALL_FILE_BYTES", smallest)
    assert side.warehouse.tidy() == 0
    monkeypatch.setattr(folding, "SMALL_FILE_BYTES", 10**6)
    assert side.warehouse.tidy() == 1


def test_a_table_is_cleaned_once_a_day(side: Lakeside, monkeypatch: pytest.MonkeyPatch) -> None:
    cleaned: list[str] = []
    monkeypatch.setattr(Lake, "clean", lambda _, table, **__: cleaned.append(table.name))
    side.warehouse.tidy()
    once = list(cleaned)
    side.warehouse.tidy()
    assert cleaned == once and PROFILES.name in once
    side.warehouse._cleaned[PROFILES.name] = datetime.now(UTC) - timedelta(days=1, seconds=1)
    side.warehouse.tidy()
    assert cleaned == [*once, PROFILES.name]
