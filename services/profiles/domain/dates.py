"""Dates in the forms Chinese and western systems write them, to YYYY-MM-DD."""

import re
from datetime import UTC, date, datetime, timedelta, timezone
from functools import lru_cache

from services.profiles.domain.blocked import is_empty_word
from services.profiles.domain.text import clean

EARLIEST_BIRTH_YEAR = 1900
_REMEMBERED = 32_768  # texts of dates; there are fewer days than people
_DAYS = 31  # of the longest month
_LUNAR = re.compile(
    "[农阴旧]历|闰|正月|腊月|冬月|月初[一二三四五六七八九十]|月?廿|大?年初[一二三四五六七]|除夕|"
    "[甲乙丙丁戊己庚辛壬癸][子丑寅卯辰巳午未申酉戌亥]年"
)
_PLACEHOLDERS = frozenset(("1900-01-01", "1970-01-01", "9999-12-31", "1899-12-30", "1901-01-01"))
_YEAR_FIRST = re.compile(
    r"(\d{4})\s*[-/.年 ]\s*(\d{1,2})\s*[-/.月 ]\s*(\d{1,2})\s*[日号]?(?:\s*[t ]?\s*\d{1,2}[:时].*)?"
)
_SHORT_YEAR_FIRST = re.compile(r"(\d{2})\s*[-/.年]\s*(\d{1,2})\s*[-/.月]\s*(\d{1,2})\s*[日号]?")
_YEAR_LAST = re.compile(r"(\d{1,2})\s*[-/. ]\s*(\d{1,2})\s*[-/. ]\s*(\d{4})(?:\s+\d{1,2}:.*)?")
_SHORT_YEAR_LAST = re.compile(r"(\d{1,2})\s*[-/]\s*(\d{1,2})\s*[-/]\s*(\d{2})")
_COMPACT = re.compile(r"(\d{4})(\d{2})(\d{2})(?:\d{6})?")
_SHORT_COMPACT = re.compile(r"(\d{2})(\d{2})(\d{2})")
_EXCEL_SERIAL = re.compile(r"([1-5]\d{4})(\.\d+)?")
_REPUBLIC = re.compile(r"民国\s*(\d{1,3})\s*年\s*(\d{1,2})\s*月\s*(\d{1,2})\s*[日号]?")
_DAY_MONTH_NAME = re.compile(r"(\d{1,2})(?:st|nd|rd|th)?[-\s/.]*([a-z]{3,9})[-\s/.,]*(\d{4}|\d{2})")
_MONTH_NAME_DAY = re.compile(r"([a-z]{3,9})[-\s/.]*(\d{1,2})(?:st|nd|rd|th)?[-\s/.,]+(\d{4})")
_MONTHS = {"janfebmaraprmayjunjulaugsepoctnovdec"[at : at + 3]: at // 3 + 1 for at in range(0, 36, 3)}
_HAN_DIGITS = str.maketrans("〇零一二三四五六七八九", "00123456789")
_HAN_TENS = re.compile("([一二三四五六七八九])?十([一二三四五六七八九])?(?=[月日号岁周]|$)")
_AROUND = re.compile(
    r"^(?:出?生于|出生日期|生日|公元|(?:mon|tues?|wed(?:nes)?|thu(?:rs)?|fri|sat(?:ur)?|sun)(?:day)?\b[,.]?)[:\s]*|"
    r"[\s,(]*(?:星期|周|礼拜)[一二三四五六日天1-7][\s)]*|\s*(?:出?生|生日)$|\s+\d{2}:\d{2}(?::\d{2})?\s*(?:gmt|utc)$"
)
_MOMENT = re.compile(r"\s*\d{4}-\d\d-\d\d[T ]\d\d:\d\d(?::\d\d(?:\.\d{1,9})?)?(?:Z|\+00:00)\s*", re.ASCII)
_EXCEL_ZERO = (1900, 1, 0)  # what a spreadsheet shows for an empty date
_EXCEL_EPOCH = date(1899, 12, 30)  # ECMA-376 part 1, 18.17.4.1, with its leap-year slip folded in


def parse_date(text: str, date_order: str, this_year: int) -> tuple[str, str]:
    """Return (YYYY-MM-DD, "") or ("", reason); both empty for empty text.

    Two-digit years are of the past hundred years before `this_year`. `date_order` settles 2/1/1990.
    """
    text = clean(text).lower()
    if is_empty_word(text):
        return "", "DATE_PLACEHOLDER" if text else ""
    if not text.isascii() and _LUNAR.search(text):
        return "", "DATE_LUNAR"
    parts = _parts(text, date_order, this_year)
    if parts == "DATE_UNREADABLE":
        parts = _parts(_tidy(text), date_order, this_year)
    if isinstance(parts, str):
        return "", parts
    try:
        found = date(*parts).isoformat()
    except ValueError:
        return "", "DATE_PLACEHOLDER" if not any(parts) or parts == _EXCEL_ZERO else "DATE_IMPOSSIBLE"
    return ("", "DATE_PLACEHOLDER") if found in _PLACEHOLDERS else (found, "")


@lru_cache(maxsize=_REMEMBERED)
def parse_birth_date(text: str, date_order: str, this_year: int) -> tuple[str, str]:
    """Return parse_date's answer, refusing years before 1900 and after `this_year`."""
    found, reason = parse_date(text, date_order, this_year)
    if found and not EARLIEST_BIRTH_YEAR <= int(found[:4]) <= this_year:
        return "", "DATE_OUT_OF_RANGE"
    return found, reason


def day_of_moment(text: str, utc_offset_minutes: int) -> str:
    """Return the day that a midnight told in UTC begins at the source, any other text as it is.

    1990-05-19T16:00:00Z is how a system in China tells 20 May 1990, and T15:00:00Z where clocks went an hour ahead
    (1986 to 1991). A day without a clock is often told as T00:00:00Z: that day it stays.
    """
    if not _MOMENT.fullmatch(text):
        return text
    try:
        found = datetime.fromisoformat(text.strip()) + timedelta(minutes=utc_offset_minutes + 60)
    except (ValueError, OverflowError):
        return text
    return found.date().isoformat()


def _tidy(text: str) -> str:
    """Return text without the words around a date, with Chinese numerals as digits: 一九九〇年元月二十一日."""
    text = _AROUND.sub("", text).replace("元月", "1月").replace("。", ".").replace("_", "-").replace("\\", "/")
    return in_arabic(text)


def in_arabic(text: str) -> str:
    """Return text with Chinese numerals as digits, up to 99: 一九九〇年十二月 → 1990年12月."""
    return _HAN_TENS.sub(_tens, text).translate(_HAN_DIGITS)


def _tens(match: re.Match[str]) -> str:
    high, low = match.groups()
    return (high or "一") + (low or "〇")


def _parts(text: str, date_order: str, this_year: int) -> tuple[int, int, int] | str:
    """Return year, month, day as written, or the reason why they cannot be told.

    A two-digit year is the last number only with hyphens or slashes, and where the source's order says so or no
    month is that long.
    """
    if match := _YEAR_FIRST.fullmatch(text) or _COMPACT.fullmatch(text):
        year, month, day = (int(group) for group in match.groups())
        return year, month, day
    if match := _YEAR_LAST.fullmatch(text):
        first, second, year = (int(group) for group in match.groups())
        return _day_and_month(first, second, year, date_order)
    if (match := _SHORT_YEAR_LAST.fullmatch(text)) and (date_order != "ymd" or int(match[3]) > _DAYS):
        first, second, year = (int(group) for group in match.groups())
        return _day_and_month(first, second, _full_year(year, this_year), date_order)
    if match := _SHORT_YEAR_FIRST.fullmatch(text) or _SHORT_COMPACT.fullmatch(text):
        year, month, day = (int(group) for group in match.groups())
        return _full_year(year, this_year), month, day
    if match := _REPUBLIC.fullmatch(text):
        year, month, day = (int(group) for group in match.groups())
        return year + 1911, month, day
    return _rare_parts(text, this_year)


def _rare_parts(text: str, this_year: int) -> tuple[int, int, int] | str:
    if match := _DAY_MONTH_NAME.fullmatch(text):
        day, name, year = match.groups()
    elif match := _MONTH_NAME_DAY.fullmatch(text):
        name, day, year = match.groups()
    elif match := _EXCEL_SERIAL.fullmatch(text):
        found = _EXCEL_EPOCH + timedelta(days=int(match[1]))
        return found.year, found.month, found.day
    else:
        return "DATE_UNREADABLE"
    month = _MONTHS.get(name[:3], 0)
    return (_full_year(int(year), this_year), month, int(day)) if month else "DATE_UNREADABLE"


def _day_and_month(first: int, second: int, year: int, date_order: str) -> tuple[int, int, int] | str:
    """Return the parts of an all-numeric date whose year is last; a number over 12 can only be the day."""
    if first > 12 or (date_order == "dmy" and second <= 12):
        return year, second, first
    if second > 12 or date_order == "mdy":
        return year, first, second
    return (year, first, first) if first == second else "DATE_AMBIGUOUS"


def _full_year(year: int, this_year: int) -> int:
    if year >= 100:
        return year
    century = this_year - this_year % 100
    return century + year if century + year <= this_year else century - 100 + year


def parse_timestamp(text: str, date_order: str, utc_offset_minutes: int, this_year: int) -> datetime | None:
    """Return an aware UTC time from ISO 8601, a date and perhaps a clock, or epoch seconds or milliseconds; or None.

    A time without a zone is of the source's zone, `utc_offset_minutes` east of UTC. Two-digit years are of the past
    hundred years before `this_year`. What follows a clock and is neither half of the day nor zone makes it unreadable.
    """
    text = clean(text)
    if text.isascii() and text.isdigit() and len(text) in (10, 13):
        return datetime.fromtimestamp(int(text[:10]), UTC)
    if match := _COMPACT_TIME.fullmatch(text):
        text = "{}T{}.{}".format(*match.groups("000"))
    elif text.isdigit() and len(text) > len("YYYYMMDD"):  # fromisoformat takes any digit for the T before a clock
        return None
    try:
        found = _iso(text) or _day_and_clock(text.lower(), date_order, this_year)
        if found is None:
            return None
        return (found if found.tzinfo else found.replace(tzinfo=_zone(utc_offset_minutes))).astimezone(UTC)
    except OverflowError:
        return None


def _iso(text: str) -> datetime | None:
    try:
        return datetime.fromisoformat(text.replace("/", "-"))
    except ValueError:
        return None


def _day_and_clock(text: str, date_order: str, this_year: int) -> datetime | None:
    clock = _CLOCK.search(text)
    day = parse_date(text[: clock.start()].rstrip(" t,") if clock else text, date_order, this_year)[0]
    if not day or (clock is None and _HAS_CLOCK.search(text)):
        return None
    if clock is None:
        return datetime.fromisoformat(day) + _clock_of_serial(text)
    half = clock["before"] or clock["after"] or ""
    hour, minute, second = (int(clock[name] or 0) for name in ("hour", "minute", "second"))
    hour = _hour_of_day(half, hour)
    if hour > 24 or minute > 59 or second > 59:
        return None
    start = datetime.fromisoformat(f"{day}T00:{minute:02}:{second:02}{_offset(clock['zone'] or '')}")
    return start + timedelta(hours=hour)


def _hour_of_day(half: str, hour: int) -> int:
    """Return the hours since the day began, more than 24 where none can be meant.

    晚上12点 is the end of the day; whether 晚上1点 belongs to the day or to the next, no text tells.
    """
    if half == "晚上" and hour in (*range(5), 12):
        return 24 if hour == 12 else UNCLEAR
    if half in _AFTERNOON and hour < 12 or (half == "中午" and hour < 3):
        return hour + 12
    if half in _MORNING and hour == 12:
        return 0
    return hour if hour < 24 else UNCLEAR


def _clock_of_serial(text: str) -> timedelta:
    """Return how far into its day the number is that a spreadsheet keeps for a time: 45231.75 is at 18:00."""
    match = _EXCEL_SERIAL.fullmatch(text)
    return timedelta(seconds=round(float(match[2] or 0) * 86_400)) if match else timedelta()


def _offset(zone: str) -> str:
    if not zone:
        return ""
    return "+00:00" if zone[0] not in "+-" else f"{zone[:3]}:{zone[-2:]}"


@lru_cache(maxsize=64)
def _zone(utc_offset_minutes: int) -> timezone:
    return timezone(timedelta(minutes=utc_offset_minutes))


_COMPACT_TIME = re.compile(r"(\d{8})(\d{6})(\d{3})?")
_CLOCK = re.compile(
    r"(?:(?P<before>上午|下午|晚上|凌晨|早上|中午|傍晚|[ap]m)\s*)?(?<!\d)(?P<hour>\d{1,2})\s*(?:[:时点]\s*(?P<minute>\d{1,2})?)"
    r"(?:\s*[:分]\s*(?P<second>\d{1,2})?(?:\.\d+)?)?\s*秒?\s*(?P<after>[ap]m)?\s*"
    r"(?P<zone>z|utc|gmt|[+-]\d{2}:?[0-5]\d)?$"
)
_HAS_CLOCK = re.compile("[:时点]")
_MORNING, _AFTERNOON = frozenset(("上午", "凌晨", "早上", "am")), frozenset(("下午", "傍晚", "晚上", "pm"))
UNCLEAR = 99
