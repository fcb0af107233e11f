"""Analytics over gRPC with a fixed audience: what marketing needs of it."""

from __future__ import annotations

from kehu.analytics.v1 import analytics_pb2 as pb
from kehu.analytics.v1 import analytics_pb2_grpc, audience_pb2

from services.chassis.errors import KehuError
from services.chassis.server import Serving, current_call


class AnalyticsFake(analytics_pb2_grpc.AnalyticsServiceServicer):
    """Answers every rule with `audience`, in pages as asked; remembers who asked."""

    def __init__(self) -> None:
        self.audience: list[str] = []
        self.askers: list[str] = []
        self.checkers: list[str] = []
        self.narrowed: audience_pb2.AudienceRule | None = None
        self.page_limit = 500
        self.refusal: KehuError | None = None

    def EvaluateAudience(self, request, context):
        """Return a page of the audience, rising."""
        if request.check_only:
            self.checkers.append(current_call().caller.subject)
            return pb.EvaluateAudienceResponse(rule=self.narrowed or request.rule)
        self.askers.append(current_call().caller.subject)
        if self.refusal is not None:
            raise self.refusal
        size = min(request.page_size or 500, self.page_limit)
        start = int(request.page_token or 0)
        found = sorted(self.audience)[start : start + size]
        more = str(start + size) if start + size < len(self.audience) else ""
        ids = [] if request.count_only else found
        reply = pb.EvaluateAudienceResponse(profile_ids=ids, total=len(self.audience), next_page_token=more)
        reply.data_cutoff.FromSeconds(1_790_000_000)
        return reply


def analytics_serving(fake: AnalyticsFake) -> Serving:
    """Return what serves the fake."""
    return Serving("analytics", [(analytics_pb2_grpc.add_AnalyticsServiceServicer_to_server, fake)])
