"""The full pass ends in the clusters of the records alone, from whatever order single writes took them in."""

from __future__ import annotations

import random
import subprocess
import sys
from collections.abc import Iterable, Iterator, Sequence
from datetime import UTC, datetime, timedelta

import orjson
import pytest
from google.longrunning import operations_pb2
from google.protobuf import any_pb2
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from kehu.profiles.v1 import resolution_pb2

from infra.sample.generate import generate
from infra.sample.reading import read_records
from services.chassis.jobs import Jobs, MemoryOperations, Owner, Worker
from services.chassis.jobs.worker import ATTEMPTS
from services.profiles.dictionary import Dictionary
from services.profiles.domain.model import MatchModel, default_model
from services.profiles.domain.values import StandardRecord
from services.profiles.errors import MatchModelNotFound, ProfileNotFound
from services.profiles.folding import Incoming
from services.profiles.resolution.full_pass import FullPass, records_of
from services.profiles.resolution.people import newest_versions, resolve
from services.profiles.resolution.planning import ITEMS_PER_PART, ChildEngine
from services.profiles.resolution.resolving import RESOLVE, Resolver
from services.profiles.reviewing import Reviews
from services.profiles.store import MemoryStore
from services.profiles.taking import Taker
from services.profiles.values import Profile
from services.profiles.vault import Vault
from tests.profiles.conftest import Desk
from tests.profiles.domain.builders import record
from tests.profiles.test_jobs import finish

Partition = frozenset[frozenset[str]]


class InProcess:
    """The engine without a process of its own."""

    def differences(self, model, pages: Iterable[bytes]) -> Iterator[dict]:
        found = FullPass()
        for page in pages:
            for profile_id, records in records_of(orjson.loads(page)):
                found.add(profile_id, records)
        yield from (orjson.loads(orjson.dumps(item)) for item in found.differences(model))


class House:
    """A store with what writes into it and passes over it."""

    def __init__(self, vault: Vault, engine=None) -> None:
        self.store, self.vault, self.model = MemoryStore(), vault, default_model
        self.taker = Taker(self.store, vault, self.model, Dictionary(self.store))
        self.merger = self.taker.merger
        self.operations = MemoryOperations()
        self.resolver = Resolver(self.store, vault, self.merger, self.model, engine or InProcess())
        self.worker = Worker("profiles", self.resolver.handlers(), self.operations)
        self.number = 0

    def take(self, records: Iterable[StandardRecord], at_once: int = 1) -> None:
        items = list(records)
        for start in range(0, len(items), at_once):
            self.taker.take([self.incoming(item) for item in items[start : start + at_once]])

    def incoming(self, item: StandardRecord) -> Incoming:
        content = self.vault.token("content", repr(item))
        return Incoming(item, content, self.vault.tokens(item))

    def full_pass(self, limit: int = 10**6, **args: object) -> resolution_pb2.ResolutionProgress:
        start = datetime(2026, 1, 1, tzinfo=UTC).isoformat()
        operation = Jobs("profiles", self.operations).start(
            RESOLVE, {"merge_limit": limit, "minutes": 0, "start": start, **args},
            resolution_pb2.ResolutionProgress(), Owner("user:office", "data"),
        )  # fmt: skip
        while not self.done(operation).done:
            self.worker.run_one()
        found = resolution_pb2.ResolutionProgress()
        ended = self.done(operation)
        assert ended.response.Unpack(found), ended.error
        return found

    def done(self, operation: operations_pb2.Operation) -> operations_pb2.Operation:
        return Jobs("profiles", self.operations).get(operation.name, "data")

    def partition(self) -> Partition:
        return frozenset(frozenset(item.record_keys) for item in self.store.page_profiles("", 10**6, ()))

    def home(self, key: str):
        return self.store.by_record_keys([key])[0]

    def answer_doubts(self, state: str) -> int:
        reviews = Reviews(self.store, self.merger, "user:steward", lambda _: True)
        found = [pair for pair in self.store.pairs.page({"state": "check"}, "", 10**6) if pair.is_doubt]
        found = reviews.still_open(found)
        for pair in found:
            done = reviews.decide(pair, state, "looked")
            if pair.needs_second:
                Reviews(self.store, self.merger, "user:second", lambda _: True).decide(done, state, "too")
        return len(found)


