"""Where a request names a thing: every text field of every request of a person or an app, from the descriptors.

What a field names is read from its pattern (`^tickets/…`) or its name (`campaign_id`). What neither tells must be among
`WORDS`: a new field that names something, or nothing, is looked at by somebody before the tests pass.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass

from buf.validate import validate_pb2
from google.api import field_behavior_pb2
from google.protobuf.descriptor import Descriptor, FieldDescriptor, MethodDescriptor
from kehu.options.v1 import options_pb2 as options

from tests.architecture.test_contracts import methods

# registers of the whole installation: no row filter can be about them, who may read one may read all
SHARED = {
    "credential", "field", "group", "issuer", "key", "lifecycles", "matchModels", "metrics", "notice", "policy",
    "principal", "purpose", "relationTypes", "retentionReceipts", "retentionRules", "role", "rule", "slaPolicies",
    "sources", "source", "user", "validationRules", "qualityRules", "fields", "fieldChanges", "alert", "matchReports",
    "qualityReports", "schema", "resource_type",
}  # fmt: skip
NEW = {  # ids that a request gives to what it makes
    "CreateFieldDefinition:field_id", "CreateQualityRule:quality_rule_id", "CreateRelationType:relation_type_id",
    "CreateRetentionRule:retention_rule_id", "CreateSource:source_id", "CreateValidationRule:validation_rule_id",
    "CreatePurpose:purpose_id", "CreateNotice:notice_id", "BatchCreateInteractions:interactions.message_id",
    "BatchUpsertRecords:records.source_record_id",
}  # fmt: skip
ALIKE = {"base_policy": "policy", "profile": "profiles", "other_profile": "profiles", "campaign": "campaigns",
         "segment": "segments", "run": "runs", "access_request": "accessRequests", "session": "sessions"}  # fmt: skip
NOT_OURS = {"basket", "product", "decision", "message"}  # of other systems, or of one entry of the trail
OF_FIELD = {"parent": "departments", "assignee": "assignees", "phone": "phone", "email": "email",
            "resident_id": "resident_id", "source_record_id": "records", "owner_department": "departments",
            "department": "departments"}  # fmt: skip

DEPTH = 4  # of messages in messages
NAMES_OF_NOTHING = """
    event_types fields target_url
    action address agent attributes audiences basis body borrower callers category certificate_pem channel channels
    characters claim closed_dates code_field column columns comment conditions constant credential currency
    current_password cursor_column data_categories date_order decision default_display_name default_region
    default_stage delimiter
    departments description dimensions directory_claim display_name effect emergency encoding end etag event_type
    excluded_attributes field file_name filter find finding folder format from_day from_month group groups html
    inverse_display_name item jwks_uri key kind language least login login_claim masked_address member members method
    model month most name new_password note other_field outcome page_token pattern permitted_purposes public_jwk purpose
    q ranges reason request_id resource role roles scim_client score separator service shapes sheet stage stages
    start state status subject survivorship table target text tiers time_zone to_month totp trait types
    unified_social_credit_code update_rule url utc_offset valid_from valid_to value values vetoes view when_field with
    wording_hash
"""  # that somebody has
WORDS = frozenset(NAMES_OF_NOTHING.split())


@dataclass(frozen=True)
class Position:
    """A field of a request that names a thing of some kind."""

    method: MethodDescriptor
    path: tuple[str, ...]
    kind: str

    @property
    def id(self) -> str:
        """Return how it is called in a failure."""
        return f"{self.method.name}:{'.'.join(self.path)}"


def of_people() -> list[MethodDescriptor]:
    """Return the methods that a person or an app may call."""
    found = [(method, method.GetOptions().Extensions[options.access]) for method in methods()]
    return [method for method, rule in found if rule.audience == options.AUDIENCE_PRINCIPAL]


def texts(kind: Descriptor, path: tuple[str, ...] = ()) -> Iterator[tuple[tuple[str, ...], FieldDescriptor]]:
    """Yield the text fields that a caller fills in, each with its path."""
    for field in kind.fields:
        if field_behavior_pb2.OUTPUT_ONLY in field.GetOptions().Extensions[field_behavior_pb2.field_behavior]:
            continue
        inner = field.message_type
        if inner is None and field.type == FieldDescriptor.TYPE_STRING:
            yield (*path, field.name), field
        elif inner is not None and _is_ours(inner) and len(path) < DEPTH:
            yield from texts(inner, (*path, field.name))


def _is_ours(kind: Descriptor) -> bool:
    return kind.full_name.startswith("kehu.") and not kind.GetOptions().map_entry


def kind_of(field: FieldDescriptor) -> str:
    """Return what a field names; nothing for words."""
    rules = field.GetOptions().Extensions[validate_pb2.field]
    pattern = (rules.repeated.items.string if field.is_repeated else rules.string).pattern
    named = re.match(r"\^\(?([a-zA-Z]+)/[^$]*", pattern)
    if named:
        nested = re.findall(r"/([a-zA-Z]+)(?:/\[|$)", named.group())
        return nested[-1] if nested else named.group(1)
    if field.name in OF_FIELD:
        return OF_FIELD[field.name]
    ends = re.fullmatch(r"(.+)_ids?", field.name)
    if ends and field.name != "request_id":
        return ALIKE.get(ends.group(1), ends.group(1))
    return ""


def positions() -> list[Position]:
    """Return every position of every method at which something is named."""
    found = []
    for method in of_people():
        for path, field in texts(method.input_type):
            kind = kind_of(field)
            if kind and f"{method.name}:{'.'.join(path)}" not in NEW:
                found.append(Position(method, path, kind))
    return found
