"""Nobody finds out by an audience or a figure what is masked or hidden for them."""

from __future__ import annotations

import pytest
from google.protobuf import json_format
from kehu.analytics.v1 import audience_pb2 as pb
from kehu.profiles.v1 import resources_pb2

from services.analytics.domain import metrics
from services.analytics.domain.audience import _TRAITS
from services.analytics.domain.errors import FilterDenied
from services.analytics.domain.rights import DIMENSIONS, TRAITS, check_dimensions, check_rule
from services.chassis.access import Obligations
from tests.access.oracle import WORDS, class_of

MASKED = Obligations(masked=frozenset({"personal/address", "personal/birth", "personal/behaviour"}))
SHOWN = Obligations(shown=MASKED.masked)
HIDDEN = Obligations()


def trait(name: str, operator: str, *values: str) -> dict:
    return {"trait": {"trait": name, "operator": f"OPERATOR_{operator}", "values": values}}


EVENT = {"event": {"event_type": "order_completed", "measure": "MEASURE_COUNT", "operator": "OPERATOR_GE", "value": 1}}
SCORE = {"score": {"score": "rfm_recency", "operator": "OPERATOR_GE", "values": ["4"]}}
OPEN = [trait("tier", "EQ", "gold"), trait("stage", "IN", "new"), trait("owner_department", "EQ", "sales")]
AS_COARSE = [
    trait("province_code", "EQ", "330000"), trait("city_code", "IN", "330100"), trait("age", "GE", "35"),
    trait("age", "LT", "40"), trait("age", "GE", "18"), trait("age", "LT", "14"),
]  # fmt: skip
FINER = [
    trait("district_code", "EQ", "330106"), trait("gender", "EQ", "female"), trait("gender", "NE", "male"),
    trait("age", "EQ", "35"), trait("age", "IN", "35", "40"), trait("age", "GE", "36"), trait("age", "LE", "35"),
    trait("age", "GT", "35"), trait("age", "NE", "35"), EVENT, SCORE,
]  # fmt: skip


def allowed(rule: dict, rights: Obligations) -> bool:
    """Tell whether the rule may be asked, alone and wherever it stands in another."""
    wrapped = [rule, {"not": rule}, {"all": {"rules": [OPEN[0], {"any": {"rules": [OPEN[1], {"not": rule}]}}]}}]
    found = {_asked(one, rights) for one in wrapped}
    assert len(found) == 1, "depth changes nothing"
    return found.pop()


def _asked(rule: dict, rights: Obligations) -> bool:
    try:
        check_rule(json_format.ParseDict(rule, pb.AudienceRule()), rights.disposition)
    except FilterDenied:
        return False
    return True


@pytest.mark.parametrize("rule", OPEN + AS_COARSE + FINER, ids=str)
def test_an_audience_is_asked_for_as_finely_as_its_caller_sees_each_person(rule: dict) -> None:
    assert allowed(rule, SHOWN)
    assert allowed(rule, MASKED) is (rule not in FINER)
    assert allowed(rule, HIDDEN) is (rule in OPEN)


def test_figures_are_grouped_by_what_is_seen_at_least_masked() -> None:
    check_dimensions(["region", "gender", "tier", "month"], MASKED.disposition)
    check_dimensions(["tier", "month", "channel"], HIDDEN.disposition)
    for name in DIMENSIONS:
        with pytest.raises(FilterDenied):
            check_dimensions(["tier", name], HIDDEN.disposition)


def test_the_groups_are_those_of_the_profiles_own_fields() -> None:
    profile, address = resources_pb2.Profile.DESCRIPTOR, resources_pb2.Profile.DESCRIPTOR.fields_by_name["address"]
    names = {"age": "birth_date"}
    for trait_name in (*_TRAITS, "age"):
        where = address.message_type if trait_name.endswith("_code") else profile
        found = class_of(where.fields_by_name[names.get(trait_name, trait_name)])
        wanted = (WORDS[found.classification], found.group) if found.classification in WORDS else None
        assert TRAITS.get(trait_name) == wanted, trait_name
    about_persons = {name for source in metrics._DIMENSIONS.values() for name in source if name in metrics._PROFILE}
    assert about_persons - set(DIMENSIONS) == {"tier"}
