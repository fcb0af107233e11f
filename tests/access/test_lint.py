"""What is probably a mistake in a policy is named, and two hundred damaged policies open nothing unnoticed."""

from __future__ import annotations

import random
from collections.abc import Callable
from dataclasses import replace

import pytest
from kehu.access.v1 import review_pb2

from services.access.defaults import default_content
from services.access.domain.checks import faults
from services.access.domain.lint import Finding, lint
from services.access.domain.policies import Content, Row, compiled
from services.access.domain.vocabulary import Inventory
from services.access.inventory import descriptors_path, read_inventory
from services.chassis.access import RowFilter
from tests.access.test_review import DENY_SEGMENTS, draft
from tests.access.world import running_world

INVENTORY = read_inventory(descriptors_path())
EVERYBODY = [
    ("app:m", "marketing"), ("user:agent", "service"), ("user:seller", "sales"), ("user:analyst", "analytics"),
    ("user:steward", "data-office"), ("user:root", "administration"), ("user:second", "administration"),
]  # fmt: skip
# everybody holds every role of their department
LINKS = sorted(
    {(s, rule[0], where) for s, where in EVERYBODY for rule in default_content().rules if rule[1] in ("*", where)}
)
PERSONS = [person for person in EVERYBODY if person[0].startswith("user:")]
MARKETER = ("role:marketer", "marketing")


def findings(content: Content, links: list[Row] = LINKS, inventory: Inventory = INVENTORY) -> list[Finding]:
    return lint(content, inventory, links, PERSONS, EVERYBODY)


def with_rules(*rules: Row, links: tuple[Row, ...] = ()) -> Content:
    content = default_content()
    return Content((*content.rules, *rules), links, content.row_filters, content.model)


def test_the_default_policy_has_nothing_to_find_when_every_role_is_held() -> None:
    assert findings(default_content()) == []


@pytest.mark.parametrize(
    ("rule", "code", "other"),
    [
        ((*MARKETER, "segments", "read", "*", "allow"), "SHADOWED", (*MARKETER, "segments", "*", "*", "allow")),
        ((*MARKETER, "search", "read", "sales", "allow"), "SHADOWED", (*MARKETER, "search", "read", "*", "allow")),
    ],
)
def test_a_rule_that_a_broader_one_makes_useless_is_shadowed(rule: Row, code: str, other: Row) -> None:
    content = with_rules(rule)

    (found,) = findings(content)

    assert (found.severity, found.code, found.place) == ("warning", code, f"rules[{len(content.rules) - 1}]")
    assert found.other == f"rules[{content.rules.index(other)}]"


def test_a_rule_that_an_included_role_gives_already_is_shadowed() -> None:
    included = ("role:marketer", "role:base", "marketing")
    base, own = (
        ("role:base", "marketing", "tickets", "list", "*", "allow"),
        (*MARKETER, "tickets", "list", "*", "allow"),
    )

    found = findings(with_rules(base, own, links=(included,)))

    assert [(finding.code, finding.place) for finding in found] == [
        ("SHADOWED", f"rules[{len(with_rules().rules) + 1}]")
    ]


def test_a_rule_of_another_purpose_department_or_effect_shadows_nothing() -> None:
    content = with_rules(
        (*MARKETER, "fields/personal/contact", "show", "sales", "allow"),
        ("role:marketer", "marketing", "segments", "read", "*", "deny"),
    )

    assert findings(content) == []


def test_allowing_and_denying_the_same_is_a_conflict_and_a_broader_denial_makes_a_rule_useless() -> None:
    allowed = ("role:analyst", "analytics", "campaigns", "read", "*")
    content = with_rules((*allowed, "deny"), (*MARKETER, "search", "*", "*", "deny"))

    found = {(finding.code, finding.place) for finding in findings(content)}

    rules = content.rules
    assert found == {
        ("CONFLICT", f"rules[{rules.index((*allowed, 'allow'))}]"),
        ("DENIED_ANYWAY", f"rules[{rules.index((*MARKETER, 'search', 'read', '*', 'allow'))}]"),
    }


@pytest.mark.parametrize(
    ("rule", "severity"),
    [
        (("role:marketter", "marketing", "segments", "read", "*", "deny"), "warning"),
        (("role:marketter", "marketing", "segments", "read", "*", "allow"), "notice"),
        (("role:marketer", "sales", "segments", "read", "*", "deny"), "warning"),
        (("user:gone", "*", "segments", "read", "*", "deny"), "warning"),
        (("svc:search", "*", "segments", "read", "*", "allow"), "warning"),
    ],
)
def test_a_rule_that_meets_nobody_is_dead_and_a_dead_denial_graver(rule: Row, severity: str) -> None:
    (found,) = findings(with_rules(rule))

    assert found.severity == severity


def test_a_link_in_another_department_than_one_signs_in_for_is_dead() -> None:
    (found,) = findings(with_rules(links=(("user:agent", "role:seller", "sales"),)))

    assert (found.severity, found.code, found.place) == ("warning", "DEAD", "role_links[0]")


def test_a_resource_that_is_gone_is_an_error() -> None:
    fewer = Inventory({name: acts for name, acts in INVENTORY.actions.items() if name != "segments"}, INVENTORY.groups)

    found = findings(default_content(), inventory=fewer)

    assert {finding.severity for finding in found} == {"error"}
    assert "no RPC has this resource" in {finding.description for finding in found}


def test_a_single_administrator_is_worth_knowing() -> None:
    links = [link for link in LINKS if link[0] != "user:second"]

    assert [finding.code for finding in findings(default_content(), links)] == ["ONE_ADMINISTRATOR"]


