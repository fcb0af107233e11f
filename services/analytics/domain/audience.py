"""Compile an audience rule to one SQL statement with bound parameters.

Three-valued logic does the fail-closed part: an unknown trait or score makes its condition NULL, NOT NULL is NULL,
and only TRUE is in. Column names come from the tables below, never from the rule.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Final

from kehu.analytics.v1 import audience_pb2 as pb

from services.analytics.domain.errors import InvalidAudienceRule
from services.analytics.domain.rfm import SEGMENTS
from services.analytics.domain.tables import CHINA
from services.chassis.errors import FieldViolation

MAX_DEPTH: Final = 12
_DEEPEST: Final = MAX_DEPTH + 1  # a rule that is narrowed to the rows of its caller is one level deeper
MAX_CONDITIONS: Final = 200
Value = str | int | datetime

_TRAITS: Final = {
    name: f"p.{name}"
    for name in ("province_code", "city_code", "district_code", "gender", "tier", "stage", "owner_department")
}
_COLUMNS: Final = (*_TRAITS, "birth_year")
_SCORES: Final = {name: f"s.{name}" for name in ("rfm_recency", "rfm_frequency", "rfm_monetary")}
_COMPARE: Final[Mapping[int, str]] = {
    pb.OPERATOR_EQ: "=",
    pb.OPERATOR_NE: "<>",
    pb.OPERATOR_LT: "<",
    pb.OPERATOR_LE: "<=",
    pb.OPERATOR_GT: ">",
    pb.OPERATOR_GE: ">=",
}
_MIRROR: Final = {"=": "=", "<>": "<>", "<": ">", "<=": ">=", ">": "<", ">=": "<="}
_SETS: Final = (pb.OPERATOR_EQ, pb.OPERATOR_NE, pb.OPERATOR_IN)
_MEASURES: Final[Mapping[int, str]] = {
    pb.MEASURE_COUNT: "count(*){filter}",
    pb.MEASURE_SUM_CENTS: "sum(i.amount_cents){filter}",
    # Days in China Standard Time, which is UTC+8 without changes since 1991.
    pb.MEASURE_DISTINCT_DAYS: "count(DISTINCT (epoch_us(i.event_time) + 28800000000) // 86400000000){filter}",
    pb.MEASURE_DISTINCT_BASKETS: "count(DISTINCT coalesce(i.basket_id, i.message_id)){filter}",
}


@dataclass(frozen=True, slots=True)
class AudienceQuery:
    """One statement over the relations profiles, interactions, aliases and scores; yields `profile_id`."""

    sql: str
    params: Mapping[str, Value]
    tables: frozenset[str]
    since: datetime | None  # no older event is read; None reads all


@dataclass(frozen=True, slots=True)
class _EventFilter:
    """Which events a measure takes."""

    event_type: str
    category: str
    since: datetime | None


@dataclass(slots=True)
class _Compilation:
    """What is gathered while the tree is walked."""

    cutoff: datetime
    params: dict[str, Value] = field(default_factory=dict)
    measures: dict[tuple[int, _EventFilter], str] = field(default_factory=dict)
    uses_scores: bool = False
    conditions: int = 0

    def bind(self, value: Value) -> str:
        name = f"v{len(self.params)}"
        self.params[name] = value
        return f"${name}"


def compile_audience(rule: pb.AudienceRule, cutoff: datetime, *, has_aliases: bool) -> AudienceQuery:
    """Return the statement that finds the rule's profiles, by rising id.

    `cutoff` is the time of the newest event: windows and ages are taken from it.

    Raises:
        InvalidAudienceRule: an operator or value does not fit, or the tree is too deep or too large.
    """
    state = _Compilation(cutoff)
    conjuncts = list(_conjuncts(rule, state, "rule", 1))
    early = [sql for sql, is_trait in conjuncts if is_trait]
    late = [sql for sql, is_trait in conjuncts if not is_trait]
    sql = _statement(state, early, late, has_aliases)
    tables = {"profiles", "aliases"} if has_aliases else {"profiles"}
    if state.measures:
        tables.add("interactions")
    if state.uses_scores:
        tables.add("scores")
    return AudienceQuery(sql, state.params, frozenset(tables), _earliest(state.measures))


def _earliest(measures: Mapping[tuple[int, _EventFilter], str]) -> datetime | None:
    starts = [events.since for _, events in measures]
    return None if None in starts else min((start for start in starts if start is not None), default=None)


def _conjuncts(rule: pb.AudienceRule, state: _Compilation, path: str, depth: int) -> Sequence[tuple[str, bool]]:
    """Return what must hold at the top, and whether it needs the profile's traits only."""
    if rule.WhichOneof("rule") == "all" and depth <= _DEEPEST:
        _require(rule.all.rules, path, "give at least one rule")
        parts = [
            _conjuncts(child, state, f"{path}.all.rules[{index}]", depth + 1)
            for index, child in enumerate(rule.all.rules)
        ]
        return [conjunct for part in parts for conjunct in part]
    return [(_condition(rule, state, path, depth), _needs_traits_only(rule))]


