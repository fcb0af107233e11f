"""Services with things of two departments in them, and a caller whose policy lets them reach those of sales.

A world makes a thing of a kind in a department (`make`), and the request of a method around it (`around`).
"""

from __future__ import annotations

import contextlib
import itertools
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from pathlib import Path

import grpc
from google.protobuf import json_format
from google.protobuf.message import Message
from google.protobuf.message_factory import GetMessageClass
from kehu.consent.v1.consent_pb2_grpc import add_ConsentServiceServicer_to_server
from kehu.profiles.v1 import profiles_pb2_grpc
from kehu.tickets.v1 import tickets_pb2_grpc

from services.access.domain.authenticators import begun, new
from services.access.domain.principals import Principal
from services.access.domain.recertification import Grant, Recertification
from services.access.domain.sessions import opened
from services.access.domain.shares import Lent
from services.access.inventory import descriptors_path, read_inventory
from services.analytics.domain.tables import ALIASES, PROFILES
from services.analytics.lake import Lake, rows_table
from services.analytics.warehouse import Warehouse
from services.chassis.access import Caller, Clause, Condition, Decision, Either, Obligations
from services.chassis.access.shares import LENT_BY
from services.chassis.crypto import Sealer
from services.chassis.jobs import Jobs, MemoryOperations, Worker
from services.chassis.server import Serving
from services.consent.api import ConsentServicer
from services.consent.store import MemoryConsentStore
from services.marketing.api import MarketingServicer
from services.marketing.domain.deliveries import Delivery, DeliveryState, Run, RunState
from services.marketing.operations import CampaignOperations
from services.marketing.optouts import Surroundings
from services.marketing.store_memory import MemoryMarketingStore
from services.profiles.api import ProfilesServicer
from services.profiles.exporting import Exporter
from services.tickets.api import TicketsServicer
from services.tickets.store import Facts
from services.tickets.store.memory import MemoryTicketsStore
from tests.harness import Harness, OpenPolicy, running
from tests.profiles.people import Service, batch, person, source_request
from tests.profiles.quality_world import WEIGHTS, measure

MINE, THEIRS = "sales", "service"
SOURCES = {MINE: ("till", "shop"), THEIRS: ("desk", "counter")}
ME = {MINE: "user:me@sales", THEIRS: "user:other@service"}
NARROWABLE = {resource for resource, fields in read_inventory(descriptors_path()).rows.items()
              if {"owner_department", "department"} & set(fields)}  # fmt: skip
Values = Mapping[str, object]


@dataclass
class NarrowPolicy(OpenPolicy):
    """Allows everything; whoever is of sales reaches the rows of sales of every resource that can be narrowed."""

    narrowed: frozenset[str] = frozenset(NARROWABLE)
    lent: Mapping[str, tuple[str, ...]] = field(default_factory=dict)  # kind → ids of records of another department
    fixed: Obligations | None = None

    def decide(self, caller: Caller, resource: str, action: str, rows_of: Sequence[str] = ()) -> Decision:
        """Answer with the row filters of the resources that the method tells of, as a snapshot does."""
        if self.fixed is not None:
            return Decision(True, "fixed", 1, self.fixed)
        told = [each for each in dict.fromkeys((resource, *rows_of)) if each in self.narrowed]
        rows = tuple(map(self._rows, told)) if caller.department == MINE else ()
        return Decision(True, "sales", 1, Obligations(everything=True, row_filter=rows, revealable=REVEALABLE))

    def _rows(self, resource: str) -> Clause:
        own = Condition("owner_department", (MINE,), resource)
        if resource not in self.lent:
            return own
        return Either(((own,), (Condition(LENT_BY[resource], self.lent[resource], resource),)), resource)


REVEALABLE = frozenset({"personal/contact"})
TERMS = {"borrower": "user:bo", "purpose": "sales", "reason": "asked", "end_time": "2099-01-01T00:00:00Z"}


