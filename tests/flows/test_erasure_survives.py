"""Whatever is killed while a person is erased: they are gone everywhere, and no event of before brings them back."""

from __future__ import annotations

import json
from contextlib import closing, suppress
from datetime import UTC, datetime
from pathlib import Path

import pymongo
import pytest
from kehu.client import KehuProblem
from kehu.profiles.v1.events_pb2 import ProfileChanged, ProfileIdentity, ProfilesMerged

from infra.processes import wait_until
from services.chassis.consuming.contract import Subscription
from services.chassis.consuming.publishing import ConfirmingPublisher, Outgoing
from services.chassis.crypto import Sealer
from services.chassis.records import Fact
from tests.flows.people import Customer, customers, upsert

pytestmark = [pytest.mark.flow, pytest.mark.timeout(300)]
VICTIMS = ("work", "profiles", "mongo", "rabbitmq", "consume", "search", "tickets", "analytics")


class Planted:
    """One of two people who came together: with a ticket and a purchase."""

    def __init__(self, stack, till, customer: Customer) -> None:
        self.stack, self.till, self.customer = stack, till, customer
        [self.profile_id] = upsert(till, [customer])
        self.name = f"profiles/{self.profile_id}"
        ticket = {"kind": "TICKET_KIND_COMPLAINT", "profile": self.name, "channel": "CHANNEL_PHONE",
                  "subject": f"words of {customer.card}", "description": "more words"}  # fmt: skip
        agent = stack.sign_ins.department("service", "service")
        self.ticket = str(agent.post("/v1/tickets", ticket)["name"]).removeprefix("tickets/")
        bought = {"profile": self.name, "message_id": customer.card, "event_type": "order_completed",
                  "event_time": datetime.now(UTC).isoformat(), "amount_cents": "100"}  # fmt: skip
        stack.analyst.post("/v1/interactions:batchCreate", {"interactions": [bought]})
        assert wait_until(self.is_known_everywhere, 60, 0.2)

    def places(self) -> set[str]:
        """Return where the person still is."""
        return {name for name, holds in (
            ("profiles", self._in_profiles()),
            ("index", self.name in self.stack.found(self.customer.phone)),
            ("tickets", self._in_tickets()),
            ("lake", self._in_lake()),
        ) if holds}  # fmt: skip

    def is_known_everywhere(self) -> bool:
        return self.places() == {"profiles", "index", "tickets", "lake"}

    def _in_profiles(self) -> bool:
        with suppress(KehuProblem):
            return bool(self.till.get(f"/v1/{self.name}")["name"])
        return False

    def _in_tickets(self) -> bool:
        with pymongo.MongoClient(self.stack.running.environment["KEHU_MONGO_URI"]) as client:
            return bool(client["kehu_tickets"]["tickets"].count_documents({"profile_id": self.profile_id}))

    def _in_lake(self) -> bool:
        rows = Path(self.stack.folder / "lake" / "interactions").rglob("*.parquet")
        with suppress(FileNotFoundError):
            return any(self.profile_id.encode() in path.read_bytes() for path in rows)
        return True


@pytest.mark.parametrize("victim", VICTIMS)
def test_a_process_may_be_killed_while_a_person_is_erased(whole_stack, till, victim):
    gone, stays = (Planted(whole_stack, till, each) for each in customers(2, 300_000 + 10 * VICTIMS.index(victim)))
    operation = till.post(f"/v1/{gone.name}:erase", {"reason": f"DSR-{victim}"})
    whole_stack.kill(victim)
    receipt = till.wait_operation(operation)

    assert receipt["erase_time"] and int(receipt["records"]) == 1
    assert wait_until(lambda: gone.places() == set(), 90, 0.5), f"still in {gone.places()}"
    assert stays.is_known_everywhere()


def test_events_of_before_an_erasure_that_come_after_it_bring_nobody_back(whole_stack, till):
    gone, other = (Planted(whole_stack, till, each) for each in customers(2, 310_000))
    till.wait_operation(till.post(f"/v1/{gone.name}:erase", {"reason": "DSR-old"}))
    assert wait_until(lambda: gone.places() == set(), 90, 0.5)

    identity = ProfileIdentity(display_name=gone.customer.name, phones=["+86" + gone.customer.phone])
    sealed = Sealer("events", whole_stack.folder / "keys").seal(identity.SerializeToString())
    state = ProfileChanged(profile_id=gone.profile_id, version=1, sealed_identity=sealed, owner_department="sales")
    merge = ProfilesMerged(profile_id=gone.profile_id, merged_profile_id="0" * 32)
    for message, key in ((state, "profile_changed"), (merge, "profiles_merged")):
        message.event_time.FromDatetime(datetime.now(UTC))
        put(whole_stack, key, Fact(message, gone.name, 1))
    upsert(till, [other.customer, *customers(1, 310_005)])
    [late] = customers(1, 310_005)
    assert wait_until(lambda: whole_stack.found(late.phone) != [], 60, 0.2), "later events are handled"

    assert gone.places() == set()
    assert till.post("/v1/sources/till/records:batchUpsert", {"records": [
        {"source_record_id": gone.customer.card, "fields": {"name": gone.customer.name, "phone": gone.customer.phone}},
    ]})["results"][0].get("profile", "") == ""  # fmt: skip
    operation = whole_stack.administrator.post("/v1/index:rebuild", {})
    whole_stack.administrator.wait_operation(operation)
    put(whole_stack, "profile_changed", Fact(state, gone.name, 1))
    assert not wait_until(lambda: gone.places() != set(), 5, 0.5)


def put(stack, event: str, fact: Fact) -> None:
    body = json.dumps(fact.entry(datetime.now(UTC))).encode()
    with closing(ConfirmingPublisher(stack.amqp_uri)) as publisher:
        assert publisher.publish([Outgoing(Subscription("search", "profiles", event).exchange, event, body)]).all_routed
