"""The operations of marketing as their callers see them."""

from __future__ import annotations

from collections.abc import Callable
from datetime import UTC, datetime

from services.chassis.errors import NotAllowed
from services.chassis.jobs import Jobs, OperationStore
from services.marketing.domain.campaigns import CampaignState, step
from services.marketing.jobs import REVOKE, RUN
from services.marketing.store import MarketingStore


class CampaignOperations(Jobs):
    """Cancelling the operation of a run cancels its campaign: the worker then records who was left out, and why."""

    def __init__(
        self,
        store: MarketingStore,
        operations: OperationStore | None = None,
        now: Callable[[], datetime] = lambda: datetime.now(UTC),
    ) -> None:
        super().__init__("marketing", operations)
        self._campaigns = store
        self._now = now

    def cancel(self, name: str, department: str) -> None:
        """End an operation; that of a run ends, with its report, when everybody has an outcome.

        Raises:
            NotAllowed: it has ended already, or is a person's withdrawal.
            Conflict: the campaign was changed at this very moment.
        """
        document = self._visible(name, department)
        if document["kind"] == REVOKE:
            raise NotAllowed("a person's withdrawal cannot be cancelled")
        args = document["args"]
        assert isinstance(args, dict)
        campaign = self._campaigns.campaign(str(args.get("campaign_id"))) if document["kind"] == RUN else None
        if document["done"] or campaign is None or campaign.run_id != args["run_id"]:
            super().cancel(name, department)
        elif campaign.state is not CampaignState.CANCELLED:
            cancelled, fact = step(campaign, "cancel", self._now())
            self._campaigns.save_campaign(cancelled, [fact])
