"""Somebody to whom one record was lent, by the real policy, through access, profiles and tickets as they are served."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import dataclass, replace
from datetime import timedelta
from pathlib import Path
from typing import Any

import grpc
import pytest
from kehu.access.v1 import shares_pb2 as shares
from kehu.profiles.v1 import export_pb2, profiles_pb2, profiles_pb2_grpc, relations_pb2, reveal_pb2
from kehu.profiles.v1 import shares_pb2 as profile_shares
from kehu.tickets.v1 import shares_pb2 as ticket_shares
from kehu.tickets.v1 import tickets_pb2, tickets_pb2_grpc

from services.access.domain.policies import Policy
from services.access.domain.principals import Principal
from services.chassis.access import RowFilter, SnapshotHolder, wire
from services.chassis.crypto import Sealer
from services.chassis.server import Serving
from services.chassis.server.lending import Lending
from services.profiles.api import ProfilesServicer
from services.tickets.api import TicketsServicer
from services.tickets.store import Facts
from services.tickets.store.memory import MemoryTicketsStore
from tests.access.world import World, running_world
from tests.harness import Harness, refused, running
from tests.profiles.people import Service, batch, person, source_request

ANN, BO, STAN, CY = "user:ann@service", "user:bo@marketing", "user:stan@data-office", "user:cy@marketing"
PURPOSES = {ANN: "service", BO: "marketing", STAN: "stewardship", CY: "marketing"}
OWN_ROWS = ("role:agent", "role:marketer")  # of profiles reach those of their department


@dataclass
class Firm:
    """The three services, with people of theirs and of others."""

    access: World
    holder: SnapshotHolder
    profiles: Harness
    tickets: Harness
    of_service: str = ""
    other: str = ""
    of_marketing: str = ""

    def __post_init__(self) -> None:
        for source, department in (("desk", "service"), ("shop", "marketing")):
            self.call(STAN, "CreateSource", source_request(source, owner_department=department))
        upserted = [("desk", "1", 1), ("desk", "2", 2), ("shop", "3", 3)]
        names = [
            self.call(STAN, "BatchUpsertRecords", batch(source, (record, person(number)))).results[0].profile
            for source, record, number in upserted
        ]
        self.of_service, self.other, self.of_marketing = names

    def call(self, who: str, method: str, request: Any, purpose: str | None = None) -> Any:
        """Call profiles or tickets after each process had its next look at access."""
        self.look()
        where, stub = (self.profiles, profiles_pb2_grpc.ProfilesServiceStub)
        if hasattr(tickets_pb2_grpc.TicketsServiceServicer, method):
            where, stub = (self.tickets, tickets_pb2_grpc.TicketsServiceStub)
        found = where.stub(stub, caller=who, purpose=PURPOSES[who] if purpose is None else purpose)
        return getattr(found, method)(request, timeout=20)

    def look(self) -> None:
        """Fetch what is new."""
        self.access.clock.forward(0.25)
        stub, known = self.access.stub("", peer="profiles"), self.holder.known
        found = wire.updated(known, stub.GetPolicySnapshot(wire.request_for(known), timeout=5)) or known
        assert found is not None
        self.holder.swap(found.at(self.access.clock.time.timestamp()))

    def lend(self, who: str, name: str, **terms: Any) -> shares.Share:
        """Lend a record to Bo for marketing, for a day."""
        made = shares.ShareTerms(**{"borrower": "user:bo", "purpose": "marketing", "reason": "joint campaign", **terms})
        made.end_time.FromDatetime(self.access.clock.time + timedelta(days=1))
        if name.startswith("tickets/"):
            return self.call(who, "ShareTicket", ticket_shares.ShareTicketRequest(name=name, terms=made))
        return self.call(who, "ShareProfile", profile_shares.ShareProfileRequest(name=name, terms=made))

    def end(self, who: str, share: shares.Share) -> None:
        """Take it back, or return it."""
        self.access.stub(who).RevokeShare(shares.RevokeShareRequest(share_id=share.name[7:]), timeout=5)

    def listed(self, who: str, **asked: Any) -> set[str]:
        """Return the names of all profiles that somebody lists, read one at a time."""
        found: list[str] = []
        token = ""
        while True:
            request = profiles_pb2.ListProfilesRequest(page_size=1, page_token=token, **asked)
            page = self.call(who, "ListProfiles", request)
            found += [profile.name for profile in page.profiles]
            token = page.next_page_token
            if not token:
                assert found == sorted(set(found))
                return set(found)

    def sees(self, who: str, name: str, purpose: str | None = None) -> bool:
        """Tell whether somebody reads a profile; if not, it is answered like none at all."""
        try:
            return bool(self.call(who, "GetProfile", profiles_pb2.GetProfileRequest(name=name), purpose).name)
        except grpc.RpcError as error:
            assert error.code() == grpc.StatusCode.NOT_FOUND
            return False


@pytest.fixture
def firm(tmp_path: Path) -> Iterator[Firm]:
    with ExitStack() as stack:
        access = stack.enter_context(running_world())
        people = [("ann", "service", ("role:agent",)), ("bo", "marketing", ("role:marketer", "role:borrower")),
                  ("cy", "marketing", ("role:marketer",)), ("stan", "data-office", ("role:steward",))]  # fmt: skip
        for login, department, roles in people:
            access.context.principals.insert(Principal("user", login, department, roles, "x"))
        content = access.context.directory.policy.content
        narrow = tuple(RowFilter(role, "*", "profiles", "owner_department", ("$department",)) for role in OWN_ROWS)
        mine = RowFilter("role:agent", "*", "tickets", "department", ("$department",))
        narrowed = replace(content, row_filters=(*content.row_filters, *narrow, mine))
        access.context.policies.insert(Policy("narrow", "published", 2, 1, "rows", narrowed, "user:root"))
        access.context.directory.refresh(at_once=True)
        holder, service = SnapshotHolder(), Service(tmp_path / "keys")
        lend = [Lending(access.stub("", peer=peer, purpose="")) for peer in ("profiles", "tickets")]
        tools = replace(service.tools, lending=lend[0])
        add = profiles_pb2_grpc.add_ProfilesServiceServicer_to_server
        profiles = Serving("profiles", [(add, ProfilesServicer(tools))], jobs=service.jobs)
        store = MemoryTicketsStore(Facts(Sealer("events", tmp_path)))
        add = tickets_pb2_grpc.add_TicketsServiceServicer_to_server
        tickets = Serving("tickets", [(add, TicketsServicer(store, lending=lend[1]))])
        served = [stack.enter_context(running(each, holder)) for each in (profiles, tickets)]  # type: ignore[arg-type]
        yield Firm(access, holder, *served)


def test_a_profile_that_is_lent_is_read_and_listed_with_the_borrowers_own_masks_until_it_is_taken_back(
    firm: Firm,
) -> None:
    before = firm.listed(BO)
    share = firm.lend(ANN, firm.of_service)
    during, of_cy = firm.listed(BO), firm.listed(CY)
    seen = firm.call(BO, "GetProfile", profiles_pb2.GetProfileRequest(name=firm.of_service))
    unmasked = firm.call(ANN, "GetProfile", profiles_pb2.GetProfileRequest(name=firm.of_service))
    own = firm.call(BO, "GetProfile", profiles_pb2.GetProfileRequest(name=firm.of_marketing))
    firm.end(ANN, share)

    assert before == of_cy == {firm.of_marketing}
    assert during == {firm.of_marketing, firm.of_service}
    assert unmasked.phones[0] == f"+86{person(1)['phone']}"
    assert "****" in seen.phones[0] and "****" in own.phones[0]
    assert not firm.sees(BO, firm.of_service)
    assert firm.listed(BO) == before


def test_what_is_lent_is_listed_within_the_department_asked_for(firm: Firm) -> None:
    firm.lend(ANN, firm.of_service)

    assert firm.listed(BO, owner_department="service") == {firm.of_service}
    assert firm.listed(BO, owner_department="marketing") == {firm.of_marketing}
    assert firm.listed(BO, owner_department="sales") == set()


def test_a_share_opens_one_record_for_one_purpose_to_one_person(firm: Firm) -> None:
    firm.lend(ANN, firm.of_service)

    assert firm.sees(BO, firm.of_service)
    assert not firm.sees(BO, firm.of_service, purpose="service")
    assert not firm.sees(BO, firm.of_service, purpose="")
    assert not firm.sees(BO, firm.other)
    assert not firm.sees(CY, firm.of_service)


def test_nobody_lends_what_they_do_not_reach_or_have_no_right_to_lend(firm: Firm) -> None:
    firm.lend(ANN, firm.of_service)

    nothing = refused(lambda: firm.lend(ANN, "profiles/" + "0" * 32))
    foreign = refused(lambda: firm.lend(ANN, firm.of_marketing))
    assert (nothing.reason, foreign.reason) == ("PROFILE_NOT_FOUND", "PROFILE_NOT_FOUND")
    assert refused(lambda: firm.lend(BO, firm.of_marketing, borrower="user:ann")).reason == "PERMISSION_DENIED"
    assert refused(lambda: firm.lend(ANN, firm.of_service, purpose="curiosity")).reason == "SHARE_INVALID"


def test_a_borrower_with_the_right_to_lend_does_not_lend_on(firm: Firm) -> None:
    firm.lend(ANN, firm.of_service, borrower="department:sales", purpose="sales")
    firm.access.context.principals.insert(Principal("user", "sam", "sales", ("role:borrower", "role:reseller"), "x"))
    content = firm.access.context.directory.policy.content
    rules = (*content.rules, ("role:reseller", "sales", "profiles", "share", "*", "allow"))
    firm.access.context.policies.insert(
        Policy("lend", "published", 3, 2, "rows", replace(content, rules=rules), "user:root")
    )
    firm.access.context.directory.refresh(at_once=True)
    PURPOSES["user:sam@sales"] = "sales"

    assert firm.sees("user:sam@sales", firm.of_service)
    assert refused(lambda: firm.lend("user:sam@sales", firm.of_service)).reason in (
        "PROFILE_NOT_FOUND",
        "ROWS_NOT_NARROWED",
    )


def test_a_share_ends_with_the_lenders_own_sight(firm: Firm) -> None:
    firm.lend(ANN, firm.of_service)
    assert firm.sees(BO, firm.of_service)
    ann = firm.access.context.principals.get("user-ann")
    assert ann is not None

    moved = firm.access.context.principals.save(replace(ann, department="sales"))
    assert not firm.sees(BO, firm.of_service)
    back = firm.access.context.principals.save(replace(moved, department="service"))
    assert firm.sees(BO, firm.of_service)
    firm.access.context.principals.save(replace(back, enabled=False))
    assert not firm.sees(BO, firm.of_service)


def test_what_changes_or_takes_out_or_is_of_others_is_not_opened_by_a_share(firm: Firm) -> None:
    """Bo may do all of this with what is his own."""
    content = firm.access.context.directory.policy.content
    rules = (*content.rules, *(("role:marketer", "*", kind, "*", "*", "allow") for kind in ("profiles", "exports")))
    firm.access.context.policies.insert(
        Policy("more", "published", 3, 2, "rows", replace(content, rules=rules), "user:root")
    )
    firm.lend(ANN, firm.of_service)

    def attempts(name: str) -> dict[str, Any]:
        override = profiles_pb2.CreateOverrideRequest(parent=name, field="owner_department", value="sales", reason="r")
        override.expire_time.GetCurrentTime()
        override.expire_time.seconds += 3600
        return {
            "GetNetwork": relations_pb2.GetNetworkRequest(name=name, depth=1, channel="email"),
            "ListRelationships": relations_pb2.ListRelationshipsRequest(parent=name),
            "CreateOverride": override,
        }

    for method, request in attempts(firm.of_service).items():
        with pytest.raises(grpc.RpcError) as caught:
            firm.call(BO, method, request)
        assert caught.value.code() == grpc.StatusCode.NOT_FOUND, method
    assert firm.sees(BO, firm.of_service)
    for method in ("ListRelationships", "CreateOverride"):
        firm.call(BO, method, attempts(firm.of_marketing)[method])
    of_service = export_pb2.ExportProfilesRequest(owner_department="service")
    assert refused(lambda: firm.call(BO, "ExportProfiles", of_service)).reason == "PERMISSION_DENIED"
    revealed = reveal_pb2.RevealFieldRequest(
        name=firm.of_service, field="phone", reason_code="REASON_CODE_IDENTITY_CHECK", reason="T20261122-000017"
    )
    with pytest.raises(grpc.RpcError):  # the role shows masks and reveals nothing
        firm.call(BO, "RevealField", revealed)


def test_who_lent_and_who_read_is_in_the_trail_with_the_profile(firm: Firm) -> None:
    firm.lend(ANN, firm.of_service)
    firm.call(BO, "GetProfile", profiles_pb2.GetProfileRequest(name=firm.of_service))

    entries = list(zip(firm.profiles.trail.entries, firm.profiles.trail.seen, strict=True))[-2:]

    id = firm.of_service.partition("/")[2]
    assert [(who, path.rpartition("/")[2], seen.profiles) for (who, path, _, _), seen in entries] == [
        ("user:ann", "ShareProfile", (id,)), ("user:bo", "GetProfile", (id,)),
    ]  # fmt: skip
    assert "personal/contact" in entries[1][1].masked


def test_a_ticket_that_is_lent_is_read_and_listed_and_nothing_else_is_done_with_it(firm: Firm) -> None:
    def opened(subject: str) -> str:
        ticket = tickets_pb2.Ticket(kind=tickets_pb2.TICKET_KIND_COMPLAINT, subject=subject)
        return firm.call(ANN, "CreateTicket", tickets_pb2.CreateTicketRequest(ticket=ticket)).name

    lent, kept = opened("包装破损"), opened("发票")
    listed = tickets_pb2.ListTicketsRequest()
    assert list(firm.call(BO, "ListTickets", listed).tickets) == []
    share = firm.lend(ANN, lent)

    assert [each.name for each in firm.call(BO, "ListTickets", listed).tickets] == [lent]
    seen = firm.call(BO, "GetTicket", tickets_pb2.GetTicketRequest(name=lent))
    firm.call(BO, "ListComments", tickets_pb2.ListCommentsRequest(parent=lent))
    assert (seen.name, seen.subject) == (lent, "")
    assert (
        refused(lambda: firm.call(BO, "GetTicket", tickets_pb2.GetTicketRequest(name=kept))).reason
        == "TICKETS_NOT_FOUND"
    )
    assert (
        refused(lambda: firm.call(BO, "ResolveTicket", tickets_pb2.ResolveTicketRequest(name=lent))).reason
        == "PERMISSION_DENIED"
    )
    assert refused(lambda: firm.lend(ANN, "tickets/" + "0" * 32)).reason == "TICKETS_NOT_FOUND"
    firm.end(BO, share)
    assert list(firm.call(BO, "ListTickets", listed).tickets) == []