@dataclass
class World:
    """A running service."""

    harness: Harness
    stub: Callable[[grpc.Channel], object]
    nobody: Mapping[str, str] = field(default_factory=dict)  # kind → a name of nothing
    counter: Iterator[int] = field(default_factory=lambda: itertools.count(1))

    callers = ME

    def call(self, method: str, request: Message, department: str = MINE) -> Message:
        """Call as the person of a department."""
        stub = self.harness.stub(self.stub, caller=self.callers[department])
        return getattr(stub, method)(request, timeout=20)

    def ask(self, method: str, values: Values, department: str = MINE) -> Message:
        """Call with a request written as JSON."""
        return self.call(method, self.request(method, values), department)

    def request(self, method: str, values: Values) -> Message:
        """Return a request."""
        kind = GetMessageClass(self.service().methods_by_name[method].input_type)
        return json_format.ParseDict(values, kind())

    def service(self) -> object:
        """Return the descriptor of the service."""
        from google.protobuf import descriptor_pool

        return descriptor_pool.Default().FindServiceByName(self.full_name)

    full_name = ""

    def make(self, kind: str, department: str) -> str:
        """Make a thing and return its name as requests have it."""
        return getattr(self, kind)(department)

    def around(self, method: str, department: str) -> Values:
        """Return the rest of a request."""
        return {}

    def state(self, kind: str, thing: str) -> object:
        """Return what is stored of a thing, to be compared."""
        return None


def resident_id(number: int) -> str:
    """Return a number of a person of Beijing with its check digit (GB 11643-1999), another for each of 9,000."""
    digits = f"110105{1950 + number % 9}0501{number // 9:03d}"
    return digits + "10X98765432"[sum(int(d) * w for d, w in zip(digits, WEIGHTS, strict=True)) % 11]


def soon() -> str:
    """Return a time to come."""
    return (datetime.now(UTC) + timedelta(days=1)).isoformat()


