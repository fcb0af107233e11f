"""Deliveries: signed and complete, again until taken, one target never another's delay, nothing lost by a kill."""

from __future__ import annotations

import os
import random
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta
from pathlib import Path

import mongoengine
import pytest
from kehu.client.webhooks import verify_webhook
from kehu.profiles.v1 import resources_pb2 as profiles

from services.chassis.access import Condition
from services.chassis.crypto import Sealer
from services.chassis.errors import Unavailable
from services.webhooks.delivering import TURN, Deliverer
from services.webhooks.domain.signing import new_secret
from services.webhooks.domain.subscriptions import DeliveryState, Secret, State, Subscription, delivery_of
from services.webhooks.queueing import Queue
from services.webhooks.reading import Unreadable
from services.webhooks.sender import Sender
from services.webhooks.store import MemoryWebhookStore, MongoWebhookStore, WebhookStore
from tests.webhooks.receivers import Receiver, receiving

KIND = "profiles.profile_changed"
SECRET = new_secret()


@dataclass
class World:
    """A deliverer with a clock of its own; `records` is what the owner would tell the app now."""

    keys: Path
    store: WebhookStore = field(default_factory=MemoryWebhookStore)
    now: datetime = datetime(2026, 11, 22, 8, 0, tzinfo=UTC)
    records: dict[str, profiles.Profile | None] = field(default_factory=dict)
    asked: list[tuple[str, frozenset[str]]] = field(default_factory=list)
    broken: set[str] = field(default_factory=set)
    is_away: bool = False

    def __post_init__(self) -> None:
        self.sealer = Sealer("webhooks", self.keys)
        self.deliverer = self.another()

    def another(self, **how: object) -> Deliverer:
        sender = Sender(["127.0.0.1"], seconds=1.0)
        return Deliverer(self.store, sender, self.read, self.sealer, lambda: self.now, lambda: 0.5, **how)

    def read(self, subscription: object, event: object, resource: str, fields: set, request_id: str) -> object:
        if self.is_away:
            raise Unavailable("away")
        if resource in self.broken:
            raise Unreadable("INTERNAL")
        self.asked.append((resource, frozenset(fields)))
        found = self.records.get(resource, profiles.Profile(display_name="李**", tier="gold", version=3))
        if found is not None:
            found = profiles.Profile.FromString(found.SerializeToString())
            for kept, _ in found.ListFields():
                if kept.name not in fields:
                    found.ClearField(kept.name)
        return found

    def subscribe(self, url: str, name: str = "a", **changes: object) -> Subscription:
        secret = Secret(self.sealer.seal(SECRET.encode(), (name * 32).encode()))
        new = Subscription(name * 32, "app:till", "sales", "sales", url, (KIND,), (secret,), state=State.ACTIVE)
        return self.store.insert(replace(new, **changes))

    def queue(self, count: int, name: str = "a", first: int = 0) -> None:
        self.store.enqueue([
            delivery_of(name * 32, f"e{number}", KIND, f"profiles/p{number}",
                        self.now - timedelta(milliseconds=1000 - number), self.now)
            for number in range(first, first + count)
        ])  # fmt: skip

    def states(self, name: str = "a") -> list[str]:
        found = self.store.deliveries(name * 32, None, None, 100)
        return [each.state.value for each in sorted(found, key=lambda each: each.event_time)]

    def forward(self, **how: float) -> None:
        self.now += timedelta(**how)


@pytest.fixture
def world(tmp_path: Path) -> World:
    return World(tmp_path)


def test_a_delivery_is_signed_names_what_happened_and_is_thin(world: World) -> None:
    world.now = datetime.now(UTC)
    with receiving() as receiver:
        world.subscribe(receiver.url)
        world.queue(1)
        assert world.deliverer.take_turn("a" * 32) == 1

    (got,) = receiver.got
    content = verify_webhook(SECRET, got.headers, got.body)
    (delivery,) = world.store.deliveries("a" * 32, None, None, 9)
    assert content == {
        "id": delivery.id, "type": KIND, "timestamp": delivery.event_time.isoformat(), "resource": "profiles/p0",
    }  # fmt: skip
    assert got.headers["webhook-id"] == delivery.id
    assert (delivery.state, delivery.attempts[0].status, delivery.due) == (DeliveryState.DELIVERED, 204, None)
    assert world.asked == [("profiles/p0", frozenset())], "nothing of the person is even read"


def test_data_is_what_the_owner_shows_the_app_at_that_moment(world: World) -> None:
    with receiving() as receiver:
        world.subscribe(receiver.url, fields=("display_name", "tier"))
        world.queue(2)
        world.records["profiles/p1"] = profiles.Profile(tier="silver")
        world.deliverer.take_turn("a" * 32)

    assert [got.content["data"] for got in receiver.got] == [
        {"display_name": "李**", "tier": "gold"},
        {"tier": "silver"},
    ]


