"""Addresses to province, city and county with GB/T 2260 codes, and below; 北京 and 北京市 are one."""

import re
from functools import lru_cache

from services.profiles.domain.beginnings import beginnings
from services.profiles.domain.blocked import is_empty_word
from services.profiles.domain.divisions import (
    MUNICIPALITIES,
    SUFFIXES,
    DivisionTable,
    city_code_of,
    division_table,
    is_full,
    level_of,
)
from services.profiles.domain.english_addresses import read_english
from services.profiles.domain.places import read_place
from services.profiles.domain.text import clean, simplify
from services.profiles.domain.values import Address

_LABEL = re.compile(
    r"^(?:[^:\d省市县区州]{1,10}:|(?:收货|家庭|联系|详细|常住|居住|通讯)?(?:地址|住址)是?|市辖区|中国(?!\()|中华人民共和国|P\.?R\.?China|"
    r"(?:邮编|邮政编码)?:?\d{6}(?=[\u4e00-\u9fff]{2}))+"
)
_BLANKS = re.compile(r"[\s,;、|]+|(?<=[省市县区州]):")
_DIRECT = re.compile("^(?:市辖区|(?:省|自治区)?直辖县级行政(?:单位|区划)|县(?=[\u4e00-\u9fff]{1,6}县))")
_DIGIT = re.compile("[0-9]")
_REMEMBERED = 65_536  # beginnings of addresses up to the street
_CITY_DISTRICT = re.compile("[南北中]区")
_JUMP = 30  # characters within which a full name may follow other words
# Words that make the short name before them the name of a road, a village or a house, not of a division.
_ROAD = re.compile(
    "[东南西北中]?[一二三四五六七八九十]?(?:路|街|大[道街路]|道|巷|弄|胡同|公路)|[里村镇乡]|门[内外口]|"
    "[山湖江河塔港湾岛桥](?:$|[路街大公边畔景风庄])|大[桥学厦厂酒]|公[园寓司馆]|小[区学]|新村|花园|中学|学[校院]|医院|[饭酒]店|宾馆"
)
_ZONE = re.compile("[东南西北]?(?:经济|高新|工业|技术|产业)+(?:技术)?(?:开发区|园?区|园)|开发区|经开区")
_ZONES = (  # province or city, development zone, county that holds it
    ("11", "经济技术开发区", "110115"), ("11", "亦庄", "110115"), ("12", "经济技术开发区", "120116"),
    ("12", "开发区", "120116"), ("12", "滨海高新", "120116"), ("31", "张江", "310115"), ("31", "外高桥", "310115"),
    ("31", "陆家嘴", "310115"), ("31", "金桥", "310115"), ("31", "临港新", "310115"), ("13", "雄安新区", "130600"),
    ("3205", "高新区", "320505"), ("3205", "苏州新区", "320505"), ("3202", "新区", "320214"),
    ("2102", "开发区", "210213"), ("3702", "西海岸新区", "370211"), ("3702", "经济技术开发区", "370211"),
    ("4403", "大鹏新区", "440307"), ("4401", "开发区", "440112"), ("4401", "科学城", "440112"),
)  # fmt: skip
_AROUND = " ,;.、|/-"
_LETTERS = re.compile("[A-Za-z]{2}")
_HAN = re.compile("[\u4e00-\u9fff]")
_LATIN_DETAIL = re.compile(  # Chinese divisions, or none, and words in Latin letters behind them
    r"([\u4e00-\u9fff]*)((?=.*[A-Za-z]{2})[A-Za-z0-9#\u00c0-\u024f][^\u4e00-\u9fff]*[^\u4e00-\u9fff\s,;.、|/-])"
)
_PLACE = re.compile(
    "广场|国际|中[心央环]|商|科技|工业|产业|软件|创|城(?!区)|楼|苑|园|家|名|时代|国|世纪|站|[东西南北]区|集团"
)


def parse_address(text: str) -> tuple[Address | None, str]:
    """Return (address, reason); an address without any known division keeps its text as `detail`.

    A bare county name that several cities use is not guessed (ADDRESS_AMBIGUOUS).
    """
    if not text:
        return None, ""
    text = simplify(clean(text))
    if is_empty_word(text):
        return None, "ADDRESS_UNKNOWN" if text else ""
    latin, doubt = _in_latin(text)
    rest = _LABEL.sub("", _BLANKS.sub("", text))
    if latin is None and rest != text:
        latin, _ = _in_latin(rest)
    if latin is not None:
        return latin, ""
    if not rest:
        return None, "ADDRESS_UNKNOWN"
    code, after, reason = _located(rest)
    if not code and not reason and (found := _full_names().search(rest, 1, _JUMP)):
        code, after, reason = _located(rest[found.start() :])
    if not code:
        return Address(detail=rest, place=read_place(rest)), reason or doubt or "ADDRESS_UNKNOWN"
    return address_of(_with_zone(code, after), after), reason


