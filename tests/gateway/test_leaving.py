"""A gateway that leaves says so before it stops, and goes on answering."""

from __future__ import annotations

import asyncio

import httpx

from gateway.leaving import Leaving
from gateway.wire import Receive, Scope, Send


async def app(scope: Scope, receive: Receive, send: Send) -> None:
    await send({"type": "http.response.start", "status": 200, "headers": [(b"x-mine", b"1")]})
    await send({"type": "http.response.body", "body": b"here"})


def test_a_leaving_gateway_is_not_ready_answers_on_and_keeps_no_connection() -> None:
    async def ask() -> list[tuple[int, str, str]]:
        leaving = Leaving(app)
        async with httpx.AsyncClient(transport=httpx.ASGITransport(leaving), base_url="http://here") as client:
            before = [await client.get("/readyz"), await client.get("/v1/profiles")]
            leaving.leave()
            after = [await client.get("/readyz"), await client.get("/v1/profiles")]
        return [(r.status_code, r.headers.get("x-mine", ""), r.headers.get("connection", "")) for r in before + after]

    assert asyncio.run(ask()) == [(200, "1", ""), (200, "1", ""), (503, "", "close"), (200, "1", "close")]
