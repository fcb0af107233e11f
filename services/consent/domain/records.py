"""Consent records: what a person answered, with the evidence; appended, never changed."""

from __future__ import annotations

import ipaddress
import re
from collections.abc import Iterable
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from enum import StrEnum

from kehu.consent.v1 import consent_pb2, events_pb2

from services.chassis.errors import FieldViolation
from services.consent.domain.errors import EvidenceInvalid, GuardianRequired, PurposeRetired, TooManyRecords
from services.consent.domain.registry import Notice, Purpose, PurposeState, SeparateConsent

RECORDS_LIMIT = 500  # of one profile: about 300 kB of the 16 MB a document may have
CLOCK_SKEW = timedelta(minutes=5)  # ConsentRecord.answer_time documents it


class ConsentState(StrEnum):
    """What a record says."""

    GRANTED = "GRANTED"
    EXPIRED = "EXPIRED"
    DENIED = "DENIED"
    REVOKED = "REVOKED"


STRICTNESS = {state: rank for rank, state in enumerate(ConsentState)}  # a later one is stricter


@dataclass(frozen=True, slots=True)
class Evidence:
    """How an answer came about; `masked_address` is masked already."""

    notice_id: str = ""
    notice_version: int = 0
    language: str = ""
    wording_hash: str = ""
    shown_time: datetime | None = None
    collected_via: str = "IMPORT"
    masked_address: str = ""
    agent: str = ""
    under_fourteen: bool = False
    guardian: bool = False
    separate_consents: frozenset[SeparateConsent] = frozenset()


@dataclass(frozen=True, slots=True)
class ConsentRecord:
    """One answer about one purpose; `channel` "" means every channel of the purpose.

    `given_for` are profiles that must be one for a grant to count, `source_record` ("source/id") what it was given on.
    """

    record_id: str
    purpose_id: str
    channel: str
    state: ConsentState
    answer_time: datetime
    create_time: datetime
    evidence: Evidence = Evidence()
    expire_time: datetime | None = None
    origin_profile_id: str = ""
    derived_from: tuple[str, ...] = ()
    source_record: str = ""
    given_for: frozenset[str] = frozenset()

    def state_at(self, at: datetime) -> ConsentState:
        """Return what the record says at a time: a grant past its end has expired."""
        ended = self.expire_time is not None and self.expire_time <= at
        return ConsentState.EXPIRED if self.state is ConsentState.GRANTED and ended else self.state


@dataclass(frozen=True, slots=True)
class ProfileConsents:
    """All consent records of one profile; after a merge `merged_into` names who answers for it.

    `family` are former ids that it answers for; `link_version` is the version of the profile that told `merged_into`.
    """

    profile_id: str
    records: tuple[ConsentRecord, ...] = ()
    merged_into: str = ""
    version: int = 0
    family: frozenset[str] = frozenset()
    link_version: int = -1

    @property
    def counting(self) -> list[ConsentRecord]:
        """Return the records that decide; the others are evidence of what was said of somebody else."""
        one = self.family | {self.profile_id}
        return [record for record in self.records if record.given_for <= one]


def standing(records: Iterable[ConsentRecord], purpose_id: str, channel: str) -> ConsentRecord | None:
    """Return the record that counts: the newest answer for the channel or for all; the strictest on a tie."""
    fitting = [r for r in records if r.purpose_id == purpose_id and r.channel in (channel, "")]
    return max(fitting, key=_weight, default=None)


def _weight(record: ConsentRecord) -> tuple[datetime, int, str]:
    return record.answer_time, STRICTNESS[record.state], record.record_id


def after_what_stands(consents: ProfileConsents, record: ConsentRecord) -> ConsentRecord:
    """Return an answer of this moment so that no earlier one counts instead, whatever clock stamped that."""
    earlier = [
        other.answer_time for other in consents.counting
        if other.purpose_id == record.purpose_id and (not record.channel or other.channel in (record.channel, ""))
    ]  # fmt: skip
    return replace(record, answer_time=max([record.answer_time, *earlier]))


def append(
    consents: ProfileConsents, record: ConsentRecord
) -> tuple[ProfileConsents, ConsentRecord, events_pb2.ConsentChanged | None]:
    """Return the consents with the record, the record that now answers the request, and the fact.

    A refusal that is already standing is not repeated once the profile is full.

    Raises:
        TooManyRecords: the profile is full and the record is a grant.
    """
    if len(consents.records) >= RECORDS_LIMIT:
        if record.state is ConsentState.GRANTED:
            raise TooManyRecords(RECORDS_LIMIT)
        last = standing(consents.counting, record.purpose_id, record.channel)
        if last is not None and (last.state, last.channel) == (record.state, record.channel):
            return consents, last, None
    grown = replace(consents, records=(*consents.records, record))
    return grown, record, changed(grown, record)


def changed(consents: ProfileConsents, record: ConsentRecord) -> events_pb2.ConsentChanged:
    """Return the fact that a record was appended; its version is the one the store will write."""
    return stands(consents, record, record.create_time)


