"""The data dictionary."""

from __future__ import annotations

import dataclasses

import grpc
from google.protobuf import empty_pb2
from kehu.profiles.v1 import profiles_pb2, resources_pb2

from services.chassis import paging
from services.chassis.errors import AlreadyExists
from services.chassis.jobs import Owner
from services.chassis.records import fields_to_change, unchanged_since, updated
from services.chassis.server import current_call, validate
from services.profiles.admission import MAPPABLE
from services.profiles.api.common import Tools, changed, id_of
from services.profiles.errors import FieldBuiltIn, FieldExists, FieldNotFound
from services.profiles.messages import field_message
from services.profiles.rederiving import REDERIVE
from services.profiles.values import Field

CHANGEABLE = (
    "display_name", "description", "format", "classification", "group", "mask", "owner_department", "update_rule",
    "survivorship", "retention_days", "permitted_purposes",
)  # fmt: skip
OF_BUILT_IN = ("display_name", "description", "owner_department", "update_rule")
CHOSEN_WITH_ADDRESS = frozenset(("province_code", "city_code", "district_code"))


class FieldsPart:
    """RPCs of field definitions."""

    tools: Tools

    def CreateFieldDefinition(
        self, request: profiles_pb2.CreateFieldDefinitionRequest, context: grpc.ServicerContext
    ) -> resources_pb2.FieldDefinition:
        """Define a custom field."""
        item = changed(Field(request.field_id), CHANGEABLE, lambda name: _read(request.field_definition, name))
        metadata = {"name": f"fields/{item.id}"}
        if item.id in MAPPABLE or self.tools.dictionary.get(item.id) is not None:
            self.tools.dictionary.forget()
            raise FieldExists("a field with this id exists already", metadata=metadata)
        try:
            stored = self.tools.store.fields.insert(item)
        except AlreadyExists as error:
            raise FieldExists("a field with this id exists already", metadata=metadata) from error
        finally:
            self.tools.dictionary.forget()
        return field_message(stored)

    def GetFieldDefinition(
        self, request: profiles_pb2.GetFieldDefinitionRequest, context: grpc.ServicerContext
    ) -> resources_pb2.FieldDefinition:
        """Return a field definition."""
        return field_message(self._field(request.name))

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
        """Change a definition; of a built-in field what people read and its rule, for its class is in the proto."""
        self.tools.dictionary.forget()
        item = self._field(request.field_definition.name)
        names = fields_to_change(request.update_mask, request.field_definition, _changeable(item))
        message = updated(field_message(item), request.field_definition, names)
        validate(message)
        shelf = self.tools.store.fields
        with unchanged_since(request.field_definition.etag, item.version, request.field_definition.name):
            next_item = changed(item, names, lambda name: _read(message, name))
            if next_item.survivorship != item.survivorship:
                next_item = dataclasses.replace(next_item, rule_version=item.rule_version + 1)
            stored = shelf.insert(next_item) if item.version == 0 else shelf.replace(next_item)
        self.tools.dictionary.forget()
        reply = field_message(stored)
        if "survivorship" in names:
            reply.rederivation = self._rederive(stored)
        return reply

    def _rederive(self, item: Field) -> str:
        """Start deriving all profiles by this version of the rule, once for each version; return the operation."""
        metadata = resources_pb2.Rederivation(field=f"fields/{item.id}", rule_version=item.rule_version)
        caller = current_call().caller
        owner = Owner(caller.subject, caller.department)
        started = self.tools.jobs.start(REDERIVE, {}, metadata, owner, f"{item.id}/{item.rule_version}")
        return started.name

    def DeleteFieldDefinition(
        self, request: profiles_pb2.DeleteFieldDefinitionRequest, context: grpc.ServicerContext
    ) -> empty_pb2.Empty:
        """Remove a custom field."""
        self.tools.dictionary.forget()
        item = self._field(request.name)
        if item.built_in:
            raise FieldBuiltIn("a built-in field cannot be removed", metadata={"name": request.name})
        with unchanged_since(request.etag, item.version, request.name):
            self.tools.store.fields.delete(item)
        self.tools.dictionary.forget()
        return empty_pb2.Empty()

    def _field(self, name: str) -> Field:
        found = self.tools.dictionary.get(id_of(name))
        if found is None:
            raise FieldNotFound("there is no such field", metadata={"name": name})
        return found


def _changeable(item: Field) -> tuple[str, ...]:
    if not item.built_in:
        return CHANGEABLE
    return OF_BUILT_IN if item.id in CHOSEN_WITH_ADDRESS else (*OF_BUILT_IN, "survivorship")


def _read(message: resources_pb2.FieldDefinition, name: str) -> object:
    value = getattr(message, name)
    return list(value) if name == "permitted_purposes" else value
