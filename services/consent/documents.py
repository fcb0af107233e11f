"""How the values of the consent domain lie in MongoDB; private to the store."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime
from typing import ClassVar

import mongoengine as me

from services.chassis.records import RECORD_INDEXES, Record
from services.consent.domain.records import ConsentRecord, ConsentState, Evidence, ProfileConsents
from services.consent.domain.registry import (
    LegalBasis,
    Notice,
    NoticeText,
    NoticeVersion,
    Purpose,
    PurposeState,
    SeparateConsent,
)

_META: dict[str, object] = {
    "db_alias": "consent",
    "indexes": [*RECORD_INDEXES],
    "auto_create_index": False,
    "strict": False,
}


class PurposeDocument(Record):
    """A purpose; the id is the purpose's own."""

    display_name = me.StringField()
    description = me.StringField()
    legal_basis = me.StringField()
    data_categories = me.ListField(me.StringField())
    channels = me.ListField(me.StringField())
    retention_days = me.IntField()
    separate_consents = me.ListField(me.StringField())
    notice_id = me.StringField()
    consent_valid_days = me.IntField()
    state = me.StringField()
    meta: ClassVar[dict[str, object]] = {**_META, "collection": "purposes"}


class NoticeDocument(Record):
    """A notice with its versions; the id is the notice's own."""

    display_name = me.StringField()
    versions = me.ListField(me.DictField())
    meta: ClassVar[dict[str, object]] = {**_META, "collection": "notices"}


class ConsentsDocument(Record):
    """The consent records of one profile; the id is the profile's."""

    records = me.ListField(me.DictField())
    merged_into = me.StringField(default="")
    family = me.ListField(me.StringField())
    link_version = me.IntField()
    meta: ClassVar[dict[str, object]] = {**_META, "collection": "consents"}


RECORD_CLASSES: tuple[type[Record], ...] = (PurposeDocument, NoticeDocument, ConsentsDocument)


def purpose_document(purpose: Purpose) -> PurposeDocument:
    """Return the document of a purpose."""
    return PurposeDocument(
        id=purpose.purpose_id,
        version=purpose.version,
        create_time=purpose.create_time,
        display_name=purpose.display_name,
        description=purpose.description,
        legal_basis=purpose.legal_basis.value,
        data_categories=list(purpose.data_categories),
        channels=list(purpose.channels),
        retention_days=purpose.retention_days,
        separate_consents=sorted(purpose.separate_consents),
        notice_id=purpose.notice_id,
        consent_valid_days=purpose.consent_valid_days,
        state=purpose.state.value,
    )


def purpose_of(document: PurposeDocument) -> Purpose:
    """Return the purpose of a document."""
    return Purpose(
        purpose_id=document.id,
        display_name=document.display_name,
        description=document.description or "",
        legal_basis=LegalBasis(document.legal_basis),
        data_categories=tuple(document.data_categories),
        channels=tuple(document.channels),
        retention_days=document.retention_days,
        separate_consents=frozenset(SeparateConsent(kind) for kind in document.separate_consents),
        notice_id=document.notice_id or "",
        consent_valid_days=document.consent_valid_days,
        state=PurposeState(document.state),
        version=document.version,
        create_time=document.create_time,
        update_time=document.update_time,
    )


def notice_document(notice: Notice) -> NoticeDocument:
    """Return the document of a notice."""
    versions = [
        {
            "effective_time": version.effective_time,
            "material": version.material,
            "create_time": version.create_time,
            "texts": [{"language": t.language, "body": t.body, "hash": t.wording_hash} for t in version.texts],
        }
        for version in notice.versions
    ]
    return NoticeDocument(
        id=notice.notice_id,
        version=notice.version,
        create_time=notice.create_time,
        display_name=notice.display_name,
        versions=versions,
    )


def notice_of(document: NoticeDocument) -> Notice:
    """Return the notice of a document."""
    versions = tuple(_version_of(number, row) for number, row in enumerate(document.versions, start=1))
    return Notice(
        notice_id=document.id,
        display_name=document.display_name,
        versions=versions,
        version=document.version,
        create_time=document.create_time,
        update_time=document.update_time,
    )


