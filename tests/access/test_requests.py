"""Roles for a while: who may ask, who answers, when it ends, and what breaking the glass leaves behind."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from datetime import timedelta
from typing import Any

import grpc
import pytest
from kehu.access.v1 import access_pb2
from kehu.access.v1 import requests_pb2 as pb

from services.access.defaults import default_content
from services.access.domain import requests as domain
from services.access.domain.errors import AccessRequestState, SelfApproval
from services.access.domain.policies import Row
from services.access.domain.principals import Principal
from services.access.domain.requests import AccessRequest
from services.access.reminding import Reminder
from services.access.store.requests import AccessRequestRecord, MemoryRequests, MongoRequests, Requests
from services.chassis import records
from services.chassis.access import Caller, wire
from services.chassis.audit import AuditEntry
from services.chassis.errors import Conflict
from services.chassis.server.trail import SpoolTrail
from tests.access.stores import BOTH, emptied
from tests.access.world import START, World, running_world
from tests.harness import bad_fields, refused

AGENT, OWNER, OTHER_OWNER = "user:ann@service", "user:olga@service", "user:sam@sales"
STEWARD, AUDITOR = "user:stan@data-office", "user:rita@administration"
DAY = 86400


def request(number: int = 1, **values: Any) -> AccessRequest:
    new = AccessRequest(
        f"{number:032x}", "user:ann", "service", "role:owner", "administration", "absence of Olga",
        START + timedelta(days=30), START,
    )  # fmt: skip
    return replace(new, **values)


@pytest.fixture(params=BOTH)
def store(request: pytest.FixtureRequest) -> Iterator[Requests]:
    if request.param == "memory":
        yield MemoryRequests()
        return
    with emptied(request, "access_requests"):
        records.ensure_indexes([AccessRequestRecord])
        yield MongoRequests()


def test_a_request_is_kept_once_and_changed_by_one(store: Requests) -> None:
    first = store.insert(request())
    again = store.insert(request(reason="another"))
    changed = store.save(replace(first, state=domain.GRANTED, approver="user:olga"))

    assert (again.reason, again.version) == ("absence of Olga", 1)
    kept = store.get(first.id)
    assert kept is not None
    assert replace(kept, update_time=None) == replace(changed, update_time=None)
    assert (kept.create_time, kept.end_time) == (START, START + timedelta(days=30))
    with pytest.raises(Conflict):
        store.save(replace(first, state=domain.REJECTED))


def test_what_is_lent_is_granted_and_not_over(store: Requests) -> None:
    kept = store.insert(request(1, state=domain.GRANTED))
    store.insert(request(2))
    store.insert(request(3, state=domain.GRANTED, end_time=START))
    glass = store.insert(request(4, emergency=True, state=domain.GRANTED, end_time=START))

    assert [row.id for row in store.lent(START)] == [kept.id]
    assert [found.id for found in store.emergencies("user:ann")] == [glass.id]
    store.save(replace(glass, state=domain.CLOSED, finding="justified"))
    assert store.emergencies("user:ann") == []


def test_pages_are_of_a_person_and_a_department_newest_first_without_a_gap(store: Requests) -> None:
    for number in range(9):
        at = START + timedelta(seconds=number // 2)
        store.insert(
            request(number, create_time=at, subject=f"user:{'abc'[number % 3]}", department="x"[: number % 2] or "y")
        )

    found, before = [], None
    while page := store.page("", "", before, 2):
        found += page
        before = (page[-1].create_time, page[-1].id)

    assert [int(row.id, 16) for row in found] == [8, 7, 6, 5, 4, 3, 2, 1, 0]
    assert [int(row.id, 16) for row in store.page("user:a", "", None, 9)] == [6, 3, 0]
    assert [int(row.id, 16) for row in store.page("user:a", "x", None, 9)] == [7, 6, 5, 3, 1, 0]


def test_a_holder_is_reminded_once_before_the_end_and_nobody_else(store: Requests) -> None:
    store.insert(request(1, state=domain.GRANTED))
    store.insert(request(2))
    store.insert(request(3, state=domain.GRANTED, emergency=True))
    store.insert(request(4, state=domain.GRANTED, end_time=START + timedelta(days=4)))
    reminder, told = Reminder(store), []
    for hour in range(31 * 24):
        if reminder.look(START + timedelta(hours=hour)):
            told.append(hour)

    assert told == [3 * 24, 27 * 24]
    assert [row.reminded for row in map(store.get, (f"{n:032x}" for n in range(1, 5))) if row] == [
        True,
        False,
        False,
        True,
    ]
    if isinstance(store, MongoRequests):
        facts = [fact["data"] for fact in AccessRequestRecord._get_collection().distinct("outbox")]
        assert sorted(bool(fact.get("reminder")) for fact in facts) == [False] * 4 + [True] * 2


def test_nobody_approves_their_own_and_the_second_person_is_another() -> None:
    asked = request(sensitive=True)
    with pytest.raises(SelfApproval):
        domain.approved(asked, "user:ann", START)
    once = domain.approved(asked, "user:olga", START)
    for same in ("user:ann", "user:olga"):
        with pytest.raises(SelfApproval):
            domain.countersigned(once, same, START)

    assert once.state == domain.COUNTERSIGN
    assert domain.countersigned(once, "user:stan", START).state == domain.GRANTED


def test_every_step_from_every_wrong_state_is_refused() -> None:
    steps = {
        lambda r: domain.approved(r, "user:x", START): {"requested"},
        lambda r: domain.countersigned(r, "user:x", START): {"countersign"},
        lambda r: domain.rejected(r, "user:x", "no", START): {"requested", "countersign"},
        lambda r: domain.cancelled(r, START): {"requested", "countersign"},
        lambda r: domain.returned(r, START): {"granted"},
        lambda r: domain.revoked(r, "user:x", "no", START): {"granted"},
        lambda r: domain.reviewed(r, "user:x", "justified", "seen", START): set(),
    }
    for step, fine in steps.items():
        for state in ("requested", "countersign", "granted", "rejected", "cancelled", "returned", "revoked", "closed"):
            if state in fine:
                step(request(state=state))
                continue
            with pytest.raises(AccessRequestState):
                step(request(state=state))


def test_a_role_is_sensitive_when_it_or_a_role_in_it_shows_or_reveals_sensitive_fields() -> None:
    content = default_content()
    wanted = {
        "role:steward": ("data-office", "stewardship", True),
        "role:agent": ("service", "service", True),
        "role:seller": ("sales", "sales", False),
    }
    for role, (department, purpose, sensitive) in wanted.items():
        asked = request(role=role, department=department, purpose=purpose)
        assert domain.checked(asked, content, ()).sensitive is sensitive, role
    wider = replace(content, links=(("role:owner", "role:agent", "service"),))
    assert domain.checked(request(purpose="service"), wider, ()).sensitive


@pytest.fixture
def world() -> Iterator[World]:
    with running_world() as found:
        for login, department, *roles in (
            ("ann", "service", "role:agent"), ("olga", "service", "role:owner"), ("sam", "sales", "role:owner"),
            ("stan", "data-office", "role:steward"), ("rita", "administration", "role:auditor"),
            ("eve", "service", "role:agent"), ("otto", "data-office", "role:owner"), ("ines", "data-office"),
        ):  # fmt: skip
            found.context.principals.insert(Principal("user", login, department, tuple(roles), "x"))
        found.context.directory.refresh(at_once=True)
        yield found


@contextmanager
def refusal(reason: str, field: str = "") -> Iterator[None]:
    """Expect a refusal for this reason, over this field."""
    with pytest.raises(grpc.RpcError) as info:
        yield

    def again() -> None:
        raise info.value

    assert refused(again).reason == reason
    assert not field or field in bad_fields(again)


def ask(world: World, who: str = AGENT, role: str = "role:owner", days: float = 30, **how: str) -> pb.AccessRequest:
    new = pb.AccessRequest(role=role, purpose=how.pop("purpose", "service"), reason="absence of Olga")
    new.end_time.FromDatetime(world.clock.time + timedelta(days=days))
    return world.stub(who).CreateAccessRequest(pb.CreateAccessRequestRequest(access_request=new, **how), timeout=5)


def act(world: World, who: str, verb: str, asked: pb.AccessRequest, **values: object) -> pb.AccessRequest:
    id = asked.name.partition("/")[2]
    message = getattr(pb, f"{verb}AccessRequestRequest")(access_request_id=id, **values)
    return getattr(world.stub(who), f"{verb}AccessRequest")(message, timeout=5)


def may(world: World, who: str, resource: str, action: str, purpose: str = "service") -> bool:
    """Ask a process that polls as every process does, at the world's time."""
    reply = world.context.directory.reply(access_pb2.GetPolicySnapshotRequest())
    snapshot = wire.updated(None, reply)
    assert snapshot is not None
    subject, _, department = who.partition("@")
    caller = Caller(subject, "user", department, purpose)
    return snapshot.at(world.clock.time.timestamp()).decide(caller, resource, action).allowed


