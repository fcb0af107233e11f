"""AnalyticsService over gRPC: parse, ask the warehouse, reply."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from hashlib import sha256

import grpc
from google.longrunning import operations_pb2
from kehu.analytics.v1 import analytics_pb2 as pb
from kehu.analytics.v1 import analytics_pb2_grpc, retention_pb2

from services.analytics import wire
from services.analytics.audiences import PAGE_LIMIT, Audiences, rule_digest
from services.analytics.domain import rfm
from services.analytics.domain.errors import ScoresNotFound, UnreadableInteractionFile
from services.analytics.domain.metrics import REGISTRY, find_metric
from services.analytics.domain.reach import Reach, reach_of
from services.analytics.domain.rights import check_dimensions, check_rule
from services.analytics.domain.rows import Keyed, check_times, record_token
from services.analytics.expiring import delete_months, months
from services.analytics.files import InteractionFile, Upload, Uploads
from services.analytics.jobs import COMPUTE, IMPORT, options_of
from services.analytics.reading import Position, Reader
from services.analytics.store import Entry, Inbox
from services.analytics.warehouse import Warehouse
from services.chassis.jobs import Jobs, Owner
from services.chassis.paging import decode_token, encode_token, filter_hash, number_of, page_size_of
from services.chassis.records import new_id
from services.chassis.server import current_call


def _utc_now() -> datetime:
    return datetime.now(UTC)


@dataclass(frozen=True, slots=True)
class Parts:
    """What the servicer works with."""

    warehouse: Warehouse
    inbox: Inbox
    jobs: Jobs
    uploads: Uploads
    keyed: Keyed
    clock: Callable[[], datetime] = _utc_now


def _owner() -> Owner:
    caller = current_call().caller
    return Owner(caller.subject, caller.department)


def _reach() -> Reach:
    return reach_of(current_call().decision.obligations.row_filter)


class AnalyticsServicer(analytics_pb2_grpc.AnalyticsServiceServicer):
    """The RPCs of analytics.proto."""

    def __init__(self, parts: Parts) -> None:
        self._parts = parts
        self._audiences = Audiences(parts.warehouse)
        self._reader = Reader(parts.warehouse)

    def BatchCreateInteractions(
        self, request: pb.BatchCreateInteractionsRequest, context: grpc.ServicerContext
    ) -> pb.BatchCreateInteractionsResponse:
        """Keep interactions durably; the feeder carries them into the lake."""
        check_times(request.interactions, self._parts.clock())
        for one in request.interactions:
            if one.HasField("source_record"):
                named = one.source_record
                token = record_token(self._parts.keyed, named.source.removeprefix("sources/"), named.source_record_id)
                one.source_record.Clear()
                one.source_record.source_record_id = token
        body = request.SerializeToString(deterministic=True)
        scope = "interactions", current_call().caller.subject, sha256(body).hexdigest()
        self._parts.inbox.put(Entry(new_id(request.request_id, *scope), request.DESCRIPTOR.full_name, body))
        return pb.BatchCreateInteractionsResponse(accepted_count=len(request.interactions))

    def ImportInteractions(
        self, request_iterator: Iterator[pb.ImportInteractionsRequest], context: grpc.ServicerContext
    ) -> operations_pb2.Operation:
        """Receive a file, look at its head, and queue its import."""
        first = next(request_iterator, pb.ImportInteractionsRequest())
        if first.WhichOneof("part") != "header":
            raise UnreadableInteractionFile("send the header first, then the file")
        header, owner = first.header, _owner()
        options = options_of(header)
        name = new_id()  # of its own: a repeat at the same time takes nothing from the first
        upload = self._parts.uploads.receive(name, (part.chunk for part in request_iterator))
        try:
            file = InteractionFile(lambda: self._parts.uploads.open(name), options)
            operation = self._start_import(header, upload, file.total_rows, owner)
        except Exception:
            self._parts.uploads.drop(name)
            raise
        if operation.done:  # a repeated request whose import has ended
            self._parts.uploads.drop(name)
        return operation

    def _start_import(
        self, header: pb.ImportInteractionsHeader, upload: Upload, total_rows: int, owner: Owner
    ) -> operations_pb2.Operation:
        args = {
            "upload": upload.name,
            "sha256": upload.sha256,
            "header": header.SerializeToString().hex(),
        }
        metadata = pb.ImportInteractionsMetadata(total_rows=total_rows)
        return self._parts.jobs.start(IMPORT, args, metadata, owner, header.request_id)

    def ListInteractions(
        self, request: pb.ListInteractionsRequest, context: grpc.ServicerContext
    ) -> pb.ListInteractionsResponse:
        """List a profile's latest interactions."""
        of_filter = filter_hash("interactions", request.parent)
        token = decode_token(request.page_token, of_filter)
        after = Position(number_of(token, "t"), str(token.get("m"))) if token else None
        size = page_size_of(request.page_size)
        pinned = self._parts.warehouse.pin([])
        profile_id = self._reader.survivor(request.parent.removeprefix("profiles/"), pinned)
        response = pb.ListInteractionsResponse(data_cutoff=pinned.cutoff)
        if not self._reader.reaches(profile_id, pinned, _reach()):
            return response
        rows = self._reader.interactions(profile_id, pinned, after, size + 1)
        response.interactions.extend(wire.interaction(row, profile_id) for row in rows[:size])
        if len(rows) > size:
            end = wire.position(rows[size - 1])
            response.next_page_token = encode_token({"t": end.time_micros, "m": end.message_id}, of_filter)
        return response

    def GetScores(self, request: pb.GetScoresRequest, context: grpc.ServicerContext) -> pb.Scores:
        """Read a profile's scores; a merged profile's id answers for the survivor."""
        pinned = self._parts.warehouse.pin([])
        profile_id = self._reader.survivor(request.name.split("/")[1], pinned)
        found = self._reader.scores(profile_id) if self._reader.reaches(profile_id, pinned, _reach()) else None
        if found is None:
            raise ScoresNotFound(
                "the profile has no scores; they are computed for profiles with a purchase",
                metadata={"profile": request.name.split("/")[1]},
            )
        return wire.scores(found, f"profiles/{profile_id}/scores")

    def BatchGetScores(
        self, request: pb.BatchGetScoresRequest, context: grpc.ServicerContext
    ) -> pb.BatchGetScoresResponse:
        """Return what was measured of profiles."""
        rows, times = self._reader.measured(request.profile_ids)
        cutoff, ended = times or (None, None)
        return pb.BatchGetScoresResponse(profiles=map(wire.measured, rows), data_cutoff=cutoff, compute_time=ended)

    def ListInteractionMonths(
        self, request: retention_pb2.ListInteractionMonthsRequest, context: grpc.ServicerContext
    ) -> retention_pb2.ListInteractionMonthsResponse:
        """List the months that have interactions."""
        found = [
            retention_pb2.InteractionMonth(month=item.month, interaction_count=item.rows, kept_count=item.kept)
            for item in months(self._parts.warehouse, request.kept_profile_ids)
        ]
        return retention_pb2.ListInteractionMonthsResponse(months=found)

    def DeleteInteractionMonths(
        self, request: retention_pb2.DeleteInteractionMonthsRequest, context: grpc.ServicerContext
    ) -> retention_pb2.DeleteInteractionMonthsResponse:
        """Delete the interactions of months."""
        delete_months(self._parts.warehouse, request.months, request.kept_profile_ids)
        return retention_pb2.DeleteInteractionMonthsResponse()

    def ComputeScores(
        self, request: pb.ComputeScoresRequest, context: grpc.ServicerContext
    ) -> operations_pb2.Operation:
        """Queue a computation of all scores."""
        metadata = pb.ComputeScoresMetadata(definition_version=rfm.DEFINITION_VERSION)
        return self._parts.jobs.start(COMPUTE, {}, metadata, _owner(), request.request_id)

    def ListMetrics(self, request: pb.ListMetricsRequest, context: grpc.ServicerContext) -> pb.ListMetricsResponse:
        """List the registry by name."""
        token = decode_token(request.page_token, "metrics")
        size = page_size_of(request.page_size)
        names = sorted(name for name in REGISTRY if name > str(token.get("after", "")))
        page = names[:size]
        following = encode_token({"after": page[-1]}, "metrics") if len(names) > size else ""
        metrics = [wire.metric(REGISTRY[name]) for name in page]
        return pb.ListMetricsResponse(metrics=metrics, next_page_token=following)

    def QueryMetric(self, request: pb.QueryMetricRequest, context: grpc.ServicerContext) -> pb.QueryMetricResponse:
        """Answer a metric; small cells are withheld."""
        definition = find_metric(request.name.removeprefix("metrics/"))
        check_dimensions(request.dimensions, current_call().decision.obligations.disposition)
        months = (request.from_month, request.to_month)
        found = self._reader.figures(definition, list(request.dimensions), months, _reach())
        return wire.figures(definition, found)

    def EvaluateAudience(
        self, request: pb.EvaluateAudienceRequest, context: grpc.ServicerContext
    ) -> pb.EvaluateAudienceResponse:
        """Find the profiles of a rule; the token carries the data version, so pages fit together."""
        check_rule(request.rule, current_call().decision.obligations.disposition)
        rule = _reach().rule(request.rule)
        if request.check_only:
            return pb.EvaluateAudienceResponse(rule=rule)
        of_filter = filter_hash("audience", rule_digest(rule))
        token = decode_token(request.page_token, of_filter)
        pinned = self._audiences.pin(_versions(token) if token else None)
        cutoff = pinned.cutoff
        if request.count_only:
            return pb.EvaluateAudienceResponse(total=self._audiences.count(rule, pinned), data_cutoff=cutoff)
        size = min(request.page_size or PAGE_LIMIT, PAGE_LIMIT)
        page = self._audiences.page(rule, pinned, number_of(token, "offset"), size)
        following = ""
        if page.next_offset:
            following = encode_token({**pinned.versions, "offset": page.next_offset}, of_filter)
        return pb.EvaluateAudienceResponse(
            profile_ids=page.profile_ids, total=page.total, data_cutoff=cutoff, next_page_token=following
        )


def _versions(token: Mapping[str, str | int | None]) -> dict[str, int]:
    return {name: number_of(token, name) for name in token if name != "offset"}
