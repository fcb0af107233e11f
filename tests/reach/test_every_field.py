"""What only replies carry, nobody writes: every output-only and immutable field of every writing method (BOPLA).

Generated from the protos' `field_behavior` (reliability row 7, AIP-203): a new field is tried at once, a new writing
method fails here until its request is written below. An output-only field in a request is refused or has no effect; in
the mask of an update it is refused, as is an immutable one, one that is not there, one that the caller may not read.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from datetime import UTC, datetime, timedelta

import grpc
import pytest
from google.api import field_behavior_pb2
from google.protobuf.descriptor import Descriptor, FieldDescriptor, MethodDescriptor
from google.protobuf.message import Message

from services.chassis.access import Obligations
from services.chassis.obligations import value_type
from tests.access.oracle import WORDS, class_of
from tests.harness import refused
from tests.reach.positions import of_people
from tests.reach.worlds import NARROWABLE, THEIRS, Values, World, all_worlds, soon

OUTPUT_ONLY, IMMUTABLE = field_behavior_pb2.OUTPUT_ONLY, field_behavior_pb2.IMMUTABLE
Path = tuple[str, ...]


def behaviours(field: FieldDescriptor) -> set[int]:
    return set(field.GetOptions().Extensions[field_behavior_pb2.field_behavior])


def output_only(kind: Descriptor, path: Path = ()) -> Iterator[Path]:
    """Yield where a message has fields that only replies carry."""
    for field in kind.fields:
        inner = field.message_type
        if OUTPUT_ONLY in behaviours(field):
            yield (*path, field.name)
        elif value_type(field) is not None and len(path) < 4:
            yield from output_only(inner, (*path, field.name))


def resource_of(method: MethodDescriptor) -> FieldDescriptor:
    """Return the field of an update's request that holds the resource."""
    (found,) = [
        field for field in method.input_type.fields
        if field.message_type is not None and field.message_type.full_name.startswith("kehu.")
    ]  # fmt: skip
    return found


WRITING = [method for method in of_people() if any(output_only(method.input_type))]
UPDATES = [method for method in of_people() if "update_mask" in method.input_type.fields_by_name]
FIELDS = [(method, path) for method in WRITING for path in output_only(method.input_type)]
MASKED = [
    (method, field.name) for method in UPDATES for field in resource_of(method).message_type.fields
    if {OUTPUT_ONLY, IMMUTABLE} & behaviours(field)
]  # fmt: skip
RULE = {"display_name": "born", "field": "birth_date", "severity": "SEVERITY_REJECT",
        "range": {"kind": "KIND_DATE", "least": "1960-01-01"}}  # fmt: skip


