"""Pulls, snapshots, corrected files, streams and trials on the real database, killed with SIGKILL at several moments.

Each is run once without harm and once killed again and again; the two ends must not differ.
"""

from __future__ import annotations

import os
import re
import signal
import sqlite3
import subprocess
import sys
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path

import orjson
import pytest
from google.longrunning import operations_pb2
from google.protobuf.message import Message
from kehu.profiles.v1 import intake_pb2, resources_pb2
from kehu.profiles.v1 import validation_pb2 as pb

from services.chassis import records
from services.chassis.jobs import Owner
from services.profiles.intake.checks import validation_rules
from services.profiles.intake.places import TARGETS_FILE
from services.profiles.intake.pulls import PULL, seal_credentials
from services.profiles.intake.rules import TRY_RULE
from services.profiles.jobs import AFTER
from tests.profiles.killing import OnMongo, until
from tests.profiles.people import MAPPING, csv_of, person

pytestmark = [pytest.mark.slow, pytest.mark.timeout(900)]
BATCH = "100"
OWNER = Owner("user:test", "sales")
Moment = Callable[[OnMongo], bool] | int  # an int is the time just before the job is saved for that time


@dataclass
class Ended:
    """What a run left."""

    state: list[object]
    rejects: list[object]
    operations: list[tuple[str, str]]
    said: Message
    uploads: int


class Runs:
    """Runs one thing in a database of its own, as often as asked, always with the same keys."""

    def __init__(self, uri: str, tmp_path: Path) -> None:
        self.uri, self.keys, self.tmp_path = uri, tmp_path / "keys", tmp_path
        self.keys.mkdir()
        self.database: OnMongo | None = None

    def run(self, queue: Callable[[OnMongo], operations_pb2.Operation], said: Message, *moments: Moment) -> Ended:
        """Queue it, kill its worker at each of the moments, and let the last one finish."""
        self.close()
        self.database = database = OnMongo(self.uri, self.keys)
        operation = queue(database)
        kills = 0
        for moment in moments:
            if isinstance(moment, int):
                assert database.worker(BATCH, str(moment)).wait(120) == -signal.SIGKILL
            else:
                self.kill_at(database, operation, moment)
            kills += not database.jobs.get(operation.name, "sales").done
            self.expire_leases()
        assert kills or not moments, "it was too quick to be killed"
        database.finish(operation, BATCH)
        database.jobs.get(operation.name, "sales").metadata.Unpack(said)
        return self.ended(database, said)

    def kill_at(
        self, database: OnMongo, operation: operations_pb2.Operation, moment: Callable[[OnMongo], bool]
    ) -> None:
        """Kill a worker when it is so far, or when the operation is done."""
        process = database.worker(BATCH)
        until(lambda: moment(database) or database.jobs.get(operation.name, "sales").done)
        process.kill()
        process.wait()

    def expire_leases(self) -> None:
        """Let the next worker take at once what the dead one held."""
        assert self.database is not None
        for item in self.database.operations.newest("sales", 100):
            changes = {"wake_at": datetime.now(UTC) - timedelta(1)}
            self.database.operations.update(str(item["_id"]), str(item["lease"]), changes)

    def ended(self, database: OnMongo, said: Message) -> Ended:
        profiles = database.store.page_profiles("", 100_000, ())
        state = [
            (item.profile_id, sorted((r.key, r.content_hash, r.number) for r in item.records), item.aliases)
            for item in profiles
        ]
        rejects = sorted((item.id, item.state) for item in database.store.rejects.page({}, "", 10_000))
        operations = sorted(
            (str(item["kind"]), str(item["error"])) for item in database.operations.newest("sales", 100)
        )
        uploads = sum(1 for _ in records.database("profiles")["upload_chunks"].find({}, {"_id": 1}))
        return Ended(state, rejects, operations, said, uploads)

    def close(self) -> None:
        if self.database is not None:
            self.database.close()
            self.database = None


@pytest.fixture
def runs(mongo_uri: str, tmp_path: Path) -> Iterator[Runs]:
    found = Runs(mongo_uri, tmp_path)
    yield found
    found.close()


def written(count: int) -> Moment:
    return lambda database: database.written() >= count


