"""An export on the real database: the worker killed with SIGKILL in the middle; the end is one file and its people."""

from __future__ import annotations

import csv
import io
from datetime import UTC, datetime, timedelta

from kehu.profiles.v1 import export_pb2 as pb

from services.chassis import records
from services.profiles import exported
from services.profiles.admission import Admission, Entry, settings_of
from services.profiles.dictionary import Dictionary
from services.profiles.domain.model import default_model
from services.profiles.exporting import EXPORT, Exporter
from services.profiles.taking import Taker
from tests.profiles.killing import OWNER, OnMongo
from tests.profiles.people import person

PEOPLE = 1200


def test_a_worker_killed_again_and_again_leaves_one_file_and_who_is_in_it(database: OnMongo) -> None:
    store, vault = database.store, database.vault
    source = store.sources.get("till")
    assert source is not None
    admission = Admission(store, vault, Taker(store, vault, default_model, Dictionary(store)))
    now = datetime.now(UTC)
    admission.admit(settings_of(source), [Entry(n, person(n), False, str(n), now) for n in range(PEOPLE)])
    people = {item.profile_id for item in store.page_profiles("", 2 * PEOPLE, ())}
    args: dict[str, object] = {
        "export_id": "e1", "format": "csv", "purpose": "stewardship", "departments": [], "shown": ["personal/name"],
        "masked": ["personal/contact"], "expire_time": (now + timedelta(hours=1)).isoformat(),
    }  # fmt: skip
    operation = database.jobs.start(EXPORT, args, pb.Export(), OWNER, "e1")

    def taken() -> bool:
        found = database.operations.get(operation.name)
        return found is not None and bool(found["lease"])

    def has(collection: str) -> bool:
        return records.database("profiles")[collection].find_one({}, {"_id": 1}) is not None

    database.kill_when(operation, taken, lambda: has("upload_chunks"), lambda: has("export_parts"))
    done = database.finish(operation)

    made = pb.Export()
    assert done.response.Unpack(made), done.error
    (kept,) = store.exports.page({}, "", 9)
    assert (made.row_count, kept.rows, kept.state) == (len(people), len(people), "ready")
    table = list(csv.reader(io.StringIO(Exporter(store, vault).read(kept).decode("utf-8-sig"), newline="")))
    assert {row[0].removeprefix("profiles/") for row in table[2:]} - {kept.canary} == people
    assert len(table) == 2 + len(people) + 1
    told = [one for part in exported.members(store, "e1") for one in part]
    assert sorted(told) == sorted(people) and all(exported.holds(store, "e1", one) for one in list(people)[:50])
    chunks = records.database("profiles")["upload_chunks"].count_documents({})
    assert chunks == kept.chunks, "nothing of the tries that died"
