"""How calls in frames fail; reads like the errors of unary calls."""

from __future__ import annotations

import grpc
from google.rpc import code_pb2, status_pb2

CODES = {code.value[0]: code for code in grpc.StatusCode}
LOST = status_pb2.Status(code=code_pb2.UNAVAILABLE, message="the connection to the service was lost")


class FramedFailure(grpc.RpcError):
    """A framed call failed; reads like the error of a unary call."""

    def __init__(self, status: status_pb2.Status, details: bytes = b"") -> None:
        super().__init__(status.code)
        self._status = status
        self._details = details

    def code(self) -> grpc.StatusCode:
        """Return the status code."""
        return CODES.get(self._status.code, grpc.StatusCode.UNKNOWN)

    def details(self) -> str:
        """Return the status message."""
        return self._status.message

    def trailing_metadata(self) -> list[tuple[str, bytes]]:
        """Return the google.rpc.Status as unary calls carry it."""
        return [("grpc-status-details-bin", self._details)] if self._details else []


class ConnectionLost(FramedFailure):
    """The connection broke while the call was under way: nobody knows what became of it."""


def failure(code: int, message: str) -> FramedFailure:
    """Return a failure that no service described."""
    return FramedFailure(status_pb2.Status(code=code, message=message))
