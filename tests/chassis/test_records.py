"""State and facts are written together, once, or not at all: on the real MongoDB-wire server."""

import uuid
from types import SimpleNamespace

import mongoengine
import pytest
from google.protobuf.field_mask_pb2 import FieldMask
from kehu.marketing.v1.resources_pb2 import Segment
from pymongo import errors as mongo

from services.chassis import records
from services.chassis.errors import AlreadyExists, Conflict, EtagMismatch, FieldNotChangeable, Unavailable
from services.chassis.jobs import MongoOperations


class Note(records.Record):
    text = mongoengine.StringField()
    colour = mongoengine.StringField()
    meta = {
        "db_alias": "chassis_test",
        "collection": "notes",
        "indexes": [*records.RECORD_INDEXES],
        "auto_create_index": False,
        "strict": False,
    }


@pytest.fixture(scope="module", autouse=True)
def database(mongo_uri):
    records.connect(SimpleNamespace(mongo_uri=mongo_uri, grpc_threads=4), "chassis_test")
    records.ensure_indexes([Note])
    yield
    mongoengine.disconnect("chassis_test")


def a_note(**values) -> Note:
    return Note(id=uuid.uuid4().hex, **values)


def a_fact(version: int = 1) -> records.Fact:
    from kehu.consent.v1 import events_pb2

    return records.Fact(events_pb2.ConsentChanged(), "notes/1", version)


def stored(note: Note) -> dict:
    return Note._get_collection().find_one({"_id": note.id})


NOT_BY_MOST = {"code": 64, "errmsg": "waiting for replication timed out"}
CUT = mongo.ClientBulkWriteException({"error": mongo.AutoReconnect("cut"), "writeErrors": []}, True)
UNSURE = mongo.ClientBulkWriteException({"error": None, "writeErrors": [], "writeConcernErrors": [NOT_BY_MOST]}, True)
UNSURE_OF_ONE = mongo.WTimeoutError("waiting for replication timed out", 64)
UNSURE_OF_MANY = mongo.BulkWriteError({"writeErrors": [], "writeConcernErrors": [NOT_BY_MOST]})


@pytest.mark.parametrize("error", [CUT, UNSURE, UNSURE_OF_ONE, UNSURE_OF_MANY, mongo.AutoReconnect("cut")])
def test_a_write_that_was_cut_or_may_be_lost_again_is_an_outage_to_be_repeated(error):
    with pytest.raises(Unavailable), records.driver_errors():
        raise error


@pytest.mark.parametrize(
    "error",
    [
        mongo.ClientBulkWriteException({"error": None, "writeErrors": [{"code": 2}]}, True),
        mongo.BulkWriteError({"writeErrors": [{"code": 2}], "writeConcernErrors": []}),
        mongo.OperationFailure("no such command", 59),
    ],
)
def test_what_the_database_refuses_is_no_outage(error):
    with pytest.raises(type(error)), records.driver_errors():
        raise error


def test_records_that_the_database_may_lose_again_are_not_taken_for_written(monkeypatch):
    class Unsure:
        def bulk_write(self, *_: object, **__: object) -> None:
            raise UNSURE_OF_MANY

    monkeypatch.setattr(Note, "_get_collection", classmethod(lambda _: Unsure()))
    with pytest.raises(Unavailable):
        records.bulk_write([(a_note(), [])])


def test_a_new_record_carries_its_fact_as_a_cloud_event():
    note = a_note(text="one")

    records.insert(note, [a_fact()])

    row = stored(note)
    assert (1, "kehu.consent.v1.ConsentChanged", "1.0") == (
        row["version"],
        row["outbox"][0]["type"],
        row["outbox"][0]["specversion"],
    )


def test_a_second_insert_of_the_same_id_is_refused():
    note = a_note(text="one")
    records.insert(note)

    with pytest.raises(AlreadyExists):
        records.insert(Note(id=note.id, text="two"))

    assert "one" == stored(note)["text"]


def test_of_two_writers_one_loses_and_nothing_is_half_written():
    note = a_note(text="one", colour="red")
    records.insert(note)
    first, second = Note.objects.get(id=note.id), Note.objects.get(id=note.id)
    first.text, second.text = "first", "second"
    records.replace(first, [a_fact(2)])

    with pytest.raises(Conflict):
        records.replace(second, [a_fact(2)])

    row = stored(note)
    assert ("first", 2, 1) == (row["text"], row["version"], len(row["outbox"]))