def break_glass(world: World, who: str = AGENT, minutes: int = 60, **values: str) -> pb.AccessRequest:
    message = pb.BreakGlassRequest(
        role="role:emergency-service", purpose="service", reason="a caller in danger", **values
    )  # fmt: skip
    message.duration.FromSeconds(minutes * 60)
    return world.stub(who).BreakGlass(message, timeout=5)


def test_an_approved_role_counts_everywhere_and_ends_at_the_moment(world: World) -> None:
    asked = ask(world, days=30)
    assert asked.state == "requested"
    assert not may(world, AGENT, "accessRequests", "approve")
    granted = act(world, OWNER, "Approve", asked)

    assert (granted.state, granted.approver) == ("granted", "user:olga")
    assert may(world, AGENT, "accessRequests", "approve")
    assert not may(world, "user:eve@service", "accessRequests", "approve")
    world.clock.forward(30 * DAY - 1)
    assert may(world, AGENT, "accessRequests", "approve")
    world.clock.forward(1)
    assert not may(world, AGENT, "accessRequests", "approve")
    assert act_get(world, AGENT, asked).state == "expired"


def act_get(world: World, who: str, asked: pb.AccessRequest) -> pb.AccessRequest:
    id = asked.name.partition("/")[2]
    return world.stub(who).GetAccessRequest(pb.GetAccessRequestRequest(access_request_id=id), timeout=5)


