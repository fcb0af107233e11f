"""Retention on the real database: the worker killed with SIGKILL in the middle, and the end is one receipt."""

from __future__ import annotations

from datetime import UTC, datetime

from kehu.profiles.v1 import retention_pb2 as pb

from services.analytics import expiring
from services.analytics.domain.tables import INTERACTIONS
from services.analytics.engine import Engine
from services.analytics.lake import Lake, rows_table
from services.analytics.warehouse import Warehouse
from services.chassis import records
from services.profiles.admission import Admission, Entry, settings_of
from services.profiles.ageing.receipts import Receipts
from services.profiles.ageing.retaining import RETAIN, retention_rules
from services.profiles.dictionary import Dictionary
from services.profiles.domain.model import default_model
from services.profiles.taking import Taker
from tests.profiles.killing import OWNER, OnMongo
from tests.profiles.people import person

OLD, FRESH = datetime(2019, 1, 1, tzinfo=UTC), datetime(2035, 1, 1, tzinfo=UTC)
PEOPLE, ALIVE = 900, 100


def test_a_worker_killed_again_and_again_takes_each_record_once_and_leaves_one_receipt(database: OnMongo) -> None:
    store, vault = database.store, database.vault
    source = store.sources.get("till")
    assert source is not None
    admission = Admission(store, vault, Taker(store, vault, default_model, Dictionary(store)))
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
    operation = database.jobs.start(RETAIN, {}, pb.RetentionRun(), OWNER)

    def hashed() -> int:
        return sum(len(page.hashes) // 32 for page in store.leaves.page({}, "", 1000))

    database.kill_when(operation, *(lambda least=least: hashed() >= least for least in (1, 300, 600)))
    database.finish(operation)

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


def test_a_worker_killed_among_the_months_of_the_lake_takes_each_once_and_leaves_one_receipt(database: OnMongo) -> None:
    lake = Lake(database.keys / "lake")
    lake.create()
    warehouse = Warehouse(lake, Engine(database.keys / "spill"))
    names = [f"{year}-{month:02d}" for year in range(2005, 2020) for month in range(1, 13)]
    rows = [
        {"message_id": f"{name}-{n}", "profile_id": "a", "event_type": "order_completed", "amount_cents": 1,
         "event_time": datetime.fromisoformat(f"{name}-15T00:00:00+00:00"), "quantity": 1, "month": name}
        for name in [*names, f"{datetime.now(UTC):%Y-%m}"] for n in range(2)
    ]  # fmt: skip
    warehouse.add(INTERACTIONS, rows_table(INTERACTIONS, rows))
    rule = pb.RetentionRule(
        record_type=pb.RetentionRule.RECORD_TYPE_INTERACTIONS, days=1095, action=pb.RetentionRule.ACTION_DELETE,
        basis="E-Commerce Law art. 31",
    )  # fmt: skip
    rules = retention_rules(database.store)
    rules.create("purchases", rule)
    rules.keep_trial("purchases", 1, pb.RetentionCount(revision=1))
    rules.activate("retentionRules/purchases", 1, "user:test")
    operation = database.jobs.start(RETAIN, {}, pb.RetentionRun(), OWNER)

    lefts = (150, 100)  # a page is fifty months
    database.kill_when(operation, *(lambda left=left: len(expiring.months(warehouse, [])) <= left for left in lefts))
    assert len(expiring.months(warehouse, [])) > 1, "it was killed after its end"
    database.finish(operation)

    run = pb.RetentionRun()
    assert database.jobs.get(operation.name, "sales").response.Unpack(run)
    assert (run.counts[0].due_count, run.counts[0].done_count) == (len(names), len(names))
    assert [item.month for item in expiring.months(warehouse, [])] == [f"{datetime.now(UTC):%Y-%m}"]
    (receipt,) = database.store.receipts.page({}, "", 9)
    receipts = Receipts(database.store, database.vault)
    assert receipts.message(receipt).item_count == len(names)
    assert receipts.prove("00000001", "interactions/2012-02").item_count == len(names)
    files = b"".join(path.read_bytes() for path in (lake.root / INTERACTIONS.name).rglob("*.parquet"))
    assert b"2012-02" not in files
