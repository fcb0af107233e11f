"""The table of GB/T 2260 administrative divisions, read from python-stdnum's data file at first use."""

import re
from collections.abc import Iterator
from dataclasses import dataclass
from functools import lru_cache
from importlib import resources

from services.profiles.domain.text import simplify

MUNICIPALITIES = frozenset(("11", "12", "31", "50"))
_LINE = re.compile(r'(\s*)(\d+)\s+(?:province|county)="([^"]*)"')
_PERIOD = re.compile(r"\[(\d*)-(\d*)\](.*)")
_NOT_PLACES = re.compile("^(市辖区|县|市|区|.*直辖县级行政(单位|区划)|.*直辖行政单位)$")
_PEOPLES = (
    "蒙古族|回族|藏族|维吾尔族|苗族|彝族|壮族|布依族|朝鲜族|满族|侗族|瑶族|白族|土家族|哈尼族|哈萨克族|哈萨克|傣族|"
    "黎族|傈僳族|佤族|畲族|拉祜族|水族|东乡族|纳西族|景颇族|柯尔克孜族|柯尔克孜|土族|达斡尔族|仫佬族|羌族|布朗族|"
    "撒拉族|毛南族|仡佬族|锡伯族|阿昌族|普米族|塔吉克族|塔吉克|怒族|鄂温克族|德昂族|保安族|裕固族|独龙族|鄂伦春|"
    "蒙古|各族|壮族|回族|维吾尔"
)
_SHORT_PROVINCE = re.compile("(?:(?:壮族|回族|维吾尔)?自治区|特别行政区|省|市)$")
_SHORT_CITY = re.compile(f"(?:(?:{_PEOPLES})*自治州|地区|盟|市)$")
_SHORT_COUNTY = re.compile(f"(?:(?:{_PEOPLES})*自治[县旗]|新区|[县市区旗])$")


@dataclass(frozen=True, slots=True)
class Division:
    """A province, city or county that exists today; `code` has six digits, `names` are what people write."""

    code: str
    name: str
    names: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class DivisionTable:
    """All divisions by code, and by the names people write, per level and parent.

    `provinces` by name; `cities` by name to codes; `counties` by name to codes; `known` holds the codes of all
    counties there ever were, for old resident IDs.
    """

    by_code: dict[str, Division]
    provinces: dict[str, str]
    cities: dict[str, tuple[str, ...]]
    counties: dict[str, tuple[str, ...]]
    known: frozenset[str]


def city_code_of(county_code: str) -> str:
    """Return the code of a county's city; counties right under a municipality belong to its 01."""
    province = county_code[:2]
    return f"{province}0100" if province in MUNICIPALITIES else f"{county_code[:4]}00"


@lru_cache(maxsize=1)
def division_table() -> DivisionTable:
    """Build the table; takes some 30 ms once per process."""
    by_code: dict[str, Division] = {}
    known: set[str] = set()
    for code, entry in _entries():
        known.add(code)
        name = simplify(_name_today(entry))
        if name and not _NOT_PLACES.match(name):
            by_code[code] = Division(code, name, _written_names(code, name))
    for prefix in MUNICIPALITIES:
        whole = by_code[f"{prefix}0000"]
        by_code[f"{prefix}0100"] = Division(f"{prefix}0100", whole.name, whole.names)
    levels = [_index(by_code, level) for level in (2, 4, 6)]
    provinces = {name: codes[0] for name, codes in levels[0].items()}
    return DivisionTable(by_code, provinces, levels[1], levels[2], frozenset(known))


def is_known_code(code: str) -> bool:
    """Say whether six digits were ever the code of a division."""
    return code in division_table().known


def level_of(code: str) -> int:
    """Return how many digits of a code carry meaning: 2 province, 4 city, 6 county."""
    if code.endswith("0000"):
        return 2
    return 4 if code.endswith("00") else 6


def _entries() -> Iterator[tuple[str, str]]:
    """Yield (six-digit code, names with their periods) from stdnum/cn/loc.dat."""
    province = ""
    for line in resources.files("stdnum.cn").joinpath("loc.dat").read_text("utf-8").splitlines():
        match = _LINE.match(line)
        if not match:
            continue
        indent, digits, entry = match.groups()
        if not indent:
            province = digits
        else:
            yield province + digits, entry


def _name_today(entry: str) -> str:
    """Return the name that has no end year, or an empty string for a division that was dissolved."""
    for item in entry.split(","):
        match = _PERIOD.match(item)
        if not match:
            return item
        if not match[2]:
            return match[3]
    return ""


def _written_names(code: str, name: str) -> tuple[str, ...]:
    """Return the full name and the short forms in use: 内蒙古, 恩施州, 恩施, 海淀."""
    level = level_of(code)
    pattern = {2: _SHORT_PROVINCE, 4: _SHORT_CITY, 6: _SHORT_COUNTY}[level]
    short = pattern.sub("", name)
    if len(short) < 2 or short == name:
        return (name,)
    if level == 4 and name.endswith("自治州"):
        return name, f"{short}州", short
    return name, short


def _index(by_code: dict[str, Division], level: int) -> dict[str, tuple[str, ...]]:
    index: dict[str, list[str]] = {}
    for code, division in by_code.items():
        if level_of(code) == level:
            for name in division.names:
                index.setdefault(name, []).append(code)
    return {name: tuple(codes) for name, codes in index.items()}
