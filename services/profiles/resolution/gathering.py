"""Records on their way into columns: each is taken apart and let go, so that millions fit in memory.

A value is kept once, however many records have it; a record is a few numbers.
"""

from array import array
from collections.abc import Hashable, Iterable, Sequence

import numpy as np

from services.profiles.domain.blocking import blocking_keys
from services.profiles.domain.comparison import birth_years_of, documents_of, implied_phones
from services.profiles.domain.places import places_of
from services.profiles.domain.values import Address, PersonName, StandardRecord
from services.profiles.resolution.kernels import Sets

_MOST = 2**63 - 1


class Codes:
    """Numbers for values in the order they are first met; an empty value has -1."""

    def __init__(self) -> None:
        self.known: dict[Hashable, int] = {}

    def of(self, value: Hashable) -> int:
        """Return the number of a value."""
        return self.known.setdefault(value, len(self.known)) if value else -1


class Lists:
    """Several codes of each record."""

    def __init__(self, codes: Codes) -> None:
        """Number values by `codes`, which other lists may share."""
        self.codes = codes
        self._found = array("i")
        self._ends = array("q", (0,))

    def add(self, values: Iterable[Hashable]) -> None:
        """Take the values of the next record."""
        self._found.extend([self.codes.of(value) for value in values])
        self._ends.append(len(self._found))

    def rows(self) -> np.ndarray:
        """Return the record of each value."""
        return np.repeat(np.arange(len(self._ends) - 1), np.diff(_numbers(self._ends, np.int64)))

    def sets(self, dropped: np.ndarray) -> Sets:
        """Return the values without the dropped codes."""
        found, ends = _numbers(self._found, np.int32), _numbers(self._ends, np.int64)
        if not dropped.size:
            return Sets(found, ends)
        kept = ~np.isin(found, dropped)
        return Sets(found[kept], np.concatenate([[0], np.cumsum(kept)])[ends])

    def found(self) -> np.ndarray:
        """Return the codes of all values."""
        return _numbers(self._found, np.int32)


class Gathered:
    """What of records takes part in comparisons and blocking."""

    def __init__(self) -> None:
        self.size = 0
        self.names: dict[tuple[str, str, str, bool, str], int] = {}
        self.bearers: list[PersonName] = []
        phones = Codes()
        self.phones, self.implied, self.emails = Lists(phones), Lists(phones), Lists(Codes())
        self.resident_ids, self.births, self.genders, self.places = Codes(), Codes(), Codes(), Codes()
        self._names, self._ids, self._births, self._genders = (array("i") for _ in range(4))
        self._addresses = array("i")
        self._years = array("h")
        self.documents = Lists(Codes())
        self._keys = array("q")
        self._key_kinds = array("b")
        self._key_ends = array("q", (0,))
        self.kinds: dict[str, int] = {}

    def add(self, record: StandardRecord) -> None:
        """Take the next record."""
        self.size += 1
        self._names.append(self._name(record.name))
        self.phones.add(sorted({phone.number for phone in record.phones}))
        self.implied.add(sorted(set(implied_phones(record.emails))))
        self.emails.add(sorted(set(record.emails)))
        self._ids.append(self.resident_ids.of(record.resident_id))
        self._births.append(self.births.of(record.birth_date))
        self._genders.append(self.genders.of(record.gender))
        place = record.address or Address()
        row = (place.province_code, place.city_code, place.district_code, place.detail and (place.detail,))
        named = [(level, at) if at else "" for level, at in enumerate(places_of(record.address))]
        self._addresses.extend([self.places.of(part) for part in (*row, *named)])
        self._years.extend(birth_years_of(record) or (0, 0))
        papers = documents_of(record.documents).items()
        self.documents.add([(kind, number) for kind, found in papers for number in sorted(found)])
        for key in blocking_keys(record):
            kind = key.partition(":")[0]
            self._keys.append(hash(key) & _MOST)
            self._key_kinds.append(self.kinds.setdefault(kind, len(self.kinds)))
        self._key_ends.append(len(self._keys))

    def _name(self, name: PersonName | None) -> int:
        if name is None:
            return -1
        called = "" if name.given else name.title  # 小明 calls somebody else than 明先生
        key = (name.surname, name.given, name.style, name.is_surname_first, called)
        code = self.names.setdefault(key, len(self.names))
        if code == len(self.bearers):
            self.bearers.append(name)
        return code

    def column(self, name: str) -> np.ndarray:
        """Return the codes of names, ids, births or genders by record, -1 where unknown."""
        return _numbers(getattr(self, f"_{name}"), np.int32)

    def addresses(self) -> np.ndarray:
        """Return a row of codes for each record, as Addresses has them."""
        return _numbers(self._addresses, np.int32).reshape(-1, 8)

    def years(self) -> np.ndarray:
        """Return the first and last year of birth of each record, 0 where unknown."""
        return _numbers(self._years, np.int16).reshape(-1, 2)

    def papers(self) -> tuple[Sets, np.ndarray]:
        """Return the documents of each record, and the kind of each document's code."""
        kinds = Codes()
        of_code = [kinds.of(key[0]) for key in self.documents.codes.known if isinstance(key, tuple)]
        return self.documents.sets(np.zeros(0, np.int32)), np.array(of_code, np.int32)

    def shared(self, identifiers: Lists, most: int) -> np.ndarray:
        """Return the codes of identifiers that are known under more than `most` names; none is a name too."""
        fulls = Codes()
        full = np.fromiter((fulls.of(name.full) for name in self.bearers), np.int64, len(self.bearers))
        by_record = np.append(full, -1)[self.column("names")]
        found = np.stack([identifiers.found().astype(np.int64), by_record[identifiers.rows()]], 1)
        codes, counts = np.unique(np.unique(found, axis=0)[:, 0], return_counts=True)
        return codes[counts > most]

    def key_rules(self, kinds: Sequence[str]) -> list[list[list[np.ndarray]]]:
        """Return the blocking keys of some kinds, or of all, as rules of one slot for each key a record may have."""
        keys, kind_of = _numbers(self._keys, np.int64), _numbers(self._key_kinds, np.int8)
        rows = np.repeat(np.arange(self.size), np.diff(_numbers(self._key_ends, np.int64)))
        rules = []
        for kind in kinds or sorted(self.kinds):
            chosen = kind_of == self.kinds.get(kind, -1)
            own, own_rows = keys[chosen], rows[chosen]
            firsts = np.searchsorted(own_rows, own_rows)
            slots = np.arange(own.size) - firsts
            table = np.full((int(slots.max(initial=0)) + 1, self.size), -1, np.int64)
            table[slots, own_rows] = own
            rules.append([[slot] for slot in table])
        return rules


def _numbers(found: array, kind: type) -> np.ndarray:  # type: ignore[type-arg]
    return np.frombuffer(found, kind) if len(found) else np.zeros(0, kind)
