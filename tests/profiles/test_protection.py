"""Keys that change under load, and people who are erased: nothing that should stay is lost, nothing else stays."""

from __future__ import annotations

import copy
import threading
from collections.abc import Callable
from contextlib import suppress
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from google.longrunning import operations_pb2
from kehu.profiles.v1 import protection_pb2
from kehu.profiles.v1.events_pb2 import ProfileChanged, ProfileErased

from services.chassis.crypto import SealBroken
from services.chassis.jobs import Owner, Worker
from services.chassis.records import Fact, new_id
from services.profiles.admission import Entry, settings_of
from services.profiles.domain.values import ManualOverride, StandardRecord
from services.profiles.errors import HistoryNotKept, ProfileHeld
from services.profiles.folding import Outcome
from services.profiles.overriding import Overrider
from services.profiles.past import profile_at
from services.profiles.protection.erasing import Eraser, replay, retell, start_erasing
from services.profiles.protection.ledger import ledger_of
from services.profiles.protection.resealing import key_ids_of
from services.profiles.protection.rotating import RETIRE_MASTER, ROTATE_DATA, ROTATE_MASTER, KeyRotator
from services.profiles.store import Store
from services.profiles.values import Profile, Source, StoredHold
from services.profiles.vault import ErasedError
from tests.profiles.people import MAPPING, Service, person
from tests.profiles.test_jobs import Cut, killing
from tests.profiles.test_store import NOW, mongo_store, store

__all__ = ["mongo_store", "store"]
PEOPLE = 12
OWNER = Owner("user:steward@data-office", "data-office")


class World(Service):
    """People with merges, corrections, an override, a split and a set-apart row, and hands on the keys."""

    def __init__(self, keys: Path, store: Store | None = None) -> None:
        super().__init__(keys, store)
        for source in ("till", "shop"):
            self.store.sources.insert(Source(source, "sales", [list(item) for item in MAPPING]))

    def take(self, source: str, *rows: tuple[str, dict[str, str]]) -> list[Outcome]:
        settings = settings_of(self.store.sources.get(source))
        entries = [Entry(n, fields, False, record_id) for n, (record_id, fields) in enumerate(rows, 1)]
        return [item.outcome for item in self.tools.admission().admit(settings, entries)[0]]

    def fill(self) -> World:
        self.take("till", *((str(n), person(n)) for n in range(PEOPLE)))
        self.take("shop", *((str(n), person(n)) for n in range(0, PEOPLE, 2)))
        self.take("till", *((str(n), {**person(n), "email": f"new{n}@example.cn"}) for n in range(4)))
        self.take("till", ("bad", {"name": "张三", "phone": "1.38E+10"}))
        one = self.of("till/0")
        self.taker.merger.merge([one.profile_id, self.of("till/3").profile_id])
        now = datetime.now(UTC)
        record = StandardRecord("steward", "user:s", now, originals={"gender": "female"}, gender="female")
        override = ManualOverride("gender", "female", record, "she said so", now + timedelta(days=9))
        Overrider(self.store, self.vault, self.dictionary).set(self.of("till/1").profile_id, override, "o1", "till/1")
        return self

    def of(self, key: str) -> Profile:
        [found] = self.store.by_record_keys([key])
        return found

    def run(self, kind: str, **args: object) -> operations_pb2.Operation:
        operation = self.jobs.start(kind, args, protection_pb2.KeyRotation(), OWNER)
        return self.finish(operation)

    def finish(self, operation: operations_pb2.Operation) -> operations_pb2.Operation:
        worker = Worker("profiles", self.keepers(), self.operations)
        for _ in range(30):
            found = self.operations.get(operation.name)
            if found["done"]:
                break
            self.operations.update(operation.name, str(found["lease"]), {"wake_at": datetime.now(UTC)})
            worker.run_one()
        ledger_of(self.store, self.vault)._looked = float("-inf")  # as a second later
        return self.jobs.get(operation.name, OWNER.department)

    def keepers(self) -> dict[str, Callable]:
        rotator = KeyRotator(self.store, self.vault, others_know_after=0, read_seconds=0)
        return {**rotator.handlers(), **Eraser(self.store, self.vault, others_know_after=0).handlers()}

    def erase(self, key: str) -> operations_pb2.Operation:
        return self.finish(start_erasing(self.jobs, self.of(key).profile_id, "DSR-1", OWNER, ""))

    def state(self) -> dict[str, object]:
        """Return all that can be opened of everybody: golden records, records, overrides, superseded, past."""
        found: dict[str, object] = {}
        for item in self.store.page_profiles("", 1000, ()):
            ciphers = self.vault.ciphers(self.store, [item])
            past = [p for name in (item.profile_id, *item.aliases) for p in self.store.past_versions(name, 10**9, 100)]
            olds = [o for r in item.records for o in self.store.archived(r.source_id, r.source_record_id)]
            more = self.vault.ciphers_of(self.store, [*(p.key_id for p in past), *(o.key_id for o in olds)])
            found[item.profile_id] = [
                self.vault.open_golden(item, ciphers),
                [self.vault.open_record(record, ciphers) for record in item.records],
                self.vault.open_overrides(item, ciphers),
                [self.vault.open_record(old, more) for old in olds],
                [self.vault.open_golden(p, more) for p in past if p.golden],
            ]
        return found

    def keys(self) -> set[str]:
        return set(self.store.page_data_keys("", 10_000))