def _in_latin(text: str) -> tuple[Address | None, str]:
    """Return an address in Latin letters, or with such words below its Chinese divisions; its words stay words."""
    if not _LETTERS.search(text):
        return None, ""
    if not _HAN.search(text):
        code, detail, reason = read_english(text.strip(_AROUND))
        is_words = bool(_LATIN_DETAIL.fullmatch(detail))
        return (address_of(code, detail if is_words else _BLANKS.sub("", detail)) if code else None), reason
    match = _LATIN_DETAIL.fullmatch(text)
    code, after, reason = _located(match[1]) if match else ("", "", "")
    found = address_of(code, match[2]) if match and code and not (after or reason) else None
    return (found if found and found.text == text else None), ""  # as text it is read again as the same


def address_of(code: str, detail: str) -> Address:
    """Return the address whose smallest known division is `code`."""
    return Address(*_divisions_of(code), detail, read_place(detail))


@lru_cache(maxsize=4096)
def _divisions_of(code: str) -> tuple[str, str, str, str, str, str]:
    """Return the codes and the names of a division and those above it, as an address holds them."""
    if level_of(code) == 2 and code[:2] in MUNICIPALITIES:
        code = f"{code[:2]}0100"  # 上海 is province and city
    by_code, level = division_table().by_code, level_of(code)
    province_code = f"{code[:2]}0000"
    city_code = city_code_of(code) if level == 6 else code if level == 4 else ""
    city, county_code = by_code.get(city_code), code if level == 6 else ""
    return (
        province_code, city_code, county_code,
        by_code[province_code].name, city.name if city else "", by_code[county_code].name if county_code else "",
    )  # fmt: skip


@lru_cache(maxsize=1)
def _full_names() -> re.Pattern[str]:
    """Return a pattern of the full names of all provinces and cities."""
    table = division_table()
    names = {division.name for code, division in table.by_code.items() if level_of(code) < 6}
    return re.compile("|".join(sorted((name for name in names if name[-1] in "省市区州盟"), key=len, reverse=True)))


def _located(rest: str) -> tuple[str, str, str]:
    """Return what _locate does; nothing behind the first digit matters to it, and beginnings repeat."""
    if known := beginnings().county_at(rest):
        return *known, ""
    digit = _DIGIT.search(rest)
    head = rest[: digit.start()] + "0" if digit else rest
    code, length, reason = _located_head(head)
    after = rest[len(head) - length :]
    if level_of(code or "0000") == 6 and not reason:
        beginnings().learn(rest[: len(rest) - len(after)], code, after)
    return code, after, reason


@lru_cache(maxsize=_REMEMBERED)
def _located_head(head: str) -> tuple[str, int, str]:
    code, after, reason = _locate(head, division_table())
    return code, len(after), reason


def _locate(rest: str, table: DivisionTable) -> tuple[str, str, str]:
    """Return the deepest division named at the start of the text, repeated or not, the text after it, a reason."""
    code, reason = "", ""
    while True:
        found, after, problem = _walk(rest.lstrip("-/"), code, table)
        reason = reason or problem
        after = after.lstrip("-/")
        if len(after) == len(rest) or not found or not _may_go_on(after, found, table):
            return found, _DIRECT.sub("", after) if found else after, reason
        code, rest = found, after


def _may_go_on(text: str, code: str, table: DivisionTable) -> bool:
    """Say whether the text may name divisions again; below a county only a full name is no part of a street's."""
    names = table.starts.get(text[:2], ())
    return any(text.startswith(name) and (level_of(code) < 6 or is_full(name)) for name in names)


def _walk(text: str, code: str, table: DivisionTable) -> tuple[str, str, str]:
    reason = ""
    for step in (_take_province, _take_city, _take_county):
        code, text, problem = step(text.lstrip("-/"), code, table)
        reason = reason or problem
    return code, text, reason


def _take_province(text: str, code: str, table: DivisionTable) -> tuple[str, str, str]:
    name = _longest(text, table.provinces, table)
    if not name or len(_longest(text, table.cities, table)) > len(name):
        return code, text, ""
    county = _county_at(text, "", table)[0]
    if len(county) > len(name) and is_full(county):  # 河北区 is 天津's, 海南区 is 乌海's
        return code, text, ""
    found = table.provinces[name]
    if not _is_whole(name, text, bool(code)) and not _has_child(text[len(name) :], found[:2], table):
        return code, text, ""
    if code and code[:2] != found[:2]:
        return code, text, ""
    return code or found, text[len(name) :], ""


