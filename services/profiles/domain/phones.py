"""Phone numbers to E.164, several in one cell, Chinese mobiles without the weight of a library."""

import re
from functools import lru_cache

from services.profiles.domain.blocked import is_blocked_phone, is_empty_word
from services.profiles.domain.text import clean, is_han
from services.profiles.domain.values import Phone

PHONES_LIMIT = 10  # in one cell
_MOBILE = re.compile(r"1[3-9]\d{9}")
_PLAIN = re.compile(r"(?:(?:\+|00)?86[ -]?)?(1[3-9][0-9])[ -]?([0-9]{4})[ -]?([0-9]{4})")
_MOBILES_RUN_TOGETHER = re.compile(r"(?:1[3-9]\d{9}){2,}")
_MOBILES_APART = re.compile(r"(?:\+?86[ -]?)?1[3-9]\d[ -]?\d{4}[ -]?\d{4}(?!\d)")
_MOBILE_WITHIN = re.compile(r"(?<![\d+])1[3-9]\d{9}(?!\d)")  # beside what is none: 13912345678 2楼
_SCIENTIFIC = re.compile(r"\d(?:\.\d+)?e\+?\d{1,2}")
_SEPARATORS = re.compile(r"[、,;/|或和&\\]+")
_EXTENSION = re.compile(r"(?:转|分机号?|ext(?:ension)?\.?|#|x)\s*[:=]?\s*(\d{1,6})\s*$")
_EXTENSION_BARE = re.compile(r"(?<=[\d)])\s*[-*#]\s*(\d{1,6})\s*$")  # tried where the whole is no number
_LABEL = re.compile(
    r"^(?:手机号?码?|(?:联系|家庭|办公|固定)?电话(?:号码)?|座机|固话|tel|phone|mobile|mob|cell|[住手家单]?机?)[:.\s]*(?=[+\d(])"
)
_NOISE = re.compile(r"\([^)\d]*\)|[\s\-‐-―().·_*]+")
_COUNTRY = re.compile(r"^(?:\+|00)*86(?=0?1[3-9]\d{9}$|0?[2-9]\d{8,10}$|0?10\d{8}$)")
# Codes of the carriers' cheap long-distance services, dialled before the number.
_CARRIER = re.compile(r"^(?:179\d\d|1259\d|1010[12]\d|1019[03]|11808)(?=0?1[3-9]\d{9}$|0\d{9,11}$)")
_TRUNK = re.compile(r"^0(?=1[3-9]\d{9}$)")
_LOCAL = re.compile(r"[2-9]\d{6,7}")  # a Chinese subscriber's number without its area
_TRUNK_LANDLINE = re.compile(r"0[1-9][0-9]{8,10}")
_AREA = re.compile(r"\+86(10|2\d|[3-9]\d\d)(\d{7,8})")
_HAN_NUMBER = re.compile("[〇零一幺二两三四五六七八九\\s-]{7,}")
_HAN_DIGITS = str.maketrans("〇零一幺二两三四五六七八九", "0011223456789")


def parse_phones(text: str, region: str = "CN") -> tuple[tuple[Phone, ...], tuple[str, ...]]:
    """Return the phones of a cell in their order, and the reasons of what could not be taken.

    A number without area takes that of the landline before it: 010-62345678、62345679.
    """
    if not text:
        return (), ()
    if not _PLAIN.fullmatch(text):  # such a text is clean
        text = clean(text).lower()
    if region == "CN" and (match := _PLAIN.fullmatch(text)) and not is_blocked_phone(digits := "".join(match.groups())):
        return (Phone(f"+86{digits}", "mobile"),), ()
    if is_empty_word(text):
        return (), ("PHONE_BLOCKED",) if text else ()
    if _SCIENTIFIC.fullmatch(text):
        return (), ("PHONE_DIGITS_LOST",)
    phones: dict[str, Phone] = {}
    reasons: dict[str, None] = {}
    parts = _split(_HAN_NUMBER.sub(lambda found: found[0].translate(_HAN_DIGITS), text))
    if len(parts) > PHONES_LIMIT:
        reasons["PHONE_TRUNCATED"] = None
    last = None
    for part in parts[:PHONES_LIMIT]:
        last, reason = _parse_one(_with_area(part, last), region)
        if last:
            phones.setdefault(last.number, last)
        elif reason:
            reasons[reason] = None
            if reason == "PHONE_UNREADABLE" and region == "CN":
                phones.update({item.number: item for item in _mobiles_within(part) if item.number not in phones})
    return tuple(phones.values())[:PHONES_LIMIT], tuple(reasons)