class Profiles(World):
    """Profiles: two sources of each department."""

    full_name = "kehu.profiles.v1.ProfilesService"
    behind: Service
    holder = ""

    def fill(self) -> None:
        """Add the sources and a rule of quality."""
        for department, names in SOURCES.items():
            for name in names:
                self.call("CreateSource", source_request(name, owner_department=department, is_unique=False))
        rule = {"dimension": "QUALITY_DIMENSION_VALIDITY", "field": "email", "threshold": 0.99}
        self.ask("CreateQualityRule", {"quality_rule": rule, "quality_rule_id": "emails"}, THEIRS)
        for department in SOURCES:
            self.upsert(department, {**person(180), "email": "nobody"})
            measure(self.behind, department)

    def upsert(self, department: str, fields: Mapping[str, str], source: int = 0) -> str:
        """Take a record in; return the name of its profile."""
        number = str(next(self.counter))
        request = batch(SOURCES[department][source], (number, dict(fields)))
        return self.call("BatchUpsertRecords", request).results[0].profile

    def profiles(self, department: str) -> str:
        number = next(self.counter)
        return self.upsert(department, {**person(number), "resident_id": resident_id(number)})

    def records(self, department: str) -> str:
        self.holder = self.profiles(department)
        return self.lineage(self.holder)[0].partition("/")[2]

    def lineage(self, name: str) -> list[str]:
        found = self.behind.store.profiles([name.partition("/")[2]])[name.partition("/")[2]]
        return [item.key for item in found.records]

    def overrides(self, department: str) -> str:
        values = {"parent": self.profiles(department), "field": "name", "value": "王五", "reason": "asked",
                  "expire_time": soon()}  # fmt: skip
        return self.ask("CreateOverride", values, department).name

    def phone(self, department: str) -> str:
        return self.known(department)["phone"]

    def email(self, department: str) -> str:
        return self.known(department)["email"]

    def resident_id(self, department: str) -> str:
        return self.known(department)["resident_id"]

    def known(self, department: str) -> dict[str, str]:
        number = next(self.counter)
        told = {**person(number), "resident_id": resident_id(number)}
        self.upsert(department, told)
        return told

    def state(self, kind: str, thing: str) -> object:
        """Return the stored profile."""
        found = self.behind.store.profiles([thing.split("/")[1]]) if thing.startswith("profiles/") else {}
        return {name: item.version for name, item in found.items()}

    def relationships(self, department: str) -> str:
        relationship = {"type": "relationTypes/spouse", "profile": self.profiles(department),
                        "other_profile": self.profiles(department)}  # fmt: skip
        return self.ask("CreateRelationship", {"relationship": relationship}, department).name

    def legalHolds(self, department: str) -> str:
        hold = {"profile": self.profiles(department), "reason": "a court asked"}
        return self.ask("CreateLegalHold", {"legal_hold": hold}, department).name

    def matchCandidates(self, department: str) -> str:
        number = next(self.counter)
        known = person(number)
        one = self.upsert(department, known)
        other = self.upsert(department, {"name": known["name"][0] + "先生", "phone": known["phone"]}, 1)
        sides = {one.partition("/")[2], other.partition("/")[2]}
        pairs = self.behind.store.pairs.page({"state": "open"}, "", 1000)
        (found,) = [pair.id for pair in pairs if {pair.one, pair.other} == sides]
        return f"matchCandidates/{found}"

    def decided(self, department: str) -> str:
        """Return a match candidate that was answered."""
        name = self.matchCandidates(department)
        self.ask("RejectMatchCandidate", {"name": name, "reason": "looked at both"}, department)
        return name

    def exports(self, department: str) -> str:
        operation = self.ask("ExportProfiles", {"owner_department": department}, department)
        handlers = Exporter(self.behind.store, self.behind.vault).handlers()
        for queued in self.behind.operations.due(datetime.now(UTC), 1000):
            if queued["kind"] not in handlers:  # of other calls: nobody runs it here
                self.behind.operations.update(str(queued["_id"]), str(queued["lease"]), {"open": False})
        worker = Worker("profiles", handlers, self.behind.operations)
        while worker.run_one():
            pass
        done = self.behind.jobs.get(operation.name, department)
        from kehu.profiles.v1 import export_pb2

        made = export_pb2.Export()
        assert done.response.Unpack(made), done
        return made.name

    def qualityIncidents(self, department: str) -> str:
        found = self.ask("ListQualityIncidents", {"department": department}, department).quality_incidents
        return found[0].name

    def departments(self, department: str) -> str:
        return department

    def rejects(self, department: str) -> str:
        self.upsert(department, {"name": "王", "birth_date": "2999-01-01", "phone": "1"})
        return f"rejects/{self.behind.store.rejects.page({}, '', 1000)[-1].id}"

    def around(self, method: str, department: str) -> Values:
        """Return the rest of a request."""
        record = {"source": f"sources/{SOURCES[department][0]}", "source_record_id": "no-such"}
        relationship = {"type": "relationTypes/spouse", "profile": self.profiles(MINE),
                        "other_profile": self.profiles(MINE)}  # fmt: skip
        found: dict[str, Callable[[], Values]] = {
            "CreateOverride": lambda: {"field": "name", "value": "王五", "reason": "asked", "expire_time": soon()},
            "UnmergeProfile": lambda: {
                "name": (department == MINE and self.holder) or self.profiles(MINE),
                "source_records": [record],
                "reason": "asked",
            },
            "EraseProfile": lambda: {"reason": "asked"},
            "RevealField": lambda: {"field": "phone", "reason_code": "REASON_CODE_IDENTITY_CHECK", "reason": "T-17"},
            "GetNetwork": lambda: {"depth": 1, "channel": "email"},
            "ShareProfile": lambda: {"terms": TERMS},
            "CreateRelationship": lambda: {"relationship": relationship},
            "CreateLegalHold": lambda: {"legal_hold": {"reason": "a court asked"}},
            "LookupProfiles": lambda: {"source_record": record},
            "EndRelationship": lambda: {"valid_to": "2026-11-01"},
            "ConfirmMatchCandidate": lambda: {"reason": "looked at both"},
            "RejectMatchCandidate": lambda: {"reason": "looked at both"},
            "GetQualityReport": lambda: {"name": "qualityReports/latest"},
            "GetQualityReportPage": lambda: {"name": "qualityReports/latest"},
            "AcknowledgeQualityIncident": lambda: {"note": "seen"},
        }
        return found.get(method, dict)()


