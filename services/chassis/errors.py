"""The kinds of error a service raises; one interceptor turns them into google.rpc.Status (AIP-193)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import ClassVar


@dataclass(frozen=True, slots=True)
class FieldViolation:
    """One bad field: its path in the request, in proto names, and what to do about it."""

    field: str
    description: str


class KehuError(Exception):
    """Base of every expected error; `reason` is UPPER_SNAKE and listed in a service's error_reason.proto."""

    reason: ClassVar[str] = "UNKNOWN"

    def __init__(
        self,
        message: str,
        *,
        metadata: Mapping[str, str] | None = None,
        violations: Sequence[FieldViolation] = (),
    ) -> None:
        """Carry a brief message without personal data, its dynamic parts as metadata, and bad fields."""
        super().__init__(message)
        self.message = message
        self.metadata = dict(metadata or {})
        self.violations = tuple(violations)


class Invalid(KehuError):
    """The request is wrong whatever the state: INVALID_ARGUMENT."""

    reason = "INVALID_REQUEST"


class NotFound(KehuError):
    """The resource does not exist, or the caller may not know of it: NOT_FOUND."""

    reason = "NOT_FOUND"


class AlreadyExists(KehuError):
    """A resource with this name or key is there: ALREADY_EXISTS."""

    reason = "ALREADY_EXISTS"


class Conflict(KehuError):
    """Somebody else changed the resource first: ABORTED (AIP-154)."""

    reason = "ETAG_MISMATCH"


class Busy(Conflict):
    """Others kept changing the same resources: a repeat goes on, and jobs repeat it by themselves."""


class EtagMismatch(Conflict):
    """The resource of this name was changed since the caller read it."""

    def __init__(self, name: str) -> None:
        super().__init__("the resource was changed since you read it: read it again", metadata={"name": name})


class FieldNotChangeable(Invalid):
    """The update mask names fields that the method does not change."""

    reason = "FIELD_NOT_CHANGEABLE"

    def __init__(self, *fields: str) -> None:
        names = [field[:64] for field in fields[:20]]
        super().__init__(
            "the update mask names a field that cannot be changed",
            metadata={"field": names[0]},
            violations=[FieldViolation("update_mask", f"{name} cannot be changed") for name in names],
        )


class NotAllowed(KehuError):
    """The state of the resource forbids it: FAILED_PRECONDITION."""

    reason = "STATE_FORBIDS"


class Denied(KehuError):
    """The caller has no right to it: PERMISSION_DENIED."""

    reason = "PERMISSION_DENIED"


class Unauthenticated(KehuError):
    """The caller did not prove who they are: UNAUTHENTICATED. Raised by the chassis and token issue only."""

    reason = "TOKEN_INVALID"


class Unavailable(KehuError):
    """A store or another service does not answer: UNAVAILABLE, retry later."""

    reason = "UNAVAILABLE"


class Exhausted(KehuError):
    """A quota or a limit is used up: RESOURCE_EXHAUSTED."""

    reason = "LIMIT_REACHED"
