"""The delivery gate: who of a page is written to, who is skipped and why. Every recipient gets an outcome."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from datetime import datetime, timedelta
from enum import StrEnum

from services.chassis.times import CHINA
from services.marketing.domain.campaigns import FrequencyCap, QuietHours, QuietPolicy


class SkipReason(StrEnum):
    """Why a recipient is not written to; the first that applies, in this order."""

    CANCELLED = "CANCELLED"
    DUPLICATE = "DUPLICATE"
    SUPPRESSED = "SUPPRESSED"
    CONSENT = "CONSENT"
    NO_ADDRESS = "NO_ADDRESS"
    FREQUENCY_CAP = "FREQUENCY_CAP"
    QUIET_HOURS = "QUIET_HOURS"
    BUDGET = "BUDGET"
    RUN_FAILED = "RUN_FAILED"


@dataclass(frozen=True, slots=True)
class ConsentAnswer:
    """What the consent service said about one person; no answer is a refusal."""

    allowed: bool = False
    reason: str = "NO_ANSWER"
    record_ids: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Candidate:
    """What is known of one recipient; `person_id` is the survivor when `profile_id` was merged away.

    `recent_messages` counts what the person got, or is just being sent, within the cap's window.
    """

    profile_id: str
    person_id: str
    consent: ConsentAnswer
    has_address: bool
    is_suppressed: bool
    recent_messages: int


@dataclass(frozen=True, slots=True)
class PlanTerms:
    """The limits of a run at the moment of planning; `affordable` messages, None without a budget."""

    cap: FrequencyCap
    quiet: QuietHours
    affordable: int | None
    now: datetime
    persons_in_run: frozenset[str] = frozenset()
    cancelled: bool = False


@dataclass(frozen=True, slots=True)
class Plan:
    """The outcome for one recipient; `skip` None means the message goes out."""

    profile_id: str
    person_id: str
    skip: SkipReason | None
    detail: str = ""
    record_ids: tuple[str, ...] = ()


def plan_deliveries(candidates: Iterable[Candidate], terms: PlanTerms) -> list[Plan]:
    """Return one plan for each candidate, in order."""
    seen = set(terms.persons_in_run)
    left = terms.affordable
    plans = []
    for candidate in candidates:
        skip, detail = _skip(candidate, terms, candidate.person_id in seen, left)
        seen.add(candidate.person_id)
        if skip is None and left is not None:
            left -= 1
        plans.append(Plan(candidate.profile_id, candidate.person_id, skip, detail, candidate.consent.record_ids))
    return plans


def _skip(
    candidate: Candidate, terms: PlanTerms, is_duplicate: bool, left: int | None
) -> tuple[SkipReason | None, str]:
    consent = candidate.consent
    drops = terms.quiet.policy is QuietPolicy.DROP and quiet_until(terms.quiet, terms.now) is not None
    checks: tuple[tuple[bool, SkipReason, str], ...] = (
        (terms.cancelled, SkipReason.CANCELLED, ""),
        (is_duplicate, SkipReason.DUPLICATE, ""),
        (candidate.is_suppressed, SkipReason.SUPPRESSED, ""),
        (not consent.allowed, SkipReason.CONSENT, consent.reason),
        (not candidate.has_address, SkipReason.NO_ADDRESS, ""),
        (candidate.recent_messages >= terms.cap.max_messages, SkipReason.FREQUENCY_CAP, ""),
        (drops, SkipReason.QUIET_HOURS, ""),
        (left is not None and left <= 0, SkipReason.BUDGET, ""),
    )
    return next(((reason, detail) for applies, reason, detail in checks if applies), (None, ""))


def quiet_until(quiet: QuietHours, now: datetime) -> datetime | None:
    """Return when the quiet hours that `now` falls into end, or None outside them."""
    if quiet.start == quiet.end:
        return None
    local = now.astimezone(CHINA)
    for days in (-1, 0):
        start = datetime.combine(local.date() + timedelta(days=days), quiet.start, CHINA)
        crosses_midnight = quiet.end < quiet.start
        end = datetime.combine(start.date() + timedelta(days=crosses_midnight), quiet.end, CHINA)
        if start <= local < end:
            return end.astimezone(now.tzinfo)
    return None


def affordable_messages(budget_cents: int, message_cost_cents: int, charged: int) -> int | None:
    """Return how many more messages the budget pays for after `charged` ones; None without a budget."""
    if not budget_cents:
        return None
    return max(budget_cents // message_cost_cents - charged, 0) if message_cost_cents else 0


def may_act(asked_at: float, now: float, use_within_seconds: float) -> bool:
    """Say whether an allowance asked for at `asked_at` may still be acted on (monotonic seconds)."""
    return 0 <= now - asked_at < use_within_seconds