def test_a_process_that_never_polls_again_ends_it_too(world: World) -> None:
    act(world, OWNER, "Approve", ask(world, days=1))
    reply = world.context.directory.reply(access_pb2.GetPolicySnapshotRequest())
    snapshot, caller = wire.updated(None, reply), Caller("user:ann", "user", "service", "service")
    assert snapshot is not None
    at = world.clock.time.timestamp()

    assert snapshot.at(at + DAY - 1).decide(caller, "accessRequests", "approve").allowed
    assert not snapshot.at(at + DAY).decide(caller, "accessRequests", "approve").allowed
    world.clock.forward(2 * DAY)


def test_a_returned_and_a_revoked_role_end_at_once(world: World) -> None:
    for who, verb, values in ((AGENT, "Return", {}), (STEWARD, "Revoke", {"comment": "no longer needed"})):
        asked = act(world, OWNER, "Approve", ask(world))
        assert may(world, AGENT, "accessRequests", "approve")
        act(world, who, verb, asked, **values)
        assert not may(world, AGENT, "accessRequests", "approve")


def test_a_disabled_person_and_one_who_moved_have_nothing_of_it(world: World) -> None:
    act(world, OWNER, "Approve", ask(world, "user:eve@service"))
    assert may(world, "user:eve@service", "accessRequests", "approve")
    for change in ({"enabled": False}, {"enabled": True, "department": "sales"}):
        eve = world.context.principals.get("user-eve")
        assert eve is not None
        world.context.principals.save(replace(eve, **change))
        world.context.directory.refresh(at_once=True)
        assert not may(world, "user:eve@service", "accessRequests", "approve")
        assert not may(world, "user:eve@sales", "accessRequests", "approve")