@pytest.fixture
def world(tmp_path: Path, store: Store) -> World:
    return World(tmp_path / "keys", store).fill()


def progress_of(operation: operations_pb2.Operation) -> protection_pb2.KeyRotation:
    response = protection_pb2.KeyRotation()
    assert operation.response.Unpack(response), operation.error
    return response


def receipt_of(operation: operations_pb2.Operation) -> protection_pb2.Erasure:
    response = protection_pb2.Erasure()
    assert operation.response.Unpack(response), operation.error
    return response


# --- data keys


def test_new_data_keys_for_all_open_the_same_and_the_old_keys_are_gone(world: World) -> None:
    state, old = world.state(), world.keys()
    done = progress_of(world.run(ROTATE_DATA))

    living = world.store.page_profiles("", 1000, ())
    assert world.state() == state
    assert world.keys().isdisjoint(old)
    assert world.keys() == {item.key_id for item in living} == {key for item in living for key in key_ids_of(item)}
    assert (done.changed, done.destroyed) == (len(living), len(old))
    assert progress_of(world.run(ROTATE_DATA)).destroyed == len(living), "and again, from the new keys"
    assert world.state() == state


ROTATION_CUTS = [
    (method, at, after)
    for method, at in (
        ("add_data_keys", 0), ("add_data_keys", 5), ("succeed", 0), ("succeed", 3), ("write_profiles", 0),
        ("write_profiles", 4), ("reseal_archived", 1), ("reseal_past", 0), ("destroy_data_key", 0),
        ("destroy_data_key", 5), ("former_keys", 20),
    )
    for after in (False, True)
]  # fmt: skip


@pytest.mark.parametrize(("method", "at", "after"), ROTATION_CUTS)
def test_a_rotation_cut_anywhere_goes_on_and_loses_nothing(tmp_path: Path, method: str, at: int, after: bool) -> None:
    world = World(tmp_path / "keys").fill()
    state, old = world.state(), world.keys()
    operation = world.jobs.start(ROTATE_DATA, {}, protection_pb2.KeyRotation(), OWNER)
    restore = killing(world.store, method, at, after)
    with pytest.raises(Cut):
        world.finish(operation)
    restore()
    assert world.state() == state, "readable where it was cut"
    progress_of(world.finish(operation))

    assert world.state() == state
    assert world.keys().isdisjoint(old)
    assert not world.store.former_keys(sorted(world.keys()))


