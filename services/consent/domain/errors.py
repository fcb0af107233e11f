"""What the consent rules refuse; reasons are those of error_reason.proto."""

from __future__ import annotations

from services.chassis.errors import AlreadyExists, Invalid, NotAllowed, NotFound


class PurposeInvalid(Invalid):
    """A purpose's fields contradict each other."""

    reason = "PURPOSE_INVALID"


class PurposeNotFound(NotFound):
    """No purpose has this id."""

    reason = "PURPOSE_NOT_FOUND"

    def __init__(self, purpose_id: str) -> None:
        super().__init__("no purpose has this id: list /v1/purposes", metadata={"purpose_id": purpose_id})


class PurposeExists(AlreadyExists):
    """A purpose has this id already."""

    reason = "PURPOSE_EXISTS"

    def __init__(self, purpose_id: str) -> None:
        super().__init__("a purpose has this id already", metadata={"purpose_id": purpose_id})


class PurposeRetired(NotAllowed):
    """A retired purpose takes no grants."""

    reason = "PURPOSE_RETIRED"

    def __init__(self, purpose_id: str) -> None:
        super().__init__("the purpose is retired and takes no grants", metadata={"purpose_id": purpose_id})


class NoticeInvalid(Invalid):
    """A notice's fields contradict each other."""

    reason = "NOTICE_INVALID"


class NoticeNotFound(NotFound):
    """No notice has this id."""

    reason = "NOTICE_NOT_FOUND"

    def __init__(self, notice_id: str) -> None:
        super().__init__("no notice has this id: list /v1/notices", metadata={"notice_id": notice_id})


class NoticeExists(AlreadyExists):
    """A notice has this id already."""

    reason = "NOTICE_EXISTS"

    def __init__(self, notice_id: str) -> None:
        super().__init__("a notice has this id already", metadata={"notice_id": notice_id})


class EvidenceInvalid(Invalid):
    """The evidence of an answer is incomplete or contradicts itself."""

    reason = "EVIDENCE_INVALID"


class GuardianRequired(NotAllowed):
    """Under fourteen only a guardian can consent (PIPL art. 31)."""

    reason = "GUARDIAN_REQUIRED"

    def __init__(self, purpose_id: str) -> None:
        message = "the person is under fourteen: a guardian must consent, set guardian"
        super().__init__(message, metadata={"purpose_id": purpose_id})


class TooManyRecords(NotAllowed):
    """The profile's records are full; refusals are still taken."""

    reason = "TOO_MANY_RECORDS"

    def __init__(self, limit: int) -> None:
        message = "the profile holds too many consent records: only refusals are taken"
        super().__init__(message, metadata={"limit": str(limit)})