def test_only_an_owner_of_that_department_approves_and_others_do_not_see_it(world: World) -> None:
    asked = ask(world)
    for who in (AGENT, OTHER_OWNER, "user:eve@service", STEWARD):
        reason = {AGENT: "SELF_APPROVAL", STEWARD: "NOT_DATA_OWNER"}.get(who, "ACCESS_REQUEST_NOT_FOUND")
        with refusal(reason):
            act(world, who, "Approve", asked)
    for who in (OTHER_OWNER, "user:eve@service"):
        reply = world.stub(who).ListAccessRequests(pb.ListAccessRequestsRequest(page_size=1000), timeout=5)
        assert all(row.subject == who.partition("@")[0] or row.department == "sales" for row in reply.access_requests)
    for who in (AGENT, OWNER, STEWARD, AUDITOR):
        reply = world.stub(who).ListAccessRequests(pb.ListAccessRequestsRequest(state="requested"), timeout=5)
        assert asked.name in [row.name for row in reply.access_requests]
    act(world, OWNER, "Reject", asked, comment="Olga is back")


def test_what_shows_sensitive_fields_counts_only_after_the_second_person(world: World) -> None:
    stan = "user:stan@data-office"
    asked = ask(world, "user:ines@data-office", "role:steward", purpose="stewardship")
    once = act(world, "user:otto@data-office", "Approve", asked)

    assert (once.state, once.sensitive) == ("countersign", True)
    assert not may(world, "user:ines@data-office", "profiles", "read", "stewardship")
    with refusal("SELF_APPROVAL"):
        act(world, "user:otto@data-office", "Countersign", once)
    granted = act(world, stan, "Countersign", once)
    assert (granted.state, granted.countersigner) == ("granted", "user:stan")
    assert may(world, "user:ines@data-office", "profiles", "read", "stewardship")


def in_force(world: World, change: Callable[[tuple[Row, ...]], tuple[Row, ...]]) -> None:
    """Put a policy in force whose rules were changed, as another process does."""
    known = world.context.directory.policy
    content = replace(known.content, rules=change(known.content.rules))
    world.context.policies.insert(replace(known, id="changed", number=known.number + 1, content=content))


def test_what_came_to_show_sensitive_fields_since_it_was_asked_for_is_countersigned(world: World) -> None:
    asked = ask(world)
    assert not asked.sensitive
    shows = ("role:owner", "*", "fields/sensitive/document", "show", "service", "allow")
    in_force(world, lambda rules: (*rules, shows))
    once = act(world, OWNER, "Approve", asked)

    assert (once.state, once.sensitive) == ("countersign", True)
    assert not may(world, AGENT, "accessRequests", "approve")
    assert act(world, STEWARD, "Countersign", once).state == "granted"


@pytest.mark.parametrize("verb", ["Approve", "Countersign"])
def test_a_role_that_is_no_more_is_not_granted(world: World, verb: str) -> None:
    asked = ask(world, "user:ines@data-office", "role:steward", purpose="stewardship")
    who = "user:otto@data-office"
    if verb == "Countersign":
        asked, who = act(world, who, "Approve", asked), AUDITOR
    in_force(world, lambda rules: tuple(rule for rule in rules if rule[:2] != ("role:steward", "data-office")))
    with refusal("ACCESS_REQUEST_INVALID", "access_request.role"):
        act(world, who, verb, asked)
    assert act_get(world, "user:ines@data-office", asked).state == asked.state


