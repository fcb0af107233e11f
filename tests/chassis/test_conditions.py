"""Conditions on rules: a typed vocabulary, unknown never allows and always denies; roles that end; rows united."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime, timedelta

import pytest

from services.chassis.access import (
    MODEL,
    Caller,
    Condition,
    Either,
    Except,
    Facts,
    NamedCondition,
    Organization,
    PolicySnapshot,
    RowFilter,
    build_rules,
    in_reach,
    values_in_reach,
)
from services.chassis.access.conditions import (
    DateWindow,
    DevicePosture,
    Network,
    RecordAttribute,
    SecondFactorAge,
    TimeOfDay,
    from_plain,
    plain,
)
from services.chassis.access.wire_conditions import condition_message, condition_of
from services.chassis.errors import Invalid

NOON = datetime(2026, 11, 23, 4, 0, tzinfo=UTC)  # a Monday, 12:00 in Shanghai
ALICE = Caller("user:alice", "user", "sales", "sales", auth_time=NOON - timedelta(seconds=60), methods=("pwd", "otp"))
OFFICE = NamedCondition("office-hours", TimeOfDay("Asia/Shanghai", "09:00", "18:00", (1, 2, 3, 4, 5)))
NIGHT = NamedCondition("night", TimeOfDay("Asia/Shanghai", "22:00", "06:00", (5,)))
INSIDE = NamedCondition("inside", Network(("10.20.0.0/16", "2001:db8::/32")))
OUTSIDE = replace(INSIDE, name="outside", negated=True)
FRESH = NamedCondition("fresh-factor", SecondFactorAge(300))
MANAGED = NamedCondition("managed", DevicePosture("managed", ("true",)))
CAMPAIGN = NamedCondition("campaign", DateWindow(NOON.timestamp(), NOON.timestamp() + 3600))
EAST = NamedCondition("east", RecordAttribute("province_code", ("310000", "320000", "330000")))
GOLD = NamedCondition("gold", RecordAttribute("tier", ("gold",)))
OWN = NamedCondition("own", RecordAttribute("assignee", ("$subject",)))
FINANCE = NamedCondition("finance", RecordAttribute("owner_department", ("finance",)))
CONDITIONS = (OFFICE, NIGHT, INSIDE, OUTSIDE, FRESH, MANAGED, CAMPAIGN, EAST, GOLD, OWN, FINANCE)


def facts(at: datetime = NOON, **how: object) -> Facts:
    return Facts(at.timestamp(), **how)


def shanghai(day: int, hour: int, minute: int = 0) -> Facts:
    return facts(datetime(2026, 11, day, hour, minute, tzinfo=UTC) - timedelta(hours=8))


@pytest.mark.parametrize(
    ("condition", "given", "expected"),
    [
        (OFFICE, shanghai(23, 9), True),
        (OFFICE, shanghai(23, 8, 59), False),
        (OFFICE, shanghai(23, 18), False),
        (OFFICE, shanghai(22, 12), False),  # a Sunday
        (NIGHT, shanghai(27, 23), True),  # Friday night
        (NIGHT, shanghai(28, 5, 59), True),  # which ends on Saturday
        (NIGHT, shanghai(28, 6), False),
        (NIGHT, shanghai(28, 23), False),
        (NIGHT, shanghai(27, 5), False),  # the night of Thursday
        (INSIDE, facts(address="10.20.3.4"), True),
        (INSIDE, facts(address="::ffff:10.20.3.4"), True),
        (INSIDE, facts(address="2001:db8::1"), True),
        (INSIDE, facts(address="10.21.0.1"), False),
        (INSIDE, facts(), None),
        (INSIDE, facts(address="10.20.3.4, 8.8.8.8"), None),
        (OUTSIDE, facts(address="10.21.0.1"), True),
        (OUTSIDE, facts(address="nonsense"), None),
        (FRESH, facts(second_factor_at=NOON.timestamp() - 300), True),
        (FRESH, facts(second_factor_at=NOON.timestamp() - 301), False),
        (FRESH, facts(), None),
        (MANAGED, facts(device=(("managed", "true"),)), True),
        (MANAGED, facts(device=(("managed", "false"),)), False),
        (MANAGED, facts(device=(("encrypted", "true"),)), None),
        (CAMPAIGN, facts(), True),
        (CAMPAIGN, facts(NOON - timedelta(seconds=1)), False),
        (CAMPAIGN, facts(NOON + timedelta(hours=1)), False),
    ],
)
def test_a_condition_is_true_false_or_unknown(condition: NamedCondition, given: Facts, expected: bool | None) -> None:
    assert condition.outcome(given) is expected


@pytest.mark.parametrize("condition", CONDITIONS, ids=lambda each: each.name)
def test_a_condition_is_the_same_after_the_wire_and_after_the_store(condition: NamedCondition) -> None:
    assert condition_of(condition_message(condition)) == condition
    assert from_plain(plain(condition)) == condition


def snapshot(*rules: tuple[str, ...], links: tuple = (), at: datetime = NOON, **how: object) -> PolicySnapshot:
    links = links or (("user:alice", "role:seller", "sales"),)
    return PolicySnapshot(1, MODEL, rules, links, conditions=CONDITIONS, now=lambda: at.timestamp(), **how)


def rule(*conditions: str, subject: str = "role:seller", effect: str = "allow", resource: str = "profiles") -> tuple:
    row = (subject, "sales", resource, "read", "*", effect)
    return (*row, "+".join(conditions)) if conditions else row


@pytest.mark.parametrize(
    ("address", "allowed", "denied"), [("10.20.0.1", True, True), ("8.8.8.8", False, False), ("", False, True)]
)
def test_what_nobody_knows_never_allows_and_always_denies(address: str, allowed: bool, denied: bool) -> None:
    """The same condition on a rule that allows and on one that denies; an unknown address is the last row."""
    caller = replace(ALICE, address=address)

    one = snapshot(rule("inside")).decide(caller, "profiles", "read")
    other = snapshot(rule(), rule("inside", effect="deny")).decide(caller, "profiles", "read")

    assert (one.allowed, not other.allowed) == (allowed, denied)
    assert one.reason == ("ALLOWED" if allowed else "CONDITION_NOT_MET")


def test_all_conditions_of_a_rule_must_hold_and_the_unmet_are_named() -> None:
    policy = snapshot(rule("inside", "office-hours", "fresh-factor"))
    caller = replace(ALICE, address="8.8.8.8", methods=("pwd",))

    decision = policy.decide(caller, "profiles", "read")

    assert policy.rules.unmet(decision.rule, policy.facts(caller)) == ["inside", "fresh-factor"]
    assert policy.decide(replace(ALICE, address="10.20.0.1"), "profiles", "read").allowed


def test_a_conditional_denial_beats_an_unconditional_permission() -> None:
    policy = snapshot(rule(), rule("outside", effect="deny"))

    assert not policy.decide(replace(ALICE, address="8.8.8.8"), "profiles", "read").allowed
    assert policy.decide(replace(ALICE, address="10.20.0.1"), "profiles", "read").allowed


def test_field_groups_follow_the_conditions_of_each_call() -> None:
    field = ("role:seller", "sales", "fields/personal/contact")
    policy = snapshot(
        rule(), (*field, "mask", "sales", "allow"), (*field, "show", "sales", "allow", "inside")
    )  # fmt: skip

    def seen(address: str) -> str:
        decision = policy.decide(replace(ALICE, address=address), "profiles", "read")
        return decision.obligations.disposition("personal", "contact")

    assert [seen("10.20.0.1"), seen("8.8.8.8"), seen("10.20.0.1"), seen("")] == ["show", "mask", "show", "mask"]


def test_a_role_ends_at_the_moment_and_not_at_the_next_reload() -> None:
    end = NOON.timestamp() + 10
    clock = [NOON.timestamp()]
    link = ("user:alice", "role:seller", "sales", str(clock[0] - 5), str(end))
    policy = PolicySnapshot(1, MODEL, [rule()], [link], now=lambda: clock[0])
    answers = []
    for moment in (clock[0] - 6, clock[0], end - 0.001, end, end + 60, clock[0]):
        clock[0] = moment
        answers.append(policy.decide(ALICE, "profiles", "read").allowed)

    assert answers == [False, True, True, False, False, True]


def test_a_role_inherited_through_a_link_that_ends_ends_too() -> None:
    now = NOON.timestamp()
    links = (("user:alice", "role:lead", "sales"), ("role:lead", "role:seller", "sales", "0", str(now + 1)))

    assert snapshot(rule(), links=links).decide(ALICE, "profiles", "read").allowed
    assert not snapshot(rule(), links=links, at=NOON + timedelta(seconds=1)).decide(ALICE, "profiles", "read").allowed


def test_conditions_and_times_are_refused_where_pycasbin_would_decide() -> None:
    other = MODEL.partition("m = ")[0] + "m = g(r.sub, p.sub, r.dom) && r.obj == p.obj && keyMatch(r.act, p.act)\n"

    for rows, links in (([rule("inside")], []), ([rule()], [("user:alice", "role:seller", "sales", "0", "9")])):
        with pytest.raises(Invalid):
            build_rules(other, rows, links, CONDITIONS)


def test_a_rule_that_names_no_known_condition_refuses_the_whole_policy() -> None:
    with pytest.raises(Invalid):
        snapshot(rule("elsewhere"))


def among(field: str, values: tuple[str, ...]) -> Condition:
    return Condition(field, values, "profiles")


def rows(policy: PolicySnapshot, caller: Caller = ALICE) -> tuple:
    return policy.decide(caller, "profiles", "read").obligations.row_filter


TWO_ROLES = (("user:alice", "role:seller", "sales"), ("user:alice", "role:lead", "sales"))


def test_rows_granted_by_several_roles_are_united() -> None:
    mine = RowFilter("role:seller", "sales", "profiles", "assignee", ("$subject",))
    east = RowFilter("role:lead", "sales", "profiles", "province_code", ("310000",))
    both = (rule(), rule(subject="role:lead"))

    united = rows(snapshot(*both, links=TWO_ROLES, row_filters=[mine, east]))

    assert united == (
        Either(((among("assignee", ("user:alice",)),), (among("province_code", ("310000",)),)), "profiles"),
    )
    assert rows(snapshot(*both, links=TWO_ROLES, row_filters=[mine])) == ()  # the lead sees all
    assert rows(snapshot(rule(), links=TWO_ROLES, row_filters=[mine])) == (among("assignee", ("user:alice",)),)


def test_a_filter_narrows_all_that_is_reached_through_its_subject() -> None:
    links = (("user:alice", "role:trainee", "sales"), ("role:trainee", "role:seller", "sales"))
    of_trainee = RowFilter("role:trainee", "*", "profiles", "assignee", ("$subject",))
    of_seller = RowFilter("role:seller", "*", "profiles", "owner_department", ("$department",))
    of_alice = RowFilter("user:alice", "*", "profiles", "tier", ("gold",))

    assert rows(snapshot(rule(), links=links, row_filters=[of_trainee, of_seller, of_alice])) == (
        among("assignee", ("user:alice",)), among("owner_department", ("sales",)), among("tier", ("gold",)),
    )  # fmt: skip
    wider = (*links, ("user:alice", "role:seller", "sales"))  # and once directly
    assert rows(snapshot(rule(), links=wider, row_filters=[of_trainee, of_seller])) == (
        among("owner_department", ("sales",)),
    )


def test_a_condition_on_records_grants_those_records_and_a_denial_takes_them_away() -> None:
    assert rows(snapshot(rule("east"))) == (among("province_code", ("310000", "320000", "330000")),)
    assert rows(snapshot(rule("east", "gold"))) == (
        among("province_code", ("310000", "320000", "330000")), among("tier", ("gold",)),
    )  # fmt: skip
    assert rows(snapshot(rule(), rule("gold", effect="deny"))) == (Except("tier", ("gold",), "profiles"),)
    assert rows(snapshot(rule("own"), rule("gold", effect="deny"))) == (
        among("assignee", ("user:alice",)), Except("tier", ("gold",), "profiles"),
    )  # fmt: skip


def test_departments_that_are_denied_leave_the_others() -> None:
    organization = Organization({"sales": "", "finance": "", "service": ""})

    found = rows(snapshot(rule(), rule("finance", effect="deny"), organization=organization))

    assert found == (among("owner_department", ("sales", "service")),)


def test_the_callers_own_department_tree_and_team_are_filled_in() -> None:
    organization = Organization(
        {"sales": "", "sales-east": "sales", "sales-east-one": "sales-east", "service": ""},
        (frozenset({"user:alice", "user:bo"}), frozenset({"user:cy"})),
    )

    def bound(value: str) -> tuple[str, ...]:
        row_filter = RowFilter("role:seller", "*", "profiles", "assignee", (value,))
        return rows(snapshot(rule(), row_filters=[row_filter], organization=organization))[0].values

    assert bound("$departmentTree") == ("sales", "sales-east", "sales-east-one")
    assert bound("$team") == ("user:alice", "user:bo")
    assert (bound("$subject"), bound("$department")) == (("user:alice",), ("sales",))


def test_a_record_condition_that_only_some_requests_meet_opens_no_other_row() -> None:
    policy = snapshot(rule("own"), rule("inside"))

    assert rows(policy, replace(ALICE, address="8.8.8.8")) == (among("assignee", ("user:alice",)),)
    assert rows(policy, replace(ALICE, address="10.20.0.1")) == ()


def test_who_finds_records_by_another_right_finds_what_a_reader_reaches() -> None:
    """Search tells of profiles: the rows of their readers hold; all filters do for whom no rule lets read."""
    finder = ("role:lead", "sales", "search", "read", "*", "allow")
    mine = RowFilter("role:seller", "sales", "profiles", "assignee", ("$subject",))
    gold = RowFilter("user:alice", "sales", "profiles", "tier", ("gold",))

    def seen(*rules: tuple[str, ...]) -> tuple:
        policy = snapshot(finder, *rules, links=TWO_ROLES, row_filters=[mine, gold])
        return policy.decide(ALICE, "search", "read", ("profiles",)).obligations.row_filter

    assert seen() == (among("assignee", ("user:alice",)), among("tier", ("gold",)))
    assert seen(rule(), rule(subject="role:lead")) == (among("tier", ("gold",)),)


@pytest.mark.parametrize(
    ("row", "expected"),
    [
        ({"tier": "gold", "city": "sh"}, True), ({"tier": "basic", "city": "sh"}, False), ({"tier": "gold"}, False),
        ({"tier": "gold", "city": ""}, False), ({"tier": "gold", "city": "bj"}, False), ({"owner": "a"}, False),
        ({"owner": "a", "city": "sh"}, True),
    ],
)  # fmt: skip
def test_a_row_is_in_reach_when_all_clauses_hold(row: dict[str, str], expected: bool) -> None:
    clauses = (Either(((Condition("tier", ("gold",)),), (Condition("owner", ("a",)),))), Except("city", ("bj",)))

    assert in_reach(clauses, row.get) is expected


def test_a_service_of_one_field_lets_nothing_through_that_asks_for_another() -> None:
    either = Either(((Condition("department", ("a",)),), (Condition("tier", ("gold",)),)))

    assert values_in_reach((), "department") is None
    assert values_in_reach((either,), "department") == {"a"}
    assert values_in_reach((either, Condition("department", ("b",))), "department") == frozenset()
    assert values_in_reach((Condition("tier", ("gold",)),), "department") == frozenset()
    assert values_in_reach((Except("department", ("a",)),), "department") == frozenset()


def test_who_knows_only_plain_conditions_lets_nothing_else_through() -> None:
    """A reader that compares `field` and `values` meets a field that no record has."""
    assert {(each.field, each.values) for each in (Either(()), Except("tier", ("gold",)))} == {("", ())}
