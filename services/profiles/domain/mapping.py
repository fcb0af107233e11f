"""From a column's text to a field's: a closed list of steps, as data; nothing is evaluated."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import date
from typing import TypeAlias

from services.profiles.domain.dates import parse_date

BLANKS = " \t\r\n\v\f\u00a0\u2000\u2001\u2002\u2003\u200b\u200c\u200d\u3000\ufeff"
LONGEST = 64 * 1024  # characters that a replacement leaves: step after step a text could grow without end
KEEP, CLEAR, REFUSE = "keep", "clear", "refuse"


class ValueNotListed(ValueError):
    """A value is not in the list that its column is translated by."""


@dataclass(frozen=True, slots=True)
class Trim:
    """Take characters off both ends, white space when none are named."""

    characters: str = ""

    def apply(self, text: str, row: Mapping[str, str]) -> str:
        """Return the text without them."""
        return text.strip(self.characters or BLANKS)


@dataclass(frozen=True, slots=True)
class Split:
    """Split and take a part, 1 the first, -1 the last."""

    delimiter: str
    take: int

    def apply(self, text: str, row: Mapping[str, str]) -> str:
        """Return the part; empty when there is none."""
        parts = text.split(self.delimiter)
        at = self.take - 1 if self.take > 0 else len(parts) + self.take
        return parts[at] if 0 <= at < len(parts) else ""


@dataclass(frozen=True, slots=True)
class Concatenate:
    """Put the texts of other columns behind, those that are not empty."""

    columns: tuple[str, ...]
    separator: str = ""

    def apply(self, text: str, row: Mapping[str, str]) -> str:
        """Return them all, separated."""
        return self.separator.join(part for part in (text, *(row.get(name, "") for name in self.columns)) if part)


@dataclass(frozen=True, slots=True)
class Constant:
    """One text, whatever the column holds."""

    text: str

    def apply(self, text: str, row: Mapping[str, str]) -> str:
        """Return it."""
        return self.text


@dataclass(frozen=True, slots=True)
class Replace:
    """Put one text in the place of another."""

    find: str
    instead: str

    def apply(self, text: str, row: Mapping[str, str]) -> str:
        """Return the text so changed, LONGEST characters of it at most."""
        return text[:LONGEST].replace(self.find, self.instead)[:LONGEST]


@dataclass(frozen=True, slots=True)
class ValueMap:
    """Translate whole values; `otherwise` says what becomes of one that is not listed."""

    values: Mapping[str, str]
    otherwise: str = KEEP

    def apply(self, text: str, row: Mapping[str, str]) -> str:
        """Return the translation.

        Raises:
            ValueNotListed: it is not listed and is to be refused.
        """
        found = self.values.get(text.strip(BLANKS))
        if found is not None:
            return found
        if self.otherwise == REFUSE and text.strip(BLANKS):
            raise ValueNotListed
        return text if self.otherwise == KEEP else ""


@dataclass(frozen=True, slots=True)
class DateOrder:
    """Read all-numeric dates of this column in an order of its own."""

    order: str

    def apply(self, text: str, row: Mapping[str, str]) -> str:
        """Return YYYY-MM-DD, or the text as it is when it is no date: the field says why."""
        return parse_date(text, self.order, date.today().year)[0] or text


Transform: TypeAlias = Trim | Split | Concatenate | Constant | Replace | ValueMap | DateOrder


def columns_of(column: str, transforms: tuple[Transform, ...]) -> tuple[str, ...]:
    """Return the columns that a mapping reads."""
    others = [name for step in transforms if isinstance(step, Concatenate) for name in step.columns]
    return (column, *others)