@pytest.mark.parametrize(
    ("role", "days", "purpose", "field"),
    [
        ("role:seller", 30, "service", "access_request.role"),  # gives nothing in service
        ("role:nobody", 30, "service", "access_request.role"),
        ("role:agent", 30, "service", "access_request.role"),  # has it
        ("role:emergency-service", 30, "service", "access_request.role"),
        ("role:owner", 91, "service", "access_request.end_time"),
        ("role:owner", -1, "service", "access_request.end_time"),
        ("role:owner", 30, "curiosity", "access_request.purpose"),
    ],
)
def test_what_cannot_be_granted_is_refused_by_field(
    world: World, role: str, days: float, purpose: str, field: str
) -> None:
    with refusal("ACCESS_REQUEST_INVALID", field):
        ask(world, AGENT, role, days, purpose=purpose)


def test_a_repeat_is_the_same_request_and_a_renewal_is_approved_anew(world: World) -> None:
    first = ask(world, request_id="r-1")
    assert ask(world, request_id="r-1").name == first.name
    granted = act(world, OWNER, "Approve", first)
    end = granted.end_time.ToDatetime() + timedelta(days=30)
    renewed = act(world, AGENT, "Renew", granted, reason="Olga is still away", end_time=end)

    assert (renewed.state, renewed.renews) == ("requested", first.name)
    assert renewed.name != first.name
    act(world, OWNER, "Approve", renewed)
    world.clock.forward(31 * DAY)
    assert may(world, AGENT, "accessRequests", "approve")
    world.clock.forward(30 * DAY)
    assert not may(world, AGENT, "accessRequests", "approve")


def test_approving_asks_for_a_second_factor_of_these_minutes(world: World) -> None:
    asked = ask(world)
    with refusal("STEP_UP_REQUIRED"):
        act(world, "user:olga~400@service", "Approve", asked)
    with refusal("STEP_UP_REQUIRED"):
        break_glass(world, "user:ann~400@service")
    act(world, AGENT, "Cancel", asked)


def test_a_broken_glass_alerts_at_once_counts_at_once_and_never_after_its_end(
    world: World, caplog: pytest.LogCaptureFixture
) -> None:
    started = time.monotonic()
    with caplog.at_level(logging.WARNING, "kehu.access"):
        opened = break_glass(world)
    took = time.monotonic() - started
    id = opened.name.partition("/")[2]
    alert = world.context.alerts.get(id)

    assert took < 5
    assert alert is not None
    assert (alert.rule, alert.subject, alert.state) == ("break-glass", "user:ann", "open")
    assert [r.message for r in caplog.records if r.name == "kehu.access"] == ["the glass was broken"]
    assert "ann" not in caplog.text
    assert "danger" not in caplog.text
    reply = world.context.directory.reply(access_pb2.GetPolicySnapshotRequest())
    snapshot, caller = wire.updated(None, reply), Caller("user:ann", "user", "service", "service")
    assert snapshot is not None
    at = world.clock.time.timestamp()
    for second in range(3600):
        now = snapshot.at(at + second)
        if second % 600 in (0, 599):
            assert "sensitive/document" in now.decide(caller, "profiles", "read").obligations.shown
            assert now.emergency(caller) == id
    used = 0
    for second in range(3600, 3700):
        now = snapshot.at(at + second)
        used += "sensitive/document" in now.decide(caller, "profiles", "read").obligations.shown
        assert now.emergency(caller) == ""
    assert used == 0
    assert snapshot.emergency(Caller("user:eve", "user", "service", "service")) == ""


def test_a_request_id_used_for_something_else_still_opens_the_glass_and_a_repeat_opens_no_other(world: World) -> None:
    ask(world, request_id="r-1")
    opened = break_glass(world, request_id="r-1")

    assert (opened.emergency, opened.state) == (True, "granted")
    assert break_glass(world, request_id="r-1").name == opened.name


