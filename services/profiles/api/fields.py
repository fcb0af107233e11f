"""The data dictionary: definitions, what people read of them, their revisions and the way back."""

from __future__ import annotations

import dataclasses

import grpc
from google.protobuf import empty_pb2
from kehu.profiles.v1 import dictionary_pb2, profiles_pb2, resources_pb2

from services.chassis import paging
from services.chassis.jobs import Owner
from services.chassis.records import fields_to_change, unchanged_since, updated
from services.chassis.server import current_call, validate
from services.profiles.admission import MAPPABLE
from services.profiles.api.common import Tools, changed, id_of
from services.profiles.definitions.defining import not_built_in
from services.profiles.definitions.messages import read_attribute, revision_message
from services.profiles.definitions.proposals import (
    ATTRIBUTES,
    changeable,
    differing,
    reviewed,
    revision_id,
    survivorship_of,
)
from services.profiles.definitions.rederiving import REDERIVE
from services.profiles.errors import FieldChangeNeeded, FieldExists, FieldNotFound
from services.profiles.messages import field_message
from services.profiles.values import Field


class FieldsPart:
    """RPCs of field definitions."""

    tools: Tools

    def CreateFieldDefinition(
        self, request: profiles_pb2.CreateFieldDefinitionRequest, context: grpc.ServicerContext
    ) -> resources_pb2.FieldDefinition:
        """Define a custom field by what people read of it."""
        definitions = self.tools.definitions()
        was = definitions.stored(request.field_id) or Field(request.field_id)
        if was.id in MAPPABLE or definitions.living(was.id) is not None:
            raise FieldExists("a field with this id exists already", metadata={"name": f"fields/{was.id}"})
        item = changed(
            Field(was.id, version=was.version, rule_version=was.rule_version),
            ATTRIBUTES,
            lambda name: read_attribute(request.field_definition, name),
        )
        _check_unreviewed(None, item)
        with unchanged_since("", item.version, f"fields/{was.id}"):
            return field_message(definitions.write(item, current_call().caller.subject))

    def GetFieldDefinition(
        self, request: profiles_pb2.GetFieldDefinitionRequest, context: grpc.ServicerContext
    ) -> resources_pb2.FieldDefinition:
        """Return a field definition."""
        found = self.tools.dictionary.get(id_of(request.name))
        if found is None:
            raise _missing(request.name)
        return field_message(found)

    def ListFieldDefinitions(
        self, request: profiles_pb2.ListFieldDefinitionsRequest, context: grpc.ServicerContext
    ) -> profiles_pb2.ListFieldDefinitionsResponse:
        """List the dictionary by name."""
        size, of_filter = paging.page_size_of(request.page_size), paging.filter_hash("fields")
        after = str(paging.decode_token(request.page_token, of_filter).get("after", "") or "")
        found = sorted((item for item in self.tools.dictionary.all().values() if item.id > after), key=lambda f: f.id)
        token = paging.encode_token({"after": found[size - 1].id}, of_filter) if len(found) > size else ""
        page = map(field_message, found[:size])
        return profiles_pb2.ListFieldDefinitionsResponse(field_definitions=page, next_page_token=token)

    def UpdateFieldDefinition(
        self, request: profiles_pb2.UpdateFieldDefinitionRequest, context: grpc.ServicerContext
    ) -> resources_pb2.FieldDefinition:
        """Change what people read of a field; the rest takes a reviewed change."""
        given = request.field_definition
        item = self._living(given.name)
        names = fields_to_change(request.update_mask, given, changeable(item))
        message = updated(field_message(item), given, names)
        validate(message)
        following = changed(item, names, lambda name: read_attribute(message, name))
        _check_unreviewed(item, following)
        with unchanged_since(given.etag, item.version, given.name):
            if differing(item, following):
                item = self.tools.definitions().write(following, current_call().caller.subject)
        return field_message(item)

    def DeleteFieldDefinition(
        self, request: profiles_pb2.DeleteFieldDefinitionRequest, context: grpc.ServicerContext
    ) -> empty_pb2.Empty:
        """Remove a custom field that nothing hangs on."""
        item = not_built_in(self._living(request.name))
        _check_unreviewed(item, None)
        with unchanged_since(request.etag, item.version, request.name):
            self.tools.definitions().write(dataclasses.replace(item, is_deleted=True), current_call().caller.subject)
        return empty_pb2.Empty()

    def ListFieldRevisions(
        self, request: dictionary_pb2.ListFieldRevisionsRequest, context: grpc.ServicerContext
    ) -> dictionary_pb2.ListFieldRevisionsResponse:
        """List what a definition was and is."""
        definitions, field_id = self.tools.definitions(), id_of(request.parent)
        if definitions.stored(field_id) is None:
            raise _missing(request.parent)
        size, of_filter = paging.page_size_of(request.page_size), paging.filter_hash("revisions", field_id)
        after = str(paging.decode_token(request.page_token, of_filter).get("after", "") or "")
        found = definitions.revisions(field_id, after, size + 1)
        token = ""
        if len(found) > size:
            token = paging.encode_token({"after": revision_id(field_id, found[size - 1].revision)}, of_filter)
        page = found[:size]
        befores = [definitions.before(page[0]) if page else None, *page]
        return dictionary_pb2.ListFieldRevisionsResponse(
            field_revisions=[revision_message(one, was) for one, was in zip(page, befores, strict=False)],
            next_page_token=token,
        )

    def RollbackFieldDefinition(
        self, request: dictionary_pb2.RollbackFieldDefinitionRequest, context: grpc.ServicerContext
    ) -> resources_pb2.FieldDefinition:
        """Return to an earlier revision."""
        definitions = self.tools.definitions()
        now = definitions.stored(id_of(request.name))
        if now is None:
            raise _missing(request.name)
        with unchanged_since("", now.version, request.name):
            made = definitions.roll_back(now, request.revision, current_call().caller.subject, request.reason)
        reply = field_message(made)
        if survivorship_of(made) != survivorship_of(now):
            reply.rederivation = start_rederivation(self.tools, made)
        return reply

    def _living(self, name: str) -> Field:
        found = self.tools.definitions().living(id_of(name))
        if found is None:
            raise _missing(name)
        return found


def start_rederivation(tools: Tools, item: Field) -> str:
    """Start deriving all profiles by this version of the rule, once for each version; return the operation."""
    metadata = resources_pb2.Rederivation(field=f"fields/{item.id}", rule_version=item.rule_version)
    caller = current_call().caller
    owner = Owner(caller.subject, caller.department)
    return tools.jobs.start(REDERIVE, {}, metadata, owner, f"{item.id}/{item.rule_version}").name


def _check_unreviewed(before: Field | None, after: Field | None) -> None:
    """Refuse a direct change of what hides, shows, keeps or chooses values."""
    if names := reviewed(differing(before, after)):
        item = after or before
        raise FieldChangeNeeded(
            "this takes a second person: propose it with POST /v1/fieldChanges",
            metadata={"name": f"fields/{item.id if item else ''}", "attributes": ",".join(names)},
        )


def _missing(name: str) -> FieldNotFound:
    return FieldNotFound("there is no such field", metadata={"name": name})
