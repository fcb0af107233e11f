"""Changes of the data dictionary: proposed, shown in their effect, applied or turned down by a second person."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from datetime import UTC, datetime

import grpc
from google.longrunning import operations_pb2
from kehu.profiles.v1 import dictionary_pb2 as pb

from services.chassis.errors import AlreadyExists, Conflict
from services.chassis.jobs import Owner
from services.chassis.obligations import HIDE, MASKS
from services.chassis.records import fields_to_change, new_id, unchanged_since, updated
from services.chassis.server import current_call, validate
from services.chassis.times import china_today
from services.profiles.admission import MAPPABLE
from services.profiles.api.common import Tools, changed, id_of, is_in_reach, page_of
from services.profiles.api.fields import start_rederivation
from services.profiles.definitions.defining import not_built_in
from services.profiles.definitions.effects import OF_FORMAT, PREVIEW_CHANGE, original_of, reading_of, sides, value_under
from services.profiles.definitions.messages import STATE_NAMES, change_message, read_attribute
from services.profiles.definitions.proposals import (
    APPLIED,
    CREATE,
    DELETE,
    DRAFT,
    REJECTED,
    UPDATE,
    FieldChange,
    changeable,
    content_of,
    differing,
)
from services.profiles.definitions.visibility import visibility
from services.profiles.errors import (
    FieldChangeDecided,
    FieldChangeEmpty,
    FieldChangeNotFound,
    FieldChangeNotPreviewed,
    FieldChangeOutdated,
    FieldExists,
    FieldNotFound,
    SecondPersonNeeded,
)
from services.profiles.merging import resolve
from services.profiles.messages import CLASSES, field_message
from services.profiles.shaping import load
from services.profiles.values import Field


class ChangesPart:
    """RPCs of changes of field definitions."""

    tools: Tools

    def CreateFieldChange(self, request: pb.CreateFieldChangeRequest, context: grpc.ServicerContext) -> pb.FieldChange:
        """Keep a proposal; nothing changes yet."""
        field_id = id_of(request.field)
        now = self.tools.definitions().living(field_id)
        then = self._proposed(request, now)
        kind = DELETE if then is None else UPDATE if now else CREATE
        if kind == UPDATE and not differing(now, then):
            raise FieldChangeEmpty("the change changes nothing", metadata={"name": request.field})
        last, author = self.tools.definitions().stored(field_id), current_call().caller.subject
        made = FieldChange(
            new_id(request.request_id, "field-change", author), field_id, kind, content_of(now) if now else {},
            content_of(then) if then else {}, last.revision if last else 0, author, request.reason,
        )  # fmt: skip
        try:
            return change_message(self.tools.store.field_changes.insert(made))
        except AlreadyExists:
            return change_message(self._change(f"fieldChanges/{made.id}"))

    def _proposed(self, request: pb.CreateFieldChangeRequest, now: Field | None) -> Field | None:
        """Return the definition that is asked for; None for none."""
        if not request.HasField("field_definition"):
            if now is None:
                raise FieldNotFound("there is no such field", metadata={"name": request.field})
            not_built_in(now)
            return None
        base = now or Field(id_of(request.field))
        if now is None and base.id in MAPPABLE:
            raise FieldExists("sources may feed a part of this name already", metadata={"name": request.field})
        names = fields_to_change(request.update_mask, request.field_definition, changeable(base))
        message = updated(field_message(base), request.field_definition, names)
        validate(message)
        return changed(base, names, lambda name: read_attribute(message, name))

    def GetFieldChange(self, request: pb.GetFieldChangeRequest, context: grpc.ServicerContext) -> pb.FieldChange:
        """Return a change with samples as they are now, and for whom the field hides or appears."""
        change = self._change(request.name)
        message = change_message(change)
        message.samples.extend(self._samples(change))
        for seen in visibility(*sides(change), current_call().field_grants) if not self._is_built_in(change) else ():
            message.visibility.add(
                subject=seen.subject, department=seen.department, purpose=seen.purpose, before=seen.before,
                after=seen.after,
            )  # fmt: skip
        return message

    def ListFieldChanges(
        self, request: pb.ListFieldChangesRequest, context: grpc.ServicerContext
    ) -> pb.ListFieldChangesResponse:
        """List changes."""
        equal = {"field": id_of(request.field)} if request.field else {}
        equal |= {"state": STATE_NAMES[request.state]} if request.state else {}
        shelf = self.tools.store.field_changes
        found, token = page_of(shelf, equal, request.page_size, request.page_token, "fieldChanges")
        return pb.ListFieldChangesResponse(field_changes=map(change_message, found), next_page_token=token)

    def PreviewFieldChange(
        self, request: pb.PreviewFieldChangeRequest, context: grpc.ServicerContext
    ) -> operations_pb2.Operation:
        """Queue the count of what a change does."""
        change = self._open(request.name)
        caller = current_call().caller
        effect = pb.FieldEffect(change=f"fieldChanges/{change.id}")
        owner = Owner(caller.subject, caller.department)
        return self.tools.jobs.start(PREVIEW_CHANGE, {}, effect, owner, request.request_id)

    def ApproveFieldChange(
        self, request: pb.ApproveFieldChangeRequest, context: grpc.ServicerContext
    ) -> pb.FieldChange:
        """Apply a change that another person proposed; a repeat after a crash goes on."""
        change, caller = self._open(request.name), current_call().caller
        if change.author == caller.subject:
            raise SecondPersonNeeded("another person must agree", metadata={"name": request.name})
        if not change.effect:
            raise FieldChangeNotPreviewed("count its effect first", metadata={"name": request.name})
        try:
            made = self.tools.definitions().apply(change, caller.subject)
        except Conflict:
            metadata = {"name": request.name, "revision": str(change.base_revision)}
            raise FieldChangeOutdated("the field was changed since; propose it anew", metadata=metadata) from None
        reading = reading_of(change)
        operation = start_rederivation(self.tools, made) if reading.is_of_rule else ""
        decided = self._decide_change(change, APPLIED, made.approver, request.reason, made.revision)
        message = change_message(decided)
        message.rederivation = operation
        return message

    def RejectFieldChange(self, request: pb.RejectFieldChangeRequest, context: grpc.ServicerContext) -> pb.FieldChange:
        """Turn a change down, or withdraw one's own."""
        change = self._open(request.name)
        return change_message(self._decide_change(change, REJECTED, current_call().caller.subject, request.reason))

    def _decide_change(self, change: FieldChange, state: str, by: str, reason: str, revision: int = 0) -> FieldChange:
        decided = replace(
            change, state=state, decided_by=by, decide_time=datetime.now(UTC), decision_reason=reason, revision=revision
        )
        with unchanged_since("", change.version, f"fieldChanges/{change.id}"):
            return self.tools.store.field_changes.replace(decided)

    def _is_built_in(self, change: FieldChange) -> bool:
        found = self.tools.dictionary.get(change.field)
        return found is not None and found.built_in

    def _change(self, name: str) -> FieldChange:
        found = self.tools.store.field_changes.get(id_of(name))
        if found is None:
            raise FieldChangeNotFound("there is no such change", metadata={"name": name})
        return found

    def _open(self, name: str) -> FieldChange:
        found = self._change(name)
        if found.state != DRAFT:
            raise FieldChangeDecided("it was decided already", metadata={"name": name, "state": found.state})
        return found

    def _samples(self, change: FieldChange) -> Iterator[pb.FieldEffectSample]:
        """Yield the samples that the caller may reach, with masked values of now."""
        reading, (was, then) = reading_of(change), sides(change)
        living = resolve(self.tools.store, [item[1] for item in change.samples])
        opened, _ = load(self.tools.store, self.tools.vault, [p for p in living.values() if is_in_reach(p)])
        by_id = {item.profile_id: item for item in opened}
        for kind, profile_id, key in change.samples:
            item = by_id.get(living[profile_id].profile_id) if profile_id in living else None
            if item is None or (kind == OF_FORMAT and key not in item.records):
                continue
            found = pb.FieldEffectSample(profile=f"profiles/{item.profile_id}", kind=kind)
            if kind == OF_FORMAT:
                source_id, _, record_id = key.partition("/")
                found.source_record = f"sources/{source_id}/records/{record_id}"
                found.before = _masked(was or then, original_of(item.records[key], change.field))
            else:
                records = list(item.records.values())
                found.before, found.after = (
                    _masked(was or then, value_under(records, change.field, rule))
                    for rule in (reading.before, reading.after)
                )
            yield found


def _masked(item: Field | None, value: str) -> str:
    """Return a value masked as its definition says; only asterisks where the caller may not see the field."""
    call = current_call()
    if item is None or item.classification not in CLASSES or not item.permits(call.caller.purpose):
        return "***" if value else ""
    if call.decision.obligations.disposition(CLASSES[item.classification], item.group) == HIDE:
        return "***" if value else ""
    return MASKS[item.mask](value, china_today())
