"""Who may select and group persons by what: a field that is masked or hidden cannot be found out by asking for it.

An audience names persons, so its rule may go as far as what its caller sees of each of them. A metric counts many and
withholds small cells, so its dimensions need be seen at least masked.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from typing import Final

from kehu.analytics.v1 import audience_pb2 as pb

from services.analytics.domain.errors import FilterDenied

Sees = Callable[[str, str], str]  # (classification, group) → show, mask or hide

# as the fields of a profile are classified in resources.proto; what is not here is internal
TRAITS: Final = {
    "province_code": ("personal", "address"),
    "city_code": ("personal", "address"),
    "district_code": ("personal", "address"),
    "gender": ("personal", "birth"),
    "age": ("personal", "birth"),
}
BEHAVIOUR: Final = ("personal", "behaviour")
DIMENSIONS: Final = {"region": TRAITS["province_code"], "gender": TRAITS["gender"]}
MASKED_PLACES: Final = ("province_code", "city_code")  # a masked address says these
# A masked birth date says a band of five years. 14 and 18 are the ages that law asks for (PIPL 31, Civil Code 17).
MASKED_AGES: Final = frozenset(map(str, (*range(0, 151, 5), 14, 18)))
MASKED_COMPARISONS: Final = (pb.OPERATOR_GE, pb.OPERATOR_LT)


def check_rule(rule: pb.AudienceRule, sees: Sees) -> None:
    """Refuse a rule that tells more of a person than its caller sees.

    Raises:
        FilterDenied: naming the first such condition.
    """
    for name, right, group in _conditions(rule):
        verdict = sees(*group)
        if verdict == "hide" or (verdict == "mask" and not right):
            raise FilterDenied(f"you may not select persons by {name} like this", metadata={"field": name})


def check_dimensions(names: Iterable[str], sees: Sees) -> None:
    """Refuse to group by a field the caller does not see at least masked.

    Raises:
        FilterDenied: naming it.
    """
    for name in names:
        if name in DIMENSIONS and sees(*DIMENSIONS[name]) == "hide":
            raise FilterDenied(f"you may not group by {name} for this purpose", metadata={"field": name})


def _conditions(rule: pb.AudienceRule) -> Iterator[tuple[str, bool, tuple[str, str]]]:
    """Yield each condition about a personal field: its name, whether masked is enough, and its group."""
    kind = rule.WhichOneof("rule")
    if kind in ("all", "any"):
        for child in getattr(rule, kind).rules:
            yield from _conditions(child)
    elif kind == "not":
        yield from _conditions(getattr(rule, "not"))
    elif kind == "event":
        yield rule.event.event_type, False, BEHAVIOUR
    elif kind == "score":
        yield rule.score.score, False, BEHAVIOUR
    elif kind == "trait" and rule.trait.trait in TRAITS:
        yield rule.trait.trait, _is_as_coarse_as_its_mask(rule.trait), TRAITS[rule.trait.trait]


def _is_as_coarse_as_its_mask(condition: pb.TraitCondition) -> bool:
    if condition.trait == "age":
        return condition.operator in MASKED_COMPARISONS and set(condition.values) <= MASKED_AGES
    return condition.trait in MASKED_PLACES
