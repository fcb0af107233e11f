"""Portions of callers' quotas, for the gateways."""

from __future__ import annotations

from datetime import timedelta

import grpc
from kehu.access.v1 import quotas_pb2 as pb

from services.access.domain.quotas import portion, window_of
from services.access.methods.context import Context


class QuotaMethods:
    """The quota methods of AccessService."""

    _context: Context

    def LeaseQuotas(self, request: pb.LeaseQuotasRequest, context: grpc.ServicerContext) -> pb.LeaseQuotasResponse:
        """Hand out portions; what is asked beyond a quota counts as taken, so that later asks get nothing."""
        return pb.LeaseQuotasResponse(portions=[self._portion(ask) for ask in request.asks])

    def _portion(self, ask: pb.QuotaAsk) -> pb.QuotaPortion:
        now = self._context.now()
        window = window_of(ask.quota, ask.subject, ask.period_seconds, now)
        end = now + timedelta(seconds=window.seconds_left)
        before = self._context.windows.add(window.key, ask.spent + ask.wanted, now, end)
        granted, left = portion(ask.requests, before + ask.spent, ask.wanted)
        return pb.QuotaPortion(granted=granted, left=left, ends_in_seconds=window.seconds_left)
