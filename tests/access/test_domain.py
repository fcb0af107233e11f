"""The pure rules of access: policy checks, states of a policy, the audit chain."""

from __future__ import annotations

from dataclasses import replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from services.access.defaults import default_content
from services.access.domain.checks import faults
from services.access.domain.errors import PolicyOutdated, PolicyState, SelfApproval
from services.access.domain.policies import Content, Policy, compiled, published, rolled_back, submitted
from services.access.domain.vocabulary import FIRST_DEPARTMENTS, Inventory
from services.chassis.access import MODEL, NamedCondition, RowFilter
from services.chassis.access.conditions import (
    DateWindow,
    DevicePosture,
    Network,
    RecordAttribute,
    SecondFactorAge,
    TimeOfDay,
)

INVENTORY = Inventory(
    {
        "profiles": frozenset({"read", "list"}),
        "policies": frozenset({"create", "submit", "approve"}),
        "principals": frozenset({"update"}),
    },
    frozenset({"personal/name", "sensitive/document"}),
    {"profiles": frozenset({"owner_department"})},
)
ADMIN = [
    ("role:admin", "administration", "policies", "*", "*", "allow"),
    ("role:admin", "administration", "principals", "*", "*", "allow"),
]
READER = ("role:reader", "marketing", "profiles", "read", "*", "allow")
LINKS = [("user:root", "role:admin", "administration"), ("user:ann", "role:reader", "marketing")]
PERSONS = [("user:root", "administration"), ("user:ann", "marketing")]
GOOD = Content(rules=(*ADMIN, READER))


def found(content: Content, links: list = LINKS, persons: list = PERSONS) -> list[str]:
    return [fault.field for fault in faults(content, INVENTORY, links, persons)]


def with_rule(*rule: str) -> Content:
    return Content(rules=(*ADMIN, READER, tuple(rule)))


def with_link(*link: str) -> Content:
    return Content(rules=GOOD.rules, links=(tuple(link),))


def with_matcher(matcher: str) -> Content:
    return Content(rules=GOOD.rules, model=MODEL.partition("m = ")[0] + f"m = {matcher}\n")


def with_test(test: TimeOfDay | DateWindow | Network | SecondFactorAge | DevicePosture | RecordAttribute) -> Content:
    return with_condition(NamedCondition("stated", test), "stated")


def with_condition(condition: NamedCondition, names: str) -> Content:
    return Content(rules=(*ADMIN, (*READER, names)), conditions=(condition,))


OFFICE = NamedCondition("office-hours", TimeOfDay("Asia/Shanghai", "09:00", "18:00", (1, 2, 3, 4, 5)))
HERE = NamedCondition("here", RecordAttribute("owner_department", ("$departmentTree",)))
TIER = NamedCondition("gold", RecordAttribute("tier", ("gold",)))
SAFE = "g(r.sub, p.sub, r.dom) && r.obj == p.obj"

