"""Who can, of a record: the answer is the guard's own, for lent rows too, and by no more than what was told."""

from __future__ import annotations

import random
from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping
from types import SimpleNamespace
from typing import Any

import pytest
from kehu.access.v1 import access_pb2 as pb
from kehu.options.v1 import options_pb2 as options

from services.access.domain.principals import Principal
from services.access.domain.questions import Able, in_reach_by, who_can
from services.access.inventory import descriptors_path, read_inventory
from services.chassis.access import MODEL, Caller, Condition, Either, Except, PolicySnapshot, RowFilter, in_reach
from services.chassis.access.shares import Share, Shares
from services.chassis.server.guard import Guard, RowsNotNarrowed, _check_rows
from services.chassis.server.plans import MethodPlan, plan_of
from tests.access.test_questions import what, who
from tests.access.world import World, running_world
from tests.architecture.test_contracts import methods

NOW = 1_800_000_000.0
DEPARTMENTS, PURPOSES = ("sales", "service", "marketing"), ("sales", "service")
RESOURCES = ("profiles", "tickets", "relationships", "matchCandidates", "retention", "scores")
INVENTORY = read_inventory(descriptors_path())
PLANS: dict[tuple[str, str], list[MethodPlan]] = defaultdict(list)
for plan in map(plan_of, methods()):
    if plan.audience == options.AUDIENCE_PRINCIPAL and plan.resource in RESOURCES:
        PLANS[plan.resource, plan.action].append(plan)
FILTERS = (
    RowFilter("role:own", "*", "profiles", "owner_department", ("$department",)),
    RowFilter("role:own", "*", "tickets", "department", ("$department",)),
    RowFilter("role:own", "sales", "matchCandidates", "owner_department", ("$department",)),
    RowFilter("role:mine", "*", "tickets", "assignee", ("$subject",)),
    RowFilter("role:borrower", "*", "profiles", "profile_id", ("$shared",)),
    RowFilter("role:borrower", "*", "tickets", "ticket_id", ("$shared",)),
)


def lets(policy: PolicySnapshot, caller: Caller, asked: tuple[str, str], record: Mapping[str, str]) -> bool:
    """Tell what the guards of the RPCs say, and the row filter they hand on, of a record."""
    guard = Guard("s", {}, SimpleNamespace(current=policy, shadow=None), None, None)  # type: ignore[arg-type]
    for plan in PLANS[asked]:
        decision = guard._decide(plan, "gateway", caller)
        try:
            _check_rows(plan, decision)
        except RowsNotNarrowed:
            continue
        if decision.allowed and in_reach(decision.obligations.row_filter, record.get):
            return True
    return False


def able(
    policy: PolicySnapshot, person: tuple[str, str], asked: tuple[str, str], record: Mapping[str, str]
) -> Able | None:
    (found,) = who_can(policy, [person], *asked, PURPOSES, record, INVENTORY.narrowings(*asked))
    return found


def random_policy(rng: random.Random, home: Mapping[str, str]) -> PolicySnapshot:
    roles = ("own", "mine", "borrower", "all")
    rules = [(f"role:{role}", "*", resource, rng.choice(("*", "read", "list")), rng.choice(("*", *PURPOSES)), "allow")
             for role in roles for resource in RESOURCES if rng.random() < 0.8]  # fmt: skip
    rules += [("role:all", "*", kind, "share", "*", "allow") for kind in ("profiles", "tickets")]
    links = {(person, f"role:{rng.choice(roles)}", home[person]) for person in home for _ in range(2)}
    given = [
        Share(kind, f"{kind[0]}{rng.randrange(3)}", rng.choice(tuple(home)), rng.choice(PURPOSES),
              lender := rng.choice(tuple(home)), home[lender], "", NOW + 60)
        for kind in ("profiles", "tickets") for _ in range(6)
    ]  # fmt: skip
    return PolicySnapshot(1, MODEL, rules, sorted(links), FILTERS, now=lambda: NOW).with_shares(Shares(given, "1"))


def test_who_can_says_of_a_record_what_the_guards_say() -> None:
    """Of 200 random policies with shares: every field told, the same answer; some told, nobody is left out wrongly."""
    rng, seen, refused = random.Random(20261122), 0, 0
    for _ in range(200):
        home = {f"user:p{number}": rng.choice(DEPARTMENTS) for number in range(4)}
        policy = random_policy(rng, home)
        for asked in rng.sample(sorted(PLANS), 12):
            person = rng.choice(tuple(home.items()))
            record = {"profile_id": f"p{rng.randrange(3)}", "ticket_id": f"t{rng.randrange(3)}",
                      "owner_department": rng.choice(DEPARTMENTS), "department": rng.choice(DEPARTMENTS),
                      "assignee": rng.choice(tuple(home))}  # fmt: skip
            some = dict(rng.sample(sorted(record.items()), rng.randrange(4)))
            may = any(lets(policy, Caller(person[0], "user", person[1], why), asked, record) for why in PURPOSES)

            whole, partly = able(policy, person, asked, record), able(policy, person, asked, some)

            assert (whole is not None) == may, (asked, person, record)
            assert whole is None or whole.judged
            assert partly is not None or not may, (asked, person, some)
            assert partly is None or not partly.judged or may
            seen, refused = seen + may, refused + (not may)
    assert min(seen, refused) > 300


