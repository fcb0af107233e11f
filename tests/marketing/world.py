"""A marketing service without a network: its real store in memory, real jobs, and the ports played by hand.

Time is virtual: every call of a port moves it, and may first run an action of the test or crash the process.
"""

from __future__ import annotations

import random
import uuid
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from itertools import pairwise

from kehu.analytics.v1 import audience_pb2
from kehu.marketing.v1 import resources_pb2 as res

from services.chassis.errors import KehuError
from services.chassis.jobs import MemoryOperations, OperationStore, Owner, Worker
from services.marketing.domain.campaigns import Campaign, CampaignState, FrequencyCap, QuietHours, step
from services.marketing.domain.deliveries import scheduled, tally
from services.marketing.domain.planning import ConsentAnswer
from services.marketing.domain.templates import Template
from services.marketing.gate import Gate
from services.marketing.jobs import RUN, CampaignRunner
from services.marketing.operations import CampaignOperations
from services.marketing.ports import AudiencePage, ConsentAnswers, Contact, MailDown, MailStale, Waiting
from services.marketing.sending import Clocks, Sender
from services.marketing.store import MarketingStore
from services.marketing.store_memory import MemoryMarketingStore
from services.marketing.wire import report_to_proto

START = datetime(2026, 5, 6, 2, 0, tzinfo=UTC)  # ten in the morning in Beijing
ALLOWANCE_SECONDS = 0.25  # what the consent service says
LONG_AGO = datetime(2000, 1, 1, tzinfo=UTC)
NEVER = QuietHours(start=QuietHours().end, end=QuietHours().end)
RULE = audience_pb2.AudienceRule(
    trait=audience_pb2.TraitCondition(trait="tier", operator=audience_pb2.OPERATOR_EQ, values=["gold"])
)


class Crash(BaseException):
    """The process dies here."""


@dataclass
class Steps:
    """Counts the steps of a run; before step number `crash_at` the process dies, at `act_at` the test acts."""

    clock: VirtualClock
    count: int = 0
    crash_at: int = -1
    act_at: int = -1
    act: Callable[[], None] = lambda: None

    def tick(self) -> None:
        """Pass one step."""
        self.count += 1
        self.clock.advance()
        if self.count == self.act_at:
            self.act()
        if self.count == self.crash_at:
            raise Crash


@dataclass
class VirtualClock:
    """Seconds since the start; each step takes a random while below `slowest` seconds."""

    randomness: random.Random
    slowest: float = 0.01
    seconds: float = 0.0

    def advance(self, seconds: float | None = None) -> None:
        """Let time pass."""
        self.seconds += self.randomness.uniform(0, self.slowest) if seconds is None else seconds

    def now(self) -> datetime:
        """Return the time of day."""
        return START + timedelta(seconds=self.seconds)

    def monotonic(self) -> float:
        """Return the seconds."""
        return self.seconds


class Consents:
    """The consent service: everybody of `refused` is refused; `down` means no answer."""

    def __init__(self, steps: Steps) -> None:
        self.refused: dict[str, str] = {}
        self.down = False
        self.revoked: list[tuple[str, str, str, str]] = []
        self._steps = steps

    def decide(self, person_ids: Sequence[str], purpose_id: str, channel: str) -> ConsentAnswers:
        """Answer as of the moment of deciding; the reply takes its time."""
        assert len(person_ids) <= 500
        self._steps.tick()
        if self.down:
            raise Waiting("CONSENT_UNAVAILABLE", 2.0)
        answers = {
            person: ConsentAnswer(person not in self.refused, self.refused.get(person, "GRANTED"), (f"r-{person}",))
            for person in person_ids
        }
        self._steps.tick()
        return ConsentAnswers(answers, ALLOWANCE_SECONDS)

    def revoke(self, profile_id: str, purpose_id: str, channel: str, request_id: str) -> None:
        """Remember a withdrawal."""
        if self.down:
            raise Waiting("CONSENT_UNAVAILABLE", 2.0)
        self.revoked.append((profile_id, purpose_id, channel, request_id))


