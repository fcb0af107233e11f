"""Facts reach the lake exactly once: repeated, out of order, or with the feeder killed at any moment."""

from __future__ import annotations

import os
import random
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path

import mongoengine
import pytest
from google.protobuf.message import Message
from google.protobuf.timestamp_pb2 import Timestamp
from kehu.analytics.v1 import analytics_pb2
from kehu.consent.v1 import consent_pb2
from kehu.consent.v1.events_pb2 import ConsentChanged
from kehu.marketing.v1.events_pb2 import DeliveryRecorded
from kehu.profiles.v1.events_pb2 import ProfileChanged, ProfileErased, ProfilesMerged

from services.analytics.domain.tables import ALIASES, CONSENTS, DELIVERIES, INTERACTIONS, RESCORED, SCORES
from services.analytics.events import AnalyticsConsumer
from services.analytics.feeding import Feeder, flush
from services.analytics.lake import rows_table
from services.analytics.reading import Reader
from services.analytics.scoring import _forget_rescored, compute_scores
from services.analytics.store import BYTES_AT_ONCE, Entry, Inbox, MemoryInbox, MongoInbox
from services.analytics.warehouse import Warehouse
from services.chassis.consuming import Event
from services.chassis.consuming.contract import handlers
from services.chassis.errors import Unavailable

NOON = datetime(2025, 3, 15, 12, tzinfo=UTC)


def plain(kind: str, value: str) -> str:
    return f"{kind}:{value}"


def stamp(moment: datetime = NOON) -> Timestamp:
    found = Timestamp()
    found.FromDatetime(moment)
    return found


def event(message: Message, event_id: str) -> Event:
    return Event(event_id, "x/y", NOON, 1, message)


def values(warehouse: Warehouse, table: str, columns: str) -> list[tuple[object, ...]]:
    pinned = warehouse.pin([CONSENTS, DELIVERIES])
    return sorted(warehouse.rows(pinned, [table], f"SELECT {columns} FROM {table}", {}))  # type: ignore[type-var]


def test_each_fact_has_a_queue_of_its_own() -> None:
    queues = {subscription.queue for subscription in handlers(AnalyticsConsumer(MemoryInbox(), plain))}

    assert queues == {
        "analytics.profiles.profile_changed",
        "analytics.profiles.profiles_merged",
        "analytics.profiles.profiles_unmerged",
        "analytics.profiles.profile_erased",
        "analytics.consent.consent_changed",
        "analytics.marketing.delivery_recorded",
    }


def test_facts_repeated_and_out_of_order_leave_the_latest_state(warehouse: Warehouse) -> None:
    inbox = MemoryInbox()
    consumer = AnalyticsConsumer(inbox, plain)
    gold = ProfileChanged(profile_id="a", version=3, tier="gold", event_time=stamp())
    silver = ProfileChanged(profile_id="a", version=2, tier="silver", event_time=stamp(NOON - timedelta(hours=1)))
    for number, fact in enumerate((gold, silver, gold, silver)):
        consumer.on_profile_changed(event(fact, f"e{number}"))
        flush(inbox, warehouse)

    assert values(warehouse, "profiles", "profile_id, tier, version") == [("a", "gold", 3)]
    assert inbox.waiting(10) == []


def test_no_identity_and_no_source_record_waits_in_the_inbox() -> None:
    inbox = MemoryInbox()
    fact = ProfileChanged(profile_id="a", version=1, sealed_identity=b"SECRET", event_time=stamp())
    fact.links.add(source_id="till", source_record_id="13800138000")
    AnalyticsConsumer(inbox, plain).on_profile_changed(event(fact, "e1"))
    (entry,) = inbox.waiting(10)

    assert b"SECRET" not in entry.body
    assert b"13800138000" not in entry.body


