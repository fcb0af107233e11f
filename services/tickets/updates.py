"""What an update changes: the update mask (AIP-134) of tickets and SLA policies."""

from __future__ import annotations

from collections.abc import Collection

from google.protobuf.field_mask_pb2 import FieldMask
from google.protobuf.message import Message
from kehu.tickets.v1 import tickets_pb2 as pb

from services.chassis.errors import Conflict, FieldViolation, Invalid
from services.tickets.domain.ticket import TicketEdit
from services.tickets.wire import CHANNELS, PRIORITIES, etag_of, id_of

TICKET_FIELDS = ("subject", "description", "priority", "department", "profile", "parent", "channel")
POLICY_FIELDS = ("display_name", "rank", "disabled", "kinds", "departments", "targets", "calendar")
_IGNORED = ("name", "etag")


class UpdateMaskInvalid(Invalid):
    """The mask names a field that this method does not change."""

    reason = "UPDATE_MASK_INVALID"


def fields_of(mask: FieldMask, message: Message, allowed: Collection[str]) -> tuple[str, ...]:
    """Return the fields to change: those of the mask, all with `*`, those that are set without a mask.

    Raises:
        UpdateMaskInvalid: naming the fields that cannot be changed.
    """
    if list(mask.paths) == ["*"]:
        return tuple(allowed)
    named = list(mask.paths) or [field.name for field, _ in message.ListFields()]
    wrong = [path for path in named if path not in allowed and (mask.paths or not _is_output(message, path))]
    wrong = [path for path in wrong if path not in _IGNORED]
    if wrong:
        text = "can be changed: " + ", ".join(allowed)
        raise UpdateMaskInvalid(
            "the update names fields that cannot be changed",
            violations=[FieldViolation(f"update_mask.{path[:64]}", text) for path in wrong[:20]],
        )
    return tuple(path for path in named if path in allowed)


def _is_output(message: Message, path: str) -> bool:
    """Tell whether a field is only ever sent by us, so that a whole resource may come back in an update."""
    from google.api import field_behavior_pb2

    options = message.DESCRIPTOR.fields_by_name[path].GetOptions()
    behaviors = options.Extensions[field_behavior_pb2.field_behavior]
    return field_behavior_pb2.OUTPUT_ONLY in behaviors or field_behavior_pb2.IMMUTABLE in behaviors


def ticket_edit(message: pb.Ticket, fields: Collection[str]) -> TicketEdit:
    """Return the edit that a message and its fields describe; an unset priority is normal."""
    priority = PRIORITIES[message.priority or pb.PRIORITY_NORMAL]
    return TicketEdit(
        subject=message.subject if "subject" in fields else None,
        description=message.description if "description" in fields else None,
        priority=priority if "priority" in fields else None,
        department=message.department if "department" in fields and message.department else None,
        profile_id=id_of(message.profile) if "profile" in fields else None,
        parent_id=id_of(message.parent) if "parent" in fields else None,
        channel=CHANNELS[message.channel] if "channel" in fields else None,
    )


def policy_update(current: pb.SlaPolicy, change: pb.SlaPolicy, fields: Collection[str]) -> pb.SlaPolicy:
    """Return the current policy with the named fields taken from the change."""
    result = pb.SlaPolicy()
    result.CopyFrom(current)
    for name in fields:
        result.ClearField(name)  # type: ignore[arg-type]
    picked = pb.SlaPolicy()
    picked.CopyFrom(change)
    for field, _ in change.ListFields():
        if field.name not in fields:
            picked.ClearField(field.name)  # type: ignore[arg-type]
    result.MergeFrom(picked)
    return result


def check_etag(given: str, version: int) -> None:
    """Refuse a change that was made to an older state.

    Raises:
        Conflict: when the etag is set and is not the current one.
    """
    if given and given.strip('"') != etag_of(version).strip('"'):
        raise Conflict("somebody else changed it first; read it again and repeat")
