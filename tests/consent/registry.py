"""The purposes and notices the consent tests speak of, as decisions.yaml describes them."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, date, datetime

from services.consent.domain.records import ConsentRecord, ConsentState, Evidence
from services.consent.domain.registry import (
    LegalBasis,
    Notice,
    Purpose,
    PurposeState,
    SeparateConsent,
    publish,
)


def day(text: str | date) -> datetime:
    """Return the start of a day, UTC."""
    return datetime.fromisoformat(str(text)).replace(tzinfo=UTC)


def member_notice() -> Notice:
    """Return the notice of decisions.yaml with its three versions."""
    notice = Notice("member", "会员隐私告知")
    wordings = {"zh-CN": "我们用您的邮箱发送优惠。", "en": "We use your e-mail address to send offers."}
    for effective, material in (("2026-01-01", True), ("2026-03-01", False), ("2026-06-01", True)):
        body = {language: f"{text} ({effective})" for language, text in wordings.items()}
        notice = publish(notice, body, day(effective), material, day(effective))
    return notice


OFFERS = Purpose(
    purpose_id="offers",
    display_name="会员优惠",
    description="",
    legal_basis=LegalBasis.CONSENT,
    data_categories=("contact", "behaviour"),
    channels=("email", "sms"),
    retention_days=365,
    separate_consents=frozenset(),
    notice_id="member",
)
PURPOSES = {
    "offers": OFFERS,
    "sharing": replace(
        OFFERS,
        purpose_id="sharing",
        separate_consents=frozenset({SeparateConsent.SHARING, SeparateConsent.SENSITIVE}),
    ),
    "delivery": replace(OFFERS, purpose_id="delivery", legal_basis=LegalBasis.CONTRACT, notice_id=""),
    "old": replace(OFFERS, purpose_id="old", state=PurposeState.RETIRED),
}


def record(
    id: str,
    state: str,
    purpose: str = "offers",
    channel: str = "email",
    answered: str | date = "2026-04-01",
    ends: str | date | None = None,
    notice: int = 1,
    notice_id: str = "member",
    separate: tuple[str, ...] = (),
    child: bool = False,
    guardian: bool = False,
) -> ConsentRecord:
    """Return a record as a row of decisions.yaml writes it."""
    evidence = Evidence(
        notice_id=notice_id,
        notice_version=notice,
        language="zh-CN",
        shown_time=day(answered),
        collected_via="WEB",
        under_fourteen=child,
        guardian=guardian,
        separate_consents=frozenset(SeparateConsent(kind) for kind in separate),
    )
    return ConsentRecord(
        record_id=id,
        purpose_id=purpose,
        channel=channel,
        state=ConsentState(state),
        answer_time=day(answered),
        create_time=day(answered),
        evidence=evidence,
        expire_time=day(ends) if ends else None,
    )
