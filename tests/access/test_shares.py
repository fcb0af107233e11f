"""Records lent one by one: kept, listed, ended, and in force in every process at once."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from datetime import timedelta
from typing import Any

import pytest
from kehu.access.v1 import access_pb2, review_pb2
from kehu.access.v1 import shares_pb2 as pb
from kehu.profiles.v1.events_pb2 import ProfileErased, ProfilesMerged, ProfilesUnmerged

from services.access.bootstrap import FIRST_POLICY
from services.access.domain import shares as domain
from services.access.domain.checks import faults
from services.access.domain.names import Link
from services.access.domain.principals import Principal
from services.access.domain.shares import Lent
from services.access.events import AccessConsumer
from services.access.inventory import descriptors_path, read_inventory
from services.access.store.shares import MemoryShares, MongoShares, ShareRecord, ShareStore
from services.chassis import records
from services.chassis.access import Caller, NamedCondition, PolicySnapshot, RowFilter, wire
from services.chassis.access.conditions import RecordAttribute
from services.chassis.consuming import Event
from services.chassis.errors import Conflict
from tests.access.stores import BOTH, emptied
from tests.access.world import START, World, running_world
from tests.harness import bad_fields, refused

ANN, BO, OLGA = "user:ann@service", "user:bo@marketing", "user:olga@service"
A, B, C = ("abc"[n] * 32 for n in range(3))
DAY = 86400


def lent(number: int = 1, **values: Any) -> Lent:
    new = Lent(
        f"{number:032x}", "profiles", A, A, "user:bo", "marketing", "joint campaign", "user:ann", "service", "service",
        START + timedelta(days=30), START,
    )  # fmt: skip
    return replace(new, **values)


@pytest.fixture(params=BOTH)
def store(request: pytest.FixtureRequest) -> Iterator[ShareStore]:
    if request.param == "memory":
        yield MemoryShares()
        return
    with emptied(request, "shares"):
        records.ensure_indexes([ShareRecord])
        yield MongoShares()


def test_a_share_is_kept_once_and_changed_by_one(store: ShareStore) -> None:
    first = store.insert(lent())
    again = store.insert(lent(reason="another"))
    changed = store.save(replace(first, state=domain.REVOKED, closer="user:ann"))

    assert (again.reason, again.version) == ("joint campaign", 1)
    kept = store.get(first.id)
    assert kept is not None
    assert replace(kept, update_time=None) == replace(changed, update_time=None)
    assert store.get("f" * 32) is None
    with pytest.raises(Conflict):
        store.save(replace(first, state=domain.RETURNED))


def test_what_counts_is_lent_and_not_over(store: ShareStore) -> None:
    kept = store.insert(lent(1))
    store.insert(lent(2, borrower="department:sales", lender="user:dan"))
    store.insert(lent(3, state=domain.REVOKED))
    store.insert(lent(4, end_time=START))

    assert {share.id for share in store.in_force(START)} == {kept.id, lent(2).id}
    assert store.counts("user:bo", "user:dan", START) == (1, 1, 2)
    assert store.counts("user:x", "user:ann", START) == (0, 1, 2)
    assert {share.id for share in store.changed_since(START - timedelta(days=9))} == {lent(n).id for n in (1, 2, 3, 4)}
    assert store.changed_since(START + timedelta(days=9999)) == []


def test_shares_are_found_by_the_ids_their_record_has_and_had(store: ShareStore) -> None:
    for number, (now, then, state) in enumerate([(A, A, "lent"), (B, A, "lent"), (C, C, "lent"), (A, A, "revoked")]):
        store.insert(lent(number, record_id=now, lent_id=then, state=state))

    assert [int(share.id, 16) for share in store.of_records([A])] == [0, 1]
    assert [int(share.id, 16) for share in store.of_records([B, C])] == [1, 2]


def test_pages_are_newest_first_without_a_gap(store: ShareStore) -> None:
    for number in range(9):
        at = START + timedelta(seconds=number // 2)
        who = {"lender": f"user:{'abc'[number % 3]}", "department": ("sales", "service")[number % 2]}
        store.insert(lent(number, create_time=at, borrower=f"user:{'de'[number % 2]}", **who))

    found, before = [], None
    while page := store.page("", (), "", before, 2):
        found += page
        before = (page[-1].create_time, page[-1].id)

    def numbers(*whose: Any) -> list[int]:
        return [int(share.id, 16) for share in store.page(*whose, None, 9)]

    assert [int(share.id, 16) for share in found] == [8, 7, 6, 5, 4, 3, 2, 1, 0]
    assert numbers("user:a", (), "") == [6, 3, 0]
    assert numbers("", ("user:e",), "") == [7, 5, 3, 1]
    assert numbers("user:a", (), "service") == [7, 6, 5, 3, 1, 0]


@pytest.fixture
def world() -> Iterator[World]:
    with running_world() as found:
        people = [
            ("ann", "service", ("role:agent",)), ("bo", "marketing", ("role:borrower",)), ("cy", "marketing", ()),
            ("olga", "service", ("role:owner",)), ("sam", "sales", ("role:owner",)),
            ("rita", "administration", ("role:auditor",)),
        ]  # fmt: skip
        for login, department, roles in people:
            found.context.principals.insert(Principal("user", login, department, roles, "x"))
        found.context.directory.refresh(at_once=True)
        yield found


def wish(
    world: World, target: str = f"profiles/{A}", lender: str = "user:ann", seconds: float = DAY, **terms: Any
) -> Any:
    wanted = {"borrower": "user:bo", "purpose": "marketing", "reason": "joint campaign", **terms}
    request = pb.CreateShareRequest(target=target, lender=lender, department="service", terms=wanted)
    request.terms.end_time.FromDatetime(world.clock.time + timedelta(seconds=seconds))
    return request


def give(world: World, **how: Any) -> pb.Share:
    """Lend as the service does that owns the record."""
    return world.stub("", peer="profiles").CreateShare(wish(world, **how), timeout=5)


def polled(world: World, known: PolicySnapshot | None = None) -> PolicySnapshot:
    """Return what a process has after its next look."""
    stub = world.stub("", peer="profiles")
    found = wire.updated(known, stub.GetPolicySnapshot(wire.request_for(known), timeout=5)) or known
    assert found is not None
    return found.at(world.clock.time.timestamp())


def reaches(world: World, snapshot: PolicySnapshot, record: str = A, purpose: str = "marketing") -> bool:
    decision = snapshot.decide(Caller("user:bo", "user", "marketing", purpose), "profiles", "read")
    rows = decision.obligations.row_filter
    return decision.allowed and all(clause.holds({"profile_id": record}.get) for clause in rows)


def test_a_share_counts_in_a_process_with_its_next_look_until_it_is_taken_back(world: World) -> None:
    before = polled(world)
    share = give(world)
    world.clock.forward(0.25)
    during = polled(world, before)
    ended = world.stub(ANN).RevokeShare(pb.RevokeShareRequest(share_id=share.name[7:]), timeout=5)
    world.clock.forward(0.25)
    after = polled(world, during)

    assert [reaches(world, each) for each in (before, during, after)] == [False, True, False]
    assert not reaches(world, during, B)
    assert not reaches(world, during, purpose="service")
    assert during.rules is before.rules
    assert (share.state, ended.state, ended.closer) == ("lent", "revoked", "user:ann")


def test_a_share_ends_at_the_moment_in_a_process_that_never_looks_again(world: World) -> None:
    give(world, seconds=60)
    held = polled(world)

    assert reaches(world, held.at(world.clock.time.timestamp() + 59))
    assert not reaches(world, held.at(world.clock.time.timestamp() + 60))


def test_a_lender_who_is_shut_out_or_loses_the_role_lends_nothing(world: World) -> None:
    give(world)
    held = polled(world)
    principals = world.context.principals
    ann = principals.get("user-ann")
    assert ann is not None
    without = principals.save(replace(ann, roles=()))
    world.clock.forward(1)
    roleless = polled(world, held)
    principals.save(replace(without, roles=("role:agent",), enabled=False))
    world.clock.forward(1)
    shut_out = polled(world, roleless)

    assert [reaches(world, each) for each in (held, roleless, shut_out)] == [True, False, False]


def test_a_profile_that_is_merged_parted_or_erased_takes_its_shares_along(world: World) -> None:
    c = world.context
    name = give(world).name[7:]
    consumer = AccessConsumer(c.names, c.shares)

    def tell(method: str, message: Any) -> tuple[str, str]:
        message.event_time.FromDatetime(world.clock.time)
        for _ in range(2):  # told twice
            getattr(consumer, method)(Event("e", f"profiles/{A}", world.clock.time, 1, message))
        share = world.stub(ANN).GetShare(pb.GetShareRequest(share_id=name), timeout=5)
        return share.target, share.state

    assert tell("on_profiles_merged", ProfilesMerged(profile_id=B, merged_profile_id=A, merged_profile_version=2)) == (
        f"profiles/{B}", "lent")  # fmt: skip
    assert tell("on_profiles_merged", ProfilesMerged(profile_id=C, merged_profile_id=B, merged_profile_version=3)) == (
        f"profiles/{C}", "lent")  # fmt: skip
    parted = ProfilesUnmerged(unmerged_profile_id=A, profile_id=C, version=4)
    assert tell("on_profiles_unmerged", parted) == (f"profiles/{A}", "lent")
    assert tell("on_profile_erased", ProfileErased(profile_id=C, names=[C, B])) == (f"profiles/{A}", "lent")
    assert tell("on_profile_erased", ProfileErased(profile_id=A, names=[A])) == (f"profiles/{A}", "erased")
    world.clock.forward(1)
    assert not reaches(world, polled(world))


def test_what_was_merged_while_it_was_lent_is_lent_as_it_is_called_now(world: World) -> None:
    world.context.names.add(Link(A, B, 2, START))

    assert give(world).target == f"profiles/{B}"


@pytest.mark.parametrize(
    ("how", "field"),
    [
        ({"borrower": "user:nobody"}, "terms.borrower"),
        ({"borrower": "department:nowhere"}, "terms.borrower"),
        ({"borrower": "user:ann"}, "terms.borrower"),
        ({"borrower": "role:agent"}, "terms.borrower"),
        ({"purpose": "curiosity"}, "terms.purpose"),
        ({"reason": ""}, "terms.reason"),
        ({"seconds": 0}, "terms.end_time"),
        ({"seconds": 90 * DAY + 1}, "terms.end_time"),
        ({"target": "segments/1"}, "target"),
    ],
)
def test_bad_terms_are_named(world: World, how: dict[str, Any], field: str) -> None:
    assert bad_fields(lambda: give(world, **how)) == [field]
    assert world.context.shares.page("", (), "", None, 9) == []


def test_an_app_lends_nothing_and_only_owners_of_records_keep_shares(world: World) -> None:
    assert refused(lambda: give(world, lender="app:marketing-app")).reason == "PERSON_NEEDED"
    for who in ({"caller": "", "peer": "search"}, {"caller": "", "peer": "gateway"}, {"caller": ANN}):
        assert refused(lambda who=who: world.stub(**who).CreateShare(wish(world), timeout=5)).reason in (
            "PERMISSION_DENIED", "TOKEN_INVALID")  # fmt: skip


def test_a_repeat_returns_the_first_and_a_borrower_has_five_hundred_at_most(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    first = give(world, request_id="1")
    assert give(world, request_id="1", reason="again") == first
    monkeypatch.setattr(domain, "MOST_OF_A_BORROWER", 2)
    second = give(world, target=f"profiles/{B}")

    error = refused(lambda: give(world, target=f"profiles/{C}"))
    world.stub(BO).RevokeShare(pb.RevokeShareRequest(share_id=second.name[7:]), timeout=5)
    give(world, target=f"profiles/{C}")
    monkeypatch.setattr(domain, "MOST", 2)

    assert (error.reason, error.metadata["limit"]) == ("SHARE_LIMIT", "2")
    assert refused(lambda: give(world, borrower="user:cy")).reason == "SHARE_LIMIT"


@pytest.mark.parametrize("other", [{"target": f"profiles/{B}"}, {"borrower": "user:cy"}, {"purpose": "sales"}])
def test_a_request_id_used_again_for_something_else_never_answers_with_the_first(
    world: World, other: dict[str, str]
) -> None:
    first = give(world, request_id="1")
    second = give(world, request_id="1", **other)

    assert second.name != first.name
    wanted = {"target": f"profiles/{A}", "borrower": "user:bo", "purpose": "marketing", **other}
    assert {name: getattr(second, name) for name in wanted} == wanted
    assert give(world, request_id="1", **other) == second


def test_nobody_lends_the_same_twice_while_it_lasts(world: World) -> None:
    first = give(world, seconds=60)

    error = refused(lambda: give(world, reason="again"))
    assert (error.reason, error.metadata["share_id"]) == ("SHARE_EXISTS", first.name[7:])
    for other in ({"lender": "user:olga"}, {"target": f"tickets/{A}"}, {"borrower": "user:cy"}, {"purpose": "sales"}):
        assert give(world, **other).name != first.name
    world.clock.forward(61)
    again = give(world)
    world.stub(ANN).RevokeShare(pb.RevokeShareRequest(share_id=again.name[7:]), timeout=5)
    assert give(world).state == "lent"


def test_one_lender_never_takes_the_room_of_all_others(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(domain, "MOST_OF_A_LENDER", 2)
    give(world, seconds=60)
    give(world, target=f"profiles/{B}")

    error = refused(lambda: give(world, target=f"profiles/{C}", borrower="user:cy"))
    assert (error.reason, error.metadata["limit"]) == ("SHARE_LIMIT", "2")
    assert give(world, target=f"profiles/{C}", lender="user:olga").state == "lent"
    world.clock.forward(61)
    assert give(world, target=f"profiles/{C}", borrower="user:cy").state == "lent"


def listed(world: World, who: str, view: str, **how: Any) -> list[str]:
    found = world.stub(who).ListShares(pb.ListSharesRequest(view=view, **how), timeout=5)
    return [share.name for share in found.shares]


def test_shares_are_listed_for_who_has_gives_and_answers_for_them(world: World) -> None:
    own = give(world).name
    of_all = give(world, borrower="department:marketing").name
    world.stub(BO).RevokeShare(pb.RevokeShareRequest(share_id=of_all[7:]), timeout=5)

    assert set(listed(world, BO, "with_me")) == set(listed(world, BO, "")) == {own, of_all}
    assert listed(world, BO, "with_me", in_force=True) == [own]
    assert listed(world, "user:cy@marketing", "with_me") == [of_all]
    assert set(listed(world, ANN, "by_me")) == {own, of_all}
    assert listed(world, ANN, "with_me") == listed(world, "user:cy@marketing", "by_me") == []
    page = world.stub(ANN).ListShares(pb.ListSharesRequest(view="by_me", page_size=1), timeout=5)
    more = world.stub(ANN).ListShares(
        pb.ListSharesRequest(view="by_me", page_size=1, page_token=page.next_page_token), timeout=5
    )
    assert {page.shares[0].name, more.shares[0].name} == {own, of_all}


def test_a_share_of_others_is_as_if_it_were_not_there(world: World) -> None:
    share_id = give(world).name[7:]
    nothing = "0" * 32

    def told(who: str, share_id: str, method: str = "GetShare") -> str:
        request = getattr(pb, f"{method}Request")(share_id=share_id)
        error = refused(lambda: getattr(world.stub(who), method)(request, timeout=5))
        return f"{error.reason} {sorted(error.metadata)}"

    for method in ("GetShare", "RevokeShare"):
        assert told("user:cy@marketing", share_id, method) == told("user:cy@marketing", nothing, method)
    world.stub(BO).RevokeShare(pb.RevokeShareRequest(share_id=share_id), timeout=5)
    assert told(ANN, share_id, "RevokeShare").startswith("SHARE_STATE")


def test_what_the_policy_says_of_the_scope(world: World) -> None:
    """`$shared` stands for ids of the record's own kind, alone, in rules that allow."""
    content = world.context.directory.policy.content
    inventory = read_inventory(descriptors_path())

    def wrong(**change: Any) -> list[str]:
        found = faults(
            replace(content, **change), inventory, world.context.directory.links(), [("user:root", "administration")]
        )
        return [each.field for each in found]

    def by(resource: str, field: str, *values: str) -> dict[str, Any]:
        return {"row_filters": (*content.row_filters, RowFilter("role:agent", "*", resource, field, values))}

    last = f"row_filters[{len(content.row_filters)}]"
    assert world.context.policies.get(FIRST_POLICY) is not None
    assert wrong() == wrong(**by("tickets", "ticket_id", "$shared")) == []
    assert wrong(**by("tickets", "profile_id", "$shared")) == [f"{last}.values"]
    assert wrong(**by("profiles", "profile_id", "$shared", A)) == [f"{last}.values"]
    lent_to_me = NamedCondition("lent", RecordAttribute("profile_id", ("$shared",)))
    rule = ("role:agent", "*", "profiles", "read", "*")
    count = len(content.rules)
    assert wrong(conditions=(lent_to_me,), rules=(*content.rules, (*rule, "allow", "lent"))) == []
    assert f"rules[{count}].conditions[0]" in wrong(
        conditions=(lent_to_me,), rules=(*content.rules, (*rule, "deny", "lent"))
    )


def test_who_can_and_explain_tell_of_what_is_lent(world: World) -> None:
    give(world)
    stub = world.stub()
    asked = review_pb2.WhoCanRequest(resource="profiles", action="read", purpose="marketing", record={"profile_id": A})

    able = {each.subject: each.rows for each in stub.WhoCan(asked, timeout=5).people}
    asked.record["profile_id"] = B
    other = {each.subject for each in stub.WhoCan(asked, timeout=5).people}
    explained = stub.ExplainAccess(
        access_pb2.ExplainAccessRequest(
            subject="user:bo", department="marketing", resource="profiles", action="read", purpose="marketing"
        ),
        timeout=5,
    )

    assert able["user:bo"] == "profile_id in ($shared)"
    assert "user:ann" in other
    assert "user:bo" not in other
    assert [list(clause.values) for clause in explained.row_clauses] == [[A]]
