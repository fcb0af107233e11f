"""Send the planned messages of a page: claimed, checked for the last time, stored as sending, handed over.

Order of writes: CLAIMED (counts towards the cap) → last check → SENDING → hand over → SENT. Whatever dies in
between, no message is handed over twice: only PLANNED ones are taken up again.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from datetime import datetime

from services.chassis.jobs import LeaseLost
from services.marketing.domain.campaigns import Campaign, CampaignState
from services.marketing.domain.deliveries import (
    Delivery,
    DeliveryState,
    claimed,
    doubtful,
    refused,
    released,
    sending,
    sent,
    skipped,
)
from services.marketing.domain.planning import Plan, PlanTerms, SkipReason, may_act, plan_deliveries
from services.marketing.domain.templates import render
from services.marketing.gate import Gate, People
from services.marketing.ports import MailDoubtful, MailDown, Mailer, MailRefused, MailStale, OutgoingMail, Waiting
from services.marketing.store import MarketingStore

CHUNK = 20  # messages per last check: about what is handed over while an allowance may be used
MAIL_RETRY_SECONDS = 5.0
SLOW_RETRY_SECONDS = 2.0  # a check that takes longer than it may be used for allows nothing


@dataclass(frozen=True, slots=True)
class Clocks:
    """Time of day (UTC) and monotonic seconds."""

    now: Callable[[], datetime]
    monotonic: Callable[[], float]


@dataclass(slots=True)
class Page:
    """The deliveries of the page in hand, by id, and where to write to their people."""

    deliveries: dict[str, Delivery]
    people: People

    def planned(self) -> list[Delivery]:
        """Return those that wait for their turn."""
        return [d for d in self.deliveries.values() if d.state is DeliveryState.PLANNED]


class _Check:
    """When people were last asked about, for how long that may be acted on, and who answers for each of them."""

    def __init__(self, monotonic: Callable[[], float], may_go_on: Callable[[], Campaign]) -> None:
        self.may_go_on = may_go_on
        self._monotonic = monotonic
        self._asked_at = float("-inf")
        self.use_within_seconds = 0.0
        self.persons: dict[str, str] = {}

    def begin(self) -> None:
        """Note that the question is about to be put."""
        self._asked_at = self._monotonic()

    def is_fresh(self) -> bool:
        """Say whether the answers may still be acted on."""
        return may_act(self._asked_at, self._monotonic(), self.use_within_seconds)


class Sender:
    """Works one page off; `link_of` makes the unsubscribe link of a delivery."""

    def __init__(
        self, store: MarketingStore, gate: Gate, mailer: Mailer, link_of: Callable[[str], str], clocks: Clocks
    ) -> None:
        self._store = store
        self._gate = gate
        self._mailer = mailer
        self._link_of = link_of
        self._clocks = clocks

    def send(self, page: Page, go_on: Callable[[Page], Campaign], may_go_on: Callable[[], Campaign]) -> None:
        """Send until nothing of the page waits.

        `go_on` is asked before each chunk and `may_go_on` with each last check; they raise Waiting when the run must
        stop for now.

        Raises:
            Waiting: the run must stop for now; what was not sent waits in the page.
            LeaseLost: somebody else works on this page.
        """
        forgotten = [d for d in page.planned() if not d.address_token]
        self._save(page, [_skipped_as_erased(delivery, self._clocks.now()) for delivery in forgotten])
        tried: dict[str, int] = {}  # refused for now in this round: they wait for the next
        while _due(page, tried):
            campaign = go_on(page)
            chunk = _due(page, tried)[:CHUNK]
            self._send_chunk(campaign, page, chunk, may_go_on)
            tried |= {d.delivery_id: d.attempts for d in page.planned() if d.attempts}
        if page.planned():
            raise Waiting("MAIL_REFUSED", MAIL_RETRY_SECONDS)

    def skip(self, page: Page, reason: SkipReason, detail: str = "") -> None:
        """Record what waits as skipped: the campaign was cancelled, or its run failed."""
        now = self._clocks.now()
        self._save(page, [skipped(d, reason, detail, now) for d in page.planned()])

    def _send_chunk(
        self, campaign: Campaign, page: Page, chunk: Sequence[Delivery], may_go_on: Callable[[], Campaign]
    ) -> None:
        now = self._clocks.now()
        saved = self._save(page, [claimed(delivery, now) for delivery in chunk])
        held = [delivery for delivery in saved if delivery.state is DeliveryState.CLAIMED]
        check = _Check(self._clocks.monotonic, may_go_on)
        try:
            while held:
                if not check.is_fresh():
                    held = self._last_check(page, held, check)
                if held:
                    self._send_one(campaign, page, held.pop(0), check)
        except Waiting:
            self._release_claims(page)
            raise

    def _last_check(self, page: Page, held: Sequence[Delivery], check: _Check) -> list[Delivery]:
        """Return who may be written to now; the others are skipped.

        Raises:
            Waiting: the run must stop for now.
        """
        check.begin()
        campaign = check.may_go_on()
        by_profile = {delivery.profile_id: delivery for delivery in held}
        own = frozenset(delivery.delivery_id for delivery in held)
        run_id = held[0].run_id
        known = self._gate.look(campaign, run_id, list(by_profile), page.people, self._clocks.now(), own)
        check.use_within_seconds = known.use_within_seconds
        is_cancelled = campaign.state is CampaignState.CANCELLED
        terms = PlanTerms(
            campaign.frequency_cap, campaign.quiet_hours, None, self._clocks.now(), known.persons_in_run, is_cancelled
        )
        plans = plan_deliveries(known.candidates, terms)
        check.persons = {plan.profile_id: plan.person_id for plan in plans}
        self._save(page, [_skipped_by(by_profile[plan.profile_id], plan, terms.now) for plan in plans if plan.skip])
        return [by_profile[plan.profile_id] for plan in plans if plan.skip is None]

    def _send_one(self, campaign: Campaign, page: Page, delivery: Delivery, check: _Check) -> None:
        person_id = check.persons[delivery.profile_id]
        mail = self._mail(campaign, page, delivery, person_id)
        (marked,) = self._save(page, [sending(delivery, page.people.token(delivery.profile_id, person_id))])
        if marked.state is not DeliveryState.SENDING:  # erased since the last check
            return
        try:
            self._mailer.send(mail, lambda: self._confirm(page, marked, check))
        except MailStale:
            return  # the last check recorded why
        except MailRefused as no:
            self._save(page, [refused(marked, no.code, no.permanent, self._clocks.now())])
        except MailDown as down:
            self._save(page, [released(marked)])
            raise Waiting("MAIL_UNAVAILABLE", MAIL_RETRY_SECONDS) from down
        except Waiting:
            self._save(page, [released(marked)])
            raise
        except MailDoubtful:
            self._save(page, [doubtful(marked, self._clocks.now(), "CONNECTION_BROKE")])
        else:
            self._save(page, [sent(marked, self._clocks.now())])

    def _confirm(self, page: Page, marked: Delivery, check: _Check) -> bool:
        """Say whether the message may go out now: the check is fresh, or a new one says so."""
        if check.is_fresh():
            return True
        own = _Check(self._clocks.monotonic, check.may_go_on)  # says nothing about the others of the chunk
        if not self._last_check(page, [marked], own):
            return False
        if not own.is_fresh():
            raise Waiting("CONSENT_SLOW", SLOW_RETRY_SECONDS)
        return True

    def _mail(self, campaign: Campaign, page: Page, delivery: Delivery, person_id: str) -> OutgoingMail:
        contact = page.people.contact(delivery.profile_id, person_id)
        assert contact is not None  # the last check let through who has one
        url = self._link_of(delivery.delivery_id)
        message = render(campaign.template, contact.display_name, url)
        return OutgoingMail(delivery.delivery_id, contact.address, message.subject, message.text, message.html, url)

    def _release_claims(self, page: Page) -> None:
        held = [d for d in page.deliveries.values() if d.state is DeliveryState.CLAIMED]
        self._save(page, [released(delivery) for delivery in held])

    def _save(self, page: Page, deliveries: Sequence[Delivery]) -> list[Delivery]:
        """Write deliveries and return them as written: to an erased person nothing goes out any more.

        Raises:
            LeaseLost: somebody else wrote one of them meanwhile.
        """
        lost = set(self._store.save_deliveries(deliveries) if deliveries else ())
        again = {d.delivery_id: self._without_address(page, d) for d in deliveries if d.delivery_id in lost}
        if again and self._store.save_deliveries(list(again.values())):
            raise LeaseLost("another worker has this page")
        saved = [again.get(delivery.delivery_id, delivery) for delivery in deliveries]
        written = [replace(delivery, version=delivery.version + 1) for delivery in saved]
        page.deliveries.update({delivery.delivery_id: delivery for delivery in written})
        return written

    def _without_address(self, page: Page, delivery: Delivery) -> Delivery:
        """Return the delivery to be written when its address alone was forgotten since: its person was erased.

        What was not being handed over yet is skipped; of the others the outcome is kept.
        """
        before, stored = page.deliveries[delivery.delivery_id], self._store.delivery(delivery.delivery_id)
        expected = (before.state, before.version + 1, "")
        if stored is None or (stored.state, stored.version, stored.address_token) != expected:
            raise LeaseLost("another worker has this page")
        if before.state is not DeliveryState.SENDING:
            return _skipped_as_erased(stored, self._clocks.now())
        return replace(delivery, address_token="", version=stored.version)


def _due(page: Page, tried: dict[str, int]) -> list[Delivery]:
    return [d for d in page.planned() if tried.get(d.delivery_id) != d.attempts]


def _skipped_as_erased(delivery: Delivery, now: datetime) -> Delivery:
    return skipped(delivery, SkipReason.NO_ADDRESS, "ERASED", now)


def _skipped_by(delivery: Delivery, plan: Plan, now: datetime) -> Delivery:
    assert plan.skip is not None
    return replace(skipped(delivery, plan.skip, plan.detail, now), record_ids=plan.record_ids)
