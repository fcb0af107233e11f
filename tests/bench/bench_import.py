"""Import of the sample's three sources: our own CPU time per record, and the database's beside raw bulk writes.

The database is a process of its own, so its time is its CPU time; the rate by the clock, in which its time and
ours are one after the other for the most part, is shown beside. Our own time is all that our process computes,
the database's driver included; tables that a process loads once are loaded before. The first source brings people
whom nobody knows; those of the others are found, compared and joined.
"""

from __future__ import annotations

import contextlib
import json
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from itertools import islice
from pathlib import Path
from typing import TypeAlias

import mongoengine
import psutil
import pymongo
from pymongo.errors import BulkWriteError
from pymongo.write_concern import WriteConcern

from infra.processes import free_port, running
from infra.sample.generate import generate
from infra.sample.reading import load_sources, read_rows
from infra.servers import Mongo
from services.chassis import records
from services.chassis.jobs import Jobs, MemoryOperations, Owner, Worker
from services.chassis.server.garbage import spare_collections
from services.profiles.dictionary import Dictionary
from services.profiles.documents import ProfileDocument, ProfileWrite
from services.profiles.domain.blocking import blocking_keys
from services.profiles.domain.model import default_model
from services.profiles.domain.sources import read_row
from services.profiles.domain.standardize import standardize
from services.profiles.intake.uploads import store_upload
from services.profiles.jobs import IMPORT, Importer
from services.profiles.store import Changes, MongoStore
from services.profiles.taking import Taker
from services.profiles.values import Source
from services.profiles.vault import Vault

from kehu.profiles.v1 import resources_pb2  # isort: skip

SOURCES = json.loads((Path(__file__).parents[2] / "infra/sample/sources.json").read_text(encoding="utf-8"))
Operation: TypeAlias = pymongo.InsertOne | pymongo.ReplaceOne
REACH_RECORDS, REACH_RATIO = 3_000, 0.7


@dataclass(frozen=True, slots=True)
class Measured:
    """One import: rows, our CPU seconds, wall seconds."""

    rows: int
    cpu_seconds: float
    wall_seconds: float


class Clock:
    """The time that the database's process and its children have computed."""

    def __init__(self, pid: int) -> None:
        self._process = psutil.Process(pid)

    def seconds(self) -> float:
        """Return the CPU seconds so far."""
        family = [self._process, *self._process.children(recursive=True)]
        return sum(sum(member.cpu_times()[:2]) for member in family)


@contextmanager
def embedded_database(folder: Path, cache: str = "1G") -> Iterator[tuple[pymongo.MongoClient, Clock]]:
    """Start the embedded server, connect mongoengine, and yield a plain client beside it with the server's clock."""
    server = Mongo(folder / "mongo", free_port(), "only-for-the-bench", cache=cache)
    with running(server, folder / "mongo.log") as process:
        mongoengine.disconnect("profiles")
        mongoengine.connect(db="kehu_profiles", alias="profiles", host=server.uri, tz_aware=True)
        ProfileDocument._collection = None
        client: pymongo.MongoClient = pymongo.MongoClient(server.uri, tz_aware=True)
        yield client, Clock(process.pid)
        client.close()
        mongoengine.disconnect("profiles")
        ProfileDocument._collection = None


def import_sample(folder: Path, store: MongoStore, files: Path, names: list[str]) -> Measured:
    """Import the named sources one after the other, as the worker does; return what it took."""
    vault = Vault(folder / "keys")
    operations = MemoryOperations()
    taker = Taker(store, vault, default_model, Dictionary(store))
    worker = Worker("profiles", Importer(store, vault, taker).handlers(), operations)
    rows, cpu, wall = 0, 0.0, 0.0
    for settings in (item for item in SOURCES if item["source_id"] in names):
        _queue(store, vault, operations, settings, files)
        cpu_before, wall_before = time.process_time(), time.perf_counter()
        worker.run_one()
        cpu += time.process_time() - cpu_before
        wall += time.perf_counter() - wall_before
        rows += _rows_of(operations, settings["source_id"])
    return Measured(rows, cpu, wall)