def test_imports_and_reads_go_on_while_data_keys_change(world: World) -> None:
    stop, failures = threading.Event(), []

    def read() -> None:
        while not stop.is_set():
            try:
                assert len(world.state()) >= PEOPLE - 1
            except Exception as error:
                failures.append(error)

    def write() -> None:
        for n in range(20):
            try:
                world.take("till", (str(n % 6 + 4), {**person(n % 6 + 4), "email": f"later{n}@example.cn"}))
                world.take("shop", (f"new{n}", person(100 + n)))
            except Exception as error:
                failures.append(error)

    reader, writer = threading.Thread(target=read), threading.Thread(target=write)
    reader.start()
    writer.start()
    rotator = KeyRotator(world.store, world.vault, others_know_after=0, read_seconds=1.5)
    worker = Worker("profiles", rotator.handlers(), world.operations)
    operation = world.jobs.start(ROTATE_DATA, {}, protection_pb2.KeyRotation(), OWNER)
    while not world.operations.get(operation.name)["done"]:
        worker.run_one()
    writer.join()
    stop.set()
    reader.join()

    assert failures == []
    kept = {record.key: item for item in world.store.page_profiles("", 1000, ()) for record in item.records}
    assert {f"shop/new{n}" for n in range(20)} < set(kept)
    olds = world.store.archived("till", "5")
    ciphers = world.vault.ciphers_of(world.store, [item.key_id for item in olds])
    assert len([world.vault.open_record(item, ciphers) for item in olds]) == len(olds) >= 3


def test_records_that_were_split_off_keep_a_shared_key_alive_until_they_have_their_own(world: World) -> None:
    whole = world.of("till/0")
    world.taker.merger.merge([whole.profile_id, world.of("till/5").profile_id])
    world.taker.merger.split(world.of("till/5").profile_id, ["till/5"], new_id())
    state, old = world.state(), world.keys()
    world.run(ROTATE_DATA)

    assert world.state() == state
    assert world.keys().isdisjoint(old)


def test_a_merge_is_undone_after_the_keys_of_before_it_are_gone(world: World) -> None:
    whole = world.of("till/0")
    [former] = whole.aliases
    world.run(ROTATE_DATA)
    left, out = world.taker.merger.split(whole.profile_id, ["till/3"], new_id())

    assert former in (left, out)
    assert {record.originals["name"] for record in world.state()[world.of("till/3").profile_id][1]} == {
        person(3)["name"]
    }
    world.erase("till/0")
    assert len(world.state()[world.of("till/3").profile_id][1]) == 1


# --- master keys


def test_a_new_master_key_wraps_all_and_the_old_one_can_then_be_destroyed(world: World) -> None:
    state, [old] = world.state(), world.vault.master.versions()
    refused = world.run(RETIRE_MASTER, key=old)
    assert "rotate first" in refused.error.message
    done = progress_of(world.run(ROTATE_MASTER, create_key=True))

    assert done.changed == len(world.keys()) and done.master_key == world.vault.master.newest() != old
    fresh = Service(Path(world.vault.master._current._keys_dir), world.store)  # another process, its memory empty
    progress_of(world.run(RETIRE_MASTER, key=old))
    assert world.vault.master.versions() == [done.master_key]
    assert World.state(fresh) == state == world.state()


def test_a_master_key_is_not_destroyed_while_anything_is_wrapped_by_it(world: World) -> None:
    [old] = world.vault.master.versions()
    world.vault.master.create()
    refused = world.run(RETIRE_MASTER, key=old)

    assert "wrapped by this master key" in refused.error.message
    assert old in world.vault.master.versions()


@pytest.mark.parametrize("at", [0, 1])
@pytest.mark.parametrize("method", ["rewrap_data_keys", "page_data_keys"])
def test_a_master_rotation_cut_anywhere_makes_one_key_and_wraps_all(tmp_path: Path, method: str, at: int) -> None:
    world = World(tmp_path / "keys").fill()
    operation = world.jobs.start(ROTATE_MASTER, {"create_key": True}, protection_pb2.KeyRotation(), OWNER)
    restore = killing(world.store, method, min(at, 0 if method == "rewrap_data_keys" else 1), True)
    with pytest.raises(Cut):
        world.finish(operation)
    restore()
    progress_of(world.finish(operation))

    assert len(world.vault.master.versions()) == 2
    assert not any(world.vault.master.is_stale(value) for value in world.store.page_data_keys("", 1000).values())


