"""Read JSON values into protobuf messages, by readers compiled once per message type.

Stricter than the proto3 JSON mapping: only the protos' snake_case names, no unknown field, no unknown enum
value, no member twice. A refusal names the field by its JSON pointer (RFC 6901).
"""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import TypeAlias

from google.protobuf.descriptor import Descriptor, FieldDescriptor
from google.protobuf.message import Message
from google.protobuf.message_factory import GetMessageClass
from google.protobuf.symbol_database import Default

from gateway.transcoding.scalars import BadField, read_bool, read_double, read_text, scalar_reader
from gateway.transcoding.writing import WRAPPERS, Json

Fill: TypeAlias = Callable[[Message, Json], None]

MASK_PATH = r"(\*|[A-Za-z][A-Za-z0-9_]*(\.[A-Za-z][A-Za-z0-9_]*)*)"
MASK = re.compile(MASK_PATH)


def time_filler(example: str) -> Fill:
    """Return the reader of Timestamp or Duration, whose own parser is used."""

    def fill(message: Message, value: Json) -> None:
        try:
            message.FromJsonString(read_text(value))
        except (ValueError, OverflowError):
            raise BadField(f"must look like {example}") from None
        message.SetInParent()

    return fill


def fill_mask(message: Message, value: Json) -> None:
    """Accept paths with commas between, snake_case or camelCase."""
    text = read_text(value)
    paths = text.split(",") if text else []
    for path in paths:
        if not MASK.fullmatch(path):
            raise BadField("must be field names with commas between, such as display_name,address.city")
    snake = (re.sub(r"[A-Z]", lambda found: f"_{found[0].lower()}", path) for path in paths)
    message.paths.extend(snake)
    message.SetInParent()


def fill_value(message: Message, value: Json) -> None:
    """Accept any JSON value into a google.protobuf.Value."""
    if value is None:
        message.null_value = 0
    elif isinstance(value, bool):
        message.bool_value = value
    elif isinstance(value, str):
        message.string_value = read_text(value)
    elif isinstance(value, int | float):
        message.number_value = read_double(value)
    elif isinstance(value, list):
        fill_list(message.list_value, value)
    else:
        fill_struct(message.struct_value, value)


def fill_list(message: Message, value: Json) -> None:
    """Accept a JSON array into a google.protobuf.ListValue."""
    if not isinstance(value, list):
        raise BadField("must be an array")
    message.SetInParent()
    for index, item in enumerate(value):
        try:
            fill_value(message.values.add(), item)
        except BadField as bad:
            raise bad.below(index) from None


def fill_struct(message: Message, value: Json) -> None:
    """Accept a JSON object into a google.protobuf.Struct."""
    if not isinstance(value, dict):
        raise BadField("must be an object")
    message.SetInParent()
    for name, item in value.items():
        try:
            fill_value(message.fields[read_text(name)], item)
        except BadField as bad:
            raise bad.below(name) from None


WELL_KNOWN: dict[str, Fill] = {
    "google.protobuf.Timestamp": time_filler("2026-01-31T08:00:00Z"),
    "google.protobuf.Duration": time_filler("1.5s"),
    "google.protobuf.FieldMask": fill_mask,
    "google.protobuf.Value": fill_value,
    "google.protobuf.Struct": fill_struct,
    "google.protobuf.ListValue": fill_list,
}


