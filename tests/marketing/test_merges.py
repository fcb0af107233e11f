"""Merges while a page of a run waits: everybody gets one message at most, as the person they are by now."""

from __future__ import annotations

from datetime import timedelta

import pytest
from kehu.marketing.v1 import resources_pb2 as res

from services.marketing.domain.suppressions import Suppression
from tests.marketing.world import World, skips_of


def waiting_page() -> tuple[World, str, list[str]]:
    """Return a run paused after 40 of 60, and who of its page still waits."""
    world = World(people=60)
    world.campaign()
    name = world.start()
    pausing = iter([False] * 39 + [True] + [False] * 100)
    world.mailbox.trouble = lambda address: world.change("pause") if next(pausing, False) else None
    world.work_once(name)
    waiting = sorted(set(world.ids) - set(world.mailbox.recipients()))
    assert len(waiting) == 20
    return world, name, waiting


def merge(world: World, pairs: dict[str, str]) -> None:
    """Merge each key into its value."""
    for merged, survivor in pairs.items():
        world.store.identities.lead(merged, survivor, 2)


def test_who_was_merged_while_the_page_waited_is_written_to_as_the_survivor():
    world, name, waiting = waiting_page()
    pairs = {one: f"survivor-of-{one}" for one in waiting[:10]}
    merge(world, pairs)
    world.change("resume")

    report = world.work(name)

    assert (report.state, report.sent, report.unknown) == (res.RUN_STATE_DONE, 60, 0)
    assert sorted(world.mailbox.recipients()[40:]) == sorted([*pairs.values(), *waiting[10:]])


def test_the_address_that_was_written_to_is_the_one_a_withdrawal_concerns():
    world, name, waiting = waiting_page()
    merge(world, {waiting[0]: "survivor"})
    world.change("resume")
    world.work(name)

    (found,) = [d for d in world.store.page("run1", 1) if d.profile_id == waiting[0]]
    assert found.address_token == "token-survivor@example.cn"


@pytest.mark.parametrize("days", [0, 100])
@pytest.mark.parametrize("other", ["sent already", "waiting too"])
def test_two_of_the_audience_who_became_one_person_get_one_message(other, days):
    world, name, waiting = waiting_page()
    world.clock.advance(timedelta(days=days).total_seconds())
    survivor = waiting[1] if other == "waiting too" else world.mailbox.recipients()[0]
    merge(world, {waiting[0]: survivor})
    world.change("resume")

    report = world.work(name)

    assert (report.sent, skips_of(report)) == (59, {"DUPLICATE": 1})
    assert world.mailbox.recipients().count(survivor) == 1


def test_the_survivors_refusals_and_address_count_for_who_was_merged():
    world, name, waiting = waiting_page()
    merge(world, {waiting[0]: "refusing", waiting[1]: "suppressed", waiting[2]: "unreachable"})
    world.consents.refused = {"refusing": "REVOKED"}
    world.store.suppress(Suppression("suppressed", "email", "offers", "unsubscribed"))
    world.contacts.unreachable = {"unreachable"}
    world.change("resume")

    report = world.work(name)

    assert (report.sent, skips_of(report)) == (57, {"CONSENT:REVOKED": 1, "SUPPRESSED": 1, "NO_ADDRESS": 1})


def test_who_is_split_again_after_addresses_were_read_is_not_written_to_at_the_other_persons():
    world, name, waiting = waiting_page()
    merge(world, {waiting[-1]: "survivor"})
    world.mailbox.trouble = lambda address: world.store.identities.lead(waiting[-1], "", 4)
    world.change("resume")

    report = world.work(name)

    assert "survivor" not in world.mailbox.recipients()
    assert (report.sent, skips_of(report)) == (59, {"NO_ADDRESS": 1})
