"""Facts leave the outbox exactly when the broker has them."""

from __future__ import annotations

import contextlib
import os
import signal
import time
import uuid
from collections.abc import Iterator
from dataclasses import replace as changed_config
from datetime import UTC, datetime, timedelta
from pathlib import Path

import amqp
import pytest
from kehu.profiles.v1.events_pb2 import ProfileChanged, ProfilesMerged

from infra.processes import running, wait_until
from infra.servers import new_rabbit
from services.chassis import records
from services.chassis.config import load_config
from services.chassis.consuming.contract import Subscription, decode
from services.chassis.consuming.publishing import connect
from services.chassis.outbox import Relay
from services.chassis.records import Fact

HEARD = Subscription("listener", "profiles", "profile_changed")


class Thing(records.Record):
    meta = {"db_alias": "outbox_test", "collection": "things", "indexes": records.RECORD_INDEXES}


@pytest.fixture(scope="module")
def things(mongo_uri: str) -> type[Thing]:
    environ = {"KEHU_MONGO_URI": mongo_uri, "KEHU_AMQP_URI": "amqp://unused"}
    config = changed_config(load_config(environ))
    records.connect(config, "outbox_test")
    records.ensure_indexes([Thing])
    return Thing


@pytest.fixture
def empty_things(things: type[Thing]) -> type[Thing]:
    Thing._get_collection().delete_many({})
    return things


@contextlib.contextmanager
def relay(amqp_uri: str, started: bool = True) -> Iterator[Relay]:
    found = Relay([Thing], amqp_uri, "profiles", [HEARD])
    if started:
        found.start()
    try:
        yield found
    finally:
        if started:
            found.stop()


def fact(thing_id: str, version: int = 1) -> Fact:
    return Fact(ProfileChanged(profile_id=thing_id, version=version), f"profiles/{thing_id}", version)


def waiting() -> int:
    return sum(len(row.get("outbox", ())) for row in Thing._get_collection().find({}, {"outbox": 1}))


@pytest.fixture
def heard(amqp_uri: str) -> Iterator[amqp.Channel]:
    with contextlib.closing(connect(amqp_uri)) as connection:
        channel = connection.channel()
        channel.queue_declare(HEARD.queue, durable=True, auto_delete=False)
        channel.queue_purge(HEARD.queue)
        channel.exchange_delete(HEARD.exchange)  # and with it what other tests bound to the same facts
        yield channel


def drained(channel: amqp.Channel) -> list[str]:
    found = []
    while (message := channel.basic_get(HEARD.queue, no_ack=True)) is not None:
        raw = message.body.encode() if isinstance(message.body, str) else bytes(message.body)
        found.append(decode(raw, ProfileChanged).subject)
    return found


def test_a_written_fact_is_in_the_queue_at_once_and_no_longer_in_the_record(empty_things, amqp_uri, heard):
    with relay(amqp_uri):
        records.insert(Thing(id="a"), [fact("a")])

        assert wait_until(lambda: waiting() == 0, 1.0)
    assert drained(heard) == ["profiles/a"]


def test_facts_of_a_dead_process_are_published_by_a_living_one(empty_things, amqp_uri, heard):
    records.insert(Thing(id="a"), [fact("a")])
    past = datetime.now(UTC) - timedelta(seconds=5)
    Thing._get_collection().update_one({"_id": "a"}, {"$set": {"outbox_at": past}})

    with relay(amqp_uri):
        assert wait_until(lambda: waiting() == 0, 60)
    assert drained(heard) == ["profiles/a"]


def test_a_fact_added_while_publishing_stays_for_the_next_round(empty_things, amqp_uri, heard):
    thing = Thing(id="a")
    records.insert(thing, [fact("a", 1)])
    with relay(amqp_uri, started=False) as stopped:
        publish = stopped._publisher.publish

        def write_meanwhile(messages):
            if thing.version == 1:
                records.replace(thing, [fact("a", 2)])
            return publish(messages)

        stopped._publisher.publish = write_meanwhile
        stopped.publish_waiting(datetime.now(UTC) - timedelta(microseconds=1))
        [row] = Thing._get_collection().find({}, {"outbox": 1, "outbox_at": 1})

        assert [entry["version"] for entry in row["outbox"]] == [2]
        stopped.publish_waiting(datetime.now(UTC))
        assert waiting() == 0
        assert "outbox_at" not in Thing._get_collection().find_one({"_id": "a"})


def test_a_fact_nobody_listens_to_does_not_wait_for_ever(empty_things, amqp_uri):
    records.insert(Thing(id="a"), [Fact(ProfilesMerged(profile_id="a"), "profiles/a", 1)])

    with relay(amqp_uri, started=False) as stopped:
        assert stopped.publish_waiting(datetime.now(UTC)) == 1
    assert waiting() == 0


def test_a_deleted_queue_is_declared_again_and_the_fact_published(empty_things, amqp_uri, heard):
    with relay(amqp_uri):
        records.insert(Thing(id="a"), [fact("a")])
        assert wait_until(lambda: waiting() == 0, 60)
        heard.queue_delete(HEARD.queue)
        records.insert(Thing(id="b"), [fact("b")])

        assert wait_until(lambda: waiting() == 0, 60)
        assert drained(heard) == ["profiles/b"]


def test_all_that_waits_leaves_in_one_round(empty_things, amqp_uri):
    batch = uuid.uuid4().hex
    records.bulk_write([(Thing(id=f"{batch}{n}"), [fact(str(n))]) for n in range(2000)])
    with relay(amqp_uri, started=False) as stopped:
        assert stopped.publish_waiting(datetime.now(UTC)) == 2000
        assert stopped.publish_waiting(datetime.now(UTC)) == 0


def test_facts_wait_while_the_broker_is_down_and_writers_do_not(empty_things, tmp_path: Path):
    server = new_rabbit(tmp_path / "rabbit", "pw")
    with contextlib.ExitStack() as stack:
        broker = stack.enter_context(running(server, tmp_path / "log", 90))
        stack.enter_context(relay(server.uri))
        records.insert(Thing(id="before"), [fact("before")])
        assert wait_until(lambda: waiting() == 0, 60)
        os.killpg(broker.pid, signal.SIGKILL)
        began = time.perf_counter()
        for number in range(20):
            records.insert(Thing(id=str(number)), [fact(str(number))])
        took = time.perf_counter() - began

        assert took < 5
        assert waiting() == 20
        server.tidy()
        stack.enter_context(running(server, tmp_path / "log", 90))
        assert wait_until(lambda: waiting() == 0, 30)
