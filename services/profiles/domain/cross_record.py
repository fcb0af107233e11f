"""Checks of validation rules that look beyond the record: at who else holds a value, at its own former version."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence, Set
from dataclasses import dataclass
from typing import NamedTuple, TypeAlias

from services.profiles.domain.readings import alike

OWN = "*"  # as the source of an index: the records of each source apart


class Value(NamedTuple):
    """A field's value in standard form among the records of one source; of all sources without one."""

    field: str
    source_id: str
    text: str


Holders: TypeAlias = Callable[[Value], Set[str]]  # the keys of the records that hold a value, up to as many as asked
Index: TypeAlias = tuple[str, str]  # a field, and the source whose records are told apart by it: "" for all, or OWN


@dataclass(frozen=True, slots=True)
class Around:
    """What is known beyond a record: its own key, who holds a value, the texts of its former version."""

    key: str
    holders: Holders
    former: Sequence[str] = ()


@dataclass(frozen=True, slots=True)
class Shared:
    """No value is held by more than `most` records, this one included, of its own source or of all."""

    most: int
    is_everywhere: bool = False

    def index(self, field: str, source_id: str) -> Index:
        """Return the index that it counts by, where the rule is of a source or, without one, of all."""
        return (field, "" if self.is_everywhere else source_id or OWN)

    def asks(self, field: str, source_id: str, texts: Sequence[str]) -> Mapping[Value, int]:
        """Return the values of a record of a source whose holders must be known, and how many of them suffice."""
        return {self._value(field, source_id, text): self.most + 1 for text in texts}

    def holds_among(self, field: str, source_id: str, texts: Sequence[str], around: Around) -> bool:
        """Tell whether no value is held by too many."""
        values = (self._value(field, source_id, text) for text in texts)
        return all(len(around.holders(value) | {around.key}) <= self.most for value in values)

    def _value(self, field: str, source_id: str, text: str) -> Value:
        return Value(field, "" if self.is_everywhere else source_id, text)


@dataclass(frozen=True, slots=True)
class Known:
    """Every value is also held by another record: of a source or, without one, of any; in a field of theirs."""

    source_id: str
    field: str

    def index(self, field: str, source_id: str) -> Index:
        """Return the index that it is looked up by."""
        return (self.field or field, self.source_id)

    def asks(self, field: str, source_id: str, texts: Sequence[str]) -> Mapping[Value, int]:
        """Return the values whose holders must be known; two suffice, for one may be the record itself."""
        return {Value(*self.index(field, ""), text): 2 for text in texts}

    def holds_among(self, field: str, source_id: str, texts: Sequence[str], around: Around) -> bool:
        """Tell whether somebody else holds each of them."""
        values = (Value(*self.index(field, ""), text) for text in texts)
        return all(around.holders(value) - {around.key} for value in values)


@dataclass(frozen=True, slots=True)
class Rising:
    """The first value is not less than that of the record's former version, as numbers, dates or texts."""

    def index(self, field: str, source_id: str) -> None:
        """Return nothing: no other record is asked for."""

    def asks(self, field: str, source_id: str, texts: Sequence[str]) -> Mapping[Value, int]:
        """Return nothing."""
        return {}

    def holds_among(self, field: str, source_id: str, texts: Sequence[str], around: Around) -> bool:
        """Tell whether it did not fall; a version without a value breaks nothing."""
        if not texts or not around.former:
            return True
        one, two = alike(around.former[0], texts[0])
        return one <= two  # type: ignore[operator]


CrossCheck: TypeAlias = Shared | Known | Rising
CROSS_CHECKS = (Shared, Known, Rising)
