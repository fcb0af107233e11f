"""Claims about business time, promises and states of tickets."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, date, datetime, timedelta
from zoneinfo import ZoneInfo

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from services.chassis.errors import Invalid
from services.tickets.domain.calendar import (
    BusinessCalendar,
    Interval,
    SlaPolicyInvalid,
    WorkBlock,
    blocks_of,
    business_deadline,
    business_time,
    check_calendar,
)
from services.tickets.domain.sla import Kind, Priority, SlaPolicy, Targets, TargetState, choose_policy, target_stand
from services.tickets.domain.ticket import (
    Status,
    Ticket,
    TicketEdit,
    TicketParent,
    TicketState,
    assign,
    check_parent,
    edit,
    open_ticket,
    pause,
    reopen,
    resolve,
    respond,
    resume,
)

SHANGHAI = ZoneInfo("Asia/Shanghai")
NINE_TO_FIVE = (WorkBlock(9 * 60, 17 * 60),)
WITH_LUNCH = (WorkBlock(9 * 60, 12 * 60), WorkBlock(13 * 60, 18 * 60))
OFFICE = BusinessCalendar(days=(NINE_TO_FIVE,) * 5 + ((), ()))
LUNCH = BusinessCalendar(days=(WITH_LUNCH,) * 5 + ((), ()))
CHINA = replace(LUNCH, chinese_holidays=True)


def local(*parts: int) -> datetime:
    return datetime(*parts, tzinfo=SHANGHAI)


def due(start: datetime, minutes: int, calendar: BusinessCalendar, holds=()) -> datetime:
    return business_deadline(start, minutes, calendar, holds).time.astimezone(SHANGHAI)


def test_an_hour_from_friday_half_past_four_ends_on_monday_morning():
    assert local(2025, 3, 10, 9, 30) == due(local(2025, 3, 7, 16, 30), 60, OFFICE)


def test_lunch_does_not_count():
    assert local(2025, 3, 5, 13, 30) == due(local(2025, 3, 5, 11, 30), 60, LUNCH)


def test_a_count_that_ends_with_the_block_is_due_at_its_end():
    assert local(2025, 3, 7, 17, 0) == due(local(2025, 3, 7, 16, 30), 30, OFFICE)


@pytest.mark.parametrize("day", [date(2025, 1, 26), date(2026, 2, 14)])
def test_make_up_days_on_a_weekend_are_worked(day):
    assert day.weekday() >= 5
    assert blocks_of(day, CHINA) == (WITH_LUNCH, False)


def test_the_spring_festival_does_not_count():
    start = local(2025, 1, 27, 17, 30)  # the last working day before eight days off

    assert local(2025, 2, 5, 9, 30) == due(start, 60, CHINA)


def test_a_make_up_day_can_have_its_own_blocks():
    calendar = replace(CHINA, make_up_blocks=(WorkBlock(600, 720),))

    assert (((WorkBlock(600, 720),)), False) == blocks_of(date(2025, 1, 26), calendar)


def test_a_team_with_saturday_blocks_works_plain_saturdays_but_not_holiday_ones():
    calendar = replace(CHINA, days=(WITH_LUNCH,) * 6 + ((),))

    assert blocks_of(date(2025, 11, 1), calendar)[0] == WITH_LUNCH
    assert blocks_of(date(2025, 10, 4), calendar)[0] == ()


def test_years_without_a_published_calendar_count_weekdays_and_say_so():
    found = business_deadline(local(2031, 5, 1, 9, 0), 60, CHINA)

    assert (local(2031, 5, 1, 10, 0), True) == (found.time.astimezone(SHANGHAI), found.holidays_unknown)


def test_closed_dates_of_the_company_do_not_count():
    calendar = replace(OFFICE, closed_dates=frozenset({date(2025, 3, 10)}))

    assert local(2025, 3, 11, 9, 30) == due(local(2025, 3, 7, 16, 30), 60, calendar)


def test_a_night_shift_in_another_zone_follows_the_clock_change():
    calendar = BusinessCalendar(days=((WorkBlock(0, 1440),),) * 7, time_zone="Europe/Berlin")
    start = datetime(2025, 3, 29, 23, 0, tzinfo=UTC)  # midnight in Berlin on the day of 23 hours

    assert datetime(2025, 3, 30, 22, 0, tzinfo=UTC) == business_deadline(start, 23 * 60, calendar).time


@pytest.mark.parametrize(
    "calendar",
    [
        BusinessCalendar(days=((),) * 7),
        replace(OFFICE, time_zone="Nowhere/City"),
        replace(OFFICE, days=((WorkBlock(600, 700), WorkBlock(650, 800)),) + ((),) * 6),
        replace(OFFICE, days=((WorkBlock(700, 600),),) + ((),) * 6),
    ],
)
def test_calendars_that_contradict_themselves_are_refused(calendar):
    with pytest.raises(SlaPolicyInvalid):
        check_calendar(calendar)


def minute_by_minute(start: datetime, minutes: int, calendar: BusinessCalendar, holds) -> datetime:
    """Return the deadline by walking: the oracle."""
    moment = start.astimezone(UTC)
    while minutes:
        wall = moment.astimezone(SHANGHAI)
        blocks, _ = blocks_of(wall.date(), calendar)
        minute = wall.hour * 60 + wall.minute
        works = any(block.start_minute <= minute < block.end_minute for block in blocks)
        if works and not any(hold.start <= moment < hold.end for hold in holds):
            minutes -= 1
        moment += timedelta(minutes=1)
    return moment


starts = st.datetimes(datetime(2024, 12, 20), datetime(2025, 2, 20)).map(
    lambda moment: moment.replace(second=0, microsecond=0, tzinfo=SHANGHAI)
)
offsets = st.lists(st.tuples(st.integers(0, 4000), st.integers(1, 900)), max_size=4)


def holds_from(start: datetime, offsets_) -> list[Interval]:
    utc = start.astimezone(UTC)
    opened = [utc + timedelta(minutes=offset) for offset, _ in offsets_]
    return [Interval(at, at + timedelta(minutes=length)) for at, (_, length) in zip(opened, offsets_, strict=True)]


@settings(max_examples=60, deadline=None)
@given(starts, st.integers(0, 1500), offsets)
def test_deadlines_agree_with_walking_minute_by_minute(start, minutes, holds_):
    holds = holds_from(start, holds_)

    assert minute_by_minute(start, minutes, CHINA, holds) == business_deadline(start, minutes, CHINA, holds).time


@settings(max_examples=100, deadline=None)
@given(starts, st.integers(0, 3000), st.integers(0, 3000), offsets)
def test_splitting_a_duration_adds_up(start, first, second, holds_):
    holds = holds_from(start, holds_)
    between = business_deadline(start, first, CHINA, holds).time
    whole = business_deadline(start, first + second, CHINA, holds).time

    assert whole == business_deadline(between, second, CHINA, holds).time


@settings(max_examples=100, deadline=None)
@given(starts, st.integers(0, 3000), st.integers(1, 500), offsets)
def test_deadlines_grow_with_minutes_start_and_holds(start, minutes, more, holds_):
    holds = holds_from(start, holds_)
    plain = business_deadline(start, minutes, CHINA).time

    assert plain <= business_deadline(start, minutes, CHINA, holds).time
    assert plain <= business_deadline(start + timedelta(minutes=more), minutes, CHINA).time
    assert plain < business_deadline(start, minutes + more, CHINA).time


@settings(max_examples=100, deadline=None)
@given(starts, st.integers(1, 3000))
def test_the_business_time_up_to_a_deadline_is_the_target(start, minutes):
    deadline = business_deadline(start, minutes, CHINA).time

    assert timedelta(minutes=minutes) == business_time(Interval(start, deadline), CHINA)


NINE = local(2025, 3, 5, 9, 0)
POLICY = SlaPolicy(
    id="standard",
    display_name="Standard",
    rank=10,
    calendar=LUNCH,
    targets={Priority.NORMAL: Targets(60, 240), Priority.URGENT: Targets(30, 120)},
    kinds=frozenset(),
    departments=frozenset(),
    disabled=False,
    create_time=NINE,
    update_time=NINE,
)
DRAFT = Ticket(
    id="t1",
    number="T20250305-000001",
    kind=Kind.COMPLAINT,
    status=Status.NEW,
    priority=Priority.NORMAL,
    channel="phone",
    subject="包装破损",
    description="",
    profile_id="p1",
    department="service",
    assignee="",
    parent_id="",
    create_time=NINE,
    update_time=NINE,
)
TICKET = open_ticket(DRAFT, [POLICY])


def resolution(ticket: Ticket, now: datetime):
    minutes = ticket.sla.targets.resolution_minutes
    return target_stand(minutes, ticket.sla.calendar, ticket.clock, ticket.resolve_time, now)


def first_response(ticket: Ticket, now: datetime):
    minutes = ticket.sla.targets.first_response_minutes
    return target_stand(minutes, ticket.sla.calendar, ticket.clock, ticket.first_response_time, now)


def test_the_first_response_meets_its_target_and_a_second_changes_nothing():
    answered = respond(respond(TICKET, local(2025, 3, 5, 9, 50)), local(2025, 3, 5, 11, 0))

    stand = first_response(answered, local(2025, 3, 5, 12, 0))
    assert (TargetState.HIT, local(2025, 3, 5, 9, 50)) == (stand.state, stand.met_time)


def test_a_target_is_missed_the_moment_it_is_overdue():
    assert first_response(TICKET, local(2025, 3, 5, 10, 0)).state == TargetState.RUNNING
    assert first_response(TICKET, local(2025, 3, 5, 10, 1)).state == TargetState.MISSED


def test_a_hold_is_added_to_the_target_as_business_time():
    paused = pause(TICKET, local(2025, 3, 5, 10, 0))
    resumed = resume(paused, local(2025, 3, 5, 14, 0))  # two hours before lunch, one after

    assert local(2025, 3, 5, 17, 0) == resolution(resumed, local(2025, 3, 5, 14, 0)).due_time.astimezone(SHANGHAI)
    assert resolution(paused, local(2025, 3, 6, 9, 0)).state == TargetState.PAUSED


def test_a_target_overdue_before_the_pause_stays_missed():
    paused = pause(TICKET, local(2025, 3, 5, 10, 30))

    assert first_response(paused, local(2025, 3, 5, 11, 0)).state == TargetState.MISSED


def test_the_clock_stops_at_resolve_and_an_answer_after_it_is_refused():
    resolved = resolve(TICKET, local(2025, 3, 5, 11, 0))

    assert resolution(resolved, local(2025, 3, 20, 9, 0)).state == TargetState.HIT
    with pytest.raises(TicketState):
        respond(resolved, local(2025, 3, 20, 9, 0))


def test_the_time_a_ticket_lay_resolved_does_not_count_after_reopening():
    reopened = reopen(resolve(TICKET, local(2025, 3, 5, 11, 0)), local(2025, 3, 6, 10, 0))

    stand = resolution(reopened, local(2025, 3, 6, 10, 0))
    assert (TargetState.RUNNING, local(2025, 3, 6, 12, 0)) == (stand.state, stand.due_time.astimezone(SHANGHAI))


def test_a_new_priority_sets_the_targets_anew_and_keeps_the_old_ones():
    urgent = edit(TICKET, TicketEdit(priority=Priority.URGENT), [POLICY], local(2025, 3, 5, 9, 10))

    assert Targets(30, 120) == urgent.sla.targets
    assert ("priority", Priority.NORMAL, Targets(60, 240)) == (
        urgent.sla.changes[0].cause,
        urgent.sla.changes[0].previous_priority,
        urgent.sla.changes[0].previous_targets,
    )


def test_a_first_response_that_was_given_is_never_overruled():
    answered = respond(TICKET, local(2025, 3, 5, 9, 45))

    urgent = edit(answered, TicketEdit(priority=Priority.URGENT), [POLICY], local(2025, 3, 5, 10, 0))
    assert first_response(urgent, local(2025, 3, 5, 10, 0)).state == TargetState.HIT
    assert Targets(60, 120) == urgent.sla.targets


def test_a_priority_without_a_promise_keeps_the_history_and_stops_promising():
    low = edit(TICKET, TicketEdit(priority=Priority.LOW), [POLICY], local(2025, 3, 5, 9, 10))

    assert (Targets(0, 0), 1) == (low.sla.targets, len(low.sla.changes))
    assert resolution(low, local(2025, 3, 5, 9, 10)) is None


def test_other_edits_leave_the_targets_alone():
    edited = edit(TICKET, TicketEdit(subject="包装易破损"), [], local(2025, 3, 5, 9, 10))

    assert (TICKET.sla, 2) == (edited.sla, edited.version)


def test_a_ticket_needs_a_subject():
    with pytest.raises(Invalid):
        open_ticket(replace(DRAFT, subject=" "), [POLICY])


@pytest.mark.parametrize(
    ("verb", "statuses"),
    [
        (lambda t: assign(t, "user:lan", NINE), {Status.NEW, Status.IN_PROGRESS, Status.PAUSED}),
        (lambda t: respond(t, NINE), {Status.NEW, Status.IN_PROGRESS, Status.PAUSED}),
        (lambda t: pause(t, NINE), {Status.NEW, Status.IN_PROGRESS}),
        (lambda t: resume(t, NINE), {Status.PAUSED}),
        (lambda t: resolve(t, NINE), {Status.NEW, Status.IN_PROGRESS, Status.PAUSED}),
        (lambda t: reopen(t, NINE), {Status.RESOLVED}),
    ],
)
def test_verbs_work_only_where_the_status_allows_them(verb, statuses):
    for status in Status:
        resolved = NINE if status is Status.RESOLVED else None
        ticket = replace(TICKET, status=status, resolve_time=resolved)
        if status in statuses:
            assert TICKET.version + 1 == verb(ticket).version
        else:
            with pytest.raises(TicketState):
                verb(ticket)


def test_the_lowest_rank_that_fits_is_chosen_and_disabled_policies_never():
    special = replace(POLICY, id="special", rank=1, kinds=frozenset({Kind.COMPLAINT}), departments=frozenset({"sales"}))
    off = replace(POLICY, id="off", rank=0, disabled=True)

    assert choose_policy([off, POLICY, special], Kind.COMPLAINT, "service").id == "standard"
    assert choose_policy([off, POLICY, special], Kind.COMPLAINT, "sales").id == "special"
    assert choose_policy([off], Kind.REQUEST, "service") is None


def test_no_ticket_is_a_part_of_itself():
    check_parent("t1", ("t2", "t3"))
    with pytest.raises(TicketParent):
        check_parent("t1", ("t2", "t1"))
    with pytest.raises(TicketParent):
        check_parent("t1", tuple(f"x{n}" for n in range(11)))
