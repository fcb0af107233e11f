"""One suite for both stores of consent: memory and the MongoDB-wire server."""

from __future__ import annotations

import uuid
from dataclasses import replace
from types import SimpleNamespace

import mongoengine
import pytest

from services.chassis import records
from services.chassis.errors import AlreadyExists, Conflict
from services.consent.documents import RECORD_CLASSES, ConsentsDocument
from services.consent.domain.records import ProfileConsents, append
from services.consent.domain.registry import Notice, Purpose, publish
from services.consent.store import MemoryConsentStore, MongoConsentStore, consents_for
from tests.consent.registry import OFFERS, day, member_notice, record


@pytest.fixture(scope="module")
def mongo_store(mongo_uri):
    records.connect(SimpleNamespace(mongo_uri=mongo_uri, grpc_threads=4), "consent")
    records.ensure_indexes(RECORD_CLASSES)
    yield MongoConsentStore()
    mongoengine.disconnect("consent")


@pytest.fixture(params=["memory", "mongo"])
def store(request):
    return MemoryConsentStore() if request.param == "memory" else request.getfixturevalue("mongo_store")


def fresh(prefix: str = "p") -> str:
    return f"{prefix}-{uuid.uuid4().hex[:12]}"


def written(store, profile_id: str, *kept) -> ProfileConsents:
    consents = ProfileConsents(profile_id)
    for one in kept:
        consents, _, fact = append(consents, one)
        assert store.save_consents([(consents, [fact])]) == []
        consents = store.consents([profile_id])[profile_id]
    return consents


def test_a_purpose_comes_back_as_it_was_saved(store):
    purpose = replace(OFFERS, purpose_id=fresh(), consent_valid_days=30)

    saved = store.save_purpose(purpose)

    found = store.purpose(purpose.purpose_id)
    assert replace(found, create_time=None, update_time=None) == replace(purpose, version=1)
    assert saved.version == 1
    assert store.purpose(fresh()) is None


def test_a_purpose_is_replaced_only_by_who_read_it_last(store):
    first = store.save_purpose(replace(OFFERS, purpose_id=fresh()))

    second = store.save_purpose(replace(first, display_name="改"))

    assert (second.version, store.purpose(first.purpose_id).display_name) == (2, "改")
    with pytest.raises(Conflict):
        store.save_purpose(replace(first, display_name="again"))
    with pytest.raises(AlreadyExists):
        store.save_purpose(replace(first, version=0))


def test_a_repeated_request_is_known(store):
    purpose = replace(OFFERS, purpose_id=fresh())

    store.save_purpose(purpose, "request-1")

    assert store.was_requested(Purpose, purpose.purpose_id, "request-1")
    assert not store.was_requested(Purpose, purpose.purpose_id, "request-2")
    assert not store.was_requested(Purpose, purpose.purpose_id, "")


def test_purposes_are_listed_by_id_after_a_position(store):
    prefix = fresh("list")
    for suffix in ("b", "a", "c"):
        store.save_purpose(replace(OFFERS, purpose_id=f"{prefix}-{suffix}"))

    found = store.purposes(f"{prefix}-a", 2)

    assert [p.purpose_id for p in found][:2] == [f"{prefix}-b", f"{prefix}-c"]


def test_a_notice_comes_back_with_its_versions(store):
    notice = replace(member_notice(), notice_id=fresh())

    store.save_notice(notice)

    found = store.notice(notice.notice_id)
    assert replace(found, create_time=None, update_time=None) == replace(notice, version=1)


def test_a_notice_grows_by_compare_and_set(store):
    first = store.save_notice(publish(Notice(fresh(), "n"), {"en": "one"}, day("2026-01-01"), False, day("2026-01-01")))
    grown = publish(first, {"en": "two"}, day("2026-02-01"), True, day("2026-02-01"))

    store.save_notice(grown)

    assert len(store.notice(first.notice_id).versions) == 2
    assert first.notice_id in [n.notice_id for n in store.notices(first.notice_id[:-1], 1000)]
    with pytest.raises(Conflict):
        store.save_notice(grown)


def test_consents_come_back_as_they_were_appended(store):
    profile_id = fresh()
    full = record("a", "GRANTED", separate=("SHARING",), child=True, guardian=True, ends="2027-01-01")
    bare = record("b", "REVOKED", channel="")

    written(store, profile_id, full, bare)

    found = store.consents([profile_id, fresh()])
    assert found == {profile_id: ProfileConsents(profile_id, (full, bare), version=2)}


def test_what_merges_and_splits_leave_comes_back_as_it_was_kept(store):
    profile_id = fresh()
    given = replace(record("a", "GRANTED"), source_record="shop/W-7", given_for=frozenset({"p1", profile_id}))
    kept = ProfileConsents(profile_id, (given,), "other", 0, frozenset({"p1", "p2"}), 7)
    store.save_consents([(kept, [])])

    assert store.consents([profile_id]) == {profile_id: replace(kept, version=1)}


def test_of_two_writers_one_loses_and_nothing_of_it_is_kept(store):
    mine, theirs = fresh(), fresh()
    seen = written(store, mine, record("a", "GRANTED"))
    store.save_consents([(append(seen, record("b", "DENIED"))[0], [])])
    other, _, _ = append(ProfileConsents(theirs), record("c", "GRANTED"))

    lost = store.save_consents([(append(seen, record("x", "GRANTED"))[0], []), (other, [])])

    assert lost == [mine]
    assert [r.record_id for r in store.consents([mine])[mine].records] == ["a", "b"]
    assert theirs in store.consents([theirs])


def test_an_insert_that_comes_second_loses(store):
    profile_id = fresh()
    first, _, _ = append(ProfileConsents(profile_id), record("a", "GRANTED"))
    second, _, _ = append(ProfileConsents(profile_id), record("b", "GRANTED"))

    assert store.save_consents([(first, [])]) == []
    assert store.save_consents([(second, [])]) == [profile_id]


def test_a_merged_id_is_answered_by_its_last_survivor(store):
    first, second, last = fresh(), fresh(), fresh()
    store.save_consents(
        [(ProfileConsents(first, merged_into=second), []), (ProfileConsents(second, merged_into=last), [])]
    )
    kept = written(store, last, record("a", "GRANTED"))

    found = consents_for(store, [first, last, second])

    assert [found[key] for key in (first, second, last)] == [kept, kept, kept]


def test_a_loop_of_aliases_ends(store):
    one, two = fresh(), fresh()
    store.save_consents([(ProfileConsents(one, merged_into=two), []), (ProfileConsents(two, merged_into=one), [])])

    assert set(consents_for(store, [one, two])) == {one, two}


def test_facts_wait_in_the_document_of_their_profile(mongo_store):
    profile_id = fresh()

    written(mongo_store, profile_id, record("a", "GRANTED"))

    row = ConsentsDocument._get_collection().find_one({"_id": profile_id})
    (fact,) = row["outbox"]
    assert (fact["type"], fact["subject"]) == ("kehu.consent.v1.ConsentChanged", f"profiles/{profile_id}")
    assert fact["data"]["state"] == "CONSENT_STATE_GRANTED"
