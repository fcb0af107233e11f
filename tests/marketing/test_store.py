"""One suite for both stores of marketing: memory and the MongoDB-wire server."""

from __future__ import annotations

import uuid
from dataclasses import replace
from datetime import time, timedelta
from types import SimpleNamespace

import mongoengine
import pytest

from services.chassis import records
from services.chassis.errors import AlreadyExists, Conflict
from services.marketing.documents import RECORD_CLASSES, DeliveryDocument
from services.marketing.domain.campaigns import Campaign, FrequencyCap, QuietHours, QuietPolicy, step
from services.marketing.domain.deliveries import (
    Delivery,
    DeliveryState,
    Run,
    RunState,
    claimed,
    delivery_id_of,
    sending,
    sent,
    skipped,
)
from services.marketing.domain.planning import SkipReason
from services.marketing.domain.segments import Segment
from services.marketing.domain.suppressions import Suppression
from services.marketing.domain.templates import Template
from services.marketing.store import DeliveryFilter
from services.marketing.store_memory import MemoryMarketingStore
from services.marketing.store_mongo import MongoMarketingStore
from tests.marketing.world import RULE, START

LATER = START + timedelta(days=400)


@pytest.fixture(scope="module")
def mongo_store(mongo_uri):
    records.connect(SimpleNamespace(mongo_uri=mongo_uri, grpc_threads=4), "marketing")
    records.ensure_indexes(RECORD_CLASSES)
    yield MongoMarketingStore()
    mongoengine.disconnect("marketing")


@pytest.fixture(params=["memory", "mongo"])
def store(request):
    return MemoryMarketingStore() if request.param == "memory" else request.getfixturevalue("mongo_store")


def fresh() -> str:
    return uuid.uuid4().hex


def a_campaign(**changes) -> Campaign:
    template = Template("您好", "text", "<p>")
    campaign = Campaign(fresh(), "五月", "s1", "offers", "email", template)
    return replace(campaign, **changes)


def a_delivery(run_id: str, profile_id: str, **changes) -> Delivery:
    made = Delivery(
        delivery_id_of(run_id, profile_id), "c1", run_id, 1, profile_id, "email", "offers",
        DeliveryState.PLANNED, START,
    )  # fmt: skip
    return replace(made, **changes)


def test_a_segment_comes_back_with_its_rule_and_is_replaced_by_compare_and_set(store):
    saved = store.save_segment(Segment(fresh(), "金卡", "说明", RULE, "marketing"))

    found = store.segment(saved.segment_id)
    assert (found.rule, found.display_name, found.version) == (RULE, "金卡", 1)
    store.save_segment(replace(found, display_name="银卡"))
    with pytest.raises(Conflict):
        store.save_segment(replace(found, display_name="铜卡"))
    with pytest.raises(AlreadyExists):
        store.save_segment(replace(found, version=0))
    assert store.segment(fresh()) is None


def test_segments_are_listed_by_id_within_departments(store):
    department = fresh()
    ids = sorted(fresh() for _ in range(3))
    for segment_id in ids:
        store.save_segment(Segment(segment_id, "x", "", RULE, department))
    store.save_segment(Segment(fresh(), "x", "", RULE, "other"))

    assert [s.segment_id for s in store.segments("", 10, [department])] == ids
    assert [s.segment_id for s in store.segments(ids[0], 1, [department])] == [ids[1]]
    assert store.segments("", 10, []) == []


def test_a_campaign_comes_back_as_it_was_saved(store):
    campaign = a_campaign(
        frequency_cap=FrequencyCap(2, 30), quiet_hours=QuietHours(time(21, 30), time(9), QuietPolicy.DROP),
        budget_cents=100, message_cost_cents=5, schedule_time=START, owner_department="marketing",
    )  # fmt: skip

    store.save_campaign(campaign)

    found = store.campaign(campaign.campaign_id)
    assert replace(found, create_time=None, update_time=None) == replace(campaign, version=1)
    started, fact = step(found, "run", LATER, "r1")
    assert store.save_campaign(started, [fact]).version == 2
    with pytest.raises(Conflict):
        store.save_campaign(started, [fact])
    assert campaign.campaign_id in [c.campaign_id for c in store.campaigns(campaign.campaign_id[:-1], 1000)]


def test_a_request_is_remembered_with_the_change_of_its_campaign(store):
    campaign = store.save_campaign(a_campaign())
    started, fact = step(campaign, "run", LATER, "r1")

    store.save_campaign(started, [fact], "run/a")

    asked = [store.was_requested(campaign.campaign_id, each) for each in ("run/a", "run/b", "")]
    assert asked == [True, False, False]


def test_a_run_comes_back_as_it_was_saved(store):
    run = Run(fresh(), "c1", RULE.SerializeToString(), RunState.PAUSED, "PERSON", 9, 2, ("p1", "p2"), "token", True,
              {"SENT": 3, "SKIPPED|CONSENT|NO_RECORD": 4}, START, START, LATER, "JOB_FAILED", 5, "CNY")  # fmt: skip

    saved = store.save_run(run)

    assert store.run(run.run_id) == replace(run, version=1) == saved
    store.save_run(replace(saved, page_ids=(), next_token=""))
    assert store.run(run.run_id).page_ids == ()
    with pytest.raises(Conflict):
        store.save_run(saved)


