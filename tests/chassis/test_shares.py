"""The scope `$shared`: records lent one by one are united with the other rows, and nothing else is."""

from __future__ import annotations

import random
from dataclasses import replace

import pytest
from kehu.access.v1 import access_pb2 as pb

from services.chassis.access import (
    MODEL,
    Caller,
    Condition,
    Either,
    NamedCondition,
    PolicySnapshot,
    RowFilter,
    in_reach,
)
from services.chassis.access.conditions import DateWindow, Network, RecordAttribute
from services.chassis.access.shares import Share, Shares, lent_ids, without_lent
from services.chassis.access.wire import request_for, updated
from services.chassis.access.wire_shares import share_message

NOW = 1_800_000_000.0
DEPARTMENTS = ("sales", "service", "marketing")
PURPOSES = ("sales", "service")
OWN = NamedCondition("own", RecordAttribute("owner_department", ("$department",)))
LENT = NamedCondition("lent", RecordAttribute("profile_id", ("$shared",)))
OFFICE = NamedCondition("office", Network(("10.0.0.0/8",)))
ENDED = NamedCondition("ended", DateWindow(end=NOW - 1))


def rule(subject: str, action: str, *conditions: str, effect: str = "allow") -> tuple[str, ...]:
    row = (subject, "*", "profiles", action, "*", effect)
    return (*row, "+".join(conditions)) if conditions else row


RULES = (
    rule("role:lender", "read", "own"), rule("role:lender", "share"),
    rule("role:chief", "read"), rule("role:chief", "share"),
    rule("role:reader", "read", "own"),
    rule("role:reader", "read", "lent"),
    rule("role:borrower", "read"),
    rule("role:officer", "read", "office"), rule("role:officer", "share", "office"),
    rule("role:former", "read", "ended"), rule("role:former", "share"),
)  # fmt: skip
FILTERS = (RowFilter("role:borrower", "*", "profiles", "profile_id", ("$shared",)),)


def snapshot(
    *links: tuple[str, ...], shares: tuple[Share, ...] = (), rules: tuple = RULES, **how: object
) -> PolicySnapshot:
    made = PolicySnapshot(
        1, MODEL, rules, links, FILTERS, conditions=(OWN, LENT, OFFICE, ENDED), now=lambda: NOW, **how
    )
    return made.with_shares(Shares(shares, "1"))


def share(record: str, lender: str = "user:lin", department: str = "service", **values: object) -> Share:
    given = Share("profiles", record, "user:bo", "sales", lender, department, "", NOW + 60)
    return replace(given, **values)


def reached(policy: PolicySnapshot, caller: Caller, record: str, owner: str) -> bool:
    decision = policy.decide(caller, "profiles", "read")
    known = {"profile_id": record, "owner_department": owner}
    return decision.allowed and in_reach(decision.obligations.row_filter, known.get)


BO = Caller("user:bo", "user", "marketing", "sales")
BORROWER = ("user:bo", "role:borrower", "marketing")
LENDER, CHIEF = ("user:lin", "role:lender", "service"), ("user:lin", "role:chief", "service")


def test_a_borrower_reaches_what_is_lent_and_nothing_else() -> None:
    policy = snapshot(
        BORROWER, ("user:lin", "role:lender", "service"), shares=(share("a"), share("b", resource="tickets"))
    )

    assert reached(policy, BO, "a", "service")
    assert not reached(policy, BO, "b", "service")
    assert not reached(policy, BO, "c", "marketing")


@pytest.mark.parametrize(
    ("why", "given"),
    [
        ("another purpose", share("a", purpose="service")),
        ("over", share("a", end=NOW)),
        ("lent to another", share("a", borrower="user:al")),
        ("lent to another department", share("a", borrower="department:sales")),
        ("out of the lender's sight", share("a", department="sales")),
        ("lent by somebody who may not lend", share("a", lender="user:ray")),
        ("lent by somebody who lost the right", share("a", lender="user:fay")),
        ("lent by a borrower", share("a", lender="user:bo2")),
        ("lent by somebody whose right holds at the office only", share("a", lender="user:ofa")),
    ],
)  # fmt: skip
def test_nothing_is_lent(why: str, given: Share) -> None:
    links = (BORROWER, LENDER, ("user:lin", "role:lender", "sales"),
             ("user:ray", "role:reader", "service"), ("user:fay", "role:former", "service"),
             ("user:bo2", "role:borrower", "service"), ("user:bo2", "role:lender", "marketing"),
             ("user:ofa", "role:officer", "service"))  # fmt: skip
    policy = snapshot(*links, shares=(given, share("a", lender="user:lin", borrower="user:bo2")))

    assert not reached(policy, BO, "a", "service")


def test_what_is_lent_to_a_department_is_lent_to_who_is_in_it() -> None:
    policy = snapshot(
        BORROWER, ("user:lin", "role:chief", "service"), shares=(share("a", borrower="department:marketing"),)
    )

    assert reached(policy, BO, "a", "sales")
    assert not reached(policy, replace(BO, department="sales"), "a", "sales")


