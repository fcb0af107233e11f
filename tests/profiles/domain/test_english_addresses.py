"""Addresses of China in Latin letters, to province, city and county."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from services.profiles.domain.addresses import parse_address
from services.profiles.domain.divisions import MUNICIPALITIES, division_table, level_of
from services.profiles.domain.english_addresses import read_english
from services.profiles.domain.values import Place


@pytest.mark.parametrize(
    ("text", "code", "detail"),
    [
        ("No. 12, Lane 345, Nanjing West Rd, Shanghai", "310100", "No. 12, Lane 345, Nanjing West Rd"),
        ("No. 12, Nanjing West Rd, Jing'an District, Shanghai 200041, P.R. China", "310106", "No. 12, Nanjing West Rd"),
        ("Room 502, 88 Keji Road, Nanshan District, Shenzhen, Guangdong Province, China", "440305",
         "Room 502, 88 Keji Road"),
        ("100 Century Avenue Pudong New Area Shanghai", "310115", "100 Century Avenue"),
        ("12 Renmin Road, Suzhou, Jiangsu", "320500", "12 Renmin Road"),
        ("5 Renmin Rd, Kunshan, Jiangsu, China", "320583", "5 Renmin Rd"),
        ("Shanghai, Pudong, Zhangjiang Rd 88", "310115", "Zhangjiang Rd 88"),
        ("Guangdong Province, Guangzhou City, Tianhe District, Tiyu East Road 12", "440106", "Tiyu East Road 12"),
        ("China, Zhejiang, Hangzhou", "330100", ""),
        ("Xi'an, Shaanxi", "610100", ""),
        ("Taiyuan, Shanxi, P. R. China", "140100", ""),
        ("Ürümqi, Xinjiang Uygur Autonomous Region", "650100", ""),
        ("3 Lüliang Road, Luliang, Shanxi", "141100", "3 Lüliang Road"),
        ("Hohhot, Inner Mongolia Autonomous Region 010010", "150100", ""),
        ("Chaoyang District, Beijing", "110105", ""),
        ("Changsha, Hunan 410000", "430100", ""),
        ("Jilin City, Jilin Province", "220200", ""),
        ("Haikou, Hainan", "460100", ""),
        ("Yulin, Guangxi", "450900", ""),
        ("Nantong Rugao Jiangsu", "320682", ""),
        ("Bank of China Tower, 1 Garden Road, Hong Kong", "810000", "Bank of China Tower, 1 Garden Road"),
        ("PO Box 100, Beijing 100080", "110100", "PO Box 100"),
        ("上海市静安区 12 Nanjing West Rd", "310106", "12NanjingWestRd"),
        ("上海市静安区12 Nanjing West Rd", "310106", "12 Nanjing West Rd"),
    ],
)  # fmt: skip
def test_province_city_and_county_are_read_from_either_end(text: str, code: str, detail: str) -> None:
    address, reason = parse_address(text)

    assert address is not None
    found = address.district_code or address.city_code or address.province_code
    assert (found, address.detail, reason) == (code, detail, "")
    assert parse_address(address.text) == (address, "")
    assert address.place == Place() or not detail or "NanjingWest" in detail


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("Nanjing West Road 12", "ADDRESS_UNKNOWN"),
        ("Beijing Road", "ADDRESS_UNKNOWN"),
        ("Flat 3, Suzhou Road, Singapore 188777", "ADDRESS_UNKNOWN"),
        ("221B Baker Street, London", "ADDRESS_UNKNOWN"),
        ("Ali", "ADDRESS_UNKNOWN"),
        ("12 Renmin Road, Suzhou", "ADDRESS_AMBIGUOUS"),
        ("12 Renmin Road, Yichun, China", "ADDRESS_AMBIGUOUS"),
    ],
)
def test_a_road_a_foreign_place_and_a_name_of_two_cities_are_not_guessed(text: str, reason: str) -> None:
    address, found = parse_address(text)

    assert address is not None
    assert (address.province_code, found) == ("", reason)


def test_every_city_is_found_with_its_province() -> None:
    from pypinyin import lazy_pinyin

    table = division_table()
    cities = [code for code in table.by_code if level_of(code) == 4 and code[:2] not in MUNICIPALITIES]
    provinces = {"61": "Shaanxi", "15": "Inner Mongolia", "54": "Tibet", "81": "Hong Kong", "82": "Macau"}
    missed = []
    for code in cities:
        short = table.by_code[f"{code[:2]}0000"].names[-1]
        province = provinces.get(code[:2]) or "".join(lazy_pinyin(short)).title()
        city = "".join(lazy_pinyin(table.by_code[code].names[-1])).title()
        found, _, _ = read_english(f"No. 8, Zhongshan Road, {city}, {province}, China")
        missed += [code] if found != code else []
    assert len(cities) > 330
    assert len(missed) <= 2, missed


WORDS = ["Shanghai", "Beijing", "City", "District", "Road", "No. 1", "China", "Pudong", "Suzhou", "Jiangsu", ",",
         "200041", "Xi'an", "Shaanxi", "Hong Kong", "Tower", "上海市", "浦东", "-", "#3", "PRC", "Ü"]  # fmt: skip


@given(st.lists(st.sampled_from(WORDS), max_size=9))
def test_words_in_any_order_are_read_again_as_the_same(words: list[str]) -> None:
    address, _ = parse_address(" ".join(words))
    if address is not None:
        assert parse_address(address.text)[0] == address