def requests_of(world: World) -> Mapping[str, Callable[[], Values]]:
    """Return a request that is taken, for each writing method of a service."""
    number = next(world.counter)
    tag = f"x{number}"

    def made(method: str, **more: object) -> Message:
        return world.ask(method, {**requests_of(world)[method](), **more}, THEIRS)

    def again(method: str, field: str, **changes: object) -> Values:
        return {field: {"name": made(method).name, **changes}}

    quality = {"dimension": "QUALITY_DIMENSION_VALIDITY", "field": "phone", "threshold": 0.9}
    retention = {
        "record_type": "RECORD_TYPE_REJECTS",
        "action": "ACTION_DELETE",
        "days": 365,
        "basis": "e-commerce law art. 31",
    }
    source = {"owner_department": THEIRS, "mapping": [{"column": "n", "field": "source_record_id"}]}
    definition = {"display_name": tag, "classification": "CLASSIFICATION_INTERNAL"}
    fields: dict[str, Callable[[], Values]] = {
        "CreateSource": lambda: {"source_id": tag, "source": source},
        "UpdateSource": lambda: again("CreateSource", "source", display_name="y"),
        "CreateValidationRule": lambda: {"validation_rule_id": tag, "validation_rule": RULE},
        "UpdateValidationRule": lambda: again("CreateValidationRule", "validation_rule", display_name="y"),
        "CreateRetentionRule": lambda: {"retention_rule_id": tag, "retention_rule": retention},
        "UpdateRetentionRule": lambda: again("CreateRetentionRule", "retention_rule", display_name="y"),
        "CreateLegalHold": lambda: {"legal_hold": {"everything": True, "reason": "a court asked"}},
        "UpdateLifecycle": lambda: {"lifecycle": {"name": "lifecycles/default", "default_display_name": tag}},
        "CreateQualityRule": lambda: {"quality_rule_id": tag, "quality_rule": quality},
        "UpdateQualityRule": lambda: again("CreateQualityRule", "quality_rule", threshold=0.8),
        "CreateFieldDefinition": lambda: {"field_id": tag, "field_definition": definition},
        "UpdateFieldDefinition": lambda: {"field_definition": {"name": "fields/phone", "description": tag}},
        "CreateFieldChange": lambda: {"field": f"fields/{tag}", "reason": "asked", "field_definition": definition},
        "CreateRelationType": lambda: {"relation_type_id": tag, "relation_type": {"display_name": tag}},
        "CreateRelationship": lambda: {"relationship": {
            "type": "relationTypes/spouse", "profile": world.make("profiles", THEIRS),
            "other_profile": world.make("profiles", THEIRS),
        }},
        "CreatePurpose": lambda: {"purpose_id": tag, "purpose": {
            "display_name": tag, "legal_basis": "LEGAL_BASIS_CONTRACT", "data_categories": ["contact"],
            "channels": ["email"], "retention_days": 3,
        }},
        "UpdatePurpose": lambda: {"purpose_id": made("CreatePurpose").name.partition("/")[2],
                                  "purpose": {"display_name": "y"}},
        "CreateNotice": lambda: {"notice_id": tag, "notice": {"display_name": tag, "versions": [VERSION]}},
        "PublishNotice": lambda: {"notice_id": made("CreateNotice").name.partition("/")[2], "version": {
            **VERSION, "effective_time": soon()}},
        "CreateSegment": lambda: {"segment": SEGMENT},
        "UpdateSegment": lambda: {"segment_id": world.make("segments", THEIRS), "segment": {"display_name": "y"}},
        "UpdateCampaign": lambda: {"campaign_id": world.make("campaigns", THEIRS), "campaign": {"display_name": "y"}},
        "UpdateTicket": lambda: {"ticket": {"name": world.make("tickets", THEIRS), "subject": "y"}},
        "CreateComment": lambda: {"parent": world.make("tickets", THEIRS), "comment": {"text": "seen"}},
        "CreateSlaPolicy": lambda: {"sla_policy": POLICY},
        "UpdateSlaPolicy": lambda: again("CreateSlaPolicy", "sla_policy", display_name="y"),
        "CreatePrincipal": lambda: {"principal": {
            "kind": "PRINCIPAL_KIND_APP", "login": tag, "department": "marketing"}},
        "UpdatePrincipal": lambda: {"principal_id": made("CreatePrincipal").name.partition("/")[2],
                                    "principal": {"department": "sales"}},
        "CreateCredential": lambda: {"principal_id": made("CreatePrincipal").name.partition("/")[2],
                                     "credential": {"kind": "CREDENTIAL_KIND_SECRET"}},
        "CreateAuthenticator": lambda: {"authenticator": {"kind": "AUTHENTICATOR_KIND_TOTP", "display_name": tag}},
        "CreateIssuer": lambda: {"issuer": {
            "issuer_id": tag, "url": f"https://{tag}.example.com", "audiences": ["kehu"], "login_claim": "email"}},
        "UpdateIssuer": lambda: {"issuer_id": made("CreateIssuer").issuer_id, "issuer": {"audiences": ["other"]}},
        "CreatePolicy": lambda: {"policy": {"comment": tag, "rules": RULES}},
        "UpdateWebhookSubscription": lambda: {"webhook_subscription": {
            "name": world.make("webhookSubscriptions", THEIRS), "display_name": "y"}},
        "CreateAccessRequest": lambda: {"access_request": {
            "role": "role:owner", "purpose": THEIRS, "reason": "absence", "end_time": _in_a_day(world)}},
        "ReviseAuditRule": lambda: {"rule_id": "night-reads", "audit_rule": {
            "version": _version(world), "enabled": True, "threshold": 3, "callers": "user", "from_hour": 21,
            "to_hour": 7, "time_zone": "Asia/Shanghai", "days": 90}},
    }  # fmt: skip
    return {**{name: (lambda name=name: world.around(name, THEIRS)) for name in AROUND}, **fields}


