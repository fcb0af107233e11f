"""Read JSON values into protobuf scalars: what each accepts, and what it says when it refuses."""

from __future__ import annotations

import binascii
import re
import struct
from base64 import b64decode
from collections.abc import Callable
from math import inf, isfinite
from typing import TypeAlias

from google.protobuf.descriptor import EnumDescriptor, FieldDescriptor

from gateway.transcoding.writing import Json

Convert: TypeAlias = Callable[[Json], object]

INT_RANGES = {
    FieldDescriptor.CPPTYPE_INT32: (-(2**31), 2**31 - 1),
    FieldDescriptor.CPPTYPE_UINT32: (0, 2**32 - 1),
    FieldDescriptor.CPPTYPE_INT64: (-(2**63), 2**63 - 1),
    FieldDescriptor.CPPTYPE_UINT64: (0, 2**64 - 1),
}
INTEGER = re.compile(r"-?(0|[1-9][0-9]{0,19})")
NUMBER = re.compile(r"-?[0-9]{1,400}(\.[0-9]{1,400})?([eE][+-]?[0-9]{1,4})?")
SHOWN = 64  # characters of an unknown name repeated in an error


class BadField(ValueError):
    """A value cannot fill its field; `pointer` is its JSON pointer from the root of the body."""

    def __init__(self, detail: str, pointer: str = "") -> None:
        super().__init__(detail)
        self.detail = detail
        self.pointer = pointer

    def below(self, key: str | int) -> BadField:
        """Return the same refusal, seen from one level up."""
        shown = str(key)[:SHOWN].encode("utf-8", "replace").decode()  # a name may be no Unicode
        token = shown.replace("~", "~0").replace("/", "~1")
        return BadField(self.detail, f"/{token}{self.pointer}")


def read_bool(value: Json) -> bool:
    """Accept true and false."""
    if isinstance(value, bool):
        return value
    raise BadField("must be true or false")


def integer_reader(low: int, high: int) -> Convert:
    """Return a reader of integers in [low, high], as numbers or decimal strings."""

    def read(value: Json) -> int:
        if isinstance(value, str) and INTEGER.fullmatch(value):
            value = int(value)
        if isinstance(value, float) and value.is_integer():
            value = int(value)
        if isinstance(value, bool) or not isinstance(value, int):
            raise BadField("must be an integer")
        if not low <= value <= high:
            raise BadField(f"must be between {low} and {high}")
        return value

    return read


def read_double(value: Json) -> float:
    """Accept numbers, decimal strings, "NaN", "Infinity" and "-Infinity"."""
    if isinstance(value, str) and (value in ("NaN", "Infinity", "-Infinity") or NUMBER.fullmatch(value)):
        number = float(value)
        if isfinite(number) or value[-1:].isalpha():
            return number
    elif isinstance(value, int | float) and not isinstance(value, bool):
        try:
            number = float(value)
        except OverflowError:
            number = inf
        if isfinite(number):
            return number
    raise BadField("must be a number in the range of a double")


def read_float(value: Json) -> float:
    """Accept what read_double does, in the range of 32 bits."""
    number = read_double(value)
    if isfinite(number):
        try:
            struct.pack("<f", number)
        except OverflowError:
            raise BadField("must be a number in the range of a 32-bit float") from None
    return number


def read_text(value: Json) -> str:
    """Accept text without lone surrogates."""
    if not isinstance(value, str):
        raise BadField("must be a string")
    try:
        value.encode("utf-8")
    except UnicodeEncodeError:
        raise BadField("must be valid Unicode") from None
    return value


def read_bytes(value: Json) -> bytes:
    """Accept base64, standard or URL-safe, with or without padding."""
    if isinstance(value, str) and value.isascii():
        text = value.rstrip("=").replace("-", "+").replace("_", "/")
        try:
            return b64decode(text + "=" * (-len(text) % 4), validate=True)
        except binascii.Error:
            pass
    raise BadField("must be base64 text")


def enum_reader(enum: EnumDescriptor) -> Convert:
    """Return a reader of an enum's names, and of its numbers."""
    numbers = {value.name: value.number for value in enum.values}
    known = frozenset(numbers.values())
    names = ", ".join(name for name in numbers if not name.endswith("_UNSPECIFIED"))

    def read(value: Json) -> int:
        if isinstance(value, str) and value in numbers:
            return numbers[value]
        if isinstance(value, int) and not isinstance(value, bool) and value in known:
            return value
        raise BadField(f"must be one of {names}")

    return read


def scalar_reader(field: FieldDescriptor) -> Convert:
    """Return the reader of a field's scalar type."""
    if field.enum_type is not None:
        return enum_reader(field.enum_type)
    if field.type == FieldDescriptor.TYPE_BYTES:
        return read_bytes
    if field.cpp_type in INT_RANGES:
        return integer_reader(*INT_RANGES[field.cpp_type])
    return {
        FieldDescriptor.CPPTYPE_BOOL: read_bool,
        FieldDescriptor.CPPTYPE_STRING: read_text,
        FieldDescriptor.CPPTYPE_DOUBLE: read_double,
        FieldDescriptor.CPPTYPE_FLOAT: read_float,
    }[field.cpp_type]
