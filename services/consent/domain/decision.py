"""The decision: may this person be addressed for this purpose on this channel? Any doubt is a refusal."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum

from services.consent.domain.records import ConsentRecord, ConsentState, standing
from services.consent.domain.registry import LegalBasis, Notice, Purpose, PurposeState, SeparateConsent

USE_WITHIN_SECONDS = 0.5  # how long an allowance may be acted on; a withdrawal is acknowledged after as long


class Reason(StrEnum):
    """Why a decision came out as it did; the names of DecisionReason."""

    GRANTED = "GRANTED"
    LEGAL_BASIS = "LEGAL_BASIS"
    UNKNOWN_PURPOSE = "UNKNOWN_PURPOSE"
    PURPOSE_RETIRED = "PURPOSE_RETIRED"
    CHANNEL_NOT_IN_PURPOSE = "CHANNEL_NOT_IN_PURPOSE"
    NO_RECORD = "NO_RECORD"
    DENIED = "DENIED"
    REVOKED = "REVOKED"
    EXPIRED = "EXPIRED"
    NOTICE_OUTDATED = "NOTICE_OUTDATED"
    NOTICE_UNKNOWN = "NOTICE_UNKNOWN"
    SEPARATE_CONSENT_MISSING = "SEPARATE_CONSENT_MISSING"
    GUARDIAN_MISSING = "GUARDIAN_MISSING"


ALLOWING = frozenset({Reason.GRANTED, Reason.LEGAL_BASIS})


@dataclass(frozen=True, slots=True)
class Decision:
    """Allowed or not, why, and the records it rests on."""

    reason: Reason
    record_ids: tuple[str, ...] = ()

    @property
    def allowed(self) -> bool:
        """Say whether the use is allowed."""
        return self.reason in ALLOWING


@dataclass(frozen=True, slots=True)
class Terms:
    """What a decision is made against: the purpose, its notice, the channel, and the time."""

    purpose: Purpose | None
    notice: Notice | None
    channel: str
    at: datetime
    accept_legal_basis: bool = False


def decide(records: Iterable[ConsentRecord], terms: Terms) -> Decision:
    """Return the decision on one person's records; all records given count, whatever their time."""
    purpose = terms.purpose
    if purpose is None:
        return Decision(Reason.UNKNOWN_PURPOSE)
    if purpose.state is not PurposeState.ACTIVE:
        return Decision(Reason.PURPOSE_RETIRED)
    if terms.channel not in purpose.channels:
        return Decision(Reason.CHANNEL_NOT_IN_PURPOSE)
    record = standing(records, purpose.purpose_id, terms.channel)
    reason = Reason.NO_RECORD if record is None else _reason_of(record, purpose, terms)
    if reason in (Reason.NO_RECORD, Reason.EXPIRED) and _rests_on_law(purpose, terms):
        reason = Reason.LEGAL_BASIS
    return Decision(reason, () if record is None else (record.record_id,))


def known_at(records: Iterable[ConsentRecord], at: datetime) -> list[ConsentRecord]:
    """Return the records the service held at a past time, for looking back."""
    return [record for record in records if record.create_time <= at and record.answer_time <= at]


def _rests_on_law(purpose: Purpose, terms: Terms) -> bool:
    is_lawful = purpose.legal_basis is not LegalBasis.CONSENT and not purpose.separate_consents
    return terms.accept_legal_basis and is_lawful


def _reason_of(record: ConsentRecord, purpose: Purpose, terms: Terms) -> Reason:
    state = record.state_at(terms.at)
    if state is not ConsentState.GRANTED:
        return Reason(state.value)
    evidence = record.evidence
    if evidence.under_fourteen and not evidence.guardian:
        return Reason.GUARDIAN_MISSING
    if purpose.notice_id:
        notice = terms.notice
        if notice is None or evidence.notice_id != notice.notice_id or notice.notice_id != purpose.notice_id:
            return Reason.NOTICE_UNKNOWN
        if notice.version_number(evidence.notice_version) is None:
            return Reason.NOTICE_UNKNOWN
        if notice.is_outdated(evidence.notice_version, terms.at):
            return Reason.NOTICE_OUTDATED
    elif purpose.legal_basis is LegalBasis.CONSENT:
        return Reason.NOTICE_UNKNOWN
    if _separate_consents_for(record, purpose) - evidence.separate_consents:
        return Reason.SEPARATE_CONSENT_MISSING
    return Reason.GRANTED


def _separate_consents_for(record: ConsentRecord, purpose: Purpose) -> frozenset[SeparateConsent]:
    """Return what is needed; every datum of a child under fourteen is sensitive (PIPL art. 28)."""
    if record.evidence.under_fourteen:
        return purpose.separate_consents | {SeparateConsent.SENSITIVE}
    return purpose.separate_consents
