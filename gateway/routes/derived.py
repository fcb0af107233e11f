"""Answer a route by its one method: read the request, call the service, write the reply."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

import grpc
import orjson
from google.api import httpbody_pb2
from google.protobuf.message import Message
from google.protobuf.message_factory import GetMessageClass

from gateway.auth import Doorkeeper
from gateway.limits import Limits
from gateway.problems import Fault, Problem, from_rpc, refusal
from gateway.reasons import Reason
from gateway.routes.forms import fields_of
from gateway.shedding import Worth, worth_of
from gateway.transcoding.catalog import Binding, Method
from gateway.transcoding.json_text import BadJson, parse_json
from gateway.transcoding.paths import Template
from gateway.transcoding.query import parse_pairs
from gateway.transcoding.reading import Readers
from gateway.transcoding.requests import HeaderRefused, RequestReader
from gateway.transcoding.scalars import BadField
from gateway.transcoding.writing import Json, Writers
from gateway.upstreams import Upstreams, metadata_of
from gateway.wire import JSON_TYPE, MULTIPART, PAGE_POLICY, URLENCODED, Exchange, Reply


class Route(Protocol):
    """What answers on a path and HTTP method."""

    worth: Worth

    async def answer(self, exchange: Exchange, segments: list[str]) -> Reply:
        """Return the reply, or raise Problem."""


@dataclass(frozen=True, slots=True)
class Edge:
    """What every route needs, built once."""

    doorkeeper: Doorkeeper
    upstreams: Upstreams
    limits: Limits
    readers: Readers
    writers: Writers


def bad_request(bad: BadField) -> Problem:
    """Return the refusal of a request whose field cannot be read."""
    fault = Fault(bad.pointer, bad.detail)
    return refusal(400, Reason.INVALID_FIELD, "the request has a bad field", faults=[fault])


class DerivedRoute:
    """One HTTP form of one unary method."""

    def __init__(self, edge: Edge, method: Method, binding: Binding, template: Template) -> None:
        self.edge = edge
        self.method = method
        self.reader = RequestReader(method, binding, template, edge.readers)
        self._takes_form = method.is_public and binding.verb == "POST"
        self.response = GetMessageClass(method.response)
        self._write = edge.writers.of(method.response)
        self.worth = worth_of(method)

    async def answer(self, exchange: Exchange, segments: list[str]) -> Reply:
        """Admit the caller, then read, call and write."""
        self.edge.upstreams.check(self.method.service, self.worth)
        if not self.method.is_public:
            return await self._answer(exchange, segments)
        with self.edge.doorkeeper.stranger(exchange):
            return await self._answer(exchange, segments)

    async def _answer(self, exchange: Exchange, segments: list[str]) -> Reply:
        await self.edge.doorkeeper.admit(exchange, self.method)
        message = await self.read(exchange, segments)
        return self.write(await self.call(exchange, message))

    async def read(self, exchange: Exchange, segments: list[str]) -> Message:
        """Return the request message.

        Raises:
            Problem: 400, 413, 415 with the field at fault.
        """
        try:
            if self.reader.takes_body:
                message = await self._read_body(exchange, segments)
            elif exchange.has_body:
                raise refusal(400, Reason.BODY_UNEXPECTED, "this route takes no body")
            else:
                message = self.reader.read(segments, exchange.query, None)
        except BadField as bad:
            raise bad_request(bad) from None
        if b"idempotency-key" in exchange.headers or b"if-match" in exchange.headers:
            self._read_headers(exchange, message)
        return message

    async def _read_body(self, exchange: Exchange, segments: list[str]) -> Message:
        content_type = exchange.text(b"content-type").partition(";")[0].strip().lower()
        is_form = self._takes_form and content_type in (URLENCODED, MULTIPART)
        if not is_form and content_type != "application/json" and (content_type or exchange.has_body):
            raise refusal(415, Reason.UNSUPPORTED_MEDIA_TYPE, "send application/json")
        limits = self.edge.limits
        raw = await exchange.body(limits.body_bytes, limits.body_wait)
        if is_form:
            is_multipart = content_type == MULTIPART
            form = fields_of(exchange.headers[b"content-type"], raw) if is_multipart else parse_pairs(raw)
            return self.reader.read_form(segments, exchange.query, form)
        try:
            return self.reader.read(segments, exchange.query, parse_json(raw) if raw else {})
        except BadJson as bad:
            raise refusal(400, Reason.MALFORMED_JSON, str(bad)) from None

    def _read_headers(self, exchange: Exchange, message: Message) -> None:
        reason = Reason.IDEMPOTENCY_KEY_REFUSED
        try:
            key = exchange.text(b"idempotency-key")
            if key and not self.method.is_read:
                self.reader.put_request_id(message, key)
            reason = Reason.IF_MATCH_REFUSED
            if_match = exchange.text(b"if-match")
            if if_match:
                self.reader.put_etag(message, if_match)
        except HeaderRefused as refused:
            raise refusal(400, reason, str(refused)) from None

    def service(self, message: Message) -> str:
        """Return the service that answers this request."""
        return self.method.service

    async def call(self, exchange: Exchange, message: Message) -> bytes:
        """Return the service's reply, serialized.

        Raises:
            Problem: the call failed.
        """
        limits = self.edge.limits
        return await self.send(exchange, message, exchange.timeout_seconds(limits.deadline, limits.longest_deadline))

    async def send(self, exchange: Exchange, message: Message, timeout: float) -> bytes:
        """Return the service's reply within some seconds; see call."""
        metadata = metadata_of(exchange, with_token=not self.method.is_public)
        try:
            return await self.edge.upstreams.call(
                self.service(message), self.method.path, message.SerializeToString(), metadata, timeout
            )
        except grpc.RpcError as error:
            raise from_rpc(
                error,
                body_field=self.reader.body_field.strip("*"),
                had_if_match=b"if-match" in exchange.headers,
            ) from None

    def write(self, raw: bytes) -> Reply:
        """Return the HTTP reply: JSON, with the ETag of a resource; or the bytes of an HttpBody as they are."""
        message: Message = self.response.FromString(raw)
        if isinstance(message, httpbody_pb2.HttpBody):
            content_type = (message.content_type or "application/octet-stream").encode("latin-1", "replace")
            page = ((b"content-security-policy", PAGE_POLICY),) if content_type.startswith(b"text/html") else ()
            return Reply(200, message.data, ((b"content-type", content_type), *page))
        written = self._write(message)
        etag = written.get("etag") if isinstance(written, dict) else None
        if isinstance(etag, str) and etag.isascii() and etag.isprintable() and '"' not in etag:
            return Reply(200, orjson.dumps(written), (JSON_TYPE, (b"etag", f'"{etag}"'.encode())))
        return Reply(200, orjson.dumps(written))

    def written(self, raw: bytes) -> Json:
        """Return the service's reply as a JSON value."""
        return self._write(self.response.FromString(raw))
