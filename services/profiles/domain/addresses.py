"""Addresses to province, city and county with GB/T 2260 codes; 北京 and 北京市 are one."""

import re

from services.profiles.domain.blocked import is_empty_word
from services.profiles.domain.divisions import DivisionTable, city_code_of, division_table, level_of
from services.profiles.domain.text import clean, simplify
from services.profiles.domain.values import Address

_LABEL = re.compile(
    "^(?:(?:收货|家庭|联系|详细|常住|居住|通讯)?(?:地址|住址)[:是]?|中国|中华人民共和国|P\\.?R\\.?China)+"
)
_BLANKS = re.compile(r"[\s,;、|]+")
_DIRECT = re.compile("^(?:市辖区|省直辖县级行政单位|省直辖县级行政区划|自治区直辖县级行政单位)")
_STREET_AFTER = frozenset("路街道巷弄里村镇乡湖山江河桥大公新花小")
_LONGEST_NAME = 15


def parse_address(text: str) -> tuple[Address | None, str]:
    """Return (address, reason); an address without any known division keeps its text as `detail`.

    A bare county name that several cities use is not guessed (ADDRESS_AMBIGUOUS).
    """
    text = simplify(clean(text))
    if is_empty_word(text):
        return None, "ADDRESS_UNKNOWN" if text else ""
    rest = _LABEL.sub("", _BLANKS.sub("", text))
    if not rest:
        return None, "ADDRESS_UNKNOWN"
    table = division_table()
    code, reason = "", ""
    while True:
        found, after, problem = _walk(rest.lstrip("-/"), code, table)
        reason = reason or problem
        if len(after) == len(rest):
            break
        code, rest = found, after
    if not code:
        return Address(detail=rest), reason or "ADDRESS_UNKNOWN"
    return address_of(code, rest, table), reason


def address_of(code: str, detail: str, table: DivisionTable | None = None) -> Address:
    """Return the address whose smallest known division is `code`."""
    table = table or division_table()
    level = level_of(code)
    province_code = f"{code[:2]}0000"
    city_code = city_code_of(code) if level == 6 else code if level == 4 else ""
    city = table.by_code.get(city_code)
    return Address(
        province_code,
        city_code,
        code if level == 6 else "",
        table.by_code[province_code].name,
        city.name if city else "",
        table.by_code[code].name if level == 6 else "",
        detail,
    )


def _walk(text: str, code: str, table: DivisionTable) -> tuple[str, str, str]:
    """Return the deepest division named at the start of the text, the text after it, and a reason."""
    reason = ""
    for step in (_take_province, _take_city, _take_county):
        code, text, problem = step(text, code, table)
        reason = reason or problem
    return code, text, reason


def _take_province(text: str, code: str, table: DivisionTable) -> tuple[str, str, str]:
    name = _longest(text, table.provinces)
    city = _longest(text, table.cities)
    if not name or len(city) > len(name):
        return code, text, ""
    found = table.provinces[name]
    if code and code[:2] != found[:2]:
        return code, text, ""
    return code or found, text[len(name) :], ""


def _take_city(text: str, code: str, table: DivisionTable) -> tuple[str, str, str]:
    name = _longest(text, table.cities)
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
    if not _is_whole(name, text, bool(code)):
        return code, text, ""
    rest = text[len(name) :]
    return (code if code and level_of(code) == 6 else codes[0]), _DIRECT.sub("", rest), ""


def _take_county(text: str, code: str, table: DivisionTable) -> tuple[str, str, str]:
    name = _longest(text, table.counties)
    if not name or not _is_whole(name, text, bool(code)):
        return code, text, ""
    codes = table.counties[name]
    if code:
        prefix = code[:2] if level_of(code) == 2 or code[:2] in _ALL_ONE_CITY else code[:4]
        codes = tuple(item for item in codes if item.startswith(prefix))
        if level_of(code) == 6:
            codes = tuple(item for item in codes if item == code)
    if len(codes) == 1:
        return codes[0], text[len(name) :], ""
    return code, text, "ADDRESS_AMBIGUOUS" if codes and name[-1] in "区县市旗" else ""


_ALL_ONE_CITY = ("11", "12", "31", "50")  # a municipality's counties lie under 01 and 02


def _is_whole(name: str, text: str, has_parent: bool) -> bool:
    """Say whether a name is meant as a division: a short form is not when a street's word follows it."""
    if name[-1] in "市县区旗州盟省":
        return True
    return text[len(name) : len(name) + 1] not in _STREET_AFTER if has_parent else len(text) == len(name)


def _longest(text: str, names: dict[str, str] | dict[str, tuple[str, ...]]) -> str:
    for length in range(min(_LONGEST_NAME, len(text)), 1, -1):
        if text[:length] in names:
            return text[:length]
    return ""
