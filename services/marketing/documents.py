"""How the values of marketing lie in MongoDB; private to the store."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import time
from typing import ClassVar

import mongoengine as me
from kehu.analytics.v1 import audience_pb2

from services.chassis.records import RECORD_INDEXES, Record
from services.marketing.domain.campaigns import (
    Campaign,
    CampaignState,
    FrequencyCap,
    QuietHours,
    QuietPolicy,
)
from services.marketing.domain.deliveries import Delivery, DeliveryState, Run, RunState
from services.marketing.domain.planning import SkipReason
from services.marketing.domain.segments import Segment
from services.marketing.domain.templates import Template


def _meta(collection: str, *indexes: object) -> dict[str, object]:
    return {
        "db_alias": "marketing",
        "collection": collection,
        "indexes": [*RECORD_INDEXES, *indexes],
        "auto_create_index": False,
        "strict": False,
    }


class SegmentDocument(Record):
    """A segment; the rule is the serialized proto."""

    display_name = me.StringField()
    description = me.StringField()
    rule = me.BinaryField()
    owner_department = me.StringField()
    meta: ClassVar[dict[str, object]] = _meta("segments")


class CampaignDocument(Record):
    """A campaign."""

    display_name = me.StringField()
    segment_id = me.StringField()
    purpose_id = me.StringField()
    channel = me.StringField()
    template = me.DictField()
    limits = me.DictField()
    currency = me.StringField()
    schedule_time = me.DateTimeField()
    state = me.StringField()
    run_id = me.StringField()
    owner_department = me.StringField()
    meta: ClassVar[dict[str, object]] = _meta("campaigns")


class RunDocument(Record):
    """A run of a campaign."""

    campaign_id = me.StringField()
    rule = me.BinaryField()
    state = me.StringField()
    pause_reason = me.StringField()
    audience = me.IntField()
    page = me.IntField()
    page_ids = me.ListField(me.StringField())
    next_token = me.StringField()
    is_last_page = me.BooleanField()
    counts = me.DictField()
    data_cutoff = me.DateTimeField()
    start_time = me.DateTimeField()
    end_time = me.DateTimeField()
    failure_reason = me.StringField()
    message_cost_cents = me.IntField()
    currency = me.StringField()
    meta: ClassVar[dict[str, object]] = _meta("runs")


class DeliveryDocument(Record):
    """A delivery; its id makes the recipient unique in the run."""

    campaign_id = me.StringField()
    run_id = me.StringField()
    page = me.IntField()
    profile_id = me.StringField()
    channel = me.StringField()
    purpose_id = me.StringField()
    state = me.StringField()
    plan_time = me.DateTimeField()
    skip_reason = me.StringField()
    detail = me.StringField()
    record_ids = me.ListField(me.StringField())
    address_token = me.StringField()
    claim_time = me.DateTimeField()
    outcome_time = me.DateTimeField()
    attempts = me.IntField()
    meta: ClassVar[dict[str, object]] = _meta(
        "deliveries", ["run_id", "page"], ["run_id", "profile_id"], ["campaign_id", "id"], ["profile_id", "claim_time"]
    )


class SuppressionDocument(Record):
    """A person who must not be written to; the address, if known, is a keyed token."""

    profile_id = me.StringField()
    channel = me.StringField()
    purpose_id = me.StringField()
    reason = me.StringField()
    address_token = me.StringField()
    meta: ClassVar[dict[str, object]] = _meta(
        "suppressions", ["profile_id"], {"fields": ["address_token"], "sparse": True}
    )


RECORD_CLASSES: tuple[type[Record], ...] = (
    SegmentDocument, CampaignDocument, RunDocument, DeliveryDocument, SuppressionDocument,
)  # fmt: skip


def segment_document(segment: Segment) -> SegmentDocument:
    """Return the document of a segment."""
    return SegmentDocument(
        id=segment.segment_id,
        version=segment.version,
        create_time=segment.create_time,
        display_name=segment.display_name,
        description=segment.description,
        rule=segment.rule.SerializeToString(deterministic=True),
        owner_department=segment.owner_department,
    )


def segment_of(document: SegmentDocument) -> Segment:
    """Return the segment of a document."""
    return Segment(
        segment_id=document.id,
        display_name=document.display_name,
        description=document.description or "",
        rule=audience_pb2.AudienceRule.FromString(bytes(document.rule)),
        owner_department=document.owner_department or "",
        version=document.version,
        create_time=document.create_time,
        update_time=document.update_time,
    )


def campaign_document(campaign: Campaign) -> CampaignDocument:
    """Return the document of a campaign."""
    cap, quiet, template = campaign.frequency_cap, campaign.quiet_hours, campaign.template
    return CampaignDocument(
        id=campaign.campaign_id,
        version=campaign.version,
        create_time=campaign.create_time,
        display_name=campaign.display_name,
        segment_id=campaign.segment_id,
        purpose_id=campaign.purpose_id,
        channel=campaign.channel,
        template={"subject": template.subject, "text": template.text, "html": template.html},
        limits={
            "cap": cap.max_messages,
            "window_days": cap.window_days,
            "quiet_start": quiet.start.isoformat("minutes"),
            "quiet_end": quiet.end.isoformat("minutes"),
            "quiet_policy": quiet.policy.value,
            "budget_cents": campaign.budget_cents,
            "message_cost_cents": campaign.message_cost_cents,
        },
        currency=campaign.currency,
        schedule_time=campaign.schedule_time,
        state=campaign.state.value,
        run_id=campaign.run_id,
        owner_department=campaign.owner_department,
    )


def campaign_of(document: CampaignDocument) -> Campaign:
    """Return the campaign of a document."""
    limits = document.limits
    quiet = QuietHours(
        start=time.fromisoformat(limits["quiet_start"]),
        end=time.fromisoformat(limits["quiet_end"]),
        policy=QuietPolicy(limits["quiet_policy"]),
    )
    return Campaign(
        campaign_id=document.id,
        display_name=document.display_name,
        segment_id=document.segment_id,
        purpose_id=document.purpose_id,
        channel=document.channel,
        template=Template(**{key: document.template[key] for key in ("subject", "text", "html")}),
        frequency_cap=FrequencyCap(limits["cap"], limits["window_days"]),
        quiet_hours=quiet,
        budget_cents=limits["budget_cents"],
        message_cost_cents=limits["message_cost_cents"],
        currency=document.currency,
        schedule_time=document.schedule_time,
        state=CampaignState(document.state),
        run_id=document.run_id or "",
        owner_department=document.owner_department or "",
        version=document.version,
        create_time=document.create_time,
        update_time=document.update_time,
    )


def run_document(run: Run) -> RunDocument:
    """Return the document of a run."""
    return RunDocument(
        id=run.run_id,
        version=run.version,
        campaign_id=run.campaign_id,
        rule=run.rule,
        state=run.state.value,
        pause_reason=run.pause_reason,
        audience=run.audience,
        page=run.page,
        page_ids=list(run.page_ids),
        next_token=run.next_token,
        is_last_page=run.is_last_page,
        counts=dict(run.counts),
        data_cutoff=run.data_cutoff,
        start_time=run.start_time,
        end_time=run.end_time,
        failure_reason=run.failure_reason or None,
        message_cost_cents=run.message_cost_cents or None,
        currency=run.currency or None,
    )


def run_of(document: RunDocument) -> Run:
    """Return the run of a document."""
    return Run(
        run_id=document.id,
        campaign_id=document.campaign_id,
        rule=bytes(document.rule),
        state=RunState(document.state),
        pause_reason=document.pause_reason or "",
        audience=document.audience,
        page=document.page,
        page_ids=tuple(document.page_ids),
        next_token=document.next_token or "",
        is_last_page=bool(document.is_last_page),
        counts=dict(document.counts),
        data_cutoff=document.data_cutoff,
        start_time=document.start_time,
        end_time=document.end_time,
        failure_reason=document.failure_reason or "",
        message_cost_cents=document.message_cost_cents or 0,
        currency=document.currency or "",
        version=document.version,
    )


def delivery_document(delivery: Delivery) -> DeliveryDocument:
    """Return the document of a delivery."""
    return DeliveryDocument(
        id=delivery.delivery_id,
        version=delivery.version,
        campaign_id=delivery.campaign_id,
        run_id=delivery.run_id,
        page=delivery.page,
        profile_id=delivery.profile_id,
        channel=delivery.channel,
        purpose_id=delivery.purpose_id,
        state=delivery.state.value,
        plan_time=delivery.plan_time,
        skip_reason=delivery.skip_reason.value if delivery.skip_reason else None,
        detail=delivery.detail or None,
        record_ids=list(delivery.record_ids),
        address_token=delivery.address_token or None,
        claim_time=delivery.claim_time,
        outcome_time=delivery.outcome_time,
        attempts=delivery.attempts,
    )


def delivery_of_row(row: Mapping[str, object]) -> Delivery:
    """Return the delivery of a raw document: a page reads 500 at once."""
    get = row.get
    return Delivery(
        delivery_id=str(row["_id"]),
        campaign_id=str(row["campaign_id"]),
        run_id=str(row["run_id"]),
        page=row["page"],  # type: ignore[arg-type]
        profile_id=str(row["profile_id"]),
        channel=str(row["channel"]),
        purpose_id=str(row["purpose_id"]),
        state=DeliveryState(str(row["state"])),
        plan_time=row["plan_time"],  # type: ignore[arg-type]
        skip_reason=SkipReason(str(row["skip_reason"])) if get("skip_reason") else None,
        detail=str(get("detail") or ""),
        record_ids=tuple(get("record_ids") or ()),  # type: ignore[arg-type]
        address_token=str(get("address_token") or ""),
        claim_time=get("claim_time"),  # type: ignore[arg-type]
        outcome_time=get("outcome_time"),  # type: ignore[arg-type]
        attempts=int(str(get("attempts") or 0)),
        version=row["version"],  # type: ignore[arg-type]
    )