class Tickets(World):
    """Tickets."""

    full_name = "kehu.tickets.v1.TicketsService"

    def tickets(self, department: str) -> str:
        ticket = {"kind": "TICKET_KIND_COMPLAINT", "subject": "包装破损"}
        return self.ask("CreateTicket", {"ticket": ticket}, department).name

    def profiles(self, department: str) -> str:
        number = next(self.counter)
        ticket = {"kind": "TICKET_KIND_COMPLAINT", "subject": "x", "profile": f"profiles/{number:032x}"}
        return self.ask("CreateTicket", {"ticket": ticket}, department).profile

    def records(self, department: str) -> str:
        return f"r{next(self.counter)}"

    def state(self, kind: str, thing: str) -> object:
        """Return the ticket as its own department reads it."""
        return self.ask("GetTicket", {"name": thing}, THEIRS) if kind == "tickets" else None

    def departments(self, department: str) -> str:
        self.tickets(department)
        return department

    def assignees(self, department: str) -> str:
        who = ME[department].partition("@")[0]
        self.ask("AssignTicket", {"name": self.tickets(department), "assignee": who}, department)
        return who

    def around(self, method: str, department: str) -> Values:
        """Return the rest of a request."""
        ticket = {"kind": "TICKET_KIND_COMPLAINT", "subject": "包装破损"}
        source = {"source": "sources/till", "source_record_id": "1"}
        return {
            "CreateTicket": {"ticket": {**ticket, "source_record": source}},
            "UpdateTicket": {"ticket": {"name": self.tickets(MINE), "subject": "y", "source_record": source}},
            "AssignTicket": {"name": self.tickets(MINE), "assignee": "user:me"},
            "CreateComment": {"comment": {"text": "seen"}},
            "ShareTicket": {"terms": TERMS},
        }.get(method, {})


class Marketing(World):
    """Marketing, with runs that have deliveries."""

    full_name = "kehu.marketing.v1.MarketingService"
    store: MemoryMarketingStore
    written_to: dict[str, str]

    def segments(self, department: str) -> str:
        rule = {"trait": {"trait": "tier", "operator": "OPERATOR_EQ", "values": ["gold"]}}
        made = self.ask("CreateSegment", {"segment": {"display_name": "金卡", "rule": rule}}, department)
        return made.name.partition("/")[2]

    def campaigns(self, department: str) -> str:
        return self.campaign(department).name.partition("/")[2]

    def campaign(self, department: str) -> Message:
        campaign = {
            "display_name": "五月", "segment_id": self.segments(department), "purpose_id": "offers", "channel": "email",
            "template": {"subject": "您好", "text": "您好"}, "quiet_hours": {"start": "00:00", "end": "00:00"},
        }  # fmt: skip
        return self.ask("CreateCampaign", {"campaign": campaign}, department)

    def runs(self, department: str) -> str:
        """Return a run that wrote to somebody."""
        run_id, campaign_id = f"{next(self.counter):032x}", self.campaigns(department)
        self.store.save_run(Run(run_id, campaign_id, b"", RunState.SCHEDULED, start_time=NOW))
        sent = Delivery(
            run_id, campaign_id, run_id, 0, f"p{run_id}", "email", "offers", DeliveryState.SENT, plan_time=NOW
        )
        self.store.save_deliveries([sent])
        self.written_to[department] = campaign_id
        return run_id

    def profiles(self, department: str) -> str:
        """Return somebody who was written to and must not be any more."""
        profile_id = f"p{self.runs(department)}"
        suppression = {"profile_id": profile_id, "channel": "email", "reason": "asked"}
        self.ask("CreateSuppression", {"suppression": suppression}, THEIRS)
        return profile_id

    def state(self, kind: str, thing: str) -> object:
        """Return the segment or campaign as it is stored."""
        read = {"segments": self.store.segment, "campaigns": self.store.campaign}.get(kind)
        return read(thing) if read else None

    def around(self, method: str, department: str) -> Values:
        """Return the rest of a request."""
        known = self.campaigns(MINE)
        more: dict[str, Callable[[], Values]] = {
            "UpdateSegment": lambda: {"segment_id": self.segments(MINE), "segment": {"display_name": "银卡"}},
            "CreateCampaign": lambda: {"campaign": {
                "display_name": "五月", "segment_id": self.segments(MINE), "purpose_id": "offers", "channel": "email",
                "template": {"subject": "您好", "text": "您好"},
            }},
            "UpdateCampaign": lambda: {"campaign_id": known, "campaign": {"display_name": "六"}},
            "GetCampaignReport": lambda: {"campaign_id": self.written_to.get(MINE, known)},
            "ListDeliveries": lambda: {"campaign_id": self.written_to.get(MINE, known)},
            "CreateSuppression": lambda: {"suppression": {"profile_id": "p0", "channel": "email", "reason": "asked"}},
        }  # fmt: skip
        return more.get(method, dict)()


NOW = datetime(2026, 11, 21, tzinfo=UTC)


