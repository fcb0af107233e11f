"""What follows the county in an address: town, street, number, building, unit and room."""

import re

from services.profiles.domain.values import Address, Place

_NO = "[0-9a-zA-Z一二三四五六七八九十百甲乙丙丁]"
_TOWN = re.compile(
    r"([\u4e00-\u9fff]{1,12}?(?:街道办事处|街道|地区办事处|民族乡|[镇乡](?![镇乡族]|[东南西北中]?[路街巷道里村])|苏木(?!路)|农场|林场|牧场)|"
    r"[\u4e00-\u9fff]{0,12}?(?:(?:经济|高新|高科技|科技|工业|技术|产业|开发|保税|物流|合作|出口加工)+(?:区|园区|园)|"
    r"经开区|新城区?(?!路)))"
)
_STREET = re.compile(
    rf"([\u4e00-\u9fffA-Za-z0-9]{{1,16}}?(?:大道|大街|公路|马路|胡同|步行街|路|街|巷|弄堂?|道)"
    rf"(?:[东南西北中](?=$|\d)|[东南西北中]段|{_NO}+段)?(?:{_NO}{{1,3}}(?:巷|弄|条|里|支路|组|队))?)"
)
_VILLAGE = re.compile(rf"([\u4e00-\u9fff]{{1,12}}?(?:村委会|村|社区|屯|庄|里)(?:{_NO}{{1,3}}(?:组|队|社))?)")
_NUMBER = re.compile(
    rf"({_NO}{{1,6}}(?:[-—之附]{_NO}{{1,5}})*(?:弄{_NO}{{1,5}})?(?:号院?|弄)(?:附?\d+号)?(?!楼|馆|门|线))"
)
_PLAIN_NUMBER = re.compile(r"(\d{1,5}(?:-\d{1,4})?)(?=$|[\u4e00-\u9fff(])(?![栋幢座楼层单室号])")
_BUILDING = re.compile(
    rf"([\u4e00-\u9fffA-Za-z0-9·.]{{0,20}}?(?:{_NO}{{1,5}}(?:号楼|[栋幢座#])|大厦|大楼|广场|花园|小区|公寓|中心|园区?|苑|庭|城|公馆)"
    rf"(?:[\u4e00-\u9fff]{{0,6}}{_NO}{{1,4}}(?:号楼|[栋幢座]|期))*)"
)
_UNIT = re.compile(rf"({_NO}{{1,4}}单元|{_NO}{{1,4}}门(?!口))")
_ROOM = re.compile(
    rf"((?:{_NO}{{1,3}}(?:层|楼|[fF])(?:之)?)?[A-Za-z]?\d{{1,5}}[A-Z]?(?:-\d{{1,5}})?(?:室|房|户|号房?)?|{_NO}{{1,3}}(?:层|楼|[fF]))$"
)
_TRIPLE = re.compile(r"(\d{1,3})-(\d{1,2})-(\d{2,5})$")
_COMMON = re.compile(  # street, number, building, unit and room, of words in which no other form finds its own
    r"((?:(?![镇乡街道路巷弄胡同公马大步行场木区园新])[\u4e00-\u9fff]|花园){1,8}[路街])(\d{1,5}号)"
    r"((?![院楼馆门线])(?:(?![号栋幢座期附弄之])[\u4e00-\u9fff]){0,6}\d{1,4}[栋幢])?(\d{1,2}单元)?(\d{1,5}室)?",
    re.ASCII,
)
_LATIN = re.compile(r"(?=.*[A-Za-z]{2})[^\u4e00-\u9fff]*")
_TAIL = re.compile(r"\([^)]*\)?$")


def read_place(detail: str) -> Place:
    """Return the parts of an address's detail; what cannot be told, or is not Chinese, stays in the detail only."""
    if match := _COMMON.fullmatch(detail):
        return Place("", *match.groups(""))
    if _LATIN.fullmatch(detail):
        return Place()
    rest = _TAIL.sub("", detail).lstrip("-/")
    town, rest = _take(_TOWN, rest)
    street, rest = _take(_STREET, rest)
    if not street:
        street, rest = _take(_VILLAGE, rest)
    number, rest = _take(_NUMBER, rest)
    if street and not number:
        number, rest = _take(_PLAIN_NUMBER, rest)
    if match := _TRIPLE.search(rest):
        building, _ = _take(_BUILDING, rest[: match.start()])
        return Place(town, street, number, f"{building}{match[1]}", match[2], match[3])
    building, rest = _take(_BUILDING, rest)
    unit, rest = _take(_UNIT, rest)
    match = _ROOM.search(rest)
    is_room = match and (not rest.isdigit() or number or building or unit)
    return Place(town, street, number, building, unit, match[1] if match and is_room else "")


_NUMERALS = str.maketrans("一二三四五六七八九〇零", "12345678900")
_AROUND = re.compile(r"号楼|单元|[号栋幢座室房户院弄楼层门\-—#]|\s")


def places_of(address: Address | None) -> tuple[str, str, str, str]:
    """Return names for room, building, house number (门牌号) and street, equal however they are written.

    Empty where the address does not tell them; each names the city, the street its district.
    """
    if address is None or not address.city_code:
        return "", "", "", ""
    place = address.place
    number = "/".join(map(_plain, (address.city_code, place.street, place.number)))
    building = f"{number}/{_plain(place.building)}"
    is_told = bool((place.street and place.number) or place.building)
    room = f"{building}/{_plain(place.unit)}/{_plain(place.room)}" if is_told and place.room else ""
    street = f"{address.district_code}/{place.street}" if address.district_code and place.street else ""
    return room, building if is_told else "", number if place.street and place.number else "", street


def _plain(text: str) -> str:
    """Return a number or name without the words for what it numbers: 3号楼, 三栋 and 3幢 are 3."""
    return _AROUND.sub("", text.translate(_NUMERALS)).upper()


def _take(pattern: re.Pattern[str], text: str) -> tuple[str, str]:
    """Return what the pattern finds at the start of the text, and the text after it."""
    match = pattern.match(text)
    return (match[1], text[match.end() :].lstrip("-/")) if match else ("", text)