def test_a_rule_that_denies_takes_away_what_is_lent() -> None:
    denial = rule("user:bo", "read", "own", effect="deny")
    policy = snapshot(BORROWER, CHIEF, shares=(share("a"),), rules=(*RULES, denial))

    assert reached(policy, BO, "a", "service")
    assert not reached(policy, BO, "a", "marketing")


def test_lenders_who_see_alike_are_taken_together() -> None:
    chiefs = [(f"user:c{number}", "role:chief", "service") for number in range(100)]
    policy = snapshot(BORROWER, *chiefs, shares=tuple(share(f"p{n}", f"user:c{n}") for n in range(100)))

    (clause,) = policy.decide(BO, "profiles", "read").obligations.row_filter

    assert isinstance(clause, Condition)
    assert len(clause.values) == 100


def test_a_share_is_united_with_the_other_rows_and_adds_nothing_that_was_not_lent() -> None:
    """7,500 random records, shares and roles against the sentence of docs/shares.md."""
    rng, wrong, lent = random.Random(20261122), [], 0
    for _ in range(1_500):
        people = [f"user:p{number}" for number in range(6)]
        home = {who: rng.choice(DEPARTMENTS) for who in people}
        roles = {who: {rng.choice(("lender", "chief", "reader", "borrower", "officer"))} for who in people}
        roles["user:p0"] = {rng.choice(("reader", "borrower"))} | ({"reader"} if rng.random() < 0.3 else set())
        given = tuple(
            Share("profiles", f"r{rng.randrange(5)}", rng.choice((*people, "department:sales")), rng.choice(PURPOSES),
                  lender := rng.choice(people), home[lender], "", NOW + rng.choice((-1, 60)))
            for _ in range(rng.randrange(12))
        )  # fmt: skip
        policy = snapshot(*((w, f"role:{r}", home[w]) for w in people for r in roles[w]), shares=given)
        caller = Caller("user:p0", "user", home["user:p0"], rng.choice(PURPOSES))
        for number in range(5):
            record, owner = f"r{number}", rng.choice(DEPARTMENTS)
            by_share = any(
                each.record_id == record and each.purpose == caller.purpose and each.end > NOW
                and each.borrower in ("user:p0", f"department:{caller.department}")
                and ("chief" in roles[each.lender] or ("lender" in roles[each.lender] and home[each.lender] == owner))
                for each in given
            )  # fmt: skip
            expected = by_share or ("reader" in roles["user:p0"] and owner == caller.department)
            lent += by_share
            if reached(policy, caller, record, owner) is not expected:
                wrong.append((caller, roles, home, record, owner, given))

    assert wrong == []
    assert lent > 60


def test_a_method_that_cannot_tell_records_apart_by_id_answers_without_what_is_lent() -> None:
    mine, lent = Condition("owner_department", ("sales",), "profiles"), Condition("profile_id", ("a",), "profiles")
    both = (Either(((mine,), (lent, mine)), "profiles"),)

    assert without_lent(both, frozenset({"owner_department", "profile_id"})) == both
    assert without_lent(both, frozenset({"owner_department"})) == (Either(((mine,),), "profiles"),)
    assert without_lent((lent,), frozenset({"owner_department"})) == (lent,)  # which the guard then refuses
    assert lent_ids(both) == ["a"]


def test_shares_travel_without_the_rules() -> None:
    known = snapshot(BORROWER, CHIEF)
    reply = pb.GetPolicySnapshotResponse()
    reply.shares.shares_version = "2"
    reply.shares.shares.append(share_message(share("a")))

    after = updated(known, reply)
    assert after is not None
    none = updated(after, pb.GetPolicySnapshotResponse(shares={}))

    assert after.rules is known.rules
    assert request_for(after).shares_version == "2"
    assert [reached(each, BO, "a", "service") for each in (known, after, none)] == [False, True, False]  # type: ignore[arg-type]
    assert updated(after, pb.GetPolicySnapshotResponse()) is None


def test_who_could_not_read_profiles_and_borrows_now_sees_of_them_what_is_lent_only() -> None:
    """The trap that docs/shares.md names: of two roles the one that reads by `$shared` alone decides what is read."""
    rules = (*RULES, ("role:scorer", "*", "scores", "read", "*", "allow"))
    scorer = ("user:bo", "role:scorer", "marketing")
    rows = [
        snapshot(*links, CHIEF, rules=rules, shares=(share("a"),)).decide(BO, "scores", "read", ("profiles",))
        for links in ((scorer,), (scorer, BORROWER), (scorer, BORROWER, ("user:bo", "role:chief", "marketing")))
    ]

    assert [each.obligations.row_filter for each in rows] == [(), (Condition("profile_id", ("a",), "profiles"),), ()]
