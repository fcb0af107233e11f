"""The mapping of a source between its message, its stored form and the domain; and what may not be mapped."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import lru_cache

import orjson
from google.protobuf import json_format
from kehu.profiles.v1 import mapping_pb2, resources_pb2

from services.chassis.errors import FieldViolation
from services.profiles.domain import mapping as steps
from services.profiles.domain.sources import SOURCE_RECORD_ID, ColumnMapping
from services.profiles.errors import MappingInvalid

OTHERWISE = {
    mapping_pb2.ValueMapStep.OTHERWISE_UNSPECIFIED: steps.KEEP,
    mapping_pb2.ValueMapStep.OTHERWISE_CLEAR: steps.CLEAR,
    mapping_pb2.ValueMapStep.OTHERWISE_REFUSE: steps.REFUSE,
}


def stored_mapping(items: Sequence[resources_pb2.ColumnMapping]) -> list[list[str]]:
    """Return the stored form: column, field and, where there are any, the steps as JSON."""
    return [[item.column, item.field, *([_json(item.transforms)] if item.transforms else [])] for item in items]


def _json(transforms: Sequence[mapping_pb2.Transform]) -> str:
    plain = [json_format.MessageToDict(item, preserving_proto_field_name=True) for item in transforms]
    return orjson.dumps(plain).decode()


def mapping_messages(mapping: Sequence[Sequence[str]]) -> list[resources_pb2.ColumnMapping]:
    """Return the messages of a stored mapping."""
    return [
        resources_pb2.ColumnMapping(column=item[0], field=item[1], transforms=_messages(item[2]) if item[2:] else ())
        for item in mapping
    ]


def _messages(stored: str) -> list[mapping_pb2.Transform]:
    return [json_format.ParseDict(item, mapping_pb2.Transform()) for item in orjson.loads(stored)]


def domain_mapping(mapping: Sequence[Sequence[str]]) -> tuple[ColumnMapping, ...]:
    """Return a stored mapping as the domain knows it."""
    return tuple(ColumnMapping(item[0], item[1], _steps(item[2]) if item[2:] else ()) for item in mapping)


@lru_cache(maxsize=1000)
def _steps(stored: str) -> tuple[steps.Transform, ...]:
    return tuple(map(_step, _messages(stored)))


def _step(message: mapping_pb2.Transform) -> steps.Transform:
    kind = message.WhichOneof("step")
    if kind == "trim":
        return steps.Trim(message.trim.characters)
    if kind == "split":
        return steps.Split(message.split.delimiter, message.split.take)
    if kind == "concatenate":
        return steps.Concatenate(tuple(message.concatenate.columns), message.concatenate.separator)
    if kind == "constant":
        return steps.Constant(message.constant)
    if kind == "replace":
        return steps.Replace(message.replace.find, getattr(message.replace, "with"))
    if kind == "value_map":
        return steps.ValueMap(dict(message.value_map.values), OTHERWISE[message.value_map.otherwise])
    return steps.DateOrder(message.date_order)


def check_mapping(mapping: Sequence[Sequence[str]], may_feed: Callable[[str], bool], name: str = "mapping") -> None:
    """Refuse a mapping that maps a column twice without steps, feeds an unknown field, or no record id.

    Raises:
        MappingInvalid: with the position of what is wrong.
    """
    plain: set[str] = set()
    for position, (column, field, *transforms) in enumerate(mapping):
        if column in plain or (not transforms and any(column == item[0] for item in mapping[:position])):
            raise _invalid(f"{name}[{position}].column", column, field, "the column is mapped already; give each steps")
        if not may_feed(field):
            raise _invalid(f"{name}[{position}].field", column, field, "the dictionary has no such field to fill")
        plain.update(() if transforms else (column,))
    if mapping and SOURCE_RECORD_ID not in {item[1] for item in mapping}:
        raise MappingInvalid("map a column to source_record_id", metadata={"column": "", "field": SOURCE_RECORD_ID})


def _invalid(place: str, column: str, field: str, description: str) -> MappingInvalid:
    violation = FieldViolation(f"source.{place}", description)
    return MappingInvalid(
        "the mapping cannot be used", metadata={"column": column, "field": field}, violations=[violation]
    )
