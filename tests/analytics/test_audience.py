"""Audiences equal those of a reading of the rule by hand, on random data with merges, deletions and unknowns."""

from __future__ import annotations

import random
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from kehu.analytics.v1 import audience_pb2 as pb

from services.analytics.audiences import Audiences
from services.analytics.domain.audience import MAX_DEPTH, compile_audience
from services.analytics.domain.errors import InvalidAudienceRule
from services.analytics.domain.reach import Reach
from services.analytics.domain.rfm import SEGMENTS
from services.analytics.domain.tables import ALIASES, CHINA, INTERACTIONS, PROFILES, SCORES
from services.analytics.engine import Engine
from services.analytics.lake import Lake, rows_table
from services.analytics.warehouse import Warehouse
from services.chassis.access import Condition

NOON = datetime(2025, 3, 15, 12, tzinfo=UTC)
CATEGORIES = ("milk", "tea", None)
TYPES = ("order_completed", "store_visited")
TRAITS = {
    "province_code": ("110000", "310000", "440000"),
    "gender": ("male", "female"),
    "tier": ("gold", "silver"),
    "stage": ("active", "dormant", "churned"),
    "owner_department": ("sales", "marketing"),
}


@dataclass(repr=False)
class World:
    """The same data as rows and as a lake."""

    profiles: list[dict[str, object]]
    events: list[dict[str, object]]
    survivors: dict[str, str]
    scores: dict[str, dict[str, object]]
    audiences: Audiences


def _random_rows(rng: random.Random) -> tuple[list[dict[str, object]], list[dict[str, object]]]:
    profiles: list[dict[str, object]] = []
    for number in range(120):
        row: dict[str, object] = {name: rng.choice((*values, None)) for name, values in TRAITS.items()}
        row |= {
            "profile_id": f"p{number:03d}",
            "version": 1,
            "deleted": rng.random() < 0.05,
            "birth_year": rng.choice((None, *range(1950, 2010))),
            "event_time": NOON,
            "part": "recent" if number % 3 else "base",
        }
        profiles.append(row)
    events: list[dict[str, object]] = []
    for number in range(1500):
        at = NOON - timedelta(minutes=rng.randrange(60 * 24 * 400))
        events.append(
            {
                "message_id": f"m{number}",
                "profile_id": f"p{rng.randrange(140):03d}",
                "event_type": rng.choice(TYPES),
                "event_time": at,
                "amount_cents": rng.randrange(-500, 5000),
                "category": rng.choice(CATEGORIES),
                "basket_id": rng.choice((None, f"b{number // 3}")),
                "month": at.strftime("%Y-%m"),
            }
        )
    return profiles, events


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> Iterator[World]:
    rng = random.Random(7)
    folder: Path = tmp_path_factory.mktemp("world")
    lake = Lake(folder / "lake")
    lake.create()
    engine = Engine(folder / "spill")
    warehouse = Warehouse(lake, engine)
    profiles, events = _random_rows(rng)
    links = {"p003": "p004", "p004": "p005", "p020": "p021"}
    for row in profiles:
        row["merged_into"] = links.get(str(row["profile_id"]))
    scores = {
        f"p{number:03d}": {
            "profile_id": f"p{number:03d}",
            **{name: rng.randrange(1, 6) for name in ("rfm_recency", "rfm_frequency", "rfm_monetary")},
            "rfm_segment": rng.choice(list(SEGMENTS)),
        }
        for number in range(0, 120, 2)
    }
    aliases = [
        {"profile_id": old, "survivor_id": new, "event_time": NOON, "part": "recent"} for old, new in links.items()
    ]
    warehouse.add(PROFILES, rows_table(PROFILES, profiles))
    warehouse.add(INTERACTIONS, rows_table(INTERACTIONS, events))
    warehouse.add(ALIASES, rows_table(ALIASES, aliases))
    warehouse.add(SCORES, rows_table(SCORES, list(scores.values())))
    survivors = {"p003": "p005", "p004": "p005", "p020": "p021"}
    yield World(profiles, events, survivors, scores, Audiences(warehouse))
    engine.close()


