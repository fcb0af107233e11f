"""A client for one app or person and one purpose; safe to use from several threads."""

from __future__ import annotations

import threading
import time
import uuid
from collections.abc import Callable, Iterator
from itertools import chain, repeat
from pathlib import Path
from types import TracebackType
from typing import IO

import httpx

from gateway.client.errors import NO_ANSWER, Json, KehuProblem, OperationFailed, entries, problem_of
from gateway.client.signing import SignIn

RENEW_BEFORE_SECONDS = 30.0
PAUSES = (0.1, 0.2, 0.5, 1.0)  # between two tries, or two looks at an operation; the last one for ever
LONGEST_PAUSE = 10.0
UPLOAD_SECONDS = 3600
NOT_DONE = frozenset({429})
PERHAPS_DONE = frozenset({NO_ANSWER, 429, 502, 503, 504})

Parameter = str | int | float | bool | list[str]


def _silent(metadata: Json) -> None:
    """Show nothing."""


class KehuClient:
    """Sends requests with a fresh token and a purpose; every refusal is a KehuProblem.

    For `patience_seconds` it repeats what was not done (429) and, where a repeat does no harm, what got no answer:
    reads, deletions, and writes with a key; with `repeats_writes` all writes.
    """

    def __init__(
        self,
        base_url: str,
        sign_in: SignIn,
        purpose: str = "",
        *,
        timeout_seconds: float = 30.0,
        patience_seconds: float = 10.0,
        repeats_writes: bool = False,
        transport: httpx.BaseTransport | None = None,
    ) -> None:
        headers = {"X-Purpose": purpose} if purpose else {}
        self._http = httpx.Client(
            base_url=base_url, headers=headers, timeout=timeout_seconds, transport=transport, trust_env=False
        )
        self._sign_in = sign_in
        self._patience_seconds = patience_seconds
        self._repeats_writes = repeats_writes
        self._lock = threading.Lock()
        self._token = ""
        self._renew_at = 0.0

    def __enter__(self) -> KehuClient:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """Close the connections."""
        self._http.close()

    def get(self, path: str, **parameters: Parameter) -> Json:
        """Read `path`, such as /v1/profiles/p1.

        Raises:
            KehuProblem: the gateway refused.
        """
        return self._call(self._http.build_request("GET", path, params=parameters), harmless=True)

    def post(self, path: str, body: Json | None = None, *, key: str = "", **parameters: Parameter) -> Json:
        """Send `body`; `key` makes a repeat return the first answer (Idempotency-Key)."""
        headers = {"Idempotency-Key": key} if key else {}
        request = self._http.build_request("POST", path, json=body or {}, params=parameters, headers=headers)
        return self._call(request, harmless=bool(key))

    def patch(self, path: str, body: Json, *, etag: str = "", **parameters: Parameter) -> Json:
        """Change a resource; with `etag` only that version of it."""
        headers = {"If-Match": f'"{etag}"'} if etag else {}
        return self._call(self._http.build_request("PATCH", path, json=body, params=parameters, headers=headers))

    def delete(self, path: str, **parameters: Parameter) -> Json:
        """Delete a resource."""
        return self._call(self._http.build_request("DELETE", path, params=parameters), harmless=True)

    def upload(self, path: str, file: Path | IO[bytes], *, key: str = "", **fields: str) -> Json:
        """Send a whole file after its form fields, streamed; answers with the Operation."""
        if isinstance(file, Path):
            with file.open("rb") as opened:
                return self.upload(path, opened, key=key, **fields)
        file.seek(0)  # a stream that cannot go back could not be repeated
        parts: list[tuple[str, tuple[str | None, str | IO[bytes]]]] = [
            *((field, (None, value)) for field, value in fields.items()),
            ("file", (Path(getattr(file, "name", "file")).name, file)),
        ]
        headers = {"X-Request-Timeout": str(UPLOAD_SECONDS)} | ({"Idempotency-Key": key} if key else {})
        request = self._http.build_request("POST", path, files=parts, headers=headers, timeout=UPLOAD_SECONDS)  # type: ignore[arg-type]
        return self._call(request, harmless=bool(key))

    def wait_operation(
        self, operation: Json, timeout_seconds: float = 600.0, progress: Callable[[Json], None] = _silent
    ) -> Json:
        """Return the response of a long-running operation when it is done; show its metadata meanwhile.

        Raises:
            OperationFailed: it ended with an error.
            TimeoutError: it takes longer; it goes on nevertheless.
        """
        deadline = time.monotonic() + timeout_seconds
        pauses = chain(PAUSES, repeat(PAUSES[-1]))
        while not operation.get("done"):
            if time.monotonic() > deadline:
                raise TimeoutError(f"{operation['name']} is not done after {timeout_seconds:g} s")
            progress(_mapping(operation, "metadata"))
            time.sleep(next(pauses))
            operation = self.get(f"/v1/{operation['name']}")
        error = _mapping(operation, "error")
        if error:
            raise OperationFailed(str(operation["name"]), error)
        return _mapping(operation, "response")

    def pages(self, path: str, **parameters: Parameter) -> Iterator[Json]:
        """Yield every page of a list."""
        token = ""
        while True:
            page = self.get(path, **parameters, **({"page_token": token} if token else {}))
            yield page
            token = str(page.get("next_page_token", ""))
            if not token:
                return

    def items(self, path: str, field: str, **parameters: Parameter) -> Iterator[Json]:
        """Yield every item of a list, `field` being the name of the list in a page."""
        for page in self.pages(path, **parameters):
            yield from entries(page, field)

    def _call(self, request: httpx.Request, *, harmless: bool = False) -> Json:
        """Send, and again while a repeat may help, does no harm, and patience lasts."""
        repeated = PERHAPS_DONE if harmless or self._repeats_writes else NOT_DONE
        request.headers["X-Request-Id"] = uuid.uuid4().hex
        deadline = time.monotonic() + self._patience_seconds
        pauses = chain(PAUSES, repeat(PAUSES[-1]))
        while True:
            try:
                return self._signed(request)
            except KehuProblem as problem:
                pause = max(next(pauses), min(problem.retry_after, LONGEST_PAUSE))
                if problem.status not in repeated or time.monotonic() + pause > deadline:
                    raise
            time.sleep(pause)

    def _signed(self, request: httpx.Request) -> Json:
        """Send once, and once more when the token is refused: it may have been revoked."""
        try:
            reply = self._send(request)
            if reply.status_code == 401:
                with self._lock:
                    self._renew_at = 0.0
                reply = self._send(request)
        except httpx.TransportError as error:
            detail = f"{request.method} {request.url.path}: {type(error).__name__}"
            raise KehuProblem(NO_ANSWER, {"reason": "NO_ANSWER", "detail": detail}) from error
        if reply.is_error:
            raise problem_of(reply)
        document: Json = reply.json() if reply.content else {}
        return document

    def headers(self) -> dict[str, str]:
        """Return token and purpose as headers, for other tools that call the gateway; good for a while."""
        purpose = self._http.headers.get("X-Purpose", "")
        return {"Authorization": f"Bearer {self._fresh_token()}"} | ({"X-Purpose": purpose} if purpose else {})

    def _fresh_token(self) -> str:
        with self._lock:
            if time.monotonic() >= self._renew_at:
                token = self._sign_in(self._http)
                self._token = str(token["access_token"])
                self._renew_at = time.monotonic() + float(str(token["expires_in"])) - RENEW_BEFORE_SECONDS
            return self._token

    def _send(self, request: httpx.Request) -> httpx.Response:
        request.headers["Authorization"] = f"Bearer {self._fresh_token()}"
        return self._http.send(request)


def _mapping(document: Json, name: str) -> Json:
    found = document.get(name)
    return found if isinstance(found, dict) else {}