def test_consents_and_deliveries_keep_what_stands(warehouse: Warehouse) -> None:
    inbox = MemoryInbox()
    consumer = AnalyticsConsumer(inbox, plain)
    state = consent_pb2.ConsentState.Value
    granted = ConsentChanged(
        profile_id="a", purpose_id="ads", channel="email", state=state("CONSENT_STATE_GRANTED"),
        version=1, event_time=stamp(),
    )  # fmt: skip
    revoked = ConsentChanged()
    revoked.CopyFrom(granted)
    revoked.state = state("CONSENT_STATE_REVOKED")
    revoked.version, revoked.event_time.seconds = 2, granted.event_time.seconds + 60
    consumer.on_consent_changed(event(revoked, "e1"))
    consumer.on_consent_changed(event(granted, "e2"))
    sent = DeliveryRecorded(run_id="r", profile_id="a", outcome="sent", version=1, event_time=stamp())
    consumer.on_delivery_recorded(event(sent, "e3"))
    consumer.on_delivery_recorded(event(sent, "e4"))
    flush(inbox, warehouse)

    assert values(warehouse, "consents", "purpose_id, state") == [("ads", "revoked")]
    assert values(warehouse, "deliveries", "run_id, outcome") == [("r", "sent")]


@pytest.mark.parametrize("seconds", [0, -5])
def test_the_later_answer_stands_though_a_clock_says_otherwise(warehouse: Warehouse, seconds: int) -> None:
    inbox, state = MemoryInbox(), consent_pb2.ConsentState.Value
    consumer = AnalyticsConsumer(inbox, plain)
    for version, name, after in ((1, "GRANTED", 0), (2, "REVOKED", seconds)):
        fact = ConsentChanged(profile_id="a", purpose_id="ads", state=state(f"CONSENT_STATE_{name}"), version=version)
        fact.event_time.FromDatetime(NOON + timedelta(seconds=after))
        consumer.on_consent_changed(event(fact, f"e{version}"))
        flush(inbox, warehouse)

    assert values(warehouse, "consents", "state") == [("revoked",)]


@pytest.mark.parametrize("order", [(0, 1, 2), (2, 1, 0), (1, 2, 0)])
def test_an_unmerged_profile_has_no_alias_in_whatever_order_the_facts_come(
    warehouse: Warehouse, order: tuple[int, ...]
) -> None:
    inbox = MemoryInbox()
    consumer = AnalyticsConsumer(inbox, plain)
    later = stamp(NOON + timedelta(hours=1))
    sends = [
        lambda: consumer.on_profiles_merged(
            event(
                ProfilesMerged(profile_id="b", merged_profile_id="a", merged_profile_version=2, event_time=stamp()),
                "e0",
            )
        ),
        lambda: consumer.on_profile_changed(
            event(ProfileChanged(profile_id="a", version=2, merged_into="b", deleted=True, event_time=stamp()), "e1")
        ),
        lambda: consumer.on_profile_changed(event(ProfileChanged(profile_id="a", version=3, event_time=later), "e2")),
    ]
    for number in order:
        sends[number]()
        flush(inbox, warehouse)

    pinned = warehouse.pin([ALIASES])
    resolved = warehouse.rows(pinned, ["aliases"], "SELECT * FROM aliases", {}) if pinned.has_aliases else []
    assert resolved == []


@pytest.fixture(params=["memory", pytest.param("mongo", marks=pytest.mark.mongo)])
def inbox(request: pytest.FixtureRequest) -> Iterator[Inbox]:
    if request.param == "memory":
        yield MemoryInbox()
        return
    uri = request.getfixturevalue("mongo_uri")
    mongoengine.connect(db="kehu_analytics_inbox", alias="analytics", host=uri, tz_aware=True)
    found = MongoInbox()
    found._collection().drop()
    found.ensure_indexes()
    yield found
    mongoengine.disconnect(alias="analytics")


def test_the_inbox_keeps_an_entry_once_until_it_is_removed(inbox: Inbox) -> None:
    inbox.put(Entry("a", "kind", b"\x00one"))
    inbox.put(Entry("a", "kind", b"two"))
    inbox.put(Entry("b", "kind", b"three"))

    assert sorted(entry.id for entry in inbox.waiting(10)) == ["a", "b"]
    assert {entry.body for entry in inbox.waiting(10)} == {b"\x00one", b"three"}
    assert len(inbox.waiting(1)) == 1
    inbox.remove(["a"])
    assert [entry.id for entry in inbox.waiting(10)] == ["b"]


