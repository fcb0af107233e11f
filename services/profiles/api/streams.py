"""Records that arrive as a stream of lines."""

from __future__ import annotations

import grpc
from kehu.profiles.v1 import streaming_pb2

from services.chassis.server import current_call
from services.profiles.admission import Summary, settings_of
from services.profiles.api.common import Tools
from services.profiles.intake.streaming import entries_of
from services.profiles.messages import reason_message, summary_message


class StreamsPart:
    """The RPC that takes the lines of a stream."""

    tools: Tools

    def StreamRecords(
        self, request: streaming_pb2.StreamRecordsRequest, context: grpc.ServicerContext
    ) -> streaming_pb2.StreamRecordsResponse:
        """Take in some lines; each is accepted, known already, or set apart."""
        settings = settings_of(self.tools.source(request.parent))
        first = max(request.first_line, 1)
        entries, last = entries_of(request.lines, first)
        operation = f"{current_call().caller.subject}/{request.request_id}" if request.request_id else ""
        admitted, tally = self.tools.admission().admit(settings, entries, operation)
        summary = Summary()
        summary.add(admitted, tally)
        reply = streaming_pb2.StreamRecordsResponse(last_line=last, summary=summary_message(summary))
        for entry, item in zip(entries, admitted, strict=True):
            if item.reject_id:
                reply.set_apart.add(
                    line=entry.number,
                    source_record_id=item.source_record_id,
                    reject=f"rejects/{item.reject_id}",
                    reasons=[reason_message(name, reason) for name, reason in item.reasons],
                )
        return reply
