"""Have access keep a share: for the services that own what is lent (docs/shares.md)."""

from __future__ import annotations

from typing import Protocol

from kehu.access.v1 import shares_pb2 as pb

from services.chassis.errors import Unavailable
from services.chassis.server.calls import current_call

TIMEOUT_SECONDS = 5.0


class SharesStub(Protocol):
    """The method of the access service that this calls."""

    def CreateShare(self, request: pb.CreateShareRequest, *, timeout: float) -> pb.Share:
        """Keep a share."""


class Lending:
    """Lends what the caller of the present call reaches; the servicer has looked whether they do."""

    def __init__(self, stub: SharesStub | None = None) -> None:
        """`stub` is None where access is not connected, such as in jobs."""
        self._stub = stub

    def lend(self, target: str, terms: pb.ShareTerms) -> pb.Share:
        """Return the share of a record, such as `profiles/…`, and have the audit entry say what was lent to whom.

        Raises:
            Unavailable: access is not connected.
            grpc.RpcError: what access answered, which the guard hands on.
        """
        if self._stub is None:
            raise Unavailable("access is not connected; try again")
        call = current_call()
        caller = call.caller
        request = pb.CreateShareRequest(
            target=target, lender=caller.subject, department=caller.department,
            lender_purpose=caller.purpose, terms=terms,
        )  # fmt: skip
        share = self._stub.CreateShare(request, timeout=TIMEOUT_SECONDS)
        call.note(f"{share.name} to {share.borrower} for {share.purpose}: {share.reason}")
        return share
