"""Changes and revisions of field definitions as messages."""

from __future__ import annotations

from google.protobuf import json_format
from google.protobuf.descriptor import FieldDescriptor
from kehu.profiles.v1 import dictionary_pb2 as pb
from kehu.profiles.v1 import resources_pb2

from services.chassis.records import etag_of
from services.profiles.definitions.effects import sides
from services.profiles.definitions.proposals import (
    APPLIED,
    CREATE,
    DELETE,
    DRAFT,
    REJECTED,
    UPDATE,
    FieldChange,
    FieldRevision,
    contents,
    differing,
    with_content,
)
from services.profiles.messages import field_message
from services.profiles.values import Field

KINDS = {
    CREATE: pb.FieldChange.KIND_CREATE,
    UPDATE: pb.FieldChange.KIND_UPDATE,
    DELETE: pb.FieldChange.KIND_DELETE,
}
STATES = {
    DRAFT: pb.FieldChange.STATE_DRAFT,
    APPLIED: pb.FieldChange.STATE_APPLIED,
    REJECTED: pb.FieldChange.STATE_REJECTED,
}
STATE_NAMES = {state: name for name, state in STATES.items()}


def read_attribute(message: resources_pb2.FieldDefinition, name: str) -> object:
    """Return an attribute of a message as a definition stores it."""
    value = getattr(message, name)
    return list(value) if name == "permitted_purposes" else value


def change_message(change: FieldChange) -> pb.FieldChange:
    """Return the message of a change, without samples and visibility."""
    message = pb.FieldChange(
        name=f"fieldChanges/{change.id}",
        field=f"fields/{change.field}",
        kind=KINDS[change.kind],
        differences=differences(*sides(change)),
        author=change.author,
        reason=change.reason,
        state=STATES[change.state],
        base_revision=change.base_revision,
        decided_by=change.decided_by,
        decide_time=change.decide_time,
        decision_reason=change.decision_reason,
        revision=change.revision,
        create_time=change.create_time,
        update_time=change.update_time,
        etag=etag_of(change.version),
    )
    if change.effect:
        json_format.Parse(change.effect, message.effect)
    return message


def revision_message(item: FieldRevision, before: FieldRevision | None) -> pb.FieldRevision:
    """Return the message of a revision, with what differs from the one before."""
    message = pb.FieldRevision(
        name=f"fields/{item.field}/revisions/{item.revision}",
        revision=item.revision,
        time=item.time,
        author=item.author,
        approver=item.approver,
        reason=item.reason,
        change=f"fieldChanges/{item.change}" if item.change else "",
    )
    if before is not None or item.revision == 1:
        message.differences.extend(differences(before, item))
    if not item.is_deleted:
        definition = field_message(with_content(Field(item.field), contents(item)))
        definition.revision = item.revision
        definition.ClearField("etag")
        message.field_definition.CopyFrom(definition)
    return message


def differences(before: Field | FieldRevision | None, after: Field | FieldRevision | None) -> list[pb.FieldDifference]:
    """Return what differs, as text."""
    one, two = contents(before), contents(after)
    return [
        pb.FieldDifference(attribute=name, before=_text(name, one[name]), after=_text(name, two[name]))
        for name in differing(before, after)
    ]


def _text(name: str, value: object) -> str:
    field = resources_pb2.FieldDefinition.DESCRIPTOR.fields_by_name[name]
    if field.type == FieldDescriptor.TYPE_ENUM:
        return str(field.enum_type.values_by_number[int(str(value))].name)
    return ", ".join(map(str, value)) if isinstance(value, (list, tuple)) else str(value)