AROUND = ("CreateTicket", "CreateCampaign", "CreateSuppression", "RecordConsent", "BatchRecordConsents",
          "CreateWebhookSubscription")  # fmt: skip
VERSION = {"effective_time": "2026-01-01T00:00:00Z", "texts": [{"language": "zh-CN", "body": "告知"}]}
SEGMENT = {"display_name": "金卡", "rule": {"trait": {"trait": "tier", "operator": "OPERATOR_EQ", "values": ["gold"]}}}
POLICY = {
    "display_name": "Office",
    "calendar": {"days": [{"weekday": 1, "blocks": [{"start_minute": 540, "end_minute": 1020}]}]},
    "targets": [{"priority": "PRIORITY_NORMAL", "first_response_minutes": 60, "resolution_minutes": 480}],
}
RULES = [{"subject": "role:agent", "department": "service", "resource": "tickets", "action": "read", "purpose": "*",
          "effect": "allow"}]  # fmt: skip


def _in_a_day(world: World) -> str:
    return (world.behind.clock.time + timedelta(days=1)).isoformat()


def _version(world: World) -> int:
    rules = world.ask("ListAuditRules", {}, THEIRS).audit_rules
    return next(rule.version for rule in rules if rule.rule_id == "night-reads")


@pytest.fixture(scope="module")
def worlds(tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[str, World]]:
    with all_worlds(tmp_path_factory.mktemp("fields")) as found:
        for world in found.values():
            world.harness.policy.narrowed = frozenset(NARROWABLE)
        yield found


def value_for(field: FieldDescriptor) -> object:
    """Return a value that nothing here has by itself."""
    kind = field.cpp_type
    if kind == FieldDescriptor.CPPTYPE_STRING:
        return b"forged" if field.type == FieldDescriptor.TYPE_BYTES else "forged"
    if kind == FieldDescriptor.CPPTYPE_BOOL:
        return True
    if kind == FieldDescriptor.CPPTYPE_ENUM:
        return field.enum_type.values[-1].number
    return 777_777


def forge(message: Message, path: Path) -> None:
    """Set the field at a path to what nobody may write, in each item of a list."""
    name, *rest = path
    field = message.DESCRIPTOR.fields_by_name[name]
    value = getattr(message, name)
    if field.message_type is not None:
        for item in (list(value) or [value.add()]) if field.is_repeated else [value]:
            item.SetInParent()
            if rest:
                forge(item, tuple(rest))
            elif field.message_type.full_name == "google.protobuf.Timestamp":
                item.FromDatetime(FORGED)
            else:
                leaf = next(each for each in field.message_type.fields if each.message_type is None)
                forge(item, (leaf.name,))
    elif field.is_repeated:
        value[:] = [value_for(field)]
    else:
        setattr(message, name, value_for(field))


BY_TWO_PERSONS = {"CreateFieldDefinition": "FIELD_CHANGE_NEEDED"}  # nothing is written directly
FORGED = datetime(2001, 2, 3, tzinfo=UTC)


def at(message: Message, path: Path) -> object:
    """Return what stands at a path of a reply, of lists what stands in the first item."""
    for name in path:
        value = getattr(message, name)
        if message.DESCRIPTOR.fields_by_name[name].is_repeated:
            value = value[0] if value else None
        if value is None:
            return None
        message = value
    return message