def checkpoint(claim: Callable[[Mapping[str, object]], bool]) -> Moment:
    """Be the moment when the newest operation's checkpoint is so."""

    def reached(database: OnMongo) -> bool:
        (newest, *_) = database.operations.newest("sales", 1)
        kept = newest["checkpoint"]
        assert isinstance(kept, dict)
        return claim(kept)

    return reached


def pull(runs: Runs, url: str, **args: object) -> Callable[[OnMongo], operations_pb2.Operation]:
    (runs.keys / TARGETS_FILE).write_bytes(orjson.dumps({"place": {"url": url}}))

    def queue(database: OnMongo) -> operations_pb2.Operation:
        defaults = {"folder": "", "pattern": "", "table": "", "cursor_column": ""}
        sealed = seal_credentials(database.vault, "till", {})
        given = {"source_id": "till", "target": "place", "minutes": 0, "sealed": sealed, **defaults, **args}
        return database.jobs.start(PULL, given, intake_pb2.PullProgress(source="sources/till", target="place"), OWNER)

    return queue


def test_a_pull_from_a_folder_killed_anywhere_ends_like_one_that_was_not(runs: Runs) -> None:
    inbox = runs.tmp_path / "inbox"
    inbox.mkdir()
    for number in range(3):
        place = inbox / f"{number}.csv"
        place.write_bytes(csv_of(range(number * 150, number * 150 + 200), time=f"2025-01-0{number + 1}"))
        os.utime(place, (1_700_000_000 + number,) * 2)
    queue = pull(runs, f"file://{inbox}")
    whole = runs.run(queue, intake_pb2.PullProgress())
    cut = runs.run(queue, intake_pb2.PullProgress(), 1, written(1), 2, written(210), written(400))

    assert cut.state == whole.state
    assert len(cut.state) == 500
    assert cut.operations == whole.operations == [("import", "None")] * 3 + [("pull", "None")]
    assert (cut.said.files_imported, cut.said.last_file, cut.uploads) == (3, "2.csv", 0)