class Contacts:
    """The profiles service: everybody has an address, but those of `unreachable`."""

    def __init__(self) -> None:
        self.unreachable: set[str] = set()

    def contacts(self, profile_ids: Sequence[str], channel: str) -> dict[str, Contact]:
        """Return made-up contacts."""
        assert len(profile_ids) <= 500
        found = [one for one in profile_ids if one not in self.unreachable]
        return {one: Contact(f"顾客{one}", f"{one}@example.cn") for one in found}


class Audiences:
    """Analytics: everybody listed, in pages."""

    def __init__(self, profile_ids: Sequence[str], page_size: int) -> None:
        self.profile_ids = list(profile_ids)
        self.page_size = page_size

    def page(self, rule: bytes, token: str) -> AudiencePage:
        """Return a page."""
        start = int(token or 0)
        end = start + self.page_size
        more = str(end) if end < len(self.profile_ids) else ""
        return AudiencePage(tuple(self.profile_ids[start:end]), more, len(self.profile_ids), START)


class Mailbox:
    """The mail server: keeps (address, hand-over time); `trouble` may raise what a real one would."""

    def __init__(self, steps: Steps, clock: VirtualClock) -> None:
        self.mails: list[tuple[str, float]] = []
        self.trouble: Callable[[str], None] = lambda address: None
        self.asks = True
        self._steps = steps
        self._clock = clock

    def send(self, mail, may_send) -> None:
        """Take a message; with `asks` off, an implementation that forgets to ask before it sends."""
        self._steps.tick()
        allowed = may_send() if self.asks else True
        if not allowed:
            raise MailStale
        self.trouble(mail.address)
        self.mails.append((mail.address, self._clock.monotonic()))
        self._steps.tick()

    def recipients(self) -> list[str]:
        """Return who got mail, as profile ids."""
        return [address.partition("@")[0] for address, _ in self.mails]


class SteppedStore(MemoryMarketingStore):
    """The store in memory; each write is two steps: before it, and between it and its reply."""

    steps: Steps

    def save_deliveries(self, deliveries):
        self.steps.tick()
        lost = super().save_deliveries(deliveries)
        self.steps.tick()
        return lost

    def save_run(self, run):
        self.steps.tick()
        saved = super().save_run(run)
        self.steps.tick()
        return saved

    def save_campaign(self, campaign, facts=(), request_id=""):
        self.steps.tick()
        saved = super().save_campaign(campaign, facts, request_id)
        self.steps.tick()
        return saved


