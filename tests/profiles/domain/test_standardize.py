"""Whole records: read from a source's row, never an exception, idempotent, originals kept."""

import string
from datetime import UTC, datetime
from random import Random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from services.profiles.domain import blocked, problems, text
from services.profiles.domain.addresses import parse_address
from services.profiles.domain.ages import parse_birth_years
from services.profiles.domain.contacts import parse_emails, parse_gender
from services.profiles.domain.dates import parse_birth_date, parse_timestamp
from services.profiles.domain.dictionary import DEFAULT_BY_NAME
from services.profiles.domain.divisions import division_table
from services.profiles.domain.documents import parse_resident_id
from services.profiles.domain.golden import build_golden
from services.profiles.domain.match import compare
from services.profiles.domain.model import default_model
from services.profiles.domain.names import parse_name
from services.profiles.domain.papers import parse_document
from services.profiles.domain.phones import parse_phones
from services.profiles.domain.plain import record_from_plain, record_to_plain
from services.profiles.domain.sources import ColumnMapping, SourceSettings, read_row
from services.profiles.domain.standardize import standardize
from services.profiles.domain.values import Place, RawRecord
from tests.profiles.domain.builders import FIELDS, NOW, OTHER_RESIDENT_ID, RESIDENT_ID, record, source

_WORDS = (
    "张王李欧阳建国三先生女士总老小·北京市朝阳区浙江省杭州西湖路号栋年月日农历一二十〇男女臺灣雲南１２３（）【】"
    "转分机或、；：－～　\u200b\u202e\ud800é" + string.printable
)
_LIKELY = (
    "王伟",
    "伟王",
    "王玮",
    "王先生",
    "Wang Wei",
    "13912345671",
    "a@b.cn",
    "1990-01-02",
    "男",
    "北京朝阳区",
)
texts = st.one_of(
    st.text(max_size=60),
    st.text(alphabet=_WORDS, max_size=40),
    st.text(alphabet="0123456789+-/. 年月日:Tt,、xX*转E", max_size=30),
    st.text(max_size=3).map(lambda part: part * 300),
)


@given(texts)
@settings(max_examples=600, deadline=None)
def test_no_text_makes_a_parser_raise_and_parsing_twice_changes_nothing(raw):
    assert text.clean(text.clean(raw)) == text.clean(raw)
    name, _ = parse_name(raw)
    if name and name.is_complete and name.style != "dotted":
        again = parse_name(name.full)[0]
        assert again and (again.surname, again.given) == (name.surname, name.given)
    for phone in parse_phones(raw)[0]:
        assert [phone.number] == [again.number for again in parse_phones(phone.number)[0]]
    for email in parse_emails(raw)[0]:
        assert ((email,), ()) == parse_emails(email)
    number, _ = parse_resident_id(raw)
    assert not number or (number, "") == parse_resident_id(number)
    years = parse_birth_years(raw, 2026)
    assert years is None or 1900 <= years[0] <= years[1] <= 2026
    paper, reason = parse_document(raw)
    assert (paper is None) == (reason in problems.REASONS)
    for order in ("ymd", "dmy", "mdy"):
        day, _ = parse_birth_date(raw, order, 2026)
        assert not day or (day, "") == parse_birth_date(day, order, 2026)
        parse_timestamp(raw, order, 480, 2026)
    gender, _ = parse_gender(raw)
    assert not gender or (gender, "") == parse_gender(gender)


@given(st.one_of(texts, st.text(alphabet="北京市朝阳区浙江省杭西湖县路1号-/ 吉林南大理州自治内蒙古", max_size=30)))
@settings(max_examples=600, deadline=None)
def test_an_address_read_again_from_its_own_text_is_the_same(raw):
    address, _ = parse_address(raw)

    assert address is None or parse_address(address.text)[0] in (address, None) or not address.province_code


_NAMES_OF_DIVISIONS = sorted({name for division in division_table().by_code.values() for name in division.names})


