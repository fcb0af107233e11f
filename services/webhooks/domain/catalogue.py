"""Which events may be subscribed to, and what a delivery of each may carry: read from the protos' options."""

from __future__ import annotations

import importlib
import importlib.util
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cache

from google.protobuf import descriptor_pool
from google.protobuf.descriptor import Descriptor, FieldDescriptor, MethodDescriptor
from google.protobuf.message import Message
from kehu.options.v1 import options_pb2 as options

from services.chassis.access import Obligations
from services.chassis.config import SERVICES
from services.chassis.consuming.contract import snake_case
from services.chassis.obligations import CLASS_NAMES, data_class
from services.chassis.server.plans import MethodPlan, plan_of

COMPARED = (FieldDescriptor.TYPE_STRING, FieldDescriptor.TYPE_ENUM, FieldDescriptor.TYPE_BOOL,
            FieldDescriptor.TYPE_INT32, FieldDescriptor.TYPE_INT64)  # fmt: skip
_BRACES = re.compile(r"\{([a-z_]+)\}")


@dataclass(frozen=True, slots=True)
class EventType:
    """An event that may be subscribed to; `method` reads what it is about, `ends` says that nothing of it is left."""

    name: str
    service: str
    method: MethodDescriptor
    plan: MethodPlan
    template: str
    ends: bool

    def resource(self, event: Message) -> str:
        """Return the name of what the event is about, as `method` takes it."""
        return _BRACES.sub(lambda found: str(getattr(event, found[1])), self.template)

    @property
    def fields(self) -> Mapping[str, FieldDescriptor]:
        """The fields a delivery may carry."""
        return {} if self.ends else {field.name: field for field in self.method.output_type.fields}

    @property
    def filter_fields(self) -> Sequence[str]:
        """The fields a filter may name: single values."""
        return [name for name, found in self.fields.items() if not found.is_repeated and found.type in COMPARED]

    def shows(self, field: str, rights: Obligations) -> bool:
        """Tell whether a caller with these rights sees a field unmasked."""
        found = data_class(self.fields[field])
        name = CLASS_NAMES.get(found.classification, "") if found is not None else ""
        return found is not None and bool(name) and rights.disposition(name, found.group) == "show"


def event_type_name(message: Descriptor) -> str:
    """Return the name that apps subscribe by, such as profiles.profile_changed."""
    return f"{message.file.package.split('.')[1]}.{snake_case(message.name)}"


@cache
def catalogue() -> Mapping[str, EventType]:
    """Return all events that may be subscribed to, by name."""
    found = {}
    for service in SERVICES:
        importlib.import_module(f"kehu.{service}.v1.{service}_pb2")
        if importlib.util.find_spec(f"kehu.{service}.v1.events_pb2") is None:
            continue
        module = importlib.import_module(f"kehu.{service}.v1.events_pb2")
        for message in module.DESCRIPTOR.message_types_by_name.values():
            if message.GetOptions().HasExtension(options.subscribable):
                event = _event_type(service, message)
                found[event.name] = event
    return dict(sorted(found.items()))


@cache
def endings() -> frozenset[str]:
    """Return the events that tell the end of a record."""
    return frozenset(name for name, event in catalogue().items() if event.ends)


def _event_type(service: str, message: Descriptor) -> EventType:
    source = message.GetOptions().Extensions[options.subscribable]
    method = descriptor_pool.Default().FindMethodByName(source.method)
    return EventType(event_type_name(message), service, method, plan_of(method), source.name, source.ends)


def compared(reply: Message, field: str) -> str | None:
    """Return a field's value as a filter compares it: an enum's by its name; None when the reply has no such field."""
    found = reply.DESCRIPTOR.fields_by_name.get(field)
    if found is None or found.is_repeated or found.type not in COMPARED:
        return None
    value = getattr(reply, field)
    if found.type == FieldDescriptor.TYPE_ENUM:
        named = found.enum_type.values_by_number.get(value)
        return named.name if named else None
    return ("true" if value else "false") if isinstance(value, bool) else str(value)
