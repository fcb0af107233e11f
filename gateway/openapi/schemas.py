"""JSON Schemas of messages and enums, with what protovalidate and field_behavior say of their fields."""

from __future__ import annotations

import re
from collections.abc import Iterator
from itertools import combinations
from typing import Any, TypeAlias

from buf.validate import validate_pb2
from google.api import field_behavior_pb2
from google.protobuf.descriptor import Descriptor, EnumDescriptor, FieldDescriptor, OneofDescriptor
from google.protobuf.message import Message

from gateway.transcoding.reading import MASK_PATH
from gateway.transcoding.scalars import INT_RANGES
from gateway.transcoding.writing import LONG_TYPES, WRAPPERS

Schema: TypeAlias = dict[str, object]

WELL_KNOWN: dict[str, Schema] = {
    "google.protobuf.Timestamp": {"type": "string", "format": "date-time"},
    "google.protobuf.Duration": {"type": "string", "pattern": r"^-?[0-9]+(\.[0-9]{1,9})?s$"},
    "google.protobuf.FieldMask": {
        "type": "string",
        "pattern": f"^({MASK_PATH}(,{MASK_PATH})*)?$",
        "description": "Field names with commas between.",
    },
    "google.protobuf.Struct": {"type": "object"},
    "google.protobuf.Value": {},
    "google.protobuf.ListValue": {"type": "array", "items": {}},
    "google.protobuf.Any": {
        "type": "object",
        "properties": {"@type": {"type": "string"}},
        "required": ["@type"],
    },
    "google.protobuf.NullValue": {"type": "null"},
}
# one segment of a path: no delimiter, no space, not a dot alone; what other segments may hold is nobody's id
SEGMENT = "^[A-Za-z0-9_@~-][A-Za-z0-9._@~-]{0,199}$"
TEXT_RULES = {"min_len": "minLength", "max_len": "maxLength", "pattern": "pattern", "const": "const"}
MAP_RULES = {"min_pairs": "minProperties", "max_pairs": "maxProperties"}
RULE_OF_NUMBER = {
    FieldDescriptor.CPPTYPE_INT32: "int32",
    FieldDescriptor.CPPTYPE_UINT32: "uint32",
    FieldDescriptor.CPPTYPE_INT64: "int64",
    FieldDescriptor.CPPTYPE_UINT64: "uint64",
    FieldDescriptor.CPPTYPE_FLOAT: "float",
    FieldDescriptor.CPPTYPE_DOUBLE: "double",
}
LIST_RULES = {"min_items": "minItems", "max_items": "maxItems", "unique": "uniqueItems"}
LONG_DIGITS = 18  # of any 64-bit number
NUMBER_RULES = {"gte": "minimum", "lte": "maximum", "gt": "exclusiveMinimum", "lt": "exclusiveMaximum"}


def component_name(full_name: str) -> str:
    """Return the name a message or enum has among the components."""
    return full_name.removeprefix("kehu.")


def chosen(rules: Message, names: dict[str, str]) -> Schema:
    """Return the rules that are set, under their JSON Schema names."""
    return {names[field.name]: value for field, value in rules.ListFields() if field.name in names}


def behaviors(field: FieldDescriptor) -> frozenset[int]:
    """Return the google.api.field_behavior values of a field."""
    return frozenset(field.GetOptions().Extensions[field_behavior_pb2.field_behavior])


def rules_of(field: FieldDescriptor) -> validate_pb2.FieldRules:
    """Return the protovalidate rules of a field."""
    return field.GetOptions().Extensions[validate_pb2.field]


def is_required(field: FieldDescriptor) -> bool:
    """Whether a request without the field is refused: by name, or since what stands for nothing breaks its rule."""
    return field_behavior_pb2.REQUIRED in behaviors(field) or bool(rules_of(field).required) or _needs_value(field)


def _needs_value(field: FieldDescriptor) -> bool:
    rules = rules_of(field)
    if field.has_presence or rules.ignore != validate_pb2.IGNORE_UNSPECIFIED:
        return False
    if field.is_repeated:
        return bool(rules.repeated.min_items or rules.map.min_pairs)
    if field.enum_type is not None:
        return 0 in rules.enum.not_in
    if field.cpp_type == FieldDescriptor.CPPTYPE_STRING:
        return not _takes_empty(rules.string)
    bounds = _number_rules(field)
    if bounds is None:
        return False
    return bounds.gte > 0 or (bounds.HasField("gt") and bounds.gt >= 0) or 0 in bounds.not_in


