"""What an auditor asks of the trail: who saw what of a person, and the chain itself."""

from __future__ import annotations

import grpc
import orjson
from kehu.access.v1 import audit_pb2 as pb

from services.access.disclosures import Disclosure, report
from services.access.domain.proof import lines_of
from services.access.methods.context import Context
from services.access.methods.trail import period_of
from services.chassis.times import set_times

PAGE_BLOCKS = 20
PAGE_BYTES = 2 * 1024 * 1024  # a reply is 4 MiB at most, and a block 1 MiB of lines


class ProofMethods:
    """The methods of AccessService for auditors."""

    _context: Context

    def ListDisclosures(
        self, request: pb.ListDisclosuresRequest, context: grpc.ServicerContext
    ) -> pb.ListDisclosuresResponse:
        """Report who was told what."""
        c = self._context
        found = report(c.chain.blocks, c.names, request.profile_id, *period_of(request, c.now()))
        messages = [_disclosure_message(item) for item in found.disclosures]
        return pb.ListDisclosuresResponse(disclosures=messages, complete=found.is_whole)

    def ExportAuditBlocks(
        self, request: pb.ExportAuditBlocksRequest, context: grpc.ServicerContext
    ) -> pb.ExportAuditBlocksResponse:
        """Return a page of the chain, with the checkpoints in it."""
        chain = self._context.chain
        newest = chain.checkpoints.last()
        end = request.last_block or chain.head()
        first = max(request.first_block, newest.base.sequence + 1 if newest else 1)
        reply = pb.ExportAuditBlocksResponse(
            block_key=chain.public_keys[0].hex(), checkpoint_key=chain.public_keys[1].hex()
        )
        held, last = 0, first - 1
        for block in reversed(chain.blocks.descending(min(first + PAGE_BLOCKS - 1, end), PAGE_BLOCKS)):
            lines = lines_of(block)
            if block.sequence < first or len(reply.blocks) == (request.page_size or PAGE_BLOCKS):
                continue
            if held + len(lines) > PAGE_BYTES and held:
                break
            held, last = held + len(lines), block.sequence
            reply.blocks.add(
                sequence=block.sequence, batch_id=block.batch_id, lines=lines, previous=block.previous,
                hash=block.hash, signature=block.signature,
            )  # fmt: skip
        reply.next_block = last + 1 if reply.blocks and last < end else 0
        for checkpoint in chain.checkpoints.covering(first, last):
            reply.checkpoints.append(orjson.dumps(checkpoint.document()).decode())
        return reply


def _disclosure_message(found: Disclosure) -> pb.Disclosure:
    message = pb.Disclosure(
        subject=found.subject, department=found.department, purpose=found.purpose, method=found.method,
        count=found.count, shown_groups=sorted(found.shown), masked_groups=sorted(found.masked),
        profiles=sorted(found.profiles), audit_entry=found.example,
    )  # fmt: skip
    set_times(message, first_time=found.first, last_time=found.last)
    return message