def empty_outbox() -> None:
    """Do what the relay does with published facts: both sides then write documents with their own facts only."""
    collection = ProfileDocument._get_collection()
    collection.update_many({"version": {"$gt": 0}}, {"$set": {"outbox": []}, "$unset": {"outbox_at": ""}})


def _queue(
    store: MongoStore, vault: Vault, operations: MemoryOperations, settings: dict[str, object], files: Path
) -> None:
    source_id, file_name = str(settings["source_id"]), str(settings["file"])
    mapping = [[item["column"], item["field"]] for item in settings["mapping"]]  # type: ignore[attr-defined]
    date_order, rank = str(settings["date_order"]), int(str(settings["trust_rank"]))
    source = Source(source_id, str(settings["owner_department"]), mapping, "", rank, date_order)
    store.sources.insert(source)
    content = (files / file_name).read_bytes()
    upload = store_upload(store, vault.uploads, f"bench-{source_id}", [content])
    args = {"source_id": source_id, "upload_id": upload.upload_id, "chunks": upload.chunks, "size": upload.size,
            "file_name": file_name}  # fmt: skip
    metadata = resources_pb2.ImportMetadata(source=f"sources/{source_id}")
    Jobs("profiles", operations).start(IMPORT, args, metadata, Owner("bench", "bench"), source_id)


def _rows_of(operations: MemoryOperations, source_id: str) -> int:
    done = Jobs("profiles", operations).list("bench", 10)
    for operation in done:
        response = resources_pb2.ImportRecordsResponse()
        if operation.error.message:
            raise RuntimeError(f"the import failed: {operation.error.message}")
        if operation.response.Unpack(response) and response.source == f"sources/{source_id}":
            return int(response.summary.rows_read)
    raise RuntimeError("the import did not end")


class RecordingStore(MongoStore):
    """The store, remembering what was written in which batch."""

    def __init__(self) -> None:
        super().__init__()
        self.batches: list[Changes] = []
        self.parts: list[Changes] = []
        self.added: list[tuple[str, Sequence[dict[str, object]]]] = []

    def write_part(self, changes: Changes) -> list[str]:
        """Write, and remember."""
        self.parts.append(changes)
        return super().write_part(changes)

    def close_round(self) -> None:
        """Close the batch: the raw writer writes it as one."""
        super().close_round()
        self.batches.append([change for part in self.parts for change in part])
        self.parts = []

    def _add(self, name: str, documents: Sequence[dict[str, object]]) -> list[str]:
        self.added.append((name, documents))
        return super()._add(name, documents)

    def take_operations(self) -> list[tuple[str, list[Operation]]]:
        """Return what was written since the last call as plain operations on finished documents."""
        plain: list[tuple[str, list[Operation]]] = [
            (name, [pymongo.InsertOne(item) for item in documents]) for name, documents in self.added if documents
        ]
        plain += [("profiles", _profile_operations(changes)) for changes in self.batches if changes]
        self.batches, self.added = [], []
        return plain


def _profile_operations(changes: Changes) -> list[Operation]:
    now = datetime.now(UTC)
    operations: list[Operation] = []
    for profile, facts in changes:
        document = {**ProfileWrite(profile).to_mongo(), "version": profile.version + 1, "outbox_at": now}
        document["outbox"] = [fact.entry(now) for fact in facts]
        if profile.version == 0:
            operations.append(pymongo.InsertOne(document))
        else:
            operations.append(pymongo.ReplaceOne({"_id": profile.profile_id}, document))
    return operations


def prepare_raw(client: pymongo.MongoClient) -> None:
    """Give the raw database the indexes that the import's has."""
    imported = client["kehu_profiles"]
    for name in ("profiles", "links"):
        for index, description in imported[name].index_information().items():
            if index != "_id_":
                options = {key: description[key] for key in ("unique", "sparse") if key in description}
                client["raw"][name].create_index(description["key"], name=index, **options)


