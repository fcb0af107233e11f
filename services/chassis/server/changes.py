"""What an update may change: nobody changes what they may not read in full (OWASP API3:2023)."""

from __future__ import annotations

from collections.abc import Iterator
from functools import cache

from google.protobuf.descriptor import Descriptor, FieldDescriptor
from google.protobuf.message import Message

from services.chassis import errors
from services.chassis.access import Obligations
from services.chassis.obligations import PROTECTED, data_class, value_type

MASK = "update_mask"


class FieldNotSeen(errors.Denied):
    """The caller would change a field that they may not read in full."""

    reason = "FIELD_NOT_SEEN"


def check_changes(request: Message, obligations: Obligations) -> None:
    """Refuse an update of fields that the caller does not see in full: those of its mask, or those that are set.

    Raises:
        FieldNotSeen: naming the field.
    """
    resource = _resource(request.DESCRIPTOR)
    if resource is None or obligations.everything:
        return
    given, paths = getattr(request, resource.name), list(getattr(request, MASK).paths)
    named = {path.partition(".")[0] for path in paths} or {field.name for field, _ in given.ListFields()}
    for field in resource.message_type.fields:
        if field.name in named or "*" in named:
            for classification, group in _groups(field, frozenset()):
                if obligations.disposition(classification, group) != "show":
                    text = f"changing '{field.name}' takes the right to read it in full for this purpose"
                    raise FieldNotSeen(text, metadata={"field": field.name, "group": f"{classification}/{group}"})


@cache
def _resource(kind: Descriptor) -> FieldDescriptor | None:
    """Return the field of an update's request that holds the resource; None for other requests."""
    if MASK not in kind.fields_by_name:
        return None
    return next((field for field in kind.fields if value_type(field) is not None), None)


def _groups(field: FieldDescriptor, above: frozenset[str]) -> Iterator[tuple[str, str]]:
    """Yield the classified groups of a field and of all within it."""
    found, inner = data_class(field), value_type(field)
    if found is not None and found.classification in PROTECTED:
        yield PROTECTED[found.classification], found.group
    if inner is not None and inner.full_name not in above:
        for each in inner.fields:
            yield from _groups(each, above | {inner.full_name})