@given(
    st.lists(st.sampled_from((*_NAMES_OF_DIVISIONS, "路", "大道", "1", "号", "-", "山", "镇", "开发区")), max_size=6)
)
@settings(max_examples=600, deadline=None)
def test_divisions_in_any_order_are_read_again_as_the_same(parts):
    address, _ = parse_address("".join(parts))

    assert not address or not address.province_code or parse_address(address.text)[0] == address


@given(st.dictionaries(st.sampled_from((*FIELDS, "province", "city", "district")), texts))
@settings(max_examples=300, deadline=None)
def test_any_row_becomes_a_record_that_keeps_its_texts_and_survives_storage(fields):
    made = standardize(RawRecord("till", "1", NOW, fields), source())

    assert fields == dict(made.originals)
    assert made == record_from_plain(record_to_plain(made))
    assert all(problems.describe(problem.reason) for problem in made.problems)


@given(*[st.dictionaries(st.sampled_from(FIELDS), st.one_of(texts, st.sampled_from(_LIKELY)))] * 2)
@settings(max_examples=400, deadline=None)
def test_any_two_records_can_be_compared_either_way_round(one, other):
    left = standardize(RawRecord("till", "1", NOW, one), source())
    right = standardize(RawRecord("shop", "2", NOW, other), source())
    there, back = compare(left, right, default_model()), compare(right, left, default_model())

    assert (there.band, there.vetoes, there.rule) == (back.band, back.vetoes, back.rule)
    assert abs(there.weight - back.weight) < 1e-6 or there.steps[-1].level == "frequency"
    assert build_golden((left, right)) == build_golden((right, left))


def test_a_missing_birth_date_and_gender_come_from_the_resident_id():
    made = record(name="王伟", resident_id=RESIDENT_ID)

    assert (made.birth_date, made.gender, made.problems) == ("1990-01-02", "male", ())


def test_a_contradiction_with_the_resident_id_is_flagged_and_nothing_is_overwritten():
    made = record(name="王伟", resident_id=OTHER_RESIDENT_ID, gender="男", birth_date="1990-01-02")

    assert (made.birth_date, made.gender) == ("1990-01-02", "male")
    reasons = {problem.reason for problem in made.problems}
    assert {"RESIDENT_ID_BIRTH_CONFLICT", "RESIDENT_ID_GENDER_CONFLICT"} == reasons
    assert not made.is_rejected


def test_an_age_is_kept_as_birth_years_of_the_records_own_time_and_said_to_be_no_date():
    made = record(name="王伟", phone="13912345671", birth_date="35岁")

    assert (made.birth_date, made.birth_years) == ("", (NOW.year - 36, NOW.year - 35))
    assert [problem.reason for problem in made.problems] == ["BIRTH_YEARS_ONLY"]
    assert made == record_from_plain(record_to_plain(made))
    assert record(name="王伟", resident_id=RESIDENT_ID, birth_date="35岁").birth_years is None


def test_a_record_stored_in_the_form_of_before_is_still_read():
    made = record(name="Wang Wei", phone="13912345671", birth_date="35岁", address="杭州市西湖区文三路1号")
    plain = record_to_plain(made)
    older = {**plain, "name": plain["name"][:4], "address": plain["address"][:7]}
    del older["birth_years"]

    read = record_from_plain(older)
    assert (read.birth_years, read.address.place, read.name.surname) == (None, Place(), "Wang")
    assert (read.phones, read.address.text) == (made.phones, made.address.text)


def test_a_title_tells_the_gender_where_nothing_else_does():
    assert record(name="张三女士", phone="13912345671").gender == "female"


def test_rows_that_cannot_be_repaired_are_set_apart_and_others_only_lose_the_value():
    assert record(name="王伟", phone="1.38E+10", email="a@b.cn").is_rejected
    assert record(name="王伟", phone="13912345671", birth_date="1990-02-30").is_rejected
    assert record(name="王伟", phone="13800138000").is_rejected
    assert not record(name="王伟", phone="13800138000", email="a@b.cn").is_rejected
    assert not record(name="王伟", phone="13912345671", birth_date="农历正月初一").is_rejected