class Consent(World):
    """Consent: one purpose."""

    full_name = "kehu.consent.v1.ConsentService"

    def fill(self) -> None:
        """Add the notice and the purpose."""
        version = {"effective_time": "2026-01-01T00:00:00Z", "texts": [{"language": "zh-CN", "body": "告知"}]}
        notice = {"display_name": "告知", "versions": [version]}
        self.ask("CreateNotice", {"notice_id": "member", "notice": notice})
        purpose = {"display_name": "优惠", "legal_basis": "LEGAL_BASIS_CONSENT", "data_categories": ["contact"],
                   "channels": ["email"], "retention_days": 365, "notice_id": "member"}  # fmt: skip
        self.ask("CreatePurpose", {"purpose_id": "offers", "purpose": purpose})

    def grant(self) -> Values:
        """Return a consent."""
        return {
            "purpose_id": "offers", "channel": "email", "state": "CONSENT_STATE_GRANTED", "notice_version": 1,
            "language": "zh-CN", "shown_time": "2026-11-01T00:00:00Z", "collected_via": "COLLECTED_VIA_WEB",
            "source_record": {"source": "sources/till", "source_record_id": "1"},
        }  # fmt: skip

    def profiles(self, department: str) -> str:
        profile_id = f"p{next(self.counter)}"
        self.ask("RecordConsent", {"profile_id": profile_id, "consent": self.grant()}, THEIRS)
        return profile_id

    def records(self, department: str) -> str:
        return f"r{next(self.counter)}"

    def around(self, method: str, department: str) -> Values:
        """Return the rest of a request."""
        recorded = {"profile_id": "p0", "consent": self.grant()}
        revoke = {"profile_id": "p0", "purpose_id": "offers", "channel": "email", "collected_via": "COLLECTED_VIA_WEB"}
        return {
            "RecordConsent": recorded,
            "BatchRecordConsents": {"requests": [recorded]},
            "RevokeConsent": revoke,
            "Decide": {"purpose_id": "offers", "channel": "email"},
            "BatchDecide": {"purpose_id": "offers", "channel": "email"},
        }.get(method, {})


class Analytics(World):
    """Analytics: profiles in the lake, with interactions."""

    full_name = "kehu.analytics.v1.AnalyticsService"
    warehouse: Warehouse
    flush: Callable[[], None]
    compute: Callable[[], object]

    def profiles(self, department: str) -> str:
        profile_id = f"p{next(self.counter)}"
        row = {"profile_id": profile_id, "version": 1, "deleted": False, "tier": "gold", "part": "recent",
               "owner_department": department}  # fmt: skip
        self.warehouse.add(PROFILES, rows_table(PROFILES, [row]))
        self.ask("BatchCreateInteractions", {"interactions": [self.bought(profile_id)]}, THEIRS)
        self.flush()
        return f"profiles/{profile_id}"

    def scores(self, department: str) -> str:
        return f"{self.profiles(department)}/scores"

    def merged(self, department: str) -> tuple[str, str]:
        """Return a former name and the name of now."""
        alias, survivor = f"p{next(self.counter)}", self.profiles(department)
        row = {"profile_id": alias, "survivor_id": survivor.partition("/")[2], "event_time": NOW, "part": "recent"}
        self.warehouse.add(ALIASES, rows_table(ALIASES, [row]))
        return f"profiles/{alias}", survivor

    def bought(self, profile_id: str) -> Values:
        """Return a purchase."""
        return {"profile": f"profiles/{profile_id}", "message_id": f"m{next(self.counter)}", "amount_cents": 100,
                "event_type": "order_completed", "event_time": "2026-05-01T00:00:00Z", "channel": "store"}  # fmt: skip

    def records(self, department: str) -> str:
        return f"r{next(self.counter)}"

    def around(self, method: str, department: str) -> Values:
        """Return the rest of a request."""
        if method == "GetScores":
            self.ask("ComputeScores", {}, THEIRS)
            self.compute()
        return {"BatchCreateInteractions": {"interactions": [self.bought("p0")]}}.get(method, {})


