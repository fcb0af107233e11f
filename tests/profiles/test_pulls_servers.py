"""Pulls from real servers: PostgreSQL, MariaDB and S3, with what goes wrong there."""

from __future__ import annotations

import tracemalloc
from datetime import UTC, datetime
from decimal import Decimal
from pathlib import Path

import pytest
import sqlalchemy as sql

from services.profiles.intake.pulls import Target
from services.profiles.intake.sql_pulls import read_table
from tests.databases import PASSWORD, S3, MariaDb, Postgres, engine_of
from tests.profiles.people import csv_of, person
from tests.profiles.test_deletions import believed
from tests.profiles.test_pulls import Pulls

LOGIN = {"username": "kehu", "password": PASSWORD}
COLUMNS = "id varchar(20) primary key, name varchar(60), phone {phone}, changed_at {time}, deleted int default 0"
MAPPING = [
    ["id", "source_record_id"], ["changed_at", "updated_time"], ["name", "name"], ["phone", "phone"],
    ["deleted", "record_deleted"],
]  # fmt: skip


class Table:
    """A table of members in a database, and profiles that pull from it."""

    def __init__(self, url: str, tmp_path: Path, phone: str, time: str, **options: object) -> None:
        self.engine = engine_of(url)
        self.url = url
        self.run("drop table if exists members", f"create table members ({COLUMNS.format(phone=phone, time=time)})")
        self.pulls = Pulls(tmp_path)
        self.pulls.targets["sql"] = Target(url, options)
        store = self.pulls.service.store.sources
        source = store.get("till")
        assert source is not None
        store.replace(type(source)(**{**{n: getattr(source, n) for n in source.__slots__}, "mapping": MAPPING}))

    def run(self, *statements: str, **values: object) -> None:
        with self.engine.begin() as connection:
            for statement in statements:
                connection.execute(sql.text(statement), values)

    def put(self, number: int, time: str, **changes: object) -> None:
        one = person(number)
        values = {
            "id": f"m{number}",
            "name": one["name"],
            "phone": int(one["phone"]),
            "time": time,
            "deleted": 0,
            **changes,
        }
        self.run("delete from members where id = :id", **values)
        self.run("insert into members values (:id, :name, :phone, :time, :deleted)", **values)

    def put_seq(self, number: int, value: object) -> None:
        one = person(number)
        values = {"id": f"m{number}", "name": one["name"], "phone": int(one["phone"]), "seq": value}
        self.run("insert into members (id, name, phone, seq) values (:id, :name, :phone, :seq)", **values)

    def pull(self, **fields: object):
        fields = {"table": "members", "credentials": LOGIN, **fields}
        return self.pulls.pull("sql", **fields)

    def name_of(self, number: int) -> str:
        return believed(self.pulls.service, f"till/m{number}")["name"]


@pytest.fixture(params=["postgres", "mariadb"])
def table(request: pytest.FixtureRequest, tmp_path: Path) -> Table:
    server = request.getfixturevalue(request.param)
    time = "timestamptz" if request.param == "postgres" else "datetime(6)"
    return Table(server.url, tmp_path, "numeric(20,0)", time)


@pytest.fixture
def maria(mariadb: MariaDb, tmp_path: Path) -> Table:
    return Table(mariadb.url, tmp_path, "bigint", "datetime(6)")


def test_a_table_of_a_server_is_followed_by_its_cursor_with_ties_and_changes(table: Table) -> None:
    for number in range(6):
        table.put(number, "2025-01-02 03:04:05")
    operation = table.pull(cursor_column="changed_at", interval_minutes=5)
    first = table.pulls.work(operation, 1).summary
    assert (first.rows_read, first.rows_accepted, first.rows_rejected) == (6, 6, 0)
    table.put(6, "2025-01-02 03:04:05")  # committed late, with the time of those before
    table.put(2, "2025-01-02 03:04:05.000001", name="欧阳小明")
    second = table.pulls.work(operation, 1).summary

    assert (second.rows_accepted, second.profiles_created) == (8, 7)
    assert table.name_of(2) == "欧阳小明"
    assert table.name_of(6) == person(6)["name"]
    again = table.pulls.work(operation, 1).summary
    assert (again.rows_read - second.rows_read, again.rows_accepted) == (1, 8)


def test_looks_count_each_change_once_and_set_a_bad_row_apart_once(table: Table) -> None:
    for number in range(3):
        table.put(number, "2025-01-02 03:04:05")
    table.put(3, "2025-01-02 03:04:05", name="", phone=12)
    for column in ("changed_at", ""):
        operation = table.pull(cursor_column=column, interval_minutes=5)
        sums = [table.pulls.work(operation, 1).summary for _ in range(3)]
        assert [item.rows_accepted for item in sums] == [sums[0].rows_accepted] * 3
        assert [item.rows_rejected for item in sums] == [1, 2, 3]
    assert sums[-1].rows_unchanged == 9
    assert len(table.pulls.service.store.rejects.page({}, "", 100)) == 1


