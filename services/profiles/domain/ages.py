"""Birth years from what is less than a date: 1990年, 90后, 35岁, 30-35岁."""

import re

from services.profiles.domain.dates import EARLIEST_BIRTH_YEAR, in_arabic
from services.profiles.domain.text import clean

OLDEST = 120
_AROUND = re.compile(r"^(?:年龄|age|今年|出?生于|公元)[:\s]*|\s*出?生$")
_YEAR = re.compile(r"((?:19|20)\d\d)\s*(?:年|[-/.年]\s*(?:0?[1-9]|1[0-2])\s*月?)?")
_SHORT_YEAR = re.compile(r"(\d\d)年(?:\d{1,2}月)?")
_DECADE = re.compile(r"((?:19|20)?\d0)[后s]")
_AGES = re.compile(r"(虚岁?)?\s*(\d{1,3})\s*(?:周?岁)?(?:\s*[-~–—到至]\s*(\d{1,3}))?\s*(周?岁|years?(?: old)?|y/?o)")


def parse_birth_years(text: str, this_year: int) -> tuple[int, int] | None:
    """Return the first and last year in which the person may be born, or None; ages are those of `this_year`.

    Who is 35 in a year was born 35 or 36 years before; by the Chinese count (虚岁) 34 or 35.
    """
    text = in_arabic(_AROUND.sub("", clean(text).lower()))
    if match := _YEAR.fullmatch(text):
        first = last = int(match[1])
    elif match := _SHORT_YEAR.fullmatch(text) or _DECADE.fullmatch(text):
        first = _past(int(match[1]), this_year)
        last = first if text[2:3] == "年" else first + 9
    elif match := _AGES.fullmatch(text):
        low, high = int(match[2]), int(match[3] or match[2])
        if low > high or high > OLDEST:
            return None
        nominal = bool(match[1])
        first, last = this_year - high - 1 + nominal, this_year - low + nominal
    else:
        return None
    return (first, min(last, this_year)) if EARLIEST_BIRTH_YEAR <= first <= this_year else None


def _past(year: int, this_year: int) -> int:
    """Return a year of two digits as one of the hundred years before `this_year`."""
    if year >= 100:
        return year
    century = this_year - this_year % 100
    return century + year if century + year <= this_year else century - 100 + year
