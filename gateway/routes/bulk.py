"""Answer POST /scim/v2/Bulk (RFC 7644 §3.7): each operation is a request of its own, admitted, audited and counted."""

from __future__ import annotations

import math
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

import orjson

from gateway.problems import Problem, refusal
from gateway.reasons import Reason
from gateway.routes.derived import DerivedRoute, Edge
from gateway.routes.scim import PREFIX, SCIM, scim_error
from gateway.shedding import Worth
from gateway.transcoding.json_text import BadJson, parse_json
from gateway.transcoding.paths import BadPath, Router
from gateway.transcoding.scalars import BadField
from gateway.transcoding.writing import Json
from gateway.wire import Event, Exchange, Reply

BULK_TEMPLATE = f"{PREFIX}Bulk"
OPERATIONS = 100
METHODS = ("POST", "PUT", "PATCH", "DELETE")
RESPONSE = "urn:ietf:params:scim:api:messages:2.0:BulkResponse"
REFERENCE = "bulkId:"  # begins what stands for the id of a resource that this request makes
OF_THE_WHOLE = (b"content-length", b"transfer-encoding", b"idempotency-key", b"if-match")  # headers


@dataclass(frozen=True, slots=True)
class Operation:
    """One request of several: a path below /scim/v2, and what its references name."""

    method: str
    path: str
    bulk_id: str
    data: Json
    needs: frozenset[str] = field(init=False)

    def __post_init__(self) -> None:
        texts = (*self.path.split("/"), *texts_of(self.data))
        found = frozenset(text.removeprefix(REFERENCE) for text in texts if text.startswith(REFERENCE))
        object.__setattr__(self, "needs", found)


class BulkRoute:
    """Several changes in one request; references are followed, whatever the order."""

    worth = Worth.BULK

    def __init__(self, edge: Edge, router: Router[DerivedRoute]) -> None:
        self._edge = edge
        self._router = router

    async def answer(self, exchange: Exchange, segments: list[str]) -> Reply:
        """Do one after the other until as many failed as failOnErrors says.

        Raises:
            Problem: nothing was done: who calls is not known, or the body is no BulkRequest or too large.
        """
        limits = self._edge.limits
        self._edge.doorkeeper.authenticate(exchange)
        if exchange.text(b"idempotency-key"):
            raise refusal(400, Reason.IDEMPOTENCY_KEY_REFUSED, "a bulk keeps no request ids; do not send it")
        if exchange.text(b"if-match") not in ("", "*"):
            raise refusal(400, Reason.IF_MATCH_REFUSED, "a bulk has no etag; do not send If-Match")
        operations, most_errors = read_bulk(await exchange.body(limits.body_bytes, limits.body_wait))
        left = list(range(len(operations)))
        made: dict[str, str] = {}
        done: dict[int, dict[str, Json]] = {}
        end = time.monotonic() + limits.longest_deadline
        while left and sum("response" in told for told in done.values()) < most_errors:
            place = next((place for place in left if operations[place].needs <= made.keys()), left[0])
            left.remove(place)
            operation = operations[place]
            try:
                reply = await self._one(exchange, operation, made, end)
            except Problem as problem:
                reply = scim_error(problem)
            done[place] = outcome(operation, reply)
            if operation.bulk_id and reply.status == 201:
                made[operation.bulk_id] = str(orjson.loads(reply.body)["id"])
        document = {"schemas": [RESPONSE], "Operations": [done[place] for place in sorted(done)]}
        return Reply(200, orjson.dumps(document), ((b"content-type", SCIM),))

    async def _one(self, exchange: Exchange, operation: Operation, made: Mapping[str, str], end: float) -> Reply:
        missing = operation.needs - made.keys()
        if missing:
            detail, told = f"no operation made bulkId {min(missing)}", {"scim_type": "invalidValue"}
            raise refusal(409, Reason.INVALID_FIELD, detail, metadata=told)
        if time.monotonic() > end:
            raise refusal(503, Reason.DEADLINE_EXCEEDED, "the operations before took too long; send this one again")
        path = "/".join(named(segment, made) for segment in operation.path.split("/"))
        raw_path = f"{PREFIX.rstrip('/')}{path}".encode()
        try:
            found = self._router.find(raw_path)
        except BadPath as bad:
            raise refusal(400, Reason.BAD_PATH, str(bad)) from None
        if found is None or operation.method not in found.ends:
            raise refusal(404, Reason.ROUTE_NOT_FOUND, "no resource of SCIM takes this method on this path")
        body = b"" if operation.method == "DELETE" else orjson.dumps(replaced(operation.data, made))
        return await found.ends[operation.method][1].answer(inner(exchange, operation, raw_path, body), found.segments)