@pytest.fixture(scope="module")
def vault(tmp_path_factory: pytest.TempPathFactory) -> Vault:
    return Vault(tmp_path_factory.mktemp("keys"))


def batch(records: Sequence[StandardRecord]) -> Partition:
    found = resolve(records, default_model())
    return frozenset(frozenset("/".join(key) for key in item.keys) for item in found)


@pytest.fixture(scope="module")
def sample(tmp_path_factory: pytest.TempPathFactory) -> list[StandardRecord]:
    directory = generate(tmp_path_factory.mktemp("sample")).directory
    records = read_records(directory, datetime(2026, 11, 1, tzinfo=UTC))
    accepted = newest_versions(item for item in records if not item.is_rejected)
    wanted = {item.key for item in accepted if item.name and item.name.surname in "王李张刘陈杨赵黄周吴"}
    return [item for item in accepted if item.key in wanted][:4000]


@pytest.mark.parametrize("seed", [0, 1])
def test_the_sample_ends_in_one_partition_from_any_order(sample, vault, seed) -> None:
    house, expected = House(vault), batch(sample)
    records = list(sample)
    random.Random(seed).shuffle(records)
    house.take(records, 500)
    before = house.partition()
    told = house.full_pass()

    assert len(before & expected) > 0.99 * len(expected)  # single writes come near it by themselves
    assert (told.records_read, told.clusters) == (len(sample), len(expected))
    house.answer_doubts("rejected")
    house.full_pass()
    assert house.partition() == expected
    again = house.full_pass()
    assert (again.profiles_merged, again.questions, again.doubts) == (0, 0, 0)


PEOPLE = st.lists(
    st.fixed_dictionaries(
        {
            "name": st.sampled_from(("王建国", "王建", "王健国", "李建国", "李娜", "王", "")),
            "phone": st.sampled_from(("", "13912345671", "13912345672", "18698765432")),
            "email": st.sampled_from(("", "wang@b.cn", "li@c.cn")),
            "birth_date": st.sampled_from(("", "1990-01-02", "1990-02-01", "1955-05-05")),
            "gender": st.sampled_from(("", "男", "女")),
            "address": st.sampled_from(("", "北京市朝阳区建国路1号", "浙江省杭州市西湖区文三路2号")),
            "is_unique": st.sampled_from((False, False, True)),
        }
    ),
    min_size=2, max_size=9,
)  # fmt: skip


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(PEOPLE, st.randoms(use_true_random=False))
def test_random_people_end_in_one_partition_from_any_order(vault, people, dice) -> None:
    made = [record(str(at), source_id=f"s{at % 3}{fields['is_unique']}", **fields) for at, fields in enumerate(people)]
    records = [item for item in made if not item.is_rejected]
    expected = batch(records)
    for _ in range(3):
        house = House(vault)
        house.take(records)
        house.full_pass()
        for _ in range(4):
            if not house.answer_doubts("rejected"):
                break
            house.full_pass()
        assert house.partition() == expected
        dice.shuffle(records)


WANG = {"name": "王建国", "phone": "13912345671", "birth_date": "1990-01-02"}


def split_apart(house: House) -> tuple[str, str]:
    """Return two profiles that are one person by the records, and that nobody ruled apart."""
    house.take([record("1", **WANG), record("2", **WANG), record("3", **WANG)])
    home = house.home("till/1")
    house.merger.split(home.profile_id, ["till/3"], "f" * 32)
    for item in house.store.page_profiles("", 10, ()):
        item.apart = []
        house.store.write_profiles([(item, [])])
    assert len(house.partition()) == 2
    return home.profile_id, "f" * 32


