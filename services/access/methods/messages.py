"""Values of the domain as messages, and back."""

from __future__ import annotations

import itertools

from kehu.access.v1 import access_pb2 as pb

from services.access.domain.errors import PolicyInvalid
from services.access.domain.policies import Content, Heading, Policy, Row
from services.access.domain.principals import Principal
from services.access.domain.tables import PolicyTest
from services.access.domain.vocabulary import FIRST_DEPARTMENTS
from services.access.publication import row_filter_message
from services.access.searching import Found
from services.chassis.access import MODEL, Clause, Condition, Except, RowFilter
from services.chassis.access.conditions import CONDITION_SEPARATOR
from services.chassis.access.wire import entry_message
from services.chassis.access.wire_conditions import condition_message, condition_of, seconds, when
from services.chassis.access.wire_quotas import quota_message, quota_of
from services.chassis.errors import FieldViolation
from services.chassis.records import etag_of

STATES = {
    "draft": pb.POLICY_STATE_DRAFT,
    "submitted": pb.POLICY_STATE_SUBMITTED,
    "published": pb.POLICY_STATE_PUBLISHED,
    "shipped": pb.POLICY_STATE_SHIPPED,
}


def principal_message(principal: Principal, secret: pb.PrincipalSecret | None = None) -> pb.Principal:
    """Return a principal, with its secret only where it is shown once."""
    return pb.Principal(
        name=f"principals/{principal.id}",
        subject=principal.subject,
        kind=pb.PRINCIPAL_KIND_APP if principal.kind == "app" else pb.PRINCIPAL_KIND_PERSON,
        login=principal.login,
        department=principal.department,
        roles=principal.roles,
        state=pb.PRINCIPAL_STATE_ACTIVE if principal.enabled else pb.PRINCIPAL_STATE_DISABLED,
        create_time=principal.create_time,
        update_time=principal.update_time,
        etag=etag_of(principal.version),
        lock_end_time=principal.locked_until,
        secret=secret,
    )


def rule_message(rule: Row) -> pb.PolicyRule:
    """Return a line `p`."""
    subject, department, resource, action, purpose, effect, *conditions = rule
    return pb.PolicyRule(
        subject=subject, department=department, resource=resource, action=action, purpose=purpose, effect=effect,
        conditions=conditions[0].split(CONDITION_SEPARATOR) if conditions else (),
    )  # fmt: skip


def rule_of(message: pb.PolicyRule) -> Row:
    """Return the line `p` of a rule."""
    m = message
    row = (m.subject, m.department, m.resource, m.action, m.purpose, m.effect)
    return (*row, CONDITION_SEPARATOR.join(m.conditions)) if m.conditions else row


def link_message(link: Row) -> pb.RoleLink:
    """Return a line `g`."""
    member, role, department, *times = link
    found = pb.RoleLink(member=member, role=role, department=department)
    for name, text in zip(("start_time", "end_time"), times, strict=False):
        moment = when(float(text))
        if moment is not None:
            getattr(found, name).CopyFrom(moment)
    return found


def link_of(message: pb.RoleLink) -> Row:
    """Return the line `g` of a link."""
    row = (message.member, message.role, message.department)
    if not message.HasField("start_time") and not message.HasField("end_time"):
        return row
    times = [
        str(seconds(getattr(message, name))) if message.HasField(name) else "0" for name in ("start_time", "end_time")
    ]
    return (*row, *times)


def clause_message(clause: Clause) -> pb.RowClause:
    """Return what must hold of a row."""
    if isinstance(clause, Condition):
        return pb.RowClause(field=clause.field, values=clause.values)
    if isinstance(clause, Except):
        return pb.RowClause(field=clause.without, values=clause.excluded, excluded=True)
    return pb.RowClause(
        alternatives=[
            pb.RowAlternative(clauses=[clause_message(each) for each in alternative])
            for alternative in clause.alternatives
        ]
    )


def content_of(message: pb.Policy) -> Content:
    """Return the content of a drafted policy.

    Raises:
        PolicyInvalid: a condition has no test.
    """
    bad = [n for n, condition in enumerate(message.conditions) if not condition.WhichOneof("test")]
    if bad:
        violations = [FieldViolation(f"policy.conditions[{n}]", "give it one test") for n in bad]
        raise PolicyInvalid("A condition has no test.", violations=violations)
    return Content(
        tuple(rule_of(rule) for rule in message.rules),
        tuple(link_of(link) for link in message.role_links),
        tuple(RowFilter(f.subject, f.department, f.resource, f.field, tuple(f.values)) for f in message.row_filters),
        message.model or MODEL,
        tuple(PolicyTest(test.name, test.table) for test in message.tests),
        tuple(condition_of(condition) for condition in message.conditions),
        tuple((each.name, each.parent) for each in message.departments) or FIRST_DEPARTMENTS,
        tuple((each.name, tuple(each.members)) for each in message.teams),
        tuple(quota_of(quota) for quota in message.quotas),
    )


REPLY_BYTES = 2 * 1024 * 1024  # of rules; a message of gRPC has 4 MiB at most


def heading_message(found: Heading) -> pb.Policy:
    """Return a revision without its content."""
    return pb.Policy(
        name=f"policies/{found.id}",
        version=found.number,
        state=STATES[found.state],
        base_version=found.base,
        comment=found.comment,
        author=found.author,
        submitter=found.submitter,
        approver=found.approver,
        create_time=found.create_time,
        update_time=found.update_time,
        etag=etag_of(found.version),
        rule_count=found.rule_count,
    )


def policy_message(policy: Policy, first_rule: int = 0) -> pb.Policy:
    """Return a revision with its rules from one on, as many as a reply holds, and all else."""
    message = heading_message(policy.heading())
    message.model = policy.content.model
    left = REPLY_BYTES
    for rule in itertools.islice(policy.content.rules, first_rule, None):
        left -= sum(len(word.encode()) + 3 for word in rule)
        if left < 0:
            break
        message.rules.append(rule_message(rule))
    message.role_links.extend(link_message(link) for link in policy.content.links)
    message.conditions.extend(condition_message(condition) for condition in policy.content.conditions)
    for name, parent in policy.content.departments:
        message.departments.add(name=name, parent=parent)
    for name, members in policy.content.teams:
        message.teams.add(name=name, members=members)
    message.quotas.extend(quota_message(quota) for quota in policy.content.quotas)
    message.row_filters.extend(row_filter_message(found) for found in policy.content.row_filters)
    for test in policy.content.tests:
        message.tests.add(name=test.name, table=test.table)
    return message


def found_message(found: Found) -> pb.AuditEntry:
    """Return an entry with its name, its place in the chain."""
    message = entry_message(found.entry)
    message.name = f"auditEntries/{found.sequence}-{found.index}"
    return message
