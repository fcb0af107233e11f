"""Take a gateway out of use without failing anybody: whoever balances reads that it is not ready, clients let go."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, MutableMapping
from typing import Any, TypeAlias

from gateway.wire import Receive, Scope, Send

App: TypeAlias = Callable[[Scope, Receive, Send], Awaitable[None]]
CLOSE = (b"connection", b"close")


class Leaving:
    """An application that goes on answering after `leave`, on connections that end with the answer."""

    def __init__(self, app: App) -> None:
        self._app = app
        self._is_leaving = False

    def leave(self) -> None:
        """Be not ready from now on."""
        self._is_leaving = True

    def __call__(self, scope: Scope, receive: Receive, send: Send) -> Awaitable[None]:
        """Serve one ASGI connection."""
        if not self._is_leaving or scope["type"] != "http":
            return self._app(scope, receive, send)
        if scope["path"] == "/readyz":
            return _not_ready(send)
        return self._app(scope, receive, _closing(send))


def _closing(send: Send) -> Send:
    async def send_last(message: MutableMapping[str, Any]) -> None:
        if message["type"] == "http.response.start":
            message = {**message, "headers": [*message.get("headers", ()), CLOSE]}
        await send(message)

    return send_last


async def _not_ready(send: Send) -> None:
    headers = [(b"content-type", b"text/plain; charset=utf-8"), CLOSE]
    await send({"type": "http.response.start", "status": 503, "headers": headers})
    await send({"type": "http.response.body", "body": b"leaving\n"})