def compare(left: object, operator: int, values: list[object]) -> bool | None:
    if left is None:
        return None
    right = values[0]
    return {
        pb.OPERATOR_EQ: left == right,
        pb.OPERATOR_NE: left != right,
        pb.OPERATOR_IN: left in values,
        pb.OPERATOR_LT: operator == pb.OPERATOR_LT and left < right,  # type: ignore[operator]
        pb.OPERATOR_LE: operator == pb.OPERATOR_LE and left <= right,  # type: ignore[operator]
        pb.OPERATOR_GT: operator == pb.OPERATOR_GT and left > right,  # type: ignore[operator]
        pb.OPERATOR_GE: operator == pb.OPERATOR_GE and left >= right,  # type: ignore[operator]
    }[operator]


def measured(world: World, profile_id: str, condition: pb.EventCondition, cutoff: datetime) -> int:
    taken = [
        event
        for event in world.events
        if world.survivors.get(str(event["profile_id"]), event["profile_id"]) == profile_id
        and event["event_type"] == condition.event_type
        and condition.category in ("", event["category"])
        and (not condition.within_days or event["event_time"] > cutoff - timedelta(condition.within_days))
    ]
    if condition.measure == pb.MEASURE_SUM_CENTS:
        return sum(int(str(event["amount_cents"])) for event in taken)
    if condition.measure == pb.MEASURE_DISTINCT_DAYS:
        return len({event["event_time"].astimezone(CHINA).date() for event in taken})  # type: ignore[attr-defined]
    if condition.measure == pb.MEASURE_DISTINCT_BASKETS:
        return len({event["basket_id"] or event["message_id"] for event in taken})
    return len(taken)


def holds(world: World, profile: dict[str, object], rule: pb.AudienceRule, cutoff: datetime) -> bool | None:
    """Three-valued reading of a rule: None is unknown."""
    kind = rule.WhichOneof("rule")
    if kind in ("all", "any"):
        parts = [holds(world, profile, child, cutoff) for child in getattr(rule, kind).rules]
        decisive = kind == "any"
        if decisive in parts:
            return decisive
        return None if None in parts else not decisive
    if kind == "not":
        inner = holds(world, profile, getattr(rule, "not"), cutoff)
        return None if inner is None else not inner
    if kind == "event":
        value = measured(world, str(profile["profile_id"]), rule.event, cutoff)
        return compare(value, rule.event.operator, [rule.event.value])
    if kind == "score":
        found = world.scores.get(str(profile["profile_id"]), {}).get(rule.score.score)
        numeric = rule.score.score != "rfm_segment"
        return compare(found, rule.score.operator, [int(v) if numeric else v for v in rule.score.values])
    if rule.trait.trait == "age":
        born = profile["birth_year"]
        age = None if born is None else cutoff.astimezone(CHINA).year - int(str(born))
        return compare(age, rule.trait.operator, [int(value) for value in rule.trait.values])
    return compare(profile[rule.trait.trait], rule.trait.operator, list(rule.trait.values))


def by_hand(world: World, rule: pb.AudienceRule, cutoff: datetime) -> list[str]:
    return [
        str(profile["profile_id"])
        for profile in world.profiles
        if not profile["deleted"] and not profile["merged_into"] and holds(world, profile, rule, cutoff) is True
    ]


ORDERED = (pb.OPERATOR_EQ, pb.OPERATOR_NE, pb.OPERATOR_LT, pb.OPERATOR_LE, pb.OPERATOR_GT, pb.OPERATOR_GE)
EQUAL = (pb.OPERATOR_EQ, pb.OPERATOR_NE)


def trait(name: str, operator: pb.Operator, *values: str) -> pb.AudienceRule:
    return pb.AudienceRule(trait=pb.TraitCondition(trait=name, operator=operator, values=values))


def every(*rules: pb.AudienceRule) -> pb.AudienceRule:
    return pb.AudienceRule(all=pb.RuleGroup(rules=rules))


def some(*rules: pb.AudienceRule) -> pb.AudienceRule:
    return pb.AudienceRule(any=pb.RuleGroup(rules=rules))


