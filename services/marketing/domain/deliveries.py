"""Deliveries and runs: what became of each recipient, and figures that add up.

A message is handed over between two writes: SENDING before, SENT after. A delivery found in SENDING after a
crash may have been sent; it becomes UNKNOWN and is never sent again (at most once).
"""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from datetime import datetime
from enum import StrEnum

from kehu.marketing.v1 import events_pb2

from services.marketing.domain.campaigns import Campaign
from services.marketing.domain.planning import Plan, SkipReason

TRIES = 3  # of a message the mail server refuses for now


class DeliveryState(StrEnum):
    """Where a delivery stands."""

    PLANNED = "PLANNED"
    CLAIMED = "CLAIMED"
    SENDING = "SENDING"
    SENT = "SENT"
    SKIPPED = "SKIPPED"
    FAILED = "FAILED"
    UNKNOWN = "UNKNOWN"


FINAL = frozenset({DeliveryState.SENT, DeliveryState.SKIPPED, DeliveryState.FAILED, DeliveryState.UNKNOWN})
MAY_HAVE_ARRIVED = frozenset({DeliveryState.SENT, DeliveryState.UNKNOWN})


class RunState(StrEnum):
    """Where a run stands."""

    SCHEDULED = "SCHEDULED"
    RUNNING = "RUNNING"
    PAUSED = "PAUSED"
    DONE = "DONE"
    CANCELLED = "CANCELLED"
    FAILED = "FAILED"


RAN = frozenset({RunState.DONE, RunState.FAILED})
OVER = RAN | {RunState.CANCELLED}


@dataclass(frozen=True, slots=True)
class Delivery:
    """One recipient of one run. `claim_time` is set while it counts towards the frequency cap."""

    delivery_id: str
    campaign_id: str
    run_id: str
    page: int
    profile_id: str
    channel: str
    purpose_id: str
    state: DeliveryState
    plan_time: datetime
    skip_reason: SkipReason | None = None
    detail: str = ""
    record_ids: tuple[str, ...] = ()
    address_token: str = ""
    claim_time: datetime | None = None
    outcome_time: datetime | None = None
    attempts: int = 0
    version: int = 0


def delivery_id_of(run_id: str, profile_id: str) -> str:
    """Return the id that makes a recipient unique in a run: 32 hexadecimal digits."""
    return hashlib.sha256(f"{run_id}\0{profile_id}".encode()).hexdigest()[:32]


def planned(template: Delivery, plan: Plan, now: datetime, address_token: str = "") -> Delivery:
    """Return the delivery of a plan; `template` carries campaign, run, page, channel and purpose."""
    made = replace(
        template,
        delivery_id=delivery_id_of(template.run_id, plan.profile_id),
        profile_id=plan.person_id,
        record_ids=plan.record_ids,
        address_token=address_token,
        plan_time=now,
    )
    return made if plan.skip is None else skipped(made, plan.skip, plan.detail, now)


def claimed(delivery: Delivery, now: datetime) -> Delivery:
    """Return the delivery counted towards the cap, for its last checks."""
    return replace(delivery, state=DeliveryState.CLAIMED, claim_time=now)


def sending(delivery: Delivery, address_token: str) -> Delivery:
    """Return the delivery as it must be stored before a byte of it is handed over; a forgotten address stays so."""
    token = address_token if delivery.address_token else ""
    return replace(delivery, state=DeliveryState.SENDING, address_token=token)


def sent(delivery: Delivery, now: datetime) -> Delivery:
    """Return the delivery the mail server took."""
    return replace(delivery, state=DeliveryState.SENT, outcome_time=now, attempts=delivery.attempts + 1)


def skipped(delivery: Delivery, reason: SkipReason, detail: str, now: datetime) -> Delivery:
    """Return the delivery that is not sent."""
    return replace(
        delivery,
        state=DeliveryState.SKIPPED,
        skip_reason=reason,
        detail=detail,
        outcome_time=now,
        claim_time=None,
    )


def refused(delivery: Delivery, code: int, permanent: bool, now: datetime) -> Delivery:
    """Return the delivery after the mail server said no: failed, or planned again for a later try."""
    attempts = delivery.attempts + 1
    if permanent or attempts >= TRIES:
        return replace(
            delivery,
            state=DeliveryState.FAILED,
            detail=f"SMTP_{code}",
            outcome_time=now,
            claim_time=None,
            attempts=attempts,
        )
    return replace(released(delivery), attempts=attempts)


def released(delivery: Delivery) -> Delivery:
    """Return a delivery that was surely not handed over to its place in the queue."""
    return replace(delivery, state=DeliveryState.PLANNED, claim_time=None)