def test_a_dry_run_counts_shows_samples_without_a_persons_data_and_changes_nothing(vault) -> None:
    house = House(vault)
    older, younger = split_apart(house)
    told = house.full_pass(limit=0)

    assert told.dry_run and (told.profiles_merged, told.merges_planned, told.clusters) == (1, 1, 1)
    assert len(house.partition()) == 2
    (sample,) = told.samples
    assert set(sample.profiles) == {f"profiles/{older}", f"profiles/{younger}"}
    assert {step.comparison: step.level for step in sample.steps}["phone"] == "same"
    assert "王" not in str(told) and "1391234" not in str(told)


def test_the_oldest_id_survives_and_the_other_one_leads_to_it(vault) -> None:
    house = House(vault)
    older, younger = split_apart(house)
    told = house.full_pass()

    (profile,) = house.store.page_profiles("", 10, ())
    assert (profile.profile_id, told.profiles_merged) == (older, 1)
    assert younger in profile.aliases
    assert sorted(profile.record_keys) == ["till/1", "till/2", "till/3"]


def test_what_a_steward_ruled_apart_is_never_joined_nor_asked_about(vault) -> None:
    house = House(vault)
    one, other = split_apart(house)
    house.merger.keep_apart(one, other)
    told = house.full_pass()

    assert len(house.partition()) == 2
    assert (told.profiles_merged, told.questions, told.doubts) == (0, 0, 0)


@pytest.mark.parametrize("is_check", [False, True])
def test_of_two_who_were_ruled_apart_a_record_joins_the_one_it_fits_best(vault, monkeypatch, is_check) -> None:
    monkeypatch.setattr("services.profiles.folding.is_sampled", lambda _: is_check)
    house, known = House(vault), {"name": "祝抒远", "phone": "13857120946"}
    son = {**known, "email": "son@example.com", "birth_date": "1991-02-03"}
    house.take([record("father", **known, birth_date="1960-05-06"), record("son", **son)], at_once=2)
    house.merger.split(house.home("till/father").profile_id, ["till/son"], "f" * 32)
    house.take([record("new", source_id="shop", **son)])

    expected = frozenset((frozenset(("till/father",)), frozenset(("till/son", "shop/new"))))
    assert house.partition() == expected
    assert house.full_pass().doubts == 0
    checks = [pair for pair in house.store.pairs.page({"state": "check"}, "", 9) if pair.record == "shop/new"]
    levels = [{comparison: level for comparison, level, _ in pair.steps} for pair in checks]
    assert [found["birth_date"] for found in levels] == ["same"] * is_check


def test_more_merges_than_allowed_change_nothing(vault) -> None:
    house = House(vault)
    for number in range(2):
        fields = {**WANG, "phone": f"1391234567{number}", "birth_date": f"199{number}-01-0{number + 2}"}
        house.take([record(f"{number}a", **fields), record(f"{number}b", **fields)])
        house.merger.split(house.home(f"till/{number}a").profile_id, [f"till/{number}b"], f"{number}" * 32)
    for item in house.store.page_profiles("", 10, ()):
        item.apart = []
        house.store.write_profiles([(item, [])])
    before = house.partition()
    with pytest.raises(AssertionError, match="more profiles"):
        house.full_pass(limit=1)

    assert house.partition() == before
    assert house.full_pass(limit=2).profiles_merged == 2


def strangers_in_one(house: House, by: str = "") -> str:
    """Return a profile that holds two persons, joined by the model or by a steward."""
    house.take([record("1", **WANG), record("2", name="李娜", phone="18698765432", birth_date="1971-05-05")])
    return house.merger.merge([house.home("till/1").profile_id, house.home("till/2").profile_id], by)


def test_what_single_writes_joined_and_the_pass_would_not_is_asked_and_never_split_by_itself(vault) -> None:
    house = House(vault)
    home = strangers_in_one(house)
    told = house.full_pass()

    assert told.doubts == 1
    assert len(house.partition()) == 1
    assert house.full_pass().doubts == 0, "one question is asked once"
    (pair,) = [pair for pair in house.store.pairs.page({"state": "check"}, "", 10) if pair.is_doubt]
    assert (pair.one, pair.model) == (home, default_model().version)
    assert house.answer_doubts("rejected") == 1
    assert house.partition() == frozenset((frozenset(("till/1",)), frozenset(("till/2",))))
    assert house.full_pass().profiles_merged == 0