class Access(World):
    """Access: people with sessions and requests."""

    full_name = "kehu.access.v1.AccessService"
    behind: object
    reviews: dict[str, str]

    def fill(self) -> None:
        """Add the two people."""
        for login, department in (("me", MINE), ("other", THEIRS)):
            role = "role:seller" if department == MINE else "role:agent"
            self.behind.context.principals.insert(Principal("user", login, department, (role,), "x"))
        self.behind.context.directory.refresh(at_once=True)

    def accessRequests(self, department: str) -> str:
        end = self.behind.clock.time + timedelta(days=1 + next(self.counter) / 100)
        asked = {"role": "role:owner", "purpose": department, "reason": "absence", "end_time": end.isoformat()}
        return self.ask("CreateAccessRequest", {"access_request": asked}, department).name.partition("/")[2]

    def profiles(self, department: str) -> str:
        return f"{next(self.counter):032x}"

    def share(self, department: str) -> str:
        """Lend a profile to the person of a department."""
        id, now = f"{next(self.counter):032x}", self.behind.clock.time
        borrower = ME[department].partition("@")[0]
        given = Lent(id, "profiles", id, id, borrower, "sales", "asked", "user:x", "elsewhere", "",
                     now + timedelta(days=1), now)  # fmt: skip
        self.behind.context.shares.insert(given)
        return id

    def authenticator(self, department: str) -> str:
        """Begin a second factor that its owner has not shown yet."""
        principals, now = self.behind.context.principals, self.behind.clock.time
        who = principals.get(ME[department].partition("@")[0].replace(":", "-"))
        made = new(f"{next(self.counter):012x}", "totp", "phone", "JBSWY3DPEHPK3PXPJBSWY3DP", now)
        principals.save(begun(who, made))
        return made.id

    def recertification(self, department: str) -> str:
        """Open the review of a department of some year."""
        now = self.behind.clock.time
        id = f"{1000 + next(self.counter)}-q1-{department}"
        review = Recertification(id, department, now, now + timedelta(days=30), "open")
        self.behind.context.recertifications.add(review)
        self.reviews[department] = id
        return id

    def grant(self, department: str) -> str:
        """Add a role to the last review of a department."""
        id = f"{next(self.counter):032x}"
        review = self.reviews.get(department) or self.recertification(department)
        self.behind.context.recertifications.add_grants([Grant(id, review, "user:x", department, "role:x")])
        return id

    def sessions(self, department: str) -> str:
        session_id = f"{next(self.counter):016x}"
        who = ME[department].partition("@")[0].replace(":", "-")
        self.behind.context.sessions.add(opened(session_id, who, ("pwd",), self.behind.clock.time))
        return session_id

    def around(self, method: str, department: str) -> Values:
        """Return the rest of a request."""
        end = (self.behind.clock.time + timedelta(days=2)).isoformat()
        return {
            "RejectAccessRequest": {"comment": "no"},
            "RevokeAccessRequest": {"comment": "no"},
            "ReviewAccessRequest": {"finding": "justified", "comment": "seen"},
            "RenewAccessRequest": {"reason": "absence", "end_time": end},
            "EndSession": {"principal_id": "user-me"},
            "DeleteAuthenticator": {"principal_id": "user-me"},
            "ActivateAuthenticator": {"totp": "000000"},
            "AnswerRecertification": {
                "recertification_id": self.reviews.get(department, ""),
                "answers": [{"grant_id": "f" * 32, "decision": "confirm", "comment": "seen"}],
            },
        }.get(method, {})


@contextlib.contextmanager
def all_worlds(folder: Path) -> Iterator[dict[str, World]]:
    """Serve every service that has things of departments, by the full name of its service."""
    from tests.reach.webhooks_world import webhooks

    with contextlib.ExitStack() as stack:
        found: list[World] = [
            _profiles(stack, folder), _tickets(stack, folder), _marketing(stack, folder), _consent(stack),
            _analytics(stack, folder), _access(stack), webhooks(stack, folder),
        ]  # fmt: skip
        yield {world.full_name: world for world in found}


def _profiles(stack: contextlib.ExitStack, folder: Path) -> World:
    service = Service(folder / "keys")
    add = profiles_pb2_grpc.add_ProfilesServiceServicer_to_server
    serving = Serving("profiles", [(add, ProfilesServicer(service.tools))], service.jobs)
    world = Profiles(stack.enter_context(running(serving, NarrowPolicy())), profiles_pb2_grpc.ProfilesServiceStub)
    world.behind = service
    world.nobody = {"records": "no-such-record", "departments": "nowhere", "phone": person(9000)["phone"],
                    "email": "nobody@mail.example.cn", "resident_id": resident_id(8999)}  # fmt: skip
    world.fill()
    return world


