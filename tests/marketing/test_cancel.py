"""Cancelling the operation of a run, on both stores: the campaign says so and everybody is accounted for."""

from __future__ import annotations

from datetime import timedelta

import pytest
from kehu.marketing.v1 import resources_pb2 as res

from services.chassis.errors import NotAllowed
from services.chassis.jobs import Owner
from services.marketing.domain.campaigns import CampaignState, step
from services.marketing.domain.errors import CampaignStateForbids
from services.marketing.jobs import REVOKE
from tests.marketing.world import START, Crash, Started, World, skips_of


def test_a_run_cancelled_in_the_middle_ends_with_the_rest_skipped(world):
    started = Started(world)
    world.mailbox.trouble = lambda address: started.cancel() if address.startswith(world.ids[9]) else None

    report = started.work()

    assert started.state() is CampaignState.CANCELLED
    assert (report.state, report.audience, report.pending) == (res.RUN_STATE_CANCELLED, 50, 0)
    assert skips_of(report) == {"CANCELLED": 50 - report.sent}
    assert 10 <= len(world.mailbox.mails) == report.sent <= 20


def pause(started: Started) -> None:
    """Pause as a person does."""
    started.world.change("pause", started.id)


def lose_consent(started: Started) -> None:
    """Let the consent service be down."""
    started.world.consents.down = True


@pytest.mark.parametrize("wait", [pause, lose_consent])
def test_a_waiting_run_that_is_cancelled_does_not_wait_on(world, wait):
    started = Started(world)
    wait(started)
    world.work_once(started.name)
    started.cancel()

    report = started.work()

    assert (started.state(), report.state) == (CampaignState.CANCELLED, res.RUN_STATE_CANCELLED)
    assert (report.sent, report.skipped, report.pending) == (0, report.audience, 0)
    assert world.mailbox.mails == []


def test_a_run_cancelled_ahead_of_its_time_ends_without_an_audience(world):
    started = Started(world, schedule_time=START + timedelta(days=1))
    started.cancel()

    report = started.work()

    assert (started.state(), report.state, report.audience) == (CampaignState.CANCELLED, res.RUN_STATE_CANCELLED, 0)


def test_a_cancelled_campaign_is_not_run_again(world):
    started = Started(world)
    started.cancel()
    started.cancel()

    with pytest.raises(CampaignStateForbids) as refused:
        step(world.store.campaign(started.id), "run", world.clock.now(), "another")
    assert refused.value.metadata == {"state": "CANCELLED", "wanted": "run"}


def test_a_run_that_is_over_cannot_be_cancelled(world):
    started = Started(world)
    started.work()

    with pytest.raises(NotAllowed):
        started.cancel()
    assert started.state() is CampaignState.DONE


def test_the_operation_of_a_run_that_its_campaign_does_not_know_is_cancelled_alone(world):
    first, second = Started(world), Started(world)
    forgotten = world.jobs.start(
        "run_campaign", {"run_id": "r0", "campaign_id": first.id}, res.CampaignReport(), Owner("u", "marketing")
    )
    world.jobs.cancel(forgotten.name, "marketing")

    assert world.operation(forgotten.name)["done"]
    assert (first.state(), second.state()) == (CampaignState.RUNNING, CampaignState.RUNNING)


def test_a_withdrawal_under_way_cannot_be_cancelled(world):
    args = {"delivery_id": "d1"}
    operation = world.jobs.start(REVOKE, args, res.CampaignReport(), Owner("svc:marketing", "marketing"))

    with pytest.raises(NotAllowed):
        world.jobs.cancel(operation.name, "marketing")
    assert not world.operation(operation.name)["done"]


def steps_of_a_cancelled_run(crash_after: int = -1) -> tuple[int, World, Started]:
    world = World(people=3, page_size=2)
    started = Started(world)
    started.cancel()
    before = world.steps.count
    if crash_after > 0:
        world.steps.crash_at = before + crash_after
        with pytest.raises(Crash):
            started.work()
    else:
        started.work()
    return world.steps.count - before, world, started


def test_a_crash_at_any_step_after_a_cancel_loses_nobody():
    steps, _, _ = steps_of_a_cancelled_run()
    assert steps > 0
    for crash_after in range(1, steps + 1):
        _, world, started = steps_of_a_cancelled_run(crash_after)

        report = started.work()

        assert (report.state, report.pending) == (res.RUN_STATE_CANCELLED, 0)
        assert report.skipped == report.audience
        assert world.mailbox.mails == []


def test_a_campaign_paused_when_nothing_is_left_to_send_is_done(world):
    started = Started(world)
    world.mailbox.trouble = lambda address: pause(started) if address.startswith(world.ids[-1]) else None

    report = started.work()

    assert (started.state(), report.state, report.sent) == (CampaignState.DONE, res.RUN_STATE_DONE, 50)
