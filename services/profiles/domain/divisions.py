"""The table of GB/T 2260 administrative divisions of today and before, built at first use.

Codes and names with their years come from python-stdnum's data file; what that lacks, and where a former division's
people live today when its name does not tell, from former_divisions.txt.
"""

import re
from collections.abc import Iterator
from dataclasses import dataclass
from functools import lru_cache
from importlib import resources

from services.profiles.domain.text import simplify

MUNICIPALITIES = frozenset(("11", "12", "31", "50"))
SUFFIXES = frozenset("市县区旗州盟省")
_LINE = re.compile(r'(\s*)(\d+)\s+(?:province|county)="([^"]*)"')
_PERIOD = re.compile(r"\[(\d*)-(\d*)\](.*)")
_NOT_PLACES = re.compile("^(市辖区|县|市|区|.*直辖县级行政(单位|区划)|.*直辖行政单位)$")
_WRONG = frozenset(("422900", "422921", "429001"))  # 林区 is no division; 神农架林区 and 随州市 have other codes
_PEOPLES = (
    "蒙古族|回族|藏族|维吾尔族|苗族|彝族|壮族|布依族|朝鲜族|满族|侗族|瑶族|白族|土家族|哈尼族|哈萨克族|哈萨克|傣族|"
    "黎族|傈僳族|佤族|畲族|拉祜族|水族|东乡族|纳西族|景颇族|柯尔克孜族|柯尔克孜|土族|达斡尔族|仫佬族|羌族|布朗族|"
    "撒拉族|毛南族|仡佬族|锡伯族|阿昌族|普米族|塔吉克族|塔吉克|怒族|鄂温克族|德昂族|保安族|裕固族|独龙族|鄂伦春|"
    "蒙古|各族|壮族|回族|维吾尔"
)
_FORMER_SINCE = 1990  # names that ended before are not written any more
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
class _Period:
    """A name and the years it began and ended in, 0 where it did not."""

    name: str
    start: int
    end: int


@dataclass(frozen=True, slots=True)
class DivisionTable:
    """All divisions by code, and by the names people write, per level and parent.

    `provinces` by name; `cities` by name to codes; `counties` by name to codes; `former` names of counties to codes of
    today; `moved` by (first four digits of the former city, name) to the code of today; `known` holds the codes of
    all counties there ever were, for old resident IDs. `starts` holds for two characters all names that begin with
    them, the longest first.
    """

    by_code: dict[str, Division]
    provinces: dict[str, str]
    cities: dict[str, tuple[str, ...]]
    counties: dict[str, tuple[str, ...]]
    former: dict[str, tuple[str, ...]]
    moved: dict[tuple[str, str], str]
    known: frozenset[str]
    starts: dict[str, tuple[str, ...]]


def city_code_of(county_code: str) -> str:
    """Return the code of a county's city; counties right under a municipality belong to its 01."""
    province = county_code[:2]
    return f"{province}0100" if province in MUNICIPALITIES else f"{county_code[:4]}00"


@lru_cache(maxsize=1)
def division_table() -> DivisionTable:
    """Build the table; takes some 60 ms once per process."""
    added, successors = _own_lines()
    entries = [*((code, _periods(entry)) for code, entry in _entries()), *((code, [added[code]]) for code in added)]
    by_code: dict[str, Division] = {}
    for code, periods in entries:
        name = next((item.name for item in periods if not item.end), "")
        if name and code not in _WRONG and not _NOT_PLACES.match(name):
            by_code[code] = Division(code, name, _written_names(code, name))
    for prefix in MUNICIPALITIES:
        whole = by_code[f"{prefix}0000"]
        by_code[f"{prefix}0100"] = Division(f"{prefix}0100", whole.name, whole.names)
    provinces, cities, counties = (_index(by_code, level) for level in (2, 4, 6))
    former, moved, former_cities = _former(entries, by_code, successors)
    cities = {**{name: codes for name, codes in former_cities.items() if name not in counties}, **cities}
    known = frozenset(code for code, _ in entries)
    one_each = {name: codes[0] for name, codes in provinces.items()}
    starts: dict[str, list[str]] = {}
    for name in sorted({*one_each, *cities, *counties, *former}, key=len, reverse=True):
        starts.setdefault(name[:2], []).append(name)
    by_start = {start: tuple(names) for start, names in starts.items()}
    return DivisionTable(by_code, one_each, cities, counties, former, moved, known, by_start)


