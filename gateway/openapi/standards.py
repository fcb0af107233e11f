"""What other standards than ours dictate of a route's answers: OAuth 2.0's and SCIM's."""

from __future__ import annotations

from dataclasses import dataclass, field

from gateway.openapi.schemas import Schema
from gateway.routes.scim import PREFIX as SCIM
from gateway.routes.tokens import PREFIX as OAUTH
from gateway.transcoding.catalog import Binding


def _document(*names: str) -> Schema:
    return {"type": "object", "required": list(names), "properties": {name: {"type": "string"} for name in names}}


@dataclass(frozen=True, slots=True)
class Standard:
    """How refusals look, and which status says that it went well where that is not 200."""

    refusal_type: str
    refusal: Schema
    success: dict[str, str] = field(default_factory=dict)


STANDARDS = {
    OAUTH: Standard("application/json", _document("error", "error_description", "reason")),  # RFC 6749 §5.2
    SCIM: Standard(
        "application/scim+json",
        {
            "type": "object",
            "required": ["schemas", "status", "detail"],
            "properties": {
                "schemas": {"type": "array", "items": {"type": "string"}},
                "status": {"type": "string"},
                "detail": {"type": "string"},
                "scimType": {"type": "string"},
            },
        },  # RFC 7644 §3.12
        {"POST": "201", "DELETE": "204"},
    ),
}


def standard_of(binding: Binding) -> Standard | None:
    """Return the standard a route follows beside ours."""
    return next((found for prefix, found in STANDARDS.items() if binding.template.startswith(prefix)), None)