BAD_POLICIES: dict[str, Content] = {
    "no rule at all": Content(rules=()),
    "effect Deny": with_rule("role:reader", "marketing", "profiles", "read", "*", "Deny"),
    "effect empty": with_rule("role:reader", "marketing", "profiles", "read", "*", ""),
    "effect allow with a space": with_rule("role:reader", "marketing", "profiles", "read", "*", "allow "),
    "short row": with_rule("role:reader", "marketing", "profiles", "read", "allow"),
    "long row": with_rule("role:reader", "marketing", "profiles", "read", "*", "allow", "x"),
    "empty row": with_rule(),
    "empty subject": with_rule("", "marketing", "profiles", "read", "*", "allow"),
    "empty department": with_rule("role:reader", "", "profiles", "read", "*", "allow"),
    "empty resource": with_rule("role:reader", "marketing", "", "read", "*", "allow"),
    "empty action": with_rule("role:reader", "marketing", "profiles", "", "*", "allow"),
    "empty purpose": with_rule("role:reader", "marketing", "profiles", "read", "", "allow"),
    "subject without prefix": with_rule("reader", "marketing", "profiles", "read", "*", "allow"),
    "subject with an unknown prefix": with_rule("group:x", "marketing", "profiles", "read", "*", "allow"),
    "subject is everyone": with_rule("*", "marketing", "profiles", "read", "*", "allow"),
    "user named like a role": with_rule("user:role:admin", "marketing", "profiles", "read", "*", "allow"),
    "role in capitals": with_rule("role:Reader", "marketing", "profiles", "read", "*", "allow"),
    "control character": with_rule("role:reader", "marketing", "profiles", "read\n", "*", "allow"),
    "new line that would be a rule": with_rule("role:reader", "marketing", "profiles", "read\np, role:x", "*", "allow"),
    "NUL": with_rule("role:reader\0", "marketing", "profiles", "read", "*", "allow"),
    "full width": with_rule("role:reader", "marketing", "profiles", "read", "＊", "allow"),
    "zero width": with_rule("role:reader", "marketing", "profiles\u200b", "read", "*", "allow"),
    "bracket that cuts a CSV row": with_rule("role:reader", "marketing", "profiles[", "read", "*", "allow"),
    "comma": with_rule("role:reader", "marketing", "profiles,read", "read", "*", "allow"),
    "quote": with_rule("role:reader", "marketing", 'profiles"', "read", "*", "allow"),
    "very long": with_rule("role:reader", "marketing", "profiles", "r" * 101, "*", "allow"),
    "* and *": with_rule("role:reader", "*", "profiles", "*", "*", "allow"),
    "unknown department": with_rule("role:reader", "marketting", "profiles", "read", "*", "allow"),
    "unknown resource": with_rule("role:reader", "marketing", "profile", "read", "*", "allow"),
    "any resource": with_rule("role:reader", "marketing", "*", "read", "*", "allow"),
    "a path as resource": with_rule("role:reader", "marketing", "/v1/profiles/*", "read", "*", "allow"),
    "unknown action": with_rule("role:reader", "marketing", "profiles", "erase", "*", "allow"),
    "regular expression": with_rule("role:reader", "marketing", "profiles", ".*", "*", "allow"),
    "unknown purpose": with_rule("role:reader", "marketing", "profiles", "read", "fun", "allow"),
    "purpose none": with_rule("role:reader", "marketing", "fields/personal/name", "show", "none", "allow"),
    "field for any purpose": with_rule("role:reader", "marketing", "fields/personal/name", "show", "*", "allow"),
    "sensitive field for any purpose": with_rule(
        "role:reader", "marketing", "fields/sensitive/document", "mask", "*", "allow"
    ),
    "unknown field group": with_rule("role:reader", "marketing", "fields/personal/shoe", "show", "marketing", "allow"),
    "unknown field right": with_rule("role:reader", "marketing", "fields/personal/name", "read", "marketing", "allow"),
    "any field right": with_rule("role:reader", "marketing", "fields/personal/name", "*", "marketing", "allow"),
    "the same rule twice": with_rule(*READER),
    "link to a role nobody defined": with_link("user:ann", "role:king", "marketing"),
    "link to a user": with_link("user:ann", "user:root", "marketing"),
    "link for any department": with_link("user:ann", "role:reader", "*"),
    "link without department": with_link("user:ann", "role:reader"),
    "link with an empty member": with_link("", "role:reader", "marketing"),
    "link of a bare name": with_link("ann", "role:reader", "marketing"),
    "roles in a circle": Content(
        rules=GOOD.rules,
        links=(("role:reader", "role:admin", "marketing"), ("role:admin", "role:reader", "marketing")),
    ),
    "ten roles in roles": Content(
        rules=GOOD.rules,
        links=(
            *((f"role:r{n}", f"role:r{n + 1}", "marketing") for n in range(9)),
            ("role:r9", "role:reader", "marketing"),
        ),
    ),
    "matcher with eval": with_matcher(f"{SAFE} && eval(p.act)"),
    "matcher with regexMatch": with_matcher(f"{SAFE} && regexMatch(r.act, p.act)"),
    "matcher with keyMatch2": with_matcher(f"{SAFE} && keyMatch2(r.act, p.act)"),
    "matcher that calls a method": with_matcher(f"{SAFE} && r.sub.upper() == p.act"),
    "matcher with an attribute": with_matcher(f"{SAFE} && r.sub.owner == p.act"),
    "matcher with arithmetic": with_matcher(f"{SAFE} && 1 + 1 == 2"),
    "matcher always true": with_matcher("1 == 1"),
    "matcher without role": with_matcher("r.obj == p.obj && r.act == p.act"),
    "matcher without resource": with_matcher("g(r.sub, p.sub, r.dom) && r.act == p.act"),
    "matcher with a way round": with_matcher(f'{SAFE} && r.act == p.act || r.sub == "user:ann"'),
    "matcher of nonsense": with_matcher("((("),
    "effect that lets deny lose": Content(
        rules=GOOD.rules,
        model=MODEL.replace(
            "some(where (p.eft == allow)) && !some(where (p.eft == deny))", "some(where (p.eft == allow))"
        ),
    ),
    "effect that allows by default": Content(
        rules=GOOD.rules,
        model=MODEL.replace(
            "some(where (p.eft == allow)) && !some(where (p.eft == deny))", "!some(where (p.eft == deny))"
        ),
    ),
    "model without effect field": Content(rules=GOOD.rules, model=MODEL.replace(", purpose, eft", ", purpose")),
    "model with a second role graph": Content(
        rules=GOOD.rules, model=MODEL.replace("g = _, _, _", "g = _, _, _\ng2 = _, _, (_, _)")
    ),
    "model with roles for all departments": Content(rules=GOOD.rules, model=MODEL.replace("g = _, _, _", "g = _, _")),
    "model no model": Content(rules=GOOD.rules, model="hello"),
    "no administrator left": Content(rules=(READER,)),
    "administrators denied": with_rule("role:admin", "administration", "policies", "approve", "*", "deny"),
    "everybody denied": with_rule("user:root", "*", "policies", "*", "*", "deny"),
    "too large for one message": Content(
        rules=(
            *GOOD.rules,
            *((f"user:u{n}-{'x' * 50}", "marketing", "profiles", "read", "*", "allow") for n in range(60_000)),
        )
    ),
    "row filter of an unknown resource": replace(
        GOOD, row_filters=(RowFilter("role:reader", "*", "x", "tier", ("a",)),)
    ),
    "row filter with an operator": replace(
        GOOD, row_filters=(RowFilter("role:reader", "*", "profiles", "$where", ("a",)),)
    ),
    "row filter that no method can apply": replace(
        GOOD, row_filters=(RowFilter("role:reader", "*", "profiles", "tier", ("a",)),)
    ),
    "row filter without values": replace(GOOD, row_filters=(RowFilter("role:reader", "*", "profiles", "tier", ()),)),
    "row filter of another's own": replace(
        GOOD, row_filters=(RowFilter("role:reader", "*", "profiles", "owner_department", ("$password",)),)
    ),
    "rule with an unknown condition": with_rule(*READER, "nowhere"),
    "rule with a condition twice": with_condition(OFFICE, "office-hours+office-hours"),
    "condition named twice": replace(GOOD, conditions=(OFFICE, OFFICE)),
    "condition named in capitals": replace(GOOD, conditions=(replace(OFFICE, name="Office"),)),
    "zone that is none": with_test(TimeOfDay("China/Peking", "09:00", "18:00")),
    "zone that is a path": with_test(TimeOfDay("../../etc/passwd", "09:00", "18:00")),
    "time that is none": with_test(TimeOfDay("Asia/Shanghai", "9", "18:00")),
    "time beyond the day": with_test(TimeOfDay("Asia/Shanghai", "09:00", "24:01")),
    "times alike": with_test(TimeOfDay("Asia/Shanghai", "09:00", "09:00")),
    "weekday eight": with_test(TimeOfDay("Asia/Shanghai", "09:00", "18:00", (8,))),
    "window without ends": with_test(DateWindow()),
    "window that ends before it starts": with_test(DateWindow(20, 10)),
    "network with host bits": with_test(Network(("10.0.0.1/8",))),
    "network of everything": with_test(Network(("0.0.0.0/0",))),
    "network that is a name": with_test(Network(("office.example",))),
    "no network": with_test(Network(())),
    "second factor of no age": with_test(SecondFactorAge(0)),
    "device without values": with_test(DevicePosture("managed", ())),
    "device claim with an operator": with_test(DevicePosture("$where", ("true",))),
    "record field that no resource has": with_test(RecordAttribute("$where", ("x",))),
    "record field of another resource": with_condition(TIER, "gold"),
    "record condition turned around": replace(GOOD, conditions=(replace(HERE, negated=True),)),
    "denial of two kinds of records": replace(
        GOOD,
        rules=(*GOOD.rules, (*READER[:5], "deny", "here+there")),
        conditions=(HERE, replace(HERE, name="there")),
    ),
    "administrators at times only": replace(
        GOOD, rules=(*((*rule, "office-hours") for rule in ADMIN), READER), conditions=(OFFICE,)
    ),
    "administrators denied when nobody knows": replace(
        GOOD,
        rules=(*GOOD.rules, ("role:admin", "administration", "policies", "*", "*", "deny", "office-hours")),
        conditions=(OFFICE,),
    ),
    "link that ends before it starts": with_link("user:ann", "role:reader", "marketing", "20", "10"),
    "department of an unknown parent": replace(GOOD, departments=(*FIRST_DEPARTMENTS, ("east", "nowhere"))),
    "departments in a circle": replace(GOOD, departments=(*FIRST_DEPARTMENTS, ("east", "west"), ("west", "east"))),
    "department named twice": replace(GOOD, departments=(*FIRST_DEPARTMENTS, ("sales", ""))),
    "rule of a department that is gone": replace(GOOD, departments=(("administration", ""),)),
    "team without members": replace(GOOD, teams=(("team-a", ()),)),
    "team of roles": replace(GOOD, teams=(("team-a", ("role:reader",)),)),
    "conditions where pycasbin decides": replace(
        with_matcher(f'{SAFE} && r.act == p.act && r.purpose != "sales"'),
        rules=(*GOOD.rules[:-1], (*READER, "office-hours")),
        conditions=(OFFICE,),
    ),
    "row filter of a bare name": replace(GOOD, row_filters=(RowFilter("x", "*", "profiles", "tier", ("a",)),)),
}


