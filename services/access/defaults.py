"""The first policy of an installation, as data: a role per department, and the auditor beside the administrator."""

from __future__ import annotations

from collections.abc import Iterator

from services.access.domain.policies import Content, Row
from services.chassis.access import RowFilter
from services.chassis.access.shares import LENT_BY, SHARED

# role, department, the purpose its people work for
ROLES = (
    ("role:owner", "*", "administration"),  # of the data of a department, beside a role there
    ("role:subscriber", "*", "administration"),  # of an app that hears of events, beside a role there
    ("role:borrower", "*", "administration"),  # of records lent one by one, beside a role there
    ("role:emergency-service", "service", "service"),  # opened by breaking the glass only
    ("role:marketer", "marketing", "marketing"),
    ("role:agent", "service", "service"),
    ("role:seller", "sales", "sales"),
    ("role:analyst", "analytics", "analysis"),
    ("role:steward", "data-office", "stewardship"),
    ("role:provisioner", "administration", "administration"),  # a company's directory, by SCIM
    ("role:auditor", "administration", "administration"),  # a person of their own beside the administrators
    ("role:administrator", "administration", "administration"),
)

# role → resource → actions, separated by spaces; * is every action of the resource
ACTIONS = {
    "role:subscriber": {
        "webhookSubscriptions": "create read list update delete activate pause renew_secret list_deliveries replay",
    },
    "role:borrower": {
        "profiles": "read list", "tickets": "read list", "search": "read", "shares": "read list revoke",
    },
    "role:owner": {"accessRequests": "read list approve reject revoke", "recertifications": "read list answer"},
    "role:emergency-service": {"profiles": "read list lookup", "search": "read", "interactions": "list"},
    "role:marketer": {
        "lifecycles": "read",
        "segments": "*", "campaigns": "*", "deliveries": "*", "suppressions": "*", "operations": "*",
        "profiles": "read list lookup read_network list_relation_types", "search": "read", "audiences": "evaluate",
        "consents": "list decide revoke", "purposes": "read list", "notices": "read list",
        "interactions": "list", "scores": "read", "metrics": "list query", "fields": "list read",
        "qualityReports": "read list measure", "qualityIncidents": "read list acknowledge remeasure",
        "qualityRules": "read list",
    },
    "role:agent": {
        "tickets": "*", "slaPolicies": "*", "operations": "*",
        "profiles": "read list lookup reveal share", "search": "read",
        "consents": "create list decide revoke", "purposes": "read list", "notices": "read list",
        "interactions": "list", "scores": "read", "deliveries": "list", "fields": "list read",
        "qualityReports": "read list measure", "qualityIncidents": "read list acknowledge remeasure",
        "qualityRules": "read list",
    },
    "role:seller": {
        "profiles": "read list lookup read_network list_relation_types share", "search": "read", "operations": "*",
        "consents": "list decide", "purposes": "read list",
        "interactions": "list", "scores": "read", "metrics": "list query", "fields": "list read",
        "qualityReports": "read list measure", "qualityIncidents": "read list acknowledge remeasure",
        "qualityRules": "read list",
    },
    "role:analyst": {
        "lifecycles": "read", "matchModels": "read list",
        "metrics": "*", "scores": "*", "interactions": "*", "audiences": "*", "operations": "*",
        "profiles": "read list", "segments": "read list preview", "campaigns": "read list",
        "deliveries": "list", "fields": "list read", "qualityReports": "read list", "qualityRules": "read list",
    },
    "role:steward": {
        "exports": "create download",
        "sources": "*", "rejects": "*", "profiles": "*", "matchCandidates": "*", "fields": "*", "retention": "*",
        "lifecycles": "*", "matchModels": "*",
        "purposes": "*", "notices": "*", "consents": "*", "index": "*", "search": "read", "operations": "*",
        "interactions": "*", "scores": "*", "metrics": "*", "tickets": "read list", "deliveries": "list",
        "qualityReports": "*", "qualityIncidents": "*", "qualityRules": "*", "auditEntries": "disclosures",
        "accessRequests": "countersign reject revoke",
    },
    "role:provisioner": {"scim": "*"},
    "role:auditor": {
        "auditEntries": "*", "auditAlerts": "*", "auditRules": "*", "accessRequests": "review revoke",
        "recertifications": "read list",
        "principals": "read list", "roles": "read list", "policies": "read list explain",
    },
    "role:administrator": {
        "exports": "trace",
        "masterKeys": "*", "principals": "*", "issuers": "*", "roles": "*", "policies": "*",
        "auditEntries": "list verify export", "auditAlerts": "list", "auditRules": "list", "recertifications": "*",
        "operations": "*", "index": "*", "sources": "read list", "matchModels": "read list activate rollback",
        "webhookSubscriptions": "read list list_deliveries pause delete",
        "fields": "list read list_changes read_change approve_change reject_change",
    },
}  # fmt: skip

OF_EVERYBODY = {  # one's own sessions and second factors, asking for a role, what is lent by and to oneself
    "account": "*",
    "shares": "read list revoke",
    "accessRequests": "create read list cancel return renew break_glass",
}

# role → right → field groups, for the purpose of the role's department only
FIELDS = {
    "role:emergency-service": {
        "show": "personal/name personal/contact personal/birth personal/address sensitive/document "
        "personal/behaviour personal/content personal/consent",
        "search": "personal/name personal/contact",
    },
    "role:marketer": {
        "mask": "personal/name personal/contact personal/birth personal/address",
        "show": "personal/behaviour personal/consent",
        "search": "personal/name personal/contact",
    },
    "role:agent": {
        "show": "personal/name personal/contact personal/address personal/behaviour personal/content personal/consent",
        "mask": "personal/birth sensitive/document",
        "search": "personal/name personal/contact personal/content",
        "reveal": "sensitive/document",
    },
    "role:seller": {
        "show": "personal/name personal/contact personal/behaviour personal/consent",
        "mask": "personal/birth personal/address",
        "search": "personal/name personal/contact",
    },
    "role:analyst": {"show": "personal/behaviour", "mask": "personal/birth personal/address"},
    "role:steward": {
        "show": "personal/name personal/contact personal/birth personal/address sensitive/document "
        "personal/behaviour personal/consent",
        "mask": "personal/content",
        "search": "personal/name personal/contact personal/address sensitive/document",
    },
}


# roles that see the quality of what their own department owns; others see that of all
OWNERS = ("role:marketer", "role:agent", "role:seller")


def default_content() -> Content:
    """Return revision 1."""
    return Content(rules=tuple(_rules()), row_filters=tuple(_row_filters()))


def _row_filters() -> Iterator[RowFilter]:
    for role, department, _ in ROLES:
        for resource in ("qualityReports", "qualityIncidents") if role in OWNERS else ():
            yield RowFilter(role, department, resource, "owner_department", ("$department",))
    for resource, field in LENT_BY.items():
        yield RowFilter("role:borrower", "*", resource, field, (SHARED,))
    yield RowFilter("role:subscriber", "*", "webhookSubscriptions", "subscriber", ("$subject",))


def _rules() -> Iterator[Row]:
    for role, department, purpose in ROLES:
        for rights in (OF_EVERYBODY if department != "*" else {}, ACTIONS[role]):
            for resource, actions in rights.items():
                for action in actions.split():
                    yield role, department, resource, action, "*", "allow"
        for right, groups in FIELDS.get(role, {}).items():
            for group in groups.split():
                yield role, department, f"fields/{group}", right, purpose, "allow"
