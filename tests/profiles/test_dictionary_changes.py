"""Changes of the data dictionary: shown in their effect, applied by a second person, kept for ever, undone."""

from __future__ import annotations

from dataclasses import replace

import grpc
import pytest
from hypothesis import given
from hypothesis import strategies as st
from kehu.options.v1 import options_pb2
from kehu.profiles.v1 import dictionary_pb2 as pb
from kehu.profiles.v1 import profiles_pb2
from kehu.profiles.v1.resources_pb2 import FieldDefinition

from services.chassis.access import FieldGrant, Obligations
from services.chassis.access.values import Condition
from services.chassis.errors import Conflict
from services.profiles.definitions.defining import Definitions
from services.profiles.definitions.proposals import CREATE, FieldChange, FieldRevision, content_of, contents, differing
from services.profiles.definitions.visibility import Seen, visibility
from services.profiles.dictionary import Dictionary
from services.profiles.domain.formats import Format, fits_format
from services.profiles.errors import FieldRevisionNotFound
from services.profiles.store import Store
from services.profiles.values import Field
from tests.profiles.conftest import SECOND, Desk
from tests.profiles.people import person
from tests.profiles.test_store import mongo_store, store

__all__ = ["mongo_store", "store"]
PERSONAL, SENSITIVE, INTERNAL = (
    options_pb2.CLASSIFICATION_PERSONAL, options_pb2.CLASSIFICATION_SENSITIVE, options_pb2.CLASSIFICATION_INTERNAL
)  # fmt: skip
HOBBY = FieldDefinition(classification=PERSONAL, group="behaviour", display_name="爱好")
CREATES, DRAFT = pb.FieldChange.KIND_CREATE, pb.FieldChange.STATE_DRAFT
OLD, NEW = "2025-01-01T00:00:00Z", "2026-01-01T00:00:00Z"


def read(desk: Desk, name: str) -> pb.FieldChange:
    return desk.call("GetFieldChange", pb.GetFieldChangeRequest(name=name))


def revisions(desk: Desk, field: str, **page: object) -> list[pb.FieldRevision]:
    request = pb.ListFieldRevisionsRequest(parent=f"fields/{field}", **page)
    return list(desk.call("ListFieldRevisions", request).field_revisions)


def roll_back(desk: Desk, field: str, revision: int) -> FieldDefinition:
    request = pb.RollbackFieldDefinitionRequest(name=f"fields/{field}", revision=revision, reason="it broke a report")
    return desk.call("RollbackFieldDefinition", request)


def update(field: str, **attributes: object) -> profiles_pb2.UpdateFieldDefinitionRequest:
    return profiles_pb2.UpdateFieldDefinitionRequest(
        field_definition=FieldDefinition(name=f"fields/{field}", **attributes)
    )


@pytest.mark.parametrize(
    ("kind", "good", "bad"),
    [
        (Format.DATE, ["2026-02-28"], ["2026-02-30", "20260228", "2026-2-28", "２０２６-02-28", "yesterday"]),
        (Format.NUMBER, ["-1.5", "0", "1e3"], ["NaN", "Infinity", "12岁", ""]),
        (Format.PHONE, ["+8613812345678"], ["13812345678", "+0123456789", "+86 13812345678", "+1234567890123456"]),
        (Format.EMAIL, ["Wang@example.cn"], ["wang", "a@b", "a@example.cn b@example.cn"]),
        (Format.CODE, ["VIP-01", "a"], ["two words", "金卡", "-x", "x" * 65]),
        (Format.BANK_CARD, ["6222021234567890128", "4111 1111 1111 1111", "4111-1111-1111-1111"],
         ["6222021234567890127", "4111 1111 1111 1112", "41111111111", "4111 1111  1111 1111", "卡4111111111111111"]),
        (Format.COMPANY_CODE, ["91110000600037341L"], ["91110000600037341M", "9111000060003734", ""]),
    ],
)  # fmt: skip
def test_a_text_is_of_a_format_as_a_whole_or_not_at_all(kind: Format, good: list[str], bad: list[str]) -> None:
    assert all(fits_format(text, kind) for text in good)
    assert not any(fits_format(text, kind) for text in bad)