def negated(rule: pb.AudienceRule) -> pb.AudienceRule:
    return pb.AudienceRule(**{"not": rule})


def orders(operator: pb.Operator, value: int, **options: object) -> pb.AudienceRule:
    options.setdefault("measure", pb.MEASURE_COUNT)
    return pb.AudienceRule(
        event=pb.EventCondition(event_type="order_completed", operator=operator, value=value, **options)  # type: ignore[arg-type]
    )


plain_traits = st.sampled_from(sorted(TRAITS)).flatmap(
    lambda name: st.one_of(
        st.builds(trait, st.just(name), st.sampled_from(EQUAL), st.sampled_from(TRAITS[name])),
        st.builds(lambda value: trait(name, pb.OPERATOR_IN, value, "elsewhere"), st.sampled_from(TRAITS[name])),
    )
)
ages = st.builds(lambda operator, age: trait("age", operator, str(age)), st.sampled_from(ORDERED), st.integers(15, 80))
events = st.builds(
    lambda kind, measure, operator, value, days, category: pb.AudienceRule(
        event=pb.EventCondition(
            event_type=kind,
            measure=measure,
            operator=operator,
            value=value,
            within_days=days,
            category=category,
        )
    ),
    st.sampled_from((*TYPES, "never_seen")),
    st.sampled_from((1, 2, 3, 4)),
    st.sampled_from(ORDERED),
    st.integers(-100, 9000) | st.integers(0, 8),
    st.sampled_from((0, 7, 30, 200)),
    st.sampled_from(("", "milk")),
)
numeric_scores = st.builds(
    lambda name, operator, value: pb.AudienceRule(
        score=pb.ScoreCondition(score=name, operator=operator, values=[str(value)])
    ),
    st.sampled_from(("rfm_recency", "rfm_frequency", "rfm_monetary")),
    st.sampled_from(ORDERED),
    st.integers(1, 5),
)
segments = st.builds(
    lambda operator, value: pb.AudienceRule(
        score=pb.ScoreCondition(score="rfm_segment", operator=operator, values=[value])
    ),
    st.sampled_from((*EQUAL, pb.OPERATOR_IN)),
    st.sampled_from(sorted(SEGMENTS)),
)
rules = st.recursive(
    st.one_of(plain_traits, ages, events, numeric_scores, segments),
    lambda inner: st.one_of(
        st.lists(inner, min_size=1, max_size=4).map(lambda found: every(*found)),
        st.lists(inner, min_size=1, max_size=4).map(lambda found: some(*found)),
        inner.map(negated),
    ),
    max_leaves=8,
)


@settings(max_examples=150, deadline=None)
@given(rule=rules)
def test_an_audience_is_what_a_reading_by_hand_finds(world: World, rule: pb.AudienceRule) -> None:
    pinned = world.audiences.pin()
    page = world.audiences.page(rule, pinned, 0, 500)

    assert by_hand(world, rule, pinned.cutoff) == list(page.profile_ids)


@settings(max_examples=40, deadline=None)
@given(rule=rules)
def test_the_count_is_the_number_of_ids(world: World, rule: pb.AudienceRule) -> None:
    pinned = world.audiences.pin()
    counted = world.audiences.count(rule, pinned)

    assert counted == len(world.audiences.page(rule, pinned, 0, 500).profile_ids)
    assert counted == world.audiences.count(rule, pinned)


@settings(max_examples=30, deadline=None)
@given(rule=rules, other=rules)
def test_one_more_condition_never_adds_and_one_more_choice_never_removes(
    world: World, rule: pb.AudienceRule, other: pb.AudienceRule
) -> None:
    pinned = world.audiences.pin()

    def members(asked: pb.AudienceRule) -> set[str]:
        return set(world.audiences.page(asked, pinned, 0, 500).profile_ids)

    assert members(every(rule, other)) == members(rule) & members(other)
    assert members(some(rule, other)) >= members(rule) | members(other)
    assert not members(rule) & members(negated(rule))