class Readers:
    """The compiled readers, one per message type, made on first use."""

    def __init__(self) -> None:
        self._readers: dict[str, Fill] = {**WELL_KNOWN, "google.protobuf.Any": self._fill_any}

    def of(self, descriptor: Descriptor) -> Fill:
        """Return the reader of a message type."""
        name = descriptor.full_name
        known = self._readers.get(name)
        if known is None:
            known = self._wrapper(descriptor) if name in WRAPPERS else self._compile(descriptor)
            self._readers[name] = known
        return known

    def _wrapper(self, descriptor: Descriptor) -> Fill:
        convert = scalar_reader(descriptor.fields_by_name["value"])

        def fill(message: Message, value: Json) -> None:
            message.value = convert(value)
            message.SetInParent()

        return fill

    def _compile(self, descriptor: Descriptor) -> Fill:
        plan: dict[str, Fill] = {}

        def fill(message: Message, value: Json) -> None:
            if not isinstance(value, dict):
                raise BadField("must be an object")
            message.SetInParent()
            for name, item in value.items():
                try:
                    one = plan.get(name)
                    if one is None:
                        raise BadField("is not a field of this request")
                    one(message, item)
                except BadField as bad:
                    raise bad.below(name) from None

        self._readers[descriptor.full_name] = fill  # before its fields: a message may hold itself
        for field in descriptor.fields:
            plan[field.name] = self._once(field, self._field(field))
        return fill

    def _once(self, field: FieldDescriptor, fill: Fill) -> Fill:
        """Guard a member of a oneof, and let null mean absent as the JSON mapping says."""
        oneof = field.containing_oneof.name if field.containing_oneof is not None else ""
        kind = field.message_type.full_name if field.message_type is not None else ""
        takes_null = kind == "google.protobuf.Value"

        def guarded(message: Message, value: Json) -> None:
            if value is None and (not takes_null or field.is_repeated):
                return
            if oneof and message.WhichOneof(oneof) is not None:
                raise BadField(f"may not be given together with {message.WhichOneof(oneof)}")
            fill(message, value)

        return guarded

    def _field(self, field: FieldDescriptor) -> Fill:
        message = field.message_type
        if message is not None and message.GetOptions().map_entry:
            return self._map(field, message)
        if field.is_repeated:
            return self._repeated(field)
        name = field.name
        if message is not None:
            inner = self.of(message)
            return lambda parent, value: inner(getattr(parent, name), value)
        convert = scalar_reader(field)
        return lambda parent, value: setattr(parent, name, convert(value))

    def _repeated(self, field: FieldDescriptor) -> Fill:
        name = field.name
        inner = self.of(field.message_type) if field.message_type is not None else None
        convert = scalar_reader(field) if inner is None else None

        def fill(message: Message, value: Json) -> None:
            if not isinstance(value, list):
                raise BadField("must be an array")
            items = getattr(message, name)
            for index, item in enumerate(value):
                try:
                    if inner is not None:
                        inner(items.add(), item)
                    else:
                        items.append(convert(item))  # type: ignore[misc]
                except BadField as bad:
                    raise bad.below(index) from None

        return fill

    def _map(self, field: FieldDescriptor, entry: Descriptor) -> Fill:
        name, held = field.name, entry.fields_by_name["value"]
        read_key = key_reader(entry.fields_by_name["key"])
        inner = self.of(held.message_type) if held.message_type is not None else None
        convert = scalar_reader(held) if inner is None else None

        def fill(message: Message, value: Json) -> None:
            if not isinstance(value, dict):
                raise BadField("must be an object")
            entries = getattr(message, name)
            for text, item in value.items():
                try:
                    key = read_key(text)
                    if inner is not None:
                        inner(entries[key], item)
                    else:
                        entries[key] = convert(item)  # type: ignore[misc]
                except BadField as bad:
                    raise bad.below(text) from None

        return fill

    def _fill_any(self, message: Message, value: Json) -> None:
        if not isinstance(value, dict) or not isinstance(value.get("@type"), str):
            raise BadField("must be an object with @type")
        url = str(value["@type"])
        try:
            descriptor = Default().pool.FindMessageTypeByName(url.rpartition("/")[2])
        except KeyError:
            raise BadField("is not a known message type", "/@type") from None
        inner: Message = GetMessageClass(descriptor)()
        members = {name: item for name, item in value.items() if name != "@type"}
        if descriptor.full_name in WELL_KNOWN or descriptor.full_name in WRAPPERS:
            self.of(descriptor)(inner, members.get("value"))
        else:
            self.of(descriptor)(inner, members)
        message.Pack(inner)
        message.type_url = url


def key_reader(key: FieldDescriptor) -> Callable[[str], object]:
    """Return the reader of a map's member names, which JSON always writes as text."""
    if key.cpp_type == FieldDescriptor.CPPTYPE_BOOL:
        return lambda text: read_bool({"true": True, "false": False}.get(text))
    return scalar_reader(key)