def test_a_record_that_cannot_be_read_holds_up_no_other_and_is_tried_again_for_three_days(world: World) -> None:
    with receiving() as receiver:
        world.subscribe(receiver.url)
        world.queue(3)
        world.broken.add("profiles/p0")
        world.deliverer.take_turn("a" * 32)
        assert world.states() == ["waiting", "delivered", "delivered"]
        for _ in range(40):
            world.forward(hours=2)
            world.deliverer.take_turn("a" * 32)

    assert world.states() == ["failed", "delivered", "delivered"]
    (failed,) = world.store.deliveries("a" * 32, DeliveryState.FAILED, None, 9)
    assert {each.outcome for each in failed.attempts} == {"unreadable"} and 12 < failed.attempt_count < 30
    assert world.store.get("a" * 32).state is State.ACTIVE, "the target did nothing wrong"


def test_one_failure_after_quiet_days_disables_nothing(world: World) -> None:
    with receiving(Receiver(lambda got: (500, {}))) as receiver:
        world.subscribe(receiver.url)
        world.queue(1)
        world.deliverer.take_turn("a" * 32)
        assert world.store.lane("a" * 32).failing_since is not None
        world.store.forget(["profiles/p0"])
        world.forward(minutes=10)
        world.deliverer.take_turn("a" * 32)
        world.forward(days=4)
        world.queue(1, first=1)
        world.deliverer.take_turn("a" * 32)

    assert world.store.get("a" * 32).state is State.ACTIVE
    assert world.store.lane("a" * 32).failing_since == world.now


def test_what_the_app_may_not_see_any_more_is_withheld_though_it_was_queued(world: World) -> None:
    with receiving() as receiver:
        world.subscribe(receiver.url, fields=("display_name",))
        world.queue(3)
        world.records["profiles/p1"] = None
        world.deliverer.take_turn("a" * 32)

    assert world.states() == ["delivered", "withheld", "delivered"]
    assert [got.content["resource"] for got in receiver.got] == ["profiles/p0", "profiles/p2"]


def test_a_filter_compares_what_the_app_sees_and_tells_nothing_of_the_rest(world: World) -> None:
    with receiving() as receiver:
        world.subscribe(receiver.url, criteria=(Condition("tier", ("gold",)), Condition("display_name", ("李小明",))))
        world.queue(3)
        world.records["profiles/p0"] = profiles.Profile(tier="gold", display_name="李小明")
        world.records["profiles/p1"] = profiles.Profile(tier="gold")  # the right to the name was taken away
        world.deliverer.take_turn("a" * 32)

    assert world.states() == ["delivered", "filtered", "filtered"]
    assert "data" not in receiver.got[0].content


def test_a_failed_delivery_is_tried_again_under_its_id_until_it_is_taken(world: World) -> None:
    answers = iter([(500, {}), (429, {"retry-after": "600"}), (204, {})])
    with receiving(Receiver(lambda got: next(answers))) as receiver:
        world.subscribe(receiver.url)
        world.queue(1)
        for seconds in (0, 4, 2, 500, 200):
            world.forward(seconds=seconds)
            for lane in world.store.due_lanes(world.now, 9):
                world.deliverer.take_turn(lane.subscription_id)

    (delivery,) = world.store.deliveries("a" * 32, None, None, 9)
    assert [each.status for each in delivery.attempts] == [500, 429, 204]
    assert len({got.headers["webhook-id"] for got in receiver.got}) == 1
    assert delivery.attempts[2].time - delivery.attempts[1].time >= timedelta(seconds=600)
    assert world.store.lane("a" * 32).failures == 0


def test_after_three_days_a_delivery_is_given_up_and_the_subscription_disabled_and_told(world: World) -> None:
    with receiving(Receiver(lambda got: (500, {}))) as receiver:
        world.subscribe(receiver.url)
        world.queue(2)
        for _ in range(400):
            due = [lane.subscription_id for lane in world.store.due_lanes(world.now, 9)]
            for name in due:
                world.deliverer.take_turn(name)
            world.forward(minutes=15)

    found = world.store.get("a" * 32)
    assert (found.state, found.reason) == (State.DISABLED, "failed")
    assert "failed" in world.states()
    assert [fact.message.reason for fact in world.store.facts] == ["failed"]
    assert 10 < len(receiver.got) < 60


def test_a_failing_target_rests_however_many_events_come(world: World) -> None:
    with receiving(Receiver(lambda got: (500, {}))) as receiver:
        world.subscribe(receiver.url)
        for number in range(120):
            world.queue(1, first=number)
            for lane in world.store.due_lanes(world.now, 9):
                world.deliverer.take_turn(lane.subscription_id)
            world.forward(seconds=1)

    assert len(receiver.got) <= 8