def test_a_delivery_is_inserted_once_and_moves_by_compare_and_set(store):
    run_id, other = fresh(), fresh()
    first = a_delivery(run_id, "p1", record_ids=("r1",), address_token="t1")
    assert store.save_deliveries([first]) == []

    assert store.save_deliveries([first, a_delivery(other, "p2")]) == [first.delivery_id]
    held = replace(first, version=1)
    assert store.delivery(first.delivery_id) == held
    assert store.save_deliveries([claimed(held, START)]) == []
    assert store.save_deliveries([claimed(held, START)]) == [first.delivery_id]
    assert store.page(run_id, 1) == [replace(claimed(held, START), version=2)]
    assert store.page(run_id, 2) == []


def test_a_skip_keeps_its_reason_and_no_claim(store):
    made = a_delivery(fresh(), "p1")
    store.save_deliveries([made])
    held = claimed(replace(made, version=1), START)
    store.save_deliveries([held])

    store.save_deliveries([skipped(replace(held, version=2), SkipReason.CONSENT, "NO_RECORD", START)])

    found = store.delivery(made.delivery_id)
    assert (found.skip_reason, found.detail, found.claim_time, found.version) == ("CONSENT", "NO_RECORD", None, 3)


def test_only_claims_within_the_window_count(store):
    one, two, run_id = fresh(), fresh(), fresh()
    old = claimed(a_delivery(run_id, one), START)
    new = claimed(a_delivery(run_id, two), LATER)
    store.save_deliveries([old, new, a_delivery(fresh(), two)])

    assert store.recent([one, two], LATER) == [(two, new.delivery_id)]
    assert sorted(store.recent([one, two], START)) == sorted([(one, old.delivery_id), (two, new.delivery_id)])


def test_deliveries_are_listed_by_id_and_filter(store):
    run_id = fresh()
    made = [a_delivery(run_id, f"p{n}", campaign_id=run_id) for n in range(4)]
    made[0] = skipped(made[0], SkipReason.BUDGET, "", START)
    store.save_deliveries(made)
    ids = sorted(delivery.delivery_id for delivery in made)

    def listed(after="", limit=10, **wanted):
        return [d.delivery_id for d in store.deliveries(DeliveryFilter(campaign_id=run_id, **wanted), after, limit)]

    assert listed() == ids
    assert listed(after=ids[1], limit=1) == [ids[2]]
    assert listed(state=DeliveryState.SKIPPED) == [made[0].delivery_id]
    assert listed(profile_ids=("p1", "p2")) == sorted([made[1].delivery_id, made[2].delivery_id])
    assert listed(run_id="other") == []


def test_persons_of_earlier_pages_are_known(store):
    run_id = fresh()
    store.save_deliveries([a_delivery(run_id, "p1"), a_delivery(run_id, "p2", page=2)])

    assert store.persons_in_run(run_id, ["p1", "p2", "p3"], 2) == {"p1"}


def test_suppressing_twice_keeps_the_first(store):
    profile_id = fresh()
    first = store.suppress(Suppression(profile_id, "email", "", "complaint"))

    again = store.suppress(Suppression(profile_id, "email", "", "bounced"))

    assert again.reason == first.reason == "complaint"
    assert [s.reason for s in store.suppressions([profile_id], "", 10)] == ["complaint"]


def test_suppressions_are_found_by_profile_and_by_address(store):
    profile_id, token = fresh(), fresh()
    store.suppress(Suppression(profile_id, "email", "offers", "unsubscribed", token))

    assert [s.profile_id for s in store.suppressions_of([profile_id], [])] == [profile_id]
    assert [s.profile_id for s in store.suppressions_of(["nobody"], [token])] == [profile_id]
    assert len(store.suppressions_of([profile_id], [token])) == 1
    assert store.suppressions_of(["nobody"], [""]) == []


def test_the_fact_of_an_outcome_waits_in_its_delivery(mongo_store):
    made = a_delivery(fresh(), "p1")
    mongo_store.save_deliveries([made])
    held = replace(made, version=1)

    mongo_store.save_deliveries([sent(sending(held, ""), START)])

    row = DeliveryDocument._get_collection().find_one({"_id": made.delivery_id})
    assert [entry["type"] for entry in row["outbox"]] == ["kehu.marketing.v1.DeliveryRecorded"]
    assert row["outbox"][0]["data"]["outcome"] == "sent"


def test_who_read_a_delivery_before_an_erasure_writes_no_address_back(store):
    made = a_delivery(fresh(), "p1", address_token="t1")
    store.save_deliveries([made])
    read = store.delivery(made.delivery_id)
    store.forget_addresses("p1")

    assert store.save_deliveries([claimed(read, START)]) == [made.delivery_id]
    assert store.delivery(made.delivery_id).address_token == ""


def test_an_address_is_suppressed_though_its_person_was_before_and_each_address_of_theirs(store):
    person, first, second = fresh(), fresh(), fresh()
    store.suppress(Suppression(person, "email", "", "complaint"))
    for token in (first, second, first):
        store.suppress(Suppression(person, "email", "", "unsubscribed", token))

    assert [len(store.suppressions_of([], [token])) for token in (first, second)] == [1, 1]
    assert len(store.suppressions_of([person], [])) == 3


def test_where_an_erased_person_was_written_to_is_forgotten_and_a_suppressed_address_is_not(store):
    run_id = fresh()
    one, other = a_delivery(run_id, "p1", address_token="t1"), a_delivery(run_id, "p2", address_token="t2")
    store.save_deliveries([one, other])
    store.suppress(Suppression("p1", "email", "", "unsubscribed", "t1"))
    for _ in range(2):
        store.forget_addresses("p1")

    found = {item.profile_id: item.address_token for item in store.deliveries(DeliveryFilter(run_id=run_id), "", 10)}
    assert found == {"p1": "", "p2": "t2"}
    assert [item.address_token for item in store.suppressions_of([], ["t1"])] == ["t1"]
