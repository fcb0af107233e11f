"""The port of marketing's store: reads return None for what is not there, writes are compare-and-set on `version`."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Protocol

from kehu.marketing.v1 import events_pb2

from services.chassis.identities import Identities
from services.marketing.domain.campaigns import Campaign
from services.marketing.domain.deliveries import Delivery, DeliveryState, Run
from services.marketing.domain.segments import Segment
from services.marketing.domain.suppressions import Suppression


@dataclass(frozen=True, slots=True)
class DeliveryFilter:
    """Which deliveries are listed; empty means all. `profile_ids` are one person's ids."""

    campaign_id: str = ""
    run_id: str = ""
    profile_ids: tuple[str, ...] = ()
    state: DeliveryState | None = None


class MarketingStore(Protocol):
    """Where segments, campaigns, runs, deliveries, suppressions and merged ids are kept."""

    def segment(self, segment_id: str) -> Segment | None:
        """Return a segment."""

    def segments(self, after: str, limit: int, departments: Sequence[str] | None = None) -> list[Segment]:
        """Return segments by id after the given one; only of those departments, None meaning all."""

    def save_segment(self, segment: Segment) -> Segment:
        """Insert (version 0) or replace; AlreadyExists, Conflict."""

    def campaign(self, campaign_id: str) -> Campaign | None:
        """Return a campaign."""

    def campaigns(self, after: str, limit: int, departments: Sequence[str] | None = None) -> list[Campaign]:
        """Return campaigns by id after the given one; only of those departments, None meaning all."""

    def save_campaign(
        self, campaign: Campaign, facts: Sequence[events_pb2.CampaignChanged] = (), request_id: str = ""
    ) -> Campaign:
        """Insert or replace with facts; AlreadyExists, Conflict."""

    def was_requested(self, campaign_id: str, request_id: str) -> bool:
        """Say whether one of the last writes of the campaign carried this request id."""

    def run(self, run_id: str) -> Run | None:
        """Return a run."""

    def save_run(self, run: Run) -> Run:
        """Insert or replace; AlreadyExists, Conflict."""

    def page(self, run_id: str, page: int) -> list[Delivery]:
        """Return the deliveries of a page of a run."""

    def delivery(self, delivery_id: str) -> Delivery | None:
        """Return a delivery."""

    def save_deliveries(self, deliveries: Sequence[Delivery]) -> list[str]:
        """Insert or replace each with its fact when final; return the ids that lost the race or exist."""

    def deliveries(self, wanted: DeliveryFilter, after: str, limit: int) -> list[Delivery]:
        """Return deliveries by id after the given one."""

    def persons_in_run(self, run_id: str, person_ids: Sequence[str], before_page: int) -> set[str]:
        """Return which of the persons an earlier page of the run holds."""

    def recent(self, profile_ids: Sequence[str], since: datetime) -> list[tuple[str, str]]:
        """Return (profile id, delivery id) of what counts towards a cap since then."""

    def forget_addresses(self, profile_id: str) -> None:
        """Take the address tokens out of the deliveries to a profile, and leave suppressed tokens; idempotent.

        Each delivery is a version further: who read it before writes no token back.
        """

    def suppressions_of(self, profile_ids: Sequence[str], tokens: Sequence[str]) -> list[Suppression]:
        """Return the suppressions of any of these profiles or address tokens."""

    def suppressions(self, profile_ids: Sequence[str], after: str, limit: int) -> list[Suppression]:
        """Return suppressions by id after the given one; of these profiles only, none meaning all."""

    def suppress(self, suppression: Suppression) -> Suppression:
        """Record a suppression, or return the one that is there."""

    @property
    def identities(self) -> Identities:
        """Return what the service knows of the ids of profiles."""