def _tickets(stack: contextlib.ExitStack, folder: Path) -> World:
    servicer = TicketsServicer(MemoryTicketsStore(Facts(Sealer("events", folder / "keys"))))
    serving = Serving("tickets", [(tickets_pb2_grpc.add_TicketsServiceServicer_to_server, servicer)])
    world = Tickets(stack.enter_context(running(serving, NarrowPolicy())), tickets_pb2_grpc.TicketsServiceStub)
    world.nobody = {"departments": "nowhere", "assignees": "user:nobody", "records": "no-such"}
    return world


def _marketing(stack: contextlib.ExitStack, folder: Path) -> World:
    from kehu.analytics.v1.analytics_pb2_grpc import AnalyticsServiceStub
    from kehu.marketing.v1 import marketing_pb2_grpc

    from tests.fakes.analytics_fake import AnalyticsFake, analytics_serving

    store, operations = MemoryMarketingStore(), MemoryOperations()
    jobs = CampaignOperations(store, operations)
    analytics = stack.enter_context(running(analytics_serving(AnalyticsFake())))
    stub = analytics.stub(AnalyticsServiceStub, peer="marketing", forward=True)
    servicer = MarketingServicer(store, jobs, stub, Surroundings(lambda token: None, settle=lambda _: None))
    add = marketing_pb2_grpc.add_MarketingServiceServicer_to_server
    world = Marketing(
        stack.enter_context(running(Serving("marketing", [(add, servicer)], jobs), NarrowPolicy())),
        marketing_pb2_grpc.MarketingServiceStub,
    )
    world.store, world.written_to = store, {}
    return world


def _consent(stack: contextlib.ExitStack) -> World:
    from kehu.consent.v1.consent_pb2_grpc import ConsentServiceStub

    servicer = ConsentServicer(MemoryConsentStore(), settle=lambda _: None)
    serving = Serving("consent", [(add_ConsentServiceServicer_to_server, servicer)])
    world = Consent(stack.enter_context(running(serving, NarrowPolicy())), ConsentServiceStub)
    world.fill()
    return world


def _analytics(stack: contextlib.ExitStack, folder: Path) -> World:
    from kehu.analytics.v1 import analytics_pb2_grpc

    from services.analytics.api import AnalyticsServicer, Parts
    from services.analytics.engine import Engine
    from services.analytics.feeding import flush
    from services.analytics.files import Uploads
    from services.analytics.jobs import COMPUTE, AnalyticsJobs
    from services.analytics.store import MemoryComputations, MemoryInbox
    from tests.analytics.test_events import plain

    lake = Lake(folder / "lake")
    lake.create()
    engine = Engine(folder / "spill")
    stack.callback(engine.close)
    warehouse, inbox = Warehouse(lake, engine), MemoryInbox()
    uploads = Uploads(folder / "uploads", Sealer("analytics", folder / "keys"))
    operations = MemoryOperations()
    parts = Parts(warehouse, inbox, Jobs("analytics", operations), uploads, plain, clock=lambda: NOW)
    add = analytics_pb2_grpc.add_AnalyticsServiceServicer_to_server
    serving = Serving("analytics", [(add, AnalyticsServicer(parts))], jobs=parts.jobs)
    world = Analytics(stack.enter_context(running(serving, NarrowPolicy())), analytics_pb2_grpc.AnalyticsServiceStub)
    world.warehouse, world.flush = warehouse, lambda: flush(inbox, warehouse)
    jobs = AnalyticsJobs(warehouse, uploads, lambda _, ids: {}, MemoryComputations(), plain)
    world.compute = Worker("analytics", {COMPUTE: jobs.compute_scores}, operations, threads=0).run_one
    return world


def _access(stack: contextlib.ExitStack) -> World:
    from kehu.access.v1 import access_pb2_grpc

    from services.access.api import AccessServicer
    from services.access.company import Companies
    from tests.access.world import new_world

    companies = Companies(loopback=True)
    companies.discover = lambda url: {}  # type: ignore[method-assign]  # of an issuer nobody asks for keys here
    behind = new_world(companies=companies)
    serving = Serving("access", [(access_pb2_grpc.add_AccessServiceServicer_to_server, AccessServicer(behind.context))])
    world = Access(stack.enter_context(running(serving, NarrowPolicy())), access_pb2_grpc.AccessServiceStub)
    world.behind, world.reviews = behind, {}
    world.nobody = {"sessions": "f" * 16, "authenticator": "f" * 12, "recertification": "1000-q1-nowhere"}
    world.fill()
    return world