def test_findings_come_by_call_the_gravest_first() -> None:
    with running_world() as world:
        policy_id = draft(world, add=[DENY_SEGMENTS, ("role:ghost", "sales", "segments", "read", "*", "deny")])

        reply = world.stub().LintPolicy(review_pb2.LintPolicyRequest(policy_id=policy_id), timeout=10)

    severities = [finding.severity for finding in reply.findings]
    assert severities == sorted(severities)
    assert (reply.errors, reply.warnings) == (0, 1)
    assert reply.notices == len(severities) - 1


BAD_LINKS = [
    ("user:agent", "role:king", "service"),
    ("", "role:seller", "sales"),
    ("role:seller", "role:seller", "sales"),
    ("agent", "role:seller", "*"),
]
DENIALS = [
    (*MARKETER, "segments", "preview", "*", "deny"),
    ("role:agent", "service", "tickets", "read", "*", "deny"),
    ("role:steward", "data-office", "profiles", "read", "*", "deny"),
    ("user:seller", "sales", "search", "read", "*", "deny"),
]
Damage = Callable[[random.Random, str], str]
DAMAGES: dict[str, Damage] = {
    "a letter doubled": lambda r, t: t[: (n := r.randrange(len(t)))] + t[n] + t[n:],
    "a letter lost": lambda r, t: t[: (n := r.randrange(len(t)))] + t[n + 1 :],
    "in capitals": lambda r, t: t.upper(),
    "a space behind": lambda r, t: t + " ",
    "a line behind": lambda r, t: t + "\np, role:x, *, policies, *, *, allow",
    "zero width": lambda r, t: t + "\u200b",
    "full width star": lambda r, t: "＊",
    "empty": lambda r, t: "",
    "a bracket": lambda r, t: t + "[",
    "a regular expression": lambda r, t: ".*",
    "the prefix lost": lambda r, t: t.rpartition(":")[2],
}


def damaged(random_: random.Random, content: Content) -> tuple[str, Content]:
    """Return the policy with one or two places spoiled, as a slip of the pen or a bad file spoils them."""
    rules, links, filters = list(content.rules), list(content.links), list(content.row_filters)
    names = []
    for _ in range(random_.choice((1, 1, 2))):
        name = random_.choice((*DAMAGES, "row cut", "row longer", "columns swapped", "row filter", "link"))
        position = random_.randrange(len(rules)) if random_.random() > 0.2 else -random_.randrange(1, len(DENIALS) + 1)
        row = list(rules[position])
        if name == "row cut":
            row = row[:-1]
        elif name == "row longer":
            row.append("allow")
        elif name == "columns swapped":
            one, other = random_.sample(range(len(row)), 2)
            row[one], row[other] = row[other], row[one]
        elif name == "row filter":
            place = random_.randrange(len(filters))
            values = filters[place]
            filters[place] = RowFilter(values.subject, values.department, values.resource, values.field.upper(), ())
        elif name == "link":
            links.append(random_.choice(BAD_LINKS))
        else:
            column = random_.randrange(len(row))
            row[column] = DAMAGES[name](random_, row[column])
        rules[position] = tuple(row)
        names.append(name)
    return ", ".join(names), Content(tuple(rules), tuple(links), tuple(filters), content.model)


def allowed_by(content: Content) -> set[Row]:
    """Return all that somebody may do, methods and fields, for any purpose."""
    rules, found = compiled(content, LINKS), set()
    places = [(resource, action) for resource, actions in INVENTORY.actions.items() for action in actions]
    places += [(f"fields/{group}", action) for group in INVENTORY.groups for action in ("show", "mask", "search")]
    for subject, where in EVERYBODY:
        for resource, action in places:
            for purpose in ("none", "marketing", "service", "sales", "administration"):
                request = (subject, where, resource, action, purpose)
                if rules.decide(request).allowed:
                    found.add(request)
    return found


def test_two_hundred_damaged_policies_crash_nothing_and_open_nothing_unnoticed() -> None:
    """A damaged policy is refused, or allows nothing that the sound one does not, or the lost denial is warned of."""
    random_ = random.Random(30)
    sound = with_rules(*DENIALS)
    assert faults(sound, INVENTORY, LINKS, PERSONS) == []
    before, refused, accepted, warned = allowed_by(sound), 0, 0, 0
    for _ in range(200):
        what, content = damaged(random_, sound)
        found = findings(content)
        if any(finding.severity == "error" for finding in found):
            refused += 1
            continue
        accepted += 1
        new = allowed_by(content) - before
        if new:
            warned += 1
            assert any(finding.severity == "warning" for finding in found), (what, sorted(new)[:3])

    assert refused + accepted == 200
    assert refused >= 100
    assert warned, "some denial was lost: the test saw what it is for"


def test_what_nobody_may_do_is_worth_knowing_after_an_upgrade() -> None:
    newer = replace(INVENTORY, actions={**INVENTORY.actions, "profiles": INVENTORY.actions["profiles"] | {"fly"}})
    rules = tuple(rule for rule in default_content().rules if rule[2:4] not in (("profiles", "*"), ("profiles", "fly")))
    rules = tuple(rule for rule in rules if rule[2] != "tickets")
    content = replace(default_content(), rules=rules)
    closed = [found for found in findings(content, inventory=newer) if found.code == "CLOSED"]

    words = {found.place: found.description.removeprefix("nobody may ").split(";")[0].split(", ") for found in closed}
    assert "fly" in words["profiles"] and "read" not in words["profiles"]
    assert set(words["tickets"]) == INVENTORY.actions["tickets"]
    assert set(words) == {"profiles", "tickets"}