def _needs_traits_only(rule: pb.AudienceRule) -> bool:
    kind = rule.WhichOneof("rule")
    if kind in ("all", "any"):
        return all(_needs_traits_only(child) for child in getattr(rule, kind).rules)
    return _needs_traits_only(getattr(rule, "not")) if kind == "not" else kind == "trait"


def _condition(rule: pb.AudienceRule, state: _Compilation, path: str, depth: int) -> str:
    _require(depth <= _DEEPEST, path, f"nest at most {MAX_DEPTH} levels")
    kind = rule.WhichOneof("rule")
    if kind in ("all", "any"):
        group = getattr(rule, kind).rules
        _require(group, path, "give at least one rule")
        parts = [
            _condition(child, state, f"{path}.{kind}.rules[{index}]", depth + 1) for index, child in enumerate(group)
        ]
        return "(" + (" AND " if kind == "all" else " OR ").join(parts) + ")"
    if kind == "not":
        return f"(NOT {_condition(getattr(rule, 'not'), state, f'{path}.not', depth + 1)})"
    state.conditions += 1
    _require(state.conditions <= MAX_CONDITIONS, path, f"use at most {MAX_CONDITIONS} conditions")
    if kind == "trait":
        return _trait(rule.trait, state, f"{path}.trait")
    if kind == "event":
        return _event(rule.event, state, f"{path}.event")
    _require(kind == "score", path, "set one of all, any, not, trait, event, score")
    return _score(rule.score, state, f"{path}.score")


def _trait(condition: pb.TraitCondition, state: _Compilation, path: str) -> str:
    if condition.trait == "age":
        return _age(condition, state, path)
    _require(condition.trait in _TRAITS, f"{path}.trait", "name a known trait")
    _require(condition.operator in _SETS, f"{path}.operator", "use EQ, NE or IN with this trait")
    return _compare(_TRAITS[condition.trait], condition.operator, list(condition.values), state, path)


def _age(condition: pb.TraitCondition, state: _Compilation, path: str) -> str:
    """Compare the birth year instead of the age, so that the comparison reaches the file's statistics."""
    year = state.cutoff.astimezone(CHINA).year
    births = [year - age for age in _integers(condition.values, 0, 150, path)]
    return _compare("p.birth_year", condition.operator, births, state, path, mirrored=True)


def _score(condition: pb.ScoreCondition, state: _Compilation, path: str) -> str:
    state.uses_scores = True
    if condition.score == "rfm_segment":
        _require(condition.operator in _SETS, f"{path}.operator", "use EQ, NE or IN with segments")
        known = all(value in SEGMENTS for value in condition.values)
        _require(known, f"{path}.values", "name segments of the RFM definition: " + ", ".join(SEGMENTS))
        return _compare("s.rfm_segment", condition.operator, list(condition.values), state, path)
    _require(condition.score in _SCORES, f"{path}.score", "name a known score")
    values = _integers(condition.values, 1, 5, path)
    return _compare(_SCORES[condition.score], condition.operator, values, state, path)


def _event(condition: pb.EventCondition, state: _Compilation, path: str) -> str:
    _require(condition.measure in _MEASURES, f"{path}.measure", "name a measure")
    _require(bool(condition.event_type), f"{path}.event_type", "name an event type")
    _require(condition.operator != pb.OPERATOR_IN, f"{path}.operator", "use any operator but IN with events")
    days = condition.within_days
    _require(0 <= days <= 3660, f"{path}.within_days", "give 1 to 3660 days, or 0 for all")
    since = state.cutoff - timedelta(days=days) if days else None
    events = _EventFilter(condition.event_type, condition.category, since)
    key = (condition.measure, events)
    column = state.measures.setdefault(key, f"m{len(state.measures)}")
    return _compare(f"coalesce(e.{column}, 0)", condition.operator, [condition.value], state, path)