def test_a_field_set_to_none_is_removed():
    note = a_note(text="one", colour="red")
    records.insert(note)
    note.colour = None

    records.replace(note)

    assert "colour" not in stored(note)


def test_facts_not_yet_published_survive_a_later_write():
    note = a_note(text="one")
    records.insert(note, [a_fact(1)])
    note.text = "two"

    records.replace(note, [a_fact(2)])

    assert [1, 2] == [entry["version"] for entry in stored(note)["outbox"]]


def test_a_bulk_write_names_exactly_the_records_that_lost():
    notes = [a_note(text=str(number)) for number in range(5)]
    assert [] == records.bulk_write([(note, [a_fact()]) for note in notes])
    fresh = [Note.objects.get(id=note.id) for note in notes]
    stale = Note.objects.get(id=notes[2].id)
    records.replace(stale)
    existing = Note(id=notes[4].id, text="again")
    changes = [(note, ()) for note in fresh[:4]] + [(existing, ()), (a_note(text="new"), ())]

    lost = records.bulk_write(changes)

    assert sorted([notes[2].id, notes[4].id]) == sorted(lost)


def test_the_same_request_id_gives_the_same_id():
    assert records.new_id("r1", "user:a") == records.new_id("r1", "user:a")
    assert records.new_id("r1", "user:a") != records.new_id("r1", "user:b")
    assert records.new_id() != records.new_id()


def test_an_operation_changes_hands_only_under_its_lease(mongo_uri):
    from datetime import UTC, datetime

    store = MongoOperations("chassis_test")
    store.ensure_indexes()
    name = f"operations/test-{uuid.uuid4().hex}"
    now = datetime.now(UTC)
    store.insert({"_id": name, "open": True, "wake_at": now, "lease": "", "department": "x", "create_time": now})

    assert store.update(name, "", {"lease": "a"})
    assert not store.update(name, "", {"lease": "b"})
    assert "a" == store.get(name)["lease"]


@pytest.mark.parametrize("etag", ["3", '"3"', ""])
def test_a_change_passes_with_the_etag_of_its_version_or_none(etag):
    with records.unchanged_since(etag, 3, "notes/1"):
        passed = True

    assert passed


def test_a_change_to_another_version_does_not_begin():
    begun = []
    with pytest.raises(EtagMismatch) as refused, records.unchanged_since("2", 3, "notes/1"):
        begun.append(True)

    assert (begun, refused.value.metadata) == ([], {"name": "notes/1"})


def test_a_change_that_loses_the_race_names_the_resource():
    note = a_note(text="one")
    records.insert(note)
    mine, theirs = Note.objects.get(id=note.id), Note.objects.get(id=note.id)
    records.replace(theirs)

    with pytest.raises(EtagMismatch) as refused, records.unchanged_since("1", mine.version, "notes/1"):
        records.replace(mine)
    assert refused.value.metadata == {"name": "notes/1"}


@pytest.mark.parametrize(
    ("mask", "changed"), [("", ["display_name"]), ("rule", ["rule"]), ("*", ["display_name", "rule"])]
)
def test_an_update_changes_what_its_mask_names_or_what_is_set(mask, changed):
    sent = Segment(display_name="x", owner_department="y")

    paths = FieldMask(paths=mask.split())
    assert list(records.fields_to_change(paths, sent, ("display_name", "rule"))) == changed


def test_a_mask_is_refused_with_every_field_that_cannot_be_changed():
    with pytest.raises(FieldNotChangeable) as refused:
        records.fields_to_change(FieldMask(paths=["a", "rule", "b"]), Segment(), ("rule",))

    assert [violation.description for violation in refused.value.violations] == [
        "a cannot be changed", "b cannot be changed",
    ]  # fmt: skip


def test_an_update_takes_named_fields_only_and_clears_those_left_out():
    current = Segment(display_name="old", description="kept", owner_department="sales")
    change = Segment(description="ignored", etag="7")

    found = records.updated(current, change, ["display_name", "etag"])

    assert found == Segment(description="kept", owner_department="sales", etag="7")
    assert current.display_name == "old"
