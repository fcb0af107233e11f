"""All services of a company in one process: real servicers behind the real guard, stores in memory, facts by hand.

Every message that goes over a wire is looked at: who asks, what is answered, what is told.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from itertools import count
from pathlib import Path

from google.protobuf.descriptor import FieldDescriptor
from google.protobuf.message import Message
from google.protobuf.timestamp_pb2 import Timestamp
from kehu.analytics.v1 import analytics_pb2_grpc
from kehu.consent.v1 import consent_pb2, consent_pb2_grpc
from kehu.marketing.v1 import marketing_pb2_grpc
from kehu.profiles.v1 import profiles_pb2, profiles_pb2_grpc
from kehu.profiles.v1.events_pb2 import ProfilesUnmerged
from kehu.search.v1 import search_pb2_grpc
from kehu.tickets.v1 import tickets_pb2_grpc

from services.analytics.api import AnalyticsServicer, Parts
from services.analytics.engine import Engine
from services.analytics.events import AnalyticsConsumer
from services.analytics.feeding import flush
from services.analytics.files import Uploads
from services.analytics.lake import Lake
from services.analytics.scoring import compute_scores
from services.analytics.store import MemoryInbox
from services.analytics.warehouse import Warehouse
from services.chassis.access import Obligations
from services.chassis.consuming import Event
from services.chassis.consuming.contract import handlers
from services.chassis.crypto import BlindIndex, Sealer
from services.chassis.errors import Conflict, Unavailable
from services.chassis.jobs import Jobs, MemoryOperations, Worker
from services.chassis.records import Fact
from services.chassis.server import Serving
from services.consent.api import ConsentServicer
from services.consent.events import ConsentConsumer
from services.consent.store import MemoryConsentStore
from services.marketing.api import MarketingServicer
from services.marketing.domain.links import delivery_of
from services.marketing.events import MarketingConsumer
from services.marketing.operations import CampaignOperations
from services.marketing.optouts import Surroundings
from services.marketing.store_memory import MemoryMarketingStore
from services.profiles.api import ProfilesServicer
from services.profiles.api.common import Tools
from services.profiles.dictionary import Dictionary
from services.profiles.domain.model import default_model
from services.profiles.relations.remotes import RemoteConsents
from services.profiles.sharing import SharedTaker
from services.profiles.store import MemoryStore
from services.profiles.taking import Taker
from services.profiles.vault import Vault
from services.search.api import SearchServicer
from services.search.documents import DocumentMaker, keyed_by
from services.search.events import SearchConsumer
from services.search.hits import HitReader
from services.search.store import IndexDocument
from services.search.store.tantivy_engine import TantivyEngine
from services.tickets.api import TicketsServicer
from services.tickets.events import TicketsConsumer
from services.tickets.store import Facts
from services.tickets.store.memory import MemoryTicketsStore
from tests.consent.test_api import a_notice_version, a_purpose
from tests.harness import Harness, OpenPolicy, running
from tests.profiles.people import batch, person, source_request

STUBS = {
    "profiles": profiles_pb2_grpc.ProfilesServiceStub,
    "consent": consent_pb2_grpc.ConsentServiceStub,
    "tickets": tickets_pb2_grpc.TicketsServiceStub,
    "marketing": marketing_pb2_grpc.MarketingServiceStub,
    "analytics": analytics_pb2_grpc.AnalyticsServiceStub,
    "search": search_pb2_grpc.SearchServiceStub,
}
SOURCES = ("till", "shop", "crm")
ROUNDS = 60  # of telling again what a consumer could not take yet
OUTAGE_FREE = (Unavailable, Conflict)  # what the worker tries again
KEY = b"k" * 32
ALL_AND_REVEAL = Obligations(everything=True, revealable=frozenset({"personal/contact"}))


@dataclass(frozen=True, slots=True)
class Seen:
    """A string value of a field: the field's full name, the value, and whether it was asked, answered or told."""

    field: str
    value: str
    way: str