@pytest.mark.parametrize("column", ["seq", ""])
def test_a_pull_from_a_table_killed_anywhere_ends_like_one_that_was_not(runs: Runs, column: str) -> None:
    place, columns = runs.tmp_path / "crm.sqlite", [name for name, _ in MAPPING]
    with sqlite3.connect(place) as database:
        database.execute(f"create table members ({', '.join(columns)}, seq integer)")
        for number in range(1100):
            fields = {**person(number % 1050), "source_record_id": str(number % 1050), "updated_time": "2025-01-02"}
            fields |= {"name": "", "phone": "12", "email": "", "birth_date": ""} if number % 100 == 7 else {}
            row = [fields[name] for _, name in MAPPING]
            database.execute(f"insert into members values ({', '.join('?' * len(row))}, ?)", (*row, number // 3))
    queue = pull(runs, f"sqlite:///{place}", table="members", cursor_column=column)
    whole = runs.run(queue, intake_pb2.PullProgress())
    cut = runs.run(queue, intake_pb2.PullProgress(), written(1), written(600))

    assert (cut.state, cut.rejects, cut.operations) == (whole.state, whole.rejects, whole.operations)
    assert (len(cut.state), len(cut.rejects)) == (1040, 11)
    sums, undisturbed = cut.said.summary, whole.said.summary
    assert (sums.rows_accepted, sums.profiles_created) == (undisturbed.rows_accepted, undisturbed.profiles_created)
    if not column:
        assert sums == undisturbed


def test_a_snapshot_killed_anywhere_deletes_what_is_missing_once(runs: Runs) -> None:
    def queue(database: OnMongo) -> operations_pb2.Operation:
        database.finish(database.queue(csv_of(range(600))), BATCH)
        return database.queue(csv_of(range(300, 650), time="2025-02-02"), snapshot=True, delete_limit=1000)

    moments = (
        checkpoint(lambda kept: int(str(kept.get("rows_read", 0))) >= 100),
        checkpoint(lambda kept: AFTER in kept),
        2,  # one page of deletions is done and not noted
        checkpoint(lambda kept: int(str(kept.get("records_deleted", 0))) > 0),
    )
    whole = runs.run(queue, resources_pb2.ImportMetadata())
    cut = runs.run(queue, resources_pb2.ImportMetadata(), *moments)

    assert (cut.state, cut.operations, cut.uploads) == (whole.state, whole.operations, 0)
    assert cut.said.summary == whole.said.summary
    assert (cut.said.summary.records_missing, cut.said.summary.records_deleted) == (300, 300)


def test_a_corrected_file_killed_anywhere_closes_every_row_that_it_corrects(runs: Runs) -> None:
    good = csv_of(range(500), time="2025-02-02")
    bad = re.sub(rb",139\d{8},", b",1.39E+10,", good).replace(b"@", b"#")

    def queue(database: OnMongo) -> operations_pb2.Operation:
        database.finish(database.queue(bad), BATCH)
        return database.queue(good)

    moments = [checkpoint(lambda kept, rows=rows: int(str(kept.get("rows_read", 0))) >= rows) for rows in (100, 300)]
    whole = runs.run(queue, resources_pb2.ImportMetadata())
    cut = runs.run(queue, resources_pb2.ImportMetadata(), *moments)

    assert (cut.state, cut.rejects) == (whole.state, whole.rejects)
    assert [state for _, state in cut.rejects] == ["corrected"] * 500
    assert cut.said.summary == whole.said.summary


def test_a_trial_of_a_rule_killed_anywhere_counts_every_record_once(runs: Runs) -> None:
    rule = pb.ValidationRule(field="email", severity=pb.ValidationRule.SEVERITY_REJECT)
    rule.shape.shapes.append("*@mail0.example.cn")

    def queue(database: OnMongo) -> operations_pb2.Operation:
        database.finish(database.queue(csv_of(range(700))), BATCH)
        made = validation_rules(database.store).create("born", rule)
        args = {"rule_id": made.id, "plain": made.latest}
        return database.jobs.start(TRY_RULE, args, pb.RuleTrial(revision=1), OWNER)

    def checked(count: int) -> Moment:
        def reached(database: OnMongo) -> bool:
            trial = pb.RuleTrial()
            (newest, *_) = database.operations.newest("sales", 1)
            database.jobs.get(str(newest["_id"]), "sales").metadata.Unpack(trial)
            return trial.records_checked >= count

        return reached

    whole = runs.run(queue, pb.RuleTrial())
    cut = runs.run(queue, pb.RuleTrial(), checked(1), checked(401))

    assert (cut.said.records_checked, cut.said.records_broken) == (700, whole.said.records_broken)
    assert list(cut.said.examples) == list(whole.said.examples)
    assert runs.database is not None
    stored = runs.database.store.rules.get("born")
    assert stored is not None and '"recordsChecked": "700"' in stored.trial


def test_a_stream_killed_in_a_batch_and_sent_again_from_the_last_answer_ends_like_one_that_was_not(runs: Runs) -> None:
    file = runs.tmp_path / "lines.jsonl"
    lines = [_line(number % 450, "12" if number % 100 == 7 else "") for number in range(500)]
    file.write_bytes(b"".join(lines))

    def run(*moments: int) -> tuple[Ended, int]:
        runs.close()
        runs.database = database = OnMongo(runs.uri, runs.keys)
        argv = [sys.executable, "-m", "tests.profiles.stream_process", database.uri, database.name, str(database.keys)]
        answered, cut = 0, 0
        for moment in (*moments, 0):
            process = subprocess.Popen(
                [*argv, str(file), str(answered + 1)], stdout=subprocess.PIPE, cwd=Path(__file__).parents[2]
            )
            if moment:
                until(lambda moment=moment, process=process: database.written() >= moment or process.poll() is not None)
                process.kill()
            said, _ = process.communicate()
            assert (process.returncode == -signal.SIGKILL) == bool(moment), "it was too quick to be killed"
            answered = int(said.split()[-1]) if said else answered
            cut += database.written() > answered
        return runs.ended(database, pb.RuleTrial()), cut

    whole, _ = run()
    killed, cut = run(1, 130, 260)

    assert cut >= 1, "no batch was killed in its middle"
    assert (killed.state, killed.rejects) == (whole.state, whole.rejects)
    assert (len(killed.state), len(killed.rejects)) == (446, 5)


def _line(number: int, phone: str) -> bytes:
    fields = {**person(number), **({"phone": phone, "name": "", "email": "", "birth_date": ""} if phone else {})}
    record = {"source_record_id": str(number), "update_time": "2025-01-02T03:04:05Z", "fields": fields}
    return orjson.dumps(record) + b"\n"
