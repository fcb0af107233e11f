"""A steward's override wins over every source until it expires, tells so, can be withdrawn, and follows its record."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import pytest
from google.protobuf.timestamp_pb2 import Timestamp
from kehu.options.v1 import options_pb2
from kehu.profiles.v1 import profiles_pb2, resources_pb2

from services.chassis.access import Obligations
from tests.harness import bad_fields
from tests.profiles.conftest import Desk, reason_of
from tests.profiles.people import person

Kind = resources_pb2.ProfileRevision
NEW_PHONE = "+8613600001111"


def request_of(name: str, field: str = "phone", value: str = "136 0000 1111", days: float = 30, **more: str):
    until = Timestamp()
    until.FromDatetime(datetime.now(UTC) + timedelta(days=days))
    more.setdefault("reason", "confirmed by phone call")
    return profiles_pb2.CreateOverrideRequest(parent=name, field=field, value=value, expire_time=until, **more)


def let_it_expire(desk: Desk, override: resources_pb2.Override) -> None:
    """Move the end of an override to now, as if its time had passed."""
    store = desk.service.store
    profile_id = override.name.split("/")[1]
    stored = store.profiles([profile_id])[profile_id]
    past = datetime.now(UTC) - timedelta(seconds=1)
    from dataclasses import replace

    stored.overrides = [replace(item, expire_time=past) for item in stored.overrides]
    store.write_profiles([(stored, [])])
    for document in desk.service.operations._documents.values():
        document.update(wake_at=past, args={**document["args"], "expire_time": past.isoformat()})


def test_an_override_wins_in_value_lineage_history_and_event(desk: Desk) -> None:
    name = desk.upsert("till", "1", person(1))
    desk.upsert("shop", "a", {**person(1), "email": "other@example.cn"})
    made = desk.call("CreateOverride", request_of(name))

    assert (made.value.phone, made.set_by, made.reason) == (NEW_PHONE, "user:test", "confirmed by phone call")
    assert desk.profile(name).phones == [NEW_PHONE, "+86" + person(1)["phone"]]
    phone = desk.lineage(name)["phone"]
    assert (phone.rule, phone.set_by, phone.reason, phone.source) == (
        "manual_override", "user:test", "confirmed by phone call", ""
    )  # fmt: skip
    assert phone.expire_time == made.expire_time
    assert [(lost.value.phone, lost.why) for lost in phone.beat] == [("+86" + person(1)["phone"], "overridden")]
    newest = desk.history(name)[0]
    assert (newest.kind, newest.changed_by) == (Kind.KIND_OVERRIDDEN, "user:test")
    assert list(newest.changed_fields) == ["phone", "phones"]
    assert desk.service.store.facts[-1].message.version == desk.profile(name).version


def test_a_newer_record_of_a_source_does_not_beat_an_override(desk: Desk) -> None:
    name = desk.upsert("till", "1", person(1))
    desk.call("CreateOverride", request_of(name))
    desk.upsert("till", "1", {**person(1), "phone": "13700002222"}, "2027-01-01T00:00:00Z")

    assert desk.profile(name).phones == [NEW_PHONE, "+8613700002222"]


@pytest.mark.parametrize(
    ("field", "text", "shown"),
    [
        ("name", "欧阳小明", {"display_name": "欧阳小明", "family_name": "欧阳", "given_name": "小明"}),
        ("birth_date", "1991年2月3日", {"birth_date": "1991-02-03"}),
        ("email", "New@Example.cn", {"emails": ["new@example.cn"]}),
        ("resident_id", "110105199001023014", {"resident_id": "110105199001023014"}),
        ("gender", "女", {"gender": "female"}),
        ("owner_department", "service", {"owner_department": "service"}),
    ],
)
def test_a_value_is_read_as_one_of_a_source_would_be(desk: Desk, field: str, text: str, shown: dict) -> None:
    name = desk.upsert("till", "1", {**person(1), "email": ""})
    desk.call("CreateOverride", request_of(name, field, text))
    profile = desk.profile(name)

    assert {
        key: list(value) if key == "emails" else value for key in shown if (value := getattr(profile, key))
    } == shown


def test_the_codes_of_an_overridden_address_come_from_it_alone(desk: Desk) -> None:
    name = desk.upsert("till", "1", person(1))
    desk.call("CreateOverride", request_of(name, "address", "北京市朝阳区建国路1号"))
    address = desk.profile(name).address

    assert (address.province_code, address.district_code) == ("110000", "110105")


@pytest.mark.parametrize(
    ("field", "text"), [("phone", "1.39E+10"), ("phone", "13600001111 13700002222"), ("birth_date", "1990-02-31"),
                        ("resident_id", "110105199001023015"), ("title", "Dr"), ("city_code", "330100")],
)  # fmt: skip
def test_a_text_that_is_no_single_value_of_the_field_is_refused(desk: Desk, field: str, text: str) -> None:
    name = desk.upsert("till", "1", person(1))

    assert desk.refused("CreateOverride", request_of(name, field, text)) == "OVERRIDE_INVALID"
    assert desk.profile(name).version == 1


def test_an_end_in_the_past_an_unknown_field_and_a_reason_with_personal_data_are_refused(desk: Desk) -> None:
    name = desk.upsert("till", "1", person(1))

    assert desk.refused("CreateOverride", request_of(name, days=-1)) == "OVERRIDE_INVALID"
    assert desk.refused("CreateOverride", request_of(name, "nonsense")) == "FIELD_NOT_FOUND"
    for reason in ("", "call 13912345678", "see a@b.cn"):
        request = request_of(name, reason=reason)
        assert bad_fields(lambda request=request: desk.call("CreateOverride", request)) == ["reason"]


def test_a_withdrawn_override_gives_the_sources_back_and_says_who_did_it(desk: Desk) -> None:
    name = desk.upsert("till", "1", person(1))
    before = desk.lineage(name)["phone"]
    made = desk.call("CreateOverride", request_of(name))
    request = profiles_pb2.DeleteOverrideRequest(name=made.name)
    desk.call("DeleteOverride", request)

    assert desk.lineage(name)["phone"] == before
    assert (desk.history(name)[0].kind, desk.history(name)[0].changed_by) == (Kind.KIND_OVERRIDE_ENDED, "user:test")
    assert desk.refused("DeleteOverride", request) == "OVERRIDE_NOT_FOUND"
    assert not desk.call("ListOverrides", profiles_pb2.ListOverridesRequest(parent=name)).overrides


def test_an_override_ends_by_itself_when_it_expires_and_others_are_told(desk: Desk) -> None:
    name = desk.upsert("till", "1", person(1))
    made = desk.call("CreateOverride", request_of(name))
    assert desk.work()
    assert desk.profile(name).phones[0] == NEW_PHONE, "its time has not come"

    facts = len(desk.service.store.facts)
    let_it_expire(desk, made)
    assert desk.work()
    assert desk.profile(name).phones == ["+86" + person(1)["phone"]]
    assert desk.history(name)[0].kind == Kind.KIND_OVERRIDE_ENDED
    assert len(desk.service.store.facts) == facts + 1


def test_an_expired_override_is_dropped_by_any_write_that_comes_first(desk: Desk) -> None:
    name = desk.upsert("till", "1", person(1))
    let_it_expire(desk, desk.call("CreateOverride", request_of(name)))
    desk.upsert("till", "1", {**person(1), "email": "new@example.cn"})

    assert desk.profile(name).phones == ["+86" + person(1)["phone"]]
    version = desk.profile(name).version
    assert desk.work()
    assert desk.profile(name).version == version


def test_the_last_override_of_a_field_counts_and_a_repeat_changes_nothing(desk: Desk) -> None:
    name = desk.upsert("till", "1", person(1))
    desk.call("CreateOverride", request_of(name, value="13711112222"))
    request = request_of(name, request_id="r1")
    first, again = desk.call("CreateOverride", request), desk.call("CreateOverride", request)

    assert first == again
    assert desk.profile(name).phones[0] == NEW_PHONE
    assert desk.profile(name).version == 3
    assert len(desk.call("ListOverrides", profiles_pb2.ListOverridesRequest(parent=name)).overrides) == 1


def test_a_merge_takes_the_override_along_and_a_split_gives_it_back_with_its_record(desk: Desk) -> None:
    one = desk.upsert("till", "1", person(1))
    other = desk.upsert("shop", "a", person(2))
    made = desk.call("CreateOverride", request_of(other))
    desk.service.taker.merger.merge([one.split("/")[1], other.split("/")[1]])
    assert desk.profile(one).phones[0] == NEW_PHONE

    request = profiles_pb2.UnmergeProfileRequest(name=one, reason="two persons")
    request.source_records.add(source="sources/shop", source_record_id="a")
    split = desk.call("UnmergeProfile", request)
    assert split.profile.phones == ["+86" + person(1)["phone"]]
    assert split.new_profile.phones == [NEW_PHONE, "+86" + person(2)["phone"]]

    let_it_expire_in(desk, split.new_profile.name)
    desk.work()
    assert desk.profile(split.new_profile.name).phones == ["+86" + person(2)["phone"]], made.name


def let_it_expire_in(desk: Desk, name: str) -> None:
    let_it_expire(desk, resources_pb2.Override(name=f"{name}/overrides/any"))


def test_nobody_overrules_a_field_that_he_may_not_read(desk: Desk) -> None:
    name = desk.upsert("till", "1", person(1))
    desk.harness.policy.obligations = Obligations(
        shown=frozenset(("personal/name",)), masked=frozenset(("personal/contact",))
    )

    assert reason_of(lambda: desk.call("CreateOverride", request_of(name))) == "PERMISSION_DENIED"
    assert desk.call("CreateOverride", request_of(name, "name", "王小明")).value.name == "王小明"


def test_nobody_overrules_a_field_for_a_purpose_that_may_not_use_it(desk: Desk) -> None:
    hobby = resources_pb2.FieldDefinition(display_name="爱好", group="behaviour", permitted_purposes=["service"])
    hobby.classification = options_pb2.CLASSIFICATION_PERSONAL
    desk.change("hobby", hobby)
    name = desk.upsert("till", "1", {**person(1), "hobby": "chess"})

    assert desk.refused("CreateOverride", request_of(name, "hobby", "go")) == "PERMISSION_DENIED"
    set_for_service = desk.call("CreateOverride", request_of(name, "hobby", "go"), purpose="service")
    delete = profiles_pb2.DeleteOverrideRequest(name=set_for_service.name)
    assert desk.refused("DeleteOverride", delete) == "PERMISSION_DENIED"
    assert desk.call("DeleteOverride", delete, purpose="service") is not None


def test_an_override_stays_sealed_in_what_is_stored(desk: Desk) -> None:
    name = desk.upsert("till", "1", person(1))
    desk.call("CreateOverride", request_of(name, reason="the customer said so"))
    stored = desk.service.store.profiles([name.split("/")[1]])[name.split("/")[1]]

    assert b"1360000" not in stored.overrides[0].sealed + stored.golden
    assert "1360000" not in repr(stored.overrides[0]) + str(desk.service.operations._documents)
