"""What each role may call and see, said a second time: from the tables for lawyers and the protos' options alone.

Nothing here is taken from services/: a reply owes what `owed` builds from nothing, field by field, of what a role sees.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import yaml
from google.protobuf.descriptor import FieldDescriptor, MethodDescriptor
from google.protobuf.message import Message
from kehu.options.v1 import options_pb2 as options

TABLES = {path.stem: yaml.safe_load(path.read_text("utf-8")) for path in Path(__file__).parent.glob("decisions/*.yaml")}
WORDS = {options.CLASSIFICATION_PERSONAL: "personal", options.CLASSIFICATION_SENSITIVE: "sensitive"}
OPEN = (options.CLASSIFICATION_PUBLIC, options.CLASSIFICATION_INTERNAL)
# a value for each mask, and what is left of it in November 2026
CANARIES = {
    options.MASK_NAME: ("欧阳小明", "欧**"),
    options.MASK_PHONE: ("+8613812348000", "138****8000"),
    options.MASK_EMAIL: ("zhang@example.cn", "z***@example.cn"),
    options.MASK_BIRTH: ("1990-01-02", "35-40岁"),
    options.MASK_DOCUMENT: ("110101199001020018", "110*************18"),
    options.MASK_ADDRESS: ("浙江省杭州市西湖区文三路1号", "浙江省杭州市***"),
}
Sees = Callable[[options.DataClass | None], str]


@dataclass(frozen=True)
class Role:
    """A role at work for a purpose; "" is none."""

    table: dict
    purpose: str

    def may_call(self, method: MethodDescriptor) -> bool:
        """Tell whether the table lists the method's action, for anybody who may reach it."""
        rule = method.GetOptions().Extensions[options.access]
        if rule.audience != options.AUDIENCE_PRINCIPAL:
            return rule.audience == options.AUDIENCE_PUBLIC
        listed = self.table["allow"].get(rule.resource, [])
        return ("*" in listed or rule.action in listed) and (bool(self.purpose) or not rule.purpose_required)

    def sees(self, found: options.DataClass | None) -> str:
        """Return show, mask or hide; nothing personal is seen but for the purpose of the role's own department."""
        if found is None or found.classification not in (*OPEN, *WORDS):
            return "hide"
        if found.classification in OPEN:
            return "show"
        group = f"{WORDS[found.classification]}/{found.group}" if self.purpose == self.table["purpose"] else ""
        return "show" if group in self.table["shown"] else "mask" if group in self.table["masked"] else "hide"


def own_class(field: FieldDescriptor) -> options.DataClass | None:
    """Return the class on the field itself."""
    found = field.GetOptions()
    return found.Extensions[options.data] if found.HasExtension(options.data) else None


def class_of(field: FieldDescriptor) -> options.DataClass | None:
    """Return the field's class, its own or its message's."""
    found = field.containing_type.GetOptions()
    inherited = found.Extensions[options.default_data] if found.HasExtension(options.default_data) else None
    return own_class(field) or inherited


def value_of(field: FieldDescriptor) -> tuple[FieldDescriptor, bool]:
    """Return the field that holds the values, that of the entry for a map; and whether it is a map."""
    kind = field.message_type
    is_map = kind is not None and kind.GetOptions().map_entry
    return (kind.fields_by_name["value"], True) if is_map else (field, False)


def owed(message: Message, sees: Sees) -> Message:
    """Return a new message with what of this one is seen; only text is masked, the rest, maps too, is left out."""
    made = type(message)()
    for field, value in message.ListFields():
        holder, is_map = value_of(field)
        ours = holder.message_type is not None and holder.message_type.full_name.startswith("kehu.")
        verdict = sees(class_of(field)) if own_class(field) or not ours else "show"
        if verdict == "hide" or (verdict == "mask" and not ours and field.type != field.TYPE_STRING):
            continue
        treat = (lambda one: owed(one, sees)) if ours else _shown if verdict == "show" else _masker(class_of(field))
        target = getattr(made, field.name)
        if is_map:
            for key, one in value.items():
                target[key].CopyFrom(treat(one)) if ours else target.update({key: treat(one)})
        elif field.is_repeated:
            target.extend(map(treat, value))
        elif field.message_type is not None:
            target.CopyFrom(treat(value))
            target.SetInParent()
        else:
            setattr(made, field.name, treat(value))
    return made


def _shown(value: object) -> object:
    return value


def _masker(found: options.DataClass | None) -> Callable[[object], object]:
    assert found is not None
    return lambda value: CANARIES.get(found.mask, ("", "***"))[1]