def _takes_empty(rules: validate_pb2.StringRules) -> bool:
    listed = list(getattr(rules, "in"))
    matches = not rules.pattern or re.search(rules.pattern, "") is not None
    return not rules.min_len and matches and not rules.const and (not listed or "" in listed)


def _number_rules(field: FieldDescriptor) -> Message | None:
    """Return the rules of a number's own type; None for what is no number."""
    name = RULE_OF_NUMBER.get(field.cpp_type)
    rules = rules_of(field).repeated.items if field.is_repeated else rules_of(field)
    return getattr(rules, name) if name else None


def path_schema(field: FieldDescriptor | None, index: int, count: int) -> Schema:
    """Return the schema of segment `index` of the `count` that make up a field's value."""
    rules = rules_of(field).string if field is not None else validate_pb2.StringRules()
    pattern = rules.pattern or re.escape(rules.const)
    pieces = pattern.removeprefix("^").removesuffix("$").split("/")
    own = pieces[index] if pattern and len(pieces) == count else ""
    own = own.removesuffix("?") if own.endswith(")?") else own  # what may be left out elsewhere stands in a path
    return {"type": "string", "pattern": f"^{own}$" if _is_whole(own) else SEGMENT}


def _is_whole(pattern: str) -> bool:
    """Tell whether a piece of a pattern is a pattern itself that demands something."""
    try:
        return bool(pattern) and re.fullmatch(pattern, "") is None
    except re.error:
        return False


def _whole_seconds(rules: validate_pb2.DurationRules) -> Schema:
    """Return the pattern of durations from one second to the longest allowed; none without such a bound."""
    longest = str(rules.lte.seconds)
    if not rules.HasField("gt") or not rules.HasField("lte"):
        return {}
    shorter = [f"[1-9][0-9]{{0,{len(longest) - 2}}}"] if len(longest) > 1 else []
    for place, digit in enumerate(longest):
        first, last = (1 if place == 0 else 0), int(digit) - 1
        if first <= last:
            shorter.append(f"{longest[:place]}[{first}-{last}][0-9]{{{len(longest) - place - 1}}}")
    return {"pattern": f"^({'|'.join([*shorter, longest])})s$"}


def _allowed_values(field: FieldDescriptor) -> Schema:
    """Return the values a field takes of its enum, when its rules leave some out."""
    rules = rules_of(field).repeated.items.enum if field.is_repeated else rules_of(field).enum
    listed, refused = set(getattr(rules, "in")), set(rules.not_in)
    values = field.enum_type.values
    names = [value.name for value in values if value.number not in refused and (not listed or value.number in listed)]
    return {"enum": names} if len(names) < len(values) else {}


def _choice(oneof: OneofDescriptor, without: frozenset[str], is_change: bool) -> Iterator[Schema]:
    """Yield that no two members of a oneof come together, and that one must where a rule says so."""
    names = [field.name for field in oneof.fields if field.name not in without]
    for pair in combinations(names, 2):
        yield {"not": {"required": list(pair)}}
    is_whole = len(names) == len(oneof.fields)
    if oneof.GetOptions().Extensions[validate_pb2.oneof].required and is_whole and not is_change:
        yield {"anyOf": [{"required": [name]} for name in names]}


