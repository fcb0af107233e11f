"""One suite for every store: what profiles.store promises holds in memory and on MongoDB."""

from __future__ import annotations

import hashlib
import uuid
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from datetime import UTC, datetime, timedelta

import mongoengine
import pytest
from kehu.profiles.v1 import events_pb2

from services.chassis import records
from services.chassis.errors import AlreadyExists, Conflict
from services.chassis.records import Fact
from services.profiles.documents import ProfileDocument
from services.profiles.store import MemoryStore, MongoStore, Store
from services.profiles.store import mongo as mongo_module
from services.profiles.store.incidents import IncidentDocument
from services.profiles.store.protocol import MAX_PER_TOKEN
from services.profiles.values import Pair, Profile, Revision, Source, StoredOverride, StoredRecord

NOW = datetime(2026, 5, 6, 7, 8, 9, tzinfo=UTC)


@pytest.fixture
def mongo_store(mongo_uri: str) -> Iterator[MongoStore]:
    name = f"profiles_test_{uuid.uuid4().hex[:8]}"
    mongoengine.disconnect("profiles")
    mongoengine.connect(db=name, alias="profiles", host=mongo_uri, tz_aware=True, uuidRepresentation="standard")
    ProfileDocument._collection = IncidentDocument._collection = None
    records.ensure_indexes([ProfileDocument, IncidentDocument])
    store = MongoStore()
    store.prepare()
    yield store
    mongoengine.get_connection("profiles").drop_database(name)
    mongoengine.disconnect("profiles")
    ProfileDocument._collection = IncidentDocument._collection = None


@pytest.fixture(params=["memory", "mongo"])
def store(request: pytest.FixtureRequest) -> Store:
    return MemoryStore() if request.param == "memory" else request.getfixturevalue("mongo_store")


def record(number: int, version: int = 1, source: str = "till") -> StoredRecord:
    return StoredRecord(source, str(number), version, f"h{version}", NOW, NOW, "k1", b"sealed", "op:1", [])


def profile(name: str, *records_: StoredRecord, tokens: tuple[str, ...] = (), department: str = "sales") -> Profile:
    return Profile(
        profile_id=hashlib.md5(name.encode(), usedforsecurity=False).hexdigest(),
        create_time=NOW,
        update_time=NOW,
        key_id="k1",
        golden=b"golden",
        records=[replace(item, tokens=list(tokens)) for item in records_],
        owner_department=department,
    )


def fact(of: Profile) -> Fact:
    return Fact(events_pb2.ProfileChanged(profile_id=of.profile_id), f"profiles/{of.profile_id}", of.version + 1)


def write(store: Store, *profiles: Profile) -> list[str]:
    return store.write_profiles([(item, [fact(item)]) for item in profiles])


def test_a_profile_is_read_back_as_it_was_written(store: Store) -> None:
    written = profile("a", record(1), tokens=("t1",))
    written.revisions = [Revision(1, NOW, "created", ["name"], ["till/1"])]
    written.aliases, written.apart, written.tier = ["old"], ["far"], "gold"
    written.overrides = [StoredOverride("o1", "phone", "till/1", "k1", NOW, NOW, b"sealed")]

    assert write(store, written) == []
    found = store.profiles([written.profile_id])[written.profile_id]
    assert replace(found, update_time=NOW) == replace(written, version=1)


def test_a_profile_is_found_by_record_and_by_token_until_it_drops_them(store: Store) -> None:
    first = profile("a", record(1), record(2), tokens=("t1", "t2"))
    write(store, first)

    assert [p.profile_id for p in store.by_record_keys(["till/2", "till/1", "till/9"])] == [first.profile_id]
    assert [p.profile_id for p in store.by_tokens(["t2", "t9"])] == [first.profile_id]
    changed = replace(first, version=1, records=[replace(record(1), tokens=["t1"])], relinked=["till/1"])
    assert write(store, changed) == []
    assert store.by_record_keys(["till/2"]) == []
    assert store.by_tokens(["t2"]) == []


def test_a_write_on_an_old_version_loses_and_changes_nothing(store: Store) -> None:
    first = profile("a", record(1))
    write(store, first)

    assert write(store, replace(first, version=1, tier="gold")) == []
    assert write(store, replace(first, version=1, tier="silver")) == [first.profile_id]
    assert store.profiles([first.profile_id])[first.profile_id].tier == "gold"


def test_a_source_record_belongs_to_one_profile_only(store: Store) -> None:
    mine, other, third = profile("a", record(1)), profile("b", record(1)), profile("c", record(3))
    write(store, mine)

    assert write(store, other, third) == [other.profile_id]
    assert len(store.profiles([other.profile_id, third.profile_id])) == 1


