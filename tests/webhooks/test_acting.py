"""What a service may read for an app it names: what the app may read at that moment, as the owner decides."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from dataclasses import dataclass, field, replace

import grpc
import pytest
from kehu.tickets.v1 import tickets_pb2 as tickets
from kehu.tickets.v1 import tickets_pb2_grpc

from services.chassis.access import MODEL, Caller, PolicySnapshot, RowFilter
from services.chassis.access.holder import SnapshotHolder
from services.chassis.errors import NotFound, Unavailable
from services.chassis.server import Guard, Serving, build_server, plans_by_path, service_names
from services.webhooks.domain.catalogue import catalogue
from services.webhooks.domain.subscriptions import Secret, Subscription
from services.webhooks.reading import Reader, Unreadable
from tests.harness import TODAY, MemoryTrail, StatedTokens, stated_peer

RULES = [
    ("role:agent", "service", "tickets", "read", "*", "allow"),
    ("role:agent", "service", "fields/personal/content", "show", "service", "allow"),
    ("role:masked", "service", "tickets", "read", "*", "allow"),
    ("role:masked", "service", "fields/personal/content", "mask", "service", "allow"),
    ("app:bare", "service", "tickets", "read", "*", "allow"),
]
LINKS = [
    ("app:desk", "role:agent", "service"),
    ("app:shy", "role:masked", "service"),
    ("app:out", "role:agent", "sales"),
]
WANTED = {"number", "subject", "department"}


class Owner(tickets_pb2_grpc.TicketsServiceServicer):
    """Knows one ticket."""

    fails, knows = False, True

    def GetTicket(self, request: tickets.GetTicketRequest, context: grpc.ServicerContext) -> tickets.Ticket:
        if self.fails:
            raise ZeroDivisionError
        if not self.knows:
            raise NotFound("no ticket has this name")
        return tickets.Ticket(
            name=request.name, number="T1", subject="牛奶变质", department="service", profile="profiles/p1"
        )


class As:
    """Channels to the owner, as a service by certificate."""

    def __init__(self, address: str, peer: str) -> None:
        self._channel = grpc.insecure_channel(address)
        self._peer = peer

    def to(self, peer: str, names: list[str]) -> As:
        return self

    def unary_unary(self, path: str, **how: object) -> object:
        call = self._channel.unary_unary(path, **how)
        return lambda request, timeout, metadata: call(
            request, timeout=timeout, metadata=[*metadata, ("x-test-peer", self._peer)]
        )


@dataclass
class World:
    address: str
    holder: SnapshotHolder
    trail: MemoryTrail = field(default_factory=MemoryTrail)

    def policy(self, rules: list = RULES, links: list = LINKS, filters: tuple = ()) -> None:
        self.holder.swap(PolicySnapshot(1, MODEL, rules, links, filters))

    def read(self, app: str, department: str = "service", purpose: str = "service", fields: set = WANTED,
             peer: str = "webhooks") -> object:  # fmt: skip
        subscription = Subscription("a" * 32, app, department, purpose, "", (), (Secret(b""),))
        reader = Reader(As(self.address, peer))  # type: ignore[arg-type]
        return reader(subscription, catalogue()["tickets.ticket_changed"], "tickets/t1", fields, "d1")


@pytest.fixture
def world() -> Iterator[World]:
    serving = Serving("tickets", [(tickets_pb2_grpc.add_TicketsServiceServicer_to_server, Owner())])
    found = World("", SnapshotHolder())
    guard = Guard("tickets", plans_by_path(service_names(serving)), found.holder, StatedTokens(), found.trail,
                  stated_peer, lambda: TODAY)  # fmt: skip
    server = build_server(serving, guard, threads=4)
    found.address = f"127.0.0.1:{server.add_insecure_port('127.0.0.1:0')}"
    server.start()
    found.policy()
    yield found
    server.stop(0).wait()


def test_an_app_is_read_for_with_its_own_fields_and_masks(world: World) -> None:
    assert world.read("app:desk").subject == "牛奶变质"
    assert world.read("app:shy").subject == "***"
    assert world.read("app:desk", purpose="marketing").subject == "", "no right for that purpose: hidden"


def test_only_what_was_asked_for_comes_and_only_that_is_in_the_entry(world: World) -> None:
    thin = world.read("app:desk", fields=set())
    named = world.read("app:desk", fields={"number"})
    whole = world.read("app:desk")

    assert thin == tickets.Ticket()
    assert named == tickets.Ticket(number="T1")
    assert [each.shown for each in world.trail.seen] == [(), (), ("personal/content",)]
    assert whole.subject
    assert {entry[0] for entry in world.trail.entries} == {"app:desk"}


@pytest.mark.parametrize(
    ("app", "department"),
    [
        ("app:nobody", "service"),
        ("app:desk", "sales"),
        ("app:desk", ""),
        ("app:out", "service"),
        ("app:bare", "service"),
    ],
)
def test_an_app_without_a_role_in_that_department_is_not_read_for(world: World, app: str, department: str) -> None:
    """Disabled, moved or unknown: none has a role there; a rule for the app by its own name does not revive it."""
    assert world.read(app, department) is None


def test_a_right_that_is_taken_away_ends_at_once(world: World) -> None:
    assert world.read("app:desk") is not None
    world.policy(links=[])
    assert world.read("app:desk") is None
    world.policy(rules=[*RULES, ("role:agent", "service", "tickets", "read", "*", "deny")])
    assert world.read("app:desk") is None
    world.policy(filters=(RowFilter("role:agent", "service", "tickets", "tier", ("gold",)),))
    assert world.read("app:desk") is None, "rows narrowed by what the owner cannot apply are closed"


def test_an_owner_that_fails_at_one_record_is_told_from_one_that_does_not_answer(world: World, monkeypatch) -> None:
    monkeypatch.setattr(Owner, "fails", True)
    with pytest.raises(Unreadable):
        world.read("app:desk")
    world.address = "127.0.0.1:1"
    with pytest.raises(Unavailable):
        world.read("app:desk")


def test_an_end_is_told_to_who_may_read_such_records_and_only_once_the_record_is_gone(
    world: World, monkeypatch
) -> None:
    ending = {"tickets.ticket_changed": replace(catalogue()["tickets.ticket_changed"], ends=True)}
    monkeypatch.setattr("tests.webhooks.test_acting.catalogue", lambda: ending)
    assert world.read("app:desk") is None, "it can still be read: nothing ended"

    monkeypatch.setattr(Owner, "knows", False)
    assert world.read("app:desk") == tickets.Ticket()
    assert world.read("app:nobody") is None
    world.policy(links=[])
    assert world.read("app:desk") is None


@pytest.mark.parametrize("peer", ["gateway", "search", "marketing", "tickets"])
def test_no_other_process_may_name_an_app(world: World, peer: str) -> None:
    found = None
    with contextlib.suppress(Unavailable):
        found = world.read("app:desk", peer=peer)

    assert found is None
    assert all(subject != "app:desk" for subject, *_ in world.trail.entries)


@pytest.mark.parametrize("subject", ["user:root", "svc:tickets", "", "desk"])
def test_nobody_but_an_app_can_be_named(world: World, subject: str) -> None:
    world.policy(links=[*LINKS, (subject or "none", "role:agent", "service")])

    assert world.read(subject) is None


def test_a_named_app_reaches_only_methods_that_say_so(world: World) -> None:
    stub = tickets_pb2_grpc.TicketsServiceStub(grpc.insecure_channel(world.address))
    world.policy(rules=[*RULES, ("role:agent", "service", "tickets", "*", "*", "allow")])
    metadata = [("x-test-peer", "webhooks"), ("x-acting-for", "app:desk"), ("x-acting-department", "service")]
    with pytest.raises(grpc.RpcError) as caught:
        stub.DeleteTicket(tickets.DeleteTicketRequest(name="tickets/t1"), timeout=5, metadata=metadata)

    assert caught.value.code() is grpc.StatusCode.PERMISSION_DENIED


def test_the_caller_of_an_app_that_signed_in_itself_is_as_before(world: World) -> None:
    assert world.holder.current.names(Caller("app:desk", "app", "service")) == {"app:desk", "role:agent"}
    stub = tickets_pb2_grpc.TicketsServiceStub(grpc.insecure_channel(world.address))
    metadata = [("authorization", "Bearer app:desk@service"), ("x-purpose", "service"), ("x-read-fields", "number"),
                ("x-acting-for", "app:shy"), ("x-acting-department", "service")]  # fmt: skip
    found = stub.GetTicket(tickets.GetTicketRequest(name="tickets/t1"), timeout=5, metadata=metadata)

    assert (found.subject, found.department) == ("牛奶变质", "service")