def test_a_condition_or_its_negation_takes_all_whose_trait_is_known(world: World) -> None:
    female = trait("gender", pb.OPERATOR_EQ, "female")
    found = world.audiences.page(some(female, negated(female)), world.audiences.pin(), 0, 500)
    live = [row for row in world.profiles if not row["deleted"] and not row["merged_into"]]

    assert [row["profile_id"] for row in live if row["gender"]] == list(found.profile_ids)


def test_events_recorded_under_a_merged_id_count_for_the_survivor(world: World) -> None:
    at_least = sum(
        event["profile_id"] in ("p003", "p004", "p005") and event["event_type"] == "order_completed"
        for event in world.events
    )
    rule = orders(pb.OPERATOR_GE, at_least)

    assert "p005" in world.audiences.page(rule, world.audiences.pin(), 0, 500).profile_ids


def test_pages_join_to_the_whole(world: World) -> None:
    pinned = world.audiences.pin()
    rule = orders(pb.OPERATOR_GE, 1)
    whole = world.audiences.page(rule, pinned, 0, 500)
    ids: list[str] = []
    offset = 0
    while True:
        page = world.audiences.page(rule, pinned, offset, 7)
        ids += page.profile_ids
        offset = page.next_offset
        if not offset:
            break

    assert list(whole.profile_ids) == ids
    assert whole.total == len(ids)


def test_values_never_become_sql() -> None:
    hostile = "x' OR '1'='1"
    rule = every(trait("tier", pb.OPERATOR_EQ, hostile), orders(pb.OPERATOR_GE, 1, category=hostile))
    query = compile_audience(rule, NOON, has_aliases=True)

    assert hostile not in query.sql
    assert list(query.params.values()).count(hostile) == 2


@pytest.mark.parametrize(
    "rule",
    [
        pb.AudienceRule(),
        every(),
        trait("phone", pb.OPERATOR_EQ, "138"),
        trait("gender", pb.OPERATOR_GT, "male"),
        trait("gender", pb.OPERATOR_EQ, "male", "female"),
        trait("gender", pb.OPERATOR_EQ),
        trait("age", pb.OPERATOR_GE, "-1"),
        trait("age", pb.OPERATOR_GE, "old"),
        orders(pb.OPERATOR_IN, 1),
        orders(pb.OPERATOR_GE, 1, within_days=4000),
        orders(pb.OPERATOR_GE, 1, measure=0),
        pb.AudienceRule(score=pb.ScoreCondition(score="luck", operator=1, values=["5"])),
        pb.AudienceRule(score=pb.ScoreCondition(score="rfm_recency", operator=1, values=["6"])),
        pb.AudienceRule(score=pb.ScoreCondition(score="rfm_segment", operator=1, values=["nobody"])),
        pb.AudienceRule(score=pb.ScoreCondition(score="rfm_segment", operator=6, values=["champions"])),
        every(*[every(*[orders(pb.OPERATOR_GE, 1) for _ in range(50)]) for _ in range(5)]),
    ],
)
def test_a_rule_that_cannot_be_evaluated_is_refused(rule: pb.AudienceRule) -> None:
    with pytest.raises(InvalidAudienceRule) as raised:
        compile_audience(rule, NOON, has_aliases=False)
    assert raised.value.violations


def test_a_rule_deeper_than_allowed_is_refused() -> None:
    rule = trait("gender", pb.OPERATOR_EQ, "male")
    for _ in range(MAX_DEPTH):
        rule = every(negated(rule))
    with pytest.raises(InvalidAudienceRule):
        compile_audience(rule, NOON, has_aliases=False)


def test_the_deepest_rule_is_evaluated_for_a_caller_of_some_rows_too() -> None:
    rule = pb.AudienceRule(trait={"trait": "tier", "operator": 1, "values": ["gold"]})
    for _ in range(MAX_DEPTH - 1):
        rule = pb.AudienceRule(any={"rules": [rule]})
    narrowed = Reach((Condition("owner_department", ("sales",)),)).rule(rule)

    assert compile_audience(narrowed, NOON, has_aliases=False).params.keys() == {"v0", "v1"}
