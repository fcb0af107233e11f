"""The golden record: survivorship and lineage."""

from datetime import timedelta
from itertools import permutations

from hypothesis import given
from hypothesis import strategies as st

from services.profiles.domain import golden
from services.profiles.domain.dictionary import (
    DEFAULT_BY_NAME,
    DEFAULT_FIELDS,
    Classification,
    FieldDefinition,
    Rule,
    Survivorship,
    is_visible,
    right_of,
    severity_of,
    visible_fields,
)
from services.profiles.domain.golden import build_golden
from services.profiles.domain.values import ManualOverride, Severity
from tests.profiles.domain.builders import NOW, RESIDENT_ID, record

OLD = NOW - timedelta(days=300)
TILL = record("1", source_id="till", trust_rank=10, name="王建国", phone="13912345671", at=OLD, address="北京朝阳区")
SHOP = record(
    "2", source_id="shop", trust_rank=20, name="王建国", phone="18698765432", email="w@b.cn", birth_date="1990-02-01"
)
CALLS = record(
    "3", source_id="calls", trust_rank=30, name="王先生", resident_id=RESIDENT_ID, at=OLD,
    address="浙江省杭州市西湖区文三路1号",
)  # fmt: skip


def test_the_result_does_not_depend_on_the_order_of_the_records():
    results = [build_golden(order) for order in permutations((TILL, SHOP, CALLS))]

    assert all(result == results[0] for result in results)


def test_the_newest_phone_wins_and_says_what_it_beat():
    phone = build_golden((TILL, SHOP)).fields["phone"]

    assert (
        phone.value, phone.source_id, phone.source_record_id, phone.rule, phone.time
    ) == ("+8618698765432", "shop", "2", "most_recent", NOW)  # fmt: skip
    assert [(lost.value, lost.source_id, lost.source_record_id, lost.why) for lost in phone.beat] == [
        ("+8613912345671", "till", "1", "older")
    ]


def test_the_most_complete_name_wins_over_a_newer_title():
    golden = build_golden((SHOP, CALLS))

    assert (golden.value("name"), golden.value("title")) == ("王建国", "先生")
    assert golden.fields["name"].beat[0].why == "less complete"


def test_a_name_that_most_records_agree_on_beats_a_slip_in_the_most_trusted_one():
    slip = record("9", source_id="till", trust_rank=1, name="王健国", phone="13912345671")
    name = build_golden((slip, TILL, SHOP)).fields["name"]

    assert (name.value, name.rule) == ("王建国", "most_confirmed")
    assert [(lost.value, lost.why) for lost in name.beat] == [("王健国", "less confirmed")]


def test_a_birth_date_proven_by_the_resident_id_beats_a_more_trusted_one():
    golden = build_golden((SHOP, CALLS))

    assert golden.value("birth_date") == "1990-01-02"


def test_all_codes_come_from_the_address_that_was_chosen():
    golden = build_golden((TILL, CALLS))

    assert tuple(golden.value(name) for name in ("province_code", "city_code", "district_code")) == (
        "330000",
        "330100",
        "330106",
    )
    assert {("calls", "3")} == {
        (golden.fields[name].source_id, golden.fields[name].source_record_id)
        for name in ("address", "province_code", "city_code", "district_code")
    }


def test_all_phones_and_emails_are_kept_the_believed_one_first():
    golden = build_golden((TILL, SHOP))

    assert [phone.value for phone in golden.phones] == ["+8618698765432", "+8613912345671"]
    assert [email.value for email in golden.emails] == ["w@b.cn"]


def test_a_stewards_override_beats_every_source_and_the_last_one_counts():
    first = ManualOverride("phone", "+8613712345671", record("user:1", source_id="steward", at=OLD))
    last = ManualOverride("phone", "+8613612345671", record("user:2", source_id="steward"))
    golden = build_golden((TILL, SHOP), (last, first))
    phone = golden.fields["phone"]

    assert (
        phone.value, phone.source_id, phone.source_record_id, phone.rule
    ) == ("+8613612345671", "steward", "user:2", "manual_override")  # fmt: skip
    assert [lost.value for lost in phone.beat] == ["+8613712345671", "+8618698765432", "+8613912345671"]
    assert [item.value for item in golden.phones] == ["+8613612345671", "+8618698765432", "+8613912345671"]


def test_a_profile_of_nothing_has_no_fields():
    assert build_golden(()).fields == {}
    assert build_golden(()).value("name") == ""


def test_a_new_field_is_hidden_until_it_is_classified():
    new = FieldDefinition("shoe_size", "鞋码", "EU size", "sales", purposes=("marketing",))

    assert not is_visible(new)
    assert not is_visible(DEFAULT_BY_NAME.get("shoe_size"))
    assert "shoe_size" not in visible_fields((*DEFAULT_FIELDS, new), "marketing")


def test_a_field_is_visible_only_for_the_purposes_it_was_given():
    assert "resident_id" not in visible_fields(DEFAULT_FIELDS, "marketing")
    assert "resident_id" in visible_fields(DEFAULT_FIELDS, "service")
    assert visible_fields(DEFAULT_FIELDS, "curiosity") == ()


def test_every_default_field_is_classified_owned_and_has_a_purpose():
    for item in DEFAULT_FIELDS:
        assert is_visible(item), item.name
        assert item.owner_department and item.value_format and item.purposes, item.name
        is_personal = item.classification in (Classification.PERSONAL, Classification.SENSITIVE)
        assert is_personal == (item.retention_days > 0) == bool(item.group), item.name


def test_the_dictionary_names_rights_and_grades_problems():
    assert right_of(DEFAULT_BY_NAME["resident_id"]) == "fields/sensitive/document"
    assert Severity.REJECT is severity_of(DEFAULT_BY_NAME, "phone", "PHONE_DIGITS_LOST")
    assert Severity.WARNING is severity_of(DEFAULT_BY_NAME, "phone", "PHONE_BLOCKED")
    assert Severity.WARNING is severity_of(DEFAULT_BY_NAME, "shoe_size", "TEXT_TOO_LONG")


@given(
    st.lists(st.tuples(st.integers(1, 2), st.integers(0, 2), st.sampled_from("ab"), st.integers(0, 2)), min_size=2,
             max_size=5),
    st.sampled_from(list(Survivorship)),
)  # fmt: skip
def test_a_value_that_all_tell_has_the_lineage_that_ranking_all_claims_gives(
    told: list[tuple[int, int, str, int]], survivorship: Survivorship
) -> None:
    records = [
        record(str(at), source_id=source, trust_rank=rank, at=NOW + timedelta(days=day))
        for at, (rank, day, source, _) in enumerate(told)
    ]
    depths = {item.key: depth for item, (_, _, _, depth) in zip(records, told, strict=True)}
    found = [("same", item, depths[item.key]) for item in records]

    best = golden.chosen(records, lambda item: [("same", depths[item.key])], Rule(survivorship))

    assert best == golden._golden_field(golden._ranked(found, survivorship), Rule(survivorship))
    assert best == golden.chosen(records[::-1], lambda item: [("same", depths[item.key])], Rule(survivorship))
