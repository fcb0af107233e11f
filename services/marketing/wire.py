"""Between the marketing domain's values and their proto messages."""

from __future__ import annotations

from datetime import UTC, time

from kehu.analytics.v1 import audience_pb2
from kehu.marketing.v1 import resources_pb2 as pb

from services.chassis.records import etag_of
from services.marketing.domain.campaigns import Campaign, FrequencyCap, QuietHours, QuietPolicy
from services.marketing.domain.deliveries import Delivery, Run, Tally, add
from services.marketing.domain.segments import Segment
from services.marketing.domain.suppressions import Suppression
from services.marketing.domain.templates import Template


def segment_from(segment_id: str, message: pb.Segment) -> Segment:
    """Return the segment a request describes."""
    rule = audience_pb2.AudienceRule()
    rule.CopyFrom(message.rule)
    return Segment(segment_id, message.display_name, message.description, rule)


def segment_to_proto(segment: Segment) -> pb.Segment:
    """Return the resource of a segment."""
    return pb.Segment(
        name=f"segments/{segment.segment_id}",
        display_name=segment.display_name,
        description=segment.description,
        rule=segment.rule,
        owner_department=segment.owner_department,
        create_time=segment.create_time,
        update_time=segment.update_time,
        etag=etag_of(segment.version),
    )


def campaign_from(campaign_id: str, message: pb.Campaign) -> Campaign:
    """Return the campaign a request describes; limits left out get their defaults."""
    cap = message.frequency_cap
    template = Template(message.template.subject, message.template.text, message.template.html)
    scheduled = message.HasField("schedule_time")
    return Campaign(
        campaign_id=campaign_id,
        display_name=message.display_name,
        segment_id=message.segment_id,
        purpose_id=message.purpose_id,
        channel=message.channel,
        template=template,
        frequency_cap=FrequencyCap(cap.max_messages, cap.window_days)
        if message.HasField("frequency_cap")
        else FrequencyCap(),
        quiet_hours=_quiet_from(message.quiet_hours) if message.HasField("quiet_hours") else QuietHours(),
        budget_cents=message.budget_cents,
        message_cost_cents=message.message_cost_cents,
        currency=message.currency or "CNY",
        schedule_time=message.schedule_time.ToDatetime(tzinfo=UTC) if scheduled else None,
    )


def _quiet_from(message: pb.QuietHours) -> QuietHours:
    drops = message.policy == pb.QUIET_HOURS_POLICY_DROP
    policy = QuietPolicy.DROP if drops else QuietPolicy.NEXT_SLOT
    return QuietHours(time.fromisoformat(message.start), time.fromisoformat(message.end), policy)


def campaign_to_proto(campaign: Campaign) -> pb.Campaign:
    """Return the resource of a campaign."""
    template, cap, quiet = campaign.template, campaign.frequency_cap, campaign.quiet_hours
    return pb.Campaign(
        name=f"campaigns/{campaign.campaign_id}",
        display_name=campaign.display_name,
        segment_id=campaign.segment_id,
        purpose_id=campaign.purpose_id,
        channel=campaign.channel,
        template=pb.Template(subject=template.subject, text=template.text, html=template.html),
        frequency_cap=pb.FrequencyCap(max_messages=cap.max_messages, window_days=cap.window_days),
        quiet_hours=pb.QuietHours(
            start=quiet.start.isoformat("minutes"),
            end=quiet.end.isoformat("minutes"),
            policy=pb.QuietHoursPolicy.Value(f"QUIET_HOURS_POLICY_{quiet.policy}"),
        ),
        budget_cents=campaign.budget_cents,
        message_cost_cents=campaign.message_cost_cents,
        currency=campaign.currency,
        schedule_time=campaign.schedule_time,
        state=pb.CampaignState.Value(f"CAMPAIGN_STATE_{campaign.state}"),
        run_id=campaign.run_id,
        owner_department=campaign.owner_department,
        create_time=campaign.create_time,
        update_time=campaign.update_time,
        etag=etag_of(campaign.version),
    )


def report_to_proto(run: Run, in_hand: Tally, campaign: Campaign) -> pb.CampaignReport:
    """Return the figures of a run: the pages behind it, and `in_hand` of the page it works on."""
    counts = add(run.counts, in_hand)
    settled = sum(counts.values())
    skips = [_skip_count(key, count) for key, count in sorted(counts.items()) if key.startswith("SKIPPED|")]
    charged = counts.get("SENT", 0) + counts.get("UNKNOWN", 0)
    cost_cents = run.message_cost_cents if run.currency else campaign.message_cost_cents
    audience = max(run.audience, settled)
    return pb.CampaignReport(
        campaign=f"campaigns/{run.campaign_id}",
        run_id=run.run_id,
        state=pb.RunState.Value(f"RUN_STATE_{run.state}"),
        pause_reason=run.pause_reason,
        audience=audience,
        sent=counts.get("SENT", 0),
        skipped=sum(skip.count for skip in skips),
        failed=counts.get("FAILED", 0),
        unknown=counts.get("UNKNOWN", 0),
        pending=audience - settled,
        skips=skips,
        cost_cents=charged * cost_cents,
        currency=run.currency or campaign.currency,
        data_cutoff=run.data_cutoff,
        start_time=run.start_time,
        end_time=run.end_time,
        failure_reason=run.failure_reason,
    )


def _skip_count(key: str, count: int) -> pb.SkipCount:
    _, reason, detail = key.split("|", 2)
    return pb.SkipCount(reason=pb.SkipReason.Value(f"SKIP_REASON_{reason}"), detail=detail, count=count)


def delivery_to_proto(delivery: Delivery) -> pb.Delivery:
    """Return the resource of a delivery."""
    reason = delivery.skip_reason
    return pb.Delivery(
        name=f"campaigns/{delivery.campaign_id}/deliveries/{delivery.delivery_id}",
        run_id=delivery.run_id,
        profile_id=delivery.profile_id,
        channel=delivery.channel,
        state=pb.DeliveryState.Value(f"DELIVERY_STATE_{delivery.state}"),
        skip_reason=pb.SkipReason.Value(f"SKIP_REASON_{reason}") if reason else None,
        detail=delivery.detail,
        consent_record_ids=delivery.record_ids,
        plan_time=delivery.plan_time,
        outcome_time=delivery.outcome_time,
    )


def suppression_to_proto(suppression: Suppression) -> pb.Suppression:
    """Return the resource of a suppression."""
    return pb.Suppression(
        name=f"suppressions/{suppression.suppression_id}",
        profile_id=suppression.profile_id,
        channel=suppression.channel,
        purpose_id=suppression.purpose_id,
        reason=suppression.reason,
        create_time=suppression.create_time,
    )
