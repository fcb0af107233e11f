"""What the generated services stand on: a way to send each kind of method."""

from __future__ import annotations

import json
import uuid
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import replace
from pathlib import Path
from typing import IO, Any, TypeVar

import httpx
from google.protobuf.message import Message
from kehu.client.calls import HttpCall, Method, form_fields, http_call, line_chunks, message_of, reply_of, written
from kehu.client.connection import UPLOAD_SECONDS, Connection, Options, Outgoing
from kehu.client.errors import problem_of, refusal_of
from kehu.client.operations import Operation, cancel_operation, read_operation
from kehu.client.pages import Pages

R = TypeVar("R", bound=Message)
M = TypeVar("M", bound=Message)
Item = TypeVar("Item")
Line = bytes | str | Mapping[str, Any]
Fields = Mapping[str, object]
HARMLESS = frozenset(("GET", "DELETE"))
LINES_TYPE = {"Content-Type": "application/x-ndjson"}
LINES_AT_ONCE = 5000  # a request's lines: a lost answer costs little, and its answers fit into the connection
LINES_BYTES = 4 * 1024 * 1024


class Service:
    """Sends the calls of one service."""

    def __init__(self, connection: Connection, options: Options) -> None:
        self._connection = connection
        self._options = options

    def _call(self, method: Method[R], fields: Fields) -> R:
        """Return the reply of a call."""
        return _reply(method, self._fetch(method, keyed(method, fields)))

    def _pages(self, method: Method[R], fields: Fields, item: type[Item]) -> Pages[Item, R]:
        """Return a list whose first page is called for."""
        message = message_of(method, fields)

        def fetch(token: str) -> R:
            following = type(message)()
            following.CopyFrom(message)
            setattr(following, "page_token", token)  # noqa: B010 - the type is only known to the caller
            return _reply(method, self._fetch(method, following))

        return Pages(_reply(method, self._fetch(method, message)), fetch, method.items)

    def _upload(self, method: Method[R], fields: Fields, file: Path | IO[bytes]) -> R:
        """Return the reply to a file."""
        return _reply(method, self._send_file(method, fields, file))

    def _operation(
        self,
        method: Method[Any],
        fields: Fields,
        response: type[R],
        metadata: type[M],
        file: Path | IO[bytes] | None = None,
    ) -> Operation[R, M]:
        """Return what a call, or a file, began."""
        reply = self._send_file(method, fields, file) if file else self._fetch(method, keyed(method, fields))
        connection, options = self._connection, self._options
        return Operation(
            json.loads(reply.content),
            lambda name: read_operation(connection, options, name),
            lambda name: cancel_operation(connection, options, name),
        )

    def _lines(self, method: Method[R], fields: Fields, lines: Iterable[Line], first_line: int | None) -> Iterator[R]:
        """Yield the answers to lines, which are sent some thousand at a time: a repeat changes nothing."""
        (binding,) = method.bindings
        in_query = replace(method, bindings=(replace(binding, body=""),))
        number = first_line or 1
        for chunk in line_chunks(lines, LINES_AT_ONCE, LINES_BYTES):
            message = message_of(method, {**fields, "first_line": number})
            call = replace(http_call(in_query, message), body=b"".join(chunk), headers=LINES_TYPE)
            reply = self._connection.send(outgoing_of(method, call, is_harmless=True), self._options)
            yield from _answers(method, reply)
            number += len(chunk)

    def _fetch(self, method: Method[Any], message: Message) -> httpx.Response:
        return self._connection.send(outgoing_of(method, http_call(method, message)), self._options)

    def _send_file(self, method: Method[Any], fields: Fields, file: Path | IO[bytes]) -> httpx.Response:
        if isinstance(file, Path):
            with file.open("rb") as opened:
                return self._send_file(method, fields, opened)
        message = keyed(method, fields)
        call = http_call(method, message)
        data = form_fields(written(message), call.template)
        name = Path(str(getattr(file, "name", "file"))).name

        def parts() -> dict[str, object]:
            file.seek(0)  # a stream that cannot go back could not be sent again
            return {"data": data, "files": {"file": (name, file)}}

        outgoing = outgoing_of(method, replace(call, headers={}))
        return self._connection.send(replace(outgoing, parts=parts, longest_seconds=UPLOAD_SECONDS), self._options)


def keyed(method: Method[Any], fields: Fields) -> Message:
    """Return the request, with an id of its own where it takes one and has none: a repeat is then the same call."""
    message = message_of(method, fields)
    if method.takes_key and not getattr(message, "request_id"):  # noqa: B009
        setattr(message, "request_id", str(uuid.uuid4()))  # noqa: B010
    return message


def outgoing_of(method: Method[Any], call: HttpCall, is_harmless: bool = False) -> Outgoing:
    """Return a call as it is sent."""
    content = {} if call.body is None else {"content": call.body}
    return Outgoing(
        call.verb,
        f"{call.verb} {call.template}",
        call.path,
        call.headers,
        lambda: dict[str, object](content),
        is_harmless=is_harmless or method.is_read or method.takes_key or call.verb in HARMLESS,
        is_public=method.is_public,
    )


def _reply(method: Method[R], reply: httpx.Response) -> R:
    return reply_of(method.response, reply.content, reply.headers.get("content-type", ""))


def _answers(method: Method[R], reply: httpx.Response) -> Iterator[R]:
    """Yield the answers of a reply in lines.

    Raises:
        KehuProblem: the last line says why no more lines were taken.
    """
    for line in reply.content.splitlines():
        document = json.loads(line)
        if "error" in document:
            problem = document["error"]
            raise problem_of(refusal_of(int(problem.get("status", 500)), problem, reply.headers))
        yield reply_of(method.response, line, "")
