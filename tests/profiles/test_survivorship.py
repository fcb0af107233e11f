"""Survivorship rules are data: a field's definition says how its value is chosen, and lineage says by which version."""

from __future__ import annotations

from datetime import timedelta

import pytest
from google.protobuf.field_mask_pb2 import FieldMask
from kehu.profiles.v1 import dictionary_pb2, profiles_pb2, resources_pb2

from services.profiles.believed import believe, from_plain, to_plain
from services.profiles.domain.dictionary import DEFAULT_RULES, Rule, Survivorship
from services.profiles.domain.golden import build_golden
from tests.harness import bad_fields
from tests.profiles.conftest import Desk
from tests.profiles.domain.builders import NOW, record
from tests.profiles.people import person

OLD, NEW = "2025-01-01T00:00:00Z", "2026-01-01T00:00:00Z"
TRUSTED = record("1", source_id="till", trust_rank=1, name="王建国", phone="13912345671", at=NOW - timedelta(9))
RECENT = record("2", source_id="shop", trust_rank=9, name="王建国", phone="18698765432", at=NOW)


def set_rule(desk: Desk, field: str, rule: str) -> str:
    """Change a rule by a reviewed change; return the operation that derives all profiles anew."""
    return desk.change(field, resources_pb2.FieldDefinition(survivorship=rule)).rederivation


def definition_of(desk: Desk, field: str) -> resources_pb2.FieldDefinition:
    return desk.call("GetFieldDefinition", profiles_pb2.GetFieldDefinitionRequest(name=f"fields/{field}"))


def changing(field: str, rule: str) -> dictionary_pb2.CreateFieldChangeRequest:
    return dictionary_pb2.CreateFieldChangeRequest(
        field=f"fields/{field}", reason="asked", field_definition=resources_pb2.FieldDefinition(survivorship=rule),
        update_mask=FieldMask(paths=["survivorship"]),
    )  # fmt: skip


def two_phones(desk: Desk) -> tuple[str, str, str]:
    """Take in one person whom the trusted till knows by an old phone, the shop by a new one."""
    old = desk.upsert("till", "1", person(1), OLD)
    name = desk.upsert("shop", "a", {**person(1), "phone": "13600001111"}, NEW)
    assert name == old
    return name, "+86" + person(1)["phone"], "+8613600001111"


@pytest.mark.parametrize(
    ("rule", "value", "why"),
    [("most_trusted", "+8613912345671", "less trusted"), ("most_recent", "+8618698765432", "older")],
)
def test_the_rule_decides_which_phone_is_believed_and_lineage_says_so(rule: str, value: str, why: str) -> None:
    rules = {**DEFAULT_RULES, "phone": Rule(Survivorship(rule), 3)}
    phone = build_golden((TRUSTED, RECENT), (), rules).fields["phone"]

    assert (phone.value, phone.rule, phone.rule_version) == (value, rule, 3)
    assert [item.why for item in phone.beat] == [why]


@pytest.mark.parametrize("version", [0, 2])
def test_what_is_believed_is_read_back_with_its_lineage(version: int) -> None:
    rules = {**DEFAULT_RULES, "phone": Rule(Survivorship.MOST_TRUSTED, version)}
    believed = believe((TRUSTED, RECENT), rules)

    assert from_plain(to_plain(believed)).golden == believed.golden


def test_a_golden_record_stored_before_rules_had_versions_is_read() -> None:
    plain = {"f": {"name": ["王", "till", "1", "most_trusted", NOW.isoformat(), [["张", "shop", "2", "older"]]]},
             "p": [], "e": [], "a": {}, "n": ["王", ""], "s": []}  # fmt: skip

    assert from_plain(plain).golden.fields["name"].beat[0].value == "张"


def test_a_changed_rule_derives_every_golden_record_anew_and_tells_what_changed(desk: Desk) -> None:
    name, old, new = two_phones(desk)
    other = desk.upsert("till", "7", person(7))
    assert desk.profile(name).phones[0] == new
    facts = len(desk.service.store.facts)

    set_rule(desk, "phone", "most_trusted")
    changed = definition_of(desk, "phone")
    assert (changed.rule_version, changed.survivorship) == (1, "most_trusted")
    assert desk.profile(name).phones[0] == new
    assert desk.work()

    assert desk.profile(name).phones == [old, new]
    phone = desk.lineage(name)["phone"]
    assert (phone.rule, phone.rule_version, phone.beat[0].why) == ("most_trusted", 1, "less trusted")
    assert desk.lineage(other)["phone"].rule_version == 1
    newest = desk.history(name)[0]
    assert (newest.kind, newest.changed_fields) == (resources_pb2.ProfileRevision.KIND_REDERIVED, ["phone", "phones"])
    assert len(desk.service.store.facts) == facts + 1, "others are told of the changed value, not of lineage"


def test_a_changed_rule_counts_from_the_next_write_on_before_its_operation_has_run(desk: Desk) -> None:
    name, old, _ = two_phones(desk)
    set_rule(desk, "phone", "most_trusted")
    desk.service.dictionary.forget()
    desk.upsert("shop", "a", {**person(1), "phone": "13600001111", "email": "new@example.cn"}, "2026-02-01T00:00:00Z")

    assert desk.profile(name).phones[0] == old


def test_the_operation_of_one_version_starts_once_and_reports_what_it_did(desk: Desk) -> None:
    two_phones(desk)
    operation = set_rule(desk, "phone", "most_trusted")
    assert operation
    assert desk.refused("CreateFieldChange", changing("phone", "most_trusted")) == "FIELD_CHANGE_EMPTY"

    desk.work()
    outcome = resources_pb2.Rederivation()
    desk.service.jobs.get(operation, "data-office").response.Unpack(outcome)
    assert (outcome.field, outcome.profiles_read, outcome.profiles_changed) == ("fields/phone", 1, 1)
    assert not desk.work()


def test_the_operation_waits_until_no_process_uses_the_former_rule(desk: Desk) -> None:
    from services.chassis.jobs import Worker
    from services.profiles.definitions.rederiving import Rederiver

    name, _, new = two_phones(desk)
    started = set_rule(desk, "phone", "most_trusted")
    service = desk.service
    rederiver = Rederiver(service.store, service.vault, service.tools.dictionary)
    Worker("profiles", rederiver.handlers(), service.operations).run_one()

    assert not service.jobs.get(started, "data-office").done
    assert desk.profile(name).phones[0] == new


def test_a_custom_field_follows_its_rule_with_lineage(desk: Desk) -> None:
    desk.change("hobby", resources_pb2.FieldDefinition(survivorship="most_recent", classification=2))
    desk.work()
    desk.upsert("till", "1", {**person(1), "hobby": "chess"}, OLD)
    name = desk.upsert("shop", "a", {**person(1), "hobby": "tennis"}, NEW)
    assert desk.profile(name).attributes["hobby"] == "tennis"

    set_rule(desk, "hobby", "most_trusted")
    desk.work()
    assert desk.profile(name).attributes["hobby"] == "chess"
    assert desk.lineage(name)["hobby"].rule_version == 2


def test_codes_that_come_with_the_address_have_no_rule_of_their_own_and_a_word_that_is_none_is_refused(
    desk: Desk,
) -> None:
    assert bad_fields(lambda: desk.call("CreateFieldChange", changing("city_code", "most_recent"))) == ["update_mask"]
    refused = bad_fields(lambda: desk.call("CreateFieldChange", changing("phone", "newest")))
    assert refused == ["field_definition.survivorship"]