class World:
    """Everything a run needs; `start` a campaign, `work` until its operation ends."""

    def __init__(
        self,
        people: int = 4,
        page_size: int = 500,
        seed: int = 1,
        slowest: float = 0.01,
        prefix: str = "p",
        stores: tuple[MarketingStore, OperationStore] | None = None,
    ) -> None:
        self.clock = VirtualClock(random.Random(seed), slowest)
        self.steps = Steps(self.clock)
        stepped = SteppedStore()
        stepped.steps = self.steps
        self.store, self.operations = stores or (stepped, MemoryOperations())
        self.consents, self.contacts = Consents(self.steps), Contacts()
        self.ids = [f"{prefix}{number:03d}" for number in range(people)]
        self.audiences = Audiences(self.ids, page_size)
        self.mailbox = Mailbox(self.steps, self.clock)
        self.jobs = CampaignOperations(self.store, self.operations, self.clock.now)

    def runner(self) -> CampaignRunner:
        """Return what a fresh worker process would build."""
        gate = Gate(self.store, self.consents, self.contacts, lambda address: f"token-{address}")
        clocks = Clocks(self.clock.now, self.clock.monotonic)
        sender = Sender(self.store, gate, self.mailbox, lambda one: f"https://kehu.example/u/{one}", clocks)
        return CampaignRunner(self.store, self.audiences, gate, sender, clocks, self.operations)

    def campaign(self, campaign_id: str = "c1", **changes) -> Campaign:
        """Create a campaign."""
        template = Template("您好 {{display_name}}", "你好 {{display_name}}")
        campaign = Campaign(campaign_id, "五月", "s1", "offers", "email", template, quiet_hours=NEVER)
        return self.store.save_campaign(replace(campaign, **changes))

    def start(self, campaign_id: str = "c1", run_id: str = "run1") -> str:
        """Start a run as the API does, and return its operation's name."""
        campaign = self.store.campaign(campaign_id)
        run = self.store.save_run(scheduled(run_id, campaign, RULE.SerializeToString(), self.clock.now()))
        args = {"run_id": run_id, "campaign_id": campaign_id}
        owner = Owner("user:mia", "marketing")
        operation = self.jobs.start(RUN, args, report_to_proto(run, {}, campaign), owner, run_id)
        started, fact = step(campaign, "run", self.clock.now(), run_id)
        self.store.save_campaign(started, [fact])
        return operation.name

    def work_once(self, name: str) -> None:
        """Let a fresh worker take the job once, before any other, whatever time it would wait for."""
        self.operations.update(name, str(self.operation(name)["lease"]), {"wake_at": LONG_AGO})
        Worker("marketing", {RUN: self.runner()}, self.operations).run_one()

    def work(self, name: str, rounds: int = 60, wait: float = 31.0, campaign_id: str = "c1") -> res.CampaignReport:
        """Work until the operation ends, with `wait` virtual seconds between rounds; check the figures each time."""
        for _ in range(rounds):
            self.work_once(name)
            self.report(campaign_id)
            if self.operation(name)["done"]:
                return self.report(campaign_id)
            self.clock.advance(wait)
        raise AssertionError(f"not done: {self.operation(name)['note']}")

    def operation(self, name: str) -> dict:
        """Return the stored operation."""
        return self.operations.get(name)

    def change(self, name: str, campaign_id: str = "c1") -> None:
        """Pause, resume or cancel as the API does."""
        changed, fact = step(self.store.campaign(campaign_id), name, self.clock.now())
        self.store.save_campaign(changed, [fact])

    def report(self, campaign_id: str = "c1") -> res.CampaignReport:
        """Return the report as the API makes it, after checking that it adds up."""
        campaign = self.store.campaign(campaign_id)
        run = self.store.run(campaign.run_id)
        in_hand = tally(self.store.page(run.run_id, run.page)) if run.page_ids else {}
        report = report_to_proto(run, in_hand, campaign)
        parts = report.sent + report.skipped + report.failed + report.unknown + report.pending
        assert parts == report.audience
        assert report.pending >= 0
        return report


class Started:
    """A campaign with a run that a worker may take."""

    def __init__(self, world: World, **changes: object) -> None:
        self.world = world
        self.id = uuid.uuid4().hex
        world.campaign(self.id, **changes)
        self.name = world.start(self.id, uuid.uuid4().hex)

    def cancel(self) -> None:
        """Cancel the operation, as its department may."""
        self.world.jobs.cancel(self.name, "marketing")

    def state(self) -> CampaignState:
        """Return the campaign's state."""
        return self.world.store.campaign(self.id).state

    def work(self) -> res.CampaignReport:
        """Work until the operation ends."""
        return self.world.work(self.name, campaign_id=self.id)


def skips_of(report: res.CampaignReport) -> dict[str, int]:
    """Return the skipped by reason, with the detail behind a colon."""
    found = {}
    for skip in report.skips:
        reason = res.SkipReason.Name(skip.reason).removeprefix("SKIP_REASON_")
        found[f"{reason}:{skip.detail}" if skip.detail else reason] = skip.count
    return found


def expect_refusal(kind: type[KehuError], action: Callable[[], object]) -> KehuError:
    """Return the refusal an action ends in."""
    try:
        action()
    except kind as refused:
        return refused
    raise AssertionError(f"{kind.__name__} was not raised")


def rising(values: Sequence[float]) -> bool:
    """Say whether values never fall."""
    return all(one <= other for one, other in pairwise(values))


def mail_is_down(address: str) -> None:
    """Be a mail server that does not answer."""
    raise MailDown


CAP_ONE = FrequencyCap(1, 7)
