"""Retention on the real database: the worker killed with SIGKILL in the middle, and the end is one receipt."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path

import pytest
from kehu.profiles.v1 import retention_pb2 as pb

from services.chassis import records
from services.chassis.jobs import Owner
from services.profiles.admission import Admission, Entry, settings_of
from services.profiles.dictionary import Dictionary
from services.profiles.domain.model import default_model
from services.profiles.receipts import Receipts
from services.profiles.retaining import RETAIN, retention_rules
from services.profiles.taking import Taker
from tests.profiles.people import person
from tests.profiles.test_jobs_killed import OnMongo, until

OLD, FRESH = datetime(2019, 1, 1, tzinfo=UTC), datetime(2035, 1, 1, tzinfo=UTC)
PEOPLE, ALIVE = 900, 100


@pytest.fixture
def database(mongo_uri: str, tmp_path: Path) -> Iterator[OnMongo]:
    found = OnMongo(mongo_uri, tmp_path / "keys")
    yield found
    found.close()


def test_a_worker_killed_again_and_again_takes_each_record_once_and_leaves_one_receipt(database: OnMongo) -> None:
    store, vault = database.store, database.vault
    source = store.sources.get("till")
    assert source is not None
    admission = Admission(store, vault, Taker(store, vault, default_model(), Dictionary(store)))
    entries = [
        Entry(n, {**person(n), "address": ""}, False, str(n), OLD if n < PEOPLE else FRESH)
        for n in range(PEOPLE + ALIVE)
    ]
    admission.admit(settings_of(source), entries)
    rule = pb.RetentionRule(
        record_type=pb.RetentionRule.RECORD_TYPE_SOURCE_RECORDS, field="email", days=365,
        action=pb.RetentionRule.ACTION_DELETE, basis="PIPL art. 19",
    )  # fmt: skip
    rules = retention_rules(store)
    made = rules.create("mails", rule)
    rules.keep_trial("mails", 1, pb.RetentionCount(revision=1))
    rules.activate("retentionRules/mails", 1, "user:test")
    assert made.revision == 1
    operation = database.jobs.start(RETAIN, {}, pb.RetentionRun(), Owner("user:test", "sales"))

    def hashed() -> int:
        return sum(len(page.hashes) // 32 for page in store.leaves.page({}, "", 1000))

    for threshold in (1, 300, 600):
        process = database.worker()
        until(lambda threshold=threshold: hashed() >= threshold)
        process.kill()
        process.wait()
        database.expire_lease(operation)
    process = database.worker()
    try:
        until(lambda: database.jobs.get(operation.name, "sales").done)
    finally:
        process.kill()
        process.wait()

    run = pb.RetentionRun()
    assert database.jobs.get(operation.name, "sales").response.Unpack(run)
    assert (run.counts[0].due_count, run.counts[0].done_count) == (PEOPLE, PEOPLE)
    (receipt,) = store.receipts.page({}, "", 9)
    assert Receipts(store, vault).message(receipt).item_count == PEOPLE
    proofs = [Receipts(store, vault).prove("00000001", f"sources/till/records/{n}#email") for n in (0, 450, 899)]
    assert len({proof.merkle_root for proof in proofs}) == 1
    profiles = store.page_profiles("", 5000, ())
    ciphers = vault.ciphers(store, profiles)
    left = [vault.open_golden(item, ciphers).golden.value("email") for item in profiles]
    assert sorted(filter(None, left)) == sorted(person(n)["email"] for n in range(PEOPLE, PEOPLE + ALIVE))
    assert {item.version for item in profiles} == {1, 2}
    assert not list(records.database("profiles")["profile_versions"].find({"golden": {"$exists": True}}, {"_id": 1}))
