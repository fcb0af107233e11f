"""Lifecycle stages: one each, by rules that show their effect first, through time, merges, splits and crashes."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from google.longrunning import operations_pb2
from hypothesis import given
from hypothesis import strategies as st
from kehu.analytics.v1.events_pb2 import ScoresComputed
from kehu.profiles.v1 import events_pb2, profiles_pb2, resources_pb2
from kehu.profiles.v1 import lifecycle_pb2 as pb

from services.chassis.consuming import Event
from services.chassis.errors import Unavailable
from services.chassis.jobs import Worker
from services.profiles.ageing.staging import (
    STAGE_CHANGED,
    STAGE_DAILY,
    SUGGESTED,
    Measured,
    Stager,
    domain_lifecycle,
    lifecycles,
    start,
)
from services.profiles.domain.lifecycle import Condition, Figures, Lifecycle, Measure, StageRule, united
from services.profiles.errors import ScoresMissing
from services.profiles.events import ProfilesConsumer
from services.profiles.store import Store
from services.profiles.values import Profile, Unstaged
from tests.profiles.conftest import Desk
from tests.profiles.people import Service, person, source_request
from tests.profiles.test_store import mongo_store, profile, record, store, write

__all__ = ["mongo_store", "store"]
NAME = "lifecycles/default"
NOW = datetime(2026, 6, 1, tzinfo=UTC)
STAGES = domain_lifecycle(1, SUGGESTED)
NONE = Figures()


def bought(days_ago: int, first: int = 400, baskets: int = 3, f: int = 3, m: int = 3) -> Figures:
    return Figures(baskets, 10_000 * baskets, days_ago, first, 3, f, m)


@pytest.mark.parametrize(
    ("figures", "stage"),
    [
        (NONE, "potential"),
        (replace(NONE, registered_days=9999, tier="gold"), "potential"),
        (bought(0, first=0, baskets=1), "new"),
        (bought(30, first=30), "new"),
        (bought(30, first=31), "active"),
        (bought(90, f=4, m=4), "loyal"),
        (bought(90, f=5, m=3), "active"),
        (bought(91, f=5, m=5), "dormant"),
        (bought(365), "dormant"),
        (bought(366), "churned"),
        (Figures(2, 100, 10, None, 3, 3, 3), "active"),
    ],
)
def test_the_suggested_rules_give_the_stage_that_the_trade_expects(figures: Figures, stage: str) -> None:
    assert STAGES.stage_of(figures) == stage


def test_bounds_are_included_tiers_are_sets_and_the_unknown_is_within_no_bounds() -> None:
    between = Condition(Measure.RECENCY_DAYS, 10, 20)
    assert [between.holds(replace(NONE, recency_days=days)) for days in (9, 10, 20, 21)] == [False, True, True, False]
    assert not Condition(Measure.RECENCY_DAYS, None, 10**9).holds(NONE)
    assert not Condition(Measure.RECENCY_DAYS, 0, None).holds(NONE)
    assert Condition(Measure.BASKETS, None, 0).holds(NONE)
    tier = Condition(Measure.TIER, tiers=frozenset(("gold",)))
    assert tier.holds(replace(NONE, tier="gold")) and not tier.holds(NONE)


counts = st.none() | st.integers(-5, 800)
measures = st.sampled_from([item for item in Measure if item is not Measure.TIER])
conditions = st.builds(Condition, measures, counts, counts)
some_rules = st.lists(
    st.builds(StageRule, st.sampled_from("abcdef"), st.lists(conditions, max_size=3).map(tuple)), max_size=6
)
some_figures = st.builds(Figures, st.integers(0, 50), st.integers(-100, 10**6), counts, counts, counts, counts, counts)


@given(some_rules, some_figures)
def test_exactly_one_stage_applies_and_it_is_the_first_that_holds(rules: list[StageRule], figures: Figures) -> None:
    stage = Lifecycle(1, tuple(rules), "none").stage_of(figures)
    holding = [rule.stage for rule in rules if all(item.holds(figures) for item in rule.conditions)]
    assert stage == (holding[0] if holding else "none")


@given(st.lists(some_figures, max_size=5), st.randoms())
def test_figures_of_several_ids_are_one_persons_in_any_order(parts: list[Figures], random: object) -> None:
    shuffled = list(parts)
    random.shuffle(shuffled)  # type: ignore[attr-defined]
    assert united(shuffled) == united(parts)
    assert united(parts).baskets == sum(part.baskets for part in parts)


def test_only_time_passes_without_an_event() -> None:
    assert bought(80, f=1).later(11) == bought(91, first=411, f=1)
    assert NONE.later(1000) == NONE


def test_stage_time_and_revision_are_kept_and_shown_as_they_were(store: Store) -> None:
    at = datetime(2026, 1, 2, tzinfo=UTC)
    write(store, replace(profile("a", record(1)), stage="active", stage_time=at, stage_revision=3))
    (found,) = store.by_record_keys(["till/1"])
    assert (found.stage, found.stage_time, found.stage_revision) == ("active", at, 3)
    store.keep_past([found.past()])
    past = store.past_versions(found.profile_id, 99, 1)[0]
    assert (past.stage, past.stage_time, past.stage_revision) == ("active", at, 3)


class Club:
    """A desk whose customers buy; `figures` by profile id are what analytics measured at `cutoff`."""

    def __init__(self, desk: Desk) -> None:
        self.desk, self.call, self.store = desk, desk.call, desk.service.store
        self.figures: dict[str, Figures] = {}
        self.cutoff: datetime | None = datetime.now(UTC)
        self.ended = datetime.now(UTC)
        self.asked = 0
        self.asked_for: list[list[str]] = []
        service = desk.service
        self.stager = Stager(self.store, service.vault, service.tools.dictionary, self.ask, page=2, settles=0)
        self.consumer = ProfilesConsumer(self.store, service.jobs)

    def ask(self, profile_ids: Sequence[str]) -> Measured:
        self.asked += 1
        if self.cutoff is None:
            raise ScoresMissing("none")
        self.asked_for.append(list(profile_ids))
        return Measured(self.cutoff, self.ended, {key: self.figures[key] for key in profile_ids if key in self.figures})

    def customer(self, number: int, figures: Figures | None = None) -> str:
        name = self.desk.upsert("till", f"T-{number}", person(number))
        if figures:
            self.figures[name.rpartition("/")[2]] = figures
        return name

    def work(self) -> bool:
        return Worker("profiles", self.stager.handlers(), self.desk.service.operations).run_one()

    def run(self, method: str, **fields: object) -> operations_pb2.Operation:
        request = {"PreviewLifecycle": pb.PreviewLifecycleRequest, "EvaluateLifecycle": pb.EvaluateLifecycleRequest}
        started = self.call(method, request[method](name=NAME, **fields))
        self.work()
        return self.desk.service.jobs.get(started.name, "data-office")

    def effect(self, method: str) -> tuple[pb.LifecycleEffect, dict[tuple[str, str], int]]:
        effect, operation = pb.LifecycleEffect(), self.run(method)
        assert operation.response.Unpack(effect), operation
        return effect, {(item.from_stage, item.to_stage): item.profile_count for item in effect.moves}

    def activate(self) -> None:
        revision = self.call("GetLifecycle", pb.GetLifecycleRequest(name=NAME)).revision
        self.run("PreviewLifecycle")
        self.call("ActivateLifecycle", pb.ActivateLifecycleRequest(name=NAME, revision=revision))
        assert self.work()

    def stages(self, *names: str) -> list[str]:
        return [self.desk.profile(name).stage for name in names]


@pytest.fixture
def club(desk: Desk) -> Club:
    return Club(desk)


def test_the_rules_show_who_would_move_and_change_nothing_before_they_are_used(club: Club) -> None:
    fresh, loyal, nobody = club.customer(1, bought(1, 1)), club.customer(2, bought(5, f=5, m=5)), club.customer(3)
    facts = len(club.store.facts)

    effect, moves = club.effect("PreviewLifecycle")

    assert moves == {("", "new"): 1, ("", "loyal"): 1, ("", "potential"): 1}
    assert (effect.profiles_read, effect.preview, effect.revision) == (3, True, 1)
    assert club.stages(fresh, loyal, nobody) == ["", "", ""]
    assert len(club.store.facts) == facts
    rules = club.call("ActivateLifecycle", pb.ActivateLifecycleRequest(name=NAME, revision=1))
    assert rules.active_revision == 1
    club.work()
    assert club.stages(fresh, loyal, nobody) == ["new", "loyal", "potential"]


def test_a_change_of_the_rules_is_a_revision_that_shows_its_matrix_before_it_counts(club: Club) -> None:
    names = [club.customer(number, bought(50)) for number in range(3)]
    club.activate()
    change = pb.UpdateLifecycleRequest(lifecycle=pb.Lifecycle(name=NAME, default_stage="potential"))
    stage = change.lifecycle.stages.add(stage="vip", display_name="贵宾")
    stage.conditions.add(measure=pb.StageCondition.MEASURE_BASKETS, at_least=3)
    changed = club.call("UpdateLifecycle", change)
    assert (changed.revision, changed.active_revision) == (2, 1)
    activate = pb.ActivateLifecycleRequest(name=NAME, revision=2)
    assert club.desk.refused("ActivateLifecycle", activate) == "RULE_NOT_TRIED"

    assert club.effect("PreviewLifecycle")[1] == {("active", "vip"): 3}
    assert club.stages(*names) == ["active"] * 3
    club.call("ActivateLifecycle", activate)
    club.work()
    assert club.stages(*names) == ["vip"] * 3
    assert club.desk.profile(names[0]).stage_revision == 2


@pytest.mark.parametrize(
    "condition",
    [
        {"measure": pb.StageCondition.MEASURE_BASKETS},
        {"measure": pb.StageCondition.MEASURE_BASKETS, "at_least": 3, "at_most": 2},
        {"measure": pb.StageCondition.MEASURE_BASKETS, "at_least": 3, "tiers": ["gold"]},
        {"measure": pb.StageCondition.MEASURE_TIER},
        {"measure": pb.StageCondition.MEASURE_TIER, "tiers": ["gold"], "at_least": 1},
    ],
)
def test_a_condition_that_says_nothing_or_cannot_hold_is_refused(club: Club, condition: dict[str, object]) -> None:
    change = pb.UpdateLifecycleRequest(lifecycle=pb.Lifecycle(name=NAME, default_stage="potential"))
    change.lifecycle.stages.add(stage="vip").conditions.add(**condition)
    assert club.desk.refused("UpdateLifecycle", change) == "RULE_INVALID"


def test_a_stage_is_told_kept_in_history_and_written_once(club: Club) -> None:
    name = club.customer(1, bought(50))
    before = datetime.now(UTC)
    facts = len(club.store.facts)
    club.activate()

    (told,) = [fact.message for fact in club.store.facts[facts:]]
    assert isinstance(told, events_pb2.ProfileChanged)
    assert (told.stage, told.version) == ("active", 2)
    assert before <= told.stage_time.ToDatetime(tzinfo=UTC) <= datetime.now(UTC)
    newest = club.desk.history(name)[0]
    assert (newest.kind, list(newest.changed_fields)) == (resources_pb2.ProfileRevision.KIND_STAGED, ["stage"])
    shown = club.desk.profile(name)
    assert (shown.stage, shown.stage_revision, shown.stage_time) == ("active", 1, told.stage_time)

    club.effect("EvaluateLifecycle")
    assert club.desk.profile(name).version == 2
    club.desk.upsert("till", "T-1", {**person(1), "phone": "13700001111"}, "2035-01-01T00:00:00Z")
    assert club.desk.profile(name).stage_time == told.stage_time
    assert club.store.facts[-1].message.stage == "active"
    past = profiles_pb2.GetProfileRequest(name=name)
    past.as_of.FromDatetime(before)
    assert club.call("GetProfile", past).stage == ""


def test_days_pass_without_an_event_and_the_daily_job_sees_it(club: Club) -> None:
    name = club.customer(1, bought(80))
    club.activate()
    assert club.stages(name) == ["active"]
    club.cutoff = datetime.now(UTC) - timedelta(days=11)
    start(club.desk.service.jobs)
    start(club.desk.service.jobs)

    while club.work():
        pass

    assert club.stages(name) == ["dormant"]
    documents = [item for item in club.desk.service.operations._documents.values() if item["open"]]
    assert sorted(str(item["kind"]) for item in documents) == sorted((STAGE_DAILY, STAGE_CHANGED))
    daily = next(item for item in documents if item["kind"] == STAGE_DAILY)
    assert daily["wake_at"] > datetime.now(UTC) + timedelta(hours=23)  # type: ignore[operator]


def test_computed_scores_are_followed_once_for_each_computation(club: Club) -> None:
    name = club.customer(1)
    club.activate()
    club.figures[name.rpartition("/")[2]] = bought(1, 1)
    told = ScoresComputed(name="scores/rfm", version=7)
    event = Event("e1", "scores/rfm", datetime.now(UTC), 7, told)

    club.consumer.on_scores_computed(event)
    club.consumer.on_scores_computed(event)

    assert club.work()
    assert club.stages(name) == ["new"]
    assert not club.work()


def test_who_has_only_deleted_records_has_no_stage_and_gets_one_again_when_they_return(club: Club) -> None:
    desk = club.desk
    name = club.customer(1, bought(50))
    half = desk.upsert("shop", "S-1", person(1))
    assert half == name
    club.activate()
    assert club.stages(name) == ["active"]
    facts = len(club.store.facts)

    desk.upsert("shop", "S-1", {"record_deleted": "true"}, "2035-01-01T00:00:00Z")
    assert club.stages(name) == ["active"]
    desk.upsert("till", "T-1", {"record_deleted": "true"}, "2035-01-01T00:00:00Z")

    assert club.stages(name) == [""]
    told = club.store.facts[-1].message
    assert (told.stage, told.stage_time.ToDatetime(tzinfo=UTC) > club.cutoff) == ("", True)
    assert "stage" in club.desk.history(name)[0].changed_fields
    assert len(club.store.facts) - facts == 2
    effect, moves = club.effect("EvaluateLifecycle")
    assert (effect.profiles_read, moves, club.stages(name)) == (1, {}, [""])

    desk.upsert("till", "T-1", person(1), "2036-01-01T00:00:00Z")
    assert club.effect("EvaluateLifecycle")[1] == {("", "active"): 1}


def test_who_was_erased_or_merged_away_is_in_no_stage_and_nothing_is_told_of_them(club: Club) -> None:
    one, other, gone = (club.customer(number, bought(50)) for number in (1, 2, 3))
    club.activate()
    ids = [name.rpartition("/")[2] for name in (one, other, gone)]
    club.desk.service.taker.merger.merge(ids[:2])
    club.store.write_profiles(
        [(replace(Profile(ids[2], NOW, NOW), version=club.store.profiles([ids[2]])[ids[2]].version), [])]
    )
    club.store.unstaged.add_missing([Unstaged(ids[2]), Unstaged(ids[1])])
    facts = len(club.store.facts)

    effect, _ = club.effect("EvaluateLifecycle")
    start(club.desk.service.jobs)
    while club.work():
        pass

    assert (effect.profiles_read, unstaged(club), len(club.store.facts)) == (1, [], facts)


def test_former_ids_are_asked_for_only_where_somebody_was_merged_since_the_computation(club: Club) -> None:
    names = [club.customer(number, bought(50, baskets=2)) for number in (1, 2, 3)]
    ids = [name.rpartition("/")[2] for name in names]
    club.activate()
    club.desk.service.taker.merger.merge(ids[:2])
    club.asked_for.clear()

    club.effect("EvaluateLifecycle")
    assert club.asked_for == [sorted([ids[0], ids[2]]), [ids[1]]]

    club.ended = datetime.now(UTC) + timedelta(hours=1, seconds=1)
    club.asked_for.clear()
    club.effect("EvaluateLifecycle")
    assert club.asked_for == [sorted([ids[0], ids[2]])]


def test_who_parts_is_looked_at_when_analytics_had_time_to_score_them_anew(club: Club) -> None:
    name = club.customer(1, bought(50))
    club.activate()
    club.stager = Stager(club.store, club.desk.service.vault, club.desk.service.tools.dictionary, club.ask, settles=60)
    start(club.desk.service.jobs)
    club.store.unstaged.add_missing([Unstaged(name.rpartition("/")[2])])
    while club.work():
        pass
    assert unstaged(club) == [name.rpartition("/")[2]]


def unstaged(club: Club) -> list[str]:
    return [item.id for item in club.store.unstaged.page({}, "", 99)]


def test_a_merge_and_a_split_are_looked_at_again(club: Club) -> None:
    desk = club.desk
    one, other = club.customer(1, bought(400, baskets=1)), club.customer(2, bought(50, baskets=1))
    club.activate()
    assert club.stages(one, other) == ["churned", "active"]
    ids = [name.rpartition("/")[2] for name in (one, other)]
    start(desk.service.jobs)
    while club.work():
        pass

    desk.service.taker.merger.merge(ids)
    deliver(club)
    assert unstaged(club) == [ids[0]]
    again(club)
    assert (club.stages(one, other), unstaged(club)) == (["active", "active"], [])

    record_name = resources_pb2.SourceRecordName(source="sources/till", source_record_id="T-2")
    request = profiles_pb2.UnmergeProfileRequest(name=one, source_records=[record_name], reason="two people")
    split = desk.call("UnmergeProfile", request)
    deliver(club)
    again(club)
    assert club.stages(split.profile.name, split.new_profile.name) == ["churned", "active"]


def deliver(club: Club) -> None:
    """Deliver what was told of merges and splits, twice."""
    handlers = {
        events_pb2.ProfilesMerged: club.consumer.on_profiles_merged,
        events_pb2.ProfilesUnmerged: club.consumer.on_profiles_unmerged,
    }
    for fact in club.store.facts:
        if type(fact.message) in handlers:
            event = Event("e", fact.subject, datetime.now(UTC), fact.version, fact.message)
            for _ in range(2):
                handlers[type(fact.message)](event)


def again(club: Club) -> None:
    """Let the job that looks at changed profiles come now."""
    operations = club.desk.service.operations
    for document in list(operations._documents.values()):
        if document["kind"] == STAGE_CHANGED:
            operations.update(str(document["_id"]), str(document["lease"]), {"wake_at": datetime.now(UTC)})
    assert club.work()


def test_a_profile_that_changes_while_it_is_looked_at_is_looked_at_again(club: Club) -> None:
    name = club.customer(1, bought(50))
    club.activate()
    profile_id = name.rpartition("/")[2]
    start(club.desk.service.jobs)
    while club.work():
        pass
    club.store.unstaged.add_missing([Unstaged(profile_id)])
    merged = events_pb2.ProfilesMerged(profile_id=profile_id, merged_profile_id="f" * 32)
    event = Event("e", "profiles/x", datetime.now(UTC), 1, merged)
    told = []
    ask = club.ask

    def meanwhile(ids: Sequence[str]) -> Measured:
        if not told:
            told.append(club.consumer.on_profiles_merged(event))
        return ask(ids)

    club.stager._ask = meanwhile
    asked = club.asked
    again(club)
    assert unstaged(club) == [profile_id]
    again(club)
    assert club.asked - asked == 2
    assert unstaged(club) == []


def test_without_scores_nobody_is_given_a_stage(club: Club) -> None:
    name = club.customer(1, bought(50))
    club.activate()
    club.cutoff = None

    failed = club.run("EvaluateLifecycle")

    assert "compute them first" in failed.error.message or failed.error.code
    assert club.stages(name) == ["active"]


def test_analytics_that_is_down_is_waited_for(club: Club) -> None:
    club.customer(1, bought(50))
    ask = club.ask

    def down(_: Sequence[str]) -> Measured:
        raise Unavailable("down")

    club.stager._ask = down
    operation = club.run("PreviewLifecycle")
    assert not operation.done
    club.stager._ask = ask
    operations = club.desk.service.operations
    document = operations.get(operation.name)
    assert document is not None
    operations.update(operation.name, str(document["lease"]), {"wake_at": datetime.now(UTC)})
    club.work()
    assert club.desk.service.jobs.get(operation.name, "data-office").done


class Died(BaseException):
    """The process is gone."""


@pytest.mark.parametrize("dies_at", range(1, 7))
def test_killed_anywhere_and_run_again_everybody_is_in_their_stage_and_was_told_once(
    tmp_path: Path, dies_at: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    service = Service(tmp_path / "keys")
    with service.serving() as harness:
        desk = Desk(service, harness)
        desk.call("CreateSource", source_request("till"))
        club = Club(desk)
        names = [club.customer(number, bought(50)) for number in range(5)]
        rules = lifecycles(club.store)
        rules.keep_trial("default", 1, pb.LifecycleEffect(revision=1))
        rules.activate(NAME, 1, "user:test")
        started = club.call("EvaluateLifecycle", pb.EvaluateLifecycleRequest(name=NAME))
        facts, left, do = len(club.store.facts), [dies_at], club.store.write_profiles

        def mortal(*args: object) -> list[str]:
            left[0] -= 1
            if left[0] == 0:
                raise Died
            found = do(*args)  # type: ignore[arg-type]
            left[0] -= 1
            if left[0] == 0:
                raise Died
            return found

        monkeypatch.setattr(club.store, "write_profiles", mortal)
        with pytest.raises(Died):
            club.work()
        document = service.operations.get(started.name)
        assert document is not None
        service.operations.update(started.name, str(document["lease"]), {"wake_at": datetime.now(UTC)})
        club.work()

        assert club.stages(*names) == ["active"] * 5
        assert [fact.message.stage for fact in club.store.facts[facts:]] == ["active"] * 5


def test_who_loses_a_race_is_looked_at_again(club: Club, monkeypatch: pytest.MonkeyPatch) -> None:
    name = club.customer(1, bought(50))
    do, raced = club.store.write_profiles, []

    def beaten(changes: object) -> list[str]:
        if not raced:
            raced.append(True)
            club.desk.upsert("till", "T-1", {**person(1), "phone": "13700001111"}, "2035-01-01T00:00:00Z")
        return do(changes)  # type: ignore[arg-type]

    rules = lifecycles(club.store)
    rules.keep_trial("default", 1, pb.LifecycleEffect(revision=1))
    rules.activate(NAME, 1, "user:test")
    monkeypatch.setattr(club.store, "write_profiles", beaten)
    _, moves = club.effect("EvaluateLifecycle")
    assert moves == {("", "active"): 1}
    assert (club.stages(name), club.desk.profile(name).version) == (["active"], 3)