@given(st.text(max_size=40), st.sampled_from(list(Format)))
def test_no_text_makes_a_format_fail_to_answer(text: str, kind: Format) -> None:
    assert fits_format(text, kind) in (True, False)


def test_what_hides_shows_keeps_or_chooses_values_is_not_changed_directly(desk: Desk) -> None:
    create = profiles_pb2.CreateFieldDefinitionRequest(field_id="hobby", field_definition=HOBBY)
    assert desk.refused("CreateFieldDefinition", create) == "FIELD_CHANGE_NEEDED"
    desk.change("hobby", HOBBY)

    risky = {"classification": SENSITIVE, "survivorship": "most_recent", "retention_days": 9, "format": 2, "mask": 1,
             "permitted_purposes": ["service"], "group": "content"}  # fmt: skip
    for attributes in ({name: value} for name, value in risky.items()):
        assert desk.refused("UpdateFieldDefinition", update("hobby", **attributes)) == "FIELD_CHANGE_NEEDED"
    delete = profiles_pb2.DeleteFieldDefinitionRequest(name="fields/hobby")
    assert desk.refused("DeleteFieldDefinition", delete) == "FIELD_CHANGE_NEEDED"
    assert desk.call("UpdateFieldDefinition", update("hobby", display_name="喜好")).classification == PERSONAL
    assert desk.refused("UpdateFieldDefinition", update("phone", survivorship="most_trusted")) == "FIELD_CHANGE_NEEDED"


def test_a_change_shows_its_effect_and_takes_a_second_person(desk: Desk) -> None:
    change = desk.propose("hobby", HOBBY)
    assert (change.kind, change.state, change.base_revision) == (
        pb.FieldChange.KIND_CREATE,
        pb.FieldChange.STATE_DRAFT,
        0,
    )
    approve = pb.ApproveFieldChangeRequest(name=change.name)
    assert desk.refused("ApproveFieldChange", approve, caller=SECOND) == "FIELD_CHANGE_NOT_PREVIEWED"
    desk.counted(change)
    assert desk.refused("ApproveFieldChange", approve) == "SECOND_PERSON_NEEDED"
    missing = profiles_pb2.GetFieldDefinitionRequest(name="fields/hobby")
    assert desk.refused("GetFieldDefinition", missing) == "FIELD_NOT_FOUND", "nothing changes before"

    applied = desk.approve(change)
    assert (applied.state, applied.revision, applied.decided_by) == (pb.FieldChange.STATE_APPLIED, 1, "user:second")
    assert desk.call("GetFieldDefinition", missing).classification == PERSONAL
    assert desk.refused("ApproveFieldChange", approve, caller=SECOND) == "FIELD_CHANGE_DECIDED"


def test_a_rejected_change_changes_nothing_and_says_why(desk: Desk) -> None:
    change = desk.propose("hobby", HOBBY)
    reject = pb.RejectFieldChangeRequest(name=change.name, reason="not needed")
    rejected = desk.call("RejectFieldChange", reject, caller=SECOND)

    assert (rejected.state, rejected.decision_reason) == (pb.FieldChange.STATE_REJECTED, "not needed")
    preview = pb.PreviewFieldChangeRequest(name=change.name)
    assert desk.refused("PreviewFieldChange", preview) == "FIELD_CHANGE_DECIDED"
    assert "hobby" not in desk.service.dictionary.all()
    listed = desk.call("ListFieldChanges", pb.ListFieldChangesRequest(field="fields/hobby"))
    assert [item.state for item in listed.field_changes] == [pb.FieldChange.STATE_REJECTED]
    request = pb.ListFieldChangesRequest(state=pb.FieldChange.STATE_DRAFT)
    assert not desk.call("ListFieldChanges", request).field_changes


