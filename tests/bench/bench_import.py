"""Import of the sample's three sources: our own CPU time per record, and our rate beside raw bulk writes."""

from __future__ import annotations

import json
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import mongoengine
import pymongo
from pymongo.database import Database

from infra.processes import free_port, running
from infra.sample.generate import generate
from infra.servers import Mongo
from services.chassis import records
from services.chassis.jobs import Jobs, MemoryOperations, Owner, Worker
from services.profiles.documents import ProfileDocument
from services.profiles.domain.model import default_model
from services.profiles.jobs import IMPORT, Importer
from services.profiles.store import MongoStore
from services.profiles.taking import Taker
from services.profiles.uploads import store_upload
from services.profiles.values import Source
from services.profiles.vault import Vault

from kehu.profiles.v1 import resources_pb2  # isort: skip

SOURCES = json.loads((Path(__file__).parents[2] / "infra/sample/sources.json").read_text(encoding="utf-8"))
BATCH = 500
WRITTEN = ("links", "profiles", "data_keys", "rejects", "match_candidates", "source_records")
REACH_RECORDS, REACH_RATIO = 500, 0.5


@dataclass(frozen=True, slots=True)
class Measured:
    """One import: rows, our CPU seconds, wall seconds."""

    rows: int
    cpu_seconds: float
    wall_seconds: float


@contextmanager
def embedded_database(folder: Path) -> Iterator[pymongo.MongoClient]:
    """Start the embedded server, connect mongoengine, and yield a plain client beside it."""
    server = Mongo(folder / "mongo", free_port(), "only-for-the-bench")
    with running(server, folder / "mongo.log"):
        mongoengine.disconnect("profiles")
        mongoengine.connect(db="kehu_profiles", alias="profiles", host=server.uri, tz_aware=True)
        ProfileDocument._collection = None
        client: pymongo.MongoClient = pymongo.MongoClient(server.uri, tz_aware=True)
        yield client
        client.close()
        mongoengine.disconnect("profiles")
        ProfileDocument._collection = None


def import_sample(folder: Path, store: MongoStore, files: Path, names: list[str]) -> Measured:
    """Import the named sources one after the other, as the worker does; return what it took."""
    vault = Vault(folder / "keys")
    operations = MemoryOperations()
    worker = Worker("profiles", Importer(store, vault, Taker(store, vault, default_model())).handlers(), operations)
    rows, cpu, wall = 0, 0.0, 0.0
    for settings in (item for item in SOURCES if item["source_id"] in names):
        _queue(store, vault, operations, settings, files)
        cpu_before, wall_before = time.process_time(), time.perf_counter()
        worker.run_one()
        cpu += time.process_time() - cpu_before
        wall += time.perf_counter() - wall_before
        rows += _rows_of(operations, settings["source_id"])
    return Measured(rows, cpu, wall)


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


def write_raw(client: pymongo.MongoClient, imported: Database) -> float:
    """Write the documents the import left with plain bulk_write into the same indexes; return the seconds."""
    raw = client["raw"]
    documents = {name: list(imported[name].find()) for name in WRITTEN}
    for name in WRITTEN:
        for index, description in imported[name].index_information().items():
            if index != "_id_":
                options = {key: description[key] for key in ("unique", "sparse") if key in description}
                raw[name].create_index(description["key"], name=index, **options)
    began = time.perf_counter()
    for name, found in documents.items():
        for start in range(0, len(found), BATCH):
            operations = [pymongo.InsertOne(document) for document in found[start : start + BATCH]]
            raw[name].bulk_write(operations, ordered=False)
    return time.perf_counter() - began


def run(short: bool) -> list[dict[str, object]]:
    """Measure and return the rows of the table."""
    names = ["callcentre"] if short else [str(item["source_id"]) for item in SOURCES]
    with tempfile.TemporaryDirectory(prefix="kehu-bench-", ignore_cleanup_errors=True) as name:
        folder = Path(name)
        generate(folder / "sample")
        with embedded_database(folder) as client:
            store = MongoStore()
            records.ensure_indexes([ProfileDocument])
            store.prepare()
            measured = import_sample(folder, store, folder / "sample", names)
            raw_seconds = write_raw(client, client["kehu_profiles"])
    per_core = measured.rows / measured.cpu_seconds
    rate, raw_rate = measured.rows / measured.wall_seconds, measured.rows / raw_seconds
    return [
        {"figure": "import: records per second of our own CPU", "value": f"{per_core:.0f}/s", "peer": "",
         "ratio": "", "reach": f"≥ {REACH_RECORDS}/s", "ok": per_core >= REACH_RECORDS},
        {"figure": f"import of {measured.rows} records, embedded database", "value": f"{rate:.0f}/s",
         "peer": f"pymongo bulk_write of the same documents: {raw_rate:.0f}/s", "ratio": f"{rate / raw_rate:.2f}",
         "reach": f"≥ {REACH_RATIO}", "ok": rate / raw_rate >= REACH_RATIO},
    ]  # fmt: skip


if __name__ == "__main__":
    import sys

    for line in run("--short" in sys.argv):
        print(line)