def test_data_keys_wrapped_anew_while_one_is_destroyed_do_not_come_back(store: Store) -> None:
    store.add_data_keys({"a": b"1", "b": b"1"})
    store.destroy_data_key("a")
    store.rewrap_data_keys({"a": (b"1", b"2"), "b": (b"1", b"2")})

    assert store.page_data_keys("", 10) == {"b": b"2"}
    assert store.page_data_keys("b", 10) == {}


# --- erasure


def assert_erased(world: World, before: Profile, others: dict[str, object]) -> None:
    names = {before.profile_id, *before.aliases}
    assert world.state() == others
    assert world.store.data_keys(sorted(key_ids_of(before))) == {}
    assert world.store.by_record_keys(before.record_keys) == []
    for item in world.store.profiles(sorted(names)).values():
        assert item.is_erased and not (item.revisions or item.aliases or item.apart or item.tokens)
    assert not [past for name in names for past in world.store.past_versions(name, 10**9, 10)]
    assert not [old for r in before.records for old in world.store.archived(r.source_id, r.source_record_id)]
    with pytest.raises(ErasedError):
        world.vault.open_golden(before, world.vault.ciphers(world.store, [before]))


def test_an_erased_person_is_gone_with_all_history_and_nobody_else_is(world: World) -> None:
    before, state = world.of("till/0"), world.state()
    assert before.aliases and len(before.records) == 3
    others = {key: value for key, value in state.items() if key != before.profile_id}
    receipt = receipt_of(world.erase("till/0"))

    assert_erased(world, before, others)
    assert (receipt.names, receipt.records, receipt.reason) == (2, 3, "DSR-1")
    assert receipt.erase_time.seconds and receipt.refuse_until_time.seconds


def test_the_end_of_an_erased_person_is_told_under_every_name(tmp_path: Path) -> None:
    world = World(tmp_path / "keys").fill()
    before = world.of("till/0")
    world.store.facts.clear()
    world.erase("till/0")

    names = {before.profile_id, *before.aliases}
    ended = {
        fact.message.profile_id: fact.message for fact in world.store.facts if isinstance(fact.message, ProfileChanged)
    }
    erased = {
        fact.message.profile_id: fact.message for fact in world.store.facts if isinstance(fact.message, ProfileErased)
    }
    assert set(ended) == set(erased) == names
    assert ended[before.profile_id].version == erased[before.profile_id].version == before.version + 1
    assert all(item.deleted and not item.merged_into and not item.sealed_identity for item in ended.values())
    assert all(set(item.names) == names for item in erased.values())


def test_records_of_an_erased_person_that_come_again_are_refused_and_counted_and_not_kept(world: World) -> None:
    world.erase("till/0")
    outcomes = world.take("till", ("0", person(0)), ("77", person(77)), ("3", {"name": "x", "phone": "1.38E+10"}))

    assert outcomes == [Outcome.ERASED, Outcome.CREATED, Outcome.ERASED]
    assert world.store.by_record_keys(["till/0", "till/3"]) == []
    assert len(world.store.rejects.page({}, "", 100)) == 1, "only the row that was there before"


def test_the_ledger_holds_nothing_that_names_a_person(world: World) -> None:
    fields = person(0)
    world.erase("till/0")
    [entry] = world.store.erasures.page({}, "", 10)
    text = repr(entry)

    assert not any(value and value in text for value in fields.values())
    assert "till" not in text and "shop" not in text


