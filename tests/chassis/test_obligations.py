"""What a reply owes the decision: fields shown, masked or cleared by their class, wherever they sit."""

from datetime import date

import pytest
from google.longrunning import operations_pb2
from google.protobuf import struct_pb2
from hypothesis import given
from hypothesis import strategies as st
from kehu.profiles.v1 import resources_pb2

from services.chassis import obligations
from services.chassis.access import ALL_SHOWN, NOTHING_SHOWN, Obligations

TODAY = date(2026, 11, 21)
MARKETER = Obligations(masked=frozenset({"personal/name", "personal/contact", "personal/birth"}))


def a_profile() -> resources_pb2.Profile:
    return resources_pb2.Profile(
        name="profiles/1",
        display_name="李小明",
        phones=["+8613812348000", "+861069445464"],
        emails=["xiaoming@example.cn"],
        birth_date="1990-01-02",
        resident_id="110101199001020018",
        tier="gold",
    )


def treated(rights: Obligations) -> resources_pb2.Profile:
    return obligations.apply_obligations(a_profile(), rights, TODAY)


def test_a_service_sees_everything_as_it_is():
    assert a_profile() == treated(ALL_SHOWN)


def test_without_a_right_only_unpersonal_fields_remain():
    assert resources_pb2.Profile(name="profiles/1", tier="gold") == treated(NOTHING_SHOWN)


def test_a_masked_group_is_shortened_and_the_rest_cleared():
    expected = resources_pb2.Profile(
        name="profiles/1",
        display_name="李**",
        phones=["138****8000", "106****5464"],
        emails=["x***@example.cn"],
        birth_date="35-40岁",
        tier="gold",
    )
    assert expected == treated(MARKETER)


def test_messages_inside_lists_and_fields_are_treated_too():
    from kehu.profiles.v1 import profiles_pb2

    reply = profiles_pb2.ListProfilesResponse(profiles=[a_profile()], next_page_token="t")

    obligations.apply_obligations(reply, MARKETER, TODAY)

    assert ("李**", "t") == (reply.profiles[0].display_name, reply.next_page_token)


def test_the_response_of_an_operation_is_opened_and_treated():
    operation = operations_pb2.Operation(name="operations/profiles-1", done=True)
    operation.response.Pack(a_profile())

    obligations.apply_obligations(operation, MARKETER, TODAY)

    inner = resources_pb2.Profile()
    operation.response.Unpack(inner)
    assert ("李**", "operations/profiles-1") == (inner.display_name, operation.name)


def test_a_field_nobody_classified_is_cleared_even_for_the_allowed():
    from google.protobuf import descriptor_pb2, descriptor_pool, message_factory

    file = descriptor_pb2.FileDescriptorProto(name="kehu/test/unclassified.proto", package="kehu.test", syntax="proto3")
    message = file.message_type.add(name="Thing")
    message.field.add(name="secret", number=1, type=9, label=1)
    pool = descriptor_pool.Default()
    pool.Add(file) if hasattr(pool, "Add") else pool.AddSerializedFile(file.SerializeToString())
    thing = message_factory.GetMessageClass(pool.FindMessageTypeByName("kehu.test.Thing"))(secret="x")

    obligations.apply_obligations(thing, Obligations(shown=frozenset({"personal/name"})), TODAY)

    assert "" == thing.secret


def test_an_unknown_message_in_an_operation_is_emptied():
    operation = operations_pb2.Operation(name="operations/x")
    operation.metadata.type_url = "type.googleapis.com/kehu.none.v1.Secret"
    operation.metadata.value = b"\x0a\x01x"

    obligations.apply_obligations(operation, ALL_SHOWN, TODAY)

    assert b"" == operation.metadata.value


def test_google_values_without_personal_data_pass():
    value = struct_pb2.Value(string_value="counted")

    assert "counted" == obligations.apply_obligations(value, NOTHING_SHOWN, TODAY).string_value


@pytest.mark.parametrize(
    ("mask", "value", "expected"),
    [
        (obligations.mask_name, "欧阳小明", "欧**"),
        (obligations.mask_name, "", ""),
        (obligations.mask_phone, "13800138000", "138****8000"),
        (obligations.mask_phone, "62345678", "***"),
        (obligations.mask_phone, "123", "***"),
        (obligations.mask_email, "not-an-address", "***"),
        (obligations.mask_birth, "2026-11-20", "0-5岁"),
        (obligations.mask_birth, "1990-11-22", "35-40岁"),
        (obligations.mask_birth, "unknown", "***"),
        (obligations.mask_document, "110101199001020018", "110*************18"),
        (obligations.mask_document, "1234567", "***"),
        (obligations.mask_address, "浙江省杭州市西湖区文三路1号", "浙江省杭州市***"),
        (obligations.mask_address, "北京市海淀区中关村大街5号", "北京市***"),
        (obligations.mask_address, "内蒙古自治区 呼和浩特市 新城区", "内蒙古自治区 呼和浩特市***"),
        (obligations.mask_address, "云南省西双版纳傣族自治州景洪市", "云南省西双版纳傣族自治州***"),
        (obligations.mask_address, "黑龙江大兴安岭地区加格达奇", "黑龙江大兴安岭地区***"),
        (obligations.mask_address, "某处", "***"),
        (obligations.mask_address, "文三路1号城市花园5栋301室", "***"),
        (obligations.mask_address, "西湖区门市3号", "***"),
        (obligations.mask_address, "330106", "330100"),
        (obligations.mask_address, "330000", "330000"),
    ],
)
def test_masks_show_this_much(mask, value, expected):
    assert expected == mask(value, TODAY)


@given(st.text(max_size=60))
def test_masks_never_raise_and_never_show_a_long_value_whole(value):
    for mask in obligations.MASKS.values():
        shown = mask(value, TODAY)
        assert len(value) < 4 or value not in shown