def write_raw(client: pymongo.MongoClient, written: list[tuple[str, list[Operation]]]) -> float:
    """Write the import's documents with plain bulk_write, as durably; return the seconds."""
    raw = client.get_database("raw", write_concern=WriteConcern(w=1, j=False))
    began = time.perf_counter()
    for name, operations in written:
        with contextlib.suppress(BulkWriteError):  # claims that the import lost
            raw[name].bulk_write(operations, ordered=False)
        if name == "profiles":
            client["raw"]["synced"].insert_one({})
    return time.perf_counter() - began


def run(short: bool) -> list[dict[str, object]]:
    """Import source after source, each followed by the same writes with plain pymongo; return the table's rows."""
    names = [str(item["source_id"]) for item in SOURCES[: 1 if short else None]]
    spare_collections()
    totals = []
    with tempfile.TemporaryDirectory(prefix="kehu-bench-", ignore_cleanup_errors=True) as name:
        folder = Path(name)
        generate(folder / "sample")
        _warm_up(folder)
        with embedded_database(folder) as (client, clock):
            store = RecordingStore()
            records.ensure_indexes([ProfileDocument])
            store.prepare()
            prepare_raw(client)
            totals += [_compare(folder, store, client, clock, source_id) for source_id in names]
    return _table(totals, short)


def _warm_up(folder: Path) -> None:
    for source in load_sources():
        for row in islice(read_rows(source, folder / "sample"), 50):
            blocking_keys(standardize(read_row(source.settings, row, datetime.now(UTC)), source.settings))


@dataclass(slots=True)
class Totals:
    """Sums over the sources: rows, our CPU seconds, the database's, and the clock's, of the import and of raw."""

    rows: int = 0
    own: float = 0.0
    database: float = 0.0
    raw_database: float = 0.0
    wall: float = 0.0
    raw_wall: float = 0.0


def _compare(folder: Path, store: RecordingStore, client: pymongo.MongoClient, clock: Clock, source_id: str) -> Totals:
    began = clock.seconds()
    measured = import_sample(folder, store, folder / "sample", [source_id])
    total = Totals(measured.rows, measured.cpu_seconds, clock.seconds() - began, wall=measured.wall_seconds)
    empty_outbox()
    began = clock.seconds()
    total.raw_wall = write_raw(client, store.take_operations())
    total.raw_database = clock.seconds() - began
    return total


def _table(totals: Sequence[Totals], short: bool) -> list[dict[str, object]]:
    new, known = totals[0], totals[1:]
    rows = [_own("people whom nobody knows", [new], short), _database("people whom nobody knows", [new], short)]
    if known:
        rows += [_own("people whom others know", known, short), _database("people whom others know", known, short)]
    return rows


def _own(who: str, totals: Sequence[Totals], short: bool) -> dict[str, object]:
    rate = sum(item.rows for item in totals) / sum(item.own for item in totals)
    return {"figure": f"import, {who}: records per second of our own CPU", "value": f"{rate:,.0f}/s",
            "reach": f"≥ {REACH_RECORDS:,}/s", "ok": None if short else rate >= REACH_RECORDS}  # fmt: skip


def _database(who: str, totals: Sequence[Totals], short: bool) -> dict[str, object]:
    rows, database = sum(item.rows for item in totals), sum(item.database for item in totals)
    raw = sum(item.raw_database for item in totals)
    clock = sum(item.raw_wall for item in totals) / sum(item.wall for item in totals)
    ratio = raw / database
    return {"figure": f"import, {who}: the embedded database's time (by the clock, ours included: {clock:.2f})",
            "value": f"{rows / database:,.0f}/s", "peer": f"pymongo bulk_write of the same writes: {rows / raw:,.0f}/s",
            "ratio": f"{ratio:.2f}", "reach": f"≥ {REACH_RATIO}",
            "ok": None if short else ratio >= REACH_RATIO}  # fmt: skip


if __name__ == "__main__":
    import sys

    for line in run("--short" in sys.argv):
        print(line)