def test_phones_kept_as_numbers_are_read_with_all_their_digits(table: Table) -> None:
    table.put(3, "2025-01-02 03:04:05")
    table.pulls.work(table.pull())

    assert believed(table.pulls.service, "till/m3")["phone"].endswith(person(3)["phone"])


def test_a_row_without_a_cursor_value_stops_nothing(table: Table) -> None:
    table.put(1, "2025-01-02 03:04:05")
    table.put(2, None)  # type: ignore[arg-type]
    operation = table.pull(cursor_column="changed_at")
    summary = table.pulls.work(operation).summary

    assert (summary.rows_read, table.pulls.ended(operation).HasField("error")) == (1, False)


def test_a_row_marked_as_deleted_is_believed_no_longer(table: Table) -> None:
    table.put(1, "2025-01-02 03:04:05")
    operation = table.pull(cursor_column="changed_at", interval_minutes=5)
    table.pulls.work(operation, 1)
    table.put(1, "2025-01-03 03:04:05", deleted=1)

    assert table.pulls.work(operation, 1).summary.rows_deleted == 1
    assert "name" not in believed(table.pulls.service, "till/m1")


@pytest.mark.parametrize("password", ["wrong", ""])
def test_wrong_credentials_are_told_without_the_address_or_the_password(table: Table, password: str) -> None:
    operation = table.pull(credentials={"username": "kehu", "password": password})
    table.pulls.work(operation)
    ended = table.pulls.ended(operation)

    assert ended.error.message == "the place cannot be read"
    assert all(word not in str(ended) for word in ("127.0.0.1", "wrong", "kehu@"))


def test_a_large_table_is_read_in_bounded_memory(table: Table) -> None:
    """The server holds the result: 60,000 rows of 1,000 characters would be 60 MB and more here."""
    is_postgres = table.engine.dialect.name == "postgresql"
    series = "generate_series(1, 60000) as n" if is_postgres else "seq_1_to_60000 as s"
    number = "n" if is_postgres else "s.seq"
    table.run("drop table if exists big", "create table big (id int, filler text)")
    table.run(f"insert into big select {number}, repeat('x', 1000) from {series}")
    tracemalloc.start()
    rows = 0
    for page in read_table(table.url, {}, LOGIN, "big", "id"):
        rows += len(page.rows)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    table.run("drop table big")

    assert rows == 60_000
    assert peak < 15_000_000


def test_the_time_of_a_change_is_the_same_moment_whatever_zone_the_session_has(
    postgres: Postgres, tmp_path: Path
) -> None:
    table = Table(postgres.url, tmp_path, "text", "timestamptz", options="-c timezone=America/New_York")
    table.put(1, "2025-01-02 03:04:05+08", phone="13912345670")
    table.pulls.work(table.pull(cursor_column="changed_at"))

    (profile,) = table.pulls.service.store.by_record_keys(["till/m1"])
    assert profile.records[0].updated_time == datetime(2025, 1, 1, 19, 4, 5, tzinfo=UTC)


def test_a_time_without_a_zone_is_one_of_the_source(maria: Table) -> None:
    maria.put(1, "2025-01-02 03:04:05")
    maria.pulls.work(maria.pull())

    (profile,) = maria.pulls.service.store.by_record_keys(["till/m1"])
    assert profile.records[0].updated_time == datetime(2025, 1, 1, 19, 4, 5, tzinfo=UTC)


def test_chinese_of_a_gbk_column_is_read(maria: Table) -> None:
    maria.run("alter table members modify name varchar(60) character set gbk")
    maria.put(1, "2025-01-02", name="欧阳小明")
    maria.pulls.work(maria.pull())

    assert maria.name_of(1) == "欧阳小明"


def test_gbk_bytes_in_a_latin1_column_are_read_when_the_place_says_so(maria: Table, tmp_path: Path) -> None:
    maria.run("alter table members modify name varchar(60) character set latin1")
    maria.put(1, "2025-01-02", name="x")
    raw = "欧阳小明".encode("gbk").hex()
    maria.run(f"update members set name = cast(x'{raw}' as binary) where id = 'm1'")
    maria.pulls.targets["sql"] = Target(maria.url, {"text": "gbk"})
    maria.pulls.work(maria.pull())

    assert maria.name_of(1) == "欧阳小明"