def test_a_backlog_goes_into_the_lake_in_parts_that_memory_holds(inbox: Inbox, warehouse: Warehouse) -> None:
    request = analytics_pb2.BatchCreateInteractionsRequest()
    for number in range(500):
        request.interactions.add(profile="profiles/a", message_id=f"m{number}-" + "x" * 100, event_time=stamp())
    body = request.SerializeToString()
    count = 3 * BYTES_AT_ONCE // len(body)
    for number in range(count):
        inbox.put(Entry(f"e{number}", request.DESCRIPTOR.full_name, body))

    assert sum(len(entry.body) for entry in inbox.waiting(count)) < BYTES_AT_ONCE + len(body)
    assert flush(inbox, warehouse) == count
    assert inbox.waiting(1) == []
    assert len(values(warehouse, "interactions", "message_id")) == 500


def test_the_feeder_carries_what_waits(warehouse: Warehouse) -> None:
    inbox = MemoryInbox()
    feeder = Feeder(inbox, warehouse)
    feeder.start()
    fact = ProfileChanged(profile_id="a", version=1, event_time=stamp())
    AnalyticsConsumer(inbox, plain).on_profile_changed(event(fact, "e1"))
    deadline = time.monotonic() + 20
    while inbox.waiting(1) and time.monotonic() < deadline:
        time.sleep(0.02)
    feeder.stop()

    assert values(warehouse, "profiles", "profile_id") == [("a",)]


FEED = """
import sys
from pathlib import Path
import mongoengine
from services.analytics.engine import Engine
from services.analytics.feeding import flush
from services.analytics.lake import Lake
from services.analytics.store import MongoInbox
from services.analytics.warehouse import Warehouse
from services.chassis.errors import Unavailable
uri, folder = sys.argv[1], Path(sys.argv[2])
mongoengine.connect(db="kehu_analytics_kill", alias="analytics", host=uri, tz_aware=True)
warehouse = Warehouse(Lake(folder / "lake"), Engine(folder / "spill2"))
print("up", flush=True)
while True:
    flush(MongoInbox(), warehouse, 7)
"""


@pytest.mark.mongo
@pytest.mark.slow
def test_a_feeder_killed_at_random_moments_loses_nothing_and_doubles_nothing(
    warehouse: Warehouse, mongo_uri: str, tmp_path: Path
) -> None:
    mongoengine.connect(db="kehu_analytics_kill", alias="analytics", host=mongo_uri, tz_aware=True)
    inbox = MongoInbox()
    inbox._collection().drop()
    inbox.ensure_indexes()
    rng, sent = random.Random(5), 0
    for _ in range(4):
        feeder = subprocess.Popen(
            [sys.executable, "-c", FEED, mongo_uri, str(tmp_path)], stdout=subprocess.PIPE, env=os.environ
        )
        assert feeder.stdout is not None and feeder.stdout.readline() == b"up\n"
        before, until = warehouse.lake.snapshot(INTERACTIONS).appends, 0.0
        while not until or time.monotonic() < until:
            if not until and warehouse.lake.snapshot(INTERACTIONS).appends > before:
                until = time.monotonic() + rng.uniform(0, 0.3)  # any moment of the next flushes
            request = analytics_pb2.BatchCreateInteractionsRequest()
            for copy in range(3):
                name = f"m{sent + copy - 1}"  # overlaps the batch before: senders retry
                request.interactions.add(profile="profiles/a", message_id=name, event_time=stamp())
            inbox.put(Entry(f"e{sent}", request.DESCRIPTOR.full_name, request.SerializeToString()))
            sent += 2
        feeder.send_signal(signal.SIGKILL)
        feeder.wait()
        feeder.stdout.close()
    while flush(inbox, warehouse):
        pass
    found = [row[0] for row in values(warehouse, "interactions", "message_id")]
    mongoengine.disconnect(alias="analytics")

    assert sorted(f"m{number}" for number in range(-1, sent)) == found
    assert warehouse.lake.snapshot(INTERACTIONS).appends >= 4