def test_another_process_learns_of_an_erasure_within_its_time(world: World) -> None:
    other = Service(Path(world.vault.master._current._keys_dir), world.store)
    ledger = ledger_of(world.store, other.vault)
    assert ledger.erased(["till/0"]) == set()
    world.erase("till/0")
    ledger._looked = float("-inf")

    assert ledger.erased(["till/0", "till/1"]) == {"till/0"}


ERASURE_CUTS = [
    (method, at, after)
    for method, at in (
        ("drop_traces", 0), ("drop_traces", 1), ("write_profiles", 0), ("destroy_data_key", 0), ("destroy_data_key", 2),
        ("profiles", 2), ("data_keys", 0), ("former_keys", 0),
    )
    for after in (False, True)
]  # fmt: skip


@pytest.mark.parametrize(("method", "at", "after"), ERASURE_CUTS)
def test_an_erasure_cut_anywhere_goes_on_to_its_end(tmp_path: Path, method: str, at: int, after: bool) -> None:
    world = World(tmp_path / "keys").fill()
    before, state = world.of("till/0"), world.state()
    operation = start_erasing(world.jobs, before.profile_id, "DSR-1", OWNER, "")
    restore = killing(world.store, method, at, after)
    with suppress(Cut):
        world.finish(operation)
    restore()
    receipt_of(world.finish(operation))

    assert_erased(world, before, {key: value for key, value in state.items() if key != before.profile_id})
    assert world.take("till", ("0", person(0))) == [Outcome.ERASED]


def test_erasing_twice_is_erasing_once(world: World) -> None:
    name = world.of("till/0").profile_id
    first = receipt_of(world.erase("till/0"))
    again = receipt_of(world.finish(start_erasing(world.jobs, name, "DSR-1", OWNER, "")))

    assert again == first


def test_erasing_one_person_leaves_another_who_was_split_from_them_whole(world: World) -> None:
    world.taker.merger.merge([world.of("till/0").profile_id, world.of("till/5").profile_id])
    world.taker.merger.split(world.of("till/5").profile_id, ["till/5"], new_id())
    before, state = world.of("till/0"), world.state()
    world.erase("till/0")

    mine = {key: value for key, value in state.items() if key != before.profile_id}
    assert world.state().keys() == mine.keys()
    assert world.state()[world.of("till/5").profile_id][:3] == mine[world.of("till/5").profile_id][:3]


def test_what_both_were_believed_to_be_while_they_were_one_is_erased_too(world: World) -> None:
    found = [world.of("till/4"), world.of("till/6")]
    stays, gone = (item.records[0].key for item in sorted(found, key=lambda item: (item.create_time, item.profile_id)))
    alone = datetime.now(UTC)
    whole = world.taker.merger.merge([item.profile_id for item in found])
    together = datetime.now(UTC)
    world.taker.merger.split(world.of(stays).profile_id, [gone], new_id())
    left = world.of(stays).profile_id
    assert whole and profile_at(world.store, left, together).golden
    world.erase(gone)

    with pytest.raises(HistoryNotKept):
        profile_at(world.store, left, together)
    assert profile_at(world.store, left, alone).golden, "what was before they were one stays"


def test_a_held_profile_is_not_erased(world: World) -> None:
    eraser = Eraser(world.store, world.vault, others_know_after=0)
    eraser.check(world.of("till/0"))
    former = world.of("till/0").aliases[0]
    world.store.holds.insert(StoredHold("case-1", "profile", former, "court", "user:legal"))
    world.store.holds.insert(StoredHold("case-2", "source", "till", "court", "user:legal"))
    world.store.holds.insert(StoredHold("case-3", "profile", world.of("till/1").profile_id, "court", "user:legal"))
    world.store.holds.insert(StoredHold("case-4", "everything", "", "court", "user:legal", expire_time=NOW))
    with pytest.raises(ProfileHeld) as refusal:
        eraser.check(world.of("till/0"))
    assert refusal.value.metadata["holds"] == "legalHolds/case-1,legalHolds/case-2"
    operation = start_erasing(world.jobs, world.of("till/0").profile_id, "DSR-1", OWNER, "")
    Worker("profiles", eraser.handlers(), world.operations).run_one()

    assert "held" in world.jobs.get(operation.name, OWNER.department).error.message
    assert world.of("till/0").golden