def strings(message: Message) -> Iterator[tuple[str, str]]:
    """Yield each string of a message of the project with its field's full name; of a map the values."""
    for one, value in message.ListFields():
        if one.message_type is not None and one.message_type.GetOptions().map_entry:
            inner = one.message_type.fields_by_name["value"]
            for each in value.values():
                yield from [(one.full_name, each)] if inner.type == FieldDescriptor.TYPE_STRING else _within(each)
        elif one.type == FieldDescriptor.TYPE_STRING:
            yield from ((one.full_name, each) for each in ([value] if isinstance(value, str) else value))
        elif one.type == FieldDescriptor.TYPE_MESSAGE:
            for each in [value] if isinstance(value, Message) else value:
                yield from _within(each)


def _within(value: object) -> Iterator[tuple[str, str]]:
    if isinstance(value, Message):
        if value.DESCRIPTOR.full_name == "google.protobuf.Any":
            return
        yield from strings(value)


@dataclass(repr=False)
class Company:
    """The services, their stores, and the post between them."""

    folder: Path
    stack: ExitStack
    seen: list[Seen] = field(default_factory=list)
    _numbers: Iterator[int] = field(default_factory=lambda: count(1))

    def __post_init__(self) -> None:
        keys = self.folder / "keys"
        self.profiles, self.consent, self.marketing = MemoryStore(), MemoryConsentStore(), MemoryMarketingStore()
        self.tickets = MemoryTicketsStore(Facts(Sealer("events", keys)))
        self.inbox, self.operations = MemoryInbox(), MemoryOperations()
        lake, engine = Lake(self.folder / "lake"), Engine(self.folder / "spill")
        lake.create()
        self.stack.callback(engine.close)
        self.warehouse = Warehouse(lake, engine)
        self.index = TantivyEngine(self.folder / "index")
        self.index.prepare()
        self.vault, self.keyed = Vault(keys), keyed_by(BlindIndex(keys, "search"))
        self.dictionary = Dictionary(self.profiles)
        self.taker = Taker(self.profiles, self.vault, default_model, self.dictionary)
        self.to_index: list[IndexDocument] = []  # written together, as the real writer does
        maker = DocumentMaker(self.keyed, Sealer("events", keys), Sealer("search", keys))
        self.consumers: list[object] = [
            ConsentConsumer(self.consent), TicketsConsumer(self.tickets), MarketingConsumer(self.marketing),
            AnalyticsConsumer(self.inbox, BlindIndex(keys, "analytics").token),
            SearchConsumer(self.to_index.extend, maker),
        ]  # fmt: skip
        self._told = dict.fromkeys(("profiles", "consent", "tickets", "marketing"), 0)
        self.waiting: list[tuple[Callable[..., None], Event]] = []
        self._serve(keys)
        self._register()

    def _serve(self, keys: Path) -> None:
        self.harnesses: dict[str, Harness] = {}
        add = consent_pb2_grpc.add_ConsentServiceServicer_to_server
        self._run("consent", add, ConsentServicer(self.consent, settle=lambda _: None))
        add = tickets_pb2_grpc.add_TicketsServiceServicer_to_server
        self._run("tickets", add, TicketsServicer(self.tickets))
        consents = RemoteConsents(self._forwarded("consent", "profiles"))
        jobs = Jobs("profiles", self.operations)
        shared = SharedTaker(self.taker)
        self.tools = Tools(self.profiles, self.vault, shared, jobs, self.dictionary, consents=consents)
        add = profiles_pb2_grpc.add_ProfilesServiceServicer_to_server
        self._run("profiles", add, ProfilesServicer(self.tools), jobs)
        uploads = Uploads(self.folder / "uploads", Sealer("analytics", keys))
        own = Jobs("analytics", MemoryOperations())
        parts = Parts(self.warehouse, self.inbox, own, uploads, BlindIndex(keys, "analytics").token)
        add = analytics_pb2_grpc.add_AnalyticsServiceServicer_to_server
        self._run("analytics", add, AnalyticsServicer(parts), own)
        campaigns = CampaignOperations(self.marketing, MemoryOperations())
        around = Surroundings(lambda token: delivery_of((KEY,), token), settle=lambda _: None)
        servicer = MarketingServicer(self.marketing, campaigns, self._forwarded("analytics", "marketing"), around)
        self._run("marketing", marketing_pb2_grpc.add_MarketingServiceServicer_to_server, servicer, campaigns)
        looking = Jobs("search", MemoryOperations())
        servicer = SearchServicer(self.index, self.keyed, HitReader(Sealer("search", keys)), looking)
        self._run("search", search_pb2_grpc.add_SearchServiceServicer_to_server, servicer, looking)

    def _run(self, name: str, add: Callable, servicer: object, jobs: Jobs | None = None) -> None:
        policy = OpenPolicy(ALL_AND_REVEAL)
        self.harnesses[name] = self.stack.enter_context(running(Serving(name, [(add, servicer)], jobs), policy))
        self._stubs = getattr(self, "_stubs", {})
        self._stubs[name] = self.harnesses[name].stub(STUBS[name])

    def _forwarded(self, name: str, peer: str) -> object:
        return self.harnesses[name].stub(STUBS[name], peer=peer, forward=True)

    def _register(self) -> None:
        for rank, source in enumerate(SOURCES):
            self.call("profiles", "CreateSource", source_request(source, trust_rank=10 * rank + 10))
        notice = consent_pb2.Notice(display_name="会员隐私告知", versions=[a_notice_version()])
        self.call("consent", "CreateNotice", consent_pb2.CreateNoticeRequest(notice_id="member", notice=notice))
        for purpose in ("offers", "stewardship"):
            request = consent_pb2.CreatePurposeRequest(purpose_id=purpose, purpose=a_purpose())
            self.call("consent", "CreatePurpose", request)

    def call(self, service: str, method: str, request: Message, peer: str = "") -> Message:
        """Call as a steward, or as another service; what is asked and answered is looked at."""
        self._look(request, "asked")
        stub = self._stubs[service]
        if peer:
            stub = self.harnesses[service].stub(STUBS[service], caller="", purpose="", peer=peer)
        reply: Message = getattr(stub, method)(request, timeout=20)
        self._look(reply, "answered")
        return reply

    def _look(self, message: Message, way: str) -> None:
        self.seen += [Seen(name, value, way) for name, value in strings(message)]

    def work(self, handlers: dict[str, Callable]) -> None:
        """Run the jobs of profiles that these handlers are for, until none is due."""
        worker = Worker("profiles", handlers, self.operations, threads=0)
        while worker.run_one():
            pass

    # --- people

    def number(self) -> int:
        """Return a number that nobody had."""
        return next(self._numbers)

    def take(self, source: str, record_id: str, fields: dict[str, str]) -> str:
        """Take a record in and return the id of its profile."""
        reply = self.call("profiles", "BatchUpsertRecords", batch(source, (record_id, fields)))
        return reply.results[0].profile.removeprefix("profiles/")

    def somebody(self, records: int = 1) -> tuple[str, list[str]]:
        """Found a profile of somebody new; return its id and its record keys."""
        number = self.number()
        made = [self.take(SOURCES[n], f"R{number}", person(number)) for n in range(records)]
        assert len(set(made)) == 1
        return made[0], [f"{SOURCES[n]}/R{number}" for n in range(records)]

    def merge(self, *profile_ids: str) -> str:
        """Merge and return the survivor."""
        return self.taker.merger.merge(profile_ids, "user:test")

    def unmerge(self, profile_id: str, record_keys: Sequence[str]) -> tuple[str, str]:
        """Split records out, as the API does; return the ids of what is left and of what went."""
        request = profiles_pb2.UnmergeProfileRequest(name=f"profiles/{profile_id}", reason="two persons")
        for key in record_keys:
            source, _, record_id = key.partition("/")
            request.source_records.add(source=f"sources/{source}", source_record_id=record_id)
        reply = self.call("profiles", "UnmergeProfile", request)
        return reply.profile.name.removeprefix("profiles/"), reply.new_profile.name.removeprefix("profiles/")

    # --- the post

    def collect(self) -> list[Event]:
        """Return the facts told since the last time, as events."""
        held = {
            "profiles": self.profiles.facts, "consent": self.consent.facts, "tickets": self.tickets.published,
            "marketing": self.marketing.facts,
        }  # fmt: skip
        found = []
        for service, facts in held.items():
            for index in range(self._told[service], len(facts)):
                found.append(_event(facts[index], f"{service}-{index}"))
            self._told[service] = len(facts)
        for event in found:
            self._look(event.message, "told")
        return found

    def post(self, randomness: random.Random | None = None, times: int = 1) -> None:
        """Hand all facts on, and let index and lake take what they got."""
        self.hand_on(randomness, times)
        self.index.write(self.to_index)
        self.to_index.clear()
        flush(self.inbox, self.warehouse, 100_000)

    def hand_on(self, randomness: random.Random | None = None, times: int = 1, share: float = 1.0) -> None:
        """Hand all facts to all who listen, shuffled and as often as said; at a share below 1 some wait for the next.

        What a consumer cannot take yet is handed to it again; what it takes makes new facts, which follow.
        """
        randomness = randomness or random.Random(0)
        for _ in range(ROUNDS):
            for event in self.collect():
                for consumer in self.consumers:
                    for message_class, handle in handlers(consumer).values():
                        if isinstance(event.message, message_class):
                            self.waiting += [(handle, event)] * times
            if times > 1 or share < 1:
                randomness.shuffle(self.waiting)
                self._keep_splits_in_order()
            now, later = self.waiting, []
            if share < 1:
                now, later = now[: int(len(now) * share)], now[int(len(now) * share) :]
            self.waiting = later + [(handle, event) for handle, event in now if not _taken(handle, event)]
            if share < 1 or not (self.waiting or self._is_untold()):
                return
        raise AssertionError(f"never taken: {[event.message for _, event in self.waiting][:3]}")

    def _keep_splits_in_order(self) -> None:
        """Let no split overtake another: they come by one queue."""
        places = [at for at, (_, event) in enumerate(self.waiting) if isinstance(event.message, ProfilesUnmerged)]
        splits = sorted((self.waiting[at] for at in places), key=lambda item: int(item[1].id.partition("-")[2]))
        for at, item in zip(places, splits, strict=True):
            self.waiting[at] = item

    def _is_untold(self) -> bool:
        facts = self.profiles.facts, self.consent.facts, self.tickets.published, self.marketing.facts
        return any(len(found) > told for found, told in zip(facts, self._told.values(), strict=True))

    def compute_scores(self) -> None:
        """Let analytics compute."""
        compute_scores(self.warehouse)


def _event(fact: Fact | Message, event_id: str) -> Event:
    message = fact.message if isinstance(fact, Fact) else fact
    subject, version = (fact.subject, fact.version) if isinstance(fact, Fact) else ("", 0)
    return Event(event_id, subject, datetime.now(UTC), version, message)


def _taken(handle: Callable[..., None], event: Event) -> bool:
    try:
        handle(event)
    except OUTAGE_FREE:
        return False
    return True


def stamp(ago: timedelta = timedelta(0)) -> Timestamp:
    """Return a time before now."""
    found = Timestamp()
    found.FromDatetime(datetime.now(UTC) - ago)
    return found


@contextmanager
def company(folder: Path) -> Iterator[Company]:
    """Run a company until the block ends."""
    with ExitStack() as stack:
        yield Company(folder, stack)
