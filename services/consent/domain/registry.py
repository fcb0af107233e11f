"""Purposes and notices: why personal information is used and what people are told."""

from __future__ import annotations

import hashlib
import unicodedata
from collections.abc import Mapping
from dataclasses import dataclass, replace
from datetime import datetime
from enum import StrEnum

from services.chassis.errors import FieldViolation
from services.consent.domain.errors import NoticeInvalid, PurposeInvalid

CHANNELS = frozenset({"email", "sms", "phone", "app_push", "wechat", "post"})
VERSIONS_LIMIT = 100  # Notice.versions documents this maximum
CHANGEABLE = (
    "display_name", "description", "legal_basis", "data_categories", "channels", "retention_days",
    "separate_consents", "notice_id", "consent_valid_days", "state",
)  # fmt: skip


class LegalBasis(StrEnum):
    """What makes a use lawful, in the order of PIPL art. 13."""

    CONSENT = "CONSENT"
    CONTRACT = "CONTRACT"
    LEGAL_DUTY = "LEGAL_DUTY"
    EMERGENCY = "EMERGENCY"
    PUBLIC_INTEREST = "PUBLIC_INTEREST"
    PUBLISHED = "PUBLISHED"
    OTHER_LAW = "OTHER_LAW"


class SeparateConsent(StrEnum):
    """Uses that need a consent of their own: PIPL art. 23, 25, 26, 29, 39."""

    SHARING = "SHARING"
    PUBLICATION = "PUBLICATION"
    SURVEILLANCE = "SURVEILLANCE"
    SENSITIVE = "SENSITIVE"
    CROSS_BORDER = "CROSS_BORDER"


class PurposeState(StrEnum):
    """Whether a purpose is in use."""

    ACTIVE = "ACTIVE"
    RETIRED = "RETIRED"


@dataclass(frozen=True, slots=True)
class Purpose:
    """One reason to use personal information; days are calendar days, `consent_valid_days` 0 means no end."""

    purpose_id: str
    display_name: str
    description: str
    legal_basis: LegalBasis
    data_categories: tuple[str, ...]
    channels: tuple[str, ...]
    retention_days: int
    separate_consents: frozenset[SeparateConsent]
    notice_id: str
    consent_valid_days: int = 0
    state: PurposeState = PurposeState.ACTIVE
    version: int = 0
    create_time: datetime | None = None
    update_time: datetime | None = None


@dataclass(frozen=True, slots=True)
class NoticeText:
    """The wording in one language."""

    language: str
    body: str
    wording_hash: str


@dataclass(frozen=True, slots=True)
class NoticeVersion:
    """One published wording; `material` means that earlier grants no longer count (PIPL art. 14)."""

    number: int
    effective_time: datetime
    material: bool
    texts: tuple[NoticeText, ...]
    create_time: datetime

    def text_in(self, language: str) -> NoticeText | None:
        """Return the wording in a language, if there is one."""
        return next((text for text in self.texts if text.language == language), None)


@dataclass(frozen=True, slots=True)
class Notice:
    """A wording people are shown, with all its versions, the oldest first."""

    notice_id: str
    display_name: str
    versions: tuple[NoticeVersion, ...] = ()
    version: int = 0
    create_time: datetime | None = None
    update_time: datetime | None = None

    def version_number(self, number: int) -> NoticeVersion | None:
        """Return version 1, 2, 3 …, if there is one."""
        return self.versions[number - 1] if 1 <= number <= len(self.versions) else None

    def is_outdated(self, number: int, at: datetime) -> bool:
        """Say whether a material version after `number` is in effect at `at`."""
        return any(later.material and later.effective_time <= at for later in self.versions[number:])


def wording_hash(body: str) -> str:
    """Return SHA-256 of the wording in hexadecimal: NFC, line ends LF, outer space off."""
    text = unicodedata.normalize("NFC", body).replace("\r\n", "\n").replace("\r", "\n").strip()
    return hashlib.sha256(text.encode()).hexdigest()


def checked_purpose(purpose: Purpose) -> Purpose:
    """Return the purpose when it is consistent.

    Raises:
        PurposeInvalid: naming every field at fault.
    """
    faults = []
    if purpose.legal_basis is LegalBasis.CONSENT and not purpose.notice_id:
        faults.append(FieldViolation("purpose.notice_id", "name the notice people consent to"))
    if not purpose.display_name.strip() or len(purpose.display_name) > 100:
        faults.append(FieldViolation("purpose.display_name", "must have 1 to 100 characters"))
    if len(purpose.description) > 2000:
        faults.append(FieldViolation("purpose.description", "must have at most 2000 characters"))
    if not purpose.channels or not CHANNELS.issuperset(purpose.channels):
        faults.append(FieldViolation("purpose.channels", f"name some of {', '.join(sorted(CHANNELS))}"))
    if not purpose.data_categories or len(purpose.data_categories) > 50:
        faults.append(FieldViolation("purpose.data_categories", "name 1 to 50 groups of the dictionary"))
    if not 1 <= purpose.retention_days <= 36500:
        faults.append(FieldViolation("purpose.retention_days", "must be 1 to 36500"))
    if not 0 <= purpose.consent_valid_days <= 3660:
        faults.append(FieldViolation("purpose.consent_valid_days", "must be 0 to 3660"))
    if faults:
        raise PurposeInvalid("the purpose contradicts itself", violations=faults)
    return purpose


def change_purpose(purpose: Purpose, values: Purpose, fields: tuple[str, ...]) -> Purpose:
    """Return the purpose with the named fields taken from `values`.

    Raises:
        PurposeInvalid: the outcome contradicts itself.
    """
    changes = {field: getattr(values, field) for field in fields}
    return checked_purpose(replace(purpose, **changes))


def publish(
    notice: Notice, wordings: Mapping[str, str], effective_time: datetime, material: bool, now: datetime
) -> Notice:
    """Return the notice with one more version; `wordings` are bodies by language.

    Raises:
        NoticeInvalid: it takes effect before its predecessor, is empty, or the notice is full.
    """
    faults = []
    if notice.versions and effective_time < notice.versions[-1].effective_time:
        faults.append(FieldViolation("effective_time", "must not be before that of the version before it"))
    if not wordings or not all(body.strip() for body in wordings.values()):
        faults.append(FieldViolation("texts", "give a wording in each language named"))
    if len(notice.versions) >= VERSIONS_LIMIT:
        faults.append(FieldViolation("versions", f"a notice has at most {VERSIONS_LIMIT} versions"))
    if faults:
        raise NoticeInvalid("this version cannot be published", violations=faults)
    texts = tuple(NoticeText(language, body, wording_hash(body)) for language, body in wordings.items())
    number = len(notice.versions) + 1
    version = NoticeVersion(number, effective_time, material and number > 1, texts, now)
    return replace(notice, versions=(*notice.versions, version))