def test_of_two_opened_at_the_same_moment_the_earlier_stays(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    store, first = world.context.requests, list[pb.AccessRequest]()
    insert = store.insert

    def another_before(request: AccessRequest) -> AccessRequest:
        monkeypatch.undo()
        first.append(break_glass(world, request_id="r-1"))
        world.clock.forward(1)
        return insert(replace(request, create_time=world.clock.time))

    monkeypatch.setattr(store, "insert", another_before)
    with refusal("ACCESS_REQUEST_STATE"):
        break_glass(world, request_id="r-2")

    assert sorted(row.state for row in store.emergencies("user:ann")) == ["granted", "returned"]
    assert act_get(world, AGENT, first[0]).state == "granted"


def test_it_must_be_reviewed_by_another_and_overdue_bars_the_next(world: World) -> None:
    asked = break_glass(world)
    with refusal("ACCESS_REQUEST_STATE"):
        break_glass(world)
    with refusal("ACCESS_REQUEST_STATE"):  # it is open still
        act(world, AUDITOR, "Review", asked, finding="justified", comment="seen")
    world.clock.forward(3600)
    assert act_get(world, AUDITOR, asked).state == "review_due"
    second = act(world, AGENT, "Return", break_glass(world, minutes=10))
    assert second.state == "review_due"
    world.clock.forward(72 * 3600)
    with refusal("REVIEW_OVERDUE"):
        break_glass(world)
    with refusal("SELF_APPROVAL"):
        act(world, AGENT, "Review", asked, finding="justified", comment="it was me")
    for each in (asked, second):
        done = act(world, AUDITOR, "Review", each, finding="justified", comment="the recording says so")
        assert (done.state, done.closer, done.finding) == ("closed", "user:rita", "justified")
    act(world, AUDITOR, "Revoke", break_glass(world, minutes=10), comment="the alarm was false")


def test_a_role_that_is_not_for_emergencies_and_more_than_an_hour_are_refused(world: World) -> None:
    for role, seconds in (("role:agent", 600), ("role:emergency-service", 3601), ("role:emergency-sales", 600)):
        message = pb.BreakGlassRequest(role=role, purpose="service", reason="why not")
        message.duration.FromSeconds(seconds)
        with pytest.raises(grpc.RpcError) as info:
            world.stub("user:eve@service").BreakGlass(message, timeout=5)
        assert info.value.code() is grpc.StatusCode.INVALID_ARGUMENT


def test_a_token_taken_meanwhile_is_marked_in_the_trail(world: World) -> None:
    opened = break_glass(world, "user:eve@service", 5)
    world.context.note("create", "user:eve", "service", "r-77")
    world.context.note("create", "user:stan", "data-office", "r-78")
    world.clock.forward(300)
    world.context.note("create", "user:eve", "service", "r-79")
    id, ask_trail = opened.name.partition("/")[2], world.stub(AUDITOR).ListAuditEntries
    found = ask_trail(access_pb2.ListAuditEntriesRequest(page_size=9), timeout=5).audit_entries
    only = ask_trail(access_pb2.ListAuditEntriesRequest(emergency=id), timeout=5).audit_entries
    assert {e.request_id: e.emergency for e in found} == {"r-77": id, "r-78": "", "r-79": ""}
    assert [entry.request_id for entry in only] == ["r-77"]


def test_an_app_neither_asks_nor_breaks_the_glass(world: World) -> None:
    with refusal("PERSON_NEEDED"):
        ask(world, "app:marketing-app@marketing")
    with refusal("PERSON_NEEDED"):
        break_glass(world, "app:marketing-app@marketing")


def test_every_call_behind_the_guard_carries_the_mark_refused_ones_too(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert world.harness is not None
    entries, trail = [], world.harness.trail

    class Spool:
        def append(self, entry: AuditEntry) -> None:
            entries.append(entry)

    monkeypatch.setattr(trail, "record", SpoolTrail("access", Spool()).record)  # type: ignore[arg-type]
    monkeypatch.setattr(world.harness.policy, "emergency", lambda caller: caller.subject[-3:], raising=False)
    asked = ask(world)
    with refusal("NOT_DATA_OWNER"):
        act(world, STEWARD, "Approve", asked)

    assert [(entry.status, entry.emergency) for entry in entries] == [("OK", "ann"), ("PERMISSION_DENIED", "tan")]
    assert AuditEntry.read(entries[0].line()) == entries[0]
    assert wire.entry_of(wire.entry_message(entries[0])) == entries[0]
    assert entries[0].reason.startswith("asks for role:owner")
