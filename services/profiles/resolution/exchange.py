"""Write a scheme and its model as settings of splink, and read settings that splink trained.

What outgrows one machine is resolved with these settings by splink on Spark, with the same comparisons, probabilities
and term frequencies (Fellegi and Sunter 1969); agreement is measured by tests/bench/bench_spark.py. Settings are the
dictionary that splink 5 saves as JSON.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from math import log2
from typing import Any

from services.profiles.domain.model import MatchModel, make_model
from services.profiles.resolution.comparing import ALIKE_DEGREES, ALIKE_LEVELS, EDIT_LEVELS, EQUAL_LEVELS, TURNED
from services.profiles.resolution.tables import Scheme

ELSE = "ELSE"
FUNCTIONS = {  # how a dialect of SQL names the two comparisons of texts
    "spark": {"alike": "jaro_winkler", "edits": "damerau_levenshtein"},
    "duckdb": {"alike": "jaro_winkler_similarity", "edits": "damerau_levenshtein"},
}
QUOTES = {"spark": "`", "duckdb": '"'}
KINDS = ("words", "number", "equal")


@dataclass(frozen=True, slots=True)
class Level:
    """One level of a comparison: its name here, and when a pair reaches it."""

    name: str
    condition: str


def to_splink(
    scheme: Scheme, model: MatchModel, *, id_column: str, links: bool = False, dialect: str = "spark"
) -> dict[str, Any]:
    """Return settings that make splink decide as `Table.resolve` judges pairs.

    `links` matches across two tables only, as `sides` do. Shared keys above `most_of_a_key` have no counterpart
    there: take such values out of the input first.

    Raises:
        ValueError: the dialect is unknown, or the scheme has dates or lasting columns, which have no counterpart.
    """
    if "date" in scheme.compared.values() or scheme.lasting:
        raise ValueError("dates and lasting columns have no counterpart in splink: compare dates as numbers")
    if dialect not in FUNCTIONS:
        raise ValueError(f"no dialect {dialect}: use {' or '.join(FUNCTIONS)}")
    odds = 2.0**model.prior_weight
    return {
        "link_type": "link_only" if links else "dedupe_only",
        "unique_id_column_name": id_column,
        "sql_dialect": dialect,
        "probability_two_random_records_match": odds / (1 + odds),
        "retain_intermediate_calculation_columns": False,
        "retain_matching_columns": False,
        "blocking_rules_to_generate_predictions": [
            {"blocking_rule": " AND ".join(_met(name, dialect) for name in rule), "sql_dialect": dialect}
            for rule in scheme.rules
        ],
        "comparisons": [_written(scheme, name, model, dialect) for name in scheme.compared],
    }


def _written(scheme: Scheme, name: str, model: MatchModel, dialect: str) -> dict[str, Any]:
    nothing, *levels = _levels(scheme, name, dialect)
    written: list[dict[str, Any]] = [
        {"sql_condition": nothing.condition, "label_for_charts": nothing.name, "is_null_level": True}
    ]
    for level in levels:
        m, u = model.odds[name][level.name]
        item = {
            "sql_condition": level.condition,
            "label_for_charts": level.name,
            "m_probability": m,
            "u_probability": u,
        }
        if level.name == levels[0].name and name in scheme.frequent:
            item |= {"tf_adjustment_column": name, "tf_adjustment_weight": 1.0}
        written.append(item)
    return {"output_column_name": name, "comparison_levels": written}


def _levels(scheme: Scheme, name: str, dialect: str) -> list[Level]:
    """Return a comparison's levels in the order in which they are asked; the first is that of a missing value."""
    own = _sides(name, dialect)
    missing, same = f"{own[0]} IS NULL OR {own[1]} IS NULL", f"{own[0]} = {own[1]}"
    texts = f"({own[0]}, {own[1]})"
    functions = FUNCTIONS[dialect]
    kind = scheme.compared[name]
    names: tuple[str, ...] = EQUAL_LEVELS
    steps: list[str] = []
    if kind == "words":
        names, steps = ALIKE_LEVELS, [f"{functions['alike']}{texts} >= {degree}" for degree in ALIKE_DEGREES]
    elif kind == "number":
        names, steps = EDIT_LEVELS, [f"{functions['edits']}{texts} <= {edits}" for edits in (1, 2)]
    levels = [Level(at, step) for at, step in zip(names[1:-1], steps, strict=True)]
    if name in scheme.turned:
        (other,) = (_sides(item, dialect) for item in scheme.turned if item != name)
        turned = f"{own[0]} = {other[1]} AND {own[1]} = {other[0]}"
        if name == scheme.turned[0]:
            levels.insert(0, Level(TURNED, turned))
        else:
            missing += f" OR ({turned} AND {own[0]} <> {own[1]})"
    return [Level("missing", missing), Level(names[0], same), *levels, Level(names[-1], ELSE)]


def _met(name: str, dialect: str) -> str:
    return f"l.{QUOTES[dialect]}{name}{QUOTES[dialect]} = r.{QUOTES[dialect]}{name}{QUOTES[dialect]}"