def test_profiles_without_records_do_not_collide(store: Store) -> None:
    gone = [replace(profile(name), merged_into="x") for name in "abc"]

    assert write(store, *gone) == []


def test_a_merged_profile_answers_by_id_but_holds_no_record_key(store: Store) -> None:
    old = profile("a", record(1), tokens=("t1",))
    write(store, old)
    write(store, replace(old, version=1, merged_into="b", is_handing_over=True))

    assert [item.profile_id for item in store.handing_over()] == [old.profile_id]
    assert store.by_record_keys(["till/1"]) == []
    assert write(store, profile("b", record(1))) == []
    assert store.profiles([old.profile_id])[old.profile_id].records == old.records


def test_of_many_writers_of_one_record_one_wins(store: Store) -> None:
    with ThreadPoolExecutor(8) as pool:
        lost = list(pool.map(lambda i: write(store, profile(f"p{i}", record(1))), range(8)))

    assert sorted(map(len, lost)) == [0, 1, 1, 1, 1, 1, 1, 1]


def test_pages_walk_over_every_living_profile_once(store: Store) -> None:
    written = [profile(f"p{i}", record(i), department="sales" if i % 3 else "service") for i in range(120)]
    write(store, *written)
    write(store, replace(profile("dead"), merged_into="x"))

    seen: list[str] = []
    while page := store.page_profiles(seen[-1] if seen else "", 50, ()):
        seen += [item.profile_id for item in page]
    assert seen == sorted(item.profile_id for item in written)
    assert len(store.page_profiles("", 200, ("service",))) == 40


def test_living_profiles_are_counted_exactly_while_they_are_few_and_estimated_when_they_are_many(store: Store) -> None:
    assert store.estimate_profiles() == 0
    write(store, *(profile(f"p{i}", record(i)) for i in range(100)))
    assert store.estimate_profiles() == 100

    for start in range(100, 4000, 500):
        write(store, *(profile(f"p{i}", record(i)) for i in range(start, min(start + 500, 4000))))
    assert 2800 <= store.estimate_profiles() <= 5200


