"""Answer the SCIM endpoints in SCIM's own shapes (RFC 7644): its content type, 201 and 204, its errors."""

from __future__ import annotations

import re

import orjson

from gateway.problems import Problem
from gateway.routes.derived import DerivedRoute
from gateway.wire import Exchange, Reply

PREFIX = "/scim/v2/"
SCIM = b"application/scim+json"
ERROR = "urn:ietf:params:scim:api:messages:2.0:Error"
OURS = {b"startIndex": b"start_index", b"excludedAttributes": b"excluded_attributes"}  # parameters, SCIM's and ours
NAMES = re.compile(b"(^|&)(" + b"|".join(OURS) + b")=")
UNIQUENESS = "PRINCIPAL_EXISTS"


class ScimRoute(DerivedRoute):
    """A method below /scim/v2/, for directories that only know SCIM."""

    async def answer(self, exchange: Exchange, segments: list[str]) -> Reply:
        """Do as any route, in SCIM's shapes."""
        kind = exchange.headers.get(b"content-type", b"").partition(b";")[0].strip().lower()
        if kind == SCIM:
            exchange.headers[b"content-type"] = b"application/json"
        exchange.scope["query_string"] = NAMES.sub(lambda found: found[1] + OURS[found[2]] + b"=", exchange.query)
        reply = await super().answer(exchange, segments)
        if exchange.method == "DELETE":
            return Reply(204, b"", ())
        if exchange.method == "POST":
            location = str(orjson.loads(reply.body)["meta"]["location"]).encode()
            return Reply(201, reply.body, (*reply.headers, (b"location", location)))
        return reply


def scim_error(problem: Problem) -> Reply:
    """Return the error of RFC 7644 §3.12; our reason begins its detail, for strict readers take no other member."""
    said = "; ".join((problem.detail, *(f"{fault.pointer} {fault.detail}" for fault in problem.faults)))
    document = {"schemas": [ERROR], "status": str(problem.status), "detail": f"{problem.reason}: {said}"}
    scim_type = "uniqueness" if problem.reason == UNIQUENESS else problem.metadata.get("scim_type", "")
    if scim_type:
        document["scimType"] = scim_type
    return Reply(problem.status, orjson.dumps(document), ((b"content-type", SCIM), *problem.headers))
