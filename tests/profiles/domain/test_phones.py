"""Phones of a cell."""

import pytest

from services.profiles.domain.phones import parse_phones


@pytest.mark.parametrize(
    "text",
    [
        "13812345670", "138 1234 5670", "138-1234-5670", "１３８１２３４５６７０",
        "+86 138-1234-5670", "008613812345670",
        "86-13812345670", "手机:13812345670", "13812345670.0", "(138)12345670",
    ],
)  # fmt: skip
def test_every_written_form_of_a_mobile_is_one_number(text):
    phones, reasons = parse_phones(text)

    assert ([phone.number for phone in phones], reasons) == (["+8613812345670"], ())


@pytest.mark.parametrize(
    "text",
    ["13812345670/13912345671", "13812345670、13912345671", "13812345670 13912345671", "1381234567013912345671",
     "13812345670；13912345671", "13812345670或13912345671", "13812345670,13912345671,13812345670"],
)  # fmt: skip
def test_several_phones_of_one_cell_are_kept_in_order_and_once(text):
    assert [phone.number for phone in parse_phones(text)[0]] == ["+8613812345670", "+8613912345671"]


@pytest.mark.parametrize(
    ("text", "number", "kind", "extension"),
    [
        ("0571-88886666转123", "+8657188886666", "landline", "123"),
        ("(010) 6234 5678 ext. 9", "+861062345678", "landline", "9"),
        ("+1 650 253 0000", "+16502530000", "mobile", ""),
        ("+852 2345 6789", "+85223456789", "landline", ""),
    ],
)
def test_landlines_extensions_and_foreign_numbers_are_read(text, number, kind, extension):
    (phone,), _ = parse_phones(text)

    assert (number, kind, extension) == (phone.number, phone.kind, phone.extension)


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("13800138000", "PHONE_BLOCKED"), ("11111111111", "PHONE_BLOCKED"), ("0000", "PHONE_BLOCKED"),
        ("null", "PHONE_BLOCKED"), ("13812345678", "PHONE_BLOCKED"), ("1.38E+10", "PHONE_DIGITS_LOST"),
        ("1.3812345678e10", "PHONE_DIGITS_LOST"), ("138****5670", "PHONE_UNREADABLE"), ("abc", "PHONE_UNREADABLE"),
        ("1381234567", "PHONE_UNREADABLE"),
    ],
)  # fmt: skip
def test_placeholders_and_ruins_are_refused_with_their_reason(text, reason):
    assert ((), (reason,)) == parse_phones(text)


def test_more_phones_than_ten_are_cut_and_said_so():
    phones, reasons = parse_phones(",".join(f"139123456{digit}0" for digit in range(10)) + ",13912345671")

    assert (len(phones), reasons) == (10, ("PHONE_TRUNCATED",))
