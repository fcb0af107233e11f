"""Messages with a value that would be known again in every field, for the oracle and its test."""

from __future__ import annotations

from collections.abc import Iterator

from google.protobuf.descriptor import Descriptor, FieldDescriptor
from google.protobuf.message import Message
from google.protobuf.message_factory import GetMessageClass
from kehu.options.v1 import options_pb2 as options

from tests.access.oracle import CANARIES, class_of, value_of


def turns_of(kind: Descriptor, seen: frozenset[str] = frozenset()) -> int:
    """Return how many messages it takes until each alternative of each oneof was set once."""
    if not kind.full_name.startswith("kehu.") or kind.full_name in seen:
        return 1
    most = max((len(one.fields) for one in kind.oneofs), default=1)
    return max([most, *(turns_of(k.message_type, seen | {kind.full_name}) for k in kind.fields if k.message_type)])


def filled(kind: Descriptor, turn: int, covered: set[str], above: tuple[str, ...] = ()) -> Message:
    """Return a message with a canary in every field; of a oneof in that whose turn it is."""
    message = GetMessageClass(kind)()
    for field in kind.fields:
        others = field.containing_oneof.fields if field.containing_oneof else [field]
        holder, is_map = value_of(field)
        nested = holder.message_type
        if others[turn % len(others)] is not field or (nested and above.count(nested.full_name) > 1):
            continue
        covered.add(field.full_name)
        target = getattr(message, field.name)
        if nested and nested.full_name.startswith("kehu."):
            value = filled(nested, turn, covered, (*above, nested.full_name))
            for one in [target["key"]] if is_map else [target.add()] if field.is_repeated else [target]:
                one.CopyFrom(value)
                if not is_map and not field.is_repeated:
                    one.SetInParent()
        elif nested:
            (target.add() if field.is_repeated else target).SetInParent()
        elif is_map:
            target[_scalar(field.message_type.fields_by_name["key"])] = _scalar(holder, class_of(field))
        elif field.is_repeated:
            target.extend([_scalar(field), _scalar(field)])
        else:
            setattr(message, field.name, _scalar(field))
    return message


def _scalar(field: FieldDescriptor, found: options.DataClass | None = None) -> object:
    if field.type == field.TYPE_STRING:
        found = found or class_of(field)
        return CANARIES.get(found.mask if found else 0, (f"canary {field.full_name}", ""))[0]
    if field.type == field.TYPE_ENUM:
        return field.enum_type.values[-1].number
    kinds = {field.TYPE_BYTES: b"canary", field.TYPE_BOOL: True, field.TYPE_DOUBLE: 1.5, field.TYPE_FLOAT: 1.5}
    return kinds.get(field.type, 7)


def reachable(kind: Descriptor, seen: dict[str, Descriptor]) -> Iterator[FieldDescriptor]:
    """Yield every field a message may carry, however deep."""
    if kind.full_name.startswith("kehu.") and kind.full_name not in seen:
        seen[kind.full_name] = kind
        for field in kind.fields:
            yield field
            nested = value_of(field)[0].message_type
            if nested is not None:
                yield from reachable(nested, seen)