def test_an_import_that_runs_while_a_person_is_erased_brings_nothing_of_them_back(world: World) -> None:
    before = world.of("till/0")
    operation = start_erasing(world.jobs, before.profile_id, "DSR-1", OWNER, "")
    done, failures = threading.Event(), []

    def send() -> None:
        number = 0
        while not done.is_set():
            number += 1
            try:
                world.take("till", ("0", {**person(0), "email": f"again{number}@example.cn"}), ("1", person(1)))
            except Exception as error:
                failures.append(error)

    sender = threading.Thread(target=send)
    sender.start()
    eraser = Eraser(world.store, world.vault, others_know_after=1.3)
    worker = Worker("profiles", eraser.handlers(), world.operations)
    while not world.operations.get(operation.name)["done"]:
        worker.run_one()
    threading.Event().wait(0.3)
    done.set()
    sender.join()

    assert failures == []
    receipt_of(world.jobs.get(operation.name, OWNER.department))
    assert world.store.by_record_keys(["till/0"]) == []
    assert all(item.is_erased for item in world.store.profiles([before.profile_id]).values())


def test_a_restored_backup_does_not_bring_an_erased_person_back(tmp_path: Path) -> None:
    world = World(tmp_path / "keys").fill()
    before, state = world.of("till/0"), world.state()
    backup = copy.deepcopy({name: value for name, value in vars(world.store).items() if name not in ("_lock",)
                            and not hasattr(value, "_lock")})  # fmt: skip
    world.erase("till/0")
    for name, value in backup.items():  # all but the ledger, data keys included
        setattr(world.store, name, value)
    assert world.of("till/0").golden and world.store.data_keys([before.key_id])

    assert replay(world.store, world.jobs) == 1
    with pytest.raises(ErasedError):
        world.vault.open_golden(before, world.vault.ciphers(world.store, [before]))
    worker = Worker("profiles", world.keepers(), world.operations)
    while worker.run_one():
        pass
    assert_erased(world, before, {key: value for key, value in state.items() if key != before.profile_id})
    assert replay(world.store, world.jobs) == 0


def test_erasures_are_told_again_to_services_whose_backup_was_restored(tmp_path: Path) -> None:
    world = World(tmp_path / "keys").fill()
    before = world.of("till/0")
    world.erase("till/0")
    world.erase("till/1")
    [told] = [fact.message for fact in world.store.facts if is_end_of(fact, before)]
    world.store.facts.clear()
    soon = datetime.now(UTC) + timedelta(hours=1)
    assert (retell(world.store, world.jobs, soon), retell(world.store, world.jobs, NOW)) == (0, 2)
    worker = Worker("profiles", world.keepers(), world.operations)
    while worker.run_one():
        pass

    [again] = [fact.message for fact in world.store.facts if is_end_of(fact, before)]
    assert set(again.names) == set(told.names) == {before.profile_id, *before.aliases}
    assert again.version == told.version + 1
    assert len(world.store.facts) == 2 * 3, "both facts of each name"
    assert all(item.is_erased for item in world.store.profiles(list(again.names)).values())
    assert retell(world.store, world.jobs, NOW) == 2


def is_end_of(fact: Fact, profile: Profile) -> bool:
    return isinstance(fact.message, ProfileErased) and fact.message.profile_id == profile.profile_id


def test_a_backup_opens_nothing_once_its_master_key_is_retired(tmp_path: Path) -> None:
    world = World(tmp_path / "keys").fill()
    backup = world.store.page_data_keys("", 1000)
    [old] = world.vault.master.versions()
    world.run(ROTATE_MASTER, create_key=True)
    progress_of(world.run(RETIRE_MASTER, key=old))

    for key_id, wrapped in backup.items():
        with pytest.raises(SealBroken):
            world.vault.master.unwrap({key_id: wrapped})
