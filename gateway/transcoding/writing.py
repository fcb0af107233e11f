"""Write protobuf messages as JSON values, by writers compiled once per message type.

Follows the proto3 JSON mapping (protobuf.dev, "ProtoJSON Format") with the protos' own snake_case names, also
inside field masks; fields without a value are left out, so that a hidden field never looks like an empty one.
"""

from __future__ import annotations

import struct
from base64 import b64encode
from collections.abc import Callable
from datetime import timedelta
from math import isfinite, isnan
from typing import TypeAlias

from google.protobuf import symbol_database
from google.protobuf.descriptor import Descriptor, FieldDescriptor
from google.protobuf.message import DecodeError, Message
from google.protobuf.message_factory import GetMessageClass

from services.chassis.times import NAIVE_EPOCH

Json: TypeAlias = "None | bool | int | float | str | list[Json] | dict[str, Json]"
Write: TypeAlias = Callable[[object], Json]

LONG_TYPES = frozenset(
    (
        FieldDescriptor.TYPE_INT64,
        FieldDescriptor.TYPE_UINT64,
        FieldDescriptor.TYPE_SINT64,
        FieldDescriptor.TYPE_FIXED64,
        FieldDescriptor.TYPE_SFIXED64,
    )
)
WRAPPERS = frozenset(
    f"google.protobuf.{name}Value"
    for name in ("Double", "Float", "Int64", "UInt64", "Int32", "UInt32", "Bool", "String", "Bytes")
)


def same(value: object) -> Json:
    """Return the value itself: text, booleans and 32-bit integers."""
    return value  # type: ignore[return-value]


def write_double(value: object) -> Json:
    """Return the number, or the names JSON has no number for."""
    assert isinstance(value, float)
    if isfinite(value):
        return value
    return "NaN" if isnan(value) else ("Infinity" if value > 0 else "-Infinity")


def write_float(value: object) -> Json:
    """Return the shortest decimal that is the same 32-bit float."""
    assert isinstance(value, float)
    if not isfinite(value):
        return write_double(value)
    for digits in (6, 7, 8):
        short = float(f"{value:.{digits}g}")
        if abs(short) < 3.4028236e38 and struct.unpack("<f", struct.pack("<f", short))[0] == value:
            return short
    return value


def write_bytes(value: object) -> Json:
    """Return standard base64."""
    return b64encode(value).decode("ascii")  # type: ignore[arg-type]


def fraction(nanos: int) -> str:
    """Return ".5…" with three, six or nine digits, or nothing for a whole second."""
    if nanos == 0:
        return ""
    if nanos % 1_000_000 == 0:
        return f".{nanos // 1_000_000:03d}"
    return f".{nanos // 1000:06d}" if nanos % 1000 == 0 else f".{nanos:09d}"


