"""The long work of analytics: import a file of interactions, compute scores; resumed after a crash."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from datetime import UTC, datetime, timedelta
from typing import BinaryIO

import grpc
from google.protobuf.message import Message
from kehu.analytics.v1 import analytics_pb2 as pb
from kehu.analytics.v1.events_pb2 import ScoresComputed
from kehu.profiles.v1 import profiles_pb2
from kehu.profiles.v1.profiles_pb2_grpc import ProfilesServiceStub

from services.analytics.domain import rfm
from services.analytics.domain.importing import DEFAULT_EVENT_TYPE, FileOptions, parse_offset, parse_renames
from services.analytics.domain.rows import Keyed
from services.analytics.domain.suppression import LEAST_CUSTOMERS, suppressed
from services.analytics.files import InteractionFile, Uploads
from services.analytics.importing import Importer, Progress, Resolver
from services.analytics.scoring import Computation, compute_scores
from services.analytics.store import SCORES_NAME, Computations
from services.analytics.warehouse import Warehouse
from services.chassis.errors import Unavailable
from services.chassis.jobs import Job, OperationStore

IMPORT = "import_interactions"
COMPUTE = "compute_scores"
RESOLVE_SECONDS = 10.0
UNFINISHED_LIMIT = 10_000


def options_of(header: pb.ImportInteractionsHeader) -> FileOptions:
    """Return how a file is to be read.

    Raises:
        UnreadableInteractionFile: the renamed columns are not well written.
    """
    return FileOptions(
        source_id=header.source_id,
        event_type=header.event_type or DEFAULT_EVENT_TYPE,
        channel=header.channel,
        renames=parse_renames(header.columns),
        offset_minutes=parse_offset(header.utc_offset),
    )


def profiles_resolver(stub: ProfilesServiceStub) -> Resolver:
    """Return a resolver over the profiles service."""

    def resolve(source_id: str, source_record_ids: Sequence[str]) -> Mapping[str, str]:
        request = profiles_pb2.ResolveSourceRecordsRequest(source_id=source_id, source_record_ids=source_record_ids)
        try:
            return dict(stub.ResolveSourceRecords(request, timeout=RESOLVE_SECONDS).profile_ids)
        except grpc.RpcError as error:
            if error.code() in (grpc.StatusCode.UNAVAILABLE, grpc.StatusCode.DEADLINE_EXCEEDED):
                raise Unavailable("the profiles service does not answer; the import goes on later") from error
            raise

    return resolve


def sweep_uploads(uploads: Uploads, operations: OperationStore) -> int:
    """Delete uploads whose import has failed, was cancelled or never began; return how many."""

    def needed() -> set[str]:
        found = operations.due(datetime.now(UTC) + timedelta(days=3650), UNFINISHED_LIMIT)
        if len(found) == UNFINISHED_LIMIT:
            raise Unavailable("too many operations are waiting to tell which uploads are needed")
        args = [item["args"] for item in found]
        return {str(each["upload"]) for each in args if isinstance(each, Mapping) and "upload" in each}

    return uploads.sweep(needed, time.time())


class AnalyticsJobs:
    """Handlers of analytics' operations."""

    def __init__(
        self, warehouse: Warehouse, uploads: Uploads, resolve: Resolver, computations: Computations, keyed: Keyed
    ) -> None:
        self._warehouse = warehouse
        self._uploads = uploads
        self._resolve = resolve
        self._computations = computations
        self._keyed = keyed

    def import_interactions(self, job: Job) -> Message:
        """Import an uploaded file; what is in the lake already is left alone."""
        name, sha256 = str(job.args["upload"]), str(job.args["sha256"])
        progress = Progress.of(job.checkpoint)
        if not job.checkpoint.get("finished"):
            self._import(job, lambda: self._uploads.open(name), progress)
        self._uploads.drop(name)
        return _import_response(progress, sha256)

    def _import(self, job: Job, opened: Callable[[], BinaryIO], progress: Progress) -> None:
        header = pb.ImportInteractionsHeader.FromString(bytes.fromhex(str(job.args["header"])))
        options = options_of(header)
        file = InteractionFile(opened, options)
        importer = Importer(self._warehouse, self._resolve, job.name, options, self._keyed)
        first = progress.next_batch
        for number, batch in enumerate(file.batches()):
            if number < first:
                continue
            importer.take(file, batch, progress, resumed=number == first)
            job.save(progress.checkpoint(), _metadata(progress, file.total_rows))
        importer.finish(file, progress)
        job.save(progress.checkpoint() | {"finished": True}, _metadata(progress, progress.read))

    def compute_scores(self, job: Job) -> Message:
        """Compute all scores anew and tell who listens."""
        found = compute_scores(self._warehouse)

        def fact(version: int) -> ScoresComputed:
            return ScoresComputed(
                name=SCORES_NAME,
                version=version,
                event_time=datetime.now(UTC),
                definition_version=rfm.DEFINITION_VERSION,
                data_cutoff=found.cutoff,
                profile_count=found.profile_count,
            )

        self._computations.record(job.name, fact)
        return _scores_response(found)


def _metadata(progress: Progress, total: int) -> pb.ImportInteractionsMetadata:
    return pb.ImportInteractionsMetadata(
        total_rows=total,
        read_rows=progress.read,
        written_rows=progress.written,
        duplicate_rows=progress.duplicates,
        apart_rows=sum(progress.apart.values()),
    )


def _import_response(progress: Progress, sha256: str) -> pb.ImportInteractionsResponse:
    return pb.ImportInteractionsResponse(
        read_rows=progress.read,
        written_rows=progress.written,
        duplicate_rows=progress.duplicates,
        apart=[pb.ApartCount(reason=reason, rows=rows) for reason, rows in sorted(progress.apart.items())],
        file_sha256=sha256,
    )


def _scores_response(found: Computation) -> pb.ComputeScoresResponse:
    """Return what may be told; cut points are customers' values, and tell of each where a quintile has few of them."""
    counts = dict(found.segment_counts)
    hidden = suppressed({(segment,): count for segment, count in counts.items()})
    is_told = found.profile_count >= LEAST_CUSTOMERS
    cut_points = found.cut_points if found.profile_count >= LEAST_CUSTOMERS * rfm.QUINTILES else ()
    response = pb.ComputeScoresResponse(
        profile_count=found.profile_count if is_told else 0,
        definition_version=rfm.DEFINITION_VERSION,
        data_cutoff=found.cutoff,
        cut_points=[pb.CutPoints(measure=name, values=values) for name, values in cut_points],
    )
    for segment, title in rfm.SEGMENTS.items():
        small = (segment,) in hidden
        shown = 0 if small else counts.get(segment, 0)
        response.segments.add(segment=segment, title=title, profile_count=shown, suppressed=small)
    return response
