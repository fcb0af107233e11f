"""Requests nobody should send: valid messages full of bad text, the same with their bytes changed, and noise."""

from __future__ import annotations

import random
from collections.abc import Iterator, MutableMapping, Sequence
from dataclasses import dataclass
from functools import cache

import rstr
from buf.validate import validate_pb2
from google.protobuf.descriptor import Descriptor, FieldDescriptor
from google.protobuf.message import Message
from google.protobuf.message_factory import GetMessageClass

from tests.fuzz.payloads import PAYLOADS

DEPTH = 4  # of messages in messages
MUTATIONS = 4  # of bytes, at most
TEXTS_OF_A_PATTERN = 200  # made once and drawn from: making one costs more than a whole call
PLAIN = (
    "user:alice", "app-marketing", "user-alice", "marketing", "2026-11-21", "13800138000", "city", "p1", "shop",
    "current", "country = 'CN'", "age > 30 AND city = '上海'", "state", "name", "Asia/Shanghai", "zh", "csv", "0", "1",
)  # fmt: skip
INTEGERS = (0, 1, -1, 2, 50, 1000, 2**31 - 1, -(2**31), 2**53, 2**63 - 1, -(2**63), 2**64 - 1)
MODEST = (0, 1, 2, 10, 100)
DOUBLES = (0.0, -0.0, 1.5, -1.0, 1e308, -1e308, float("inf"), float("-inf"), float("nan"), 5e-324)
BITS = {
    FieldDescriptor.CPPTYPE_INT32: (-(2**31), 2**31 - 1),
    FieldDescriptor.CPPTYPE_UINT32: (0, 2**32 - 1),
    FieldDescriptor.CPPTYPE_INT64: (-(2**63), 2**63 - 1),
    FieldDescriptor.CPPTYPE_UINT64: (0, 2**64 - 1),
}


def hostile(kind: Descriptor, chance: random.Random) -> bytes:
    """Return the bytes of one request: a filled message, the same damaged, or noise of up to 200 bytes."""
    sort = chance.random()
    if sort < 0.1:
        return chance.randbytes(chance.randrange(200))
    raw = filled(kind, chance).SerializeToString()
    return raw if sort < 0.6 else damaged(raw, chance)


def filled(kind: Descriptor, chance: random.Random) -> Message:
    """Return a message with some of its fields set; every second one tries to keep the rules of its proto."""
    return _Filler(chance, chance.random() < 0.5).message(kind, 0)


def text_fields(kind: Descriptor) -> list[tuple[FieldDescriptor, ...]]:
    """Return the way to each text of a request, those in lists, maps and messages in messages too."""
    return list(_text_fields(kind, ()))


def planted(kind: Descriptor, way: Sequence[FieldDescriptor], text: str, chance: random.Random) -> bytes:
    """Return a request that keeps its rules but for one field, which holds this text."""
    request = at = _Filler(chance, obeys=True).message(kind, 0)
    for field in way[:-1]:
        inner = getattr(at, field.name)
        if field.message_type.GetOptions().map_entry:
            _plant_in_map(inner, field.message_type.fields, way[-1], text)
            return request.SerializeToString()
        at = (inner[0] if len(inner) else inner.add()) if field.is_repeated else inner
    if way[-1].is_repeated:
        getattr(at, way[-1].name).append(text)
    else:
        setattr(at, way[-1].name, text)
    return request.SerializeToString()


def _text_fields(kind: Descriptor, before: tuple[FieldDescriptor, ...]) -> Iterator[tuple[FieldDescriptor, ...]]:
    for field in kind.fields:
        if field.type == FieldDescriptor.TYPE_STRING:
            yield (*before, field)
        elif field.message_type is not None and len(before) < DEPTH and field not in before:
            yield from _text_fields(field.message_type, (*before, field))


def _plant_in_map(target: MutableMapping, pair: Sequence[FieldDescriptor], field: FieldDescriptor, text: str) -> None:
    key, value = pair
    if field is key and value.message_type is None:
        target[text] = value.default_value
    elif field is key:
        target[text].SetInParent()
    elif field is value:
        target["city"] = text


