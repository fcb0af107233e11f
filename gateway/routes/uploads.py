"""Feed a client-streaming method from a multipart upload, as it comes: header, then chunks."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass, field

import grpc
from google.protobuf.message import Message
from google.protobuf.message_factory import GetMessageClass
from grpc import aio
from python_multipart.exceptions import FormParserError
from python_multipart.multipart import MultipartParser, parse_options_header

from gateway.problems import Problem, from_rpc, refusal
from gateway.reasons import Reason
from gateway.routes.derived import DerivedRoute, Edge, bad_request
from gateway.transcoding.catalog import Binding, Method
from gateway.transcoding.paths import Template
from gateway.transcoding.scalars import BadField
from gateway.upstreams import metadata_of
from gateway.wire import Exchange, Reply

CHUNK_BYTES = 256 * 1024  # the contract allows 512 KiB; half keeps a message below gRPC's windows
FIELDS_BYTES = 64 * 1024  # form fields are parameters, not content
PARTS_LIMIT = 50
HEADER_BYTES = 8 * 1024  # of one part


@dataclass(slots=True)
class Part:
    """A part of the form being read."""

    name: str = ""
    file_name: str = ""
    is_file: bool = False
    raw_header: bytearray = field(default_factory=bytearray)
    headers: dict[str, bytes] = field(default_factory=dict)
    text: bytearray = field(default_factory=bytearray)


class FormReader:
    """Parses a multipart body as it comes; fields must stand before the one file."""

    def __init__(self, boundary: bytes) -> None:
        self.fields: list[tuple[str, str]] = []
        self.file_name = ""
        self.pending = bytearray()
        self.is_finished = False
        self.has_file = False
        self._part = Part()
        self._sizes = 0
        self._parts = 0
        self._parser = MultipartParser(
            boundary,
            {
                "on_part_begin": self._begin,
                "on_header_field": self._header_text,
                "on_header_value": self._header_value,
                "on_header_end": self._header_end,
                "on_headers_finished": self._headers,
                "on_part_data": self._data,
                "on_part_end": self._end,
                "on_end": self._finish,
            },
        )
        self._value = bytearray()

    def feed(self, chunk: bytes) -> None:
        """Read on.

        Raises:
            Problem: the form is broken, has two files, too many parts or too long fields.
        """
        try:
            self._parser.write(chunk)
        except FormParserError:
            raise broken("the multipart body is malformed") from None

    def _begin(self) -> None:
        self._parts += 1
        if self._parts > PARTS_LIMIT:
            raise broken(f"the form has more than {PARTS_LIMIT} parts")
        if self.has_file:
            raise broken("the file must be the last part; put the fields before it")
        self._part = Part()

    def _header_text(self, data: bytes, start: int, end: int) -> None:
        self._count(end - start, HEADER_BYTES)
        self._part.raw_header += data[start:end]

    def _header_value(self, data: bytes, start: int, end: int) -> None:
        self._count(end - start, HEADER_BYTES)
        self._value += data[start:end]

    def _header_end(self) -> None:
        name = self._part.raw_header.decode("latin-1").lower()
        self._part.headers[name] = bytes(self._value)
        self._part.raw_header.clear()
        self._value.clear()

    def _headers(self) -> None:
        kind, options = parse_options_header(self._part.headers.get("content-disposition", b""))
        if kind != b"form-data" or b"name" not in options:
            raise broken("a part has no Content-Disposition: form-data with a name")
        self._part.name = decoded(options[b"name"])
        if b"filename" in options:
            self._part.is_file = self.has_file = True
            self.file_name = decoded(options[b"filename"])

    def _data(self, data: bytes, start: int, end: int) -> None:
        if self._part.is_file:
            self.pending += data[start:end]
        else:
            self._count(end - start, FIELDS_BYTES)
            self._part.text += data[start:end]

    def _end(self) -> None:
        if not self._part.is_file:
            self.fields.append((self._part.name, decoded(bytes(self._part.text))))

    def _finish(self) -> None:
        self.is_finished = True

    def _count(self, size: int, limit: int) -> None:
        self._sizes += size
        if self._sizes > limit + HEADER_BYTES * self._parts:
            raise broken("the form's fields are too long")


async def failure_of(call: aio.StreamUnaryCall[bytes, bytes]) -> Problem:
    """Return why the service ended an upload early."""
    try:
        await call
    except grpc.RpcError as error:
        return from_rpc(error)
    return refusal(500, Reason.INTERNAL, "the service ended the upload before its end")


def broken(detail: str) -> Problem:
    """Return the refusal of a broken form."""
    return refusal(400, Reason.MALFORMED_FORM, detail)


def decoded(raw: bytes) -> str:
    """Return form text, which must be UTF-8."""
    try:
        return raw.decode("utf-8")
    except UnicodeDecodeError:
        raise broken("the form's text is not UTF-8") from None


class UploadRoute(DerivedRoute):
    """A client-streaming method whose request message has `oneof part { header, bytes chunk }`."""

    def __init__(self, edge: Edge, method: Method, binding: Binding, template: Template) -> None:
        header = method.request.fields_by_name["header"].message_type
        as_header = Method(**{name: getattr(method, name) for name in method.__slots__} | {"request": header})
        super().__init__(edge, as_header, Binding(binding.verb, binding.template, ""), template)
        self._part = GetMessageClass(method.request)

    async def answer(self, exchange: Exchange, segments: list[str]) -> Reply:
        """Admit the caller, then stream the body through."""
        limits = self.edge.limits
        self.edge.doorkeeper.admit(exchange, self.method)
        kind, options = parse_options_header(exchange.headers.get(b"content-type", b""))
        if kind != b"multipart/form-data" or not 1 <= len(options.get(b"boundary", b"")) <= 70:
            raise refusal(415, Reason.UNSUPPORTED_MEDIA_TYPE, "send multipart/form-data with a boundary")
        timeout = exchange.timeout_seconds(limits.upload_deadline, limits.upload_deadline)
        form = FormReader(options[b"boundary"])
        call: aio.StreamUnaryCall[bytes, bytes] | None = None
        try:
            async for chunk in exchange.chunks(limits.upload_bytes, limits.body_wait):
                form.feed(chunk)
                if call is None and form.has_file:
                    call = self._open(exchange, timeout)
                    await call.write(self._header(exchange, segments, form))
                if call is not None:
                    await self._send(call, form, CHUNK_BYTES)
            if call is None or not form.is_finished:
                raise broken("the form has no file part, or ends too early")
            await self._send(call, form, 1)
            await call.done_writing()
            return self.write(await call)
        except asyncio.InvalidStateError:  # the service ended the call while the body still came
            assert call is not None
            raise await failure_of(call) from None
        except grpc.RpcError as error:
            raise from_rpc(error) from None
        except BadField as bad:
            raise bad_request(bad) from None
        finally:
            if call is not None and not call.done():
                call.cancel()

    def _open(self, exchange: Exchange, timeout: float) -> aio.StreamUnaryCall[bytes, bytes]:
        metadata = metadata_of(exchange, with_token=not self.method.is_public)
        return self.edge.upstreams.stream(self.method.service, self.method.path, metadata, timeout)

    def _header(self, exchange: Exchange, segments: list[str], form: FormReader) -> bytes:
        """Return the first message of the stream: fields of path, query and form, and the file's name."""
        header: Message = self.reader.read(segments, exchange.query, None)
        self.reader.query.fill(header, form.fields)
        if "file_name" in header.DESCRIPTOR.fields_by_name:
            header.file_name = form.file_name
        self._read_headers(exchange, header)
        return bytes(self._part(header=header).SerializeToString())

    async def _send(self, call: aio.StreamUnaryCall[bytes, bytes], form: FormReader, at_least: int) -> None:
        """Write what is pending, in chunks, as long as there are `at_least` bytes of it."""
        while len(form.pending) >= at_least:
            chunk = bytes(form.pending[:CHUNK_BYTES])
            del form.pending[:CHUNK_BYTES]
            await call.write(self._part(chunk=chunk).SerializeToString())
