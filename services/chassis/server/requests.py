"""Read and check requests: whatever the bytes, the answer names what is wrong and never fails."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from functools import cache

import protovalidate
from google.protobuf.descriptor import Descriptor, FieldDescriptor
from google.protobuf.duration_pb2 import Duration
from google.protobuf.empty_pb2 import Empty
from google.protobuf.message import DecodeError, Message
from google.protobuf.timestamp_pb2 import Timestamp

from services.chassis import errors

FAULTS_SHOWN = 50
_UNREADABLE = Empty()  # stands for a request whose bytes say nothing; known by identity
_TIMES = {Timestamp.DESCRIPTOR.full_name, Duration.DESCRIPTOR.full_name}
_validator = protovalidate.Validator()


class MessageMalformed(errors.Invalid):
    """The bytes of a request are no message of its type."""

    reason = "MESSAGE_MALFORMED"


def readable(parse: Callable[[bytes], Message]) -> Callable[[bytes], Message]:
    """Return a parser that never fails: gRPC answers INTERNAL where one does, before it is known who asks."""

    def read(raw: bytes) -> Message:
        try:
            return parse(raw)
        except DecodeError:
            return _UNREADABLE

    return read


def check_readable(request: object) -> None:
    """Refuse what stands for bytes that could not be read.

    Raises:
        MessageMalformed: it does.
    """
    if request is _UNREADABLE:
        raise MessageMalformed("the request is no protocol buffer of the method's type")


def validate(request: Message) -> None:
    """Check the request against the rules in its proto.

    Raises:
        Invalid: naming each bad field and what it must be, 50 at most; never the value.
    """
    found = _validator.collect_violations(request)
    bad = [errors.FieldViolation(_path_of(item), item.proto.message or item.proto.rule_id) for item in found]
    if _holds_times(request.DESCRIPTOR):
        bad += _bad_times(request, "")
    if bad:
        raise errors.Invalid("the request has bad fields", violations=bad[:FAULTS_SHOWN])


def validated(requests: Iterable[Message]) -> Iterator[Message]:
    """Yield the requests of a stream, each checked when it comes."""
    for request in requests:
        check_readable(request)
        validate(request)
        yield request


def _path_of(violation: protovalidate.Violation) -> str:
    parts: list[str] = []
    path = violation.proto.field
    for element in path.elements if path is not None else ():
        text = element.field_name or ""
        subscript = element.subscript
        if subscript is not None and subscript.field == "index":
            text += f"[{subscript.value}]"
        parts.append(text)
    return ".".join(parts)


@cache
def _holds_times(kind: Descriptor) -> bool:
    """Tell whether a message may hold a time somewhere, at any depth."""
    seen, waiting = {kind}, [kind]
    while waiting:
        for field in waiting.pop().fields:
            inner = field.message_type
            if inner is not None and inner.full_name in _TIMES:
                return True
            if inner is not None and inner not in seen:
                seen.add(inner)
                waiting.append(inner)
    return False


def _bad_times(message: Message, path: str) -> Iterator[errors.FieldViolation]:
    """Yield each time outside the years 1 to 9999 or with wrong nanoseconds: no language of ours can hold it."""
    for field, value in message.ListFields():
        if field.message_type is None or not _may_hold(field):
            continue
        for position, item in _items(field, value):
            place = f"{path}{field.name}{position}"
            if item.DESCRIPTOR.full_name in _TIMES:
                if not _is_sound(item):
                    yield errors.FieldViolation(place, "give a time from year 1 to 9999, nanoseconds below a billion")
            else:
                yield from _bad_times(item, f"{place}.")


def _may_hold(field: FieldDescriptor) -> bool:
    inner = field.message_type
    return inner.full_name in _TIMES or _holds_times(inner)


def _items(field: FieldDescriptor, value: object) -> list[tuple[str, Message]]:
    if field.message_type.GetOptions().map_entry:
        return [(f"[{key}]", item) for key, item in value.items() if isinstance(item, Message)]  # type: ignore[attr-defined]
    if field.is_repeated:
        return [(f"[{number}]", item) for number, item in enumerate(value)]  # type: ignore[arg-type, var-annotated]
    return [("", value)]  # type: ignore[list-item]


def _is_sound(time: Message) -> bool:
    try:
        time.ToJsonString()  # type: ignore[attr-defined]
    except ValueError:
        return False
    return True
