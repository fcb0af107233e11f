"""Lifecycle on the real database: the worker killed with SIGKILL in the middle; everybody is told of once."""

from __future__ import annotations

from collections import Counter

from kehu.profiles.v1 import lifecycle_pb2 as pb

from services.chassis import records
from services.profiles.admission import Admission, Entry, settings_of
from services.profiles.ageing.staging import STAGE, lifecycles
from services.profiles.dictionary import Dictionary
from services.profiles.documents import ProfileDocument
from services.profiles.domain.model import default_model
from services.profiles.taking import Taker
from tests.profiles.killing import OWNER, OnMongo
from tests.profiles.people import person

PEOPLE = 900


def test_a_worker_killed_again_and_again_gives_each_a_stage_and_tells_it_once(database: OnMongo) -> None:
    store, vault = database.store, database.vault
    source = store.sources.get("till")
    assert source is not None
    admission = Admission(store, vault, Taker(store, vault, default_model, Dictionary(store)))
    admission.admit(settings_of(source), [Entry(n, {**person(n), "address": ""}, False, str(n)) for n in range(PEOPLE)])
    rules = lifecycles(store)
    rules.keep_trial("default", 1, pb.LifecycleEffect(revision=1))
    rules.activate("lifecycles/default", 1, "user:test")
    operation = database.jobs.start(STAGE, {}, pb.LifecycleEffect(), OWNER)

    def staged() -> int:
        return sum(1 for _ in ProfileDocument._get_collection().find({"stage": "active"}, {"_id": 1}))

    database.kill_when(operation, *(lambda least=least: staged() >= least for least in (1, 300, 600)))
    assert staged() < PEOPLE, "it was killed after its end"
    database.finish(operation)

    effect = pb.LifecycleEffect()
    assert database.jobs.get(operation.name, "sales").response.Unpack(effect)
    profiles = store.page_profiles("", 5000, ())
    assert effect.profiles_read == len(profiles) == PEOPLE
    assert Counter((item.stage, item.version) for item in profiles) == {("active", 2): PEOPLE}
    facts = [len(item["outbox"]) for item in ProfileDocument._get_collection().find({}, {"outbox": 1})]
    assert facts == [2] * PEOPLE
    assert sum(1 for _ in records.database("profiles")["profile_versions"].find({}, {"_id": 1})) == PEOPLE