def _sides(name: str, dialect: str) -> tuple[str, str]:
    quote = QUOTES[dialect]
    return f"{quote}{name}_l{quote}", f"{quote}{name}_r{quote}"


def from_splink(
    settings: Mapping[str, Any], *, version: str, bands: tuple[float, float], lessons: Sequence[Sequence[str]] = ()
) -> tuple[Scheme, MatchModel]:
    """Return the scheme and the model of settings that splink trained; `bands` are the merge and the review weight.

    Understood are equality of columns as blocking rules, and of splink's comparisons exact match, names (Jaro-Winkler
    at 0.92, 0.88, 0.7) and Damerau-Levenshtein at 1 and 2, with those that `to_splink` writes.

    Raises:
        ValueError: something is compared, met or weighed as Kehu cannot, or was not trained; the text names it.
    """
    dialect = "spark" if "`" in str(settings["comparisons"]) else "duckdb"
    rules = [_rule(rule) for rule in settings["blocking_rules_to_generate_predictions"]]
    names = [str(item["output_column_name"]) for item in settings["comparisons"]]
    turned = _turned(settings["comparisons"], names)
    compared: dict[str, str] = {}
    odds: dict[str, dict[str, tuple[float, float]]] = {}
    frequent = []
    for name, comparison in zip(names, settings["comparisons"], strict=True):
        compared[name], odds[name] = _read(name, comparison["comparison_levels"], turned, dialect)
        if _is_frequent(name, comparison["comparison_levels"]):
            frequent.append(name)
    scheme = Scheme(compared, frequent, rules, [tuple(rule) for rule in lessons], *bands, turned=turned)
    share = float(settings["probability_two_random_records_match"])
    if not 0 < share < 1:
        raise ValueError("probability_two_random_records_match must lie between 0 and 1")
    return scheme, make_model(version, log2(share / (1 - share)), bands, odds, {}, {}, {"trained_by": "splink"})


def _rule(rule: Mapping[str, Any] | str) -> tuple[str, ...]:
    text = rule if isinstance(rule, str) else str(rule["blocking_rule"])
    names = []
    for part in re.split(r"\band\b", text, flags=re.IGNORECASE):
        found = re.fullmatch(r"[\s(]*l\.(\w+)\s*=\s*r\.(\w+)[\s)]*", _plain(part))
        if found is None or found[1] != found[2] or (isinstance(rule, Mapping) and rule.get("arrays_to_explode")):
            raise ValueError(f"blocking rule {text}: only equality of columns is understood")
        names.append(found[1])
    return tuple(names)


def _turned(comparisons: Sequence[Mapping[str, Any]], names: Sequence[str]) -> tuple[str, ...]:
    """Return the two columns that are compared crosswise, the one whose level it is first."""
    for name, comparison in zip(names, comparisons, strict=True):
        for other in names:
            crossed = f"{name}_l = {other}_r AND {name}_r = {other}_l".casefold()
            conditions = (_plain(item["sql_condition"]).casefold() for item in comparison["comparison_levels"])
            if other != name and crossed in conditions:
                return name, other
    return ()


def _read(
    name: str, levels: Sequence[Mapping[str, Any]], turned: Sequence[str], dialect: str
) -> tuple[str, dict[str, tuple[float, float]]]:
    conditions = [_plain(str(item["sql_condition"])).casefold() for item in levels]
    for kind in KINDS:
        known = _levels(Scheme({name: kind}, (), (), (), 0, 0, turned=turned if name in turned else ()), name, dialect)
        if [_plain(level.condition).casefold() for level in known] == conditions:
            return kind, {
                level.name: _probabilities(name, level.name, item)
                for level, item in zip(known[1:], levels[1:], strict=True)
            }
    raise ValueError(f"comparison {name}: its levels are none that Kehu compares ({'; '.join(conditions)})")


def _probabilities(name: str, level: str, item: Mapping[str, Any]) -> tuple[float, float]:
    m, u = item.get("m_probability"), item.get("u_probability")
    if not (isinstance(m, float | int) and isinstance(u, float | int) and 0 < m <= 1 and 0 < u <= 1):
        raise ValueError(f"comparison {name}, level {level}: it has no trained m and u; train it in splink first")
    return float(m), float(u)


def _is_frequent(name: str, levels: Sequence[Mapping[str, Any]]) -> bool:
    weights = [float(item.get("tf_adjustment_weight", 1.0)) for item in levels if item.get("tf_adjustment_column")]
    columns = {item["tf_adjustment_column"] for item in levels if item.get("tf_adjustment_column")}
    if weights and (weights != [1.0] or columns != {name} or not levels[1].get("tf_adjustment_column")):
        raise ValueError(
            f"comparison {name}: term frequencies count with weight 1 on its own column's exact level only"
        )
    return bool(weights)


def _plain(condition: str) -> str:
    """Return a condition without quotes, its spaces single."""
    return re.sub(r"\s+", " ", re.sub(r'[`"]', "", condition)).strip()