def _take_city(text: str, code: str, table: DivisionTable) -> tuple[str, str, str]:
    name = _longest(text, table.cities, table)
    if not name:
        return code, _DIRECT.sub("", text) if code else text, ""
    codes = table.cities[name]
    if code:
        codes = tuple(item for item in codes if item[:2] == code[:2])
        if not codes:
            return code, text, "ADDRESS_CONFLICT" if len(name) > 2 and name[-1] in "市州盟" else ""
        if len(code.rstrip("0")) > 2 and codes[0][:4] != code[:4]:
            return code, text, ""
    elif len(codes) > 1:
        return code, text, "ADDRESS_AMBIGUOUS"
    rest = text[len(name) :]
    is_city = _is_whole(name, text, bool(code)) or _has_child(rest, codes[0][:4], table)
    if not is_city or len(_county_at(text, code[:2], table)[0]) > len(name):
        return code, text, ""
    if name[-1] == "市" and _CITY_DISTRICT.match(rest) and _has_child(f"市{rest}", codes[0][:4], table):
        rest = f"市{rest}"  # 青岛市北区 is 青岛's 市北区
    return (code if code and level_of(code) == 6 else codes[0]), _DIRECT.sub("", rest), ""


def _take_county(text: str, code: str, table: DivisionTable) -> tuple[str, str, str]:
    if code:
        prefix = code if level_of(code) == 6 else code[:2] if _is_wide(code) else code[:4]
        name, found = _county_at(text, prefix, table)
        if not found and level_of(code) == 4 and (moved := _moved_at(text, code, table)):
            name, found = moved
    else:
        name, found = _county_at(text, "", table)
    if not name or not _is_whole(name, text, bool(code), is_county=True):
        return code, text, ""
    is_bare = not code and name[-1] not in SUFFIXES and len(text) > len(name)
    if is_bare and not _ZONE.match(text, len(name)):  # a district's short name is a common word
        found = tuple(item for item in found if not table.by_code[item].name.endswith("区"))
        if not found:
            return code, text, ""
    if len(found) > 1:
        return code, text, "ADDRESS_AMBIGUOUS" if name[-1] in "区县市旗" else ""
    return found[0], text[len(name) :], ""


def _has_child(text: str, prefix: str, table: DivisionTable) -> bool:
    """Say whether the text begins with a division under a province or city."""
    if _county_at(text, prefix, table)[0]:
        return True
    name = _longest(text, table.cities, table) if len(prefix) == 2 else ""
    return bool(name) and any(code.startswith(prefix) for code in table.cities[name])


def _is_wide(code: str) -> bool:
    """Say whether counties are sought in the whole province: no city is known, or there is one only."""
    return level_of(code) == 2 or code[:2] in MUNICIPALITIES  # counties there lie under 01 and 02


def _county_at(text: str, prefix: str, table: DivisionTable) -> tuple[str, tuple[str, ...]]:
    """Return the longest name of a county at the start of the text with its codes under a prefix; former ones last."""
    for name in table.starts.get(text[:2], ()):
        if text.startswith(name):
            for names in (table.counties, table.former):
                if found := tuple(code for code in names.get(name, ()) if code.startswith(prefix)):
                    return name, found
    return "", ()


def _moved_at(text: str, code: str, table: DivisionTable) -> tuple[str, tuple[str, ...]] | None:
    """Return the name of a county that the city has given to another one."""
    for name in table.starts.get(text[:2], ()):
        if text.startswith(name) and (new := table.moved.get((code[:4], name))):
            return name, (new,)
    return None


def _with_zone(code: str, rest: str) -> str:
    """Return the county that a development zone at the start of the rest belongs to; most belong to several."""
    if level_of(code) == 6:
        return code
    inside = (county for prefix, name, county in _ZONES if code.startswith(prefix) and rest.startswith(name))
    return next(inside, code)


def _is_whole(name: str, text: str, has_parent: bool, is_county: bool = False) -> bool:
    """Say whether a name is meant as a division: a short form is not when a road's or house's word follows it."""
    if is_full(name) or len(text) == len(name):
        return True
    if _ROAD.match(text, len(name)):
        return False
    return has_parent or not is_county or not _PLACE.match(text, len(name)) or bool(_ZONE.match(text, len(name)))


def _longest(text: str, names: dict[str, str] | dict[str, tuple[str, ...]], table: DivisionTable) -> str:
    for name in table.starts.get(text[:2], ()):
        if name in names and text.startswith(name):
            return name
    return ""