def test_rows_that_would_fail_a_new_format_are_counted_by_source_with_masked_samples(desk: Desk) -> None:
    desk.call(
        "CreateFieldDefinition", profiles_pb2.CreateFieldDefinitionRequest(field_id="wedding", field_definition={})
    )
    for number in range(5):
        desk.upsert("till", str(number), {**person(number), "wedding": "2020-05-06" if number else "6 May"})
    desk.upsert("shop", "w", {**person(9), "wedding": "last year"})
    definition = FieldDefinition(format=FieldDefinition.FORMAT_DATE, classification=PERSONAL, group="birth", mask=4)
    change = desk.counted(desk.propose("wedding", definition))

    assert (change.effect.records_checked, change.effect.records_failing_format) == (6, 2)
    assert dict(change.effect.failing_by_source) == {"sources/till": 1, "sources/shop": 1}
    assert (change.effect.profiles_read, change.effect.profiles_with_value) == (6, 6)
    assert {item.source_record for item in change.samples} == {"sources/till/records/0", "sources/shop/records/w"}
    assert {item.before for item in change.samples} == {"***"}
    assert b"6 May" not in repr(desk.service.store.field_changes.page({}, "", 10)).encode()

    desk.approve(change)
    desk.upsert("till", "7", {**person(7), "wedding": "some day"})
    stored = desk.service.store.by_record_keys(["till/7"])[0]
    opened = desk.service.vault.open_record(stored.records[0], desk.service.vault.ciphers(desk.service.store, [stored]))
    assert [(item.field, item.reason) for item in opened.problems] == [("wedding", "FORMAT_MISMATCH")]


def test_values_that_a_new_rule_would_change_are_counted_with_what_they_would_become(desk: Desk) -> None:
    desk.upsert("till", "1", person(1), OLD)
    name = desk.upsert("shop", "a", {**person(1), "phone": "13600001111"}, NEW)
    desk.upsert("till", "2", person(2))
    change = desk.counted(desk.propose("phone", FieldDefinition(survivorship="most_trusted")))

    assert (change.effect.profiles_with_value, change.effect.values_changed) == (2, 1)
    (sample,) = change.samples
    assert (sample.profile, sample.before, sample.after) == (name, "136****1111", f"{person(1)['phone'][:3]}****"
                                                             f"{person(1)['phone'][-4:]}")  # fmt: skip
    desk.approve(change)
    desk.work()
    assert desk.profile(name).phones[0] == "+86" + person(1)["phone"], "what was shown is what came"


def test_a_value_that_a_steward_set_does_not_count_as_changed_by_a_rule(desk: Desk) -> None:
    desk.upsert("till", "1", person(1), OLD)
    name = desk.upsert("shop", "a", {**person(1), "phone": "13600001111"}, NEW)
    override = profiles_pb2.CreateOverrideRequest(parent=name, field="phone", value="13700002222", reason="said so")
    override.expire_time.FromJsonString("2999-01-01T00:00:00Z")
    desk.call("CreateOverride", override)

    change = desk.counted(desk.propose("phone", FieldDefinition(survivorship="most_trusted")))
    assert (change.effect.values_changed, len(change.samples)) == (0, 0)


def test_samples_are_only_of_profiles_in_reach_and_only_of_fields_one_may_see(desk: Desk) -> None:
    desk.upsert("till", "1", person(1), OLD)
    desk.upsert("shop", "a", {**person(1), "phone": "13600001111"}, NEW)
    change = desk.counted(desk.propose("phone", FieldDefinition(survivorship="most_trusted")))

    desk.harness.policy.obligations = Obligations()
    assert [(item.before, item.after) for item in read(desk, change.name).samples] == [("***", "***")]
    elsewhere = Obligations(everything=True, row_filter=(Condition("owner_department", ("marketing",)),))
    desk.harness.policy.obligations = elsewhere
    assert not read(desk, change.name).samples
    assert read(desk, change.name).effect.values_changed == 1


def test_samples_of_an_erased_person_are_gone(desk: Desk) -> None:
    desk.upsert("till", "1", person(1), OLD)
    desk.upsert("shop", "a", {**person(1), "phone": "13600001111"}, NEW)
    change = desk.counted(desk.propose("phone", FieldDefinition(survivorship="most_trusted")))
    (profile,) = desk.service.store.page_profiles("", 10, ())
    desk.service.store.destroy_data_key(profile.key_id)
    desk.service.vault.forget(profile.key_id)

    assert not read(desk, change.name).samples


