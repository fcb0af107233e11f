"""A run whose job is given up, on both stores: run and campaign say so, and everybody is accounted for."""

from __future__ import annotations

import contextlib
from collections import Counter
from collections.abc import Callable

import pytest
from kehu.marketing.v1 import resources_pb2 as res

from services.chassis.errors import Invalid
from services.chassis.jobs import ATTEMPTS
from services.marketing.domain.campaigns import CampaignState
from services.marketing.domain.deliveries import DeliveryState
from services.marketing.domain.errors import CampaignStateForbids
from services.marketing.store import DeliveryFilter
from tests.marketing.world import CAP_ONE, Crash, Started, World, skips_of


class Unforeseen(Exception):
    """What nobody thought of."""


def raising(error: Exception, times: int = 1000) -> Callable[..., None]:
    """Return what raises this error so many times."""
    left = iter(range(times))

    def trouble(*_: object) -> None:
        if next(left, None) is not None:
            raise error

    return trouble


def break_audience(world: World, error: Exception, times: int = 1000) -> None:
    """Let analytics end in an error so many times, then answer."""
    trouble, page = raising(error, times), world.audiences.page

    def broken(rule: bytes, token: str) -> object:
        trouble()
        return page(rule, token)

    world.audiences.page = broken


def error_of(started: Started) -> str:
    """Return the reason that the operation ended with."""
    return started.world.operation(started.name)["error"]["reason"]


def shown(started: Started) -> res.CampaignReport:
    """Return the report that the operation shows."""
    return res.CampaignReport.FromString(started.world.operation(started.name)["metadata"]["value"])


def test_a_run_whose_job_is_given_up_in_the_middle_fails_with_its_campaign(world):
    started = Started(world)
    trouble = raising(Unforeseen())
    world.mailbox.trouble = lambda address: trouble() if address >= world.ids[9] else None

    report = started.work()

    assert (started.state(), error_of(started)) == (CampaignState.FAILED, "JOB_FAILED")
    assert (report.state, report.failure_reason) == (res.RUN_STATE_FAILED, "JOB_FAILED")
    assert (report.audience, report.sent, report.unknown, report.pending) == (50, 9, ATTEMPTS, 0)
    assert skips_of(report) == {"RUN_FAILED:JOB_FAILED": 50 - 9 - ATTEMPTS}
    assert (shown(started).state, shown(started).skips) == (report.state, report.skips)
    assert report.HasField("end_time")


def test_nobody_of_the_page_in_hand_is_left_without_an_outcome(world):
    started = Started(world)
    world.mailbox.trouble = raising(Unforeseen())

    started.work()

    found = world.store.deliveries(DeliveryFilter(campaign_id=started.id), "", 1000)
    outcomes = Counter((d.state, d.skip_reason, d.detail) for d in found)
    assert outcomes == {
        (DeliveryState.UNKNOWN, None, "INTERRUPTED"): ATTEMPTS,
        (DeliveryState.SKIPPED, "RUN_FAILED", "JOB_FAILED"): 30 - ATTEMPTS,
    }
    assert not any(delivery.claim_time for delivery in found if delivery.state is DeliveryState.SKIPPED)


def test_a_run_that_fails_before_it_has_an_audience_says_so(world):
    started = Started(world)
    break_audience(world, Unforeseen())

    report = started.work()

    assert (started.state(), error_of(started)) == (CampaignState.FAILED, "JOB_FAILED")
    assert (report.state, report.failure_reason, report.audience) == (res.RUN_STATE_FAILED, "JOB_FAILED", 0)


def test_a_run_that_a_try_can_still_mend_is_not_given_up(world):
    started = Started(world)
    break_audience(world, Unforeseen(), ATTEMPTS - 1)

    report = started.work()

    assert (started.state(), report.state, report.sent) == (CampaignState.DONE, res.RUN_STATE_DONE, 50)


def test_a_refusal_ends_a_run_at_its_first_try_and_is_named(world):
    started = Started(world)
    break_audience(world, Invalid("no such trait any more"))
    world.work_once(started.name)

    report = world.report(started.id)
    assert (started.state(), error_of(started)) == (CampaignState.FAILED, "INVALID_REQUEST")
    assert (report.state, report.failure_reason) == (res.RUN_STATE_FAILED, "INVALID_REQUEST")


def test_a_failed_campaign_runs_again_and_the_cap_counts_who_may_have_the_message(world):
    started = Started(world, frequency_cap=CAP_ONE)
    trouble = raising(Unforeseen(), ATTEMPTS)
    world.mailbox.trouble = lambda address: trouble() if address >= world.ids[9] else None
    started.work()

    again = world.start(started.id, f"again-{started.id}"[:32])
    report = world.work(again, campaign_id=started.id)

    assert (started.state(), report.state, report.failure_reason) == (CampaignState.DONE, res.RUN_STATE_DONE, "")
    assert (report.sent, skips_of(report)) == (50 - 9 - ATTEMPTS, {"FREQUENCY_CAP": 9 + ATTEMPTS})
    assert len(world.mailbox.mails) == len(set(world.mailbox.recipients())) == 50 - ATTEMPTS


def test_a_cancelled_campaign_stays_cancelled_when_its_run_fails(world):
    started = Started(world)
    world.mailbox.trouble = lambda address: started.cancel() if address.startswith(world.ids[9]) else None
    page, first = world.audiences.page, raising(Unforeseen())
    world.audiences.page = lambda rule, token: first() if token else page(rule, token)

    report = started.work()

    assert (started.state(), report.state, report.pending) == (CampaignState.CANCELLED, res.RUN_STATE_FAILED, 0)
    assert skips_of(report) == {"CANCELLED": 30 - report.sent, "RUN_FAILED:JOB_FAILED": 20}


def a_failing_run() -> tuple[World, Started]:
    world = World(people=14, page_size=12)
    started = Started(world)
    trouble = raising(Unforeseen())
    world.mailbox.trouble = lambda address: trouble() if address >= world.ids[1] else None
    return world, started


def steps_of_a_failing_run() -> range:
    world, started = a_failing_run()
    before = world.steps.count
    started.work()
    return range(before + 1, world.steps.count + 1)


def test_a_crash_at_any_step_of_a_failing_run_leaves_no_campaign_running():
    for crash_at in steps_of_a_failing_run():
        world, started = a_failing_run()
        world.steps.crash_at = crash_at
        with pytest.raises(Crash):
            started.work()

        report = started.work()

        assert (started.state(), report.state, report.pending) == (CampaignState.FAILED, res.RUN_STATE_FAILED, 0)
        assert (report.audience, report.failure_reason) == (14, "JOB_FAILED")
        assert len(world.mailbox.recipients()) == len(set(world.mailbox.recipients()))


def test_a_campaign_cancelled_at_any_step_of_a_failing_run_ends_one_way_or_the_other():
    ends = set()
    for act_at in steps_of_a_failing_run():
        world, started = a_failing_run()

        def cancel(world: World = world, started: Started = started) -> None:
            with contextlib.suppress(CampaignStateForbids):
                world.change("cancel", started.id)

        world.steps.act_at, world.steps.act = act_at, cancel
        report = started.work()

        ends.add((started.state(), report.state))
        assert report.pending == 0

    assert ends == {
        (CampaignState.CANCELLED, res.RUN_STATE_CANCELLED),
        (CampaignState.CANCELLED, res.RUN_STATE_FAILED),
        (CampaignState.FAILED, res.RUN_STATE_FAILED),
    }