def stands(consents: ProfileConsents, about: ConsentRecord, at: datetime) -> events_pb2.ConsentChanged:
    """Return the fact of what stands for a record's purpose and channel; a grant that does not count has expired."""
    last = standing(consents.counting, about.purpose_id, about.channel)
    state = last.state if last else ConsentState.EXPIRED
    fact = events_pb2.ConsentChanged(
        profile_id=consents.profile_id,
        purpose_id=about.purpose_id,
        channel=about.channel,
        state=consent_pb2.ConsentState.Value(f"CONSENT_STATE_{state}"),
        record_id=(last or about).record_id,
        version=consents.version + 1,
    )
    fact.event_time.FromDatetime(at)
    return fact


def accepted(record: ConsentRecord, purpose: Purpose, notice: Notice | None, now: datetime) -> ConsentRecord:
    """Return the record as it will be kept: times bounded, address masked, wording and end filled in.

    Raises:
        EvidenceInvalid, GuardianRequired, PurposeRetired: it cannot stand as evidence.
    """
    if record.answer_time > now + CLOCK_SKEW:
        raise EvidenceInvalid(
            "the answer lies in the future", violations=[FieldViolation("consent.answer_time", "must not be ahead")]
        )
    shown = record.evidence.shown_time
    latest = now + CLOCK_SKEW if record.answer_time == record.create_time else record.answer_time  # of one of now
    evidence = replace(
        record.evidence,
        masked_address=mask_network_address(record.evidence.masked_address),
        shown_time=min(shown, now) if shown is not None and shown <= latest else shown,
    )
    kept = replace(record, answer_time=min(record.answer_time, now), evidence=evidence)
    return _accepted_grant(kept, purpose, notice) if kept.state is ConsentState.GRANTED else kept


def _accepted_grant(record: ConsentRecord, purpose: Purpose, notice: Notice | None) -> ConsentRecord:
    if purpose.state is PurposeState.RETIRED:
        raise PurposeRetired(purpose.purpose_id)
    if record.channel and record.channel not in purpose.channels:
        fault = FieldViolation("consent.channel", "must be a channel of the purpose, or empty for all")
        raise EvidenceInvalid("the purpose does not use this channel", violations=[fault])
    if record.evidence.under_fourteen and not record.evidence.guardian:
        raise GuardianRequired(purpose.purpose_id)
    faults = list(_faults_of_grant(record, notice))
    if faults:
        raise EvidenceInvalid("a grant needs complete evidence", violations=faults)
    evidence = record.evidence
    version = notice.version_number(evidence.notice_version) if notice else None
    text = version.text_in(evidence.language) if version else None
    if notice is not None and text is not None:
        evidence = replace(evidence, notice_id=notice.notice_id, wording_hash=text.wording_hash)
    end = record.expire_time
    if end is None and purpose.consent_valid_days:
        end = record.answer_time + timedelta(days=purpose.consent_valid_days)
    return replace(record, evidence=evidence, expire_time=end)


def _faults_of_grant(record: ConsentRecord, notice: Notice | None) -> Iterable[FieldViolation]:
    evidence = record.evidence
    if record.expire_time is not None and record.expire_time <= record.answer_time:
        yield FieldViolation("consent.expire_time", "must be after answer_time")
    if notice is None:
        return
    version = notice.version_number(evidence.notice_version)
    text = version.text_in(evidence.language) if version else None
    if version is None:
        yield FieldViolation("consent.notice_version", "must be a version of the purpose's notice")
    elif text is None:
        yield FieldViolation("consent.language", "must be a language of that version")
    elif evidence.wording_hash not in ("", text.wording_hash):
        yield FieldViolation("consent.wording_hash", "must be the hash of the wording shown, or empty")
    if evidence.shown_time is None:
        yield FieldViolation("consent.shown_time", "say when the notice was shown")
    elif evidence.shown_time > record.answer_time:
        yield FieldViolation("consent.shown_time", "must not be after answer_time")
    elif version is not None and evidence.shown_time < version.effective_time:
        yield FieldViolation("consent.shown_time", "must not be before the version's effective_time")


_EMAIL = re.compile(r"^([^@\s])[^@\s]*@([^@\s]+)$")
_MASKED = re.compile(r"^[0-9A-Fa-f.:]*\*+[0-9]*$|^.\*+@[^@\s]+$")


def mask_network_address(value: str) -> str:
    """Return the address with the part that singles out a person starred: 203.0.113.*, z***@x.cn, 138****8000."""
    text = value.strip()
    if not text or _MASKED.match(text):
        return text
    try:
        address = ipaddress.ip_address(text)
    except ValueError:
        return _mask_contact(text)
    if isinstance(address, ipaddress.IPv4Address):
        return f"{str(address).rpartition('.')[0]}.*"
    return ":".join(address.exploded.split(":")[:3]) + ":*"


def _mask_contact(text: str) -> str:
    mail = _EMAIL.match(text)
    if mail:
        return f"{mail[1]}***@{mail[2]}"
    digits = re.sub(r"\D", "", text)
    return f"{digits[:3]}****{digits[-4:]}" if len(digits) >= 8 else "***"


def without_identifiers(consents: ProfileConsents) -> ProfileConsents:
    """Return the consents of an erased person: every answer with its notice, channel and times, but nobody's name.

    The proof stays: that it was allowed is for whoever processed the data to show (PIPL article 69).
    """
    bare = tuple(
        replace(record, source_record="", evidence=replace(record.evidence, masked_address="", agent=""))
        for record in consents.records
    )
    return replace(consents, records=bare)