def test_a_change_says_for_whom_a_field_hides_or_appears(desk: Desk) -> None:
    grants = (
        FieldGrant("personal/behaviour", "role:marketer", "marketing", "show", "marketing", "allow"),
        FieldGrant("personal/behaviour", "role:agent", "service", "mask", "service", "allow"),
        FieldGrant("sensitive/document", "role:steward", "data-office", "show", "stewardship", "allow"),
    )
    desk.harness.policy.field_grants = grants
    appears = read(desk, desk.propose("hobby", HOBBY).name).visibility
    assert [(item.subject, item.purpose, item.before, item.after) for item in appears] == [
        ("role:marketer", "marketing", "hide", "show"), ("role:agent", "service", "hide", "mask"),
    ]  # fmt: skip
    desk.change("hobby", HOBBY)
    hides = read(desk, desk.propose("hobby", None).name).visibility
    assert [(item.subject, item.before, item.after) for item in hides] == [
        ("role:marketer", "show", "hide"), ("role:agent", "mask", "hide"),
    ]  # fmt: skip


def test_visibility_counts_denials_purposes_and_open_classes() -> None:
    grants = (
        FieldGrant("personal/x", "role:a", "d", "show", "p", "allow"),
        FieldGrant("personal/x", "role:a", "d", "show", "p", "deny"),
        FieldGrant("personal/x", "role:b", "d", "*", "q", "allow"),
    )
    closed, opened = Field("f", classification=PERSONAL, group="x"), Field("f", classification=INTERNAL)
    assert visibility(None, closed, grants) == [Seen("role:b", "d", "q", "hide", "show")]
    assert visibility(None, opened, grants) == [Seen("*", "*", item, "hide", "show") for item in ("p", "q")]
    narrowed = replace(closed, permitted_purposes=["p"])
    assert visibility(closed, narrowed, grants) == [Seen("role:b", "d", "q", "show", "hide")]


def test_a_change_for_another_definition_than_that_of_now_is_outdated(desk: Desk) -> None:
    one = desk.counted(desk.propose("phone", FieldDefinition(survivorship="most_trusted")))
    desk.change("phone", FieldDefinition(survivorship="most_confirmed"))

    approve = pb.ApproveFieldChangeRequest(name=one.name)
    assert desk.refused("ApproveFieldChange", approve, caller=SECOND) == "FIELD_CHANGE_OUTDATED"
    assert desk.service.dictionary.get("phone").survivorship == "most_confirmed"


def test_an_approval_repeated_after_a_crash_goes_on_and_applies_once(desk: Desk) -> None:
    change = desk.counted(desk.propose("phone", FieldDefinition(survivorship="most_trusted")))
    original = desk.service.store.field_changes.replace

    def crash(item: FieldChange) -> FieldChange:
        raise SystemExit

    desk.service.store.field_changes.replace = crash  # type: ignore[method-assign]
    with pytest.raises(grpc.RpcError):
        desk.approve(change)
    desk.service.store.field_changes.replace = original  # type: ignore[method-assign]
    applied = desk.approve(change, caller="user:third@data-office")

    assert (applied.revision, applied.decided_by) == (1, "user:second")
    assert [item.revision for item in revisions(desk, "phone")] == [0, 1]


def test_history_tells_every_revision_with_what_differs_and_one_call_goes_back(desk: Desk) -> None:
    desk.change("hobby", HOBBY)
    desk.call("UpdateFieldDefinition", update("hobby", display_name="喜好"))
    desk.change("hobby", FieldDefinition(survivorship="most_recent"))
    desk.change("hobby", None)
    desk.work()
    back = roll_back(desk, "hobby", 3)

    assert (back.revision, back.survivorship, back.display_name) == (5, "most_recent", "喜好")
    assert back.rederivation
    found = revisions(desk, "hobby")
    assert [item.revision for item in found] == [1, 2, 3, 4, 5]
    told = [[(d.attribute, d.before, d.after) for d in item.differences] for item in found]
    assert told[1] == [("display_name", "爱好", "喜好")]
    assert told[2] == [("survivorship", "", "most_recent")]
    assert told[3] == [(a, b, c) for a, c, b in told[4]], "what removal took, going back gave"
    assert [bool(item.approver) for item in found] == [True, False, True, True, False]
    assert (found[3].HasField("field_definition"), found[2].field_definition.survivorship) == (False, "most_recent")
    assert found[4].reason == "it broke a report"
    assert [item.revision for item in revisions(desk, "hobby", page_size=2)] == [1, 2]


