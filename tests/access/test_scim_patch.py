"""What a directory's PATCH does to a person and a group: it is followed, or refused in SCIM's words."""

from __future__ import annotations

from contextlib import suppress

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from services.access.domain.errors import ScimInvalid
from services.access.domain.principals import Principal
from services.access.domain.scim import ENTERPRISE, PATCH, USER, Wanted, members, patched, user_resource, wanted

ALICE = Principal("user", "alice", "sales", ("role:seller", "role:cashier"), "", issuer="acme", directory_id="e-1")
SELLER, MANAGER = {"value": "role:seller"}, {"value": "role:manager"}
DEPARTMENT = f"{ENTERPRISE}:department"


def after(*operations: dict) -> Wanted:
    """Return what a directory says of Alice with a PATCH."""
    return wanted(patched(user_resource(ALICE, ""), {"schemas": [PATCH], "Operations": list(operations)}))


def in_group(*operations: dict) -> list[str]:
    """Return who is in a group of two after a PATCH."""
    return members({"schemas": [PATCH], "Operations": list(operations)}, ["user-alice", "user-bob"])


def why_refused(*operations: dict) -> str:
    with pytest.raises(ScimInvalid) as caught:
        after(*operations)
    return str(caught.value.metadata["scim_type"])


@pytest.mark.parametrize("op", ["replace", "add"])
def test_a_group_that_is_renamed_keeps_its_members(op: str) -> None:
    okta = {"op": op, "value": {"id": "seller", "displayName": "Sellers"}}

    assert in_group(okta) == ["user-alice", "user-bob"]
    assert in_group({"op": op, "path": "displayName", "value": "Sellers"}) == ["user-alice", "user-bob"]


@pytest.mark.parametrize("name", ["members", "Members"])
def test_members_are_changed_without_a_path_whatever_the_case_of_their_name(name: str) -> None:
    carol = [{"value": "user-carol"}]

    assert in_group({"op": "replace", "value": {"displayName": "x", name: carol}}) == ["user-carol"]
    assert in_group({"op": "add", "value": {name: carol}}) == ["user-alice", "user-bob", "user-carol"]
    assert in_group({"op": "remove", "path": name, "value": [{"value": "user-bob"}]}) == ["user-alice"]
    assert in_group({"op": "remove", "path": f'{name}[value eq "user-bob"]'}) == ["user-alice"]
    assert in_group({"op": "remove", "path": name}) == []


@pytest.mark.parametrize(
    "operation",
    [
        {"op": "remove", "path": 'roles[value eq "role:seller"]'},
        {"op": "Remove", "path": f'{USER}:Roles[Value EQ "role:seller"]'},
        {"op": "remove", "path": "roles", "value": [SELLER]},
        {"op": "replace", "path": "roles", "value": [{"value": "role:cashier"}]},
    ],
)
def test_a_role_that_the_directory_takes_away_is_gone(operation: dict) -> None:
    assert after(operation).roles == ("role:cashier",)


@pytest.mark.parametrize("how", [{"path": "roles", "value": [MANAGER]}, {"value": {"Roles": [MANAGER]}}])
def test_added_roles_come_to_those_there_are(how: dict) -> None:
    assert after({"op": "add", **how}).roles == ("role:seller", "role:cashier", "role:manager")
    assert after({"op": "replace", **how}).roles == ("role:manager",)


@pytest.mark.parametrize("how", [{"path": "roles"}, {"path": "roles", "value": []}, {"value": {"roles": None}}])
def test_roles_replaced_by_nothing_are_gone(how: dict) -> None:
    assert after({"op": "replace", **how}).roles == ()


@pytest.mark.parametrize(
    "path",
    [
        'roles[primary eq "True"].value', 'roles[value eq "role:seller"].value', "roles.value", "active.value",
        'userName[value eq "alice"]', f"{DEPARTMENT}.value",
    ],
)  # fmt: skip
@pytest.mark.parametrize("op", ["add", "replace", "remove"])
def test_a_path_that_is_not_followed_is_refused(op: str, path: str) -> None:
    assert why_refused({"op": op, "path": path, "value": "role:manager"}) == "invalidPath"
    if op != "remove":
        assert why_refused({"op": op, "value": {path: "role:manager"}}) == "invalidPath"


@pytest.mark.parametrize(
    "how",
    [
        {"path": DEPARTMENT, "value": "marketing"},
        {"path": ENTERPRISE, "value": {"Department": "marketing"}},
        {"value": {DEPARTMENT: "marketing"}},
        {"value": {ENTERPRISE.upper(): {"department": "marketing", "costCenter": "7"}}},
    ],
)
@pytest.mark.parametrize("op", ["add", "replace"])
def test_a_department_is_changed_however_the_directory_names_it(op: str, how: dict) -> None:
    assert after({"op": op, **how}).department == "marketing"
    assert after({"op": "remove", "path": ENTERPRISE}, {"op": op, **how}).department == "marketing"
    assert after({"op": op, **how}, {"op": op, "value": {f"{ENTERPRISE}:costCenter": "7"}}).department == "marketing"


@pytest.mark.parametrize(
    "how",
    [
        {"path": ENTERPRISE, "value": "sales"}, {"path": "roles", "value": True}, {"path": "roles", "value": [7]},
        {"path": DEPARTMENT, "value": {}}, {"path": "active", "value": []}, {"value": {"roles": True}}, {"value": 7},
        {"value": {ENTERPRISE: [1]}},
    ],
)  # fmt: skip
def test_a_value_of_a_wrong_type_is_refused(how: dict) -> None:
    assert why_refused({"op": "replace", **how}) == "invalidValue"


def test_what_is_not_kept_is_passed_over() -> None:
    given = {"name.givenName": "A", "emails": [{"value": "a@acme.cn"}], "urn:acme:2.0:User:badge": 7}

    assert after({"op": "add", "value": given}) == after({"op": "remove", "path": 'emails[type eq "work"]'}) == after(
        {"op": "replace", "path": 'emails[type eq "work"].value', "value": "a@acme.cn"}
    )  # fmt: skip


NAMES = [
    "roles",
    "active",
    "userName",
    "externalId",
    ENTERPRISE,
    DEPARTMENT,
    'roles[value eq "role:seller"]',
    "members",
]
LEAVES = st.none() | st.booleans() | st.floats(0, 9) | st.sampled_from(["role:seller", "True", "alice"])
VALUES = st.recursive(
    LEAVES, lambda inner: st.lists(inner, max_size=2) | st.dictionaries(st.sampled_from([*NAMES, "value"]), inner)
)
OPERATIONS = st.lists(
    st.fixed_dictionaries(
        {"op": st.sampled_from(["add", "replace", "remove"])},
        optional={"path": st.sampled_from(NAMES), "value": VALUES},
    ),
    max_size=4,
)


@given(OPERATIONS)
@settings(deadline=None, suppress_health_check=[HealthCheck.too_slow])
def test_whatever_comes_is_followed_or_refused(operations: list[dict]) -> None:
    with suppress(ScimInvalid):
        after(*operations)
    with suppress(ScimInvalid):
        in_group(*operations)
