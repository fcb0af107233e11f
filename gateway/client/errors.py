"""What the client raises."""

from __future__ import annotations

import httpx

Json = dict[str, object]
NO_ANSWER = 0  # the status of a problem when nobody answered


class KehuProblem(Exception):
    """The gateway refused, or did not answer: `reason` is stable, `document` the whole problem (RFC 9457)."""

    def __init__(self, status: int, document: Json, retry_after: float = 0.0) -> None:
        self.status = status
        self.document = document
        self.retry_after = retry_after
        self.reason = str(document.get("reason", document.get("error", "")))
        detail = document.get("detail", document.get("error_description", ""))
        told = "".join(f"; {line}" for line in fault_lines(document))
        request = f" (request {document['instance']})" if document.get("instance") else ""
        super().__init__(f"{status or ''} {self.reason}: {detail}{told}{request}".lstrip())


def fault_lines(document: Json) -> list[str]:
    """Return a line per bad field."""
    return [f"{fault.get('pointer')} {fault.get('detail')}" for fault in entries(document, "errors")]


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
    wait = reply.headers.get("retry-after", "")
    document = document or {"reason": "UNKNOWN", "detail": reply.reason_phrase}
    return KehuProblem(reply.status_code, document, float(wait) if wait.isdigit() else 0.0)


def entries(document: Json, name: str) -> list[Json]:
    """Return the messages of a repeated field; proto JSON leaves out what is empty."""
    found = document.get(name)
    return [entry for entry in found if isinstance(entry, dict)] if isinstance(found, list) else []
