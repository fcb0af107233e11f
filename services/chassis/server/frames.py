"""Many calls in one message of a stream: the frames that gateway and service exchange.

One gRPC call costs hundreds of microseconds in Python, a call in a frame a few; the meaning is that of a unary
call: path, deadline, metadata, request; then a reply or a google.rpc.Status.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator
from dataclasses import dataclass

import orjson

PATH = "/kehu.chassis.Frames/Exchange"
LANE = ("kehu-frames-lane", "1")  # metadata of a stream on which each frame is answered before the next is read
WELCOME = ("kehu-frames", "1")  # initial metadata by which a service says that it takes frames
FRAME_BYTES = 1024 * 1024  # a frame is sent once it is this long; gRPC takes 4 MiB
CALL_BYTES = 256 * 1024  # longer requests go as calls of their own, so that they hold up nobody
_CALL = struct.Struct(">IIHHI")
_REPLY = struct.Struct(">IBI")

Metadata = list[tuple[str, str]]


@dataclass(frozen=True, slots=True)
class CallFrame:
    """One call; `timeout_ms` counts from when the frame is read, `headers` is JSON pairs."""

    number: int
    path: str
    timeout_ms: int
    headers: bytes
    request: bytes

    def metadata(self) -> Metadata:
        """Return the call's metadata."""
        return [(str(name), str(value)) for name, value in orjson.loads(self.headers)]


@dataclass(frozen=True, slots=True)
class ReplyFrame:
    """One answer: the serialized reply, or a serialized google.rpc.Status."""

    number: int
    is_failure: bool
    body: bytes


def pack_call(number: int, path: str, timeout_ms: int, metadata: Metadata, request: bytes) -> bytes:
    """Return one call as bytes; frames are any number of them, one after the other."""
    name, headers = path.encode(), orjson.dumps(metadata)
    return _CALL.pack(number, timeout_ms, len(name), len(headers), len(request)) + name + headers + request


def unpack_calls(frame: bytes) -> Iterator[CallFrame]:
    """Yield the calls of a frame.

    Raises:
        struct.error, UnicodeDecodeError: the frame is cut or not one of ours.
    """
    at = 0
    while at < len(frame):
        number, timeout_ms, name_size, headers_size, request_size = _CALL.unpack_from(frame, at)
        at += _CALL.size
        headers_at = at + name_size
        request_at = headers_at + headers_size
        end = request_at + request_size
        if end > len(frame):
            raise struct.error("the frame is cut")
        path = frame[at:headers_at].decode("ascii")
        yield CallFrame(number, path, timeout_ms, frame[headers_at:request_at], frame[request_at:end])
        at = end


def pack_reply(number: int, is_failure: bool, body: bytes) -> bytes:
    """Return one answer as bytes."""
    return _REPLY.pack(number, is_failure, len(body)) + body


def unpack_replies(frame: bytes) -> Iterator[ReplyFrame]:
    """Yield the answers of a frame.

    Raises:
        struct.error: the frame is cut or not one of ours.
    """
    at = 0
    while at < len(frame):
        number, is_failure, size = _REPLY.unpack_from(frame, at)
        at += _REPLY.size
        if at + size > len(frame):
            raise struct.error("the frame is cut")
        yield ReplyFrame(number, bool(is_failure), frame[at : at + size])
        at += size
