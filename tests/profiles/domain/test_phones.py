"""Phones of a cell."""

import pytest

from services.profiles.domain.phones import parse_phones


@pytest.mark.parametrize(
    "text",
    [
        "13812345670", "138 1234 5670", "138-1234-5670", "１３８１２３４５６７０",
        "+86 138-1234-5670", "008613812345670",
        "86-13812345670", "手机:13812345670", "13812345670.0", "(138)12345670", "17951 13812345670",
        "1795113812345670", "12593-138-1234-5670", "013812345670", "+86(0)13812345670", "张三13812345670",
        "13812345670(本人)", "一三八一二三四五六七零", "幺三八 幺二三四 五六七洞".replace("洞", "〇"),
    ],
)  # fmt: skip
def test_every_written_form_of_a_mobile_is_one_number(text):
    phones, reasons = parse_phones(text)

    assert ([phone.number for phone in phones], reasons) == (["+8613812345670"], ())


@pytest.mark.parametrize(
    "text",
    ["13812345670/13912345671", "13812345670、13912345671", "13812345670 13912345671", "1381234567013912345671",
     "13812345670；13912345671", "13812345670或13912345671", "138 1234 5670 139 1234 5671",
     "手机13812345670 住宅13912345671", "13812345670\n13912345671", "13812345670,13912345671,13812345670"],
)  # fmt: skip
def test_several_phones_of_one_cell_are_kept_in_order_and_once(text):
    assert [phone.number for phone in parse_phones(text)[0]] == ["+8613812345670", "+8613912345671"]


@pytest.mark.parametrize(
    ("text", "number", "kind", "extension"),
    [
        ("0571-88886666转123", "+8657188886666", "landline", "123"),
        ("0571-88886666-8001", "+8657188886666", "landline", "8001"),
        ("0086 0571 8888 6666*8001", "+8657188886666", "landline", "8001"),
        ("17909 0571 88886666", "+8657188886666", "landline", ""),
        ("0734-8888666", "+867348888666", "landline", ""),
        ("13812345670-8001", "+8613812345670", "mobile", "8001"),
        ("tel:+86-138-1234-5670;ext=12", "+8613812345670", "mobile", "12"),
        ("400-820-8821", "+864008208821", "other", ""),
        ("00886 912 345 678", "+886912345678", "mobile", ""),
        ("+44 (0)20 7946 0018", "+442079460018", "landline", ""),
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
        ("1381234567", "PHONE_UNREADABLE"), ("88886666", "PHONE_AREA_MISSING"),
    ],
)  # fmt: skip
def test_placeholders_and_ruins_are_refused_with_their_reason(text, reason):
    assert ((), (reason,)) == parse_phones(text)


@pytest.mark.parametrize(
    ("text", "last"),
    [
        ("62345678 13912345671", "1"), ("13912345671 2楼", "1"), ("0755-83456789--13912345671", "1"),
        ("13912345671(妈妈)13912345672", "12"), ("13912345671-13912345672", "12"), ("138****5678 13912345671", "1"),
        ("+13912345671", ""), ("139123456712", ""), ("13812345678 2楼", ""),
    ],
)  # fmt: skip
def test_a_whole_mobile_beside_what_is_no_number_is_not_lost_with_it(text, last):
    phones, reasons = parse_phones(text)

    assert [phone.number for phone in phones] == [f"+861391234567{digit}" for digit in last]
    assert reasons == ("PHONE_UNREADABLE",)


@pytest.mark.parametrize("text", ["010-88888888", "+86 10 8888 8888", "86-010-88888888", "0086 10 88888888"])
def test_a_number_of_beijing_is_the_same_with_its_country_before_it(text):
    assert [phone.number for phone in parse_phones(text)[0]] == ["+861088888888"]


@pytest.mark.parametrize("text", ["010-62345678、62345679", "010-62345678/9", "(010)62345678,62345679转1"])
def test_a_number_without_area_takes_that_of_the_landline_before_it(text):
    assert [phone.number for phone in parse_phones(text)[0]] == ["+861062345678", "+861062345679"]


def test_every_range_of_chinese_mobiles_is_taken():
    ranges = [f"1{second}{third}" for second in "3456789" for third in "0123456789"]

    assert all(parse_phones(f"{first}12345670")[0][0].kind == "mobile" for first in ranges)


def test_more_phones_than_ten_are_cut_and_said_so():
    phones, reasons = parse_phones(",".join(f"139123456{digit}0" for digit in range(10)) + ",13912345671")

    assert (len(phones), reasons) == (10, ("PHONE_TRUNCATED",))
