"""The store in memory, for tests; passes the same conformance suite as the one in MongoDB."""

from __future__ import annotations

import threading
from collections.abc import Sequence
from dataclasses import replace
from datetime import UTC, datetime
from typing import TypeVar

from google.protobuf.message import Message
from kehu.marketing.v1 import events_pb2

from services.chassis.errors import AlreadyExists, Conflict
from services.chassis.identities import MemoryIdentities
from services.marketing.domain.campaigns import Campaign
from services.marketing.domain.deliveries import Delivery, Run, recorded
from services.marketing.domain.segments import Segment
from services.marketing.domain.suppressions import Suppression
from services.marketing.store import DeliveryFilter

Kept = TypeVar("Kept", Segment, Campaign)


class MemoryMarketingStore:
    """Everything in memory; `facts` holds what was published, in order."""

    def __init__(self) -> None:
        self.facts: list[Message] = []
        self._segments: dict[str, Segment] = {}
        self._campaigns: dict[str, Campaign] = {}
        self._requests: set[tuple[str, str]] = set()
        self._runs: dict[str, Run] = {}
        self._deliveries: dict[str, Delivery] = {}
        self._suppressions: dict[str, Suppression] = {}
        self.identities = MemoryIdentities()
        self._lock = threading.RLock()

    def segment(self, segment_id: str) -> Segment | None:
        """Return a segment."""
        return self._segments.get(segment_id)

    def segments(self, after: str, limit: int, departments: Sequence[str] | None = None) -> list[Segment]:
        """Return segments by id."""
        return _listed(self._segments, after, limit, departments)

    def save_segment(self, segment: Segment) -> Segment:
        """Insert or replace."""
        with self._lock:
            return _save(self._segments, segment.segment_id, segment)

    def campaign(self, campaign_id: str) -> Campaign | None:
        """Return a campaign."""
        return self._campaigns.get(campaign_id)

    def campaigns(self, after: str, limit: int, departments: Sequence[str] | None = None) -> list[Campaign]:
        """Return campaigns by id."""
        return _listed(self._campaigns, after, limit, departments)

    def save_campaign(
        self, campaign: Campaign, facts: Sequence[events_pb2.CampaignChanged] = (), request_id: str = ""
    ) -> Campaign:
        """Insert or replace with facts."""
        with self._lock:
            saved = _save(self._campaigns, campaign.campaign_id, campaign)
            self.facts += facts
            self._requests.add((campaign.campaign_id, request_id))
            return saved

    def was_requested(self, campaign_id: str, request_id: str) -> bool:
        """Say whether a write carried this request id."""
        return bool(request_id) and (campaign_id, request_id) in self._requests

    def run(self, run_id: str) -> Run | None:
        """Return a run."""
        return self._runs.get(run_id)

    def save_run(self, run: Run) -> Run:
        """Insert or replace."""
        with self._lock:
            known = self._runs.get(run.run_id)
            _compare(known.version if known else None, run.version)
            saved = replace(run, version=run.version + 1)
            self._runs[run.run_id] = saved
            return saved

    def page(self, run_id: str, page: int) -> list[Delivery]:
        """Return the deliveries of a page."""
        with self._lock:
            return [d for d in self._deliveries.values() if (d.run_id, d.page) == (run_id, page)]

    def delivery(self, delivery_id: str) -> Delivery | None:
        """Return a delivery."""
        return self._deliveries.get(delivery_id)

    def save_deliveries(self, deliveries: Sequence[Delivery]) -> list[str]:
        """Insert or replace each."""
        lost = []
        with self._lock:
            for delivery in deliveries:
                known = self._deliveries.get(delivery.delivery_id)
                if (known.version if known else 0) != delivery.version:
                    lost.append(delivery.delivery_id)
                    continue
                self._deliveries[delivery.delivery_id] = replace(delivery, version=delivery.version + 1)
                fact = recorded(delivery)
                self.facts += [fact] if fact is not None else []
        return lost

    def deliveries(self, wanted: DeliveryFilter, after: str, limit: int) -> list[Delivery]:
        """Return deliveries by id."""
        with self._lock:
            found = sorted(self._deliveries.values(), key=lambda delivery: delivery.delivery_id)
        chosen = [
            d for d in found
            if d.delivery_id > after
            and wanted.campaign_id in ("", d.campaign_id)
            and wanted.run_id in ("", d.run_id)
            and (not wanted.profile_ids or d.profile_id in wanted.profile_ids)
            and wanted.state in (None, d.state)
        ]  # fmt: skip
        return chosen[:limit]

    def persons_in_run(self, run_id: str, person_ids: Sequence[str], before_page: int) -> set[str]:
        """Return which persons an earlier page holds."""
        with self._lock:
            held = {d.profile_id for d in self._deliveries.values() if d.run_id == run_id and d.page < before_page}
        return held & set(person_ids)

    def recent(self, profile_ids: Sequence[str], since: datetime) -> list[tuple[str, str]]:
        """Return what counts towards a cap."""
        wanted = set(profile_ids)
        with self._lock:
            found = [d for d in self._deliveries.values() if d.profile_id in wanted]
        return [(d.profile_id, d.delivery_id) for d in found if d.claim_time is not None and d.claim_time >= since]

    def forget_addresses(self, profile_id: str) -> None:
        """Take the address tokens out of deliveries."""
        with self._lock:
            for key, item in self._deliveries.items():
                if item.profile_id == profile_id:
                    self._deliveries[key] = replace(item, address_token="", version=item.version + 1)

    def suppressions_of(self, profile_ids: Sequence[str], tokens: Sequence[str]) -> list[Suppression]:
        """Return the suppressions of profiles or tokens."""
        ids, known = set(profile_ids), set(tokens) - {""}
        with self._lock:
            return [s for s in self._suppressions.values() if s.profile_id in ids or s.address_token in known]

    def suppressions(self, profile_ids: Sequence[str], after: str, limit: int) -> list[Suppression]:
        """Return suppressions by id."""
        with self._lock:
            found = [self._suppressions[key] for key in sorted(self._suppressions) if key > after]
        return [s for s in found if not profile_ids or s.profile_id in profile_ids][:limit]

    def suppress(self, suppression: Suppression) -> Suppression:
        """Record a suppression."""
        with self._lock:
            stamped = replace(suppression, create_time=datetime.now(UTC))
            return self._suppressions.setdefault(suppression.suppression_id, stamped)


def _save(kept: dict[str, Kept], key: str, value: Kept) -> Kept:
    known = kept.get(key)
    _compare(known.version if known else None, value.version)
    now = datetime.now(UTC)
    saved = replace(value, version=value.version + 1, create_time=value.create_time or now, update_time=now)
    kept[key] = saved
    return saved


def _listed(kept: dict[str, Kept], after: str, limit: int, departments: Sequence[str] | None) -> list[Kept]:
    found = [kept[key] for key in sorted(kept) if key > after]
    return [v for v in found if departments is None or v.owner_department in departments][:limit]


def _compare(stored: int | None, given: int) -> None:
    if stored is not None and given == 0:
        raise AlreadyExists("a record with this name or key exists already")
    if (stored or 0) != given:
        raise Conflict("the record was changed meanwhile; read it again and repeat")
