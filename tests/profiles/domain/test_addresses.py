"""Addresses to divisions of GB/T 2260."""

import pytest

from services.profiles.domain.addresses import parse_address
from services.profiles.domain.divisions import division_table


@pytest.mark.parametrize(
    ("text", "code", "detail"),
    [
        ("北京市朝阳区建国路1号", "110105", "建国路1号"),
        ("北京朝阳区建国路1号", "110105", "建国路1号"),
        ("北京市北京市朝阳区建国路1号", "110105", "建国路1号"),
        ("北京市市辖区朝阳区", "110105", ""),
        ("收货地址：中国 浙江省 杭州市 西湖区 文三路 3-2-1", "330106", "文三路3-2-1"),
        ("浙江杭州西湖区文三路", "330106", "文三路"),
        ("杭州市西湖区", "330106", ""),
        ("杭州西湖路3号", "330100", "西湖路3号"),
        ("浙江省杭州市西湖区浙江省杭州市西湖区文三路", "330106", "文三路"),
        ("内蒙古呼和浩特", "150100", ""),
        ("内蒙古自治区锡林郭勒盟锡林浩特市", "152502", ""),
        ("新疆喀什地区喀什市", "653101", ""),
        ("湖北恩施州恩施市", "422801", ""),
        ("雲南省大理州大理市", "532901", ""),
        ("湖北省仙桃市沔阳大道", "429004", "沔阳大道"),
        ("重庆市城口县", "500229", ""),
        ("广西南宁", "450100", ""),
        ("吉林", "220000", ""),
        ("吉林市船营区", "220204", ""),
        ("昆山市玉山镇", "320583", "玉山镇"),
        ("广东东莞长安镇", "441900", "长安镇"),
        ("臺灣省臺北市", "710000", "台北市"),
        ("香港中西区", "810000", "中西区"),
        ("海南州", "632500", ""),
    ],
)
def test_the_deepest_named_division_is_found(text, code, detail):
    address, reason = parse_address(text)

    assert (code, detail, "") == (address.deepest_code, address.detail, reason)


@pytest.mark.parametrize(
    ("text", "reason"),
    [("朝阳区建国路", "ADDRESS_AMBIGUOUS"), ("浙江省南京市鼓楼区", "ADDRESS_CONFLICT"), ("建国路", "ADDRESS_UNKNOWN")],
)
def test_what_cannot_be_placed_is_not_guessed(text, reason):
    address, found = parse_address(text)

    assert reason == found
    assert address.district_code == ""
    assert address.detail


def test_a_municipality_is_province_and_city_and_written_once():
    address, _ = parse_address("上海浦东新区世纪大道")

    assert (address.province_code, address.city_code, address.district_code) == ("310000", "310100", "310115")
    assert address.text == "上海市浦东新区世纪大道"


def test_every_division_of_today_is_found_by_its_own_full_name():
    table = division_table()
    twice_in_the_data = {"429001", "429021"}  # 随州市 and 神农架林区 stand in stdnum's file under two codes
    lost = []
    for code, division in table.by_code.items():
        if code[2:] == "0100" and division.name == table.by_code[f"{code[:2]}0000"].name:
            continue  # a municipality's name means the province
        parents = [table.by_code.get(f"{code[:2]}0000"), table.by_code.get(f"{code[:4]}00")]
        names = dict.fromkeys(parent.name for parent in parents if parent)
        text = "".join(names) + ("" if division.name in names else division.name)
        if parse_address(text)[0].deepest_code != code and code not in twice_in_the_data:
            lost.append(text)

    assert lost == []
