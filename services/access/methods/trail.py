"""The audit trail: write, list, verify. And the snapshot every process polls."""

from __future__ import annotations

from collections.abc import Iterator

import grpc
from kehu.access.v1 import access_pb2 as pb

from services.access.methods.context import Context
from services.access.methods.messages import block_entries
from services.chassis.access.wire import entry_of
from services.chassis.paging import decode_token, encode_token, filter_hash, page_size_of

BLOCKS_READ = 2000  # per page: a filter that matches little gives short pages, not slow ones
BLOCKS_AT_ONCE = 100
FILTERS = ("subject", "resource", "target", "department", "outcome", "request_id")


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
        return pb.WriteAuditEntriesResponse(block=self._context.chain.append(request.batch_id, entries))

    def ListAuditEntries(
        self, request: pb.ListAuditEntriesRequest, context: grpc.ServicerContext
    ) -> pb.ListAuditEntriesResponse:
        """Return a page, the newest first."""
        wanted = {name: getattr(request, name) for name in FILTERS if getattr(request, name)}
        size, of_filter = page_size_of(request.page_size), filter_hash("auditEntries", sorted(wanted.items()))
        start = decode_token(request.page_token, of_filter)
        block = int(start["block"] or 0) if start else self._context.chain.head()
        below = int(start["position"] or 0) if start else -1
        reply = pb.ListAuditEntriesResponse()
        for sequence, position, entry in self._walk(block, below):
            if entry is not None and all(getattr(entry, name) == value for name, value in wanted.items()):
                reply.audit_entries.append(entry)
            if len(reply.audit_entries) == size or sequence <= block - BLOCKS_READ:
                reply.next_page_token = encode_token({"block": sequence, "position": position}, of_filter)
                break
        return reply

    def VerifyAuditEntries(
        self, request: pb.VerifyAuditEntriesRequest, context: grpc.ServicerContext
    ) -> pb.VerifyAuditEntriesResponse:
        """Recompute the chain."""
        found = self._context.chain.verify()
        return pb.VerifyAuditEntriesResponse(
            intact=not found.first_bad,
            blocks=found.blocks,
            entries=found.entries,
            first_bad_block=found.first_bad,
            fault=found.fault,
            head_hash=found.head,
        )

    def _walk(self, last: int, below: int) -> Iterator[tuple[int, int, pb.AuditEntry | None]]:
        """Yield entries downwards from a block, in the first block those below a position only."""
        for top in range(last, 0, -BLOCKS_AT_ONCE):
            for block in self._context.chain.blocks.descending(top, min(BLOCKS_AT_ONCE, top)):
                for position, entry in block_entries(block):
                    if block.sequence != last or below < 0 or position < below:
                        yield block.sequence, position, entry