@pytest.mark.parametrize("name", BAD_POLICIES)
def test_what_pycasbin_would_let_through_is_refused(name: str) -> None:
    assert found(BAD_POLICIES[name])


def test_a_good_policy_has_no_fault() -> None:
    assert found(GOOD) == []
    assert found(with_condition(OFFICE, "office-hours")) == []
    assert found(with_condition(HERE, "here")) == []
    tree = (*FIRST_DEPARTMENTS, ("sales-east", "sales"), ("sales-east-one", "sales-east"))
    assert found(replace(GOOD, departments=tree, teams=(("team-a", ("user:ann",)),))) == []
    assert found(with_link("user:ann", "role:reader", "marketing", "10", "20")) == []
    assert found(replace(GOOD, links=(("role:reader", "role:admin", "marketing"),))) == []


def test_a_matcher_the_compiler_does_not_know_may_still_be_safe() -> None:
    assert found(with_matcher(f'{SAFE} && (p.act == "*" || r.act == p.act) && r.purpose != "sales"')) == []


def test_a_role_chain_counts_the_step_from_person_to_role() -> None:
    """Nine steps in all: eight between roles and one from the principal."""

    def chain(steps: int) -> Content:
        links = tuple((f"role:r{n}", f"role:r{n + 1}", "marketing") for n in range(steps - 1))
        return replace(GOOD, links=(*links, (f"role:r{steps - 1}", "role:reader", "marketing")))

    person = [*LINKS, ("user:ben", "role:r0", "marketing")]

    assert found(chain(8), person) == []
    assert found(chain(9), person) == ["role_links"]