def test_a_walk_over_everybody_reads_each_profile_hardly_more_than_once(
    mongo_store: MongoStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    read: list[str] = []
    do = mongo_store.profiles

    def counted(profile_ids: Sequence[str]) -> dict[str, Profile]:
        read.extend(profile_ids)
        return do(profile_ids)

    monkeypatch.setattr(mongo_store, "profiles", counted)
    written = [profile(f"p{i}", record(i)) for i in range(400)]
    write(mongo_store, *written)
    for limit in (7, 30, 150):
        read.clear()
        seen: list[str] = []
        while page := mongo_store.page_profiles(seen[-1] if seen else "", limit, ()):
            seen += [item.profile_id for item in page]
        assert len(seen) == len(written)
        assert len(read) <= 2 * len(written) + limit


@pytest.mark.parametrize("limit", [1, 2, 3, 101])
def test_a_small_page_of_an_almost_empty_database_is_found_in_few_reads(
    mongo_store: MongoStore, monkeypatch: pytest.MonkeyPatch, limit: int
) -> None:
    write(mongo_store, profile("p1", record(1)))
    asked: list[str] = []
    do = mongo_store._collection
    monkeypatch.setattr(mongo_store, "_collection", lambda name: asked.append(name) or do(name))

    assert len(mongo_store.page_profiles("", limit, ())) == 1
    assert len(asked) < 60


def test_a_token_shared_by_too_many_leads_to_nobody(store: Store) -> None:
    crowd = [profile(f"p{i}", record(i), tokens=("common", f"own{i}")) for i in range(MAX_PER_TOKEN + 5)]
    write(store, *crowd)

    assert store.by_tokens(["common"]) == []
    assert len(store.by_tokens(["common", "own3"])) == 1


@pytest.mark.parametrize("is_carried", [True, False])
def test_who_is_asked_for_among_many_is_who_is_found_alone(mongo_store: MongoStore, is_carried: bool) -> None:
    people = [profile(f"p{i}", record(i), tokens=(f"own{i}", f"pair{i // 2}", f"{i}own")) for i in range(150)]
    write(mongo_store, *people)
    mongo_store.add_data_keys({f"key{i}": f"wrapped{i}".encode() for i in range(150)})
    if not is_carried:
        mongo_store._collection("counters").delete_many({})
    asked = range(0, 600, 2)  # a quarter of them is there

    ids = {item.profile_id for item in people[::2]}
    strangers = [profile(f"p{i}").profile_id for i in range(150, 600)]
    assert set(mongo_store.profiles([*ids, *strangers])) == ids
    assert {item.profile_id for item in mongo_store.by_record_keys([f"till/{i}" for i in asked])} == ids
    own = [token for i in asked for token in (f"own{i}", f"{i}own")]
    assert sorted(item.profile_id for item in mongo_store.by_tokens(own)) == sorted(ids)
    assert len(mongo_store.by_tokens([*own, *(f"pair{i // 2}" for i in asked)])) == len(people)
    assert mongo_store.data_keys([f"key{i}" for i in asked]) == {f"key{i}": f"wrapped{i}".encode() for i in asked[:75]}
    assert mongo_store.by_tokens([f"nobody's{i}" for i in range(2000)]) == []


def test_a_crowd_among_many_tokens_hides_nobody(mongo_store: MongoStore) -> None:
    crowd = [profile(f"p{i}", record(i), tokens=("common", f"own{i}")) for i in range(MAX_PER_TOKEN + 5)]
    write(mongo_store, *crowd)

    asked = [*(f"nobody's{i}" for i in range(40)), "common", *(f"own{i}" for i in range(10)), *map(str, range(900))]
    assert sorted(item.profile_id for item in mongo_store.by_tokens(asked)) == sorted(
        item.profile_id for item in crowd[:10]
    )


def test_a_token_that_fills_the_room_of_others_hides_none_of_them(
    mongo_store: MongoStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(mongo_module, "LINKS_PER_TOKEN", 60)
    shop = [profile(f"p{i}", record(i), tokens=("shop", f"own{i}")) for i in range(1200)]
    for start in range(0, 1200, 300):
        write(mongo_store, *shop[start : start + 300])

    for count in (9, 49):
        found = mongo_store.by_tokens(["shop", *(f"own{i}" for i in range(1199, 1199 - count, -1))])
        assert sorted(item.profile_id for item in found) == sorted(item.profile_id for item in shop[-count:])


def test_of_two_data_keys_with_one_id_the_first_stays(store: Store) -> None:
    assert store.add_data_keys({"k1": b"one"}) == {}
    assert store.add_data_keys({"k1": b"two", "k2": b"new"}) == {"k1": b"one"}
    assert store.data_keys(["k1", "k2", "k3"]) == {"k1": b"one", "k2": b"new"}
    store.destroy_data_key("k1")
    assert store.data_keys(["k1"]) == {}


def test_superseded_versions_are_kept_in_order_and_never_overwritten(store: Store) -> None:
    store.archive([(record(1, 2), "p"), (record(1, 1), "p"), (record(2, 1), "p")])
    store.archive([(replace(record(1, 1), content_hash="other"), "p")])

    assert [(item.number, item.content_hash) for item in store.archived("till", "1")] == [(1, "h1"), (2, "h2")]


def test_uploads_are_kept_in_parts_and_dropped(store: Store) -> None:
    store.add_chunk("u", 0, b"a")
    store.add_chunk("u", 1, b"b")

    assert [store.chunk("u", 0), store.chunk("u", 1), store.chunk("u", 2)] == [b"a", b"b", None]
    store.drop_upload("u", 2)
    assert store.chunk("u", 0) is None


def test_each_batch_that_wrote_something_counts_as_a_round(store: Store) -> None:
    before = store.rounds()
    write(store, profile("a", record(1)), profile("b", record(2)))
    write(store, profile("a", record(1)))

    assert store.rounds() - before in (1, 2)


def test_a_shelf_refuses_a_taken_id_and_an_old_version(store: Store) -> None:
    first = store.sources.insert(Source("till", "sales", [["手机", "phone"]]))

    with pytest.raises(AlreadyExists):
        store.sources.insert(Source("till", "sales"))
    changed = store.sources.replace(replace(first, trust_rank=3))
    with pytest.raises(Conflict):
        store.sources.replace(replace(first, trust_rank=4))
    found = store.sources.get("till")
    assert found is not None
    assert (found.trust_rank, found.version, [list(item) for item in found.mapping]) == (3, 2, [["手机", "phone"]])
    with pytest.raises(Conflict):
        store.sources.delete(first)
    store.sources.delete(changed)
    assert store.sources.get("till") is None


def test_a_shelf_pages_by_id_within_equal_values(store: Store) -> None:
    pairs = [Pair(f"p{i}", "a", "b", 1.0, 0.5, state="open" if i % 2 else "rejected") for i in range(6)]

    assert store.pairs.add_missing(pairs) == 6
    assert store.pairs.add_missing([*pairs, Pair("p9", "a", "b", 1.0, 0.5)]) == 1
    assert [item.id for item in store.pairs.page({"state": "open"}, "p1", 2)] == ["p3", "p5"]


def test_facts_wait_in_the_document_they_are_about(mongo_store: MongoStore) -> None:
    written = profile("a", record(1))
    write(mongo_store, written)
    document = ProfileDocument._get_collection().find_one({"_id": written.profile_id})

    assert [entry["subject"] for entry in document["outbox"]] == [f"profiles/{written.profile_id}"]
    assert document["outbox_at"] - datetime.now(UTC) < timedelta(minutes=1)


def waiting(profile_id: str) -> list[int]:
    document = ProfileDocument._get_collection().find_one({"_id": profile_id})
    assert ("outbox_at" in document) == bool(document["outbox"]), "the relay finds exactly what has facts"
    return [entry["version"] for entry in document["outbox"]]


def read(store: Store, profile_id: str) -> Profile:
    return store.profiles([profile_id])[profile_id]


def test_facts_that_wait_survive_later_writes_with_and_without_facts(mongo_store: MongoStore) -> None:
    written = profile("a", record(1))
    write(mongo_store, written)
    write(mongo_store, replace(read(mongo_store, written.profile_id), tier="gold"))
    mongo_store.write_profiles([(read(mongo_store, written.profile_id), [])])

    assert waiting(written.profile_id) == [1, 2]


def test_a_write_after_the_relay_leaves_no_fact_unfound(mongo_store: MongoStore) -> None:
    written = profile("a", record(1))
    write(mongo_store, written)
    before = read(mongo_store, written.profile_id)
    published = {"$set": {"outbox": []}, "$unset": {"outbox_at": ""}}
    ProfileDocument._get_collection().update_one({"_id": written.profile_id, "version": 1}, published)

    mongo_store.write_profiles([(read(mongo_store, written.profile_id), [])])
    assert waiting(written.profile_id) == []
    assert mongo_store.write_profiles([(before, [fact(before)])]) == [written.profile_id]
    write(mongo_store, replace(read(mongo_store, written.profile_id), tier="gold"))
    assert waiting(written.profile_id) == [3]


def test_facts_published_between_read_and_write_come_again_rather_than_never(mongo_store: MongoStore) -> None:
    written = profile("a", record(1))
    write(mongo_store, written)
    before = read(mongo_store, written.profile_id)
    published = {"$set": {"outbox": []}, "$unset": {"outbox_at": ""}}
    ProfileDocument._get_collection().update_one({"_id": written.profile_id, "version": 1}, published)

    assert write(mongo_store, replace(before, tier="gold")) == []

    assert waiting(written.profile_id) == [1, 2]


def test_what_a_newer_release_keeps_in_a_profile_survives_a_write_of_this_one(mongo_store: MongoStore) -> None:
    written = profile("a", record(1))
    write(mongo_store, written)
    ProfileDocument._get_collection().update_one({"_id": written.profile_id}, {"$set": {"mood": "sunny"}})
    write(mongo_store, replace(read(mongo_store, written.profile_id), owner_department=""))

    document = ProfileDocument._get_collection().find_one({"_id": written.profile_id})
    assert document["mood"] == "sunny"
    assert "owner_department" not in document


def test_what_a_profile_was_is_kept_by_version_and_found_by_time(store: Store) -> None:
    kept = []
    for number in (1, 2, 10):
        item = profile("a", record(1))
        item.version, item.golden = number, b"golden %d" % number
        item.revisions = [Revision(number, NOW + timedelta(hours=number), "updated", ["name"])]
        kept.append(item.past())
    store.keep_past(kept)
    store.keep_past([replace(kept[0], golden=b"again"), profile("b", record(2))])
    profile_id = kept[0].profile_id

    assert [item.version for item in store.past_versions(profile_id, 11, 9)] == [10, 2, 1]
    assert [item.version for item in store.past_versions(profile_id, 10, 1)] == [2]
    found = store.past_at(profile_id, NOW + timedelta(hours=9))
    assert found
    assert (found.profile_id, found.golden, found.since) == (profile_id, b"golden 2", NOW + timedelta(hours=2))
    assert (found.key_id, [(r.key, r.number) for r in found.records]) == ("k1", [("till/1", 1)])
    assert store.past_at(profile_id, NOW + timedelta(hours=1)).golden == b"golden 1"
    assert store.past_at(profile_id, NOW) is None
    assert store.past_versions("0" * 32, 11, 9) == []