def _compare(
    column: str,
    operator: int,
    values: Sequence[Value],
    state: _Compilation,
    path: str,
    *,
    mirrored: bool = False,
) -> str:
    _require(values, f"{path}.values", "give at least one value")
    if operator == pb.OPERATOR_IN:
        return f"({column} IN ({', '.join(state.bind(value) for value in values)}))"
    _require(operator in _COMPARE, f"{path}.operator", "name an operator")
    _require(len(values) == 1, f"{path}.values", "give exactly one value, or use IN")
    symbol = _COMPARE[operator]
    return f"({column} {_MIRROR[symbol] if mirrored else symbol} {state.bind(values[0])})"


def _statement(state: _Compilation, early: Sequence[str], late: Sequence[str], has_aliases: bool) -> str:
    """Return the statement: traits cut the profiles first, so that only their events are grouped."""
    live = " AND ".join(["NOT p.deleted", "p.merged_into IS NULL", *early])
    unmerged = " ANTI JOIN aliases m ON m.profile_id = p.profile_id" if has_aliases else ""
    used = [column for column in _COLUMNS if any(f"p.{column} " in condition for condition in late)]
    columns = ", ".join(f"p.{column}" for column in ("profile_id", *used))
    parts = [
        f"candidates AS MATERIALIZED (SELECT {columns}, row_number() OVER () AS n"
        f" FROM profiles p{unmerged} WHERE {live})"
    ]
    joins = ""
    if state.measures:
        parts.append(_measures(state, has_aliases))
        joins += " LEFT JOIN measures e ON e.n = p.n"
    if state.uses_scores:
        joins += " LEFT JOIN scores s ON s.profile_id = p.profile_id"
    where = f" WHERE {' AND '.join(late)}" if late else ""
    return f"{', '.join(parts)} SELECT p.profile_id FROM candidates p{joins}{where}"


def _measures(state: _Compilation, has_aliases: bool) -> str:
    filters = {events: _filter(events, state) for events in dict.fromkeys(key[1] for key in state.measures)}
    shared = len(filters) == 1
    columns = ", ".join(
        _MEASURES[measure].format(filter="" if shared else f" FILTER (WHERE {filters[events]})") + f" AS {column}"
        for (measure, events), column in state.measures.items()
    )
    where = next(iter(filters.values())) if shared else _any_of(list(filters), state)
    owners = "candidates"
    if has_aliases:
        owners = (
            "(SELECT profile_id, n FROM candidates UNION ALL SELECT a.profile_id, c.n"
            " FROM aliases a JOIN candidates c ON c.profile_id = a.survivor_id)"
        )
    return (
        f"measures AS (SELECT o.n, {columns} FROM interactions i JOIN {owners} o"
        f" ON o.profile_id = i.profile_id WHERE {where} GROUP BY o.n)"
    )


def _filter(events: _EventFilter, state: _Compilation) -> str:
    parts = [f"i.event_type = {state.bind(events.event_type)}"]
    if events.category:
        parts.append(f"i.category = {state.bind(events.category)}")
    if events.since is not None:
        parts.append(f"i.event_time > {state.bind(events.since)}")
    return " AND ".join(parts)


def _any_of(filters: Sequence[_EventFilter], state: _Compilation) -> str:
    """Return a simple superset of all filters, which the reader can push into the files."""
    types = sorted({events.event_type for events in filters})
    parts = [f"i.event_type IN ({', '.join(state.bind(name) for name in types)})"]
    starts = [events.since for events in filters]
    if None not in starts:
        parts.append(f"i.event_time > {state.bind(min(start for start in starts if start is not None))}")
    return " AND ".join(parts)


def _integers(values: Sequence[str], low: int, high: int, path: str) -> list[int]:
    numbers = [int(value) if value.isascii() and value.isdigit() and len(value) < 4 else -1 for value in values]
    fits = all(low <= number <= high for number in numbers)
    _require(fits, f"{path}.values", f"give whole numbers from {low} to {high}")
    return numbers


def _require(holds: object, path: str, description: str) -> None:
    if not holds:
        raise InvalidAudienceRule(
            "the audience rule cannot be evaluated; see the violations",
            violations=[FieldViolation(path, description)],
        )
