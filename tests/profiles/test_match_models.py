"""A company's own match model: learnt from its records and verdicts, shown first, switched by two people, undone."""

from __future__ import annotations

import random
from dataclasses import replace
from datetime import UTC, datetime

import numpy as np
import pytest
from google.longrunning import operations_pb2
from kehu.profiles.v1 import matching_pb2 as pb
from kehu.profiles.v1 import resolution_pb2

from services.chassis.errors import EtagMismatch
from services.chassis.jobs import Owner, Worker
from services.profiles import remembered
from services.profiles.domain.comparison import LEVELS
from services.profiles.domain.match import compare
from services.profiles.domain.model import completed, default_model, model_from_json, model_to_json
from services.profiles.domain.training import Lesson, Material, Patterns, train
from services.profiles.errors import MatchModelNotInUse, MatchModelOutdated, SecondPersonNeeded
from services.profiles.folding import Incoming
from services.profiles.resolution.resolving import RESOLVE
from services.profiles.store import Store
from services.profiles.taking import Taker
from services.profiles.training import models as models_module
from services.profiles.training.learning import TRAIN, Learner
from services.profiles.training.models import Models
from services.profiles.training.values import StoredModel
from services.profiles.values import Pair
from tests.profiles.conftest import SECOND, Desk, desk
from tests.profiles.domain.builders import record
from tests.profiles.killing import OnMongo, until
from tests.profiles.people import GIVEN, SURNAMES, Service, person
from tests.profiles.test_store import mongo_store, store

__all__ = ["desk", "mongo_store", "store"]
SHIPPED = default_model().version
STRICT = 45.0  # bits that no pair of these people reaches


def with_slips(number: int, dice: random.Random) -> dict[str, str]:
    """Return a person's second record, as another desk would have written it."""
    fields = person(number)
    if dice.random() < 0.2:
        fields["phone"] = f"137{dice.randrange(10**8):08d}"
    if dice.random() < 0.3:
        del fields["email"]
    if dice.random() < 0.1:
        fields["birth_date"] = f"{fields['birth_date'][:-1]}{dice.randrange(1, 9)}"
    if dice.random() < 0.2:
        fields["address"] = f"浙江省杭州市西湖区文一路{dice.randrange(900)}号"
    if dice.random() < 0.1:
        fields["name"] = dice.choice(SURNAMES) + dice.choice(GIVEN)
    return fields


def fill(service: Service, people: range = range(400)) -> None:
    """Take two records of each person in."""
    dice = random.Random(7)
    batch = []
    for number in people:
        sides = (("till", person(number)), ("shop", with_slips(number, dice)))
        for made in (record(str(number), source_id=source, **fields) for source, fields in sides):
            content = service.vault.token("content", repr(made))
            batch.append(Incoming(made, content, service.vault.tokens(made)))
    for start in range(0, len(batch), 100):
        service.taker.take(batch[start : start + 100])


def work(service: Service) -> bool:
    learner = Learner(service.store, service.vault, service.models)
    return Worker("profiles", learner.handlers(), service.operations).run_one()


def trained(desk: Desk, **asked: object) -> pb.MatchModel:
    operation = desk.call("TrainMatchModel", pb.TrainMatchModelRequest(**asked))
    assert work(desk.service)
    done, model = desk.service.jobs.get(operation.name, "data-office"), pb.MatchModel()
    assert done.response.Unpack(model), done.error
    return model


def read(desk: Desk, name: str = "matchModels/in-use") -> pb.MatchModel:
    return desk.call("GetMatchModel", pb.GetMatchModelRequest(name=name))


def activate(name: str) -> pb.ActivateMatchModelRequest:
    return pb.ActivateMatchModelRequest(name=name, reason="own data")


def rollback(name: str) -> pb.RollbackMatchModelRequest:
    return pb.RollbackMatchModelRequest(name=name, reason="more questions than before")