def test_a_doubt_that_a_steward_settled_is_settled_for_ever(vault) -> None:
    house = House(vault)
    strangers_in_one(house)
    house.full_pass()
    assert house.answer_doubts("confirmed") == 1

    assert house.full_pass().doubts == 0
    assert len(house.partition()) == 1


def test_what_a_person_merged_is_not_doubted(vault) -> None:
    house = House(vault)
    strangers_in_one(house, by="user:steward")

    assert house.full_pass().doubts == 0


def test_a_question_is_not_asked_again_under_a_new_name_of_a_profile(vault) -> None:
    house = House(vault)
    twin = {**WANG, "name": "王丽华"}
    house.take([record("1", **WANG), record("2", **twin)])
    asked = house.store.pairs.page({"state": "open"}, "", 10)
    assert len(asked) == 1
    assert house.full_pass().questions == 0

    house.take([record("0", name="赵一", phone="18600000001", birth_date="1950-01-09")])
    stranger = house.home("till/0").profile_id
    for name in ("till/1", "till/2"):
        other = house.home(name)
        if other.profile_id != stranger:
            house.merger.merge([stranger, other.profile_id], "user:steward")
            break
    assert house.full_pass().questions == 0


def test_a_record_that_came_during_the_pass_is_kept_and_a_merge_is_looked_at_again(vault) -> None:
    class Busy(InProcess):
        def differences(self, model, pages):
            yield from super().differences(model, pages)
            house.take([record("3", **{**WANG, "name": "李娜", "phone": "18698765432", "birth_date": "1971-05-05"})])
            house.take([record("4", name="钱七", phone="18600000002")])

    house = House(vault, Busy())
    split_apart(house)
    house.full_pass()

    keys = {key for group in house.partition() for key in group}
    assert keys == {"till/1", "till/2", "till/3", "till/4"}
    assert frozenset(("till/1", "till/2")) in house.partition(), "the changed record no longer fits"


def test_the_child_process_finds_what_this_process_finds(vault) -> None:
    found = []
    for engine in (InProcess(), ChildEngine()):
        house = House(vault, engine)
        split_apart(house)
        told = house.full_pass()
        found.append((house.partition(), told.profiles_merged, told.clusters))

    assert found[0] == found[1]
    assert told.peak_kilobytes > 0


def test_a_child_that_dies_fails_the_pass_and_leaves_the_profiles(vault, monkeypatch) -> None:
    house = House(vault, ChildEngine())
    split_apart(house)
    monkeypatch.setattr("services.profiles.resolution.planning.sys.executable", "/bin/false")

    with pytest.raises(RuntimeError, match="ended"):
        list(ChildEngine().differences(default_model(), [b"[]"]))
    assert len(house.partition()) == 2


def test_the_serving_and_the_working_process_load_no_compiled_code() -> None:
    names = "{name.split('.')[0] for name in sys.modules}"
    script = f"import sys, services.profiles.main; print({names} & {{'numba', 'llvmlite', 'pyarrow'}})"
    assert subprocess.check_output([sys.executable, "-c", script], text=True).strip() == "set()"


def test_a_schedule_begins_when_asked_and_repeats_until_cancelled(vault) -> None:
    house = House(vault)
    split_apart(house)
    start = datetime.now(UTC) + timedelta(hours=1)
    jobs = Jobs("profiles", house.operations)
    operation = jobs.start(
        RESOLVE, {"merge_limit": 5, "minutes": 1440, "start": start.isoformat()},
        resolution_pb2.ResolutionProgress(), Owner("user:office", "data"),
    )  # fmt: skip
    house.worker.run_one()
    assert len(house.partition()) == 2

    stored = house.operations.get(operation.name)
    earlier = (start - timedelta(hours=2)).isoformat()
    due = {"args": {**stored["args"], "start": earlier}, "wake_at": datetime.now(UTC)}
    house.operations.update(operation.name, stored["lease"], due)
    house.worker.run_one()
    progress = resolution_pb2.ResolutionProgress()
    jobs.get(operation.name, "data").metadata.Unpack(progress)
    stored = house.operations.get(operation.name)
    assert (progress.passes, progress.profiles_merged, stored["done"]) == (1, 1, False)
    wait = stored["wake_at"] - datetime.now(UTC)
    assert timedelta(hours=22, minutes=50) < wait < timedelta(hours=23, minutes=5)
    jobs.cancel(operation.name, "data")
    assert house.operations.get(operation.name)["done"]