def world_of(worlds: dict[str, World], method: MethodDescriptor) -> World:
    return worlds[method.containing_service.full_name]


@pytest.mark.parametrize("method", WRITING, ids=lambda method: method.name)
def test_a_request_of_every_writing_method_is_taken(worlds: dict[str, World], method: MethodDescriptor) -> None:
    """Else the tests below would pass by refusals."""
    world = world_of(worlds, method)
    request = world.request(method.name, requests_of(world)[method.name]())
    if method.name in BY_TWO_PERSONS:
        assert refused(lambda: world.call(method.name, request, THEIRS)).reason == BY_TWO_PERSONS[method.name]
    else:
        world.call(method.name, request, THEIRS)


@pytest.mark.parametrize(
    ("method", "path"), FIELDS, ids=lambda one: one.name if hasattr(one, "name") else ".".join(one)
)
def test_what_only_replies_carry_is_refused_or_without_effect(
    worlds: dict[str, World], method: MethodDescriptor, path: Path
) -> None:
    world = world_of(worlds, method)
    request = world.request(method.name, requests_of(world)[method.name]())
    forge(request, path)
    written = at(request, path)
    try:
        reply = world.call(method.name, request, THEIRS)
    except grpc.RpcError as error:
        assert error.code() is grpc.StatusCode.INVALID_ARGUMENT or method.name in BY_TWO_PERSONS
        return

    if reply.DESCRIPTOR is request.DESCRIPTOR.fields_by_name[path[0]].message_type:
        plain = world.ask(method.name, requests_of(world)[method.name](), THEIRS)
        assert at(reply, path[1:]) != written or at(plain, path[1:]) == written
    assert b"forged" not in reply.SerializeToString()


@pytest.mark.parametrize(("method", "field"), MASKED, ids=lambda one: getattr(one, "name", one))
def test_a_mask_names_nothing_that_cannot_be_changed(
    worlds: dict[str, World], method: MethodDescriptor, field: str
) -> None:
    world = world_of(worlds, method)
    for path in (field, f"{field}.x", "no_such_field", resource_of(method).name, ""):
        request = world.request(method.name, requests_of(world)[method.name]())
        request.update_mask.paths.append(path)
        with pytest.raises(grpc.RpcError) as error:
            world.call(method.name, request, THEIRS)
        assert error.value.code() is grpc.StatusCode.INVALID_ARGUMENT, path


SEEN_BY_FEW = [
    (method, field.name) for method in UPDATES for field in resource_of(method).message_type.fields
    if (found := class_of(field)) and found.classification in WORDS and OUTPUT_ONLY not in behaviours(field)
]  # fmt: skip


@pytest.mark.parametrize(("method", "field"), SEEN_BY_FEW, ids=lambda one: getattr(one, "name", one))
@pytest.mark.parametrize("masked", [True, False])
def test_nobody_changes_what_they_do_not_see_in_full(
    worlds: dict[str, World], method: MethodDescriptor, field: str, masked: bool
) -> None:
    world, resource = world_of(worlds, method), resource_of(method)
    found = class_of(resource.message_type.fields_by_name[field])
    group = frozenset({f"{WORDS[found.classification]}/{found.group}"})
    request = world.request(method.name, requests_of(world)[method.name]())
    named = getattr(request, resource.name)
    setattr(named, field, "changed")
    if masked:
        request.update_mask.paths.append(field)
    policy = world.harness.policy
    try:
        for rights in (Obligations(masked=group), Obligations()):
            policy.fixed = rights
            assert refused(lambda: world.call(method.name, request, THEIRS)).reason == "FIELD_NOT_SEEN"
        policy.fixed = Obligations(shown=group)
        assert getattr(world.call(method.name, request, THEIRS), field) == "changed"
    finally:
        policy.fixed = None


def test_every_field_of_every_writing_method_is_among_them() -> None:
    assert len(WRITING) >= 30 and len(FIELDS) >= 150 and len(MASKED) >= 60
