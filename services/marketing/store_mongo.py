"""The store in the service's own MongoDB database; every query is an equality or a range on an index."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime

from kehu.marketing.v1 import events_pb2

from services.chassis import records
from services.chassis.errors import AlreadyExists
from services.chassis.identities import MongoIdentities
from services.chassis.records import Fact
from services.marketing.documents import (
    CampaignDocument,
    DeliveryDocument,
    RunDocument,
    SegmentDocument,
    SuppressionDocument,
    campaign_document,
    campaign_of,
    delivery_document,
    delivery_of_row,
    run_document,
    run_of,
    segment_document,
    segment_of,
)
from services.marketing.domain.campaigns import Campaign
from services.marketing.domain.deliveries import Delivery, Run, recorded
from services.marketing.domain.segments import Segment
from services.marketing.domain.suppressions import Suppression
from services.marketing.store import DeliveryFilter


class MongoMarketingStore:
    """The service's own database."""

    def __init__(self) -> None:
        self.identities = MongoIdentities("marketing")

    def segment(self, segment_id: str) -> Segment | None:
        """Return a segment."""
        with records.driver_errors():
            return next((segment_of(d) for d in SegmentDocument.objects(id=segment_id).limit(1)), None)

    def segments(self, after: str, limit: int, departments: Sequence[str] | None = None) -> list[Segment]:
        """Return segments by id."""
        narrowed = {} if departments is None else {"owner_department__in": list(departments)}
        with records.driver_errors():
            found = SegmentDocument.objects(id__gt=after, **narrowed).order_by("id").limit(limit)
            return [segment_of(document) for document in found]

    def save_segment(self, segment: Segment) -> Segment:
        """Insert or replace."""
        document = segment_document(segment)
        (records.insert if segment.version == 0 else records.replace)(document)
        return segment_of(document)

    def campaign(self, campaign_id: str) -> Campaign | None:
        """Return a campaign."""
        with records.driver_errors():
            return next((campaign_of(d) for d in CampaignDocument.objects(id=campaign_id).limit(1)), None)

    def campaigns(self, after: str, limit: int, departments: Sequence[str] | None = None) -> list[Campaign]:
        """Return campaigns by id."""
        narrowed = {} if departments is None else {"owner_department__in": list(departments)}
        with records.driver_errors():
            found = CampaignDocument.objects(id__gt=after, **narrowed).order_by("id").limit(limit)
            return [campaign_of(document) for document in found]

    def save_campaign(
        self, campaign: Campaign, facts: Sequence[events_pb2.CampaignChanged] = (), request_id: str = ""
    ) -> Campaign:
        """Insert or replace with facts."""
        document = campaign_document(campaign)
        published = [Fact(fact, f"campaigns/{fact.campaign_id}", fact.version) for fact in facts]
        (records.insert if campaign.version == 0 else records.replace)(document, published, request_id=request_id)
        return campaign_of(document)

    def was_requested(self, campaign_id: str, request_id: str) -> bool:
        """Say whether one of the last writes carried this request id."""
        with records.driver_errors():
            found = CampaignDocument.objects(id=campaign_id).only("request_ids").limit(1)
            return bool(request_id) and any(request_id in row.request_ids for row in found)

    def run(self, run_id: str) -> Run | None:
        """Return a run."""
        with records.driver_errors():
            return next((run_of(document) for document in RunDocument.objects(id=run_id).limit(1)), None)

    def save_run(self, run: Run) -> Run:
        """Insert or replace."""
        document = run_document(run)
        (records.insert if run.version == 0 else records.replace)(document)
        return run_of(document)

    def page(self, run_id: str, page: int) -> list[Delivery]:
        """Return the deliveries of a page."""
        return self._deliveries({"run_id": str(run_id), "page": int(page)})

    def delivery(self, delivery_id: str) -> Delivery | None:
        """Return a delivery."""
        return next(iter(self._deliveries({"_id": str(delivery_id)})), None)

    def _deliveries(self, query: dict[str, object]) -> list[Delivery]:
        with records.driver_errors():
            rows = list(DeliveryDocument._get_collection().find(query, {"outbox": 0, "request_ids": 0}))
        return [delivery_of_row(row) for row in rows]

    def save_deliveries(self, deliveries: Sequence[Delivery]) -> list[str]:
        """Insert or replace each."""
        return records.bulk_write([(delivery_document(d), _facts(d)) for d in deliveries])

    def deliveries(self, wanted: DeliveryFilter, after: str, limit: int) -> list[Delivery]:
        """Return deliveries by id."""
        query: dict[str, object] = {"_id": {"$gt": str(after)}}
        if wanted.campaign_id:
            query["campaign_id"] = str(wanted.campaign_id)
        if wanted.run_id:
            query["run_id"] = str(wanted.run_id)
        if wanted.profile_ids:
            query["profile_id"] = {"$in": [str(profile_id) for profile_id in wanted.profile_ids]}
        if wanted.state is not None:
            query["state"] = wanted.state.value
        with records.driver_errors():
            found = DeliveryDocument._get_collection().find(query, {"outbox": 0}).sort([("_id", 1)]).limit(limit)
            return [delivery_of_row(row) for row in found]

    def persons_in_run(self, run_id: str, person_ids: Sequence[str], before_page: int) -> set[str]:
        """Return which persons an earlier page holds."""
        query = {"run_id": str(run_id), "profile_id": {"$in": [str(person) for person in person_ids]}}
        with records.driver_errors():
            rows = list(DeliveryDocument._get_collection().find(query, {"profile_id": 1, "page": 1}))
        return {row["profile_id"] for row in rows if row["page"] < before_page}

    def recent(self, profile_ids: Sequence[str], since: datetime) -> list[tuple[str, str]]:
        """Return what counts towards a cap."""
        query = {"profile_id": {"$in": [str(i) for i in profile_ids]}, "claim_time": {"$gte": since}}
        with records.driver_errors():
            rows = list(DeliveryDocument._get_collection().find(query, {"profile_id": 1}))
        return [(row["profile_id"], row["_id"]) for row in rows]

    def forget_addresses(self, profile_id: str) -> None:
        """Take the address tokens out of deliveries."""
        with records.driver_errors():
            DeliveryDocument._get_collection().update_many(
                {"profile_id": str(profile_id)}, {"$unset": {"address_token": ""}, "$inc": {"version": 1}}
            )

    def suppressions_of(self, profile_ids: Sequence[str], tokens: Sequence[str]) -> list[Suppression]:
        """Return the suppressions of profiles or tokens."""
        known = [str(token) for token in tokens if token]
        queries: list[dict[str, object]] = [{"profile_id": {"$in": [str(i) for i in profile_ids]}}]
        if known:
            queries.append({"address_token": {"$in": known}})
        collection = SuppressionDocument._get_collection()
        with records.driver_errors():
            rows = {row["_id"]: row for query in queries for row in collection.find(query)}
        return [_suppression_of(row) for row in rows.values()]

    def suppressions(self, profile_ids: Sequence[str], after: str, limit: int) -> list[Suppression]:
        """Return suppressions by id."""
        query: dict[str, object] = {"_id": {"$gt": str(after)}}
        if profile_ids:
            query["profile_id"] = {"$in": [str(profile_id) for profile_id in profile_ids]}
        with records.driver_errors():
            found = SuppressionDocument._get_collection().find(query).sort([("_id", 1)]).limit(limit)
            return [_suppression_of(row) for row in found]

    def suppress(self, suppression: Suppression) -> Suppression:
        """Record a suppression."""
        document = SuppressionDocument(
            id=suppression.suppression_id,
            profile_id=suppression.profile_id,
            channel=suppression.channel,
            purpose_id=suppression.purpose_id,
            reason=suppression.reason,
            address_token=suppression.address_token or None,
        )
        try:
            records.insert(document)
        except AlreadyExists:
            with records.driver_errors():
                row = SuppressionDocument._get_collection().find_one({"_id": suppression.suppression_id})
            if row is not None:
                return _suppression_of(row)
        return _suppression_of(document.to_mongo().to_dict())


def _facts(delivery: Delivery) -> list[Fact]:
    fact = recorded(delivery)
    if fact is None:
        return []
    subject = f"campaigns/{delivery.campaign_id}/deliveries/{delivery.delivery_id}"
    return [Fact(fact, subject, fact.version)]


def _suppression_of(row: dict[str, object]) -> Suppression:
    return Suppression(
        profile_id=str(row["profile_id"]),
        channel=str(row["channel"]),
        purpose_id=str(row.get("purpose_id") or ""),
        reason=str(row["reason"]),
        address_token=str(row.get("address_token") or ""),
        create_time=row["create_time"],  # type: ignore[arg-type]
    )
