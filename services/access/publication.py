"""What access publishes, as messages: rules, revocations and keys."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence

from kehu.access.v1 import access_pb2 as pb
from kehu.access.v1 import conditions_pb2 as pb_conditions

from services.access.domain.policies import Content, Row
from services.access.domain.tokens import Revocation, SigningKey
from services.chassis.access import RowFilter
from services.chassis.access.rules import Shape
from services.chassis.access.tables import Table
from services.chassis.access.wire import table_message
from services.chassis.access.wire_conditions import condition_message
from services.chassis.access.wire_quotas import quota_message
from services.chassis.config import MESSAGE_BYTES

LONGEST_REPLY = MESSAGE_BYTES - 64 * 1024
MOST_POLICY_BYTES = MESSAGE_BYTES // 2  # of rules on their way: shares, revocations and people to come go beside them


def revocation_set(revoked: Sequence[Revocation]) -> pb.RevocationSet:
    """Return all revocations as a message; `revoked` is sorted by id."""
    mark = hashlib.sha256(repr([(r.id, r.at.timestamp()) for r in revoked]).encode()).hexdigest()[:16]
    tokens = [r.id.removeprefix("token:") for r in revoked if r.id.startswith("token:")]
    subjects = {r.id: r.at.timestamp() for r in revoked if not r.id.startswith("token:")}
    return pb.RevocationSet(revocations_version=mark, token_ids=tokens, subjects=subjects)


def key_message(key: SigningKey) -> pb.JsonWebKey:
    """Return the public half of a key as a JWK."""
    return pb.JsonWebKey(kty="OKP", crv="Ed25519", x=key.public, kid=key.key_id, use="sig", alg="EdDSA")


def sorted_set(content: Content, number: int, links: Sequence[Row], mark: str = "") -> pb.RuleSet:
    """Return all rules as a message, their tables made anew.

    Raises:
        Invalid: rules or links do not fit the model.
    """
    shape = Shape.of(content.model)
    return rule_set(content, number, shape.rules(content.rules), shape.links(links), mark)


def rule_set(content: Content, number: int, rules: Table, links: Table, mark: str) -> pb.RuleSet:
    """Return all rules as a message."""
    return pb.RuleSet(
        rules_version=mark,
        policy_version=number,
        model=content.model,
        rule_table=table_message(rules),
        link_table=table_message(links),
        row_filters=[row_filter_message(found) for found in content.row_filters],
        conditions=[condition_message(condition) for condition in content.conditions],
        departments=[pb_conditions.Department(name=name, parent=parent) for name, parent in content.departments],
        teams=[pb_conditions.Team(name=name, members=members) for name, members in content.teams],
        quotas=[quota_message(quota) for quota in content.quotas],
    )


def row_filter_message(found: RowFilter) -> pb.RowFilter:
    """Return a row filter as a message."""
    return pb.RowFilter(
        subject=found.subject,
        department=found.department,
        resource=found.resource,
        field=found.field,
        values=found.values,
    )