def test_bytes_that_are_no_text_of_the_encoding_set_their_row_apart(maria: Table) -> None:
    maria.run("alter table members modify name varbinary(60)")
    maria.put(1, "2025-01-02", name="x")
    maria.put(2, "2025-01-02", name="张三".encode())
    maria.run("update members set name = x'd5c5' where id = 'm1'")
    summary = maria.pulls.work(maria.pull()).summary

    assert (summary.rows_accepted, dict(summary.rejects_by_reason)) == (1, {"CHARACTERS_UNREADABLE": 1})
    assert maria.name_of(2) == "张三"


@pytest.mark.parametrize(
    ("kind", "values"),
    [
        ("numeric(30,0)", [Decimal(10) ** 20, Decimal(10) ** 20 + 1]),
        ("date", ["2025-01-02", "2025-01-03"]),
        ("varchar(20)", ["a1", "a2"]),
    ],
)
def test_a_cursor_may_be_of_any_kind_that_grows(table: Table, kind: str, values: list[object]) -> None:
    table.run(f"alter table members add column seq {kind}")
    for number, value in enumerate(values):
        table.put_seq(number, value)
    operation = table.pull(cursor_column="seq", interval_minutes=5)
    table.pulls.work(operation, 1)
    summary = table.pulls.work(operation, 1).summary

    assert (summary.rows_read, summary.rows_accepted) == (3, 2)


class Bucket:
    """A bucket of an S3 that asks who signs, and profiles that pull from it."""

    def __init__(self, s3: S3, tmp_path: Path) -> None:
        import boto3

        self.key, self.secret = s3.login()
        self.client = boto3.client(
            "s3", endpoint_url=s3.endpoint, aws_access_key_id=self.key, aws_secret_access_key=self.secret,
            region_name="us-east-1",
        )  # fmt: skip
        self.name = tmp_path.name.replace("_", "-").lower()[-60:].strip("-")
        self.client.create_bucket(Bucket=self.name)
        self.pulls = Pulls(tmp_path)
        self.pulls.targets["s3"] = Target(f"s3://{self.name}/export", {"endpoint_url": s3.endpoint})

    def put(self, name: str, content: bytes) -> None:
        self.client.put_object(Bucket=self.name, Key=f"export/{name}", Body=content)

    def pull(self, **fields: object):
        fields = {"credentials": {"key": self.key, "secret": self.secret}, **fields}
        return self.pulls.pull("s3", **fields)


@pytest.fixture
def bucket(s3: S3, tmp_path: Path) -> Bucket:
    return Bucket(s3, tmp_path)


def test_new_and_changed_objects_of_a_bucket_are_imported_once_each(bucket: Bucket) -> None:
    bucket.put("in/a.csv", csv_of(range(4)))
    bucket.put("other.csv", csv_of(range(50, 54)))
    operation = bucket.pull(folder="in", pattern="*.csv", interval_minutes=5)
    assert bucket.pulls.work(operation, 4).files_imported == 1
    bucket.put("in/b.csv", csv_of(range(4, 7)))
    assert bucket.pulls.work(operation, 4).files_imported == 2
    bucket.put("in/a.csv", csv_of(range(8), time="2025-02-02"))
    progress = bucket.pulls.work(operation, 4)

    assert (progress.files_imported, progress.last_failure) == (3, "")
    assert bucket.pulls.people() == 8


def test_an_object_of_many_parts_is_read_whole(bucket: Bucket) -> None:
    bucket.put("people.csv", csv_of(range(3)) + b"\n" * 12_000_000)
    bucket.pulls.work(bucket.pull())

    assert bucket.pulls.people() == 3


@pytest.mark.parametrize("secret", ["wrong", ""])
def test_wrong_credentials_of_a_bucket_are_told_without_address_or_secret(bucket: Bucket, secret: str) -> None:
    bucket.put("a.csv", csv_of(range(2)))
    operation = bucket.pull(credentials={"key": bucket.key, "secret": secret})
    bucket.pulls.work(operation)
    ended = bucket.pulls.ended(operation)

    assert ended.error.message == "the place cannot be read"
    assert all(word not in str(ended) for word in ("127.0.0.1", "wrong", bucket.key))
    assert bucket.pulls.people() == 0


def test_a_bucket_that_is_not_there_ends_the_pull(bucket: Bucket, s3: S3) -> None:
    bucket.pulls.targets["s3"] = Target("s3://no-such-bucket/export", {"endpoint_url": s3.endpoint})
    operation = bucket.pull()
    bucket.pulls.work(operation)

    assert bucket.pulls.ended(operation).error.message == "the place cannot be read"
