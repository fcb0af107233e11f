"""Events are handled, or tried again, or parked; none is lost, none is shown in a log."""

from __future__ import annotations

import contextlib
import importlib
import json
import os
import signal
import subprocess
import sys
import uuid
from collections.abc import Iterator, Sequence
from datetime import UTC, datetime
from pathlib import Path

import pytest
from kehu.profiles.v1.events_pb2 import ProfileChanged

from infra.processes import Command, running, spawn, stop, wait_until
from infra.servers import Rabbit, new_rabbit
from services.chassis.consuming import topology
from services.chassis.consuming.contract import BODY_LIMIT, PoisonedEvent, Subscription, decode, handlers, snake_case
from services.chassis.consuming.deadletters import list_dead, replay
from services.chassis.consuming.publishing import ConfirmingPublisher, Outgoing
from services.chassis.records import Fact

ROOT = Path(__file__).parent.parent.parent
CHANGED = Subscription("recorder", "profiles", "profile_changed")
MERGED = Subscription("recorder", "profiles", "profiles_merged")
NOW = datetime(2026, 11, 21, tzinfo=UTC)


def body(subject: str, version: int = 1) -> bytes:
    message = ProfileChanged(profile_id=subject.partition("/")[2], version=version)
    return json.dumps(Fact(message, subject, version).entry(NOW)).encode()


def changed(subject: str, version: int = 1) -> Outgoing:
    return Outgoing("profiles.events", "profile_changed", body(subject, version))


class Process:
    """The consumer process of a test, and what it wrote."""

    def __init__(self, amqp_uri: str, folder: Path) -> None:
        self.file, self.log = folder / "calls", folder / "log"
        self.file.touch()
        self._argv = (sys.executable, str(ROOT / "tests/chassis/consumer_process.py"), amqp_uri, str(self.file))
        self.start()

    def start(self) -> None:
        path = os.pathsep.join((str(ROOT), str(ROOT / "proto")))
        self.process = spawn(Command(self._argv, {**os.environ, "PYTHONPATH": path}), self.log)

    def lines(self) -> list[str]:
        return self.file.read_text().splitlines()

    def waits_for(self, line: str, times: int = 1, seconds: float = 30) -> bool:
        return wait_until(lambda: self.lines().count(line) >= times, seconds)


@contextlib.contextmanager
def consumer(amqp_uri: str, folder: Path) -> Iterator[Process]:
    process = Process(amqp_uri, folder)
    try:
        yield process
    finally:
        stop(process.process)


@pytest.fixture
def publisher(amqp_uri: str) -> Iterator[ConfirmingPublisher]:
    with contextlib.closing(ConfirmingPublisher(amqp_uri, [CHANGED, MERGED])) as opened:
        opened.publish([])
        for subscription in (CHANGED, MERGED):
            opened._open().queue_purge(subscription.queue)
            opened._open().queue_purge(subscription.dead_queue)
        yield opened


def dead(amqp_uri: str) -> Sequence[tuple[str, str, int]]:
    return sorted((letter.error, letter.subject, letter.attempts) for letter in list_dead(amqp_uri, [CHANGED, MERGED]))


def test_poisoned_events_of_every_kind_are_parked_and_others_flow(amqp_uri, publisher, tmp_path):
    wrong_type = body("profiles/x").replace(b"ProfileChanged", b"ProfilesMerged")
    bad_field = body("profiles/x").replace(b'"version": "1"', b'"version": "one"')
    poisons = [b"{no json", b"\x80\x04\x95pickle", wrong_type, bad_field, b" " * (BODY_LIMIT + 1)]
    with consumer(amqp_uri, tmp_path) as process:
        publisher.publish([Outgoing("", CHANGED.queue, poison) for poison in poisons])
        publisher.publish([changed("profiles/poison"), changed("profiles/good")])

        assert process.waits_for("handled profiles/good 1")
        assert process.waits_for("called profiles/poison 1", times=4)
        assert wait_until(lambda: len(dead(amqp_uri)) == 6, 60)
        assert sorted([("NotJson", "", 1)] * 2 + [("TooLarge", "", 1), ("ValueError", "profiles/poison", 4)]) == sorted(
            letter for letter in dead(amqp_uri) if letter[0] in ("NotJson", "TooLarge", "ValueError")
        )
        assert "13800138000" not in process.log.read_text()


def test_a_parked_event_comes_back_when_replayed(amqp_uri, publisher, tmp_path):
    publisher.publish([Outgoing("", CHANGED.dead_queue, body(f"profiles/{name}")) for name in ("a", "b")])

    replayed = replay(amqp_uri, lambda letter: letter.subject == "profiles/a", [CHANGED])

    with consumer(amqp_uri, tmp_path) as process:
        assert replayed == 1
        assert process.waits_for("handled profiles/a 1")
        assert [letter[1] for letter in dead(amqp_uri)] == ["profiles/b"]


def test_a_replay_of_what_is_parked_again_at_once_comes_to_an_end(amqp_uri, publisher):
    parked = Outgoing("", CHANGED.dead_queue, b"{no json")
    publisher.publish([parked, parked])
    left = [parked] * 20

    def parked_again(letter: object) -> bool:  # by a consumer that is as fast as the operator
        return publisher.publish([left.pop()] if left else []).all_routed

    assert replay(amqp_uri, parked_again, [CHANGED]) == 2