@cache
def _texts_of(pattern: str) -> tuple[str, ...]:
    made = rstr.Rstr(random.Random(pattern))
    return tuple(made.xeger(pattern) for _ in range(TEXTS_OF_A_PATTERN))


def damaged(raw: bytes, chance: random.Random) -> bytes:
    """Return the bytes with a few of them changed, cut, doubled or added."""
    body = bytearray(raw)
    for _ in range(chance.randint(1, MUTATIONS)):
        at = chance.randrange(len(body) + 1)
        sort = chance.randrange(5)
        if sort == 0 and at < len(body):
            body[at] ^= 1 << chance.randrange(8)
        elif sort == 1:
            del body[at:]
        elif sort == 2:
            body[at:at] = body[at : at + 20]
        elif sort == 3:
            body[at:at] = chance.randbytes(chance.randint(1, 8))
        else:
            body[at:at] = b"\xff" * 10
    return bytes(body)


@dataclass(frozen=True, slots=True)
class _Filler:
    """Sets fields at random, by their rules where it obeys."""

    chance: random.Random
    obeys: bool

    def message(self, kind: Descriptor, depth: int) -> Message:
        """Return a filled message."""
        message = GetMessageClass(kind)()
        for field in kind.fields:
            if self.chance.random() < (0.9 if self.obeys else 0.75):
                self._set(message, field, depth)
        return message

    def _set(self, message: Message, field: FieldDescriptor, depth: int) -> None:
        inner, target = field.message_type, getattr(message, field.name)
        if inner is None and not field.is_repeated:
            setattr(message, field.name, self._scalar(field))
        elif inner is None:
            target.extend({self._scalar(field): None for _ in range(self._many())})
        elif depth >= DEPTH:
            return
        elif inner.GetOptions().map_entry:
            self._set_map(target, inner.fields, depth)
        elif field.is_repeated:
            target.extend(self.message(inner, depth + 1) for _ in range(self._many()))
        else:
            target.CopyFrom(self.message(inner, depth + 1))

    def _set_map(self, target: MutableMapping, pair: Sequence[FieldDescriptor], depth: int) -> None:
        key, value = pair
        for _ in range(self._many()):
            if value.message_type is None:
                target[self._scalar(key)] = self._scalar(value)
            else:
                target[self._scalar(key)].CopyFrom(self.message(value.message_type, depth + 1))

    def _many(self) -> int:
        return self.chance.randint(1, 2) if self.obeys else self.chance.randrange(4)

    def _scalar(self, field: FieldDescriptor) -> object:
        kind, chance = field.cpp_type, self.chance
        if kind == FieldDescriptor.CPPTYPE_BOOL:
            return chance.random() < 0.5
        if kind == FieldDescriptor.CPPTYPE_ENUM:
            known = [value.number for value in field.enum_type.values]
            return chance.choice(known if self.obeys else [*known, 99, -1])
        if kind in (FieldDescriptor.CPPTYPE_DOUBLE, FieldDescriptor.CPPTYPE_FLOAT):
            return chance.choice(MODEST if self.obeys else DOUBLES)
        if kind in BITS:
            low, high = BITS[kind]
            return max(low, min(high, int(chance.choice(MODEST if self.obeys else INTEGERS))))
        return chance.randbytes(chance.randrange(50)) if field.type == FieldDescriptor.TYPE_BYTES else self._text(field)

    def _text(self, field: FieldDescriptor) -> str:
        rules = field.GetOptions().Extensions[validate_pb2.field]
        rule = rules.repeated.items.string if field.is_repeated else rules.string
        if rule.pattern and self.chance.random() < 0.9:
            return self.chance.choice(_texts_of(rule.pattern))
        text = self.chance.choice(PAYLOADS if self.chance.random() < 0.5 else PLAIN)
        return text[: rule.max_len] if self.obeys and rule.max_len else text
