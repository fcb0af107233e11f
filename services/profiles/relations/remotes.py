"""The consent service behind the port of a network, asked with the caller's own rights and purpose."""

from __future__ import annotations

from collections.abc import Sequence

import grpc
from kehu.consent.v1 import consent_pb2
from kehu.consent.v1.consent_pb2_grpc import ConsentServiceStub

from services.chassis.errors import Unavailable

TIMEOUT_SECONDS = 5.0
ADVERTISING = "marketing"  # rests on consent alone


class RemoteConsents:
    """Consent over gRPC; whatever is no clear allowance is a refusal."""

    def __init__(self, stub: ConsentServiceStub) -> None:
        self._stub = stub

    def allowed(self, profile_ids: Sequence[str], purpose: str, channel: str) -> set[str]:
        """Return those who may be shown for the purpose: by consent or, but for advertising, another legal basis.

        Raises:
            Unavailable: consent does not answer, or does not answer this caller.
        """
        request = consent_pb2.BatchDecideRequest(
            profile_ids=profile_ids, purpose_id=purpose, channel=channel, accept_legal_basis=purpose != ADVERTISING
        )
        try:
            found = self._stub.BatchDecide(request, timeout=TIMEOUT_SECONDS)
        except grpc.RpcError as error:
            raise Unavailable("consent does not answer, so nobody is shown; try again") from error
        pairs = zip(profile_ids, found.decisions, strict=False)
        return {one.profile_id for asked, one in pairs if one.allowed and one.profile_id == asked}