def test_a_row_is_mapped_by_the_sources_settings_and_columns_may_share_a_field():
    columns = (("卡号", "source_record_id"), ("姓", "name"), ("名", "name"), ("改", "updated_time"), ("电", "phone"))
    settings_ = SourceSettings("till", tuple(ColumnMapping(*pair) for pair in columns))
    raw = read_row(settings_, {"卡号": " K1 ", "姓": "王", "名": "伟", "改": "2026-10-01 08:00", "备注": "x"}, NOW)

    assert (raw.source_record_id, dict(raw.fields)) == ("K1", {"name": "王 伟"})
    assert datetime(2026, 10, 1, tzinfo=UTC) == raw.updated_time
    assert standardize(raw, settings_).name.full == "王伟"


def test_a_row_without_id_or_with_an_unreadable_time_is_set_apart_not_dropped():
    raw = read_row(source(), {"name": "王伟", "phone": "13912345671", "updated_time": "whenever"}, NOW)
    made = standardize(raw, source())

    assert made.is_rejected
    assert {"RECORD_ID_MISSING", "TIME_UNREADABLE"} == {problem.reason for problem in made.problems}


@pytest.mark.parametrize("stamp", ["9999-12-31 23:59:59", "2099-01-01", "4070908800"])
def test_a_change_that_lies_ahead_is_set_apart_and_does_not_win_for_ever(stamp):
    columns = (("卡号", "source_record_id"), ("改", "updated_time"))
    settings_ = SourceSettings("till", tuple(ColumnMapping(*pair) for pair in columns))
    raw = read_row(settings_, {"卡号": "K1", "改": stamp}, NOW)

    assert raw.updated_time == NOW
    assert [problem.reason for problem in raw.problems] == ["TIME_IN_THE_FUTURE"]


def test_every_reason_a_parser_gives_is_described():
    seen = {problem.reason for seed in range(300) for problem in record(**_noise(Random(seed))).problems}

    assert seen <= problems.REASONS.keys()
    assert len(seen) > 8


def _noise(random: Random) -> dict[str, str]:
    samples = (
        "0000",
        "null",
        "13800138000",
        "1.38E+10",
        "农历",
        "1990-02-30",
        "x@",
        "朝阳区",
        "1/2/90",
        "王伟",
        "1" * 18,
    )
    return {name: random.choice(samples) for name in FIELDS}


def test_a_reason_sets_a_row_apart_only_where_the_dictionary_says_so():
    assert "PHONE_DIGITS_LOST" in DEFAULT_BY_NAME["phone"].reject_reasons
    assert not blocked.is_blocked_phone("13912345671")


@pytest.mark.parametrize("text", ["z***@qq.com", "138****5678@163.com", "****@qq.com", "z***@qq.com;*@qq.com"])
def test_an_address_that_somebody_masked_is_nobodys(text):
    assert parse_emails(text) == ((), ("EMAIL_UNREADABLE",))


def test_what_was_masked_alike_makes_two_people_not_one():
    masked = [record(name=name, email="z***@qq.com") for name in ("李*明", "李明")]
    assert [item.emails for item in masked] == [(), ()]
    assert all(item.is_rejected for item in masked), "nothing is left that tells them from others"


@pytest.mark.parametrize(
    ("text", "day"),
    [
        ("1990-01-01T16:00:00.000Z", "1990-01-02"), ("1990-01-01 16:00:00+00:00", "1990-01-02"),
        ("1990-05-19T15:00:00Z", "1990-05-20"), ("1990-01-02T00:00:00Z", "1990-01-02"),
        ("1990-01-02T00:00:00+08:00", "1990-01-02"), ("1990-01-02T16:00:00", "1990-01-02"),
    ],
)  # fmt: skip
def test_a_birth_date_told_as_a_moment_in_utc_is_the_day_that_began_at_the_source(text, day):
    assert record(name="王伟", birth_date=text).birth_date == day
