"""A few records are looked up and written in one command each, with the same outcome as the long way."""

from __future__ import annotations

import random
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import pytest

from services.profiles import taking
from services.profiles.admission import Entry
from services.profiles.domain.sources import SourceSettings
from services.profiles.store import Changes, MemoryStore, MongoStore, Store, Writing
from services.profiles.store.protocol import MAX_PER_TOKEN
from services.profiles.values import Pair, Profile, Reject, StoredRecord
from tests.profiles.people import Service, person
from tests.profiles.test_store import fact, mongo_store, profile, record, store, write

__all__ = ["mongo_store", "store"]


def writing(store: Store, *profiles: Profile, keys: dict[str, bytes] | None = None, **more: Sequence) -> Writing:
    changes: Changes = [(item, [fact(item)]) for item in profiles]
    parts = {"pairs": [], "checks": [], "superseded": [], "was": [], **more}
    return Writing(keys or {}, changes=changes, rounds=store.rounds(), **parts)


def joined(item: Profile, *records: StoredRecord) -> Profile:
    return replace(item, records=list(records), relinked=[found.key for found in records])


def test_a_look_finds_what_the_single_questions_find(store: Store) -> None:
    by_key, by_token, neither = (profile(name, record(at), tokens=(f"t{at}",)) for at, name in enumerate("abc"))
    write(store, by_key, by_token, neither)
    store.add_data_keys({"k1": b"one"})

    found = store.look(["till/0", "till/9"], ["t1", "t9"])

    assert {item.profile_id for item in found.profiles} == {by_key.profile_id, by_token.profile_id}
    assert dict(found.data_keys) in ({}, {"k1": b"one"})
    assert found.rounds == store.rounds()
    assert store.look(["till/9"], ["t9"]).profiles == []
    assert [item.profile_id for item in store.look([], ["t1"]).profiles] == [by_token.profile_id]


def test_a_look_tells_which_records_have_open_rejects(store: Store) -> None:
    open_one, closed, other = (Reject(name, "till", "", 1, [], b"", record=f"record-{name}") for name in "abc")
    store.rejects.add_missing([open_one, replace(closed, state="corrected"), other])

    assert store.look(["till/1"], ["t1"], {}, ["record-a", "record-b"]).set_apart == {"record-a"}
    assert store.look(["till/1"], ["t1"], {}, ["record-d"]).set_apart == frozenset()