MUTATIONS = st.lists(
    st.tuples(
        st.integers(0, 2),
        st.integers(0, 5),
        st.sampled_from(["", "*", "Allow", "deny", "user:root", "role:admin", "\n", "p, x", "administration", "read"]),
    ),
    min_size=1,
    max_size=4,
)


@settings(max_examples=200, deadline=None)
@given(MUTATIONS)
def test_a_mutated_policy_that_passes_gives_no_stranger_anything(mutations: list) -> None:
    rules = [list(rule) for rule in GOOD.rules]
    for rule, column, value in mutations:
        rules[rule][column] = value
    content = Content(rules=tuple(tuple(rule) for rule in rules))

    if not found(content):
        verdicts = compiled(content, LINKS)
        for resource, actions in INVENTORY.actions.items():
            for action in actions:
                for department in ("marketing", "administration"):
                    request = ("user:stranger", department, resource, action, "none")
                    assert not verdicts.decide(request).allowed


DRAFT = Policy("p1", "draft", 0, 4, "", default_content(), "user:ann")


def test_a_policy_goes_from_draft_to_force_by_two_people() -> None:
    handed_over = submitted(DRAFT, "user:ben", 4)
    in_force = published(handed_over, "user:cat", 4, self_approval=False)

    assert (in_force.number, in_force.state, in_force.approver) == (5, "published", "user:cat")


@pytest.mark.parametrize("approver", ["user:ann", "user:ben"])
def test_author_and_submitter_cannot_approve(approver: str) -> None:
    handed_over = submitted(DRAFT, "user:ben", 4)

    with pytest.raises(SelfApproval):
        published(handed_over, approver, 4, self_approval=False)
    assert published(handed_over, approver, 4, self_approval=True).number == 5


def test_a_policy_of_an_older_base_is_outdated() -> None:
    with pytest.raises(PolicyOutdated):
        submitted(DRAFT, "user:ben", 5)
    with pytest.raises(PolicyOutdated):
        published(submitted(DRAFT, "user:ben", 4), "user:cat", 5, self_approval=False)


def test_states_are_not_skipped() -> None:
    with pytest.raises(PolicyState):
        published(DRAFT, "user:cat", 4, self_approval=False)
    with pytest.raises(PolicyState):
        rolled_back(DRAFT, "p2", "user:cat", 4, "")
