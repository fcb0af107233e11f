"""The resident identity number of GB 11643-1999: 18 characters, or 15 digits in its form before 1999."""

import re
from datetime import date
from operator import mul

from services.profiles.domain.blocked import is_blocked_resident_id, is_empty_word
from services.profiles.domain.divisions import is_known_code
from services.profiles.domain.text import clean

_WEIGHTS = (7, 9, 10, 5, 8, 4, 2, 1, 6, 3, 7, 9, 10, 5, 8, 4, 2)  # GB 11643-1999, 2^(18-i) mod 11
_CHECK = "10X98765432"
_NUMBER = re.compile(r"\d{17}[\dX]|\d{15}")
_PERMIT_REGIONS = ("810000", "820000", "830000")  # residence permits for people of Hong Kong, Macao and Taiwan
_NOISE = re.compile(r"[\s\-.'\"]+")


def check_digit(first_seventeen: str) -> str:
    """Return the 18th character for 17 digits (ISO 7064 MOD 11-2)."""
    return _CHECK[sum(map(mul, _WEIGHTS, map(int, first_seventeen))) % 11]


def parse_resident_id(text: str) -> tuple[str, str]:
    """Return (18 characters, "") or ("", reason); both empty for empty text. 15 digits get 19 and a check digit."""
    if not text:
        return "", ""
    text = _NOISE.sub("", clean(text)).upper()
    if is_empty_word(text):
        return "", "RESIDENT_ID_BLOCKED" if text else ""
    if not text.isascii() or not _NUMBER.fullmatch(text):
        return "", "RESIDENT_ID_UNREADABLE"
    if is_blocked_resident_id(text):
        return "", "RESIDENT_ID_BLOCKED"
    if len(text) == 15:
        body = f"{text[:6]}19{text[6:]}"
        text = body + check_digit(body)
    elif check_digit(text[:17]) != text[17]:
        return "", "RESIDENT_ID_CHECK_DIGIT"
    if not birth_date_of(text):
        return "", "RESIDENT_ID_BIRTH"
    return (text, "") if is_known_code(text[:6]) or text[:6] in _PERMIT_REGIONS else ("", "RESIDENT_ID_REGION")


def birth_date_of(resident_id: str) -> str:
    """Return the birth date in an 18-character number as YYYY-MM-DD, or an empty string when there is no such day."""
    try:
        found = date(int(resident_id[6:10]), int(resident_id[10:12]), int(resident_id[12:14]))
    except ValueError:
        return ""
    return found.isoformat() if found.year >= 1850 else ""


def gender_of(resident_id: str) -> str:
    """Return "male" for an odd 17th digit, "female" for an even one."""
    return "male" if int(resident_id[16]) % 2 else "female"
