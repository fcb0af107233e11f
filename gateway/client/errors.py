"""What the client raises."""

from __future__ import annotations

import httpx

Json = dict[str, object]


class KehuProblem(Exception):
    """The gateway refused: `reason` is stable, `document` the whole problem (RFC 9457)."""

    def __init__(self, status: int, document: Json) -> None:
        self.status = status
        self.document = document
        self.reason = str(document.get("reason", document.get("error", "")))
        detail = document.get("detail", document.get("error_description", ""))
        told = "".join(f"; {line}" for line in fault_lines(document))
        request = f" (request {document['instance']})" if document.get("instance") else ""
        super().__init__(f"{status} {self.reason}: {detail}{told}{request}")


def fault_lines(document: Json) -> list[str]:
    """Return a line per bad field."""
    faults = document.get("errors")
    if not isinstance(faults, list):
        return []
    return [f"{fault.get('pointer')} {fault.get('detail')}" for fault in faults if isinstance(fault, dict)]


class OperationFailed(Exception):
    """A long-running operation ended with an error."""

    def __init__(self, name: str, error: Json) -> None:
        super().__init__(f"{name}: {error.get('message', error)}")
        self.name = name
        self.error = error


def problem_of(reply: httpx.Response) -> KehuProblem:
    """Return the problem of a refused request."""
    try:
        document = reply.json()
    except ValueError:
        document = {}
    if not isinstance(document, dict):
        document = {}
    return KehuProblem(reply.status_code, document or {"reason": "UNKNOWN", "detail": reply.reason_phrase})