def test_gone_disables_at_once(world: World) -> None:
    with receiving(Receiver(lambda got: (410, {}))) as receiver:
        world.subscribe(receiver.url)
        world.queue(5)
        world.deliverer.take_turn("a" * 32)
        world.forward(hours=9)
        world.deliverer.take_turn("a" * 32)

    assert (world.store.get("a" * 32).state, len(receiver.got)) == (State.DISABLED, 1)


def test_one_bad_event_does_not_stop_the_others(world: World) -> None:
    with receiving(Receiver(lambda got: (400 if got.content["resource"] == "profiles/p1" else 204, {}))) as receiver:
        world.subscribe(receiver.url)
        world.queue(4)
        for _ in range(4):
            world.deliverer.take_turn("a" * 32)
            world.forward(seconds=2)

    assert world.states().count("delivered") == 3
    assert [got.content["resource"] for got in receiver.got][:2] == ["profiles/p0", "profiles/p1"], "in their order"


def test_a_paused_or_ended_subscription_sends_nothing(world: World) -> None:
    with receiving() as receiver:
        known = world.subscribe(receiver.url, state=State.PAUSED)
        world.queue(1)
        world.deliverer.take_turn("a" * 32)
        assert (world.states(), receiver.got) == (["waiting"], [])
        world.store.replace(replace(known, state=State.ACTIVE))
        world.store.wake("a" * 32, world.now)
        world.deliverer.take_turn("a" * 32)
        assert world.states() == ["delivered"]
        world.store.delete("a" * 32)
        world.queue(1, first=7)
        world.deliverer.take_turn("a" * 32)
        assert len(receiver.got) == 1


def test_an_owner_that_is_away_costs_no_try(world: World) -> None:
    with receiving() as receiver:
        world.subscribe(receiver.url)
        world.queue(1)
        world.is_away = True
        with pytest.raises(Unavailable):
            world.deliverer.take_turn("a" * 32)
        world.is_away = False
        assert world.store.due_lanes(world.now + timedelta(seconds=4), 9) == []
        world.forward(seconds=5)
        world.deliverer.take_turn("a" * 32)

    assert (world.states(), len(receiver.got)) == (["delivered"], 1)


def test_an_owner_that_is_away_is_not_asked_more_often_for_events_that_come(world: World) -> None:
    world.is_away, asked = True, 0
    with receiving(Receiver()) as receiver:
        world.subscribe(receiver.url)
        for number in range(20):
            world.queue(1, first=number)
            for lane in world.store.due_lanes(world.now, 9):
                asked += 1
                with pytest.raises(Unavailable):
                    world.deliverer.take_turn(lane.subscription_id)
            world.forward(seconds=1)

    assert asked <= 5


def test_after_an_erasure_nothing_that_was_queued_is_sent(world: World) -> None:
    """Not even while the owner still answered: the delivery is gone, also one that waits to be tried again."""
    with receiving(Receiver(lambda got: (500, {}))) as receiver:
        world.subscribe(receiver.url, fields=("display_name",))
        world.queue(1)
        world.deliverer.take_turn("a" * 32)
        Queue(world.store).forget(["p0", "profiles/p0"])
        world.forward(hours=1)
        world.deliverer.take_turn("a" * 32)

    assert (world.states(), len(receiver.got)) == ([], 1)


def test_an_erasure_is_sent_as_the_id_alone_whatever_fields_are_wanted(world: World) -> None:
    with receiving() as receiver:
        wanted = world.subscribe(receiver.url, fields=("display_name",), event_types=("profiles.profile_erased",))
        queue = Queue(world.store)
        queue.add("profiles.profile_erased", "profiles/p0", "e1", world.now)
        queue.forget(["p0", "profiles/p0"])
        world.deliverer.take_turn(wanted.id)

    assert receiver.got[0].content.keys() == {"id", "type", "timestamp", "resource"}
    assert receiver.got[0].content["resource"] == "profiles/p0"


def test_what_is_sent_is_kept_nowhere(world: World) -> None:
    with receiving() as receiver:
        world.subscribe(receiver.url, fields=("display_name",))
        world.records["profiles/p0"] = profiles.Profile(display_name="欧阳小明")
        world.queue(1)
        world.deliverer.take_turn("a" * 32)

    assert "欧阳小明" in receiver.got[0].content["data"]["display_name"]
    assert "欧阳小明" not in repr(world.store._deliveries)  # type: ignore[attr-defined]


