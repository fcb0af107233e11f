"""A client for one app or person and one purpose; safe to use from several threads."""

from __future__ import annotations

import threading
import time
import uuid
from collections.abc import Iterator, Mapping
from pathlib import Path
from types import TracebackType
from typing import IO
from urllib.parse import quote_plus

import httpx

from gateway.client.errors import Json, OperationFailed, problem_of

RENEW_BEFORE_SECONDS = 30.0
RETRIES = 4  # of 429, and of 503 where a repeat does no harm
POLL_SECONDS = (0.1, 0.2, 0.5, 1.0)  # then the last one for ever

Parameters = Mapping[str, str | int | float | bool | list[str]]


class KehuClient:
    """Sends requests with a fresh token and a purpose; every refusal is a KehuProblem."""

    def __init__(
        self,
        base_url: str,
        client_id: str,
        client_secret: str,
        purpose: str = "",
        *,
        timeout_seconds: float = 30.0,
        transport: httpx.BaseTransport | None = None,
    ) -> None:
        headers = {"X-Purpose": purpose} if purpose else {}
        self._http = httpx.Client(
            base_url=base_url, headers=headers, timeout=timeout_seconds, transport=transport, trust_env=False
        )
        self._credentials = (quote_plus(client_id), quote_plus(client_secret))  # RFC 6749 §2.3.1
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

    def get(self, path: str, **parameters: str | int | float | bool | list[str]) -> Json:
        """Read `path`, such as /v1/profiles/p1.

        Raises:
            KehuProblem: the gateway refused.
        """
        return self._send("GET", path, params=parameters).json()  # type: ignore[no-any-return]

    def post(self, path: str, body: Json | None = None, *, key: str = "", query: Parameters | None = None) -> Json:
        """Send `body`; `key` makes a repeat return the first answer (Idempotency-Key)."""
        headers = {"Idempotency-Key": key} if key else {}
        reply = self._send("POST", path, json=body or {}, headers=headers, params=dict(query or {}))
        return reply.json()  # type: ignore[no-any-return]

    def patch(self, path: str, body: Json, *, etag: str = "", query: Parameters | None = None) -> Json:
        """Change a resource; with `etag` only that version of it."""
        headers = {"If-Match": f'"{etag}"'} if etag else {}
        reply = self._send("PATCH", path, json=body, headers=headers, params=dict(query or {}))
        return reply.json()  # type: ignore[no-any-return]

    def delete(self, path: str, **parameters: str | int | float | bool | list[str]) -> Json:
        """Delete a resource."""
        return self._send("DELETE", path, params=parameters).json()  # type: ignore[no-any-return]

    def upload(self, path: str, file: Path | IO[bytes], **fields: str) -> Json:
        """Send a file with form fields, streamed; answers with the Operation."""
        if isinstance(file, Path):
            with file.open("rb") as opened:
                return self._upload(path, file.name, opened, fields)
        return self._upload(path, Path(getattr(file, "name", "file")).name, file, fields)

    def wait_operation(self, operation: Json, timeout_seconds: float = 600.0) -> Json:
        """Return the response of a long-running operation when it is done.

        Raises:
            OperationFailed: it ended with an error.
            TimeoutError: it takes longer; it goes on nevertheless.
        """
        deadline = time.monotonic() + timeout_seconds
        polls = 0
        while not operation.get("done"):
            if time.monotonic() > deadline:
                raise TimeoutError(f"{operation['name']} is not done after {timeout_seconds:g} s")
            time.sleep(POLL_SECONDS[min(polls, len(POLL_SECONDS) - 1)])
            polls += 1
            operation = self.get(f"/v1/{operation['name']}")
        error = operation.get("error")
        if isinstance(error, dict) and error:
            raise OperationFailed(str(operation["name"]), error)
        response = operation.get("response", {})
        return response if isinstance(response, dict) else {}

    def pages(self, path: str, **parameters: str | int | float | bool | list[str]) -> Iterator[Json]:
        """Yield every page of a list."""
        token = ""
        while True:
            page = self.get(path, **parameters, **({"page_token": token} if token else {}))
            yield page
            token = str(page.get("next_page_token", ""))
            if not token:
                return

    def items(self, path: str, field: str, **parameters: str | int | float | bool | list[str]) -> Iterator[Json]:
        """Yield every item of a list, `field` being the name of the list in a page."""
        for page in self.pages(path, **parameters):
            found = page.get(field, [])
            if isinstance(found, list):
                yield from found

    def _upload(self, path: str, name: str, file: IO[bytes], fields: Mapping[str, str]) -> Json:
        parts: list[tuple[str, tuple[str | None, str | IO[bytes]]]] = [
            (field, (None, value)) for field, value in fields.items()
        ]
        parts.append(("file", (name, file)))
        headers = {**self._authorization(), "X-Request-Timeout": "3600"}
        reply = self._http.post(path, files=parts, headers=headers, timeout=None)  # type: ignore[arg-type]
        if reply.is_error:
            raise problem_of(reply)
        return reply.json()  # type: ignore[no-any-return]

    def _send(
        self,
        method: str,
        path: str,
        *,
        params: Mapping[str, object] | None = None,
        json: Json | None = None,
        headers: Mapping[str, str] | None = None,
    ) -> httpx.Response:
        """Send, again after 401 with a new token, after 429, and after 503 where a repeat does no harm."""
        request_id = uuid.uuid4().hex
        repeatable = method in ("GET", "DELETE") or bool(headers and "Idempotency-Key" in headers)
        renewed = False
        for attempt in range(RETRIES + 1):
            sent = {**(headers or {}), **self._authorization(), "X-Request-Id": request_id}
            reply = self._http.request(method, path, params=params, json=json, headers=sent)  # type: ignore[arg-type]
            if reply.status_code == 401 and not renewed:
                renewed = True
                self._forget_token()
                continue
            wait = reply.status_code == 429 or (reply.status_code == 503 and repeatable)
            if not wait or attempt == RETRIES:
                break
            time.sleep(min(float(reply.headers.get("retry-after", "1")), 10.0))
        if reply.is_error:
            raise problem_of(reply)
        return reply

    def _authorization(self) -> dict[str, str]:
        with self._lock:
            if time.monotonic() >= self._renew_at:
                reply = self._http.post(
                    "/oauth2/token", data={"grant_type": "client_credentials"}, auth=self._credentials
                )
                if reply.is_error:
                    raise problem_of(reply)
                token = reply.json()
                self._token = token["access_token"]
                self._renew_at = time.monotonic() + float(token["expires_in"]) - RENEW_BEFORE_SECONDS
            return {"Authorization": f"Bearer {self._token}"}

    def _forget_token(self) -> None:
        with self._lock:
            self._renew_at = 0.0
