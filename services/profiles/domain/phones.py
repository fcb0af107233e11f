"""Phone numbers to E.164, several in one cell, Chinese mobiles without the weight of a library."""

import re

from services.profiles.domain.blocked import is_blocked_phone, is_empty_word
from services.profiles.domain.text import clean
from services.profiles.domain.values import Phone

PHONES_LIMIT = 10  # in one cell
_MOBILE = re.compile(r"1[3-9]\d{9}")
_MOBILES_RUN_TOGETHER = re.compile(r"(?:1[3-9]\d{9}){2,}")
_SCIENTIFIC = re.compile(r"\d(?:\.\d+)?e\+?\d{1,2}")
_SEPARATORS = re.compile(r"[、,;/|或和&\\]+")
_EXTENSION = re.compile(r"(?:转|分机|ext\.?|extension|#|x)\s*:?\s*(\d{1,6})\s*$")
_LABEL = re.compile(r"^(?:手机号?码?|电话|联系电话|座机|tel|phone|mobile|mob|cell|[住手家单]?机?)[:.\s]*(?=[+\d(])")
_NOISE = re.compile(r"[\s\-‐-―().·_*]+|\(.*?\)$")
_COUNTRY = re.compile(r"^(?:\+|00)?86(?=1[3-9]\d{9}$|0?[2-9]\d{8,10}$)")


def parse_phones(text: str, region: str = "CN") -> tuple[tuple[Phone, ...], tuple[str, ...]]:
    """Return the phones of a cell in their order, and the reasons of what could not be taken."""
    text = clean(text).lower()
    if is_empty_word(text):
        return (), ("PHONE_BLOCKED",) if text else ()
    if _SCIENTIFIC.fullmatch(text):
        return (), ("PHONE_DIGITS_LOST",)
    phones: dict[str, Phone] = {}
    reasons: dict[str, None] = {}
    parts = _split(text)
    if len(parts) > PHONES_LIMIT:
        reasons["PHONE_TRUNCATED"] = None
    for part in parts[:PHONES_LIMIT]:
        phone, reason = _parse_one(part, region)
        if phone:
            phones.setdefault(phone.number, phone)
        elif reason:
            reasons[reason] = None
    return tuple(phones.values()), tuple(reasons)


def national_digits(number: str) -> str:
    """Return an E.164 number's digits without the Chinese country code."""
    return number[3:] if number.startswith("+86") else number.lstrip("+")


def _split(text: str) -> list[str]:
    """Return the single numbers of a cell; a blank separates numbers only where both sides are complete."""
    parts: list[str] = []
    for part in _SEPARATORS.split(text):
        part = part.strip()
        words = part.split(" ")
        if _MOBILES_RUN_TOGETHER.fullmatch(part):
            parts += [part[start : start + 11] for start in range(0, len(part), 11)]
        elif len(words) > 1 and all(len(_digits(word)) >= 10 for word in words):
            parts += words
        elif part:
            parts.append(part)
    return parts


def _digits(text: str) -> str:
    return "".join(char for char in text if "0" <= char <= "9")


def _parse_one(text: str, region: str) -> tuple[Phone | None, str]:
    extension = ""
    if match := _EXTENSION.search(text):
        text, extension = text[: match.start()], match[1]
    bare = _NOISE.sub("", _LABEL.sub("", text.removesuffix(".0")))
    bare = _COUNTRY.sub("", bare)
    if is_blocked_phone(bare):
        return None, "PHONE_BLOCKED"
    if region == "CN" and _MOBILE.fullmatch(bare):
        return Phone(f"+86{bare}", "mobile", extension), ""
    return _parse_rare(bare, region, extension)


def _parse_rare(bare: str, region: str, extension: str) -> tuple[Phone | None, str]:
    """Parse what is not a Chinese mobile with phonenumbers, loaded at first use."""
    if not 5 <= len(_digits(bare)) <= 17:
        return None, "PHONE_UNREADABLE"
    import phonenumbers

    try:
        found = phonenumbers.parse("+" + bare[2:] if bare.startswith("00") else bare, region)
    except phonenumbers.NumberParseException:
        return None, "PHONE_UNREADABLE"
    if not phonenumbers.is_valid_number(found):
        return None, "PHONE_UNREADABLE"
    number = phonenumbers.format_number(found, phonenumbers.PhoneNumberFormat.E164)
    if is_blocked_phone(national_digits(number)):
        return None, "PHONE_BLOCKED"
    return Phone(number, _KINDS.get(phonenumbers.number_type(found), "other"), extension), ""


_KINDS = {0: "landline", 1: "mobile", 2: "mobile"}  # phonenumbers.PhoneNumberType
