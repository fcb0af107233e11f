"""Imports and computations: every row counted once, whatever is killed or repeated."""

from __future__ import annotations

import csv
import os
import time
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from functools import partial
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from kehu.analytics.v1 import analytics_pb2 as pb

from services.analytics import files
from services.analytics.domain import rfm
from services.analytics.domain.errors import FileTooLarge, UnreadableInteractionFile
from services.analytics.domain.tables import ALIASES, APART, INTERACTIONS, PROFILES
from services.analytics.files import Uploads
from services.analytics.jobs import COMPUTE, IMPORT, AnalyticsJobs, _scores_response, sweep_uploads
from services.analytics.lake import rows_table
from services.analytics.scoring import Computation
from services.analytics.store import MemoryComputations
from services.analytics.warehouse import Warehouse
from services.chassis.crypto import Sealer
from services.chassis.errors import Unavailable
from services.chassis.jobs import Jobs, MemoryOperations, Owner, Worker
from tests.analytics.test_events import plain

NOON = datetime(2025, 3, 15, 12, tzinfo=UTC)


class Killed(BaseException):
    """Stands for kill -9: nothing after it runs."""


class Profiles:
    """Resolves c1 → p1 for even numbers; may be down."""

    def __init__(self) -> None:
        self.asked: list[int] = []
        self.down = 0

    def __call__(self, source_id: str, source_record_ids: Sequence[str]) -> Mapping[str, str]:
        if self.down:
            self.down -= 1
            raise Unavailable("down")
        self.asked.append(len(source_record_ids))
        return {name: f"p{name[1:]}" for name in source_record_ids if int(name[1:]) % 2 == 0}


class Desk:
    """Starts jobs and runs them to their end."""

    def __init__(self, warehouse: Warehouse, folder: Path) -> None:
        self.warehouse = warehouse
        self.uploads = Uploads(folder / "uploads", Sealer("analytics", folder / "keys"))
        self.profiles = Profiles()
        self.computations = MemoryComputations()
        self.operations = MemoryOperations()
        self.jobs = Jobs("analytics", self.operations)
        self.handlers = AnalyticsJobs(warehouse, self.uploads, self.profiles, self.computations, plain)

    def start(self, kind: str, args: Mapping[str, object]) -> str:
        operation = self.jobs.start(kind, args, pb.ImportInteractionsMetadata(), Owner("user:x", "analytics"))
        return operation.name

    def upload(self, path: Path, name: str = "up", **header: str) -> str:
        upload = self.uploads.receive(name, iter([path.read_bytes()]))
        packed = pb.ImportInteractionsHeader(source_id="till", file_name=path.name, **header)  # type: ignore[arg-type]
        args = {"upload": name, "sha256": upload.sha256, "header": packed.SerializeToString().hex()}
        return self.start(IMPORT, args)

    def run(self) -> None:
        handlers = {IMPORT: self.handlers.import_interactions, COMPUTE: self.handlers.compute_scores}
        Worker("analytics", handlers, self.operations, threads=0).run_one()

    def again(self, name: str) -> None:
        """Let the lease of a killed worker end."""
        document = self.operations.get(name)
        assert document is not None
        self.operations.update(name, str(document["lease"]), {"wake_at": datetime.now(UTC)})

    def result(self, name: str) -> pb.ImportInteractionsResponse:
        operation = self.jobs.get(name, "analytics")
        assert operation.done and not operation.HasField("error"), operation
        response = pb.ImportInteractionsResponse()
        assert operation.response.Unpack(response)
        return response

    def count(self, sql: str = "count(*)", table: str = "interactions") -> object:
        tables = {"interactions": INTERACTIONS, "interactions_apart": APART}
        pinned = self.warehouse.pin([tables[table]])
        return self.warehouse.rows(pinned, [table], f"SELECT {sql} FROM {table}", {})[0][0]


@pytest.fixture
def desk(warehouse: Warehouse, tmp_path: Path) -> Desk:
    return Desk(warehouse, tmp_path)


def lines(tmp_path: Path, rows: Sequence[Sequence[object]], header: Sequence[str] | None = None) -> Path:
    path = tmp_path / "lines.csv"
    with path.open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file)
        writer.writerow(header or ("source_record_id", "message_id", "event_time", "amount", "basket_id"))
        writer.writerows(rows)
    return path


