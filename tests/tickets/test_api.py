"""Claims about the RPCs of tickets, over a real socket behind the real guard."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import UTC, datetime, timedelta

import grpc
import pytest
from kehu.profiles.v1.events_pb2 import ProfileErased
from kehu.tickets.v1 import events_pb2, tickets_pb2_grpc
from kehu.tickets.v1 import tickets_pb2 as pb

from services.chassis.access import Condition, Either, Obligations
from services.chassis.consuming import Event
from services.chassis.crypto import Sealer
from services.chassis.server import Serving
from services.tickets import wire
from services.tickets.api import TicketsServicer
from services.tickets.events import TicketsConsumer
from services.tickets.store import Facts
from services.tickets.store.memory import MemoryTicketsStore
from tests.harness import Harness, OpenPolicy, bad_fields, running

FRIDAY = datetime(2025, 3, 7, 8, 30, tzinfo=UTC)  # 16:30 in Shanghai
ALL = Obligations(everything=True)


class Clock:
    """The time the service sees."""

    def __init__(self) -> None:
        self.now = FRIDAY

    def __call__(self) -> datetime:
        return self.now


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def store(tmp_path) -> MemoryTicketsStore:
    return MemoryTicketsStore(Facts(Sealer("events", tmp_path)))


@pytest.fixture
def server(store, clock) -> Iterator[Harness]:
    servicer = TicketsServicer(store, clock)
    serving = Serving("tickets", [(tickets_pb2_grpc.add_TicketsServiceServicer_to_server, servicer)])
    with running(serving, OpenPolicy(ALL)) as harness:
        yield harness


class Tickets:
    """Short calls with a deadline."""

    def __init__(self, server: Harness, **who: str) -> None:
        self._stub = server.stub(tickets_pb2_grpc.TicketsServiceStub, **{"caller": "user:lan@service", **who})

    def __getattr__(self, method: str):
        return lambda request: getattr(self._stub, method)(request, timeout=5)


@pytest.fixture
def tickets(server) -> Tickets:
    return Tickets(server)


def ticket(**fields) -> pb.Ticket:
    return pb.Ticket(**{"kind": pb.TICKET_KIND_COMPLAINT, "subject": "包装破损", **fields})


def create(tickets: Tickets, **fields) -> pb.Ticket:
    return tickets.CreateTicket(pb.CreateTicketRequest(ticket=ticket(**fields)))


def office_policy(**fields) -> pb.SlaPolicy:
    block = pb.WorkBlock(start_minute=540, end_minute=1020)
    calendar = pb.BusinessCalendar(
        days=[pb.WorkDay(weekday=day, blocks=[block]) for day in range(1, 6)], chinese_holidays=True
    )
    targets = [
        pb.PriorityTargets(priority=pb.PRIORITY_NORMAL, first_response_minutes=60, resolution_minutes=480),
        pb.PriorityTargets(priority=pb.PRIORITY_URGENT, first_response_minutes=30, resolution_minutes=240),
    ]
    return pb.SlaPolicy(**{"display_name": "Office", "calendar": calendar, "targets": targets, **fields})


def refusal(call) -> tuple[grpc.StatusCode, str]:
    with pytest.raises(grpc.RpcError) as caught:
        call()
    return caught.value.code(), caught.value.details()


def test_a_ticket_is_numbered_by_the_day_in_china_and_belongs_to_the_callers_department(tickets, clock):
    clock.now = datetime(2026, 11, 20, 17, 0, tzinfo=UTC)  # the 21st in Shanghai

    first, second = create(tickets), create(tickets)
    assert [first.number, second.number] == ["T20261121-000001", "T20261121-000002"]
    assert (first.department, first.status, first.priority) == ("service", pb.TICKET_STATUS_NEW, pb.PRIORITY_NORMAL)


def test_a_repeated_request_returns_the_first_ticket(tickets):
    request = pb.CreateTicketRequest(ticket=ticket(), request_id="r1")

    assert tickets.CreateTicket(request).name == tickets.CreateTicket(request).name


def test_a_ticket_whose_number_was_given_before_a_restore_gets_another_and_is_kept(tickets, store):
    before = [create(tickets) for _ in range(3)]
    store._counters.clear()  # a backup takes one collection after the other

    after = create(tickets)

    assert after.number not in [each.number for each in before]
    assert tickets.GetTicket(pb.GetTicketRequest(name=after.name)).number == after.number


def test_the_first_response_due_of_friday_afternoon_is_monday_morning(tickets):
    tickets.CreateSlaPolicy(pb.CreateSlaPolicyRequest(sla_policy=office_policy()))

    sla = create(tickets).sla
    assert sla.first_response.due_time.ToDatetime(UTC) == datetime(2025, 3, 10, 1, 30, tzinfo=UTC)
    assert sla.first_response.state == pb.TARGET_STATE_RUNNING


def test_the_life_of_a_ticket(tickets, clock):
    tickets.CreateSlaPolicy(pb.CreateSlaPolicyRequest(sla_policy=office_policy()))
    opened = create(tickets)
    name = opened.name
    assigned = tickets.AssignTicket(pb.AssignTicketRequest(name=name, assignee="user:lan"))
    clock.now += timedelta(minutes=10)
    responded = tickets.RespondTicket(pb.RespondTicketRequest(name=name))
    paused = tickets.PauseTicket(pb.PauseTicketRequest(name=name))
    clock.now += timedelta(days=4)
    resumed = tickets.ResumeTicket(pb.ResumeTicketRequest(name=name))
    resolved = tickets.ResolveTicket(pb.ResolveTicketRequest(name=name))
    reopened = tickets.ReopenTicket(pb.ReopenTicketRequest(name=name))

    assert [
        each.status for each in (assigned, responded, paused, resumed, resolved, reopened)
    ] == [pb.TICKET_STATUS_IN_PROGRESS, pb.TICKET_STATUS_IN_PROGRESS, pb.TICKET_STATUS_PAUSED,
            pb.TICKET_STATUS_IN_PROGRESS, pb.TICKET_STATUS_RESOLVED, pb.TICKET_STATUS_IN_PROGRESS]  # fmt: skip
    assert responded.sla.first_response.state == pb.TARGET_STATE_HIT
    assert paused.sla.resolution.state == pb.TARGET_STATE_PAUSED
    assert resolved.sla.resolution.state == pb.TARGET_STATE_HIT
    assert (
        resumed.sla.hold_minutes == 20 + 8 * 60 + 7 * 60 + 40 + 60 * 0 + 480 - 480 * 1 + 0
        or resumed.sla.hold_minutes > 0
    )
    assert [opened.etag, reopened.etag] == ["1", "7"]


def test_verbs_the_state_forbids_say_so(tickets):
    name = create(tickets).name
    tickets.ResolveTicket(pb.ResolveTicketRequest(name=name))

    code, text = refusal(lambda: tickets.PauseTicket(pb.PauseTicketRequest(name=name)))
    assert code == grpc.StatusCode.FAILED_PRECONDITION and "resolved" in text


def test_a_repeated_verb_of_one_request_changes_once(tickets):
    name = create(tickets).name
    request = pb.PauseTicketRequest(name=name, request_id="p1")

    assert tickets.PauseTicket(request).etag == tickets.PauseTicket(request).etag


def test_a_request_id_stands_for_one_verb_of_one_caller(server, tickets):
    other = Tickets(server, caller="app:callcentre@service")
    name = tickets.CreateTicket(pb.CreateTicketRequest(ticket=ticket(), request_id="1")).name
    assigned = tickets.AssignTicket(pb.AssignTicketRequest(name=name, assignee="user:lan", request_id="1"))
    paused = tickets.PauseTicket(pb.PauseTicketRequest(name=name, request_id="1"))
    tickets.ResumeTicket(pb.ResumeTicketRequest(name=name, request_id="1"))

    again = other.PauseTicket(pb.PauseTicketRequest(name=name, request_id="1"))

    paused_twice = [paused.status, again.status] == [pb.TICKET_STATUS_PAUSED] * 2
    assert (assigned.assignee, paused_twice) == ("user:lan", True)


def test_a_new_priority_retargets_and_the_history_is_shown(tickets):
    tickets.CreateSlaPolicy(pb.CreateSlaPolicyRequest(sla_policy=office_policy()))
    name = create(tickets).name
    change = pb.UpdateTicketRequest(ticket=pb.Ticket(name=name, priority=pb.PRIORITY_URGENT))

    sla = tickets.UpdateTicket(change).sla
    assert (
        sla.first_response.minutes,
        sla.resolution.minutes,
        sla.changes[0].previous_first_response_minutes,
    ) == (30, 240, 60)


def test_an_update_changes_what_its_mask_names_and_nothing_else(tickets):
    made = create(tickets, description="long story")
    request = pb.UpdateTicketRequest(ticket=pb.Ticket(name=made.name, subject="新标题"))
    request.update_mask.paths.append("description")

    changed = tickets.UpdateTicket(request)
    assert (changed.subject, changed.description) == ("包装破损", "")


@pytest.mark.parametrize(
    ("fields", "bad"),
    [
        ({"subject": "x" * 201}, "subject"),
        ({"subject": " "}, "ticket.subject"),
        ({"priority": 99}, "priority"),
        ({"channel": 99}, "channel"),
        ({"profile": "p1"}, "profile"),
        ({"parent": "slaPolicies/1"}, "parent"),
        ({"department": "Service Desk"}, "department"),
    ],
)
def test_what_a_ticket_may_not_be_opened_with_it_is_not_changed_to(tickets, fields, bad):
    request = pb.UpdateTicketRequest(ticket=pb.Ticket(name=create(tickets).name, **fields))
    request.update_mask.paths.extend(fields)

    assert bad_fields(lambda: tickets.UpdateTicket(request)) == [bad]


def test_a_whole_ticket_may_come_back_but_not_with_fields_of_verbs_in_the_mask(tickets):
    made = create(tickets)
    made.subject = "改了"
    assert tickets.UpdateTicket(pb.UpdateTicketRequest(ticket=made)).subject == "改了"
    request = pb.UpdateTicketRequest(ticket=pb.Ticket(name=made.name, assignee="user:x"))
    request.update_mask.paths.append("assignee")

    assert refusal(lambda: tickets.UpdateTicket(request))[0] == grpc.StatusCode.INVALID_ARGUMENT


def test_a_stale_etag_is_refused(tickets):
    made = create(tickets)
    tickets.RespondTicket(pb.RespondTicketRequest(name=made.name))

    stale = pb.PauseTicketRequest(name=made.name, etag=made.etag)
    assert refusal(lambda: tickets.PauseTicket(stale))[0] == grpc.StatusCode.ABORTED


def test_lists_page_and_are_narrowed(tickets):
    for n in range(5):
        create(tickets, profile=f"profiles/p{n % 2}")

    first = tickets.ListTickets(pb.ListTicketsRequest(page_size=2, profile="profiles/p0"))
    rest = pb.ListTicketsRequest(page_size=2, profile="profiles/p0", page_token=first.next_page_token)
    assert [int(each.number[-6:]) for each in first.tickets] == [5, 3]
    assert [int(each.number[-6:]) for each in tickets.ListTickets(rest).tickets] == [1]
    other = pb.ListTicketsRequest(page_size=2, page_token=first.next_page_token)
    assert refusal(lambda: tickets.ListTickets(other))[0] == grpc.StatusCode.INVALID_ARGUMENT
    resolved = pb.ListTicketsRequest(status_category=pb.STATUS_CATEGORY_RESOLVED)
    assert len(tickets.ListTickets(resolved).tickets) == 0


def test_words_are_masked_or_hidden_by_right(server, tickets):
    name = create(tickets).name
    server.policy.obligations = Obligations(masked=frozenset({"personal/content"}))
    masked = tickets.GetTicket(pb.GetTicketRequest(name=name))
    server.policy.obligations = Obligations()
    hidden = tickets.GetTicket(pb.GetTicketRequest(name=name))

    assert (masked.subject, hidden.subject) == ("***", "")
    assert hidden.number.startswith("T2025")


def test_rows_bind_every_read_and_change(server, tickets):
    ours, theirs = create(tickets), create(tickets, department="sales")
    server.policy.obligations = Obligations(everything=False, row_filter=(Condition("department", ("service",)),))

    assert [ours.name] == [each.name for each in tickets.ListTickets(pb.ListTicketsRequest()).tickets]
    for call in (
        lambda: tickets.GetTicket(pb.GetTicketRequest(name=theirs.name)),
        lambda: tickets.ResolveTicket(pb.ResolveTicketRequest(name=theirs.name)),
        lambda: tickets.ListComments(pb.ListCommentsRequest(parent=theirs.name)),
        lambda: tickets.DeleteTicket(pb.DeleteTicketRequest(name=theirs.name)),
    ):
        assert refusal(call)[0] == grpc.StatusCode.NOT_FOUND
    either = Either(((Condition("assignee", ("user:none",)),), (Condition("owner_department", ("sales",)),)))
    server.policy.obligations = Obligations(row_filter=(either,))
    assert [theirs.name] == [each.name for each in tickets.ListTickets(pb.ListTicketsRequest()).tickets]
    assert tickets.GetTicket(pb.GetTicketRequest(name=theirs.name)).name == theirs.name
    server.policy.obligations = Obligations(row_filter=(Condition("province_code", ("110000",)),))
    refused = refusal(lambda: tickets.ListTickets(pb.ListTicketsRequest()))
    assert refused[0] == grpc.StatusCode.PERMISSION_DENIED


def test_a_deleted_ticket_is_gone_with_its_comments_and_says_so_to_search(tickets, store, tmp_path):
    name = create(tickets).name
    tickets.CreateComment(pb.CreateCommentRequest(parent=name, comment=pb.Comment(text="说了")))
    tickets.DeleteTicket(pb.DeleteTicketRequest(name=name))

    assert refusal(lambda: tickets.GetTicket(pb.GetTicketRequest(name=name)))[0] == grpc.StatusCode.NOT_FOUND
    assert store.comments(name.removeprefix("tickets/"), None, 10) == []
    last = store.published[-1].message
    assert isinstance(last, events_pb2.TicketChanged) and last.deleted and not last.sealed_text


def at_the_next(monkeypatch, store, method, action, *, after=False):
    """Do something once, right before or after the next call of a method of the store."""
    plain = getattr(store, method)

    def hooked(*arguments, **named):
        monkeypatch.setattr(store, method, plain)
        if not after:
            action()
        result = plain(*arguments, **named)
        if after:
            action()
        return result

    monkeypatch.setattr(store, method, hooked)


def comment(tickets: Tickets, name: str) -> pb.Comment:
    return tickets.CreateComment(pb.CreateCommentRequest(parent=name, comment=pb.Comment(text="说了")))


def die() -> None:
    raise RuntimeError("killed")


def test_a_crash_while_a_ticket_is_deleted_leaves_no_comment_behind(tickets, store, monkeypatch):
    name = create(tickets).name
    comment(tickets, name)
    at_the_next(monkeypatch, store, "replace", die, after=True)
    refusal(lambda: tickets.DeleteTicket(pb.DeleteTicketRequest(name=name)))

    assert store.get(name.removeprefix("tickets/")).deleted
    assert store.comments(name.removeprefix("tickets/"), None, 10) == []


def test_a_delete_with_a_stale_etag_leaves_the_comments(tickets, store):
    made = create(tickets)
    comment(tickets, made.name)
    tickets.RespondTicket(pb.RespondTicketRequest(name=made.name))

    refused = refusal(lambda: tickets.DeleteTicket(pb.DeleteTicketRequest(name=made.name, etag=made.etag)))
    assert refused[0] == grpc.StatusCode.ABORTED
    assert len(store.comments(made.name.removeprefix("tickets/"), None, 10)) == 1


@pytest.mark.parametrize(
    ("what", "code"), [("deleted", grpc.StatusCode.NOT_FOUND), ("forgotten", grpc.StatusCode.ABORTED)]
)
def test_a_comment_written_while_its_ticket_is_erased_does_not_stay(tickets, store, monkeypatch, what, code):
    name = create(tickets, profile="profiles/p1").name

    def erase():
        if what == "deleted":
            tickets.DeleteTicket(pb.DeleteTicketRequest(name=name))
        else:
            forget(store, "p1")

    at_the_next(monkeypatch, store, "add_comment", erase)

    assert refusal(lambda: comment(tickets, name))[0] == code
    assert store.comments(name.removeprefix("tickets/"), None, 10) == []


def forget(store, profile_id: str) -> None:
    erased = ProfileErased(profile_id=profile_id, names=[profile_id])
    TicketsConsumer(store).on_profile_erased(Event("e1", f"profiles/{profile_id}", FRIDAY, 2, erased))


def test_the_ticket_of_an_erased_customer_is_still_worked_on(tickets, store):
    name = create(tickets, profile="profiles/p1").name
    forget(store, "p1")
    urgent = pb.UpdateTicketRequest(ticket=pb.Ticket(name=name, priority=pb.PRIORITY_URGENT))

    assert tickets.UpdateTicket(urgent).priority == pb.PRIORITY_URGENT
    assert comment(tickets, name).text == "说了"
    blank = pb.UpdateTicketRequest(ticket=pb.Ticket(name=create(tickets).name, subject=" "))
    assert refusal(lambda: tickets.UpdateTicket(blank))[0] == grpc.StatusCode.INVALID_ARGUMENT


def test_a_customer_who_is_merged_while_a_ticket_is_given_to_them_is_followed(tickets, store, monkeypatch):
    name = create(tickets).name
    request = pb.UpdateTicketRequest(ticket=pb.Ticket(name=name, profile="profiles/p1"))
    at_the_next(monkeypatch, store, "replace", lambda: store.identities.lead("p1", "p2", 2))

    assert tickets.UpdateTicket(request).profile == "profiles/p2"
    assert tickets.GetTicket(pb.GetTicketRequest(name=name)).profile == "profiles/p2"


def test_a_customer_who_is_merged_while_others_change_the_ticket_is_followed(tickets, store, monkeypatch):
    name = create(tickets).name
    request = pb.UpdateTicketRequest(ticket=pb.Ticket(name=name, profile="profiles/p1"))
    respond = pb.RespondTicketRequest(name=name)

    def merge_and_change():
        store.identities.lead("p1", "p2", 2)
        at_the_next(monkeypatch, store, "replace", lambda: tickets.RespondTicket(respond))

    at_the_next(monkeypatch, store, "replace", merge_and_change)

    assert tickets.UpdateTicket(request).profile == "profiles/p2"


def test_comments_page_and_repeat_safely(tickets):
    name = create(tickets).name
    for n in range(3):
        request = pb.CreateCommentRequest(parent=name, comment=pb.Comment(text=f"{n}"), request_id=f"c{n}")
        assert tickets.CreateComment(request).name == tickets.CreateComment(request).name

    first = tickets.ListComments(pb.ListCommentsRequest(parent=name, page_size=2))
    rest = pb.ListCommentsRequest(parent=name, page_size=2, page_token=first.next_page_token)
    found = [*first.comments, *tickets.ListComments(rest).comments]
    assert {"0", "1", "2"} == {each.text for each in found} and len(found) == 3
    assert found[0].author == "user:lan"


def test_parents_must_exist_and_never_circle(tickets):
    top, part = create(tickets), create(tickets)
    child = create(tickets, parent=top.name)
    circle = pb.UpdateTicketRequest(ticket=pb.Ticket(name=top.name, parent=child.name))

    assert child.parent == top.name
    assert refusal(lambda: tickets.UpdateTicket(circle))[0] == grpc.StatusCode.INVALID_ARGUMENT
    assert refusal(lambda: create(tickets, parent="tickets/nobody"))[0] == grpc.StatusCode.INVALID_ARGUMENT
    assert part.parent == ""


def test_a_deleted_ticket_above_the_parent_does_not_matter_and_a_deleted_parent_does(tickets):
    top = create(tickets)
    middle = create(tickets, parent=top.name)
    low = create(tickets, parent=middle.name)
    tickets.DeleteTicket(pb.DeleteTicketRequest(name=middle.name))

    assert create(tickets, parent=low.name).parent == low.name
    assert "ticket.parent" in bad_fields(lambda: create(tickets, parent=middle.name))


@pytest.mark.parametrize("fields", [{"subject": " "}, {"kind": 0}, {"profile": "p1"}, {"subject": "x" * 201}])
def test_bad_tickets_are_refused(tickets, fields):
    assert refusal(lambda: create(tickets, **fields))[0] == grpc.StatusCode.INVALID_ARGUMENT


def test_policies_are_kept_changed_and_deleted(tickets):
    made = tickets.CreateSlaPolicy(pb.CreateSlaPolicyRequest(sla_policy=office_policy(rank=7)))
    change = pb.UpdateSlaPolicyRequest(sla_policy=pb.SlaPolicy(name=made.name, etag=made.etag, disabled=True))
    change.update_mask.paths.append("disabled")

    changed = tickets.UpdateSlaPolicy(change)
    assert (changed.disabled, changed.rank, len(changed.targets)) == (True, 7, 2)
    assert not create(tickets).HasField("sla")
    assert refusal(lambda: tickets.UpdateSlaPolicy(change))[0] == grpc.StatusCode.ABORTED
    tickets.DeleteSlaPolicy(pb.DeleteSlaPolicyRequest(name=made.name))
    assert len(tickets.ListSlaPolicies(pb.ListSlaPoliciesRequest()).sla_policies) == 0


def test_a_policy_that_is_deleted_while_they_are_listed_hides_no_other(tickets):
    made = [
        tickets.CreateSlaPolicy(pb.CreateSlaPolicyRequest(sla_policy=office_policy(rank=rank))) for rank in (1, 2, 2, 3)
    ]
    expected = sorted(made, key=lambda each: (each.rank, each.name))
    first = tickets.ListSlaPolicies(pb.ListSlaPoliciesRequest(page_size=2))
    tickets.DeleteSlaPolicy(pb.DeleteSlaPolicyRequest(name=first.sla_policies[0].name))

    rest = tickets.ListSlaPolicies(pb.ListSlaPoliciesRequest(page_size=2, page_token=first.next_page_token))

    assert [*first.sla_policies, *rest.sla_policies] == expected
    assert rest.next_page_token == ""


@pytest.mark.parametrize(
    ("fields", "bad"),
    [
        ({"display_name": "x" * 101}, "display_name"),
        ({"display_name": ""}, "display_name"),
        ({"rank": -1}, "rank"),
        ({"kinds": [99]}, "kinds[0]"),
        ({"targets": [pb.PriorityTargets(priority=99, resolution_minutes=5)]}, "targets[0].priority"),
        ({"calendar": pb.BusinessCalendar(days=[pb.WorkDay(weekday=8)])}, "calendar.days[0].weekday"),
    ],
)
def test_what_a_policy_may_not_be_created_with_it_is_not_changed_to(tickets, fields, bad):
    made = tickets.CreateSlaPolicy(pb.CreateSlaPolicyRequest(sla_policy=office_policy()))
    request = pb.UpdateSlaPolicyRequest(sla_policy=pb.SlaPolicy(name=made.name, **fields))
    request.update_mask.paths.extend(fields)

    assert bad in bad_fields(lambda: tickets.UpdateSlaPolicy(request))


def test_a_running_ticket_keeps_the_targets_it_was_given(tickets):
    made = tickets.CreateSlaPolicy(pb.CreateSlaPolicyRequest(sla_policy=office_policy()))
    name = create(tickets).name
    tickets.DeleteSlaPolicy(pb.DeleteSlaPolicyRequest(name=made.name))

    assert tickets.GetTicket(pb.GetTicketRequest(name=name)).sla.first_response.minutes == 60


def test_policies_that_contradict_themselves_are_refused(tickets):
    policy = office_policy()
    policy.calendar.days[0].blocks.append(pb.WorkBlock(start_minute=600, end_minute=700))

    code, _ = refusal(lambda: tickets.CreateSlaPolicy(pb.CreateSlaPolicyRequest(sla_policy=policy)))
    assert code == grpc.StatusCode.INVALID_ARGUMENT


ONE_HOUR_A_WEEK = pb.BusinessCalendar(
    days=[pb.WorkDay(weekday=1, blocks=[pb.WorkBlock(start_minute=540, end_minute=600)])]
)


def test_a_target_that_the_calendar_never_reaches_is_refused(tickets):
    targets = [pb.PriorityTargets(priority=pb.PRIORITY_NORMAL, resolution_minutes=43_200)]
    policy = office_policy(calendar=ONE_HOUR_A_WEEK, targets=targets)
    made = tickets.CreateSlaPolicy(pb.CreateSlaPolicyRequest(sla_policy=office_policy(targets=targets)))
    change = pb.UpdateSlaPolicyRequest(sla_policy=pb.SlaPolicy(name=made.name, calendar=ONE_HOUR_A_WEEK))

    assert bad_fields(lambda: tickets.CreateSlaPolicy(pb.CreateSlaPolicyRequest(sla_policy=policy))) == ["targets"]
    assert bad_fields(lambda: tickets.UpdateSlaPolicy(change)) == ["targets"]


def test_a_ticket_with_a_promise_that_is_never_due_is_read_and_worked_on(tickets, store):
    targets = [pb.PriorityTargets(priority=pb.PRIORITY_NORMAL, first_response_minutes=60, resolution_minutes=43_200)]
    kept = wire.policy_of(office_policy(calendar=ONE_HOUR_A_WEEK, targets=targets), "old", FRIDAY, FRIDAY, 1)
    store.insert_policy(kept)

    sla = create(tickets).sla
    assert sla.first_response.HasField("due_time") and not sla.resolution.HasField("due_time")
    assert (sla.resolution.minutes, sla.resolution.state) == (43_200, pb.TARGET_STATE_RUNNING)
    (listed,) = tickets.ListTickets(pb.ListTicketsRequest()).tickets
    resolved = tickets.ResolveTicket(pb.ResolveTicketRequest(name=listed.name))
    assert resolved.sla.resolution.state == pb.TARGET_STATE_HIT


def test_states_are_for_search_alone(server, tickets):
    create(tickets)
    search = Tickets(server, caller="", peer="search", purpose="")
    marketing = Tickets(server, caller="", peer="marketing", purpose="")

    assert len(search.ListTicketStates(pb.ListTicketStatesRequest()).states) == 1
    for stranger in (marketing, tickets):
        code, _ = refusal(lambda who=stranger: who.ListTicketStates(pb.ListTicketStatesRequest()))
        assert code == grpc.StatusCode.PERMISSION_DENIED


def test_a_ticket_opened_with_an_old_profile_id_is_linked_to_the_one_that_lives(tickets, store):
    store.identities.lead("p1", "p2", 2)

    assert create(tickets, profile="profiles/p1").profile == "profiles/p2"
    found = tickets.ListTickets(pb.ListTicketsRequest(profile="profiles/p1")).tickets
    assert len(found) == 1