def inner(exchange: Exchange, operation: Operation, raw_path: bytes, body: bytes) -> Exchange:
    """Return an operation as a request of the same caller."""
    headers = {name: value for name, value in exchange.headers.items() if name not in OF_THE_WHOLE}
    if body:
        headers |= {b"content-type": SCIM, b"content-length": str(len(body)).encode()}
    scope = {**exchange.scope, "method": operation.method, "raw_path": raw_path, "query_string": b""}

    async def receive() -> Event:
        return {"type": "http.request", "body": body, "more_body": False}

    return Exchange(scope, receive, headers, exchange.request_id)


def read_bulk(raw: bytes) -> tuple[list[Operation], int]:
    """Return the operations, and how many may fail before the rest is left.

    Raises:
        Problem: 400, it is no BulkRequest; 413, it has too many operations.
    """
    try:
        document = lowered(parse_json(raw))
    except BadJson as bad:
        raise refusal(400, Reason.MALFORMED_JSON, str(bad)) from None
    except BadField as bad:
        raise _bad(f"{bad.pointer} {bad.detail}".strip()) from None
    given = document.get("operations")
    if not isinstance(given, list) or not given:
        raise _bad("Operations must be a list")
    if len(given) > OPERATIONS:
        raise refusal(413, Reason.BODY_TOO_LARGE, f"a request may have at most {OPERATIONS} operations")
    most = document.get("failonerrors", OPERATIONS)
    if isinstance(most, bool) or not isinstance(most, int | float) or most < 1:
        raise _bad("failOnErrors must be a number of at least 1")
    found = [_operation(place, lowered(entry)) for place, entry in enumerate(given)]
    names = [operation.bulk_id for operation in found if operation.bulk_id]
    if len(set(names)) < len(names):
        raise _bad("every bulkId must be another")
    return found, math.ceil(min(most, OPERATIONS))


def _operation(place: int, entry: Mapping[str, Any]) -> Operation:
    try:  # all that is written later, also when it is refused; nothing is done before
        orjson.dumps(entry)
    except TypeError:
        raise _bad(f"operation {place} has text that is no Unicode, or an integer of more than 64 bits") from None
    method, path, bulk_id = (str(entry.get(name) or "") for name in ("method", "path", "bulkid"))
    if method.upper() not in METHODS or not path.startswith("/"):
        raise _bad(f"an operation has a method ({', '.join(METHODS)}) and a path that begins with /")
    if method.upper() == "POST" and not bulk_id:
        raise _bad("an operation that makes something has a bulkId")
    return Operation(method.upper(), path, bulk_id, entry.get("data"))


def _bad(detail: str) -> Problem:
    return refusal(400, Reason.INVALID_FIELD, detail, metadata={"scim_type": "invalidSyntax"})


def outcome(operation: Operation, reply: Reply) -> dict[str, Json]:
    """Return what became of an operation (RFC 7644 §3.7.3)."""
    told: dict[str, Json] = {"method": operation.method, "status": str(reply.status)}
    if operation.bulk_id:
        told["bulkId"] = operation.bulk_id
    document = orjson.loads(reply.body) if reply.body else {}
    if reply.status >= 400:
        return {**told, "response": document}
    if document:
        return {**told, "location": document["meta"]["location"]}
    return {**told, "location": f"{PREFIX.rstrip('/')}{operation.path}"}


def lowered(value: object) -> dict[str, Any]:
    """Return an object's members by their names in lower case, as SCIM reads names; none when it is no object."""
    return {name.lower(): item for name, item in value.items()} if isinstance(value, dict) else {}


def texts_of(value: Json) -> Iterator[str]:
    """Yield every text in a JSON value, names of members not."""
    if isinstance(value, str):
        yield value
    elif isinstance(value, dict | list):
        for item in value.values() if isinstance(value, dict) else value:
            yield from texts_of(item)


def replaced(value: Json, made: Mapping[str, str]) -> Json:
    """Return a JSON value with ids where references were."""
    if isinstance(value, dict):
        return {name: replaced(item, made) for name, item in value.items()}
    if isinstance(value, list):
        return [replaced(item, made) for item in value]
    return named(value, made) if isinstance(value, str) else value


def named(text: str, made: Mapping[str, str]) -> str:
    """Return the id that a reference stands for; another text is itself."""
    return made.get(text.removeprefix(REFERENCE), text) if text.startswith(REFERENCE) else text
