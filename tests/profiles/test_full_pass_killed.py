"""The full pass on the real database: killed with SIGKILL where it hurts while others write, the end is the same."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

from kehu.profiles.v1 import resolution_pb2

from services.chassis import records
from services.chassis.jobs import Owner
from services.profiles.dictionary import Dictionary
from services.profiles.documents import ProfileDocument
from services.profiles.domain.model import default_model
from services.profiles.folding import Incoming
from services.profiles.resolution.resolving import RESOLVE
from services.profiles.taking import Taker
from tests.profiles.domain.builders import record
from tests.profiles.killing import OnMongo, until
from tests.profiles.people import person

PEOPLE = range(150)


def take(database: OnMongo, source_id: str, *, is_known: bool) -> None:
    """Take one record of each person in; without tokens it finds nobody, as under older blocking keys."""
    taker = Taker(database.store, database.vault, default_model, Dictionary(database.store))
    batch = []
    for number in PEOPLE:
        made = record(str(number), source_id=source_id, **person(number))
        tokens = database.vault.tokens(made) if is_known else []
        batch.append(Incoming(made, database.vault.token("content", repr(made)), tokens))
    taker.take(batch)


def merged(database: OnMongo) -> int:
    return ProfileDocument._get_collection().count_documents({"merged_into": {"$gt": ""}})


def test_a_pass_killed_while_it_plans_and_while_it_merges_ends_as_if_nothing_had_happened(database: OnMongo) -> None:
    take(database, "till", is_known=False)
    oldest = {item.record_keys[0]: item.profile_id for item in database.store.page_profiles("", 1000, ())}
    take(database, "shop", is_known=False)
    assert len(database.store.page_profiles("", 1000, ())) == 2 * len(PEOPLE)
    start = (datetime.now(UTC) - timedelta(minutes=1)).isoformat()
    args = {"merge_limit": 1000, "minutes": 0, "start": start}
    operation = database.jobs.start(RESOLVE, args, resolution_pb2.ResolutionProgress(), Owner("user:test", "sales"))

    def checkpoint() -> dict:
        return database.operations.get(operation.name)["checkpoint"]

    for reached in (
        lambda: "plan" in checkpoint(),
        lambda: merged(database) > 10,
        lambda: merged(database) > 80,
    ):
        process = database.worker()
        until(reached)
        process.kill()
        process.wait()
        if merged(database) > 80:
            take(database, "web", is_known=True)
        database.expire_lease(operation)
    with database.working():
        until(lambda: database.jobs.get(operation.name, "sales").done)
        written = [key for item in database.store.page_profiles("", 1000, ()) for key in item.record_keys]
        again = database.jobs.start(RESOLVE, args, resolution_pb2.ResolutionProgress(), Owner("user:test", "sales"))
        until(lambda: database.jobs.get(again.name, "sales").done)

    assert len(written) == len(set(written)) == 3 * len(PEOPLE), "what was written during the pass is there, once"
    assert database.jobs.get(operation.name, "sales").HasField("response")
    found = {frozenset(item.record_keys): item.profile_id for item in database.store.page_profiles("", 1000, ())}
    whole = [frozenset(f"{source}/{number}" for source in ("till", "shop", "web")) for number in PEOPLE]
    assert set(found) == set(whole)
    assert {found[keys] for keys in whole} == set(oldest.values())
    assert database.store.handing_over() == []
    assert not list(records.database("profiles")["upload_chunks"].find({}, {"_id": 1}))
