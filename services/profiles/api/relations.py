"""Relationships: their types, and what is said of two."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime

import grpc
from google.longrunning import operations_pb2
from google.protobuf import empty_pb2
from kehu.profiles.v1 import relations_pb2 as pb

from services.chassis import paging
from services.chassis.errors import AlreadyExists
from services.chassis.jobs import Owner
from services.chassis.records import new_id
from services.chassis.server import current_call
from services.profiles.api.common import Tools, id_of, is_in_reach, profile_in_reach
from services.profiles.domain.relations import (
    BUILT_IN_TYPES,
    BY_STEWARD,
    STATED,
    Relation,
    RelationType,
    is_day,
    organization_key,
)
from services.profiles.errors import ProfileNotFound, RelationInvalid, RelationshipExists, RelationTypeExists
from services.profiles.relations.messages import relationship_message, type_message
from services.profiles.relations.relating import Related, Relations, anchor_of, missing
from services.profiles.relations.suggesting import SUGGEST
from services.profiles.values import Profile
from services.profiles.vault import ErasedError

MOST_LISTED = 500  # ListRelationshipsResponse documents it
ALL = 1000


class RelationsPart:
    """RPCs of relationships."""

    tools: Tools

    def CreateRelationType(
        self, request: pb.CreateRelationTypeRequest, context: grpc.ServicerContext
    ) -> pb.RelationType:
        """Register a type."""
        given, metadata = request.relation_type, {"name": f"relationTypes/{request.relation_type_id}"}
        if given.symmetric and (given.inverse_display_name or given.to_organization):
            raise _invalid("symmetric", "a type that is the same both ways has no inverse and no organization")
        made = RelationType(
            request.relation_type_id, given.display_name, given.inverse_display_name, given.symmetric,
            given.to_organization,
        )  # fmt: skip
        try:
            if made.id in BUILT_IN_TYPES:
                raise AlreadyExists("it comes with the product")
            return type_message(self.tools.store.relation_types.insert(made))
        except AlreadyExists as error:
            raise RelationTypeExists("a type with this id exists already", metadata=metadata) from error

    def ListRelationTypes(
        self, request: pb.ListRelationTypesRequest, context: grpc.ServicerContext
    ) -> pb.ListRelationTypesResponse:
        """List types, built-in and registered."""
        size, of_filter = paging.page_size_of(request.page_size), paging.filter_hash("relationTypes")
        after = str(paging.decode_token(request.page_token, of_filter).get("after", "") or "")
        known = {**BUILT_IN_TYPES, **{item.id: item for item in self.tools.store.relation_types.page({}, "", ALL)}}
        found = [known[name] for name in sorted(known) if name > after]
        token = paging.encode_token({"after": found[size - 1].id}, of_filter) if len(found) > size else ""
        return pb.ListRelationTypesResponse(relation_types=map(type_message, found[:size]), next_page_token=token)

    def CreateRelationship(
        self, request: pb.CreateRelationshipRequest, context: grpc.ServicerContext
    ) -> pb.Relationship:
        """State a relationship."""
        given, caller = request.relationship, current_call().caller
        kind, first, other = self._checked(given)
        said = datetime.now(UTC).isoformat(timespec="seconds")
        relation = Relation(
            kind.id, anchor_of(first), anchor_of(other) if other else "", BY_STEWARD, caller.subject, said,
            given.confidence or 1.0, given.valid_from, given.valid_to, given.organization.display_name.strip(),
            given.organization.unified_social_credit_code.strip().upper(), request.note,
        )  # fmt: skip
        relation_id = new_id(request.request_id, "relationship", caller.subject)
        repeated = self.tools.store.relations.get(relation_id)
        if repeated is None:
            self._check_new(relation, kind, first, other)
            try:
                self.tools.store.relations.insert(self._relations.state(relation, relation_id, STATED))
            except ErasedError:
                raise ProfileNotFound("there is no such profile", metadata={"name": given.profile}) from None
        return relationship_message(self._relations.get(relation_id))

    def _checked(self, given: pb.Relationship) -> tuple[RelationType, Profile, Profile | None]:
        kind = self._relations.type_of(id_of(given.type))
        if kind is None:
            raise _invalid("type", "there is no such type")
        if kind.to_organization != (given.WhichOneof("second") == "organization"):
            wanted = "an organization" if kind.to_organization else "another person"
            raise _invalid("second", f"the second of this type is {wanted}")
        first = profile_in_reach(self.tools.store, given.profile)
        other = profile_in_reach(self.tools.store, given.other_profile) if given.other_profile else None
        if other is not None and other.profile_id == first.profile_id:
            raise _invalid("other_profile", "nobody has a relationship to oneself")
        if not is_day(given.valid_from) or not is_day(given.valid_to):
            raise _invalid("valid_from", "there is no such day")
        if given.valid_to and given.valid_from > given.valid_to:
            raise _invalid("valid_to", "it ends before it begins")
        if kind.to_organization:
            self._check_organization(given.organization)
        return kind, first, other

    def _check_organization(self, given: pb.Organization) -> None:
        try:
            key = organization_key(given.display_name, given.unified_social_credit_code.strip().upper())
        except ValueError:
            raise _invalid("unified_social_credit_code", "its check character is wrong") from None
        if not key:
            raise _invalid("organization", "give its name or its unified social credit code")

    def _check_new(self, relation: Relation, kind: RelationType, first: Profile, other: Profile | None) -> None:
        """Refuse what is said already and goes on; of a type that is the same both ways, either way round."""
        second = other.profile_id if other else self._relations.organization_id(relation)
        wanted = {(first.profile_id, second)} | ({(second, first.profile_id)} if kind.symmetric else set())
        for item in self._relations.of([first])[0]:
            if item.relation.type == kind.id and item.ends in wanted and not item.relation.valid_to:
                name = f"relationships/{item.stored.id}"
                raise RelationshipExists("the two have this relationship already", metadata={"name": name})

    def ListRelationships(
        self, request: pb.ListRelationshipsRequest, context: grpc.ServicerContext
    ) -> pb.ListRelationshipsResponse:
        """List a person's relationships to those in reach."""
        profile = profile_in_reach(self.tools.store, request.parent)
        found, is_cut = self._relations.of([profile])
        shown = [item for item in found if _is_reached(item)]
        return pb.ListRelationshipsResponse(
            relationships=map(relationship_message, shown[:MOST_LISTED]), truncated=is_cut or len(shown) > MOST_LISTED
        )

    def ConfirmRelationship(
        self, request: pb.ConfirmRelationshipRequest, context: grpc.ServicerContext
    ) -> pb.Relationship:
        """Say that what a rule suggests is so."""
        related = self._reached(request.name)
        if not related.is_suggested:
            return relationship_message(related)
        said, by = datetime.now(UTC).isoformat(timespec="seconds"), current_call().caller.subject
        return relationship_message(
            self._relations.change(
                related.stored.id,
                lambda item: replace(item, evidence=BY_STEWARD, by=by, said=said, confidence=1.0),
                STATED,
            )
        )

    def EndRelationship(self, request: pb.EndRelationshipRequest, context: grpc.ServicerContext) -> pb.Relationship:
        """Say until when it held."""
        related = self._reached(request.name)
        if not is_day(request.valid_to) or request.valid_to < related.relation.valid_from:
            raise _invalid("valid_to", "it is no day, or before the relationship began")
        return relationship_message(
            self._relations.change(
                related.stored.id, lambda item: replace(item, valid_to=request.valid_to), related.stored.state
            )
        )

    def DeleteRelationship(
        self, request: pb.DeleteRelationshipRequest, context: grpc.ServicerContext
    ) -> empty_pb2.Empty:
        """Remove it."""
        self._relations.remove(self._reached(request.name))
        return empty_pb2.Empty()

    def SuggestRelationships(
        self, request: pb.SuggestRelationshipsRequest, context: grpc.ServicerContext
    ) -> operations_pb2.Operation:
        """Queue the suggestions."""
        caller = current_call().caller
        owner = Owner(caller.subject, caller.department)
        return self.tools.jobs.start(SUGGEST, {}, pb.RelationSuggestions(), owner, request.request_id)

    @property
    def _relations(self) -> Relations:
        return Relations(self.tools.store, self.tools.vault)

    def _reached(self, name: str) -> Related:
        related = self._relations.get(id_of(name))
        if not _is_reached(related):
            raise missing(related.stored.id)
        return related


def _is_reached(item: Related) -> bool:
    return all(is_in_reach(profile) for profile in (item.one, item.other) if profile)


def _invalid(field: str, why: str) -> RelationInvalid:
    return RelationInvalid(f"{field}: {why}", metadata={"field": field})
