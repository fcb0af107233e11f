"""Imports on the real database: workers killed with SIGKILL in the middle, two at once, and the end is the same."""

from __future__ import annotations

from google.longrunning import operations_pb2
from kehu.profiles.v1 import resources_pb2

from services.chassis import records
from services.profiles.admission import Admission, Entry, settings_of
from services.profiles.dictionary import Dictionary
from services.profiles.documents import ProfileDocument
from services.profiles.domain.model import default_model
from services.profiles.taking import Taker
from services.profiles.values import Source
from tests.profiles.killing import OnMongo, until
from tests.profiles.people import csv_of, person

ROWS = range(1500)
NAMES = ("rows_read", "rows_accepted", "rows_rejected", "profiles_created")


def summary_of(operation: operations_pb2.Operation) -> resources_pb2.IntakeSummary:
    response = resources_pb2.ImportRecordsResponse()
    assert operation.response.Unpack(response), operation.error
    return response.summary


def test_a_worker_killed_again_and_again_leaves_the_import_as_if_nothing_had_happened(database: OnMongo) -> None:
    operation = database.queue(csv_of(ROWS))
    database.kill_when(operation, *(lambda least=least: database.written() >= least for least in (1, 600, 1100)))
    database.finish(operation)

    summary = summary_of(database.jobs.get(operation.name, "sales"))
    assert [getattr(summary, name) for name in NAMES] == [1500, 1500, 0, 1500]
    profiles = database.store.page_profiles("", 5000, ())
    keys = [key for item in profiles for key in item.record_keys]
    assert sorted(keys) == sorted(f"till/{number}" for number in ROWS)
    ciphers = database.vault.ciphers(database.store, profiles)
    names = {database.vault.open_golden(item, ciphers).golden.value("email") for item in profiles}
    assert names == {person(number)["email"] for number in ROWS}
    facts = [len(item["outbox"]) for item in ProfileDocument._get_collection().find({}, {"outbox": 1})]
    assert facts == [1] * 1500
    assert not list(records.database("profiles")["upload_chunks"].find({}, {"_id": 1}))


def test_an_import_and_single_writes_of_the_same_people_at_once_end_with_one_profile_each(database: OnMongo) -> None:
    operation = database.queue(csv_of(range(600)))
    database.store.sources.insert(Source("shop", "sales", []))
    taker = Taker(database.store, database.vault, default_model, Dictionary(database.store))
    admission = Admission(database.store, database.vault, taker)
    source = database.store.sources.get("shop")
    assert source is not None
    with database.working():
        for start in range(0, 600, 50):
            entries = [Entry(n + 1, {**person(n), "address": ""}, False, str(n)) for n in range(start, start + 50)]
            admission.admit(settings_of(source), entries)
        until(lambda: database.jobs.get(operation.name, "sales").done)

    profiles = database.store.page_profiles("", 5000, ())
    assert len(profiles) == 600
    assert all(len(item.records) == 2 for item in profiles)
    assert database.store.handing_over() == []