def test_an_outage_of_others_does_not_use_up_the_tries(amqp_uri, publisher, tmp_path):
    with consumer(amqp_uri, tmp_path) as process:
        publisher.publish([changed("profiles/outage")])

        assert process.waits_for("handled profiles/outage 1")
        assert process.lines().count("called profiles/outage 1") == 6
        assert dead(amqp_uri) == []


def test_a_killed_consumer_loses_nothing(amqp_uri, publisher, tmp_path):
    subjects = [f"profiles/slow{n}" for n in range(20)]
    with consumer(amqp_uri, tmp_path) as process:
        publisher.publish([changed(subject) for subject in subjects])
        assert wait_until(lambda: len(process.lines()) >= 5, 60)
        os.kill(process.process.pid, signal.SIGKILL)
        process.process.wait()
        process.start()

        assert wait_until(lambda: {f"handled {s} 1" for s in subjects} <= set(process.lines()), 40)


def test_a_stopping_consumer_finishes_what_it_began(amqp_uri, publisher, tmp_path):
    with consumer(amqp_uri, tmp_path) as process:
        publisher.publish([changed("profiles/slow")])
        assert process.waits_for("called profiles/slow 1")
        process.process.terminate()
        code = process.process.wait(20)

    assert code == 0
    assert "handled profiles/slow 1" in process.lines()


def test_confirmed_events_survive_a_killed_broker(tmp_path):
    server: Rabbit = new_rabbit(tmp_path / "rabbit", "pw")
    sent = 0
    with contextlib.ExitStack() as stack:
        first = stack.enter_context(running(server, tmp_path / "rabbit.log", 90))
        process = stack.enter_context(consumer(server.uri, tmp_path))
        publisher = stack.enter_context(contextlib.closing(ConfirmingPublisher(server.uri, [CHANGED, MERGED])))
        for number in range(300):
            sent += publisher.publish([changed(f"profiles/{number}")]).all_routed
        os.killpg(first.pid, signal.SIGKILL)
        with pytest.raises(OSError):
            publisher.publish([changed("profiles/late")])
        server.tidy()
        stack.enter_context(running(server, tmp_path / "rabbit.log", 90))
        publisher.publish([changed("profiles/late")])

        assert sent == 300
        assert process.waits_for("handled profiles/late 1", seconds=40)
        handled = set(process.lines())
        assert [n for n in range(300) if f"handled profiles/{n} 1" not in handled] == []


def test_a_handler_never_runs_on_the_hub_even_while_another_one_imports(amqp_uri, publisher, tmp_path):
    with consumer(amqp_uri, tmp_path) as process:
        publisher.publish([changed("profiles/importing")])
        assert process.waits_for("called profiles/importing 1")
        publisher.publish([changed(f"profiles/{number}") for number in range(5)])

        assert wait_until(lambda: sum(line.startswith("handled") for line in process.lines()) == 6, 30)
        assert [line for line in process.lines() if line.startswith("on the hub")] == []


def test_decoding_skips_fields_of_a_newer_release():
    envelope = json.loads(body("profiles/a", 7))
    envelope["data"]["not_yet_known"] = 1

    event = decode(json.dumps(envelope).encode(), ProfileChanged)

    assert (event.subject, event.version, event.message.version) == ("profiles/a", 7, 7)


@pytest.mark.parametrize("bad", [b"[]", b"null", b"[" * 100_000, b"\xff\xfe"])
def test_what_is_no_cloud_event_is_refused(bad):
    with pytest.raises(PoisonedEvent):
        decode(bad, ProfileChanged)


def test_the_topology_read_from_the_sources_is_what_the_classes_say():
    read = set(topology.known_subscriptions())
    said = set()
    for path in sorted((ROOT / "services").glob("*/events.py")):
        module = importlib.import_module(f"services.{path.parent.name}.events")
        for item in vars(module).values():
            if isinstance(item, type) and item.__module__ == module.__name__ and hasattr(item, "name"):
                said |= set(handlers(item.__new__(item)))

    assert read == said


def test_a_message_class_gives_its_routing_key():
    assert snake_case("ProfilesMerged") == "profiles_merged"


def test_a_fact_nobody_listens_to_is_reported_unroutable(publisher):
    taken = publisher.publish([changed("profiles/a"), Outgoing("profiles.events", uuid.uuid4().hex, b"{}")])

    assert (taken.confirmed, taken.unroutable) == ({0, 1}, {1})


def test_a_consumer_whose_hub_stands_still_ends_so_that_it_is_started_again():
    script = """
import eventlet
eventlet.monkey_patch(thread=False)
from services.chassis.consuming import worker
worker.HUB_PATIENCE_SECONDS = 3.0
worker._watch_the_hub()
eventlet.sleep(5)
print("alive", flush=True)
eventlet.patcher.original("time").sleep(30)
"""
    out = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, timeout=25)

    assert (os.EX_TEMPFAIL, "alive\n") == (out.returncode, out.stdout)
