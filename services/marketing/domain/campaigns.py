"""Campaigns: what is sent to whom, for what purpose, within what limits, and in which state."""

from __future__ import annotations

from dataclasses import dataclass, replace
from datetime import datetime, time
from enum import StrEnum

from kehu.marketing.v1 import events_pb2

from services.chassis.errors import FieldViolation
from services.marketing.domain.errors import (
    CampaignInvalid,
    CampaignStateForbids,
    SendWithoutPurpose,
)
from services.marketing.domain.templates import Template, checked_template

CHANNELS = frozenset({"email"})
MOST_COST_CENTS = 10**9  # of a message: what the largest audience costs fits the report's 64 bits
CHANGEABLE = (
    "display_name", "segment_id", "purpose_id", "channel", "template", "frequency_cap", "quiet_hours",
    "budget_cents", "message_cost_cents", "currency", "schedule_time",
)  # fmt: skip


class CampaignState(StrEnum):
    """Where a campaign stands."""

    DRAFT = "DRAFT"
    SCHEDULED = "SCHEDULED"
    RUNNING = "RUNNING"
    PAUSED = "PAUSED"
    DONE = "DONE"
    CANCELLED = "CANCELLED"
    FAILED = "FAILED"


AT_REST = frozenset({CampaignState.DRAFT, CampaignState.DONE, CampaignState.FAILED})
UNDER_WAY = frozenset({CampaignState.SCHEDULED, CampaignState.RUNNING, CampaignState.PAUSED})


class QuietPolicy(StrEnum):
    """What becomes of messages in quiet hours."""

    NEXT_SLOT = "NEXT_SLOT"
    DROP = "DROP"


@dataclass(frozen=True, slots=True)
class FrequencyCap:
    """At most `max_messages` to one person in `window_days`, over all campaigns."""

    max_messages: int = 3
    window_days: int = 7


@dataclass(frozen=True, slots=True)
class QuietHours:
    """When nothing is sent, China Standard Time; equal ends mean never."""

    start: time = time(22)
    end: time = time(8)
    policy: QuietPolicy = QuietPolicy.NEXT_SLOT


@dataclass(frozen=True, slots=True)
class Campaign:
    """A message to the people of a segment, for a purpose; money in 1/100 of the currency unit."""

    campaign_id: str
    display_name: str
    segment_id: str
    purpose_id: str
    channel: str
    template: Template
    frequency_cap: FrequencyCap = FrequencyCap()
    quiet_hours: QuietHours = QuietHours()
    budget_cents: int = 0
    message_cost_cents: int = 0
    currency: str = "CNY"
    schedule_time: datetime | None = None
    state: CampaignState = CampaignState.DRAFT
    run_id: str = ""
    owner_department: str = ""
    version: int = 0
    create_time: datetime | None = None
    update_time: datetime | None = None


Changed = tuple[Campaign, events_pb2.CampaignChanged]

# Which states each step may leave, and where it leads.
_STEPS: dict[str, tuple[frozenset[CampaignState], CampaignState]] = {
    "run": (AT_REST, CampaignState.RUNNING),
    "schedule": (AT_REST, CampaignState.SCHEDULED),
    "begin": (frozenset({CampaignState.SCHEDULED}), CampaignState.RUNNING),
    "pause": (frozenset({CampaignState.RUNNING, CampaignState.SCHEDULED}), CampaignState.PAUSED),
    "resume": (frozenset({CampaignState.PAUSED}), CampaignState.RUNNING),
    "finish": (frozenset({CampaignState.RUNNING, CampaignState.PAUSED}), CampaignState.DONE),
    "fail": (UNDER_WAY, CampaignState.FAILED),
    "cancel": (UNDER_WAY | {CampaignState.DRAFT}, CampaignState.CANCELLED),
}


def checked_campaign(campaign: Campaign) -> Campaign:
    """Return the campaign when it is consistent.

    Raises:
        SendWithoutPurpose, CampaignInvalid, TemplateInvalid: it could not be run.
    """
    if not campaign.purpose_id:
        fault = FieldViolation("campaign.purpose_id", "name a purpose of /v1/purposes")
        raise SendWithoutPurpose("name the purpose that recipients consented to", violations=[fault])
    faults = []
    if not campaign.display_name.strip() or len(campaign.display_name) > 100:
        faults.append(FieldViolation("campaign.display_name", "must have 1 to 100 characters"))
    if campaign.channel not in CHANNELS:
        faults.append(FieldViolation("campaign.channel", f"must be one of {', '.join(sorted(CHANNELS))}"))
    if campaign.budget_cents < 0 or campaign.message_cost_cents < 0:
        faults.append(FieldViolation("campaign.budget_cents", "money must not be negative"))
    if campaign.message_cost_cents > MOST_COST_CENTS:
        faults.append(FieldViolation("campaign.message_cost_cents", f"must be at most {MOST_COST_CENTS}"))
    if campaign.budget_cents and not campaign.message_cost_cents:
        faults.append(FieldViolation("campaign.message_cost_cents", "a budget needs the cost of a message"))
    cap = campaign.frequency_cap
    if not (1 <= cap.max_messages <= 100 and 1 <= cap.window_days <= 90):
        faults.append(FieldViolation("campaign.frequency_cap", "1 to 100 messages in 1 to 90 days"))
    if faults:
        raise CampaignInvalid("the campaign contradicts itself", violations=faults)
    checked_template(campaign.template)
    return campaign


def change_campaign(campaign: Campaign, values: Campaign, fields: tuple[str, ...]) -> Campaign:
    """Return the campaign with the named fields taken from `values`.

    Raises:
        CampaignStateForbids: a run is under way, scheduled, or the campaign is over.
        CampaignInvalid, TemplateInvalid, SendWithoutPurpose: the outcome is wrong.
    """
    if campaign.state not in AT_REST:
        raise _forbidden(campaign, "update")
    changes = {field: getattr(values, field) for field in fields}
    return checked_campaign(replace(campaign, **changes))


def step(campaign: Campaign, name: str, now: datetime, run_id: str = "") -> Changed:
    """Return the campaign after a step (run, begin, pause, resume, finish, fail, cancel) and the fact.

    A campaign whose schedule_time is ahead is scheduled instead of run or resumed.

    Raises:
        CampaignStateForbids: the state does not allow the step.
    """
    ahead = campaign.schedule_time is not None and campaign.schedule_time > now
    allowed, state = _STEPS["schedule" if name == "run" and ahead else name]
    if campaign.state not in allowed:
        raise _forbidden(campaign, name)
    if name == "resume" and ahead:
        state = CampaignState.SCHEDULED
    if state in UNDER_WAY:
        checked_campaign(campaign)  # whatever is wrong with one, it can end
    changed = replace(campaign, state=state, run_id=run_id or campaign.run_id)
    return changed, changed_fact(changed, now)


def changed_fact(campaign: Campaign, now: datetime) -> events_pb2.CampaignChanged:
    """Return the fact of a campaign's state; its version is the one the store will write."""
    fact = events_pb2.CampaignChanged(
        campaign_id=campaign.campaign_id,
        state=campaign.state.lower(),
        run_id=campaign.run_id,
        owner_department=campaign.owner_department,
        version=campaign.version + 1,
    )
    fact.event_time.FromDatetime(now)
    return fact


def _forbidden(campaign: Campaign, wanted: str) -> CampaignStateForbids:
    message = f"a campaign that is {campaign.state.lower()} cannot {wanted}"
    return CampaignStateForbids(message, metadata={"state": campaign.state.value, "wanted": wanted})