def test_a_turn_is_bounded_and_goes_on(world: World) -> None:
    with receiving() as receiver:
        world.subscribe(receiver.url)
        world.queue(TURN + 5)
        assert world.deliverer.take_turn("a" * 32) == TURN
        assert len(world.store.due_lanes(world.now, 9)) == 1
        world.deliverer.take_turn("a" * 32)

    assert [got.content["resource"] for got in receiver.got] == [f"profiles/p{number}" for number in range(TURN + 5)]


def until(claim: Callable[[], bool], seconds: float = 20.0) -> bool:
    end = time.monotonic() + seconds
    while not claim() and time.monotonic() < end:
        time.sleep(0.02)
    return claim()


def test_slow_targets_do_not_hold_up_the_others(tmp_path: Path) -> None:
    """As many slow targets as there are threads, and one that is quick."""
    world = World(tmp_path)
    clock = lambda: datetime.now(UTC)  # noqa: E731
    release = threading.Event()
    slow = Receiver(lambda got: (release.wait(5), (204, {}))[1])
    with receiving(slow) as stuck, receiving() as quick:
        deliverer = Deliverer(world.store, Sender(["127.0.0.1"], seconds=1), world.read, world.sealer, clock)
        world.now = clock()
        for number in range(31):
            secret = Secret(world.sealer.seal(SECRET.encode(), f"{number:032d}".encode()))
            world.store.insert(
                Subscription(f"{number:032d}", "app:slow", "sales", "sales", stuck.url, (KIND,), (secret,),
                             state=State.ACTIVE)
            )  # fmt: skip
            world.store.enqueue([delivery_of(f"{number:032d}", "e", KIND, "profiles/p", world.now, world.now)])
        deliverer.start()
        assert until(lambda: len(slow.got) >= 25)
        began = time.monotonic()
        world.subscribe(quick.url)
        world.queue(20)
        assert until(lambda: len(quick.got) == 20)
        took = time.monotonic() - began
        release.set()
        deliverer.stop()

    assert took < 3.0


def test_the_backlog_is_bounded_and_the_subscription_says_since_when_it_loses(world: World) -> None:
    world.subscribe("http://127.0.0.1:9/")
    queue = Queue(world.store, known_seconds=0.0, backlog=5)
    for number in range(9):
        queue.add(KIND, "profiles/p", f"e{number}", world.now)

    assert world.store.waiting("a" * 32, 99) == 5
    assert world.store.get("a" * 32).lost_since is not None


@pytest.fixture
def mongo_store(mongo_uri: str, tmp_path: Path) -> Iterator[MongoWebhookStore]:
    connection = mongoengine.connect(db="kehu_webhooks", alias="webhooks", host=mongo_uri, tz_aware=True)
    for name in connection["kehu_webhooks"].list_collection_names():
        connection["kehu_webhooks"].drop_collection(name)
    found = MongoWebhookStore(Sealer("webhooks", tmp_path))
    found.prepare()
    yield found
    mongoengine.disconnect(alias="webhooks")


@pytest.mark.mongo
def test_a_killed_process_loses_nothing(mongo_store: MongoWebhookStore, mongo_uri: str, tmp_path: Path) -> None:
    """SIGKILL at random moments on the real database: every event arrives, repeats carry the id they had."""
    world = World(tmp_path, mongo_store)
    world.now = datetime.now(UTC).replace(microsecond=0)
    with receiving() as receiver:
        for name in "abc":
            world.subscribe(receiver.url, name)
        kills, process = 0, None
        try:
            for round_number in range(4):
                for name in "abc":
                    world.queue(15, name, first=15 * round_number)
                process = _sending(mongo_uri, tmp_path)
                time.sleep(random.uniform(0.1, 0.6))
                os.kill(process.pid, signal.SIGKILL)
                process.wait()
                kills += 1
            process = _sending(mongo_uri, tmp_path)
            assert until(lambda: sum(mongo_store.waiting(name * 32, 999) for name in "abc") == 0, 60)
        finally:
            if process is not None:
                process.kill()
                process.wait()
        ids = [got.headers["webhook-id"] for got in receiver.got]
        expected = {delivery_of(n * 32, f"e{i}", KIND, "", world.now, world.now).id for n in "abc" for i in range(60)}

    assert set(ids) == expected
    assert kills == 4
    assert len(ids) - len(expected) <= 3 * kills, "at most the one under way in each lane is repeated"
    assert {each.state for name in "abc" for each in mongo_store.deliveries(name * 32, None, None, 999)} == {
        DeliveryState.DELIVERED
    }


def _sending(mongo_uri: str, keys: Path) -> subprocess.Popen[bytes]:
    argv = [sys.executable, "-m", "tests.webhooks.sending_process", mongo_uri, str(keys)]
    process = subprocess.Popen(argv, stdout=subprocess.PIPE)
    assert process.stdout is not None and process.stdout.readline() == b"sending\n"
    return process
