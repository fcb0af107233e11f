"""The API as JSON, as a caller without kehu.client has it: what the flows say on the wire is what they test.

Tokens, repeats and problems are kehu.client's.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any
from urllib.parse import urlencode

from google.protobuf.json_format import MessageToDict
from kehu.client import Kehu
from kehu.client.connection import UPLOAD_SECONDS, Outgoing
from kehu.client.operations import Operation, cancel_operation, read_operation

from infra.api import PersonSignIn, SignIns

Json = dict[str, Any]
BODY = {"Content-Type": "application/json"}


def entries(document: Json, name: str) -> list[Json]:
    """Return the messages of a repeated field; proto JSON leaves out what is empty."""
    return list(document.get(name, ()))


def whole(value: object) -> int:
    """Return a figure of a reply; proto JSON writes 64-bit integers as strings and leaves zeros out."""
    return int(str(value or 0))


class Raw:
    """Sends requests by path and body."""

    def __init__(self, kehu: Kehu) -> None:
        self._kehu = kehu

    def get(self, path: str, **parameters: object) -> Json:
        return self._send("GET", path, None, parameters, harmless=True)

    def post(self, path: str, body: Json | None = None, *, key: str = "", **parameters: object) -> Json:
        headers = BODY | ({"Idempotency-Key": key} if key else {})
        return self._send("POST", path, body or {}, parameters, headers, harmless=bool(key))

    def patch(self, path: str, body: Json, *, etag: str = "", **parameters: object) -> Json:
        return self._send("PATCH", path, body, parameters, BODY | ({"If-Match": f'"{etag}"'} if etag else {}))

    def delete(self, path: str, **parameters: object) -> Json:
        return self._send("DELETE", path, None, parameters, harmless=True)

    def upload(self, path: str, file: Path, *, key: str = "", **fields: str) -> Json:
        def parts() -> dict[str, object]:
            return {"data": fields, "files": {"file": (file.name, file.read_bytes())}}

        headers = {"Idempotency-Key": key} if key else {}
        outgoing = Outgoing("POST", path, path, headers, parts, is_harmless=bool(key), longest_seconds=UPLOAD_SECONDS)
        return self._answer(outgoing)

    def items(self, path: str, field: str, **parameters: object) -> Iterator[Json]:
        token = ""
        while True:
            page = self.get(path, **parameters, **({"page_token": token} if token else {}))
            yield from entries(page, field)
            token = page.get("next_page_token", "")
            if not token:
                return

    def wait_operation(
        self, operation: Json, timeout_seconds: float = 600.0, progress: Callable[[Any], None] | None = None
    ) -> Json:
        connection, options = self._kehu._connection, self._kehu._options
        waited = Operation(
            operation,
            lambda name: read_operation(connection, options, name),
            lambda name: cancel_operation(connection, options, name),
        )
        return MessageToDict(waited.wait(timeout_seconds, progress), preserving_proto_field_name=True)

    def headers(self) -> dict[str, str]:
        return self._kehu.headers()

    def _send(
        self,
        verb: str,
        path: str,
        body: Json | None,
        parameters: dict[str, object],
        headers: dict[str, str] | None = None,
        *,
        harmless: bool = False,
    ) -> Json:
        written = {name: json.dumps(one) if isinstance(one, bool) else one for name, one in parameters.items()}
        query = f"?{urlencode(written, doseq=True)}" if written else ""
        content = {} if body is None else {"content": json.dumps(body).encode()}
        outgoing = Outgoing(verb, path, path + query, headers or {}, lambda: dict(content), is_harmless=harmless)
        return self._answer(outgoing)

    def _answer(self, outgoing: Outgoing) -> Json:
        reply = self._kehu._connection.send(outgoing, self._kehu._options)
        return json.loads(reply.content) if reply.content else {}


class RawSignIns:
    """The ways into a stack, as SignIns has them."""

    def __init__(self, credentials_file: Path) -> None:
        self._typed = SignIns(credentials_file)

    def department(self, name: str, purpose: str = "") -> Raw:
        return Raw(self._typed.department(name, purpose))

    def app(self, client_id: str, client_secret: str, purpose: str = "") -> Raw:
        return Raw(self._typed.app(client_id, client_secret, purpose))

    def person(self, department: str, purpose: str) -> Raw:
        return Raw(self._typed.person(department, purpose))

    def nobody(self) -> Raw:
        """Return a caller without a token."""
        return Raw(Kehu(self._typed._base_url, None))

    def invited(self, person: Json, purpose: str) -> Raw:
        """Return somebody with a user name, a password and the secret of their one-time codes."""
        token_file = self._typed._folder / f"{person['username']}-token.json"
        return Raw(self._typed._client(PersonSignIn(**person, token_file=token_file), purpose))

    def administrator(self, purpose: str = "administration") -> Raw:
        return Raw(self._typed.administrator(purpose))