def interaction(profile_id: str, number: int) -> analytics_pb2.Interaction:
    return analytics_pb2.Interaction(
        message_id=f"{profile_id}-{number}", profile=f"profiles/{profile_id}", event_type="order_completed",
        event_time=stamp(NOON + timedelta(minutes=number)),
    )  # fmt: skip


def test_an_erased_person_is_in_no_row_and_no_file_of_the_lake_and_nobody_else_is_touched(warehouse: Warehouse) -> None:
    inbox = MemoryInbox()
    consumer = AnalyticsConsumer(inbox, plain)
    for number, who in enumerate(["gone-one", "gone-two", "stays"]):
        consumer.on_profile_changed(event(ProfileChanged(profile_id=who, version=3, event_time=stamp()), f"p{number}"))
        sent = DeliveryRecorded(campaign_id="c", run_id="r", profile_id=who, outcome="sent", event_time=stamp())
        consumer.on_delivery_recorded(event(sent, f"d{number}"))
        bought = analytics_pb2.BatchCreateInteractionsRequest(interactions=[interaction(who, n) for n in range(30)])
        inbox.put(Entry(f"i{number}", bought.DESCRIPTOR.full_name, bought.SerializeToString()))
    merged = ProfilesMerged(profile_id="gone-one", merged_profile_id="gone-two", event_time=stamp())
    consumer.on_profiles_merged(event(merged, "m"))
    flush(inbox, warehouse)
    for number, who in enumerate(["gone-one", "gone-two"]):
        erased = ProfileErased(profile_id=who, version=9, names=["gone-one", "gone-two"], event_time=stamp())
        consumer.on_profile_erased(event(erased, f"e{number}"))
    flush(inbox, warehouse)
    late = ProfileChanged(profile_id="gone-one", version=4, tier="gold", event_time=stamp())
    consumer.on_profile_changed(event(late, "late"))
    flush(inbox, warehouse)

    for table in ("interactions", "deliveries"):
        assert {row[0] for row in values(warehouse, table, "profile_id")} == {"stays"}
    assert len(values(warehouse, "interactions", "message_id")) == 30
    assert values(warehouse, "profiles", "profile_id, deleted, tier") == [
        ("gone-one", True, None), ("gone-two", True, None), ("stays", False, None),
    ]  # fmt: skip
    for folder in ("interactions", "deliveries", "aliases"):
        held = [path for path in (warehouse.lake.root / folder).rglob("*.parquet") if b"gone-" in path.read_bytes()]
        assert held == []


def test_what_is_told_of_an_erased_person_later_is_removed_even_by_a_feeder_killed_before_it_removed_it(
    warehouse: Warehouse, monkeypatch: pytest.MonkeyPatch
) -> None:
    inbox = MemoryInbox()
    consumer = AnalyticsConsumer(inbox, plain)
    erased = ProfileErased(profile_id="gone", version=9, names=["gone", "former"], event_time=stamp())
    consumer.on_profile_erased(event(erased, "e"))
    flush(inbox, warehouse)
    bought = analytics_pb2.BatchCreateInteractionsRequest(interactions=[interaction("former", 1), interaction("b", 2)])
    inbox.put(Entry("late", bought.DESCRIPTOR.full_name, bought.SerializeToString()))
    sent = DeliveryRecorded(campaign_id="c", run_id="r", profile_id="gone", outcome="sent", event_time=stamp())
    consumer.on_delivery_recorded(event(sent, "d"))
    with monkeypatch.context() as killed:
        killed.setattr(Warehouse, "erase", lambda *_: (_ for _ in ()).throw(Unavailable("killed")))
        with pytest.raises(Unavailable):
            flush(inbox, warehouse)
    assert len(values(warehouse, "interactions", "profile_id")) == 2
    flush(inbox, warehouse)

    assert values(warehouse, "interactions", "profile_id") == [("b",)]
    assert values(warehouse, "deliveries", "profile_id") == []


