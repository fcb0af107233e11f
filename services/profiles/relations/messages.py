"""Relationships as messages."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime

from kehu.profiles.v1 import relations_pb2 as pb

from services.profiles.domain.relations import BUILT_IN_TYPES, BY_RECORD, BY_RULE, BY_STEWARD, Edge, RelationType
from services.profiles.relations.relating import Related

KINDS = {
    BY_RECORD: pb.RelationEvidence.KIND_SOURCE_RECORD,
    BY_STEWARD: pb.RelationEvidence.KIND_STEWARD,
    BY_RULE: pb.RelationEvidence.KIND_RULE,
}


def type_message(item: RelationType) -> pb.RelationType:
    """Return the message of a type."""
    return pb.RelationType(
        name=f"relationTypes/{item.id}",
        display_name=item.display_name,
        inverse_display_name=item.inverse_display_name,
        symmetric=item.symmetric,
        to_organization=item.to_organization,
        built_in=item.id in BUILT_IN_TYPES,
    )


def relationship_message(related: Related) -> pb.Relationship:
    """Return the message of a relationship, by its people's names of now."""
    relation, (first, second) = related.relation, related.ends
    message = pb.Relationship(
        name=f"relationships/{related.stored.id}",
        type=f"relationTypes/{relation.type}",
        profile=f"profiles/{first}",
        state=pb.Relationship.STATE_SUGGESTED if related.is_suggested else pb.Relationship.STATE_STATED,
        inferred=bool(relation.inferred_by),
        confidence=relation.confidence,
        valid_from=relation.valid_from,
        valid_to=relation.valid_to,
        create_time=related.stored.create_time,
    )
    message.evidence.CopyFrom(_evidence(related))
    if related.other is None:
        message.organization.CopyFrom(organization_message(related))
    else:
        message.other_profile = f"profiles/{second}"
    return message


def organization_message(related: Related) -> pb.Organization:
    """Return the message of a relationship's organization."""
    return pb.Organization(
        name=f"organizations/{related.stored.other}",
        display_name=related.relation.organization,
        unified_social_credit_code=related.relation.organization_code,
    )


def _evidence(related: Related) -> pb.RelationEvidence:
    relation = related.relation
    message = pb.RelationEvidence(kind=KINDS[relation.evidence], rule=relation.inferred_by, note=relation.note)
    if relation.evidence == BY_RECORD:
        source_id, _, record_id = relation.by.partition("/")
        message.source_record = f"sources/{source_id}/records/{record_id}"
    elif relation.evidence == BY_STEWARD:
        message.stated_by = relation.by
    message.time.FromDatetime(datetime.fromisoformat(relation.said))
    return message


def edge_message(edge: Edge, organizations: Sequence[str]) -> pb.NetworkEdge:
    """Return the message of an edge."""
    is_organization = edge.other in organizations
    return pb.NetworkEdge(
        relationship=f"relationships/{edge.relation_id}",
        type=f"relationTypes/{edge.type}",
        first=f"profiles/{edge.one}",
        second=f"{'organizations' if is_organization else 'profiles'}/{edge.other}",
        inferred=edge.is_inferred,
        confidence=edge.confidence,
    )


def stored_relation_columns(items: Sequence[pb.RelationColumn]) -> list[list[str]]:
    """Return the stored form: field, type, source, code field, and something where the other is the first."""
    return [
        [item.field, item.type.rpartition("/")[2], item.source.rpartition("/")[2], item.code_field,
         "inverse" if item.inverse else ""]
        for item in items
    ]  # fmt: skip


def relation_column_messages(stored: Sequence[Sequence[str]]) -> list[pb.RelationColumn]:
    """Return the messages of stored columns."""
    return [
        pb.RelationColumn(
            field=name, type=f"relationTypes/{kind}", source=f"sources/{source}" if source else "", code_field=code,
            inverse=bool(inverse),
        )
        for name, kind, source, code, inverse in stored
    ]  # fmt: skip
