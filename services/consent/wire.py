"""Between the consent domain's values and their proto messages."""

from __future__ import annotations

from collections.abc import Collection, Iterable
from datetime import UTC, datetime

from google.protobuf.timestamp_pb2 import Timestamp
from kehu.consent.v1 import consent_pb2 as pb

from services.chassis.records import etag_of
from services.chassis.times import timestamp
from services.consent.domain.decision import Decision
from services.consent.domain.records import ConsentRecord, ConsentState, Evidence
from services.consent.domain.registry import (
    LegalBasis,
    Notice,
    NoticeVersion,
    Purpose,
    PurposeState,
    SeparateConsent,
)

_STATES = {state: pb.ConsentState.Value(f"CONSENT_STATE_{state}") for state in ConsentState}
_VIAS = {name.removeprefix("COLLECTED_VIA_"): number for name, number in pb.CollectedVia.items()}
_SEPARATE = {kind: pb.SeparateConsent.Value(f"SEPARATE_CONSENT_{kind}") for kind in SeparateConsent}


def milliseconds(value: datetime) -> datetime:
    """Return the time cut to milliseconds, the precision of the database."""
    return value.replace(microsecond=value.microsecond // 1000 * 1000)


def time_of(stamp: Timestamp) -> datetime:
    """Return a timestamp as an aware UTC time, in milliseconds."""
    return milliseconds(stamp.ToDatetime(tzinfo=UTC))


def _separate(values: Iterable[int]) -> frozenset[SeparateConsent]:
    names = (pb.SeparateConsent.Name(value).removeprefix("SEPARATE_CONSENT_") for value in values)
    return frozenset(SeparateConsent(name) for name in names)


def _separate_to_proto(kinds: Collection[SeparateConsent]) -> list[pb.SeparateConsent]:
    return sorted(map(_SEPARATE.__getitem__, kinds)) if kinds else []


def purpose_from(purpose_id: str, message: pb.Purpose) -> Purpose:
    """Return the purpose a request describes; a basis left out counts as consent, the strictest."""
    basis = pb.LegalBasis.Name(message.legal_basis).removeprefix("LEGAL_BASIS_")
    retired = message.state == pb.PURPOSE_STATE_RETIRED
    return Purpose(
        purpose_id=purpose_id,
        display_name=message.display_name,
        description=message.description,
        legal_basis=LegalBasis.CONSENT if basis == "UNSPECIFIED" else LegalBasis(basis),
        data_categories=tuple(message.data_categories),
        channels=tuple(message.channels),
        retention_days=message.retention_days,
        separate_consents=_separate(message.separate_consents),
        notice_id=message.notice_id,
        consent_valid_days=message.consent_valid_days,
        state=PurposeState.RETIRED if retired else PurposeState.ACTIVE,
    )


def purpose_to_proto(purpose: Purpose) -> pb.Purpose:
    """Return the resource of a purpose."""
    return pb.Purpose(
        name=f"purposes/{purpose.purpose_id}",
        display_name=purpose.display_name,
        description=purpose.description,
        legal_basis=pb.LegalBasis.Value(f"LEGAL_BASIS_{purpose.legal_basis}"),
        data_categories=purpose.data_categories,
        channels=purpose.channels,
        retention_days=purpose.retention_days,
        separate_consents=_separate_to_proto(purpose.separate_consents),  # type: ignore[arg-type]
        notice_id=purpose.notice_id,
        consent_valid_days=purpose.consent_valid_days,
        state=pb.PurposeState.Value(f"PURPOSE_STATE_{purpose.state}"),
        create_time=purpose.create_time,
        update_time=purpose.update_time,
        etag=etag_of(purpose.version),
    )


def notice_to_proto(notice: Notice) -> pb.Notice:
    """Return the resource of a notice."""
    return pb.Notice(
        name=f"notices/{notice.notice_id}",
        display_name=notice.display_name,
        versions=[_version_to_proto(version) for version in notice.versions],
        create_time=notice.create_time,
        update_time=notice.update_time,
        etag=etag_of(notice.version),
    )


def _version_to_proto(version: NoticeVersion) -> pb.NoticeVersion:
    texts = [pb.NoticeText(language=t.language, body=t.body, wording_hash=t.wording_hash) for t in version.texts]
    return pb.NoticeVersion(
        version=version.number,
        effective_time=version.effective_time,
        material=version.material,
        texts=texts,
        create_time=version.create_time,
    )


def record_from(message: pb.ConsentRecord, record_id: str, now: datetime) -> ConsentRecord:
    """Return the record a request describes, not yet checked."""
    evidence = Evidence(
        notice_version=message.notice_version,
        language=message.language,
        wording_hash=message.wording_hash,
        shown_time=time_of(message.shown_time) if message.HasField("shown_time") else None,
        collected_via=pb.CollectedVia.Name(message.collected_via).removeprefix("COLLECTED_VIA_"),
        masked_address=message.masked_address,
        agent=message.agent,
        under_fourteen=message.under_fourteen,
        guardian=message.guardian,
        separate_consents=_separate(message.separate_consents),
    )
    return ConsentRecord(
        record_id=record_id,
        purpose_id=message.purpose_id,
        channel=message.channel,
        state=ConsentState(pb.ConsentState.Name(message.state).removeprefix("CONSENT_STATE_")),
        answer_time=time_of(message.answer_time) if message.HasField("answer_time") else now,
        create_time=now,
        evidence=evidence,
        expire_time=time_of(message.expire_time) if message.HasField("expire_time") else None,
        source_record=_record_key(message),
    )


def _record_key(message: pb.ConsentRecord) -> str:
    """Return "source/record id" of the customer's record, empty when none is named."""
    record = message.source_record
    return f"{record.source.removeprefix('sources/')}/{record.source_record_id}" if record.source_record_id else ""


def record_to_proto(profile_id: str, record: ConsentRecord) -> pb.ConsentRecord:
    """Return the resource of a record under the profile that holds it."""
    evidence = record.evidence
    message = pb.ConsentRecord(
        name=f"profiles/{profile_id}/consents/{record.record_id}",
        purpose_id=record.purpose_id,
        channel=record.channel,
        state=_STATES[record.state],
        notice_id=evidence.notice_id,
        notice_version=evidence.notice_version,
        language=evidence.language,
        wording_hash=evidence.wording_hash,
        shown_time=timestamp(evidence.shown_time),
        answer_time=timestamp(record.answer_time),
        expire_time=timestamp(record.expire_time),
        collected_via=_VIAS[evidence.collected_via],
        masked_address=evidence.masked_address,
        agent=evidence.agent,
        under_fourteen=evidence.under_fourteen,
        guardian=evidence.guardian,
        separate_consents=_separate_to_proto(evidence.separate_consents),
        origin_profile_id=record.origin_profile_id,
        derived_from=record.derived_from,
        create_time=timestamp(record.create_time),
        given_for=sorted(record.given_for),
    )
    if record.source_record:
        source, _, record_id = record.source_record.partition("/")
        message.source_record.source, message.source_record.source_record_id = f"sources/{source}", record_id
    return message


def decision_to_proto(profile_id: str, decision: Decision) -> pb.Decision:
    """Return the reply about one profile, under the id that was asked about."""
    return pb.Decision(
        profile_id=profile_id,
        allowed=decision.allowed,
        reason=decision.reason.value,
        record_ids=decision.record_ids,
    )
