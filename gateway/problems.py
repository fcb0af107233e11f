"""Every refusal of the gateway as RFC 9457 problem+json; the only table of HTTP statuses."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from http import HTTPStatus

import grpc
import orjson
from google.protobuf.message import DecodeError
from google.rpc import error_details_pb2, status_pb2

from gateway.reasons import Reason
from services.chassis.access.stepping import ASSURANCE, FRESH_SECONDS, StepUpRequired

# google/rpc/code.proto gives the pairs; FAILED_PRECONDITION is 400 there, not 412.
STATUSES: dict[grpc.StatusCode, int] = {
    grpc.StatusCode.INVALID_ARGUMENT: 400,
    grpc.StatusCode.FAILED_PRECONDITION: 400,
    grpc.StatusCode.OUT_OF_RANGE: 400,
    grpc.StatusCode.UNAUTHENTICATED: 401,
    grpc.StatusCode.PERMISSION_DENIED: 403,
    grpc.StatusCode.NOT_FOUND: 404,
    grpc.StatusCode.ALREADY_EXISTS: 409,
    grpc.StatusCode.ABORTED: 409,
    grpc.StatusCode.RESOURCE_EXHAUSTED: 429,
    grpc.StatusCode.CANCELLED: 499,
    grpc.StatusCode.UNIMPLEMENTED: 501,
    grpc.StatusCode.UNAVAILABLE: 503,
    grpc.StatusCode.DEADLINE_EXCEEDED: 504,
}
TITLES = {499: "Client Closed Request", 412: "Precondition Failed", 422: "Unprocessable Content"}
RETRY_SECONDS = 1  # what 429 and 503 advise when the service names no time of its own
HIDDEN = "the service failed; tell operations the request id"
SUBSCRIPT = re.compile(r"\[([0-9]+)\]")


@dataclass(frozen=True, slots=True)
class Fault:
    """One bad part of a request: where (JSON pointer) and what to do about it."""

    pointer: str
    detail: str


@dataclass(eq=False, slots=True)
class Problem(Exception):  # noqa: N818 - it is the reply itself, not only an error
    """A refusal, ready to be written."""

    status: int
    reason: str
    detail: str
    metadata: Mapping[str, str] = field(default_factory=dict)
    faults: Sequence[Fault] = ()
    headers: Sequence[tuple[bytes, bytes]] = ()

    def body(self, docs_url: str, request_id: str) -> bytes:
        """Return the problem+json document; `docs_url` is where docs/errors.md is served."""
        document: dict[str, object] = {
            "type": f"{docs_url}#{self.reason}",
            "title": title_of(self.status),
            "status": self.status,
            "detail": self.detail,
            "instance": request_id,
            "reason": self.reason,
        }
        if self.metadata:
            document["metadata"] = dict(self.metadata)
        if self.faults:
            document["errors"] = [{"pointer": fault.pointer, "detail": fault.detail} for fault in self.faults]
        return orjson.dumps(document)


def title_of(status: int) -> str:
    """Return the fixed title of a status."""
    return TITLES.get(status) or HTTPStatus(status).phrase


def refusal(
    status: int,
    reason: Reason,
    detail: str,
    *,
    faults: Sequence[Fault] = (),
    retry_seconds: float = 0,
    metadata: Mapping[str, str] | None = None,
    headers: Iterable[tuple[bytes, bytes]] = (),
) -> Problem:
    """Return a refusal of the gateway itself, with Retry-After when `retry_seconds` is above zero."""
    sent = [(b"retry-after", str(max(1, round(retry_seconds))).encode())] if retry_seconds else []
    if status == 401:
        sent.append((b"www-authenticate", b'Bearer realm="kehu"'))
    return Problem(status, reason.name, detail, metadata or {}, faults, (*sent, *headers))


def challenge(reason: str) -> bytes:
    """Return the WWW-Authenticate header of a refused token (RFC 6750 §3), or of a call for step-up (RFC 9470 §3)."""
    if reason != StepUpRequired.reason:
        return b'Bearer realm="kehu", error="invalid_token"'
    text = (
        'Bearer realm="kehu", error="insufficient_user_authentication", '
        'error_description="show a second factor again", '
        f'acr_values="{ASSURANCE}", max_age="{FRESH_SECONDS}"'
    )
    return text.encode("ascii")


def pointer_of(path: str, body_field: str = "") -> str:
    """Return the JSON pointer of a field path such as profile.phones[2].number, seen from the body."""
    if body_field and (path == body_field or path.startswith((f"{body_field}.", f"{body_field}["))):
        path = path[len(body_field) :].lstrip(".")
    path = SUBSCRIPT.sub(r".\1", path)
    return "".join(f"/{part.replace('~', '~0').replace('/', '~1')}" for part in path.split(".") if part)


def status_of(error: grpc.RpcError) -> status_pb2.Status | None:
    """Return the google.rpc.Status a call failed with, None when it carries none that can be read."""
    for key, value in error.trailing_metadata() or ():
        if key == "grpc-status-details-bin":
            try:
                return status_pb2.Status.FromString(value)
            except DecodeError:
                return None
    return None


def from_rpc(error: grpc.RpcError, *, body_field: str = "", had_if_match: bool = False) -> Problem:
    """Return the problem of a failed call; text is repeated only when our own interceptor wrote it."""
    code: grpc.StatusCode = error.code()
    status = status_of(error)
    http = STATUSES.get(code, 500)
    info, faults = details_of(status, body_field) if status is not None else (None, [])
    if info is None or status is None:
        return from_code(code)
    if info.reason == "ETAG_MISMATCH" and had_if_match:
        http = 412
    headers: list[tuple[bytes, bytes]] = []
    if http in (429, 503):
        headers.append((b"retry-after", str(RETRY_SECONDS).encode()))
    if http == 401:
        headers.append((b"www-authenticate", challenge(info.reason)))
    return Problem(http, info.reason, status.message, dict(info.metadata), tuple(faults), tuple(headers))


def details_of(status: status_pb2.Status, body_field: str) -> tuple[error_details_pb2.ErrorInfo | None, list[Fault]]:
    """Return the ErrorInfo of our own domain, and the bad fields."""
    info: error_details_pb2.ErrorInfo | None = None
    faults: list[Fault] = []
    for detail in status.details:
        if detail.Is(error_details_pb2.ErrorInfo.DESCRIPTOR):
            found = error_details_pb2.ErrorInfo.FromString(detail.value)
            info = found if found.domain == "kehu" else info
        elif detail.Is(error_details_pb2.BadRequest.DESCRIPTOR):
            for violation in error_details_pb2.BadRequest.FromString(detail.value).field_violations:
                faults.append(Fault(pointer_of(violation.field, body_field), violation.description))
    return info, faults


def from_code(code: grpc.StatusCode) -> Problem:
    """Return the problem of a call that failed below our interceptors: transport, deadline, limits."""
    if code == grpc.StatusCode.UNAVAILABLE:
        detail = "the service does not answer"
        return refusal(503, Reason.SERVICE_UNAVAILABLE, detail, retry_seconds=RETRY_SECONDS)
    if code == grpc.StatusCode.DEADLINE_EXCEEDED:
        return refusal(504, Reason.DEADLINE_EXCEEDED, "the service did not answer in time")
    if code == grpc.StatusCode.RESOURCE_EXHAUSTED:
        return refusal(429, Reason.SERVICE_BUSY, "the service is at its limit", retry_seconds=RETRY_SECONDS)
    if code == grpc.StatusCode.UNIMPLEMENTED:
        return refusal(501, Reason.NOT_IMPLEMENTED, "the service does not offer this method")
    return refusal(500, Reason.INTERNAL, HIDDEN)
