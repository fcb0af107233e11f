"""Addresses to divisions of GB/T 2260."""

import pytest

from services.profiles.domain.addresses import parse_address
from services.profiles.domain.divisions import MUNICIPALITIES, city_code_of, division_table, level_of
from services.profiles.domain.values import Place


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
        ("内蒙包头昆都仑区", "150203", ""),
        ("新疆自治区乌鲁木齐市天山区", "650102", ""),
        ("新疆自治区直辖县级行政区划石河子市", "659001", ""),
        ("重庆市县城口县", "500229", ""),
        ("四川阿坝县", "513231", ""),
        ("湖南长沙县", "430121", ""),
        ("三亚吉阳", "460203", ""),
        ("义乌小商品城", "330782", "小商品城"),
        ("昆山前进东路208号", "320583", "前进东路208号"),
        ("合肥巢湖经开区", "340181", "经开区"),
        ("山东青岛市北区延安路3号", "370203", "延安路3号"),
        ("湖北武汉江夏区纸坊街道", "420115", "纸坊街道"),
        ("安徽省巢湖市天河街道", "340181", "天河街道"),
        ("浙江省:杭州市:西湖区:文三路", "330106", "文三路"),
        ("总部:清远市清城区银盏", "441802", "银盏"),
        ("嘉定工业区兴荣路1515号", "310114", "工业区兴荣路1515号"),
        ("广州市天河区广州国际金融中心", "440106", "广州国际金融中心"),
        ("山东省威海市文登区文登营镇", "371003", "文登营镇"),
        ("(总部)北京市朝阳区建国路1号", "110105", "建国路1号"),
        ("邮编310000浙江省杭州市西湖区", "330106", ""),
        ("浙江省/杭州市/西湖区/文三路90号", "330106", "文三路90号"),
    ],
)
def test_the_deepest_named_division_is_found(text, code, detail):
    address, reason = parse_address(text)

    assert (code, detail, "") == (address.deepest_code, address.detail, reason)


@pytest.mark.parametrize(
    ("text", "code", "detail"),
    [
        ("湖北省襄樊市樊城区", "420606", ""),
        ("北京市宣武区菜市口", "110102", "菜市口"),
        ("上海南汇惠南镇", "310115", "惠南镇"),
        ("江苏省通州市", "320612", ""),
        ("杭州市下城区体育场路", "330105", "体育场路"),
        ("山东省莱芜市莱城区", "370116", ""),
        ("安徽省巢湖市居巢区", "340181", ""),
        ("湖南省长沙市望城县", "430112", ""),
        ("福建省南平市建阳市", "350703", ""),
        ("吉林省四平市公主岭市", "220184", ""),
        ("安徽省安庆市枞阳县", "340722", ""),
        ("西藏那曲县", "540602", ""),
        ("西藏日喀则地区", "540200", ""),
        ("河北省邢台市桥东区", "130502", ""),
        ("河北省石家庄市桥东区", "130100", "桥东区"),
    ],
)
def test_a_former_name_is_the_division_of_today_unless_it_was_divided(text, code, detail):
    address, _ = parse_address(text)

    assert (address.deepest_code, address.detail) == (code, detail)


@pytest.mark.parametrize(
    ("text", "code"),
    [
        ("天津经济技术开发区洞庭路1号", "120116"),
        ("北京经济技术开发区荣华中路", "110115"),
        ("上海市张江高科技园区博云路2号", "310115"),
        ("苏州高新区科技城", "320505"),
        ("深圳龙华新区", "440309"),
        ("大连金州新区", "210213"),
        ("四川省成都市高新区天府大道", "510100"),
        ("苏州工业园区星湖街328号", "320500"),
    ],
)
def test_a_development_zone_is_placed_in_its_county_where_it_lies_in_one(text, code):
    assert parse_address(text)[0].deepest_code == code


