"""SCIM: a company's directory makes, changes and ends the people of its issuer, and of no other."""

from __future__ import annotations

from dataclasses import replace

import grpc
import orjson
from google.api import httpbody_pb2
from google.protobuf import json_format
from google.protobuf.struct_pb2 import Struct
from kehu.access.v1 import scim_pb2 as pb

from services.access.domain import scim
from services.access.domain import scim_discovery as discovery
from services.access.domain.errors import PrincipalNotFound, ScimClientUnknown, ScimResourceUnknown
from services.access.domain.issuers import Issuer
from services.access.domain.policies import could_make_administrators, role_names
from services.access.domain.principals import Principal, checked
from services.access.methods.principals import PrincipalMethods
from services.chassis.server import current_call

CONTENT_TYPE = "application/scim+json"
BASE = "/scim/v2"


class ScimMethods(PrincipalMethods):
    """The SCIM methods of AccessService."""

    def CreateScimUser(self, request: pb.CreateScimUserRequest, context: grpc.ServicerContext) -> httpbody_pb2.HttpBody:
        """Make a person; one that the directory removed comes back."""
        issuer, wanted = self._issuer(), scim.wanted(_mapping(request.user))
        known = self._context.principals.get(f"user-{wanted.login}")
        if known is not None and known.issuer == issuer.id and known.directory_id == scim.REMOVED:
            return self._apply(issuer, replace(known, external_id=""), wanted)
        department = wanted.department or (issuer.rules[0].department if issuer.rules else "")
        new = Principal("user", wanted.login, department, wanted.roles or (), "", issuer=issuer.id,
                        directory_id=wanted.directory_id, enabled=wanted.active)  # fmt: skip
        stored = self._context.principals.insert(self._permitted(new))
        self._context.directory.refresh(at_once=True)
        return _reply(scim.user_resource(stored, BASE))

    def GetScimUser(self, request: pb.GetScimUserRequest, context: grpc.ServicerContext) -> httpbody_pb2.HttpBody:
        """Return a person."""
        return _reply(scim.user_resource(self._own(self._issuer(), request.user_id), BASE))

    def ListScimUsers(self, request: pb.ListScimUsersRequest, context: grpc.ServicerContext) -> httpbody_pb2.HttpBody:
        """Find people; by userName at once, else all are looked through."""
        issuer = self._issuer()
        name, value = scim.parse_filter(request.filter, ("userName", "externalId"))
        people = self._people(issuer)
        if name == "userName":
            login = scim.login_of(value)
            people = [person for person in people if login and person.login == login]
        elif name == "externalId":
            people = [person for person in people if person.directory_id == value]
        found = [scim.user_resource(person, BASE) for person in people]
        return _reply(scim.list_resource(found, request.start_index, request.count))

    def ReplaceScimUser(
        self, request: pb.ReplaceScimUserRequest, context: grpc.ServicerContext
    ) -> httpbody_pb2.HttpBody:
        """Replace what is known of a person."""
        issuer = self._issuer()
        return self._apply(issuer, self._own(issuer, request.user_id), scim.wanted(_mapping(request.user)))

    def PatchScimUser(self, request: pb.PatchScimUserRequest, context: grpc.ServicerContext) -> httpbody_pb2.HttpBody:
        """Change what is known of a person."""
        issuer = self._issuer()
        known = self._own(issuer, request.user_id)
        document = scim.patched(scim.user_resource(known, BASE), _mapping(request.patch))
        return self._apply(issuer, known, scim.wanted(document))

    def DeleteScimUser(self, request: pb.DeleteScimUserRequest, context: grpc.ServicerContext) -> httpbody_pb2.HttpBody:
        """End a person; the record stays, for the trail names it."""
        known = self._own(self._issuer(), request.user_id)
        self._change(replace(known, enabled=False, roles=(), directory_id=scim.REMOVED))
        return httpbody_pb2.HttpBody(content_type=CONTENT_TYPE)

    def ListScimGroups(self, request: pb.ListScimGroupsRequest, context: grpc.ServicerContext) -> httpbody_pb2.HttpBody:
        """List the roles with their people."""
        issuer = self._issuer()
        _, value = scim.parse_filter(request.filter, ("displayName",))
        people = self._people(issuer)
        roles = [role for role in self._known_roles() if not value or role == value]
        found = [scim.group_resource(role, _ids(people, role), BASE) for role in roles]
        return _reply(scim.list_resource(found, request.start_index, request.count))

    def GetScimGroup(self, request: pb.GetScimGroupRequest, context: grpc.ServicerContext) -> httpbody_pb2.HttpBody:
        """Return a role with its people."""
        role = self._group_role(request.group_id)
        return _reply(scim.group_resource(role, _ids(self._people(self._issuer()), role), BASE))

    def PatchScimGroup(self, request: pb.PatchScimGroupRequest, context: grpc.ServicerContext) -> httpbody_pb2.HttpBody:
        """Give and take a role; whoever has it by another issuer or by an administrator is not touched."""
        issuer, role = self._issuer(), self._group_role(request.group_id)
        before = _ids(self._people(issuer), role)
        after = scim.members(_mapping(request.patch), before)
        changes = [self._own(issuer, item) for item in sorted(set(before) ^ set(after))]  # all exist
        gaining = [self._permitted(replace(p, roles=(*p.roles, role))) for p in changes if role not in p.roles]
        losing = [replace(p, roles=tuple(r for r in p.roles if r != role)) for p in changes if role in p.roles]
        for person in (*losing, *gaining):
            self._change(person)
        return _reply(scim.group_resource(role, _ids(self._people(issuer), role), BASE))

    def GetScimServiceProviderConfig(
        self, request: pb.GetScimServiceProviderConfigRequest, context: grpc.ServicerContext
    ) -> httpbody_pb2.HttpBody:
        """Say what can be done."""
        return _reply(discovery.config(BASE))

    def ListScimSchemas(
        self, request: pb.ListScimSchemasRequest, context: grpc.ServicerContext
    ) -> httpbody_pb2.HttpBody:
        """List the schemas."""
        return _reply(discovery.listed(discovery.schemas(BASE, self._known_roles()), request.filter))

    def GetScimSchema(self, request: pb.GetScimSchemaRequest, context: grpc.ServicerContext) -> httpbody_pb2.HttpBody:
        """Return a schema."""
        return _reply(_named(request.schema_id, discovery.schemas(BASE, self._known_roles())))

    def ListScimResourceTypes(
        self, request: pb.ListScimResourceTypesRequest, context: grpc.ServicerContext
    ) -> httpbody_pb2.HttpBody:
        """List the kinds of resources."""
        return _reply(discovery.listed(discovery.resource_types(BASE), request.filter))

    def GetScimResourceType(
        self, request: pb.GetScimResourceTypeRequest, context: grpc.ServicerContext
    ) -> httpbody_pb2.HttpBody:
        """Return a kind of resource."""
        return _reply(_named(request.resource_type_id, discovery.resource_types(BASE)))

    def _apply(self, issuer: Issuer, known: Principal, wanted: scim.Wanted) -> httpbody_pb2.HttpBody:
        """Bring a person to what the directory says; nothing is written, and no session ends, when it is so already."""
        if wanted.login != known.login:
            raise scim.invalid("mutability", "userName cannot be changed: make the person anew")
        changed = replace(
            known,
            enabled=wanted.active,
            department=wanted.department or known.department,
            roles=known.roles if wanted.roles is None else wanted.roles,
            directory_id=wanted.directory_id,
        )
        if changed != known:
            rights = [(p.enabled, p.department, p.roles) for p in (known, changed)]
            gains = changed.enabled and rights[0] != rights[1]
            known = self._change(self._permitted(changed) if gains else checked(changed, self._known_roles()))
        return _reply(scim.user_resource(known, BASE))

    def _permitted(self, person: Principal) -> Principal:
        """Return a person a directory may bring about: administrators are made by administrators."""
        person = checked(person, self._known_roles())
        directory = self._context.directory
        links = [*directory.links(without=person.subject), *replace(person, enabled=True).links()]
        if could_make_administrators(directory.policy.content, links, person.subject, person.department):
            raise scim.invalid("invalidValue", "a directory cannot make an administrator; an administrator can")
        return person

    def _issuer(self) -> Issuer:
        """Return the issuer whose people the caller manages."""
        subject = current_call().caller.subject
        for issuer in self._context.issuers.all():
            if issuer.scim_client and not issuer.disabled and subject == f"app:{issuer.scim_client}":
                return issuer
        raise ScimClientUnknown("Name this app as scim_client of an issuer first.")

    def _own(self, issuer: Issuer, user_id: str) -> Principal:
        """Return a person of the issuer; another's is not there."""
        found = self._context.principals.get(user_id)
        if found is None or found.kind != "user" or found.issuer != issuer.id or found.directory_id == scim.REMOVED:
            raise PrincipalNotFound("No user has this id.", metadata={"principal_id": user_id})
        return found

    def _people(self, issuer: Issuer) -> list[Principal]:
        everybody = self._context.everybody()
        return [p for p in everybody if p.issuer == issuer.id and p.directory_id != scim.REMOVED]

    def _group_role(self, group_id: str) -> str:
        role = f"role:{group_id}"
        if role not in self._known_roles():
            raise PrincipalNotFound("No group has this id.", metadata={"principal_id": group_id})
        return role

    def _known_roles(self) -> list[str]:
        return role_names(self._context.directory.policy.content)


def _ids(people: list[Principal], role: str) -> list[str]:
    return [person.id for person in people if role in person.roles]


def _named(wanted: str, found: list[scim.Json]) -> scim.Json:
    for document in found:
        if document["id"] == wanted:
            return document
    raise ScimResourceUnknown("No SCIM schema and no resource type has this id; list them.")


def _mapping(found: Struct) -> scim.Json:
    return json_format.MessageToDict(found)


def _reply(document: scim.Json) -> httpbody_pb2.HttpBody:
    return httpbody_pb2.HttpBody(content_type=CONTENT_TYPE, data=orjson.dumps(document))
