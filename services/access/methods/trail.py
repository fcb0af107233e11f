"""The audit trail: write, list, verify. And the snapshot every process polls."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import UTC, datetime, timedelta

import grpc
from kehu.access.v1 import access_pb2 as pb
from kehu.access.v1 import audit_pb2

from services.access.domain.trail import time_of
from services.access.methods.context import Context
from services.access.methods.messages import found_message
from services.access.searching import TICK, Position, Wanted, search
from services.chassis.access.wire import entry_of
from services.chassis.audit import AuditEntry
from services.chassis.errors import FieldViolation, Invalid
from services.chassis.paging import decode_token, encode_token, filter_hash, moment_of, number_of, page_size_of
from services.chassis.server import current_call

YEAR_9000 = 221_845_392_000_000  # in milliseconds since 1970: no decision was made then
FILTERS = (
    "subject", "resource", "target", "department", "outcome", "request_id", "purpose", "group", "method", "status",
    "action", "service", "emergency",
)  # fmt: skip
LONG_AGO = datetime(2000, 1, 1, tzinfo=UTC)
AHEAD = timedelta(days=1)  # clocks of other processes may be ahead of ours


class TrailMethods:
    """The audit methods of AccessService, and its snapshot method."""

    _context: Context

    def GetPolicySnapshot(
        self, request: pb.GetPolicySnapshotRequest, context: grpc.ServicerContext
    ) -> pb.GetPolicySnapshotResponse:
        """Return what is newer."""
        self._context.directory.refresh()
        return self._context.directory.reply(request)

    def WriteAuditEntries(
        self, request: pb.WriteAuditEntriesRequest, context: grpc.ServicerContext
    ) -> pb.WriteAuditEntriesResponse:
        """Append a batch once."""
        entries = [entry_of(message) for message in request.entries]
        _refuse_foreign(entries, current_call().caller.subject)
        return pb.WriteAuditEntriesResponse(block=self._context.chain.append(request.batch_id, entries))

    def ListAuditEntries(
        self, request: pb.ListAuditEntriesRequest, context: grpc.ServicerContext
    ) -> pb.ListAuditEntriesResponse:
        """Return a page, the newest first."""
        wanted = wanted_of(request, self._context.now())
        of_filter = filter_hash("auditEntries", _without_page(request).SerializeToString(deterministic=True))
        start = decode_token(request.page_token, of_filter)
        position = _position(start) if start else None
        found, more = search(self._context.chain.blocks, wanted, position, page_size_of(request.page_size))
        reply = pb.ListAuditEntriesResponse(audit_entries=[found_message(item) for item in found])
        if more:
            token: dict[str, str | int | None] = {
                "at": more.at.isoformat(),
                "block": more.sequence,
                "index": more.index,
            }
            reply.next_page_token = encode_token(token, of_filter)
        return reply

    def VerifyAuditEntries(
        self, request: pb.VerifyAuditEntriesRequest, context: grpc.ServicerContext
    ) -> pb.VerifyAuditEntriesResponse:
        """Recompute the chain."""
        verdict = self._context.chain.verify(request.checkpoint)
        found, last = verdict.blocks, verdict.checkpoint
        reply = pb.VerifyAuditEntriesResponse(
            intact=verdict.is_intact,
            blocks=found.blocks,
            entries=found.entries,
            first_bad_block=found.first_bad,
            fault=found.fault,
            head_hash=found.head,
            first_bad_checkpoint=verdict.bad_checkpoint,
            checkpoint_fault=verdict.fault,
        )
        if last is not None:
            reply.checkpoint, reply.checkpoint_block = last.number, last.sequence
            reply.checkpoint_time.FromJsonString(last.time)
        return reply


def _refuse_foreign(entries: Sequence[AuditEntry], writer: str) -> None:
    """Let no service write in another's name, and no entry without a time it is found by."""
    bad = []
    for number, entry in enumerate(entries):
        if f"svc:{entry.service}" != writer:
            bad.append(FieldViolation(f"entries[{number}].service", "must be the service that writes the entry"))
        try:
            time_of(entry)
        except ValueError:
            bad.append(FieldViolation(f"entries[{number}].time", "must be a time by RFC 3339"))
    if bad:
        raise Invalid("the batch has bad entries", violations=bad[:50])


def period_of(
    request: pb.ListAuditEntriesRequest | audit_pb2.ListDisclosuresRequest, now: datetime
) -> tuple[datetime, datetime]:
    """Return since when and until when a request asks; nothing is older than LONG_AGO or newer than now and AHEAD."""
    since = max(request.start_time.ToDatetime(UTC), LONG_AGO) if request.HasField("start_time") else LONG_AGO
    until = now + AHEAD
    return since, min(request.end_time.ToDatetime(UTC), until) if request.HasField("end_time") else until


def wanted_of(request: pb.ListAuditEntriesRequest, now: datetime) -> Wanted:
    """Return what a list asks for; a decision id begins with its time, so that no index of ids is kept."""
    values = {name: getattr(request, name) for name in FILTERS if getattr(request, name)}
    if request.profile_id:
        values["profile"] = request.profile_id
    since, until = period_of(request, now)
    if request.decision_id:
        values["entry_id"] = request.decision_id
        milliseconds = int(request.decision_id[:12], 16)
        made = datetime.fromtimestamp(milliseconds / 1000, UTC) if milliseconds < YEAR_9000 else LONG_AGO
        since, until = max(since, made - TICK), min(until, made + TICK * 2)
    return Wanted(values, since, until)


def _without_page(request: pb.ListAuditEntriesRequest) -> pb.ListAuditEntriesRequest:
    bare = pb.ListAuditEntriesRequest()
    bare.CopyFrom(request)
    bare.ClearField("page_token")
    bare.ClearField("page_size")
    return bare


def _position(token: Mapping[str, str | int | None]) -> Position:
    return Position(moment_of(token, "at"), number_of(token, "block"), number_of(token, "index"))
