"""Messages with something in every field, for requests and replies that must come through whole."""

from __future__ import annotations

import re
from collections.abc import Mapping

from google.protobuf.any_pb2 import Any as AnyMessage
from google.protobuf.descriptor import Descriptor, FieldDescriptor
from google.protobuf.message import Message
from google.protobuf.message_factory import GetMessageClass

F = FieldDescriptor
DEPTH = 4
TEXT = "客 户/?&=%+\"'\\é:#"
NUMBERS = {
    F.CPPTYPE_INT32: -7,
    F.CPPTYPE_UINT32: 7,
    F.CPPTYPE_INT64: -(2**53) - 1,
    F.CPPTYPE_UINT64: 2**53 + 1,
    F.CPPTYPE_DOUBLE: 0.1,
    F.CPPTYPE_FLOAT: 1.5,
    F.CPPTYPE_BOOL: True,
}


def filled(descriptor: Descriptor, which: int = 0, depth: int = 0) -> Message:
    """Return a message with every field filled; of each oneof member number `which`, counted around."""
    message = GetMessageClass(descriptor)()
    special = SPECIAL.get(descriptor.full_name)
    if special is not None:
        special(message)
        return message
    chosen = {one.name: one.fields[which % len(one.fields)] for one in descriptor.oneofs}
    for field in descriptor.fields:
        if field.containing_oneof is not None and chosen[field.containing_oneof.name] is not field:
            continue
        if field.message_type is None or depth < DEPTH:
            _fill(message, field, which, depth)
    return message


def _fill(message: Message, field: FieldDescriptor, which: int, depth: int) -> None:
    if field.message_type is not None and field.message_type.GetOptions().map_entry:
        value = field.message_type.fields_by_name["value"]
        for number in range(2):
            key = f"key{number}" if field.message_type.fields_by_name["key"].cpp_type == F.CPPTYPE_STRING else number
            if value.message_type is not None:
                getattr(message, field.name)[key].CopyFrom(filled(value.message_type, which, depth + 1))
            else:
                getattr(message, field.name)[key] = _scalar(value, which)
    elif field.is_repeated:
        items = getattr(message, field.name)
        for number in range(2):
            if field.message_type is not None:
                items.add().CopyFrom(filled(field.message_type, which + number, depth + 1))
            else:
                items.append(_scalar(field, which + number))
    elif field.message_type is not None:
        getattr(message, field.name).CopyFrom(filled(field.message_type, which, depth + 1))
    else:
        setattr(message, field.name, _scalar(field, which))


def _scalar(field: FieldDescriptor, which: int) -> object:
    if field.enum_type is not None:
        values = [value.number for value in field.enum_type.values if value.number]
        return values[which % len(values)]
    if field.type == F.TYPE_BYTES:
        return b"\x00\xff{" + bytes([which % 256])
    if field.cpp_type == F.CPPTYPE_STRING:
        return f"e-{which}" if field.name == "etag" else f"{TEXT}{which}"
    return NUMBERS[field.cpp_type]


def _moment(message: Message) -> None:
    message.FromJsonString("2026-11-22T08:00:00.123456Z")


def _span(message: Message) -> None:
    message.FromJsonString("-1.500s")


def _mask(message: Message) -> None:
    message.paths.extend(["display_name", "address.line_1"])


def _struct(message: Message) -> None:
    message.update({"text": TEXT, "list": [1.5, None, {"deep": True}]})


def _any(message: Message) -> None:
    from google.protobuf.duration_pb2 import Duration

    message.Pack(Duration(seconds=3))


SPECIAL: Mapping[str, object] = {
    "google.protobuf.Timestamp": _moment,
    "google.protobuf.Duration": _span,
    "google.protobuf.FieldMask": _mask,
    "google.protobuf.Struct": _struct,
    "google.protobuf.Value": lambda message: setattr(message, "number_value", 2.5),
    "google.protobuf.ListValue": lambda message: message.extend([1.0, "two"]),
    AnyMessage.DESCRIPTOR.full_name: _any,
    "google.protobuf.Empty": lambda message: None,
}


def fit_path(message: Message, template: str) -> None:
    """Give the variables of a route's template values of its form, with what a segment may hold."""
    for name, pattern in re.findall(r"\{([^}=]+)(?:=([^}]*))?\}", template):
        *parents, last = name.split(".")
        for parent in parents:
            message = getattr(message, parent)
        setattr(message, last, (pattern or "*").replace("**", "a/b").replace("*", "a.b:客 户~1"))