def test_a_model_is_learnt_shown_activated_by_a_second_person_and_undone(desk: Desk) -> None:
    fill(desk.service)
    model = trained(desk)

    weights = {(item.comparison, item.level): item for item in model.levels}
    assert weights["phone", "same"].weight > 5 > 0 > weights["birth_date", "other"].weight
    assert weights["phone", "same"].weight_before == pytest.approx(default_model().weights["phone"]["same"])
    assert {item.key for item in model.lessons} >= {"phone", "email", "name_birth"}
    assert (model.base, model.author) == (f"matchModels/{SHIPPED}", "user:test")
    effect = model.effect
    assert 400 <= effect.people_after <= 450 and 400 <= effect.people_before <= 450
    assert sum(item.pair_count for item in effect.pair_moves) >= 300
    assert read(desk).name == f"matchModels/{SHIPPED}", "nothing is decided by it before"

    assert desk.refused("ActivateMatchModel", activate(model.name)) == "SECOND_PERSON_NEEDED"
    used = desk.call("ActivateMatchModel", activate(model.name), caller=SECOND)
    assert used.in_use and read(desk).name == model.name
    assert desk.service.taker._model().version == model.name.rpartition("/")[2]

    back = desk.call("RollbackMatchModel", rollback(model.name))
    assert (back.name, back.in_use) == (f"matchModels/{SHIPPED}", True)
    assert desk.refused("RollbackMatchModel", rollback(model.name)) == "MATCH_MODEL_NOT_IN_USE"
    listed = desk.call("ListMatchModels", pb.ListMatchModelsRequest())
    assert [item.name for item in listed.match_models] == [model.name]
    assert [(item.by, item.rolled_back) for item in listed.switches] == [("user:second", False), ("user:test", True)]


def test_what_would_be_decided_otherwise_is_shown_by_pairs_people_and_verdicts(desk: Desk) -> None:
    fill(desk.service)
    desk.service.store.pairs.insert(Pair("p", "a", "b", 9.0, 0.99, STEPS, state="confirmed"))
    desk.service.store.pairs.insert(Pair("q", "a", "c", 9.0, 0.99, STEPS, state="rejected"))
    desk.service.store.pairs.insert(Pair("r", "a", "d", 9.0, 0.99, STEPS))
    model = trained(desk, merge_weight=STRICT, review_weight=STRICT - 1)

    moves = {(item.before, item.after): item.pair_count for item in model.effect.pair_moves}
    assert moves["merge", "apart"] > 10
    assert model.effect.people_after > model.effect.people_before
    assert model.effect.people_parted > 10 and model.effect.people_joined == 0
    samples = [item for item in model.effect.samples if (item.before, item.after) == ("merge", "apart")]
    assert len(samples) == 10 and all(len(set(item.source_records)) == 2 for item in samples)
    said = {item.same_person: item.verdict_count for item in model.effect.verdict_moves}
    assert said == {True: 1, False: 1}, "an open question is no verdict"
    text = str(model)
    assert not any(person(number)[name] in text for number in range(400) for name in ("name", "phone", "email"))


STEPS = (("prior", "", -12.0), ("name", "exact", 9.0), ("name", "frequency", -1.0), ("phone", "same", 13.0))


def test_too_little_data_teaches_nothing_and_says_so(desk: Desk) -> None:
    fill(desk.service, range(30))
    operation = desk.call("TrainMatchModel", pb.TrainMatchModelRequest())
    assert work(desk.service)
    found = desk.service.jobs.get(operation.name, "data-office")
    assert found.HasField("error") and "MATCH_MODEL_NOT_LEARNT" in str(found.error)
    assert not desk.call("ListMatchModels", pb.ListMatchModelsRequest()).match_models


def test_asking_about_more_than_what_merges_is_refused(desk: Desk) -> None:
    request = pb.TrainMatchModelRequest(merge_weight=2, review_weight=5)
    assert desk.refused("TrainMatchModel", request) in ("INVALID_ARGUMENT", "INVALID_REQUEST", "INVALID")
    assert desk.refused("GetMatchModel", pb.GetMatchModelRequest(name="matchModels/none")) == "MATCH_MODEL_NOT_FOUND"


def stored(version: str, base: str = SHIPPED, merge: float = 500.0) -> StoredModel:
    model = replace(default_model(), version=version, merge_weight=merge, review_weight=merge)
    return StoredModel(version, model_to_json(model), base, "{}", "user:first")


def test_a_model_compared_with_another_than_the_one_in_use_is_not_activated(store: Store) -> None:
    store.match_models.add_missing([stored("a"), stored("b"), stored("c", base="a")])
    models = Models(store)
    assert models().version == SHIPPED
    with pytest.raises(SecondPersonNeeded):
        models.activate("a", "user:first", "why")
    models.activate("a", "user:second", "why")
    with pytest.raises(MatchModelOutdated):
        models.activate("b", "user:second", "why")
    assert models().version == "a"
    models.activate("c", "user:second", "why")
    models.activate("c", "user:second", "a repeat changes nothing")
    with pytest.raises(MatchModelNotInUse):
        models.roll_back("a", "user:second", "why")
    models.roll_back("c", "user:first", "why")
    assert models().version == "a"
    models.roll_back("a", "user:first", "why")
    assert models().version == SHIPPED
    assert [item[:2] for item in map(list, models.use().switches)] == [
        ["activate", "a"], ["activate", "c"], ["roll_back", "c"], ["roll_back", "a"],
    ]  # fmt: skip


