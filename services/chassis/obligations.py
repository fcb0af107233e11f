"""Apply a decision's obligations to a reply: clear or mask every field by its data class in the proto.

A field without a class is cleared: what nobody classified, nobody sees (design.md §1).
"""

from __future__ import annotations

import re
from collections.abc import Callable, Hashable, Iterator, Mapping
from datetime import date
from functools import lru_cache
from typing import Protocol

from google.protobuf.any_pb2 import Any as AnyMessage
from google.protobuf.descriptor import Descriptor, FieldDescriptor
from google.protobuf.message import Message
from kehu.options.v1 import options_pb2 as options

SHOW, MASK, HIDE = "show", "mask", "hide"
RIGHTS_KNOWN = 2_000  # different rights, for each of which the plans of the messages seen are kept
CLASS_NAMES: Mapping[int, str] = {
    options.CLASSIFICATION_PUBLIC: "public",
    options.CLASSIFICATION_INTERNAL: "internal",
    options.CLASSIFICATION_PERSONAL: "personal",
    options.CLASSIFICATION_SENSITIVE: "sensitive",
}
_CLOSED = ("personal", "sensitive")
PROTECTED: Mapping[int, str] = {number: name for number, name in CLASS_NAMES.items() if name in _CLOSED}


class Rights(Hashable, Protocol):
    """What the decision lets this caller see."""

    def disposition(self, classification: str, group: str) -> str:
        """Return show, mask or hide for a field group."""


def mask_name(value: str, today: date) -> str:
    """李小明 → 李**; Latin names keep their first letter."""
    return value[:1] + "**" if value else ""


def mask_phone(value: str, today: date) -> str:
    """+8613812348000 or 13812348000 → 138****8000; anything shorter than ten characters → ***."""
    digits = value.removeprefix("+86")
    return f"{digits[:3]}****{digits[-4:]}" if len(digits) >= 10 else "***"


def mask_email(value: str, today: date) -> str:
    """zhang@example.cn → z***@example.cn."""
    local, at, domain = value.partition("@")
    return f"{local[:1]}***@{domain}" if local and at else "***"


def mask_birth(value: str, today: date) -> str:
    """1990-01-02 → a band of five years of age, such as 35-40岁."""
    try:
        born = date.fromisoformat(value)
    except ValueError:
        return "***"
    age = today.year - born.year - ((today.month, today.day) < (born.month, born.day))
    low = max(age, 0) // 5 * 5
    return f"{low}-{low + 5}岁"


def mask_document(value: str, today: date) -> str:
    """110101199001011237 → 110*************37."""
    return value[:3] + "*" * (len(value) - 5) + value[-2:] if len(value) >= 8 else "***"


_CODE = re.compile(r"[0-9]{6}")
_WORDS = r"[^\d号弄巷路街道栋幢楼室区县]{1,12}?"  # of a province or city: what comes behind one is no part of its name
_TO_CITY = re.compile(rf"^(?:{_WORDS}(?:省|自治区|特别行政区))?{_WORDS}(?:市|自治州|地区|盟)")


def mask_address(value: str, today: date) -> str:
    """浙江省杭州市西湖区文三路1号 → 浙江省杭州市***; a code of GB/T 2260 → its city's, 330106 → 330100.

    Without a city in front nothing is shown: of 文三路1号城市花园 no word but ***.
    """
    if _CODE.fullmatch(value):
        return value[:4] + "00"
    found = _TO_CITY.match(value)
    return (found.group() if found else "") + "***"


def mask_full(value: str, today: date) -> str:
    """Anything → ***."""
    return "***" if value else ""


MASKS: dict[int, Callable[[str, date], str]] = {
    options.MASK_UNSPECIFIED: mask_full,
    options.MASK_NAME: mask_name,
    options.MASK_PHONE: mask_phone,
    options.MASK_EMAIL: mask_email,
    options.MASK_BIRTH: mask_birth,
    options.MASK_DOCUMENT: mask_document,
    options.MASK_ADDRESS: mask_address,
    options.MASK_FULL: mask_full,
}


def data_class(field: FieldDescriptor) -> options.DataClass | None:
    """Return the field's own class, else its message's default, else None: unclassified."""
    own = field.GetOptions()
    if own.HasExtension(options.data):
        return own.Extensions[options.data]
    message = field.containing_type.GetOptions()
    return message.Extensions[options.default_data] if message.HasExtension(options.default_data) else None