def national_digits(number: str) -> str:
    """Return an E.164 number's digits without the Chinese country code."""
    return number[3:] if number.startswith("+86") else number.lstrip("+")


def _mobiles_within(part: str) -> list[Phone]:
    """Return the whole mobiles in a text that is no number itself."""
    return [Phone(f"+86{digits}", "mobile") for digits in _MOBILE_WITHIN.findall(part) if not is_blocked_phone(digits)]


def _split(text: str) -> list[str]:
    """Return the single numbers of a cell; a blank separates numbers only where both sides are complete."""
    parts: list[str] = []
    for part in _SEPARATORS.split(text.replace(";ext=", " ext ").removeprefix("tel:")):
        part = part.strip()
        words = part.split(" ")
        if _MOBILES_RUN_TOGETHER.fullmatch(part):
            parts += [part[start : start + 11] for start in range(0, len(part), 11)]
        elif len(words) > 1 and all(len(_digits(word)) >= 10 for word in words):
            parts += words
        elif len(words) > 2 and not _MOBILES_APART.sub("", part).strip():
            parts += _MOBILES_APART.findall(part)
        elif part:
            parts.append(part)
    return parts


def _digits(text: str) -> str:
    return "".join(char for char in text if "0" <= char <= "9")


def _with_area(part: str, before: Phone | None) -> str:
    """Return a local number with the area of the landline before it; one or two digits replace its last ones."""
    match = _AREA.fullmatch(before.number) if before and before.kind == "landline" else None
    if not match:
        return part
    area, subscriber = match.groups()
    bare = _NOISE.sub("", _EXTENSION.sub("", part))
    if len(bare) == len(subscriber) and _LOCAL.fullmatch(bare):
        return f"0{area}-{part}"
    if bare == part and bare.isdigit() and len(bare) <= 2:
        return f"0{area}-{subscriber[: -len(bare)]}{bare}"
    return part


def _parse_one(text: str, region: str) -> tuple[Phone | None, str]:
    extension = ""
    if match := _EXTENSION.search(text):
        text, extension = text[: match.start()], match[1]
    phone, reason = _parse_bare(text, region, extension)
    if reason == "PHONE_UNREADABLE" and not extension and (match := _EXTENSION_BARE.search(text)):
        shorter, _ = _parse_bare(text[: match.start()], region, match[1])
        return (shorter, "") if shorter else (phone, reason)
    return phone, reason


def _parse_bare(text: str, region: str, extension: str) -> tuple[Phone | None, str]:
    """Parse a number without extension."""
    text = "".join(char for char in _LABEL.sub("", text.removesuffix(".0")) if not is_han(char))
    bare = _COUNTRY.sub("", _NOISE.sub("", text))
    if region == "CN":
        bare = _TRUNK.sub("", _CARRIER.sub("", bare))
    if is_blocked_phone(bare):
        return None, "PHONE_BLOCKED"
    if region == "CN" and _MOBILE.fullmatch(bare):
        return Phone(f"+86{bare}", "mobile", extension), ""
    if region == "CN" and _LOCAL.fullmatch(bare):
        return None, "PHONE_AREA_MISSING"
    if region == "CN" and _TRUNK_LANDLINE.fullmatch(bare) and _is_landline(bare[1:]):
        if is_blocked_phone(bare[1:]):
            return None, "PHONE_BLOCKED"
        return Phone(f"+86{bare[1:]}", "landline", extension), ""
    return _parse_rare(bare, region, extension)


def _is_landline(number: str) -> bool:
    """Say whether phonenumbers takes this number for a Chinese landline and for nothing else, by its own table."""
    landline, *others = _chinese_forms()
    return landline.fullmatch(number) is not None and not any(form.fullmatch(number) for form in others)


@lru_cache(maxsize=1)
def _chinese_forms() -> tuple[re.Pattern[str], ...]:
    """Return the forms of Chinese numbers as phonenumbers has them, landlines first."""
    from phonenumbers import PhoneMetadata

    table = PhoneMetadata.metadata_for_region("CN")
    kinds = (
        "fixed_line", "mobile", "premium_rate", "toll_free", "shared_cost", "voip", "personal_number", "pager", "uan",
        "voicemail",
    )  # fmt: skip
    forms = (getattr(getattr(table, kind), "national_number_pattern", None) for kind in kinds)
    return tuple(re.compile(form) for form in forms if form)


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