_FORMS = {  # how addresses are written, with the share of counties to be found in each
    "all in full": (lambda chain: "".join(part.name for part in chain), 1.0),
    "province missing": (lambda chain: "".join(part.name for part in chain[-2:]), 0.99),
    "city missing": (lambda chain: chain[0].name + chain[-1].name, 0.98),
    "province and city short": (lambda chain: "".join(part.names[-1] for part in chain[:-1]) + chain[-1].name, 0.99),
    "all short": (lambda chain: "".join(part.names[-1] for part in chain), 0.97),
    "county alone": (lambda chain: chain[-1].name, 0.94),
}
_DETAILS = (
    "人民路15号3栋2单元502室",
    "城关镇解放街8号",
    "中山东路甲6号",
    "江滨花园12幢",
    "开发区科技大道1号",
    "东风村3组",
)


def _chains():
    table = division_table()
    for code in sorted(table.by_code):
        if level_of(code) == 6:
            city = table.by_code.get(city_code_of(code))
            province = table.by_code[f"{code[:2]}0000"]
            yield list(dict.fromkeys(part for part in (province, city, table.by_code[code]) if part))


@pytest.mark.parametrize("form", _FORMS)
def test_counties_are_found_in_every_form_that_addresses_are_written_in(form):
    write, share = _FORMS[form]
    chains = list(_chains())
    texts = [write(chain) + _DETAILS[at % len(_DETAILS)] for at, chain in enumerate(chains)]
    found = [(chain[-1].code, parse_address(text)[0]) for chain, text in zip(chains, texts, strict=True)]

    assert sum(address.district_code == code for code, address in found) >= share * len(chains)
    wrong = [address.text for code, address in found if address.province_code not in (f"{code[:2]}0000", "")]
    assert len(wrong) <= 0.002 * len(chains), wrong


@pytest.mark.parametrize(
    "text", ["南京西路1468号", "上海路2号", "吉林大路", "广州大道中289号", "东方路710号", "西湖大道18号"]
)
def test_a_road_named_after_a_place_is_not_that_place(text):
    assert parse_address(text)[0].province_code == ""


@pytest.mark.parametrize(
    ("detail", "place"),
    [
        (
            "粤海街道科苑路15号科兴科学园B栋3单元502室",
            Place("粤海街道", "科苑路", "15号", "科兴科学园B栋", "3单元", "502室"),
        ),
        ("漕溪路251弄3号楼1005室", Place("", "漕溪路251弄", "", "3号楼", "", "1005室")),
        ("安亭镇园耀路55号", Place("安亭镇", "园耀路", "55号")),
        ("高新区天府大道中段1388号", Place("高新区", "天府大道中段", "1388号")),
        ("耿镇镇人民路2号", Place("耿镇镇", "人民路", "2号")),
        ("依兰镇春兴村5队", Place("依兰镇", "春兴村5队")),
        ("世纪大道100号上海环球金融中心68楼", Place("", "世纪大道", "100号", "上海环球金融中心", "", "68楼")),
        ("文三路90号3-2-502", Place("", "文三路", "90号", "3", "2", "502")),
        ("镇江路5号", Place("", "镇江路", "5号")),
        ("万达广场", Place(building="万达广场")),
        ("在车站旁边", Place()),
    ],
)
def test_what_follows_the_county_is_told_apart(detail, place):
    address, _ = parse_address(f"浙江省杭州市西湖区{detail}")

    assert (address.detail, address.place) == (detail, place)


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
    lost = []
    for code, division in table.by_code.items():
        if code.endswith("0000") and code[:2] in MUNICIPALITIES:
            continue  # its name means the city too, which is asked for under its own code
        parents = [table.by_code.get(f"{code[:2]}0000"), table.by_code.get(f"{code[:4]}00")]
        names = dict.fromkeys(parent.name for parent in parents if parent)
        text = "".join(names) + ("" if division.name in names else division.name)
        if parse_address(text)[0].deepest_code != code:
            lost.append(text)

    assert lost == []


@pytest.mark.parametrize(
    ("text", "code"),
    [("河北区中山路1号", "120105"), ("海南区拉僧庙镇", "150303"), ("河南蒙古族自治县", "632324")],
)
def test_a_county_that_begins_as_a_province_is_called_is_not_in_that_province(text, code):
    assert parse_address(text)[0].district_code == code