def scheduled(house: House) -> dict:
    """Run a nightly pass once; return its operation as it is stored."""
    start = (datetime.now(UTC) - timedelta(hours=1)).isoformat()
    operation = Jobs("profiles", house.operations).start(
        RESOLVE, {"merge_limit": 5, "minutes": 1440, "start": start},
        resolution_pb2.ResolutionProgress(), Owner("user:office", "data"),
    )  # fmt: skip
    house.worker.run_one()
    return house.operations.get(operation.name)


def last_failure(stored: dict) -> str:
    progress = resolution_pb2.ResolutionProgress()
    any_pb2.Any(**stored["metadata"]).Unpack(progress)
    return progress.last_failure


def test_people_who_are_erased_after_the_look_end_no_pass(vault, monkeypatch) -> None:
    house = House(vault)
    split_apart(house)

    def erased(*_: object) -> str:
        raise ProfileNotFound("the profiles were erased")

    monkeypatch.setattr(house.merger, "merge", erased)
    stored = scheduled(house)

    assert (stored["done"], last_failure(stored)) == (False, "")


def test_a_doubt_about_somebody_who_is_erased_meanwhile_ends_no_pass(vault, monkeypatch) -> None:
    house = House(vault)
    strangers_in_one(house)
    look = house.resolver._looker.look

    def erasing(item: dict) -> object:
        found = look(item)
        for profile in house.store.page_profiles("", 9, ()):
            gone = Profile(profile.profile_id, profile.create_time, profile.update_time, version=profile.version)
            house.store.write_profiles([(gone, [])])
        return found

    monkeypatch.setattr(house.resolver._looker, "look", erasing)
    stored = scheduled(house)

    assert (stored["attempts"], stored["note"], last_failure(stored)) == (0, "until the next pass", "")


def test_a_schedule_notes_whatever_refuses_a_pass_and_goes_on_at_its_next_time(vault, monkeypatch) -> None:
    house = House(vault)
    split_apart(house)

    def missing() -> MatchModel:
        raise MatchModelNotFound("there is no such model")

    monkeypatch.setattr(house.resolver, "_model", missing)
    stored = scheduled(house)

    assert (stored["done"], last_failure(stored)) == (False, "MATCH_MODEL_NOT_FOUND")
    assert stored["wake_at"] > datetime.now(UTC) + timedelta(hours=22)


@pytest.mark.parametrize("items", [0, ITEMS_PER_PART])
def test_a_pass_whose_child_always_dies_is_given_up(vault, items: int) -> None:
    class Dying:
        def differences(self, _model, pages):
            list(pages)
            yield from [{"kind": "merge", "profiles": ["a", "b"]}] * items
            raise RuntimeError("the resolving process ended with -9")

    house = House(vault, Dying())
    split_apart(house)
    stored = scheduled(house)
    for _ in range(ATTEMPTS - 1):
        assert not stored["done"]
        house.operations.update(stored["_id"], stored["lease"], {"wake_at": datetime.now(UTC)})
        house.worker.run_one()
        stored = house.operations.get(stored["_id"])

    assert stored["done"] and stored["error"]["reason"] == "JOB_FAILED"


def test_a_data_office_starts_a_pass_by_a_call_and_others_may_not(desk: Desk) -> None:
    desk.upsert("till", "1", WANG)
    operation = desk.call("ResolveProfiles", resolution_pb2.ResolveProfilesRequest(request_id="r1"))
    assert operation == desk.call("ResolveProfiles", resolution_pb2.ResolveProfilesRequest(request_id="r1"))
    found = resolution_pb2.ResolutionProgress()
    assert finish(desk.service, operation).response.Unpack(found)
    assert found.dry_run and (found.profiles_read, found.clusters) == (1, 1)
