"""The ways a person gets written down wrong or otherwise: pure functions of a text and a random source."""

from collections.abc import Sequence
from datetime import date
from functools import lru_cache
from random import Random

import opencc

from infra.sample import vocabulary
from services.profiles.domain.divisions import Division, city_code_of, division_table

_FULL_WIDTH = {code: code + 0xFEE0 for code in range(0x21, 0x7F)}
_WRONG_CHARACTERS = "子小大文华国明平海玉春生永金山新志林"
BLOCKED_PHONES = ("13800138000", "11111111111", "00000000000", "13812345678")


@lru_cache(maxsize=1)
def _traditional() -> opencc.OpenCC:
    return opencc.OpenCC("s2t")


def to_traditional(text: str) -> str:
    """Return the text in traditional characters."""
    converted: str = _traditional().convert(text)
    return converted


def to_full_width(text: str) -> str:
    """Return the text with its ASCII letters and digits in full width."""
    return text.translate(_FULL_WIDTH)


def mistype_name(name: str, random: Random) -> str:
    """Return the name with one character replaced by one of the same sound or, one time in four, another one."""
    places = [(at, group) for at, char in enumerate(name) for group in vocabulary.HOMOPHONES if char in group]
    if places and random.random() < 0.75:
        at, group = random.choice(places)
        return name[:at] + random.choice(group.replace(name[at], "")) + name[at + 1 :]
    at = len(name) - 1
    return name[:at] + random.choice(_WRONG_CHARACTERS.replace(name[at], "")) + name[at + 1 :]


def mistype_digits(digits: str, random: Random) -> str:
    """Return the digits with two neighbours swapped or one replaced, never among the first three."""
    at = random.randrange(3, len(digits) - 1)
    if digits[at] != digits[at + 1] and random.random() < 0.5:
        return digits[:at] + digits[at + 1] + digits[at] + digits[at + 2 :]
    return digits[:at] + str((int(digits[at]) + random.randrange(1, 10)) % 10) + digits[at + 1 :]


def write_date(day: date, formats: Sequence[str]) -> str:
    """Return a date in the next of the formats; `short` and `slash` leave leading zeros out."""
    chosen = formats[0]
    if chosen == "short":
        return f"{day.year % 100:02d}.{day.month}.{day.day}"
    if chosen == "slash":
        return f"{day.year}/{day.month}/{day.day}"
    if chosen == "day first":
        return f"{day.day}/{day.month}/{day.year}"
    if chosen == "chinese":
        return f"{day.year}年{day.month}月{day.day}日"
    return day.strftime(chosen)


def write_phone(number: str, random: Random) -> str:
    """Return a mobile number as people type it: blanks, hyphens, country code, full width."""
    grouped = f"{number[:3]} {number[3:7]} {number[7:]}"
    return random.choice(
        (number, number, number, grouped, grouped.replace(" ", "-"), f"+86 {number}", f"+86{number}", f"0086{number}",
         to_full_width(number), f"86-{number}")
    )  # fmt: skip


def write_place(place: Division, random: Random) -> tuple[str, str, str]:
    """Return province, city and county in a mix of full and short forms; a level may be missing."""
    table = division_table()
    province, city = table.by_code[f"{place.code[:2]}0000"], table.by_code[city_code_of(place.code)]
    words = [random.choice(province.names), random.choice(city.names), place.name]
    if place.code[:2] in ("11", "31", "50") and random.random() < 0.6:
        words[1] = ""
    if random.random() < 0.06:
        words[0] = ""
        words[1] = words[1] or city.name
    if random.random() < 0.05:
        words[2] = ""
    return words[0], words[1], words[2]
