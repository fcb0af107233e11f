"""Ask the access service for portions of quotas."""

from __future__ import annotations

from collections.abc import Sequence

from kehu.access.v1 import quotas_pb2 as pb

from gateway.quotas import Ask, Lease, Portion
from gateway.upstreams import Upstreams

PATH = "/kehu.access.v1.AccessService/LeaseQuotas"
TIMEOUT_SECONDS = 1.0


def lease_by(upstreams: Upstreams) -> Lease:
    """Return how portions are asked for: one call to access, by this process itself."""

    async def lease(asks: Sequence[Ask]) -> Sequence[Portion]:
        request = pb.LeaseQuotasRequest(asks=[ask_message(ask) for ask in asks])
        raw = await upstreams.call("access", PATH, request.SerializeToString(), [], TIMEOUT_SECONDS)
        found = pb.LeaseQuotasResponse.FromString(raw).portions
        return [Portion(portion.granted, portion.left, portion.ends_in_seconds) for portion in found]

    return lease


def ask_message(ask: Ask) -> pb.QuotaAsk:
    """Return the message of an ask."""
    quota = ask.quota
    return pb.QuotaAsk(
        quota=quota.name,
        subject=ask.subject,
        requests=quota.requests,
        period_seconds=quota.period_seconds,
        wanted=ask.wanted,
        spent=ask.spent,
    )