class Schemas:
    """Collects the component schemas that the document refers to."""

    def __init__(self, comments: dict[str, str]) -> None:
        self.comments = comments
        self.components: dict[str, Schema] = {}

    def message(self, descriptor: Descriptor) -> Schema:
        """Return a reference to a message's schema, or the schema of a well-known type."""
        name = descriptor.full_name
        if name in WELL_KNOWN:
            return dict(WELL_KNOWN[name])
        if name in WRAPPERS:
            return self.scalar(descriptor.fields_by_name["value"])
        key = component_name(name)
        if key not in self.components:
            self.components[key] = {}  # before its fields: a message may hold itself
            self.components[key] = self.object_of(descriptor)
        return {"$ref": f"#/components/schemas/{key}"}

    def object_of(
        self, descriptor: Descriptor, without: frozenset[str] = frozenset(), *, is_change: bool = False
    ) -> Schema:
        """Return the object schema of a message, leaving out fields that are given elsewhere.

        A change of a resource names only the fields that it changes (AIP-134), so it must have none.
        """
        fields = [field for field in descriptor.fields if field.name not in without]
        schema: Schema = {
            "type": "object",
            "properties": {field.name: self.field(field) for field in fields},
            "additionalProperties": False,
        }
        required = [] if is_change else [field.name for field in fields if is_required(field)]
        if required:
            schema["required"] = required
        choices = [rule for oneof in descriptor.oneofs for rule in _choice(oneof, without, is_change)]
        if choices:
            schema["allOf"] = choices
        return self._described(schema, descriptor.full_name)

    def field(self, field: FieldDescriptor) -> Schema:
        """Return the schema of a field, repeated or not."""
        schema = self._shape(field)
        if field_behavior_pb2.OUTPUT_ONLY in behaviors(field):
            schema["readOnly"] = True
        return self._described(schema, field.full_name)

    def _shape(self, field: FieldDescriptor) -> Schema:
        entry = field.message_type
        if entry is not None and entry.GetOptions().map_entry:
            return self._map(field, entry.fields_by_name["value"])
        if field.is_repeated:
            limits = chosen(rules_of(field).repeated, LIST_RULES)
            return {"type": "array", "items": self.scalar(field), **limits}
        return self.scalar(field)

    def _map(self, field: FieldDescriptor, value: FieldDescriptor) -> Schema:
        rules = rules_of(field).map
        keys, texts = text_rules(rules.keys.string), text_rules(rules.values.string)
        named = {"propertyNames": keys} if keys else {}
        return {
            "type": "object",
            "additionalProperties": {**self.scalar(value), **texts},
            **named,
            **chosen(rules, MAP_RULES),
        }

    def scalar(self, field: FieldDescriptor) -> Schema:
        """Return the schema of one value of a field."""
        if field.message_type is not None:
            return {**self.message(field.message_type), **_whole_seconds(rules_of(field).duration)}
        if field.enum_type is not None:
            return {**self.enum(field.enum_type), **_allowed_values(field)}
        return number_or_text(field)

    def resolved(self, schema: Schema) -> Schema:
        """Return what a reference refers to, and any other schema as it is."""
        key = str(schema.get("$ref", "")).rpartition("/")[2]
        return self.components[key] if key else schema

    def enum(self, enum: EnumDescriptor) -> Schema:
        """Return a reference to an enum's schema, with a line per value."""
        if enum.full_name in WELL_KNOWN:
            return dict(WELL_KNOWN[enum.full_name])
        key = component_name(enum.full_name)
        if key not in self.components:
            told = [(value.name, self.comments.get(f"{enum.full_name}.{value.name}", "")) for value in enum.values]
            lines = "\n".join(f"- `{name}`: {text}" for name, text in told if text)
            about = self.comments.get(enum.full_name, "")
            self.components[key] = {
                "type": "string",
                "enum": [name for name, _ in told],
                "description": f"{about}\n\n{lines}".strip(),
            }
        return {"$ref": f"#/components/schemas/{key}"}

    def _described(self, schema: Schema, full_name: str) -> Schema:
        comment = self.comments.get(full_name)
        return {**schema, "description": comment} if comment else schema


def text_rules(rules: validate_pb2.StringRules) -> Schema:
    """Return what a text's rules are in JSON Schema."""
    listed = list(getattr(rules, "in"))
    form = {"format": "uri"} if rules.uri else {}
    return {**chosen(rules, TEXT_RULES), **form, **({"enum": listed} if listed else {})}


def number_or_text(field: FieldDescriptor) -> Schema:
    """Return the schema of a scalar that is no message and no enum."""
    rules = rules_of(field)
    if field.type == FieldDescriptor.TYPE_BYTES:
        return {"type": "string", "contentEncoding": "base64"}
    if field.cpp_type == FieldDescriptor.CPPTYPE_STRING:
        texts = rules.repeated.items.string if field.is_repeated else rules.string
        return {"type": "string", **text_rules(texts)}
    if field.cpp_type == FieldDescriptor.CPPTYPE_BOOL:
        return {"type": "boolean", **chosen(rules.bool, {"const": "const"})}
    if field.type in LONG_TYPES:
        return {"type": "string", "format": "int64", "pattern": _long_pattern(_number_rules(field))}
    if field.cpp_type in INT_RANGES:
        return {"type": "integer", "format": "int32", **_bounds(field)}
    return {"type": "number", **_bounds(field)}


def _long_pattern(rules: Any) -> str:
    """Return how a number is written that has more digits than a double keeps: as many as its bound surely takes."""
    sign = "" if rules.HasField("gte") and rules.gte >= 0 else "-?"
    digits = len(str(rules.lte)) - 1 if rules.HasField("lte") else LONG_DIGITS
    return f"^(0|{sign}[1-9][0-9]{{0,{digits - 1}}})$"


def _bounds(field: FieldDescriptor) -> Schema:
    rules: Any = _number_rules(field)
    if rules is None:
        return {}
    return {**chosen(rules, NUMBER_RULES), **({"not": {"enum": list(rules.not_in)}} if rules.not_in else {})}
