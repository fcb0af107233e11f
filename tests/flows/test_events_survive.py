"""The broker may be away, events may be poisoned, late or doubled: the API answers and the index is right."""

from __future__ import annotations

import json
from contextlib import closing
from datetime import UTC, datetime

import pytest
from kehu.profiles.v1.events_pb2 import ProfileChanged

from infra.processes import wait_until
from services.chassis.consuming.contract import Subscription
from services.chassis.consuming.deadletters import list_dead, replay
from services.chassis.consuming.publishing import ConfirmingPublisher, Outgoing
from services.chassis.records import Fact
from tests.flows.people import customers, upsert

pytestmark = [pytest.mark.flow, pytest.mark.timeout(600)]
INDEXING = Subscription("search", "profiles", "profile_changed")


def event(profile_id: str, version: int, **fields: object) -> bytes:
    message = ProfileChanged(profile_id=profile_id, version=version, **fields)
    message.event_time.FromDatetime(datetime.now(UTC))
    return json.dumps(Fact(message, f"profiles/{profile_id}", version).entry(datetime.now(UTC))).encode()


def put(stack, exchange: str, key: str, body: bytes) -> None:
    with closing(ConfirmingPublisher(stack.amqp_uri)) as publisher:
        assert publisher.publish([Outgoing(exchange, key, body)]).all_routed


def test_the_api_answers_while_the_broker_is_away_and_facts_arrive_afterwards(whole_stack, till):
    frozen = whole_stack.freeze("rabbitmq")
    try:
        [person] = customers(1, 200_000)
        [profile_id] = upsert(till, [person])
        assert till.get(f"/v1/profiles/{profile_id}")["display_name"] == person.name
        assert whole_stack.found(person.phone[-8:]) == []
    finally:
        frozen.resume()

    assert wait_until(lambda: whole_stack.found(person.phone[-8:]) == [f"profiles/{profile_id}"], 90, 0.5)


def test_a_killed_broker_loses_no_fact(whole_stack, till):
    people = customers(40, 210_000)
    ids = upsert(till, people[:20])
    whole_stack.kill("rabbitmq")
    ids += upsert(till, people[20:])

    for person, profile_id in zip(people, ids, strict=True):
        found = wait_until(lambda p=person, i=profile_id: f"profiles/{i}" in whole_stack.found(p.phone[-8:]), 90, 0.5)
        assert found, f"profiles/{profile_id} is not in the index"


def test_a_poisoned_event_is_parked_while_others_flow_and_the_operator_replays_it(whole_stack, till):
    replay(whole_stack.amqp_uri, subscriptions=[INDEXING])
    put(whole_stack, INDEXING.exchange, INDEXING.event, event("poisoned", 1, sealed_identity=b"no such seal"))
    [person] = customers(1, 220_000)
    [profile_id] = upsert(till, [person])

    def parked() -> list[str]:
        return [letter.subject for letter in list_dead(whole_stack.amqp_uri, [INDEXING])]

    assert wait_until(lambda: whole_stack.found(person.phone[-8:]) == [f"profiles/{profile_id}"], 30, 0.5)
    assert wait_until(lambda: parked() == ["profiles/poisoned"], 90, 1.0), list_dead(whole_stack.amqp_uri)
    assert replay(whole_stack.amqp_uri, lambda letter: letter.subject == "profiles/poisoned", [INDEXING]) == 1
    assert wait_until(lambda: parked() == ["profiles/poisoned"], 90, 1.0)  # still poisoned: parked again


def test_an_older_event_after_a_newer_one_changes_nothing(whole_stack, till):
    [person] = customers(1, 230_000)
    [profile_id] = upsert(till, [person])
    name = f"profiles/{profile_id}"
    assert wait_until(lambda: whole_stack.found(person.phone[-8:]) == [name], 60, 0.5)

    put(whole_stack, INDEXING.exchange, INDEXING.event, event(profile_id, 0, deleted=True))
    [later] = customers(1, 230_001)
    [later_id] = upsert(till, [later])

    assert wait_until(lambda: whole_stack.found(later.phone[-8:]) == [f"profiles/{later_id}"], 60, 0.5)
    assert whole_stack.found(person.phone[-8:]) == [name]


def test_the_same_event_twice_is_indexed_once(whole_stack, till):
    [person] = customers(1, 240_000)
    [profile_id] = upsert(till, [person])
    assert wait_until(lambda: whole_stack.found(person.phone[-8:]) == [f"profiles/{profile_id}"], 60, 0.5)
    upsert(till, [person])

    assert whole_stack.found(person.phone[-8:]) == [f"profiles/{profile_id}"]
