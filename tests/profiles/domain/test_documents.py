"""Resident identity numbers, e-mails and genders."""

import pytest
from stdnum.cn import ric

from services.profiles.domain.contacts import gender_of_title, parse_emails, parse_gender
from services.profiles.domain.documents import birth_date_of, check_digit, gender_of, parse_resident_id
from services.profiles.domain.papers import parse_document
from services.profiles.domain.plain import record_from_plain, record_to_plain
from services.profiles.domain.values import Document
from tests.profiles.domain.builders import OTHER_RESIDENT_ID, RESIDENT_ID, record


@pytest.mark.parametrize("first", ["11010519491231002", "36042619910101007", "44030519800606123"])
def test_the_check_digit_agrees_with_an_independent_implementation(first):
    assert ric.calc_check_digit(first + "0") == check_digit(first)


def test_a_number_of_fifteen_digits_becomes_one_of_eighteen():
    assert parse_resident_id("110105491231002") == ("11010519491231002X", "")


@pytest.mark.parametrize("text", ["11010519491231002x", "１１０１０５１９４９１２３１００２Ｘ", "110105 19491231 002X"])
def test_width_case_and_blanks_do_not_matter(text):
    assert parse_resident_id(text) == ("11010519491231002X", "")


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("110105194912310021", "RESIDENT_ID_CHECK_DIGIT"), ("1101051949123100", "RESIDENT_ID_UNREADABLE"),
        ("110105194902300024", "RESIDENT_ID_BIRTH"), ("990105194912310023", "RESIDENT_ID_REGION"),
        ("111111111111111111", "RESIDENT_ID_BLOCKED"), ("123456789012345678", "RESIDENT_ID_BLOCKED"),
        ("无", "RESIDENT_ID_BLOCKED"),
    ],
)  # fmt: skip
def test_a_wrong_number_is_refused_with_its_reason(text, reason):
    if reason in ("RESIDENT_ID_BIRTH", "RESIDENT_ID_REGION"):
        text = text[:17] + check_digit(text[:17])

    assert ("", reason) == parse_resident_id(text)


@pytest.mark.parametrize("region", ["810000", "820000", "830000"])
def test_a_residence_permit_of_hong_kong_macao_or_taiwan_is_a_number_like_any_other(region):
    body = f"{region}19900102301"

    assert parse_resident_id(body + check_digit(body)) == (body + check_digit(body), "")


@pytest.mark.parametrize(
    ("text", "kind", "number"),
    [
        ("E12345678", "passport", "E12345678"),
        ("ea1234567", "passport", "EA1234567"),
        ("G 1234-5678", "passport", "G12345678"),
        ("护照：K1234567A", "passport", "K1234567A"),
        ("Passport No. 533380006", "passport", "533380006"),
        ("H0123456789", "hk_macao_permit", "H0123456789"),
        ("回乡证号码 M01234567", "hk_macao_permit", "M01234567"),
        ("台胞证 01234567", "taiwan_permit", "01234567"),
        ("C12345678", "exit_permit", "C12345678"),
        ("CA1234567", "exit_permit", "CA1234567"),
        ("T12345678", "exit_permit", "T12345678"),
        ("USA110090010101", "foreigner_card", "USA110090010101"),
        ("91110000600037341L", "credit_code", "91110000600037341L"),
        ("统一社会信用代码:91110000600037341l", "credit_code", "91110000600037341L"),
    ],
)
def test_every_other_document_is_told_by_its_form(text, kind, number):
    assert parse_document(text) == (Document(kind, number), "")


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("6222 0212 3456 7890 128", "DOCUMENT_BANK_CARD"),
        ("4111111111111111", "DOCUMENT_BANK_CARD"),
        ("6222021234567890123", "RESIDENT_ID_UNREADABLE"),
        ("统一社会信用代码91110000600037342L", "DOCUMENT_CHECK_DIGIT"),
        ("91110000600037342L", "RESIDENT_ID_UNREADABLE"),
        ("01234567", "RESIDENT_ID_UNREADABLE"),
        ("护照", "RESIDENT_ID_UNREADABLE"),
        ("ABC", "RESIDENT_ID_UNREADABLE"),
    ],
)
def test_what_is_no_document_is_refused_with_its_reason(text, reason):
    assert parse_document(text) == (None, reason)


def test_a_passport_in_the_column_of_resident_ids_is_kept_as_what_it_is():
    made = record(name="John Smith", resident_id="E12345678")

    assert (made.resident_id, made.documents, made.problems) == ("", (Document("passport", "E12345678"),), ())
    assert made == record_from_plain(record_to_plain(made))
    assert not made.is_rejected


@pytest.mark.parametrize(
    ("text", "kind"),
    [("911100007109250324", "credit_code"), ("９１１１００００７１０９２５０３２４", "credit_code"),
     ("911124198108030024", "foreigner_card")],
)  # fmt: skip
def test_a_document_of_eighteen_digits_that_begin_with_no_region_is_no_wrong_resident_id(text, kind):
    made = record(name="John Smith", resident_id=text)

    assert ([item.kind for item in made.documents], made.problems) == ([kind], ())


def test_eighteen_digits_that_are_no_document_keep_the_reason_of_a_resident_id():
    reasons = [record(name="王伟", phone="13912345670", resident_id=text).problems[0].reason
               for text in ("911100007109250325", "110105194912310021", "999999999999999999")]  # fmt: skip
    assert reasons == ["RESIDENT_ID_CHECK_DIGIT", "RESIDENT_ID_CHECK_DIGIT", "RESIDENT_ID_BLOCKED"]


def test_the_number_tells_birth_date_and_gender():
    assert (birth_date_of(RESIDENT_ID), gender_of(RESIDENT_ID)) == ("1990-01-02", "male")
    assert gender_of(OTHER_RESIDENT_ID) == "female"


def test_emails_are_lowered_and_told_apart():
    assert parse_emails("A@QQ.com; 张三 <ｂ.c@X.cn>, a@qq.com") == (("a@qq.com", "b.c@x.cn"), ())


@pytest.mark.parametrize(
    ("text", "reason"),
    [("a@b", "EMAIL_UNREADABLE"), ("x@@y.com", "EMAIL_UNREADABLE"), ("hello", "EMAIL_UNREADABLE"),
     ("null@x.com", "EMAIL_BLOCKED"), ("test@test.com", "EMAIL_BLOCKED"), ("none", "EMAIL_BLOCKED")],
)  # fmt: skip
def test_what_is_no_email_is_refused_with_its_reason(text, reason):
    assert ((), (reason,)) == parse_emails(text)


def test_genders_are_read_in_every_form():
    assert {("male", "")} == {parse_gender(text) for text in ("男", "M", "male", "先生", "1", "Ｍ")}
    assert {("female", "")} == {parse_gender(text) for text in ("女", "F", "Female", "女士", "2")}
    assert {("", "")} == {parse_gender(text) for text in ("", "0", "未知", "9")}
    assert parse_gender("blue") == ("", "GENDER_UNREADABLE")


def test_a_title_implies_a_gender_only_where_it_has_one():
    assert [gender_of_title(title) for title in ("先生", "女士", "老师")] == ["male", "female", ""]