def test_the_model_in_use_is_as_strict_as_the_base_is_large(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    store.match_models.add_missing([stored("a")])
    shipped, base = default_model(), 0
    monkeypatch.setattr(type(store), "estimate_profiles", lambda _: base)
    monkeypatch.setattr(models_module, "COUNTED_SECONDS", 0.0)
    models = Models(store)
    assert models().crowd_weight == 0.0
    base = 30_000_000
    assert models.now().crowd_weight == -13.0
    models.activate("a", "user:second", "why")
    assert (models().version, models().crowd_weight) == ("a", -13.0)
    old = model_to_json(replace(shipped, version="old", people=0))
    store.match_models.add_missing([replace(stored("old", base="a"), content=old)])
    models.activate("old", "user:second", "why")
    assert (models().version, models().crowd_weight) == ("old", -13.0), "who does not say among how many it was learnt"
    base = shipped.people
    assert models.now().crowd_weight == 0.0


def test_how_strict_the_base_makes_the_model_in_use_is_shown(desk: Desk, monkeypatch: pytest.MonkeyPatch) -> None:
    shown = read(desk)
    assert (shown.learnt_people, shown.crowd_weight) == (default_model().people, 0.0)
    monkeypatch.setattr(desk.service.models, "_people", lambda: 30_000_000)
    desk.service.store.match_models.add_missing([stored("b")])
    assert read(desk).crowd_weight == -13.0
    assert read(desk, "matchModels/b").crowd_weight == 0.0, "it decides nothing"


def test_of_two_people_who_switch_at_once_one_is_refused(store: Store) -> None:
    store.match_models.add_missing([stored("a"), stored("b")])
    one, other = Models(store), Models(store)
    for first in (True, False):
        was = other.use()
        one.activate("a", "user:second", "why")
        with pytest.raises(EtagMismatch):
            other._switch(was, ["b"], ["activate", "b", "user:third", "why"])
        assert other.use().models[-1] == "a"
        if first:
            one.roll_back("a", "user:second", "why")


def test_another_process_follows_a_switch_within_seconds(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    now = [100.0]
    monkeypatch.setattr(remembered.time, "monotonic", lambda: now[0])
    here, there = Models(store), Models(store)
    assert there().version == SHIPPED
    store.match_models.add_missing([stored("a")])
    here.activate("a", "user:second", "why")
    assert (here().version, there().version) == ("a", SHIPPED)
    now[0] += 2.1
    assert there().version == "a"


def test_single_writes_and_the_full_pass_decide_by_the_model_in_use(desk: Desk) -> None:
    service = desk.service
    service.store.match_models.add_missing([stored("strict")])
    service.models.activate("strict", "user:second", "why")
    same = person(3)
    slipped = {**same, "name": "张三丰", "address": "上海市黄浦区人民大道200号"}  # merges by weight alone, if at all
    one = desk.upsert("till", "1", {**same, "name": "张三凤", "address": slipped["address"]})
    other = desk.upsert("shop", "1", slipped)
    assert one != other, "no weight is enough"

    args = {"merge_limit": 10, "minutes": 0, "start": datetime(2026, 1, 1, tzinfo=UTC).isoformat()}

    def full_pass() -> resolution_pb2.ResolutionProgress:
        owner, progress = Owner("user:test", "data-office"), resolution_pb2.ResolutionProgress()
        operation = service.jobs.start(RESOLVE, args, progress, owner)
        assert service.worker().run_one()
        done = service.jobs.get(operation.name, "data-office")
        assert done.response.Unpack(progress), done.error
        return progress

    strict = full_pass()
    assert (strict.model_version, strict.profiles_merged) == ("strict", 0)
    service.models.roll_back("strict", "user:second", "why")
    shipped = full_pass()
    assert (shipped.model_version, shipped.profiles_merged) == (SHIPPED, 1)
    assert desk.profile(other).name == desk.profile(one).name


@pytest.mark.parametrize("is_growth", [False, True])
def test_a_pass_that_meets_a_switch_or_many_more_people_plans_anew(
    desk: Desk, monkeypatch: pytest.MonkeyPatch, is_growth: bool
) -> None:
    service = desk.service
    service.store.match_models.add_missing([stored("strict")])
    unknown = Taker(service.store, service.vault, default_model, service.dictionary)
    for source in ("till", "shop"):  # without tokens nobody is found, as under older blocking keys
        for number in range(4):
            made = record(str(number), source_id=source, **{**person(number), "name": ""})
            unknown.take([Incoming(made, service.vault.token("content", repr(made)), [])])
    look, looked = service.resolver._looker.look, []

    def switching(item: dict) -> object:
        looked.append(item)
        if len(looked) == 2 and is_growth:
            monkeypatch.setattr(service.models, "_people", lambda: 30_000_000)
            service.models.now()
        elif len(looked) == 2:
            service.models.activate("strict", "user:second", "why")
        return look(item)

    planned, plan = [], service.resolver._make_plan
    monkeypatch.setattr(service.resolver._looker, "look", switching)
    monkeypatch.setattr(service.resolver, "_make_plan", lambda *given: planned.append(plan(*given)))
    args = {"merge_limit": 10, "minutes": 0, "start": datetime(2026, 1, 1, tzinfo=UTC).isoformat()}
    progress = resolution_pb2.ResolutionProgress()
    operation = service.jobs.start(RESOLVE, args, progress, Owner("user:test", "data-office"))
    assert service.worker().run_one()
    assert service.jobs.get(operation.name, "data-office").response.Unpack(progress)
    assert progress.model_version == (SHIPPED if is_growth else "strict")
    assert len(planned) == 2


def test_a_model_learnt_before_a_level_was_known_gives_it_no_weight() -> None:
    model = default_model()
    odds = {name: {level: odd for level, odd in levels.items() if level not in ("grams", "street")}
            for name, levels in model.odds.items() if name != "gender"}  # fmt: skip
    found = completed(replace(model, odds=odds))
    assert {name: tuple(levels) for name, levels in found.weights.items()} == LEVELS
    assert (found.weights["name"]["grams"], found.weights["gender"]["other"]) == (0.0, 0.0)
    assert found.weights["phone"] == model.weights["phone"]
    one, other = record("1", **person(1)), record("2", **person(1))
    assert compare(one, other, found).band == compare(one, other, model).band


def patterns(rows: dict[tuple[int, ...], int]) -> Patterns:
    return Patterns(np.array(list(rows)), np.array(list(rows.values())))


def test_verdicts_of_people_move_what_is_learnt_towards_them() -> None:
    levels = {"a": ("same", "other"), "b": ("same", "other")}
    chance = patterns({(1, 1): 100, (1, 2): 900, (2, 1): 900, (2, 2): 8100})
    met = patterns({(1, 1): 600, (1, 2): 300, (2, 1): 100, (2, 2): 500})

    def m_of_same(**judged: Patterns) -> float:
        model = train(Material(levels, chance, [Lesson("key", met, (), **judged)], 1e6), "v", (5, 0))
        assert model.report["lessons"][0]["judged"] == sum(int(item.counts.sum()) for item in judged.values())
        return model.odds["b"]["same"][0]

    nobody = m_of_same()
    assert m_of_same(one=patterns({(1, 2): 250})) < nobody - 0.02, "one person may well differ in b"
    assert m_of_same(two=patterns({(1, 2): 250})) > nobody + 0.02


def test_a_training_killed_in_its_middle_ends_with_one_model_as_if_nothing_had_happened(database: OnMongo) -> None:
    service = Service(database.keys, database.store)
    fill(service)
    args = {"version": "20260101-aaaaaaaa", "merge": 7.0, "review": 1.0, "profile_limit": 0}
    owner = Owner("user:test", "sales")
    operation = database.jobs.start(TRAIN, args, pb.TrainingProgress(), owner)
    for reached in (progress_of, lambda *_: True):
        process = database.worker()
        until(lambda reached=reached: reached(database, operation))
        process.kill()
        process.wait()
        assert not database.store.match_models.page({}, "", 10), "nothing is half there"
        database.expire_lease(operation)
    database.finish(operation)
    (found,) = database.store.match_models.page({}, "", 10)
    again = database.jobs.start(TRAIN, {**args, "version": "20260101-bbbbbbbb"}, pb.TrainingProgress(), owner)
    learner = Learner(database.store, database.vault, Models(database.store))
    assert Worker("profiles", learner.handlers()).run_one()
    assert database.jobs.get(again.name, "sales").HasField("response")
    other = database.store.match_models.get("20260101-bbbbbbbb")
    one, two = (model_from_json(item.content) for item in (found, other))
    for name in LEVELS:
        for level in LEVELS[name]:
            assert one.odds[name][level][0] == pytest.approx(two.odds[name][level][0], abs=1e-3)


def progress_of(database: OnMongo, operation: operations_pb2.Operation) -> bool:
    progress = pb.TrainingProgress()
    database.jobs.get(operation.name, "sales").metadata.Unpack(progress)
    return progress.profiles_read > 0