@pytest.mark.parametrize("had_scores", [True, False])
def test_an_erasure_while_scores_are_computed_is_not_undone(
    warehouse: Warehouse, monkeypatch: pytest.MonkeyPatch, had_scores: bool
) -> None:
    inbox, reader = MemoryInbox(), Reader(warehouse)
    consumer = AnalyticsConsumer(inbox, plain)

    def buy(who: str) -> None:
        consumer.on_profile_changed(event(ProfileChanged(profile_id=who, version=3, event_time=stamp()), f"p{who}"))
        bought = analytics_pb2.BatchCreateInteractionsRequest(interactions=[interaction(who, 1)])
        inbox.put(Entry(f"i{who}", bought.DESCRIPTOR.full_name, bought.SerializeToString()))
        flush(inbox, warehouse)

    def erase() -> None:
        erased = ProfileErased(profile_id="gone", version=9, names=["gone"], event_time=stamp())
        consumer.on_profile_erased(event(erased, "e"))
        flush(inbox, warehouse)

    @contextmanager
    def slow(*arguments: object) -> Iterator[object]:
        with read(*arguments) as rows:  # type: ignore[arg-type]
            erase()
            yield rows

    for who in ("stays", "gone") if had_scores else ("stays",):
        buy(who)
    compute_scores(warehouse)
    buy("gone")
    read = warehouse.engine.batches
    with monkeypatch.context() as meanwhile:
        meanwhile.setattr(warehouse.engine, "batches", slow)
        with pytest.raises(Unavailable):
            compute_scores(warehouse)
    after = reader.scores("gone")
    compute_scores(warehouse)

    warehouse.lake.sweep(SCORES, 0)

    assert (after, reader.scores("gone")) == (None, None)
    assert reader.scores("stays") is not None
    assert [path for path in (warehouse.lake.root / "scores").rglob("*.parquet") if b"gone" in path.read_bytes()] == []


def test_what_is_rescored_while_a_computation_drops_older_ones_stays(
    warehouse: Warehouse, monkeypatch: pytest.MonkeyPatch
) -> None:
    def rescored(who: str, moment: datetime) -> None:
        row = {"profile_id": who, "rfm_segment": "champions", "event_time": moment, "part": "recent"}
        warehouse.add(RESCORED, rows_table(RESCORED, [row]))

    @contextmanager
    def slow(*arguments: object) -> Iterator[object]:
        with read(*arguments) as rows:  # type: ignore[arg-type]
            rescored("new", NOON + timedelta(hours=1))
            yield rows

    read = warehouse.engine.batches
    rescored("old", NOON - timedelta(hours=1))
    monkeypatch.setattr(warehouse.engine, "batches", slow)
    _forget_rescored(warehouse, NOON)

    assert [Reader(warehouse).scores(who) is None for who in ("old", "new")] == [True, False]


def test_an_erasure_while_others_append_loses_no_row(warehouse: Warehouse) -> None:
    stop = threading.Event()
    written = []

    def append() -> None:
        while not stop.is_set():
            inbox = MemoryInbox()
            number = len(written)
            bought = analytics_pb2.BatchCreateInteractionsRequest(interactions=[interaction(f"new{number}", number)])
            inbox.put(Entry("i", bought.DESCRIPTOR.full_name, bought.SerializeToString()))
            flush(inbox, warehouse)
            written.append(f"new{number}-{number}")

    appender = threading.Thread(target=append)
    appender.start()
    for number in range(8):
        warehouse.erase([f"new{number}"])
    stop.set()
    appender.join()

    kept = {row[0] for row in values(warehouse, "interactions", "message_id")}
    assert {item for item in written if int(item.split("-")[1]) >= 8} <= kept
