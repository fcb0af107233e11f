"""Answer GET /v1/profiles/{id}:view: what each service knows of a customer, asked for in parallel."""

from __future__ import annotations

import asyncio
import re
from dataclasses import dataclass

import grpc
import orjson

from gateway.problems import Problem, from_rpc
from gateway.reasons import Reason
from gateway.routes.derived import DerivedRoute, Edge, bad_request
from gateway.shedding import Worth
from gateway.transcoding.paths import Match, Router
from gateway.transcoding.scalars import BadField
from gateway.transcoding.writing import Json
from gateway.upstreams import metadata_of
from gateway.wire import Exchange, Reply

VIEW_TEMPLATE = "/v1/profiles/{profile_id}:view"
PROFILE_ID = re.compile("[0-9A-Za-z_-]{1,64}")  # in a path and in a query such an id is itself
PART_SECONDS = 2.0  # a person looks at this page: a slow part is shown as missing
STATUSES = {401: "forbidden", 403: "forbidden", 404: "absent", 503: "unavailable", 504: "unavailable"}


@dataclass(frozen=True, slots=True)
class Part:
    """One part of the view: the gateway's own GET route that answers it, with {id} for the profile's id."""

    name: str
    path: str
    query: str = ""
    is_subject: bool = False


PARTS = (
    Part("profile", "/v1/profiles/{id}", is_subject=True),
    Part("consents", "/v1/profiles/{id}/consents", "page_size=50"),
    Part("tickets", "/v1/tickets", "profile=profiles/{id}&page_size=20"),
    Part("interactions", "/v1/profiles/{id}/interactions", "page_size=20"),
    Part("scores", "/v1/profiles/{id}/scores"),
    Part("deliveries", "/v1/campaigns/-/deliveries", "profile_id={id}&page_size=20"),
)


@dataclass(frozen=True, slots=True)
class Answer:
    """What became of a part."""

    part: Part
    status: str
    written: Json = None
    problem: Problem | None = None


class ViewRoute:
    """The composed view; each part is admitted by its own method's rule."""

    worth = Worth.DIRECT

    def __init__(self, edge: Edge, router: Router[DerivedRoute], parts: tuple[Part, ...] = PARTS) -> None:
        self._edge = edge
        self._router = router
        self._parts = parts

    async def answer(self, exchange: Exchange, segments: list[str]) -> Reply:
        """Ask for all parts at once; one that fails is marked, unless it is the customer's own record.

        Raises:
            Problem: the caller may not see the customer, or there is none or can be none, or a quota is used up.
        """
        self._edge.doorkeeper.authenticate(exchange)
        profile_id = segments[-1]
        if PROFILE_ID.fullmatch(profile_id) is None:
            raise bad_request(BadField("must be the id of a profile", "/profile_id"))
        answers = await asyncio.gather(*(self._ask(exchange, part, profile_id) for part in self._parts))
        for answer in answers:
            if answer.problem and answer.problem.reason == Reason.QUOTA_EXCEEDED.name:
                raise answer.problem
            if answer.part.is_subject and answer.problem and answer.status in ("forbidden", "absent"):
                raise answer.problem
        document = {
            "name": f"profiles/{profile_id}",
            "partial": any(answer.status in ("unavailable", "failed", "forbidden") for answer in answers),
            "parts": {answer.part.name: shown(answer) for answer in answers},
        }
        return Reply(200, orjson.dumps(document))

    async def _ask(self, exchange: Exchange, part: Part, profile_id: str) -> Answer:
        found: Match[DerivedRoute] | None = self._router.find(part.path.format(id=profile_id).encode())
        if found is None or "GET" not in found.ends:
            return Answer(part, "unavailable")
        route = found.ends["GET"][1]
        try:
            caller = self._edge.doorkeeper.authenticate(exchange)
            self._edge.doorkeeper.decide(caller, route.method, exchange.request_id)
            await self._edge.doorkeeper.spend(exchange, caller, route.method)
            request = route.reader.read(found.segments, part.query.format(id=profile_id).encode(), None)
            raw = await self._edge.upstreams.call(
                route.method.service,
                route.method.path,
                request.SerializeToString(),
                metadata_of(exchange, with_token=True),
                PART_SECONDS,
            )
            return Answer(part, "ok", route.written(raw))
        except Problem as problem:
            return Answer(part, STATUSES.get(problem.status, "failed"), problem=problem)
        except grpc.RpcError as error:
            refused = from_rpc(error)
            return Answer(part, STATUSES.get(refused.status, "failed"), problem=refused)


def shown(answer: Answer) -> dict[str, object]:
    """Return a part as the reply shows it: its status, and either its content or why there is none."""
    if answer.problem is None:
        return {"status": answer.status, **({"content": answer.written} if answer.status == "ok" else {})}
    return {"status": answer.status, "reason": answer.problem.reason, "detail": answer.problem.detail}