def doubtful(delivery: Delivery, now: datetime, detail: str) -> Delivery:
    """Return a delivery that may have been handed over: never sent again."""
    return replace(delivery, state=DeliveryState.UNKNOWN, outcome_time=now, detail=detail)


def recovered(delivery: Delivery, now: datetime) -> Delivery:
    """Return what a delivery is when its worker died: nobody knows what happened to one in SENDING."""
    if delivery.state is DeliveryState.SENDING:
        return doubtful(delivery, now, "INTERRUPTED")
    return released(delivery) if delivery.state is DeliveryState.CLAIMED else delivery


def recorded(delivery: Delivery) -> events_pb2.DeliveryRecorded | None:
    """Return the fact of a final delivery; its version is the one the store will write."""
    if delivery.state not in FINAL or delivery.outcome_time is None:
        return None
    fact = events_pb2.DeliveryRecorded(
        campaign_id=delivery.campaign_id,
        run_id=delivery.run_id,
        profile_id=delivery.profile_id,
        channel=delivery.channel,
        outcome=delivery.state.lower(),
        skip_reason=delivery.skip_reason.lower() if delivery.skip_reason else "",
        version=delivery.version + 1,
    )
    fact.event_time.FromDatetime(delivery.outcome_time)
    return fact


Tally = Mapping[str, int]  # outcome, or SKIPPED|reason|detail, to recipients


def tally(deliveries: Iterable[Delivery]) -> Tally:
    """Return how many have each outcome; those without one are not counted."""
    return Counter(_key(delivery) for delivery in deliveries if delivery.state in FINAL)


def _key(delivery: Delivery) -> str:
    if delivery.state is not DeliveryState.SKIPPED:
        return delivery.state.value
    return f"{delivery.state}|{delivery.skip_reason}|{delivery.detail}"


def add(one: Tally, other: Tally) -> dict[str, int]:
    """Return the sum of two tallies."""
    return dict(Counter(one) + Counter(other))


@dataclass(frozen=True, slots=True)
class Run:
    """One run of a campaign: where it is in the audience, and the tally of the pages behind it.

    Without a `currency` it is from before a run kept its price: the campaign's holds.
    """

    run_id: str
    campaign_id: str
    rule: bytes
    state: RunState = RunState.RUNNING
    pause_reason: str = ""
    audience: int = 0
    page: int = 0
    page_ids: tuple[str, ...] = ()
    next_token: str = ""
    is_last_page: bool = False
    counts: Tally = field(default_factory=dict)
    data_cutoff: datetime | None = None
    start_time: datetime | None = None
    end_time: datetime | None = None
    failure_reason: str = ""
    message_cost_cents: int = 0
    currency: str = ""
    version: int = 0


def scheduled(run_id: str, campaign: Campaign, rule: bytes, now: datetime) -> Run:
    """Return a new run of a campaign, at the price of now."""
    return Run(
        run_id, campaign.campaign_id, rule, RunState.SCHEDULED, start_time=now,
        message_cost_cents=campaign.message_cost_cents, currency=campaign.currency,
    )  # fmt: skip


def open_page(run: Run, ids: tuple[str, ...], next_token: str, total: int, data_cutoff: datetime | None) -> Run:
    """Return the run with its next page of recipients in hand."""
    return replace(
        run,
        page=run.page + 1,
        page_ids=ids,
        next_token=next_token,
        is_last_page=not next_token,
        audience=max(total, sum(run.counts.values()) + len(ids)),
        data_cutoff=data_cutoff or run.data_cutoff,
    )


def close_page(run: Run, deliveries: Iterable[Delivery]) -> Run:
    """Return the run with the page's outcomes counted; they are counted once, by the run's own write."""
    counts = add(run.counts, tally(deliveries))
    return replace(run, page_ids=(), counts=counts, state=RunState.RUNNING, pause_reason="")


def ended(run: Run, state: RunState, now: datetime) -> Run:
    """Return the run that is over; the audience is who was walked through."""
    audience = sum(run.counts.values())
    return replace(run, state=state, pause_reason="", end_time=now, audience=audience)


def given_up(run: Run, deliveries: Iterable[Delivery], now: datetime) -> Run:
    """Return the run that failed, with the outcomes of the page in hand; who has none counts as skipped."""
    counts = add(run.counts, tally(deliveries))
    left_out = max(run.audience - sum(counts.values()), 0)
    counts = add(counts, {f"{DeliveryState.SKIPPED}|{SkipReason.RUN_FAILED}|{run.failure_reason}": left_out})
    return ended(replace(run, page_ids=(), counts=counts), RunState.FAILED, now)
