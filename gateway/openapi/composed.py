"""The routes that the gateway composes of others, which no proto has a comment of."""

from __future__ import annotations

from gateway.openapi.schemas import Schema
from gateway.routes.bulk import BULK_TEMPLATE, METHODS, OPERATIONS
from gateway.routes.scim import SCIM
from gateway.routes.views import PARTS, PROFILE_ID, STATUSES, VIEW_TEMPLATE

TEXT: Schema = {"type": "string"}
OBJECT: Schema = {"type": "object"}
PURPOSE: Schema = {"$ref": "#/components/parameters/Purpose"}
PART: Schema = {
    "type": "object",
    "required": ["status"],
    "properties": {
        "status": {"type": "string", "enum": ["ok", "failed", *dict.fromkeys(STATUSES.values())]},
        "content": {"description": "With `ok`: what the part's own route answers.", **OBJECT},
        "reason": {"description": "Without it: why there is none; listed at /docs/errors.", **TEXT},
        "detail": TEXT,
    },
}
VIEW: Schema = {
    "operationId": "profiles.v1.view",
    "tags": ["profiles"],
    "summary": "What each service knows of a customer",
    "description": (
        "What each service knows of a customer, asked at once: every part is judged by the rule of its own route, and "
        "one that is refused or does not answer within two seconds is told so. Refused as a whole without the profile."
    ),
    "parameters": [
        {"name": "profile_id", "in": "path", "required": True,
         "schema": {"type": "string", "pattern": f"^{PROFILE_ID.pattern}$"}},
        PURPOSE,
    ],
}  # fmt: skip
VIEW_REPLY: Schema = {
    "type": "object",
    "required": ["name", "partial", "parts"],
    "properties": {
        "name": TEXT,
        "partial": {"type": "boolean", "description": "Whether a part that there may be is not shown."},
        "parts": {"type": "object", "properties": {part.name: PART for part in PARTS}, "additionalProperties": False},
    },
}
BULK: Schema = {
    "operationId": "access.v1.ScimService.Bulk",
    "tags": ["access"],
    "summary": "Several changes of a directory in one request",
    "description": (
        f"Several changes of a directory in one request (RFC 7644 §3.7), {OPERATIONS} at most. Each is judged, counted "
        "and audited as a request of its own; `bulkId:…` stands for the id of what another one makes, in any order."
    ),
    "parameters": [PURPOSE],
}
BULK_REQUEST: Schema = {
    "type": "object",
    "required": ["Operations"],
    "properties": {
        "schemas": {},
        "failOnErrors": {"type": "number", "minimum": 1, "description": "How many may fail before the rest is left."},
        "Operations": {
            "type": "array",
            "minItems": 1,
            "maxItems": OPERATIONS,
            "items": {
                "type": "object",
                "required": ["method", "path"],
                "properties": {
                    "method": {"type": "string", "enum": list(METHODS)},
                    "path": {"type": "string", "pattern": "^/", "description": "Below /scim/v2."},
                    "bulkId": {"description": "Needed with POST, each another."},
                    "data": {},
                },
            },
        },
    },
}
BULK_REPLY: Schema = {
    "type": "object",
    "required": ["schemas", "Operations"],
    "properties": {
        "schemas": {"type": "array", "items": TEXT},
        "Operations": {
            "type": "array",
            "items": {
                "type": "object",
                "required": ["method", "status"],
                "properties": {name: TEXT for name in ("method", "status", "bulkId", "location")}
                | {"response": OBJECT},
            },
        },
    },
}


def composed_operations(problem: Schema, scim_problem: Schema) -> dict[tuple[str, str], Schema]:
    """Return each by verb and template, with what is answered in place of success."""
    body = {kind: {"schema": BULK_REQUEST} for kind in (SCIM.decode(), "application/json")}
    return {
        ("get", VIEW_TEMPLATE): {**VIEW, "responses": _responses("application/json", VIEW_REPLY, problem)},
        ("post", BULK_TEMPLATE): {
            **BULK,
            "requestBody": {"required": True, "content": body},
            "responses": _responses(SCIM.decode(), BULK_REPLY, scim_problem),
        },
    }


def _responses(kind: str, reply: Schema, refusal: Schema) -> Schema:
    return {"200": {"description": "OK", "content": {kind: {"schema": reply}}}, "default": refusal}
