"""The one place that turns an exception into google.rpc.Status (AIP-193)."""

from __future__ import annotations

import grpc
from google.rpc import code_pb2, error_details_pb2, status_pb2
from grpc_status import rpc_status

from services.chassis import errors

_CODES: dict[type[errors.KehuError], int] = {
    errors.Invalid: code_pb2.INVALID_ARGUMENT,
    errors.NotFound: code_pb2.NOT_FOUND,
    errors.AlreadyExists: code_pb2.ALREADY_EXISTS,
    errors.Conflict: code_pb2.ABORTED,
    errors.NotAllowed: code_pb2.FAILED_PRECONDITION,
    errors.Denied: code_pb2.PERMISSION_DENIED,
    errors.Unauthenticated: code_pb2.UNAUTHENTICATED,
    errors.Unavailable: code_pb2.UNAVAILABLE,
    errors.Exhausted: code_pb2.RESOURCE_EXHAUSTED,
}
DOMAIN = "kehu"


def code_of(error: errors.KehuError) -> int:
    """Return the google.rpc.Code of an error, by the nearest kind it is of."""
    for kind in type(error).__mro__:
        if kind in _CODES:
            return _CODES[kind]
    return code_pb2.INTERNAL


def code_name(error: errors.KehuError) -> str:
    """Return the name of an error's code, such as PERMISSION_DENIED."""
    return str(code_pb2.Code.Name(code_of(error)))


def to_status(error: errors.KehuError) -> status_pb2.Status:
    """Return the status with one ErrorInfo, and a BadRequest when fields are to blame."""
    status = status_pb2.Status(code=code_of(error), message=error.message)
    info = error_details_pb2.ErrorInfo(reason=error.reason, domain=DOMAIN, metadata=error.metadata)
    status.details.add().Pack(info)
    if error.violations:
        bad = error_details_pb2.BadRequest()
        for violation in error.violations:
            bad.field_violations.add(field=violation.field, description=violation.description)
        status.details.add().Pack(bad)
    return status


def internal_status(error_id: str) -> status_pb2.Status:
    """Return the status of an unexpected failure: a fixed text and an id to find it in the log by."""
    status = status_pb2.Status(code=code_pb2.INTERNAL, message="the service failed; tell operations the error id")
    info = error_details_pb2.ErrorInfo(reason="INTERNAL", domain=DOMAIN, metadata={"error_id": error_id})
    status.details.add().Pack(info)
    return status


def upstream_status(error: grpc.RpcError) -> status_pb2.Status:
    """Return the status of a call to another service that failed, as that service gave it.

    An outage or a missed deadline of the other service is UNAVAILABLE for our caller.
    """
    code = error.code() if isinstance(error, grpc.Call) else grpc.StatusCode.UNAVAILABLE
    if code in (grpc.StatusCode.UNAVAILABLE, grpc.StatusCode.DEADLINE_EXCEEDED, grpc.StatusCode.CANCELLED):
        return to_status(errors.Unavailable("a service this call needs does not answer; try again"))
    found = rpc_status.from_call(error) if isinstance(error, grpc.Call) else None
    return found if found is not None else internal_status("upstream")


def abort(context: grpc.ServicerContext, status: status_pb2.Status) -> None:
    """End the call with a status; never returns."""
    context.abort_with_status(rpc_status.to_status(status))
