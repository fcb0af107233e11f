"""What the client raises: a problem per refusal (RFC 9457), in classes by what a caller would do about it."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from http import HTTPStatus
from typing import TYPE_CHECKING

from google.protobuf.json_format import ParseDict

if TYPE_CHECKING:
    from google.rpc import status_pb2

NO_ANSWER = 0  # the status of a problem when nobody answered
ETAG_MISMATCH = "ETAG_MISMATCH"
STEP_UP_REQUIRED = "STEP_UP_REQUIRED"
SCIM_ERROR = "urn:ietf:params:scim:api:messages:2.0:Error"  # its detail begins with the reason
PARAMETER = re.compile(r'([a-z_]+)="([^"]*)"')


@dataclass(frozen=True, slots=True)
class Fault:
    """A bad part of a request: where (JSON pointer, RFC 6901) and what to do about it."""

    pointer: str
    detail: str


@dataclass(frozen=True, slots=True)
class Refusal:
    """What came back: `reason` is stable and listed in docs/errors.md, `wait_seconds` what Retry-After says."""

    status: int
    reason: str
    detail: str = ""
    metadata: Mapping[str, str] = field(default_factory=dict)
    errors: tuple[Fault, ...] = ()
    request_id: str = ""
    wait_seconds: float = 0.0
    challenge: Mapping[str, str] = field(default_factory=dict)  # WWW-Authenticate
    was_sent: bool = True  # no when already the sign-in was refused


class KehuProblem(Exception):  # noqa: N818 - the name of the RFC
    """Kehu refused, or did not answer; its text has no personal data and no secrets."""

    def __init__(self, refusal: Refusal) -> None:
        self.refusal = refusal
        told = "".join(f"; {fault.pointer} {fault.detail}" for fault in refusal.errors)
        request = f" (request {refusal.request_id})" if refusal.request_id else ""
        super().__init__(f"{refusal.status or ''} {refusal.reason}: {refusal.detail}{told}{request}".lstrip())

    def __reduce__(self) -> tuple[type[KehuProblem], tuple[Refusal]]:
        return type(self), (self.refusal,)

    @property
    def status(self) -> int:
        """The HTTP status; NO_ANSWER (0) when nobody answered."""
        return self.refusal.status

    @property
    def reason(self) -> str:
        """Why, in one stable word, such as PROFILE_NOT_FOUND."""
        return self.refusal.reason

    @property
    def detail(self) -> str:
        """Why, in a sentence."""
        return self.refusal.detail

    @property
    def errors(self) -> tuple[Fault, ...]:
        """The bad parts of the request."""
        return self.refusal.errors

    @property
    def metadata(self) -> Mapping[str, str]:
        """What the reason says more of itself."""
        return self.refusal.metadata

    @property
    def decision_id(self) -> str:
        """The decision in the audit trail, to ask why: POST /v1/access:explain."""
        return self.refusal.metadata.get("decision_id", "")

    @property
    def retry_after(self) -> float:
        """After how many seconds to try again; 0 when nothing is said."""
        return self.refusal.wait_seconds

    @property
    def request_id(self) -> str:
        """What finds the request in the logs of operations."""
        return self.refusal.request_id


class InvalidRequest(KehuProblem):
    """400, 405, 413, 415: the request is wrong, or the state forbids it; the same again will not do."""


class Unauthenticated(KehuProblem):
    """401: the credentials or the token are refused."""


class StepUpRequired(Unauthenticated):
    """401: a second factor must be shown again (RFC 9470)."""

    @property
    def acr_values(self) -> str:
        """The assurance asked for."""
        return self.refusal.challenge.get("acr_values", "")

    @property
    def max_age_seconds(self) -> int:
        """How old the second factor may be."""
        return int(self.refusal.challenge.get("max_age", "0"))


class PermissionDenied(KehuProblem):
    """403: the policy says no; `decision_id` asks why."""


class NotFound(KehuProblem):
    """404: there is no such thing, or not for this caller."""


class Conflict(KehuProblem):
    """409: it is there already, or somebody else was at it."""


class VersionMismatch(Conflict):
    """412 or 409 ETAG_MISMATCH: it was changed since it was read; read it again."""


class QuotaExceeded(KehuProblem):
    """429: too many requests; wait for `retry_after`."""


class Unavailable(KehuProblem):
    """Nobody answered, or 502, 503, 504: a read may be tried again, a write may have been done."""


class OperationFailed(Exception):
    """A long-running operation ended with an error: `status` is its google.rpc.Status."""

    def __init__(self, name: str, status: status_pb2.Status) -> None:
        super().__init__(f"{name}: {status.message}")
        self.name = name
        self.status = status

    @property
    def reason(self) -> str:
        """Why, in one stable word."""
        from google.rpc import error_details_pb2

        for detail in self.status.details:
            info = error_details_pb2.ErrorInfo()
            if detail.Unpack(info):
                return str(info.reason)
        return ""


CLASSES: dict[int, type[KehuProblem]] = {
    401: Unauthenticated,
    403: PermissionDenied,
    404: NotFound,
    409: Conflict,
    412: VersionMismatch,
    429: QuotaExceeded,
}


def problem_of(refusal: Refusal) -> KehuProblem:
    """Return the problem to raise."""
    if refusal.reason == STEP_UP_REQUIRED and refusal.status == 401:
        return StepUpRequired(refusal)
    if refusal.reason == ETAG_MISMATCH:
        return VersionMismatch(refusal)
    if refusal.status == NO_ANSWER or refusal.status >= 500 and refusal.status not in (500, 501):
        return Unavailable(refusal)
    default = InvalidRequest if 400 <= refusal.status < 500 else KehuProblem
    return CLASSES.get(refusal.status, default)(refusal)


def refusal_of(status: int, document: object, headers: Mapping[str, str]) -> Refusal:
    """Return what a reply says: problem+json, or the error documents of OAuth and SCIM."""
    said = document if isinstance(document, dict) else {}
    wait = headers.get("retry-after", "")
    faults = said.get("errors")
    metadata = said.get("metadata")
    reason = said.get("reason") or said.get("error") or "UNKNOWN"
    detail = said.get("detail") or said.get("error_description") or phrase_of(status)
    if SCIM_ERROR in (said.get("schemas") or ()):
        reason, _, detail = str(detail).partition(": ")
    return Refusal(
        status=status,
        reason=str(reason),
        detail=str(detail),
        metadata={str(name): str(value) for name, value in metadata.items()} if isinstance(metadata, dict) else {},
        errors=tuple(
            Fault(str(fault.get("pointer", "")), str(fault.get("detail", "")))
            for fault in (faults if isinstance(faults, list) else ())
            if isinstance(fault, dict)
        ),
        request_id=str(said.get("instance") or headers.get("x-request-id", "")),
        wait_seconds=float(wait) if wait.isdigit() else 0.0,
        challenge=dict(PARAMETER.findall(headers.get("www-authenticate", ""))),
    )


def phrase_of(status: int) -> str:
    """Return what HTTP calls a status."""
    try:
        return HTTPStatus(status).phrase
    except ValueError:
        return ""


def status_of(document: object) -> status_pb2.Status:
    """Return the google.rpc.Status of an operation's error; details of types unknown here are left out."""
    from google.rpc import error_details_pb2, status_pb2  # noqa: F401 - the details' types

    said = document if isinstance(document, dict) else {}
    status = status_pb2.Status(code=said.get("code", 2), message=str(said.get("message", "")))
    for detail in said.get("details", ()):
        try:
            ParseDict(detail, status.details.add(), ignore_unknown_fields=True)
        except Exception:  # noqa: BLE001 - json_format raises many kinds; the message and code are still told
            del status.details[-1]
    return status
