"""Beginnings of addresses that were read before: province, city and county in any of their forms, the county in full.

Where such a beginning ends, what follows cannot change how it is read: no longer name begins within it, and no full
name of a division comes next. Whatever does not keep to that is read the long way.
"""

import re
from functools import lru_cache

from services.profiles.domain.divisions import DivisionTable, city_code_of, division_table, is_full

_LONGEST = 40  # characters of a beginning
_ENDS = re.compile("[区县市旗]")
_GOES_ON = frozenset("-/市省自直县")  # begins what is passed over behind a division (addresses._DIRECT)


class Beginnings:
    """What was learnt, at most a few forms for each county."""

    def __init__(self, table: DivisionTable) -> None:
        self._table = table
        self._full = {start: tuple(filter(is_full, names)) for start, names in table.starts.items()}
        self._codes: dict[str, str] = {}
        names = {name for names in table.starts.values() for name in names}
        self._unfinished = frozenset(name[:end] for name in names for end in range(1, len(name)))

    def county_at(self, text: str) -> tuple[str, str] | None:
        """Return the code of the county that the text begins with, and the text after it, if that was learnt."""
        for match in _ENDS.finditer(text, 1, _LONGEST):
            end = match.end()
            if code := self._codes.get(text[:end]):
                after = text[end:]
                return (code, after) if self._is_free(after) else None
        return None

    def learn(self, beginning: str, code: str, after: str) -> None:
        """Keep that this beginning is the county of this code, where that holds whatever follows."""
        if self._is_free(after) and beginning not in self._codes and self._is_closed(beginning, code):
            self._codes[beginning] = code

    def _is_free(self, after: str) -> bool:
        """Say whether the text goes on, and not with a division's full name: a short one is a street's."""
        if not after or after[0] in _GOES_ON:
            return False
        return not after.startswith(self._full.get(after[:2], ()))

    def _is_closed(self, beginning: str, code: str) -> bool:
        """Say whether it consists of the names of these divisions alone, and no longer name begins within it."""
        county, by_code = self._table.by_code[code].name, self._table.by_code
        if len(beginning) > _LONGEST or not beginning.endswith(county) or not _ENDS.match(county, len(county) - 1):
            return False
        city = by_code.get(city_code_of(code))
        cities = ("", *city.names) if city else ("",)
        above = {f"{one}{other}" for one in ("", *by_code[f"{code[:2]}0000"].names) for other in cities}
        if beginning[: -len(county)] not in above:
            return False
        return not any(beginning[start:] in self._unfinished for start in range(len(beginning)))


@lru_cache(maxsize=1)
def beginnings() -> Beginnings:
    """Return those of this process."""
    return Beginnings(division_table())