def test_a_built_in_field_goes_back_to_the_products_own_rule(desk: Desk) -> None:
    desk.change("phone", FieldDefinition(survivorship="most_trusted"))
    desk.work()
    back = roll_back(desk, "phone", 0)

    assert (back.survivorship, back.rule_version, back.built_in) == ("most_recent", 2, True)
    request = pb.RollbackFieldDefinitionRequest(name="fields/phone", revision=9, reason="nothing there")
    assert desk.refused("RollbackFieldDefinition", request) == "FIELD_REVISION_NOT_FOUND"
    delete = pb.CreateFieldChangeRequest(field="fields/phone", reason="no more phones")
    assert desk.refused("CreateFieldChange", delete) == "FIELD_BUILT_IN"


def test_a_repeated_proposal_is_the_first_one(desk: Desk) -> None:
    one, again = (desk.propose("hobby", HOBBY, request_id="r1") for _ in range(2))
    assert one.name == again.name


def test_a_count_cut_between_batches_counts_every_profile_once(desk: Desk) -> None:
    for number in range(7):
        desk.upsert("till", str(number), person(number))
    change = desk.propose("phone", FieldDefinition(survivorship="most_trusted"))
    desk.call("PreviewFieldChange", pb.PreviewFieldChangeRequest(name=change.name))
    original, calls = desk.service.store.page_profiles, iter(range(100))

    def page(after: str, limit: int, departments: tuple[str, ...]) -> list:
        if next(calls) == 2:
            raise SystemExit
        return original(after, limit, departments)

    desk.service.store.page_profiles = page  # type: ignore[method-assign]
    with pytest.raises(SystemExit):
        desk.work()
    operations = desk.service.operations
    for document in operations._documents.values():
        document["wake_at"] = document["create_time"]
    desk.work()

    assert read(desk, change.name).effect.profiles_read == 7


def test_definitions_are_kept_with_their_history_in_every_store(store: Store) -> None:
    definitions = Definitions(store, Dictionary(store))
    made = definitions.write(Field("hobby", display_name="one"), "user:a")
    with pytest.raises(Conflict):
        definitions.write(Field("hobby", display_name="two"), "user:b")
    second = definitions.write(replace(made, display_name="two"), "user:b", "why")
    gone = definitions.write(replace(second, is_deleted=True), "user:c")

    assert definitions.living("hobby") is None
    assert [(item.revision, item.author, item.is_deleted) for item in definitions.revisions("hobby", "", 10)] == [
        (1, "user:a", False), (2, "user:b", False), (3, "user:c", True),
    ]  # fmt: skip
    assert contents(definitions.revisions("hobby", "", 10)[1])["display_name"] == "two"
    with pytest.raises(FieldRevisionNotFound):
        definitions.roll_back(gone, 3, "user:d", "nothing before")
    back = definitions.roll_back(gone, 1, "user:d", "as it was")
    assert (back.revision, back.display_name) == (4, "one")
    assert not Dictionary(store).get("hobby").is_deleted


def test_changes_are_kept_in_every_store(store: Store) -> None:
    change = FieldChange("c1", "hobby", CREATE, {}, content_of(Field("", retention_days=3)), 0, "user:a", "why")
    store.field_changes.insert(replace(change, samples=[["FORMAT", "p1", "till/1"]]))
    (found,) = store.field_changes.page({"field": "hobby", "state": "draft"}, "", 5)

    assert (dict(found.after)["retention_days"], list(found.samples[0])) == (3, ["FORMAT", "p1", "till/1"])
    assert not store.field_changes.page({"state": "applied"}, "", 5)


def test_what_differs_is_the_same_for_a_definition_and_its_revision() -> None:
    one, two = Field("f", permitted_purposes=("a",)), Field("f", permitted_purposes=["a"], mask=2)
    kept = FieldRevision("f/1", "f", 1, content_of(two))
    assert differing(one, two) == differing(one, kept) == ("mask",)