def test_a_clean_record_asks_for_no_rejects_and_one_that_was_set_apart_closes_its_own(
    tmp_path: Path, mongo_store: MongoStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    service, asked = Service(tmp_path, mongo_store), []
    among = mongo_store.rejects.among
    monkeypatch.setattr(mongo_store.rejects, "among", lambda *given: asked.append(given) or among(*given))
    bad = {**person(1), "phone": "1.38E+10"}

    written(service, [("till", "1", bad), ("till", "2", person(2))])
    assert asked == []
    states = written(service, [("till", "1", person(1))])[-1]

    assert len(asked) == 1
    assert states == [("corrected", 1)]


def test_a_look_takes_no_token_that_too_many_share_and_follows_ended_profiles(store: Store) -> None:
    crowd = [profile(f"p{i}", record(i), tokens=("common", f"own{i}")) for i in range(MAX_PER_TOKEN + 5)]
    write(store, *crowd)
    assert [item.profile_id for item in store.look(["till/3"], ["common"]).profiles] == [crowd[3].profile_id]
    assert len(store.look([], ["common", "own7"]).profiles) == 1

    survivor = replace(crowd[7], version=1, records=[*crowd[7].records, *crowd[3].records], relinked=["till/3"])
    write(store, replace(crowd[3], version=1, merged_into=crowd[7].profile_id))
    write(store, survivor)
    assert [item.profile_id for item in store.look(["till/3"], []).profiles] == [crowd[7].profile_id]


def test_a_small_batch_is_written_whole_and_counted(store: Store) -> None:
    first, second = (
        joined(profile(name, record(at)), replace(record(at), tokens=["t"])) for at, name in ((1, "a"), (2, "b"))
    )
    pair, check = Pair("pair", first.profile_id, second.profile_id, 1.0, 0.5), Pair("check", "a", "a", 1.0, 0.5)
    store.pairs.insert(Pair("known", "x", "y", 1.0, 0.5))
    batch = writing(
        store, first, second, keys={"k1": b"one"}, pairs=[Pair("known", "x", "y", 1.0, 0.5), pair], checks=[check],
        superseded=[(record(1, 1), first.profile_id)], was=[replace(first, version=1)],
    )  # fmt: skip

    done = store.write_at_once(batch)

    assert done is not None
    assert (done.lost, done.new_pairs, done.is_alone) == ([], 1, True)
    assert len(store.profiles([first.profile_id, second.profile_id])) == 2
    assert len(store.by_tokens(["t"])) == len(store.by_record_keys(["till/1", "till/2"])) == 2
    assert store.data_keys(["k1"]) == {"k1": b"one"}
    assert [item.number for item in store.archived("till", "1")] == [1]
    assert len(store.past_versions(first.profile_id, 9, 9)) == 1
    assert store.pairs.get("pair") and store.pairs.get("check")
    assert store.rounds() == batch.rounds + 1


def test_who_writes_after_another_since_the_look_is_told(store: Store) -> None:
    batch = writing(store, joined(profile("a", record(1)), record(1)))
    write(store, profile("b", record(2)))

    done = store.write_at_once(batch)

    assert done is not None
    assert (done.lost, done.is_alone) == ([], False)


def test_a_changed_record_keeps_its_link_under_its_new_tokens(store: Store) -> None:
    first = profile("a", record(1), tokens=("old",))
    write(store, first)
    second = replace(joined(first, replace(record(1, 2), tokens=["new"])), version=1)

    done = store.write_at_once(writing(store, second))

    assert done is not None and not done.lost
    assert (len(store.by_tokens(["new"])), store.by_tokens(["old"])) == (1, [])


def test_a_version_that_another_wrote_is_lost_alone(store: Store) -> None:
    old, other = profile("a", record(1)), joined(profile("b", record(2)), record(2))
    write(store, old)
    write(store, replace(old, version=1, tier="gold"))

    done = store.write_at_once(writing(store, replace(old, version=1, tier="silver"), other))

    assert done is not None
    assert done.lost == [old.profile_id]
    assert store.profiles([old.profile_id])[old.profile_id].tier == "gold"
    assert other.profile_id in store.profiles([other.profile_id])


@pytest.mark.parametrize("in_the_way", ["record", "key"])
def test_what_is_in_the_way_leaves_the_profile_unwritten(store: Store, in_the_way: str) -> None:
    write(store, profile("holder", record(1)))
    store.add_data_keys({"taken": b"first"})
    at, keys = (1, {}) if in_the_way == "record" else (2, {"taken": b"second"})
    mine = joined(profile("mine", record(at)), record(at))

    done = store.write_at_once(writing(store, mine, keys=keys))

    assert done is None or done.lost == [mine.profile_id]
    assert store.profiles([mine.profile_id]) == {}
    assert store.data_keys(["taken"]) == {"taken": b"first"}


def changes_of(seed: int) -> list[tuple[str, str, dict[str, str]]]:
    """Return single writes of a few people by two sources: new ones, joins, corrections, repeats, rows set apart."""
    chance, writes = random.Random(seed), []
    for _ in range(60):
        number = chance.randrange(12)
        fields = person(number)
        for name in chance.sample(sorted(fields), chance.randrange(3)):
            fields[name] = chance.choice(["", person(chance.randrange(12))[name]])
        if chance.random() < 0.2:
            fields["phone"] = "1.38E+10"
        source = chance.choice(["till", "shop"])
        writes.append((source, f"{number}-{chance.randrange(2)}", fields))
    return writes


def written(service: Service, writes: list[tuple[str, str, dict[str, str]]]) -> list[object]:
    """Write one record after the other; return all that others can see of it."""
    seen: list[object] = []
    for source, record_id, fields in writes:
        settings = SourceSettings(source, (), trust_rank=1 if source == "till" else 2, owner_department="sales")
        admitted, tally = service.importer.admission.admit(settings, [Entry(1, fields, False, record_id)])
        seen.append([(item.outcome, item.profile_id, item.reasons) for item in admitted])
        seen.append((tally.created, tally.updated, tally.merged, tally.pairs))
    for found in service.store.page_profiles("", 500, ()):
        believed = service.vault.open_golden(found, service.vault.ciphers(service.store, [found]))
        seen.append((found.profile_id, found.version, sorted(found.tokens), sorted(found.record_keys)))
        seen.append([(item.kind, item.changed_fields, list(item.source_records)) for item in found.revisions])
        seen.append(believed.values())
        seen.append(len(service.store.past_versions(found.profile_id, 999, 999)))
        for key in found.record_keys:
            seen.append((key, len(service.store.archived(*key.split("/", 1)))))
    seen.append(sorted((item.id, item.state) for item in service.store.pairs.page({}, "", 999)))
    seen.append(sorted((item.state, len(item.attempts)) for item in service.store.rejects.page({}, "", 999)))
    return seen


@pytest.mark.parametrize("seed", range(6))
def test_single_writes_end_as_the_long_way_does(tmp_path: Path, seed: int, monkeypatch: pytest.MonkeyPatch) -> None:
    at_once = written(Service(tmp_path, MemoryStore()), changes_of(seed))
    monkeypatch.setattr(taking, "AT_ONCE", 0)

    assert written(Service(tmp_path, MemoryStore()), changes_of(seed)) == at_once


def test_single_writes_on_the_database_end_as_those_in_memory(tmp_path: Path, mongo_store: MongoStore) -> None:
    assert written(Service(tmp_path, mongo_store), changes_of(7)) == written(Service(tmp_path), changes_of(7))