def _own_lines() -> tuple[dict[str, _Period], dict[tuple[str, str], str]]:
    """Return what former_divisions.txt adds, and the successor by (former code, name)."""
    added: dict[str, _Period] = {}
    successors: dict[tuple[str, str], str] = {}
    text = resources.files(__package__).joinpath("former_divisions.txt").read_text("utf-8")
    for code, name, *successor in (line.split(",") for line in text.splitlines() if not line.startswith("#")):
        if successor:
            successors[code, name] = successor[0]
        else:
            added[code] = _Period(name, 0, 0)
    return added, successors


def _former(
    entries: list[tuple[str, list[_Period]]],
    by_code: dict[str, Division],
    successors: dict[tuple[str, str], str],
) -> tuple[dict[str, tuple[str, ...]], dict[tuple[str, str], str], dict[str, tuple[str, ...]]]:
    """Return the former names of counties to codes of today, what moved, and the former names of cities."""
    cities: dict[str, tuple[str, ...]] = {}
    former: dict[str, dict[str, None]] = {}
    moved: dict[tuple[str, str], str] = {}
    today = _Today(entries, by_code)
    ended = ((code, item) for code, periods in entries for item in periods if item.end >= _FORMER_SINCE)
    for code, item in ended:
        level = level_of(code)
        new = successors.get((code, item.name)) or today.successor(code, item)
        if not new or level == 2 or _NOT_PLACES.match(item.name):
            continue
        for name in _written_names(code, item.name):
            if level == 4:
                cities.setdefault(name, (new,))
            else:
                former.setdefault(name, {})[new] = None
                moved.setdefault((code[:4], name), new)
    return {name: tuple(codes) for name, codes in former.items()}, moved, cities


class _Today:
    """Finds the division of today that a former one became, where code, name and years tell it."""

    def __init__(self, entries: list[tuple[str, list[_Period]]], by_code: dict[str, Division]) -> None:
        self._by_code = by_code
        self._since = {code: max(item.start for item in periods) for code, periods in entries}
        self._by_short: dict[tuple[str, int, str], list[str]] = {}
        for code, division in by_code.items():
            key = code[:2], level_of(code), division.names[-1]
            self._by_short.setdefault(key, []).append(code)

    def successor(self, code: str, item: _Period) -> str:
        """Return the code of today, or an empty string where that would be a guess."""
        if code in self._by_code:
            return code
        level = level_of(code)
        found = self._by_short.get((code[:2], level, _written_names(code, item.name)[-1]), [])
        if same_city := [new for new in found if new[:4] == code[:4]]:
            return same_city[0]
        has_city = level == 6 and city_code_of(code) in self._by_code
        found = [new for new in found if not has_city or 0 <= self._since.get(new, 0) - item.end <= 1]
        return found[0] if len(found) == 1 else ""


def is_known_code(code: str) -> bool:
    """Say whether six digits were ever the code of a division."""
    return code in division_table().known


def level_of(code: str) -> int:
    """Return how many digits of a code carry meaning: 2 province, 4 city, 6 county."""
    if code.endswith("0000"):
        return 2
    return 4 if code.endswith("00") else 6


def is_full(name: str) -> bool:
    """Say whether a name ends as a division's full name does: 恩施州, but not 广州."""
    return name[-1] in SUFFIXES and (name[-1] != "州" or len(name) > 2)


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


def _periods(entry: str) -> list[_Period]:
    """Return the names of an entry with their years: [1983-2000]甲县,[2000-]甲市."""
    found = []
    for item in entry.split(","):
        match = _PERIOD.match(item)
        start, end, name = match.groups() if match else ("", "", item)
        found.append(_Period(simplify(name), int(start or 0), int(end or 0)))
    return found


def _written_names(code: str, name: str) -> tuple[str, ...]:
    """Return the full name and the other forms in use, the shortest last: 内蒙古, 恩施州, 恩施, 龙华新区, 海淀."""
    level = level_of(code)
    pattern = {2: _SHORT_PROVINCE, 4: _SHORT_CITY, 6: _SHORT_COUNTY}[level]
    short = pattern.sub("", name)
    if len(short) < 2 or short == name:
        return (name,)
    if level == 2 and name.endswith("自治区"):
        extra = ("内蒙",) if short == "内蒙古" else ()
        return (*dict.fromkeys((name, f"{short}自治区", f"{short}省")), *extra, short)
    if level == 4 and name.endswith("自治州"):
        return name, f"{short}州", short
    if level == 6 and name.endswith("区") and not name.endswith("新区"):
        return name, f"{short}新区", short
    return name, short


def _index(by_code: dict[str, Division], level: int) -> dict[str, tuple[str, ...]]:
    index: dict[str, list[str]] = {}
    for code, division in by_code.items():
        if level_of(code) == level:
            for name in division.names:
                index.setdefault(name, []).append(code)
    return {name: tuple(codes) for name, codes in index.items()}
