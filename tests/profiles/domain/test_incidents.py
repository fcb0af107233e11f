"""An incident's life: opened, kept up to date and closed by measurements; people only say who works on it."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime, timedelta

import pytest

from services.profiles.domain.causes import Cause
from services.profiles.domain.incidents import (
    FIXING,
    FOUND,
    OCCURRENCES_KEPT,
    VERIFIED,
    Incident,
    Judgement,
    acknowledged,
    judged,
)
from services.profiles.domain.quality_report import Cell, recurring, responses, rolled_up

NOW = datetime(2026, 11, 1, tzinfo=UTC)
HOUR = timedelta(hours=1)
NEW = Incident("i", "rule", "sales", "validity", "phone", "")
CAUSE = Cause("batch", "operations/a", 8, 10, 4.0, 6.0)


def measured(hours: int, failing: bool, *causes: Cause) -> Judgement:
    return Judgement(failing, 5 if failing else 10, 10, NOW + hours * HOUR, f"op{hours}", causes, ("till/1",))


def run(*judgements: Judgement, start: Incident = NEW) -> Incident:
    """Return the incident after measurements, each judged an hour after it began."""
    incident = start
    for item in judgements:
        incident = judged(incident, item, 7, item.start_time + HOUR) or incident
    return incident


def test_a_failing_rule_opens_an_incident_with_a_due_time() -> None:
    incident = run(measured(0, True, CAUSE))

    assert (incident.state, incident.occurrence_count, incident.passed, incident.measured) == (FOUND, 1, 5, 10)
    assert incident.current.due_time == NOW + HOUR + timedelta(days=7)
    assert (incident.current.found_by, list(incident.current.causes)) == ("op0", [CAUSE])


def test_a_rule_that_is_kept_opens_nothing() -> None:
    assert judged(NEW, measured(0, False), 7, NOW) is None


def test_failing_again_while_open_keeps_state_due_time_and_who_works_on_it() -> None:
    first = acknowledged(run(measured(0, True)), "user:a", "correcting the mapping", NOW + 2 * HOUR)
    again = run(measured(24, True, CAUSE), start=first)

    assert (again.state, again.occurrence_count) == (FIXING, 1)
    assert again.current.due_time == first.current.due_time
    assert again.current.acknowledged_by == "user:a"
    assert list(again.current.causes) == [CAUSE]


@pytest.mark.parametrize("is_acknowledged", [True, False])
def test_only_a_measurement_verifies_and_it_says_which(is_acknowledged: bool) -> None:
    opened = run(measured(0, True))
    opened = acknowledged(opened, "user:a", "", NOW + 2 * HOUR) if is_acknowledged else opened
    closed = run(measured(24, False), start=opened)

    assert (closed.state, closed.current.verified_by) == (VERIFIED, "op24")
    assert closed.current.verified_time == NOW + 25 * HOUR


def test_a_measurement_that_began_before_the_last_one_judged_changes_nothing() -> None:
    opened = run(measured(24, True))

    assert judged(opened, measured(23, False), 7, NOW) is None
    assert judged(opened, measured(24, True), 7, NOW) is None, "judged already: a job resumed after its last step"


def test_a_rule_that_fails_again_reopens_its_incident_and_the_times_before_stay() -> None:
    back = run(measured(0, True), measured(24, False), measured(48, False), measured(72, True))

    assert (back.state, back.occurrence_count, len(back.occurrences)) == (FOUND, 2, 2)
    assert back.occurrences[0].verified_by == "op24"
    assert back.current.acknowledged_time is None
    assert back.current.due_time == NOW + 73 * HOUR + timedelta(days=7)


def test_occurrences_are_counted_beyond_those_kept() -> None:
    times = OCCURRENCES_KEPT + 5
    back = run(*(measured(hour, hour % 2 == 0) for hour in range(2 * times)))

    assert (back.occurrence_count, len(back.occurrences)) == (times, OCCURRENCES_KEPT)


def test_a_second_acknowledgement_keeps_the_time_of_the_first() -> None:
    first = acknowledged(run(measured(0, True)), "user:a", "mine", NOW + 2 * HOUR)
    second = acknowledged(first, "user:b", "now mine", NOW + 9 * HOUR)

    assert second.current.acknowledged_time == NOW + 2 * HOUR
    assert (second.current.acknowledged_by, second.current.note) == ("user:b", "now mine")


def test_response_times_run_from_found_by_dimension_and_department() -> None:
    one = run(measured(0, True))
    one = run(measured(24, False), start=acknowledged(one, "user:a", "", one.current.found_time + 2 * HOUR))
    two = replace(run(measured(0, True)), id="j", rule_id="other")
    two = acknowledged(two, "user:a", "", two.current.found_time + 4 * HOUR)
    other = replace(run(measured(0, True)), id="k", department="service")

    sales, service = sorted(responses([one, two, other], NOW + timedelta(days=30)), key=lambda item: item.department)
    assert (sales.occurrences, sales.open, sales.overdue) == (2, 1, 1)
    assert sales.acknowledge_seconds == 3 * 3600
    assert sales.verify_seconds == 24 * 3600
    assert (service.department, service.acknowledge_seconds, service.verify_seconds) == ("service", None, None)


def test_causes_that_come_back_are_ranked_by_how_often() -> None:
    strong = Cause("source", "sources/shop", 90, 100, 3.0, 60.0)
    back = run(measured(0, True, CAUSE), measured(24, False), measured(48, True, CAUSE))
    once = replace(run(measured(0, True, strong)), id="j")

    found = recurring([back, once])
    assert [(item.value, item.occurrences, item.excess) for item in found] == [
        ("operations/a", 2, 12.0), ("sources/shop", 1, 60.0),
    ]  # fmt: skip


def test_figures_roll_up_to_sums() -> None:
    cells = [Cell("validity", "phone", "till", "sales", 3, 4), Cell("validity", "name", "till", "service", 1, 4),
             Cell("accuracy", "name", "shop", "sales", 0, 0)]  # fmt: skip

    assert rolled_up(cells, ()) == [Cell("accuracy", "", "", "", 0, 0), Cell("validity", "", "", "", 4, 8)]
    assert [item.score for item in rolled_up(cells, ())] == [1.0, 0.5]
    assert rolled_up(cells, ("department",))[1:] == [
        Cell("validity", "", "", "sales", 3, 4), Cell("validity", "", "", "service", 1, 4),
    ]  # fmt: skip
