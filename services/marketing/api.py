"""MarketingService over gRPC: parse, load, decide by the domain, save, reply."""

from __future__ import annotations

import contextlib
from dataclasses import replace

import grpc
from google.longrunning import operations_pb2
from kehu.analytics.v1 import analytics_pb2, audience_pb2
from kehu.analytics.v1.analytics_pb2_grpc import AnalyticsServiceStub
from kehu.marketing.v1 import marketing_pb2_grpc
from kehu.marketing.v1 import messages_pb2 as pb
from kehu.marketing.v1 import resources_pb2 as res

from services.chassis.errors import AlreadyExists, Conflict, EtagMismatch, KehuError
from services.chassis.jobs import Jobs, Owner
from services.chassis.paging import filter_hash, page_size_of
from services.chassis.records import fields_to_change, new_id, remembered, unchanged_since, updated
from services.chassis.server import current_call, validate
from services.marketing import wire
from services.marketing.domain.campaigns import (
    CHANGEABLE,
    Campaign,
    change_campaign,
    changed_fact,
    checked_campaign,
    step,
)
from services.marketing.domain.deliveries import OVER, RAN, DeliveryState, Run, scheduled, tally
from services.marketing.domain.errors import (
    CampaignNotFound,
    ProfileNeeded,
    RunNotFound,
    SegmentNotFound,
    StartCutShort,
)
from services.marketing.domain.segments import Segment, checked_rule
from services.marketing.domain.templates import render
from services.marketing.gate import SUPPRESSION_USE_SECONDS
from services.marketing.jobs import RUN
from services.marketing.listing import check_reach, next_token, position_of, reach
from services.marketing.optouts import OptOuts, Surroundings
from services.marketing.store import DeliveryFilter, MarketingStore

SAMPLE = 10  # PreviewSegmentResponse documents it
AUDIENCE_TIMEOUT_SECONDS = 60.0
CHECK_TIMEOUT_SECONDS = 5.0
SEGMENT_FIELDS = ("display_name", "description", "rule")
PREVIEW_NAME = "李小明"