CLAUSES = (Condition("a", ("1", "2")), Except("b", ("1",)),
           Either(((Condition("a", ("1",)), Condition("b", ("2",))), (Condition("c", ("3",)),))))  # fmt: skip


@pytest.mark.parametrize("clauses", [CLAUSES[:1], CLAUSES[1:2], CLAUSES[2:], CLAUSES])
def test_what_is_judged_of_a_record_holds_whatever_its_other_fields_are(clauses: Iterable[Any]) -> None:
    values = ("1", "2", "3")
    for number in range(64):
        told = {name: values[digit - 1] for name, digit in zip("abc", digits(number), strict=True) if digit}
        whole = [
            {**{name: values[digit] for name, digit in zip("abc", digits(other, 3), strict=True)}, **told}
            for other in range(27)
        ]
        outcomes = {in_reach(clauses, each.get) for each in whole}
        assert in_reach_by(clauses, told) == (outcomes.pop() if len(outcomes) == 1 else None), told


def digits(number: int, base: int = 4) -> tuple[int, int, int]:
    return number % base, number // base % base, number // base**2 % base


ANN, BO, MIA = "user:ann", "user:bo", "user:mia"
OF_MIA = {"subject": MIA, "department": "marketing", "purpose": "sales"}


@pytest.fixture
def world(monkeypatch: pytest.MonkeyPatch) -> Iterator[World]:
    """Ann of service lends a to two of marketing: Bo has what is lent only, Mia what is her department's too."""
    links = [(ANN, "role:own", "service"), (BO, "role:borrower", "marketing"), (MIA, "role:borrower", "marketing"),
             (MIA, "role:own", "marketing")]  # fmt: skip
    roles = ("role:own", "role:borrower")
    rules = [(role, "*", resource, "*", "*", "allow") for role in roles for resource in RESOURCES]
    shares = Shares([Share("profiles", "a", who, "sales", ANN, "service", "", NOW + 60) for who in (BO, MIA)], "1")
    policy = PolicySnapshot(1, MODEL, rules, links, FILTERS, now=lambda: NOW).with_shares(shares)
    with running_world() as running:
        for who_, _, department in links[1:3]:
            running.context.principals.insert(Principal("user", who_.removeprefix("user:"), department, (), "x"))
        running.context.directory.refresh(at_once=True)
        monkeypatch.setattr(running.context.directory, "snapshot", lambda: policy)
        yield running


def test_who_has_own_rows_and_lent_ones_is_told_as_not_judged_where_the_owner_is_not_told(world: World) -> None:
    def found(**record: str) -> dict[str, bool]:
        said = who(world, "profiles", "read", purpose="sales", record=record)
        return {each.subject: each.rows_judged for each in said}

    assert found() == found(profile_id="a") == {BO: False, MIA: False}, "of a, whether Ann reaches it is not told"
    assert found(profile_id="a", owner_department="service") == {BO: True, MIA: True}
    assert found(profile_id="a", owner_department="sales") == {}
    assert found(profile_id="b") == {MIA: False}
    assert found(profile_id="b", owner_department="service") == {}
    assert found(owner_department="marketing") == {MIA: True}


def test_no_answer_counts_what_is_lent_where_a_method_cannot_tell_it_apart(world: World) -> None:
    """Match candidates narrow by the department alone: a share adds nothing there, and is all that Bo has."""
    asked = ("matchCandidates", "list")
    assert [each.subject for each in who(world, *asked, purpose="sales")] == [MIA]
    methods = {subject: {(each.resource, each.action) for each in what(world, subject, department="marketing").methods}
               for subject in (BO, MIA)}  # fmt: skip
    assert {subject: asked in found for subject, found in methods.items()} == {BO: False, MIA: True}

    of_mia, of_bo = (
        world.stub().ExplainAccess(
            pb.ExplainAccessRequest(**OF_MIA | {"subject": subject}, resource=asked[0], action=asked[1]), timeout=9
        )
        for subject in (MIA, BO)
    )
    said = str(of_mia.row_clauses)
    assert of_mia.allowed and "owner_department" in said and "profile_id" not in said
    assert (of_bo.allowed, of_bo.reason) == (False, "ROWS_NOT_NARROWED")
    reads = world.stub().ExplainAccess(pb.ExplainAccessRequest(**OF_MIA, resource="profiles", action="read"), timeout=9)
    assert "profile_id" in str(reads.row_clauses)
