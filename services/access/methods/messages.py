"""Values of the domain as messages, and back."""

from __future__ import annotations

from kehu.access.v1 import access_pb2 as pb

from services.access.domain.policies import Content, Policy, Row
from services.access.domain.principals import Principal
from services.access.domain.tables import PolicyTest
from services.access.searching import Found
from services.chassis.access import MODEL, RowFilter
from services.chassis.access.wire import entry_message
from services.chassis.records import etag_of

STATES = {
    "draft": pb.POLICY_STATE_DRAFT,
    "submitted": pb.POLICY_STATE_SUBMITTED,
    "published": pb.POLICY_STATE_PUBLISHED,
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
    subject, department, resource, action, purpose, effect = rule
    return pb.PolicyRule(
        subject=subject, department=department, resource=resource, action=action, purpose=purpose, effect=effect
    )


def row_filter_message(found: RowFilter) -> pb.RowFilter:
    """Return a row filter."""
    return pb.RowFilter(
        subject=found.subject,
        department=found.department,
        resource=found.resource,
        field=found.field,
        values=found.values,
    )


def content_of(message: pb.Policy) -> Content:
    """Return the content of a drafted policy."""
    return Content(
        tuple((r.subject, r.department, r.resource, r.action, r.purpose, r.effect) for r in message.rules),
        tuple((link.member, link.role, link.department) for link in message.role_links),
        tuple(RowFilter(f.subject, f.department, f.resource, f.field, tuple(f.values)) for f in message.row_filters),
        message.model or MODEL,
        tuple(PolicyTest(test.name, test.table) for test in message.tests),
    )


def policy_message(policy: Policy, whole: bool = True) -> pb.Policy:
    """Return a revision, with its rules when `whole`."""
    message = pb.Policy(
        name=f"policies/{policy.id}",
        version=policy.number,
        state=STATES[policy.state],
        base_version=policy.base,
        comment=policy.comment,
        author=policy.author,
        submitter=policy.submitter,
        approver=policy.approver,
        create_time=policy.create_time,
        update_time=policy.update_time,
        etag=etag_of(policy.version),
    )
    if whole:
        message.model = policy.content.model
        message.rules.extend(rule_message(rule) for rule in policy.content.rules)
        for member, role, department in policy.content.links:
            message.role_links.add(member=member, role=role, department=department)
        message.row_filters.extend(row_filter_message(found) for found in policy.content.row_filters)
        for test in policy.content.tests:
            message.tests.add(name=test.name, table=test.table)
    return message


def found_message(found: Found) -> pb.AuditEntry:
    """Return an entry with its name, its place in the chain."""
    message = entry_message(found.entry)
    message.name = f"auditEntries/{found.sequence}-{found.index}"
    return message