def write_timestamp(value: object) -> Json:
    """Return RFC 3339 in UTC."""
    nanos: int = value.nanos  # type: ignore[attr-defined]
    moment = NAIVE_EPOCH + timedelta(0, value.seconds, nanos // 1000)  # type: ignore[attr-defined]
    if not nanos % 1_000_000:
        return moment.isoformat("T", "milliseconds" if nanos else "seconds") + "Z"
    return moment.isoformat("T", "seconds") + fraction(nanos) + "Z"


def write_duration(value: object) -> Json:
    """Return seconds with an s, such as 1.500s."""
    seconds: int = value.seconds  # type: ignore[attr-defined]
    nanos: int = value.nanos  # type: ignore[attr-defined]
    sign = "-" if seconds < 0 or nanos < 0 else ""
    return f"{sign}{abs(seconds)}{fraction(abs(nanos))}s"


def write_mask(value: object) -> Json:
    """Return the paths with commas between, in the protos' names."""
    return ",".join(value.paths)  # type: ignore[attr-defined]


def write_value(value: object) -> Json:
    """Return the JSON a google.protobuf.Value holds."""
    kind = value.WhichOneof("kind")  # type: ignore[attr-defined]
    if kind is None or kind == "null_value":
        return None
    held = getattr(value, kind)
    if kind == "struct_value":
        return write_struct(held)
    if kind == "list_value":
        return write_list(held)
    return write_double(held) if kind == "number_value" else held


def write_struct(value: object) -> Json:
    """Return the JSON object a google.protobuf.Struct holds."""
    return {name: write_value(held) for name, held in value.fields.items()}  # type: ignore[attr-defined]


def write_list(value: object) -> Json:
    """Return the JSON array a google.protobuf.ListValue holds."""
    return [write_value(held) for held in value.values]  # type: ignore[attr-defined]


WELL_KNOWN: dict[str, Write] = {
    "google.protobuf.Timestamp": write_timestamp,
    "google.protobuf.Duration": write_duration,
    "google.protobuf.FieldMask": write_mask,
    "google.protobuf.Value": write_value,
    "google.protobuf.Struct": write_struct,
    "google.protobuf.ListValue": write_list,
}


def write_key(key: object) -> str:
    """Return a map key as a JSON member name."""
    return str(key).lower() if isinstance(key, bool) else str(key)


class Names(dict[object, Json]):
    """The names of an enum's numbers; a number without one stands for itself."""

    def __missing__(self, number: object) -> Json:
        """Return the number."""
        return number  # type: ignore[return-value]


class Writers:
    """The compiled writers, one per message type, made on first use."""

    def __init__(self) -> None:
        self._writers: dict[str, Write] = {**WELL_KNOWN, "google.protobuf.Any": self._write_any}

    def of(self, descriptor: Descriptor) -> Write:
        """Return the writer of a message type."""
        name = descriptor.full_name
        known = self._writers.get(name)
        if known is None:
            known = self._compile(descriptor)
            self._writers[name] = known
        return known

    def _compile(self, descriptor: Descriptor) -> Write:
        if descriptor.full_name in WRAPPERS:
            inner = self._scalar(descriptor.fields_by_name["value"])
            return lambda message: inner(message.value)  # type: ignore[attr-defined]
        plan: dict[FieldDescriptor, tuple[str, Write | None]] = {}

        def write(message: object) -> Json:
            out: dict[str, Json] = {}
            for field, value in message.ListFields():  # type: ignore[attr-defined]
                name, convert = plan[field]
                out[name] = value if convert is None else convert(value)
            return out

        self._writers[descriptor.full_name] = write  # before its fields: a message may hold itself
        for field in descriptor.fields:
            convert = self._field(field)
            plan[field] = (field.name, None if convert is same else convert)
        return write

    def _field(self, field: FieldDescriptor) -> Write:
        message = field.message_type
        if message is not None and message.GetOptions().map_entry:
            held = self._scalar(message.fields_by_name["value"])
            return lambda entries: {write_key(key): held(entries[key]) for key in entries}  # type: ignore
        one = self._scalar(field)
        if not field.is_repeated:
            return one
        if one is same:
            return list  # type: ignore[return-value]
        return lambda values: [one(value) for value in values]  # type: ignore[attr-defined]

    def _scalar(self, field: FieldDescriptor) -> Write:
        if field.message_type is not None:
            return self.of(field.message_type)
        if field.enum_type is not None:
            if field.enum_type.full_name == "google.protobuf.NullValue":
                return lambda value: None
            return Names((value.number, value.name) for value in field.enum_type.values).__getitem__
        if field.type in LONG_TYPES:
            return str
        special: dict[int, Write] = {
            FieldDescriptor.TYPE_DOUBLE: write_double,
            FieldDescriptor.TYPE_FLOAT: write_float,
            FieldDescriptor.TYPE_BYTES: write_bytes,
        }
        return special.get(field.type, same)

    def _write_any(self, value: object) -> Json:
        """Return an Any with its @type first; a type this process does not know keeps only its name."""
        url: str = value.type_url  # type: ignore[attr-defined]
        if not url:
            return {}
        try:
            descriptor = symbol_database.Default().pool.FindMessageTypeByName(url.rpartition("/")[2])
            inner: Message = GetMessageClass(descriptor).FromString(value.value)  # type: ignore[attr-defined]
        except (KeyError, DecodeError):
            return {"@type": url}
        written = self.of(descriptor)(inner)
        if descriptor.full_name in self._wrapped or not isinstance(written, dict):
            return {"@type": url, "value": written}
        return {"@type": url, **written}

    _wrapped = frozenset(("google.protobuf.Struct", "google.protobuf.Value", "google.protobuf.Any"))
