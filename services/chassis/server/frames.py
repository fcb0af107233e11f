"""Many calls in one frame: what gateway and service exchange over a TLS connection beside gRPC (ADR 0027).

One gRPC call costs hundreds of microseconds in Python, a call in a frame a few; the meaning is that of a unary
call: path, deadline, metadata, request; then a reply or a google.rpc.Status. A frame is its length and then calls, or
replies; one of no length from a service says that it takes no more calls. A frame of calls says when it was sent, by a
clock of the sender's own: one that was long under way is told from the others of its connection.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator
from dataclasses import dataclass

import orjson

from services.chassis.config import MESSAGE_BYTES

PATH = "/kehu.chassis.Frames/Port"  # a method of gRPC: on which port a service takes frames
FRAME_BYTES = 1024 * 1024  # a frame is sent once it is this long
LONGEST_FRAME = MESSAGE_BYTES + FRAME_BYTES
METADATA_BYTES = 16 * 1024
CALL_BYTES = 256 * 1024  # longer requests go as calls of their own, so that they hold up nobody
_SIZE = struct.Struct(">I")
_SENT = struct.Struct(">Q")
_CALL = struct.Struct(">IIHHI")
_REPLY = struct.Struct(">IBI")

Metadata = list[tuple[str, str]]


class Inbox:
    """The bytes of a connection as they come, cut into frames."""

    def __init__(self) -> None:
        self._held = b""

    def take(self, raw: bytes) -> list[bytes]:
        """Return the frames that are whole now.

        Raises:
            struct.error: one would be longer than any.
        """
        held, at, frames = self._held + raw if self._held else raw, 0, []
        while at + _SIZE.size <= len(held):
            (size,) = _SIZE.unpack_from(held, at)
            if size > LONGEST_FRAME:
                raise struct.error("the frame is too long")
            end = at + _SIZE.size + size
            if end > len(held):
                break
            frames.append(held[at + _SIZE.size : end])
            at = end
        self._held = held[at:]
        return frames


def take_frame(parts: list[bytes]) -> bytes:
    """Take replies out of a list, and return as many as a frame may hold as one; a long one goes alone."""
    size = count = 0
    for part in parts:
        if count and size + len(part) > FRAME_BYTES:
            break
        size += len(part)
        count += 1
    frame = b"".join((_SIZE.pack(size), *parts[:count]))
    del parts[:count]
    return frame


LAST_FRAME = take_frame([])


@dataclass(slots=True)
class CallFrame:
    """One call; `timeout_ms` counts from when the frame was sent, `headers` is JSON pairs."""

    number: int
    path: str
    timeout_ms: int
    headers: bytes
    request: bytes

    def metadata(self) -> Metadata:
        """Return the call's metadata."""
        return [(str(name), str(value)) for name, value in orjson.loads(self.headers)]


@dataclass(slots=True)
class ReplyFrame:
    """One answer: the serialized reply, or a serialized google.rpc.Status."""

    number: int
    is_failure: bool
    body: bytes


def pack_headers(metadata: Metadata) -> bytes:
    """Return the metadata of a call as bytes.

    Raises:
        ValueError: they would be more than METADATA_BYTES.
    """
    headers = orjson.dumps(metadata)
    if len(headers) > METADATA_BYTES:
        raise ValueError("the metadata is too long")
    return headers


def pack_call(number: int, path: str, timeout_ms: int, headers: bytes, request: bytes) -> bytes:
    """Return one call as bytes; `headers` is from `pack_headers`."""
    name = path.encode()
    return _CALL.pack(number, timeout_ms, len(name), len(headers), len(request)) + name + headers + request


def pack_calls(sent_ms: int, calls: list[bytes]) -> bytes:
    """Return a frame of calls, sent at this time by any clock that the frames of a connection share."""
    size = _SENT.size + sum(map(len, calls))
    return b"".join((_SIZE.pack(size), _SENT.pack(sent_ms), *calls))


def sent_ms_of(frame: bytes) -> int:
    """Return when a frame of calls was sent.

    Raises:
        struct.error: the frame is not one of ours.
    """
    return int(_SENT.unpack_from(frame)[0])


def unpack_calls(frame: bytes) -> Iterator[CallFrame]:
    """Yield the calls of a frame.

    Raises:
        struct.error, UnicodeDecodeError: the frame is cut or not one of ours.
    """
    at = _SENT.size
    while at < len(frame):
        number, timeout_ms, name_size, headers_size, request_size = _CALL.unpack_from(frame, at)
        at += _CALL.size
        headers_at = at + name_size
        request_at = headers_at + headers_size
        end = request_at + request_size
        if end > len(frame) or headers_size > METADATA_BYTES or request_size > MESSAGE_BYTES:
            raise struct.error("the frame is cut, or a call in it too long")
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
