"""List every reason a problem can have: the services' from their protos' comments, and the gateway's own."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass

from google.protobuf.descriptor import FileDescriptor

from gateway.reasons import Reason

PREFIX = "ERROR_REASON_"
# Reasons of services.chassis, which every service can give; their text is in services/chassis/errors.py.
SHARED = {
    "INVALID_REQUEST": "The request breaks a rule of its proto; errors[] names each field.",
    "PAGE_TOKEN_INVALID": "The page token belongs to another list or filter: begin at the first page.",
    "NOT_FOUND": "There is no such resource, or the caller may not know of it.",
    "ALREADY_EXISTS": "A resource with this name or key is there.",
    "STATE_FORBIDS": "The state of the resource does not allow it.",
    "PERMISSION_DENIED": "The policy does not permit it, or it does not exist.",
    "PURPOSE_REQUIRED": "The method answers only for a stated purpose: send X-Purpose.",
    "FIELD_NOT_SEEN": "An update changes only fields that the caller may read in full for the purpose stated.",
    "TOKEN_INVALID": "The access token is not valid; ask the token endpoint for a new one.",
    "STEP_UP_REQUIRED": "A second factor shown within five minutes is needed: grant step-up at POST /oauth2/token.",
    "UNATTENDED_DENIED": "A person must do it, or the policy grants the app the action on unattended/{resource}.",
    "UNAVAILABLE": "A store or another service does not answer; retry.",
    "LIMIT_REACHED": "A quota or a limit is used up.",
    "ETAG_MISMATCH": "Somebody else changed the resource first: read it again. 412 after If-Match, else 409.",
    "FIELD_NOT_CHANGEABLE": "The update mask names a field that cannot be changed: errors[] names it.",
    "OPERATION_NOT_FOUND": "The caller's department has no operation of this name.",
    "MESSAGE_MALFORMED": "The bytes of a request are no message of the method's type.",
    "DEADLINE_REQUIRED": "A call from service to service came without a deadline.",
    "ROWS_NOT_NARROWED": "Your role reaches some rows only, by a field this method cannot narrow by; ask for another.",
    "PEER_UNKNOWN": "A call came from a process whose certificate is not one of ours.",
    "INTERNAL": "A fault of ours; the error id or request id finds it in the logs.",
}


@dataclass(frozen=True, slots=True)
class ErrorLine:
    """One reason: who gives it, its name, what it means."""

    service: str
    reason: str
    meaning: str


def error_lines(files: Iterable[FileDescriptor], comments: dict[str, str]) -> Iterator[ErrorLine]:
    """Yield every reason, by service in the files' order, then the shared ones, then the gateway's."""
    for file in files:
        enum = file.enum_types_by_name.get("ErrorReason")
        for value in enum.values if enum is not None else ():
            if value.number:
                meaning = comments.get(f"{enum.full_name}.{value.name}", "")
                yield ErrorLine(file.package.split(".")[1], value.name.removeprefix(PREFIX), meaning)
    for reason, meaning in SHARED.items():
        yield ErrorLine("every service", reason, meaning)
    for own in Reason:
        yield ErrorLine("gateway", own.name, own.value)


def errors_markdown(lines: Iterable[ErrorLine]) -> str:
    """Return docs/errors.md."""
    out = [
        "# Errors",
        "",
        "Generated from the protos by `python -m infra.docs_errors`; do not edit.",
        "A refusal is `application/problem+json` (RFC 9457) whose `reason` is one of these names, for good.",
    ]
    service = ""
    for line in lines:
        if line.service != service:
            service = line.service
            out += ["", f"## {service}", "", "| reason | meaning |", "|---|---|"]
        meaning = line.meaning.replace("\n", " ").replace("|", "\\|")
        out.append(f'| <a id="{line.reason}"></a>`{line.reason}` | {meaning} |')
    return "\n".join(out) + "\n"
