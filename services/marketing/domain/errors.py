"""What the marketing rules refuse; reasons are those of error_reason.proto."""

from __future__ import annotations

from services.chassis.errors import Invalid, NotAllowed, NotFound


class RuleInvalid(Invalid):
    """The rule of a segment cannot be evaluated."""

    reason = "RULE_INVALID"


class SegmentNotFound(NotFound):
    """No segment has this id."""

    reason = "SEGMENT_NOT_FOUND"

    def __init__(self, segment_id: str) -> None:
        super().__init__("no segment has this id: list /v1/segments", metadata={"segment_id": segment_id})


class AudienceRefused(NotAllowed):
    """Analytics will never give this run its next page."""

    reason = "AUDIENCE_REFUSED"


class CampaignInvalid(Invalid):
    """A campaign's fields contradict each other."""

    reason = "CAMPAIGN_INVALID"


class CampaignNotFound(NotFound):
    """No campaign has this id."""

    reason = "CAMPAIGN_NOT_FOUND"

    def __init__(self, campaign_id: str) -> None:
        super().__init__("no campaign has this id: list /v1/campaigns", metadata={"campaign_id": campaign_id})


class CampaignStateForbids(NotAllowed):
    """The campaign's state does not allow this."""

    reason = "CAMPAIGN_STATE"


class StartCutShort(CampaignStateForbids):
    """The run that this request was to start was called off before the campaign knew of it."""

    def __init__(self, state: str) -> None:
        text = "the first start of this run was cut short: repeat the request with a new Idempotency-Key"
        super().__init__(text, metadata={"state": state, "wanted": "run"})


class SendWithoutPurpose(Invalid):
    """A message without a purpose would reach people who never agreed to it."""

    reason = "SEND_WITHOUT_PURPOSE"


class TemplateInvalid(Invalid):
    """A template names something that cannot be filled in, or has no text."""

    reason = "TEMPLATE_INVALID"


class RunNotFound(NotFound):
    """The campaign has not run, or not this run."""

    reason = "RUN_NOT_FOUND"

    def __init__(self, campaign_id: str) -> None:
        super().__init__("the campaign has no such run yet", metadata={"campaign_id": campaign_id})


class LinkInvalid(NotFound):
    """The unsubscribe link is not one of ours."""

    reason = "LINK_INVALID"


class ProfileNeeded(Invalid):
    """Deliveries of all campaigns are listed for one profile only."""

    reason = "PROFILE_NEEDED"