def _version_of(number: int, row: Mapping[str, object]) -> NoticeVersion:
    texts = row["texts"]
    effective, created = row["effective_time"], row["create_time"]
    assert isinstance(texts, list) and isinstance(effective, datetime) and isinstance(created, datetime)
    kept = tuple(NoticeText(text["language"], text["body"], text["hash"]) for text in texts)
    return NoticeVersion(number, effective, bool(row["material"]), kept, created)


def consents_document(consents: ProfileConsents) -> ConsentsDocument:
    """Return the document of a profile's consents."""
    return ConsentsDocument(
        id=consents.profile_id,
        version=consents.version,
        merged_into=consents.merged_into,
        family=sorted(consents.family),
        link_version=consents.link_version,
        records=[_record_row(record) for record in consents.records],
    )


def consents_of(row: Mapping[str, object]) -> ProfileConsents:
    """Return a profile's consents from the raw document: decisions read 500 at once."""
    rows, family = row.get("records") or [], row.get("family") or []
    assert isinstance(rows, list) and isinstance(family, list)
    merged_into = str(row.get("merged_into") or "")
    link_version = row.get("link_version", 0 if merged_into else -1)  # 0: from before versions were told
    return ProfileConsents(
        profile_id=str(row["_id"]),
        records=tuple(_record_of(item) for item in rows),
        merged_into=merged_into,
        version=int(str(row["version"])),
        family=frozenset(family),
        link_version=int(str(link_version)),
    )


def _record_row(record: ConsentRecord) -> dict[str, object]:
    evidence = record.evidence
    row: dict[str, object] = {
        "id": record.record_id,
        "purpose": record.purpose_id,
        "channel": record.channel,
        "state": record.state.value,
        "answer_time": record.answer_time,
        "create_time": record.create_time,
        "expire_time": record.expire_time,
        "origin": record.origin_profile_id,
        "derived_from": list(record.derived_from),
        "source_record": record.source_record,
        "given_for": sorted(record.given_for),
        "notice": evidence.notice_id,
        "notice_version": evidence.notice_version,
        "language": evidence.language,
        "hash": evidence.wording_hash,
        "shown_time": evidence.shown_time,
        "via": evidence.collected_via,
        "address": evidence.masked_address,
        "agent": evidence.agent,
        "child": evidence.under_fourteen,
        "guardian": evidence.guardian,
        "separate": sorted(evidence.separate_consents),
    }
    return {key: value for key, value in row.items() if value not in (None, "", [], False, 0)}


def _record_of(row: Mapping[str, object]) -> ConsentRecord:
    get = row.get
    evidence = Evidence(
        notice_id=get("notice", ""),  # type: ignore[arg-type]
        notice_version=get("notice_version", 0),  # type: ignore[arg-type]
        language=get("language", ""),  # type: ignore[arg-type]
        wording_hash=get("hash", ""),  # type: ignore[arg-type]
        shown_time=get("shown_time"),  # type: ignore[arg-type]
        collected_via=get("via", "IMPORT"),  # type: ignore[arg-type]
        masked_address=get("address", ""),  # type: ignore[arg-type]
        agent=get("agent", ""),  # type: ignore[arg-type]
        under_fourteen=get("child", False),  # type: ignore[arg-type]
        guardian=get("guardian", False),  # type: ignore[arg-type]
        separate_consents=frozenset(SeparateConsent(kind) for kind in get("separate", ())),  # type: ignore[attr-defined]
    )
    return ConsentRecord(
        record_id=row["id"],  # type: ignore[arg-type]
        purpose_id=row["purpose"],  # type: ignore[arg-type]
        channel=get("channel", ""),  # type: ignore[arg-type]
        state=ConsentState(str(row["state"])),
        answer_time=row["answer_time"],  # type: ignore[arg-type]
        create_time=row["create_time"],  # type: ignore[arg-type]
        evidence=evidence,
        expire_time=get("expire_time"),  # type: ignore[arg-type]
        origin_profile_id=get("origin", ""),  # type: ignore[arg-type]
        derived_from=tuple(get("derived_from", ())),  # type: ignore[arg-type]
        source_record=get("source_record", ""),  # type: ignore[arg-type]
        given_for=frozenset(get("given_for", ())),  # type: ignore[call-overload]
    )