def _is_ours(descriptor: Descriptor) -> bool:
    return descriptor.full_name.startswith("kehu.")


def value_type(field: FieldDescriptor) -> Descriptor | None:
    """Return the message type that a field holds, looking through maps; None for scalars and google.* values."""
    kind = field.message_type
    if kind is not None and kind.GetOptions().map_entry:
        kind = kind.fields_by_name["value"].message_type
    return kind if kind is not None and _is_ours(kind) else None


# One step of a plan: clear the field, mask its text, or walk into its message ("one"), its messages, its map.
Step = tuple[str, str, Callable[[str, date], str] | None]


@lru_cache(maxsize=RIGHTS_KNOWN)
def _plans(rights: Rights) -> dict[Descriptor, tuple[Step, ...]]:
    """Return where the plan of each message is kept for these rights; looked up once for a whole reply."""
    return {}


def _steps(descriptor: Descriptor, rights: Rights) -> Iterator[Step]:
    for field in descriptor.fields:
        found = data_class(field)
        nested = value_type(field)
        own = field.GetOptions().HasExtension(options.data)
        if nested is not None and not own:
            yield field.name, _walk_of(field), None
            continue
        name = CLASS_NAMES.get(found.classification, "") if found is not None else ""
        right = rights.disposition(name, found.group) if found is not None and name else HIDE
        if right == SHOW:
            if nested is not None:
                yield field.name, _walk_of(field), None
        elif right == MASK and nested is not None:
            yield field.name, _walk_of(field), None
        elif right == MASK and field.type == FieldDescriptor.TYPE_STRING and found is not None:
            yield field.name, "mask", MASKS[found.mask]
        else:
            yield field.name, "clear", None


def _walk_of(field: FieldDescriptor) -> str:
    return "map" if field.message_type.GetOptions().map_entry else "many" if field.is_repeated else "one"


def apply_obligations(message: Message, rights: Rights, today: date) -> Message:
    """Clear and mask the message in place by the caller's rights, and return it.

    Values of `google.protobuf.Any` are opened, treated and packed again; unknown types are emptied.
    """
    if _is_ours(message.DESCRIPTOR):
        _apply(message, rights, today, _plans(rights))
    else:
        _apply_to_any_fields(message, rights, today)
    return message


def _apply(message: Message, rights: Rights, today: date, plans: dict[Descriptor, tuple[Step, ...]]) -> None:
    descriptor = message.DESCRIPTOR
    plan = plans.get(descriptor)
    if plan is None:
        plan = plans[descriptor] = tuple(_steps(descriptor, rights))
    for name, action, mask in plan:
        if action == "clear":
            message.ClearField(name)
        elif action == "mask" and mask is not None:
            _mask_field(message, name, mask, today)
        elif action == "one":
            if message.HasField(name):
                _apply(getattr(message, name), rights, today, plans)
        else:
            held = getattr(message, name)
            for item in held.values() if action == "map" else held:
                _apply(item, rights, today, plans)


def _mask_field(message: Message, name: str, mask: Callable[[str, date], str], today: date) -> None:
    value = getattr(message, name)
    if isinstance(value, str):
        if value:
            setattr(message, name, mask(value, today))
    else:
        value[:] = [mask(item, today) for item in value]


def _apply_to_any_fields(message: Message, rights: Rights, today: date) -> None:
    """Open the Any values of a google.longrunning reply; nothing else of google.* carries customer data."""
    for field, value in message.ListFields():
        if field.message_type is None:
            continue
        for item in value if field.is_repeated else (value,):
            if isinstance(item, AnyMessage):
                _apply_to_any(item, rights, today)
            elif isinstance(item, Message) and not _is_ours(item.DESCRIPTOR):
                _apply_to_any_fields(item, rights, today)


def _apply_to_any(packed: AnyMessage, rights: Rights, today: date) -> None:
    from google.protobuf import symbol_database

    try:
        kind = symbol_database.Default().pool.FindMessageTypeByName(packed.TypeName())
    except KeyError:
        packed.Clear()
        return
    from google.protobuf.message_factory import GetMessageClass

    inner = GetMessageClass(kind)()
    packed.Unpack(inner)
    if _is_ours(kind):
        apply_obligations(inner, rights, today)
    packed.Pack(inner)