class MarketingServicer(OptOuts, marketing_pb2_grpc.MarketingServiceServicer):
    """The RPCs of marketing.proto; those about opting out are in optouts.py."""

    def __init__(
        self, store: MarketingStore, jobs: Jobs, analytics: AnalyticsServiceStub, around: Surroundings
    ) -> None:
        super().__init__(store, jobs, around)
        self._analytics = analytics

    def CreateSegment(self, request: pb.CreateSegmentRequest, context: grpc.ServicerContext) -> res.Segment:
        """Create a segment."""
        caller = current_call().caller
        segment_id = new_id(request.request_id, "segments", caller.subject)
        segment = wire.segment_from(segment_id, request.segment)
        checked_rule(segment.rule)
        try:
            saved = self._store.save_segment(replace(segment, owner_department=caller.department))
        except AlreadyExists:  # the same request came before
            saved = self._segment(segment_id)
        return wire.segment_to_proto(saved)

    def GetSegment(self, request: pb.GetSegmentRequest, context: grpc.ServicerContext) -> res.Segment:
        """Read a segment."""
        return wire.segment_to_proto(self._segment(request.segment_id))

    def ListSegments(self, request: pb.ListSegmentsRequest, context: grpc.ServicerContext) -> pb.ListSegmentsResponse:
        """List segments by id."""
        size, after = page_size_of(request.page_size), position_of(request.page_token, "segments")
        found = self._store.segments(after, size + 1, reach())
        token = next_token([segment.segment_id for segment in found], size, "segments")
        segments = [wire.segment_to_proto(segment) for segment in found[:size]]
        return pb.ListSegmentsResponse(segments=segments, next_page_token=token)

    def UpdateSegment(self, request: pb.UpdateSegmentRequest, context: grpc.ServicerContext) -> res.Segment:
        """Change the fields named by the mask; without one, those that are set."""
        known = self._segment(request.segment_id)
        fields = fields_to_change(request.update_mask, request.segment, SEGMENT_FIELDS)
        message = updated(wire.segment_to_proto(known), request.segment, fields)
        validate(message)
        values = wire.segment_from(known.segment_id, message)
        with unchanged_since(request.segment.etag, known.version, f"segments/{known.segment_id}"):
            changed = replace(known, **{field: getattr(values, field) for field in fields})
            checked_rule(changed.rule)
            return wire.segment_to_proto(self._store.save_segment(changed))

    def PreviewSegment(
        self, request: pb.PreviewSegmentRequest, context: grpc.ServicerContext
    ) -> pb.PreviewSegmentResponse:
        """Count a segment, or a rule to try, with the caller's own rights."""
        rule = request.rule if request.HasField("rule") else self._segment(request.segment_id).rule
        question = analytics_pb2.EvaluateAudienceRequest(rule=checked_rule(rule), page_size=SAMPLE)
        found = self._analytics.EvaluateAudience(question, timeout=AUDIENCE_TIMEOUT_SECONDS)
        reply = pb.PreviewSegmentResponse(total=found.total, sample_profile_ids=found.profile_ids[:SAMPLE])
        if found.HasField("data_cutoff"):
            reply.data_cutoff.CopyFrom(found.data_cutoff)
        return reply

    def CreateCampaign(self, request: pb.CreateCampaignRequest, context: grpc.ServicerContext) -> res.Campaign:
        """Create a campaign as a draft."""
        caller = current_call().caller
        campaign_id = new_id(request.request_id, "campaigns", caller.subject)
        campaign = checked_campaign(wire.campaign_from(campaign_id, request.campaign))
        campaign = replace(campaign, owner_department=caller.department)
        self._segment(campaign.segment_id)
        try:
            saved = self._store.save_campaign(campaign, [changed_fact(campaign, self._around.now())])
        except AlreadyExists:  # the same request came before
            saved = self._campaign(campaign_id)
        return wire.campaign_to_proto(saved)

    def GetCampaign(self, request: pb.GetCampaignRequest, context: grpc.ServicerContext) -> res.Campaign:
        """Read a campaign."""
        return wire.campaign_to_proto(self._campaign(request.campaign_id))

    def ListCampaigns(
        self, request: pb.ListCampaignsRequest, context: grpc.ServicerContext
    ) -> pb.ListCampaignsResponse:
        """List campaigns by id."""
        size, after = page_size_of(request.page_size), position_of(request.page_token, "campaigns")
        found = self._store.campaigns(after, size + 1, reach())
        token = next_token([campaign.campaign_id for campaign in found], size, "campaigns")
        campaigns = [wire.campaign_to_proto(campaign) for campaign in found[:size]]
        return pb.ListCampaignsResponse(campaigns=campaigns, next_page_token=token)

    def UpdateCampaign(self, request: pb.UpdateCampaignRequest, context: grpc.ServicerContext) -> res.Campaign:
        """Change the fields named by the mask; without one, those that are set."""
        known = self._campaign(request.campaign_id)
        fields = fields_to_change(request.update_mask, request.campaign, CHANGEABLE)
        message = updated(wire.campaign_to_proto(known), request.campaign, fields)
        validate(message)
        with unchanged_since(request.campaign.etag, known.version, f"campaigns/{known.campaign_id}"):
            changed = change_campaign(known, wire.campaign_from(known.campaign_id, message), fields)
            self._segment(changed.segment_id)
            return wire.campaign_to_proto(self._store.save_campaign(changed))

    def PreviewCampaign(
        self, request: pb.PreviewCampaignRequest, context: grpc.ServicerContext
    ) -> pb.PreviewCampaignResponse:
        """Show the message with a made-up name."""
        template = self._campaign(request.campaign_id).template
        message = render(template, request.display_name or PREVIEW_NAME, "https://example.invalid/unsubscribe")
        return pb.PreviewCampaignResponse(subject=message.subject, text=message.text, html=message.html)

    def RunCampaign(self, request: pb.RunCampaignRequest, context: grpc.ServicerContext) -> operations_pb2.Operation:
        """Start a run: its record, its job, then the campaign's state; a start cut short ends by itself."""
        call = current_call()
        campaign = self._campaign(request.campaign_id)
        run_id = new_id(request.request_id, "runs", campaign.campaign_id, call.caller.subject)
        owner = Owner(call.caller.subject, call.caller.department)
        known = self._store.run(run_id)
        if known and (campaign.run_id == run_id or known.state in RAN):  # the same request came before
            return self._job(known, campaign, owner)
        now = self._around.now()
        started, fact = step(campaign, "run", now, run_id)
        rule = self._rule_in_reach(self._segment(campaign.segment_id)).SerializeToString(deterministic=True)
        run = scheduled(run_id, campaign, rule, now)
        with contextlib.suppress(AlreadyExists):
            run = self._store.save_run(run)
        operation = self._job(run, campaign, owner)
        if operation.done or (known and known.state in OVER):
            raise StartCutShort(campaign.state)
        try:
            self._store.save_campaign(started, [fact])
        except Conflict:
            if self._campaign(campaign.campaign_id).run_id != run_id:  # else the same request did it at this moment
                with contextlib.suppress(KehuError):
                    self._jobs.cancel(operation.name, owner.department)
                raise EtagMismatch(f"campaigns/{campaign.campaign_id}") from None
        return operation

    def _rule_in_reach(self, segment: Segment) -> audience_pb2.AudienceRule:
        """Return the segment's rule within the rows of the caller, who must see all that it selects by.

        The run itself is evaluated as this service, which sees everything.
        """
        question = analytics_pb2.EvaluateAudienceRequest(rule=checked_rule(segment.rule), check_only=True)
        return self._analytics.EvaluateAudience(question, timeout=CHECK_TIMEOUT_SECONDS).rule

    def _job(self, run: Run, campaign: Campaign, owner: Owner) -> operations_pb2.Operation:
        args = {"run_id": run.run_id, "campaign_id": campaign.campaign_id}
        return self._jobs.start(RUN, args, wire.report_to_proto(run, {}, campaign), owner, run.run_id)

    def PauseCampaign(self, request: pb.PauseCampaignRequest, context: grpc.ServicerContext) -> res.Campaign:
        """Stop before the next message; it holds when acknowledged."""
        paused = self._step(request, "pause")
        self._around.settle(SUPPRESSION_USE_SECONDS)
        return paused

    def ResumeCampaign(self, request: pb.ResumeCampaignRequest, context: grpc.ServicerContext) -> res.Campaign:
        """Go on."""
        return self._step(request, "resume")

    def CancelCampaign(self, request: pb.CancelCampaignRequest, context: grpc.ServicerContext) -> res.Campaign:
        """End a campaign for good; it holds when acknowledged."""
        cancelled = self._step(request, "cancel")
        self._around.settle(SUPPRESSION_USE_SECONDS)
        return cancelled

    def _step(
        self, request: pb.PauseCampaignRequest | pb.ResumeCampaignRequest | pb.CancelCampaignRequest, name: str
    ) -> res.Campaign:
        known = self._campaign(request.campaign_id)
        request_id = remembered(request.request_id, current_call().caller.subject, name)
        if self._store.was_requested(known.campaign_id, request_id):
            return wire.campaign_to_proto(known)
        changed, fact = step(known, name, self._around.now())
        with unchanged_since("", known.version, f"campaigns/{known.campaign_id}"):
            return wire.campaign_to_proto(self._store.save_campaign(changed, [fact], request_id))

    def GetCampaignReport(
        self, request: pb.GetCampaignReportRequest, context: grpc.ServicerContext
    ) -> res.CampaignReport:
        """Report on a run: the pages counted, and the page in hand as it is now."""
        campaign = self._campaign(request.campaign_id)
        run = self._run(campaign, request.run_id or campaign.run_id)
        in_hand = tally(self._store.page(run.run_id, run.page)) if run.page_ids else {}
        return wire.report_to_proto(run, in_hand, campaign)

    def ListDeliveries(
        self, request: pb.ListDeliveriesRequest, context: grpc.ServicerContext
    ) -> pb.ListDeliveriesResponse:
        """List what became of recipients."""
        if request.campaign_id == "-":
            if not request.profile_id:
                raise ProfileNeeded("name profile_id to list the deliveries of all campaigns")
            check_reach("*")
        else:
            self._campaign(request.campaign_id)
        state = res.DeliveryState.Name(request.state).removeprefix("DELIVERY_STATE_")
        wanted = DeliveryFilter(
            campaign_id="" if request.campaign_id == "-" else request.campaign_id,
            run_id=request.run_id,
            profile_ids=self._family(request.profile_id),
            state=None if state == "UNSPECIFIED" else DeliveryState(state),
        )
        of = filter_hash("deliveries", request.campaign_id, request.run_id, request.profile_id, state)
        size, after = page_size_of(request.page_size), position_of(request.page_token, of)
        found = self._store.deliveries(wanted, after, size + 1)
        token = next_token([delivery.delivery_id for delivery in found], size, of)
        deliveries = [wire.delivery_to_proto(delivery) for delivery in found[:size]]
        return pb.ListDeliveriesResponse(deliveries=deliveries, next_page_token=token)

    def _segment(self, segment_id: str) -> Segment:
        found = self._store.segment(segment_id)
        if found is None or not check_reach(found.owner_department):
            raise SegmentNotFound(segment_id)
        return found

    def _campaign(self, campaign_id: str) -> Campaign:
        found = self._store.campaign(campaign_id)
        if found is None or not check_reach(found.owner_department):
            raise CampaignNotFound(campaign_id)
        return found

    def _run(self, campaign: Campaign, run_id: str) -> Run:
        run = self._store.run(run_id) if run_id else None
        if run is None or run.campaign_id != campaign.campaign_id:
            raise RunNotFound(campaign.campaign_id)
        return run
