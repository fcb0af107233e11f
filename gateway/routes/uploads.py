"""Feed a client-streaming method from a multipart upload, as it comes: header, then chunks."""

from __future__ import annotations

import asyncio

import grpc
from google.protobuf.message import Message
from google.protobuf.message_factory import GetMessageClass
from grpc import aio

from gateway.problems import Problem, from_rpc, refusal
from gateway.reasons import Reason
from gateway.routes.derived import DerivedRoute, Edge, bad_request
from gateway.routes.forms import FormReader, boundary_of, broken
from gateway.transcoding.catalog import Binding, Method
from gateway.transcoding.paths import Template
from gateway.transcoding.scalars import BadField
from gateway.upstreams import metadata_of
from gateway.wire import Exchange, Reply

CHUNK_BYTES = 256 * 1024  # the contract allows 512 KiB; half keeps a message below gRPC's windows


async def failure_of(call: aio.StreamUnaryCall[bytes, bytes]) -> Problem:
    """Return why the service ended an upload early."""
    try:
        await call
    except grpc.RpcError as error:
        return from_rpc(error)
    return refusal(500, Reason.INTERNAL, "the service ended the upload before its end")


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
        self.edge.upstreams.check(self.method.service, self.worth)
        await self.edge.doorkeeper.admit(exchange, self.method)
        form = FormReader(boundary_of(exchange.headers.get(b"content-type", b"")))
        timeout = exchange.timeout_seconds(limits.upload_deadline, limits.upload_deadline)
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