def parquet(tmp_path: Path, count: int) -> Path:
    path = tmp_path / "lines.parquet"
    times = [datetime(2025, 1 + number % 3, 10, 11, 53, 26) for number in range(count)]
    columns = {
        "household_id": pa.array([number % 10 for number in range(count)], pa.int64()),
        "line": [f"t-{number}" for number in range(count)],
        "transaction_timestamp": pa.array(times, pa.timestamp("ns")),
        "sales_value": pa.array([1.005 + number for number in range(count)], pa.float64()),
        "basket_id": pa.array([number // 3 for number in range(count)], pa.int64()),
        "week": pa.array([1] * count, pa.int64()),
    }
    columns["household_id"] = pa.array([f"c{number % 10}" for number in range(count)])
    pq.write_table(pa.table(columns), path)
    return path


RENAMES = "household_id=source_record_id,line=message_id,transaction_timestamp=event_time,sales_value=amount"


def test_a_parquet_file_lands_in_the_lake_with_its_times_and_cents(desk: Desk, tmp_path: Path) -> None:
    name = desk.upload(parquet(tmp_path, 100), columns=RENAMES)
    desk.run()
    result = desk.result(name)

    assert (result.read_rows, result.written_rows, result.duplicate_rows) == (100, 50, 0)
    assert [(apart.reason, apart.rows) for apart in result.apart] == [("UNMATCHED_SOURCE_RECORD", 50)]
    assert desk.count() == 50
    assert datetime(2025, 1, 10, 3, 53, 26, tzinfo=UTC).timestamp() * 1e6 == desk.count("epoch_us(min(event_time))")
    assert desk.count("min(amount_cents)") == 101
    assert desk.count(table="interactions_apart") == 50
    assert not (desk.uploads._folder / "up").exists()


def test_dictionary_encoded_columns_and_times_in_utc_are_read(desk: Desk, tmp_path: Path) -> None:
    path = tmp_path / "sample.parquet"
    columns = {
        "message_id": pa.array(["t-1", "t-2"]),
        "event_type": pa.array(["order_completed", "order_refunded"]).dictionary_encode(),
        "source_record_id": pa.array(["c2", "c4"]).dictionary_encode(),
        "event_time": pa.array([NOON, NOON], pa.timestamp("us", "UTC")),
        "amount_cents": pa.array([250, -100], pa.int64()),
        "category": pa.array(["MILK", ""]).dictionary_encode(),
        "quantity": pa.array([2, 1], pa.int32()),
        "currency": pa.array(["CNY", "CNY"]).dictionary_encode(),
    }
    pq.write_table(pa.table(columns), path)
    desk.upload(path, channel="store")
    desk.run()
    pinned = desk.warehouse.pin([])
    body = (
        "SELECT event_type, epoch(event_time), amount_cents, category, channel, quantity FROM interactions ORDER BY 1"
    )

    assert desk.warehouse.rows(pinned, ["interactions"], body, {}) == [
        ("order_completed", NOON.timestamp(), 250, "MILK", "store", 2),
        ("order_refunded", NOON.timestamp(), -100, None, "store", 1),
    ]


def test_the_same_file_again_changes_nothing(desk: Desk, tmp_path: Path) -> None:
    desk.upload(parquet(tmp_path, 60), columns=RENAMES)
    desk.run()
    name = desk.upload(parquet(tmp_path, 60), "again", columns=RENAMES)
    desk.run()
    result = desk.result(name)

    assert (result.read_rows, result.written_rows, result.duplicate_rows) == (60, 0, 30)
    assert desk.count() == 30


def test_bad_rows_are_set_apart_with_their_reason(desk: Desk, tmp_path: Path) -> None:
    good = ("c2", "m0", "2025-03-01 08:00:00", "12.345", "b1")
    rows = [
        good,
        ("c2", "", "2025-03-01 08:00:00", "1", ""),
        ("c2", "m2", "yesterday", "1", ""),
        ("c2", "m3", "1987-03-01", "1", ""),
        ("c2", "m4", "2025-03-01 08:00:00", "much", ""),
        ("c2", "m5", "2025-03-01 08:00:00", "1", "b 5"),
        ("c3", "m6", "2025-03-01 08:00:00", "1", ""),
        ("c2", "m7", "2025-03-01T08:00:00+09:00", "-3", ""),
        good,
        ("too", "few"),
    ]
    name = desk.upload(lines(tmp_path, rows))
    desk.run()
    result = desk.result(name)

    apart = {item.reason: item.rows for item in result.apart}
    assert apart == {
        "MISSING_VALUE": 1,
        "INVALID_TIME": 2,
        "INVALID_AMOUNT": 1,
        "INVALID_TEXT": 1,
        "UNMATCHED_SOURCE_RECORD": 1,
        "WRONG_COLUMN_COUNT": 1,
    }
    assert (result.read_rows, result.written_rows, result.duplicate_rows) == (10, 2, 1)
    assert desk.count("sum(amount_cents)") == 1235 - 300
    hour = 3_600_000_000
    assert hour == desk.count("max(epoch_us(event_time)) - min(epoch_us(event_time))")
    assert desk.count("max(row_number)", "interactions_apart") == 7


def test_a_time_is_shifted_by_the_offset_of_the_file_only_where_it_carries_no_zone(desk: Desk, tmp_path: Path) -> None:
    zoned = ("08:00:00Z", "08:00:00Z ", "16:00:00+08:00 ", "08:00:00 UTC", "08:00:00.5+00", " 13:30:00+0530")
    local = ("16:00", " 16:00:00 ", "16:00:00.5")
    times = [f"2025-03-01 {time}".replace(" ", "T", 1) for time in zoned] + [f"2025-03-01 {time}" for time in zoned]
    times += [f"{day} {time}" for time in local for day in ("2025-03-01", "2025-3-1", "2025/03/01")]
    unfit = ("16:00:00 Asia/Shanghai", "08:00:00 PST", "08:00:00-08:00:00", "08:00:00 +08:00", "(BC)")
    days = ("2025-03-02", "2025-3-2", "2025-3-02")
    told = [*times, *(f"2025-03-01 {time}" for time in unfit), *days]
    name = desk.upload(lines(tmp_path, [("c2", f"m{number}", time, "1", "") for number, time in enumerate(told)]))
    desk.run()

    assert {item.reason: item.rows for item in desk.result(name).apart} == {"INVALID_TIME": len(unfit)}
    morning = "epoch(date_trunc('second', event_time)) = epoch(TIMESTAMPTZ '2025-03-01 08:00:00Z')"
    midnight = "event_time = TIMESTAMPTZ '2025-03-01 16:00:00Z'"
    assert desk.count(f"(count(*) FILTER ({morning}), count(*) FILTER ({midnight}))") == (len(times), len(days))


@pytest.mark.parametrize("kill_at", ["before", "after"])
def test_a_killed_import_resumes_with_the_right_counts(
    desk: Desk, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, kill_at: str
) -> None:
    monkeypatch.setattr(files, "BATCH_ROWS", 20)
    name = desk.upload(parquet(tmp_path, 100), columns=RENAMES)
    append = desk.warehouse.lake.append
    appends = 0

    def dying(*arguments: object) -> None:
        nonlocal appends
        appends += 1
        if appends == 5 and kill_at == "before":
            raise Killed
        append(*arguments)  # type: ignore[arg-type]
        if appends == 5:
            raise Killed

    monkeypatch.setattr(desk.warehouse.lake, "append", dying)
    with pytest.raises(Killed):
        desk.run()
    desk.again(name)
    desk.run()
    result = desk.result(name)

    assert (result.read_rows, result.written_rows, result.duplicate_rows) == (100, 50, 0)
    assert desk.count() == 50
    assert desk.count(table="interactions_apart") == 50


def test_an_import_waits_while_profiles_is_down(desk: Desk, tmp_path: Path) -> None:
    desk.profiles.down = 1
    name = desk.upload(parquet(tmp_path, 10), columns=RENAMES)
    desk.run()
    waiting = desk.jobs.get(name, "analytics")
    desk.again(name)
    desk.run()

    assert not waiting.done
    assert desk.result(name).written_rows == 5


def test_profiles_is_asked_for_at_most_a_thousand_ids(desk: Desk, tmp_path: Path) -> None:
    rows = [(f"c{number}", f"m{number}", "2025-03-01 08:00:00", "1", "") for number in range(2500)]
    desk.upload(lines(tmp_path, rows))
    desk.run()

    assert desk.profiles.asked == [1000, 1000, 500]


def test_a_file_that_is_no_table_is_refused(tmp_path: Path, desk: Desk) -> None:
    from services.analytics.domain.importing import FileOptions
    from services.analytics.files import InteractionFile

    for number, content in enumerate((b"", b"PAR1 not really", bytes(range(256)), b"a,b\n1,2\n")):
        path = tmp_path / f"file{number}"
        path.write_bytes(content)
        with pytest.raises(UnreadableInteractionFile):
            InteractionFile(partial(path.open, "rb"), FileOptions("till", "order_completed", "", {}, 480))


def test_a_small_parquet_file_that_unpacks_to_more_than_memory_holds_is_refused(tmp_path: Path) -> None:
    from services.analytics.domain.importing import FileOptions
    from services.analytics.files import InteractionFile

    path, count = tmp_path / "packed.parquet", 60_000
    columns = dict.fromkeys(("message_id", "event_time", "amount"), pa.array(["1"] * count))
    columns["source_record_id"] = pa.DictionaryArray.from_arrays(pa.array([0] * count, pa.int32()), ["x" * 3000])
    pq.write_table(pa.table(columns), path, store_schema=False)
    file = InteractionFile(partial(path.open, "rb"), FileOptions("till", "order_completed", "", {}, 480))

    assert path.stat().st_size < 100_000
    with pytest.raises(UnreadableInteractionFile):
        list(file.batches())


def test_a_file_over_the_limit_leaves_nothing_behind(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(files, "LIMIT_BYTES", 10)
    uploads = Uploads(tmp_path / "uploads", Sealer("analytics", tmp_path / "keys"))
    with pytest.raises(FileTooLarge):
        uploads.receive("big", iter([b"12345678", b"9012"]))
    assert list((tmp_path / "uploads").iterdir()) == []


def seed(warehouse: Warehouse) -> None:
    """Ten profiles; p10 was merged into p1 and p9 deleted; profile n bought n baskets."""
    profiles = [
        {
            "profile_id": f"p{number}",
            "version": 1,
            "deleted": number == 9,
            "merged_into": "p1" if number == 10 else None,
            "province_code": "110000" if number < 6 else "310000",
            "part": "recent",
        }
        for number in range(1, 11)
    ]
    events = [
        {
            "message_id": f"m{number}-{basket}-{line}",
            "profile_id": f"p{number}",
            "event_type": "order_completed" if line else "order_refunded",
            "event_time": NOON.replace(day=number),
            "amount_cents": 100 if line else -10,
            "basket_id": f"b{number}-{basket}",
            "channel": "store",
            "month": "2025-03",
        }
        for number in range(1, 11)
        for basket in range(number)
        for line in range(3)
    ]
    warehouse.add(PROFILES, rows_table(PROFILES, profiles))
    warehouse.add(INTERACTIONS, rows_table(INTERACTIONS, events))
    alias = {"profile_id": "p10", "survivor_id": "p1", "event_time": NOON, "part": "recent"}
    warehouse.add(ALIASES, rows_table(ALIASES, [alias]))


def test_scores_take_merged_profiles_as_one_and_leave_deleted_ones_out(desk: Desk) -> None:
    seed(desk.warehouse)
    name = desk.start(COMPUTE, {})
    desk.run()
    response = pb.ComputeScoresResponse()
    desk.jobs.get(name, "analytics").response.Unpack(response)

    from services.analytics.reading import Reader

    first = Reader(desk.warehouse).scores("p1")
    assert first is not None
    assert 8 == response.profile_count == desk.computations.facts[0].profile_count
    assert (first[0], first[5], first[6], first[7]) == ("p1", 0, 11, 11 * 190)
    assert (first[4], first[8]) == ("champions", rfm.DEFINITION_VERSION)
    assert None is Reader(desk.warehouse).scores("p9")
    assert None is Reader(desk.warehouse).scores("p10")
    assert all(segment.suppressed or not 0 < segment.profile_count < 5 for segment in response.segments)


@pytest.mark.parametrize(
    ("sizes", "shown", "total"),
    [
        ((3, 40, 20, 10), (None, 40, 20, None), 73),  # the rest of the total tells of 13
        ((3, 4, 20, 10), (None, None, 20, None), 37),
        ((9, 40), (9, 40), 49),
        ((3, 1), (None, None), 0),
    ],
)
def test_no_size_of_a_small_segment_is_the_rest_of_the_total(
    sizes: Sequence[int], shown: Sequence[int | None], total: int
) -> None:
    counts = tuple(zip(rfm.SEGMENTS, sizes, strict=False))
    response = _scores_response(Computation(NOON, sum(sizes), (("baskets", (1, 2, 3, 4)),), counts))

    assert [None if item.suppressed else item.profile_count for item in response.segments][: len(sizes)] == [*shown]
    assert all(item.profile_count == 0 for item in response.segments if item.suppressed)
    assert (response.profile_count, len(response.cut_points)) == (total, 1 if total else 0)


@pytest.mark.parametrize(("customers", "told"), [(5, 0), (24, 0), (25, 1)])
def test_cut_points_are_not_told_where_a_quintile_is_of_few(customers: int, told: int) -> None:
    cuts = (("monetary_cents", (100, 200, 300, 400)),)
    response = _scores_response(Computation(NOON, customers, cuts, (("champions", customers),)))

    assert (response.profile_count, len(response.cut_points)) == (customers, told)


def test_a_computation_repeated_after_a_crash_tells_its_fact_once(desk: Desk, monkeypatch: pytest.MonkeyPatch) -> None:
    seed(desk.warehouse)
    name = desk.start(COMPUTE, {})
    record = desk.computations.record

    def dying(*arguments: object) -> None:
        record(*arguments)  # type: ignore[arg-type]
        raise Killed

    monkeypatch.setattr(desk.computations, "record", dying)
    with pytest.raises(Killed):
        desk.run()
    monkeypatch.setattr(desk.computations, "record", record)
    desk.again(name)
    desk.run()

    assert desk.jobs.get(name, "analytics").done
    assert len(desk.computations.facts) == 1


def test_an_upload_is_never_in_the_clear_on_disk_and_reads_back_from_anywhere(tmp_path: Path) -> None:
    content = "欧阳小明,13812345678,b\n".encode() * 120_000
    uploads = Uploads(tmp_path / "uploads", Sealer("analytics", tmp_path / "keys"))
    parts = (content[start : start + 333_333] for start in range(0, len(content), 333_333))
    uploads.receive("up", parts)

    assert not any("欧阳小明".encode() in path.read_bytes() for path in (tmp_path / "uploads").iterdir())
    with uploads.open("up") as file:
        assert file.read() == content
        for at in (0, 1, files.PART_BYTES - 3, files.PART_BYTES, len(content) - 5, len(content)):
            file.seek(at)
            assert file.read(64) == content[at : at + 64]
        assert file.seek(0, 2) == len(content)


def test_an_upload_of_whole_parts_and_an_empty_one_read_back(tmp_path: Path) -> None:
    uploads = Uploads(tmp_path / "uploads", Sealer("analytics", tmp_path / "keys"))
    for name, content in (("whole", b"x" * (2 * files.PART_BYTES)), ("empty", b"")):
        uploads.receive(name, iter([content] if content else []))
        with uploads.open(name) as file:
            assert file.read() == content


def test_uploads_of_imports_that_failed_were_cancelled_or_never_began_are_deleted_and_others_are_not(
    desk: Desk, tmp_path: Path
) -> None:
    def upload(name: str, hours_ago: float) -> Path:
        desk.uploads.receive(name, iter([b"source_record_id,message_id,event_time,amount\n"]))
        path = desk.uploads._folder / name
        os.utime(path, (time.time() - hours_ago * 3600,) * 2)
        return path

    def start(name: str) -> str:
        return desk.jobs.start(IMPORT, {"upload": name}, pb.ImportInteractionsMetadata(), Owner("u", "analytics")).name

    assert sweep_uploads(desk.uploads, desk.operations) == 0, "no folder yet"
    waiting, cancelled, orphan, fresh = (upload(name, hours) for name, hours in (
        ("waiting", 30), ("cancelled", 2), ("orphan", 2), ("fresh", 0.5)))  # fmt: skip
    draft = orphan.with_suffix(".draft")
    orphan.rename(draft)
    start("waiting")
    desk.jobs.cancel(start("cancelled"), "analytics")

    assert sweep_uploads(desk.uploads, desk.operations) == 2
    assert [path.exists() for path in (waiting, cancelled, draft, fresh)] == [True, False, False, True]
