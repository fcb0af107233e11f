"""Validation rules as data: what a standardized record must satisfy; no code and no regular expression is run."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from decimal import Decimal
from typing import TypeAlias

from services.profiles.domain.cross_record import CROSS_CHECKS, Around, CrossCheck, Holders, Index, Value
from services.profiles.domain.readings import NUMBER, alike, read
from services.profiles.domain.text import is_han
from services.profiles.domain.values import Problem, Severity, StandardRecord

RULE = "RULE_"  # before the id of a rule in a reason
LENGTH = "length"  # beside NUMBER and DATE
LESS, LESS_OR_EQUAL, EQUAL, NOT_EQUAL = "less", "less_or_equal", "equal", "not_equal"
ANY_RUN = "*"
_CLASSES: Mapping[str, Callable[[str], bool]] = {
    "9": lambda char: "0" <= char <= "9",
    "A": lambda char: char.isascii() and char.isalpha(),
    "汉": is_han,
    "?": lambda char: True,
}


@dataclass(frozen=True, slots=True)
class Range:
    """A number, a date or a length lies between two bounds, both included; an empty bound is none."""

    kind: str
    least: str = ""
    most: str = ""

    def holds(self, texts: Sequence[str], others: Sequence[str]) -> bool:
        """Tell whether every value is within; what is no number or date is not."""
        return all(self._is_within(text) for text in texts)

    def _is_within(self, text: str) -> bool:
        value = Decimal(len(text)) if self.kind == LENGTH else read(text, self.kind)
        bound = NUMBER if self.kind == LENGTH else self.kind
        if value is None:
            return False
        least, most = read(self.least, bound), read(self.most, bound)
        return (least is None or value >= least) and (most is None or value <= most)  # type: ignore[operator]


@dataclass(frozen=True, slots=True)
class Shape:
    """Every value is of one of some shapes: 9 a digit, A a letter, 汉 a Chinese character, ? anything, * any run."""

    shapes: tuple[str, ...]

    def holds(self, texts: Sequence[str], others: Sequence[str]) -> bool:
        """Tell whether every value is of a shape."""
        return all(any(fits(text, shape) for shape in self.shapes) for text in texts)


@dataclass(frozen=True, slots=True)
class Listed:
    """Every value is in a list."""

    values: frozenset[str]

    def holds(self, texts: Sequence[str], others: Sequence[str]) -> bool:
        """Tell whether every value is listed."""
        return all(text in self.values for text in texts)


@dataclass(frozen=True, slots=True)
class Compared:
    """The first value stands in a relation to another field's, as numbers, dates or texts, where both are known."""

    other: str
    relation: str

    def holds(self, texts: Sequence[str], others: Sequence[str]) -> bool:
        """Tell whether the relation holds."""
        if not texts or not others:
            return True
        one, two = alike(texts[0], others[0])
        if self.relation in (EQUAL, NOT_EQUAL):
            return (one == two) == (self.relation == EQUAL)
        return one < two or (self.relation == LESS_OR_EQUAL and one == two)  # type: ignore[operator]


@dataclass(frozen=True, slots=True)
class Present:
    """There is a value; where another field is named, only when that has one."""

    other: str = ""

    def holds(self, texts: Sequence[str], others: Sequence[str]) -> bool:
        """Tell whether there is one where there must be."""
        return bool(texts) or bool(self.other and not others)


Check: TypeAlias = Range | Shape | Listed | Compared | Present


@dataclass(frozen=True, slots=True)
class Rule:
    """One rule; no source means all."""

    rule_id: str
    field: str
    check: Check | CrossCheck
    severity: Severity
    source_id: str = ""

    @property
    def looks_around(self) -> bool:
        """Tell whether the record alone does not show whether it breaks the rule."""
        return isinstance(self.check, CROSS_CHECKS)

    @property
    def reason(self) -> str:
        """Return the reason of what breaks it."""
        return RULE + self.rule_id

    @property
    def index(self) -> Index | None:
        """Return by which field, of whose records, it asks for holders of a value; None when it does not."""
        return self.check.index(self.field, self.source_id) if isinstance(self.check, CROSS_CHECKS) else None

    def asks(self, record: StandardRecord) -> Mapping[Value, int]:
        """Return the values whose holders must be known to judge a record, and how many of these suffice."""
        if self.source_id not in ("", record.source_id) or not isinstance(self.check, CROSS_CHECKS):
            return {}
        return self.check.asks(self.field, record.source_id, texts_of(record, self.field))

    def is_broken_among(
        self, record: StandardRecord, key: str, holders: Holders, former: StandardRecord | None = None
    ) -> bool:
        """Tell whether a record, by its key, breaks a rule that looks around; `former` is the version before it."""
        if self.source_id not in ("", record.source_id) or not isinstance(self.check, CROSS_CHECKS):
            return False
        around = Around(key, holders, texts_of(former, self.field) if former else ())
        return not self.check.holds_among(self.field, record.source_id, texts_of(record, self.field), around)

    def is_broken_by(self, record: StandardRecord) -> bool:
        """Tell whether the rule is of the record's source and the record, by itself, breaks it."""
        if self.source_id not in ("", record.source_id) or isinstance(self.check, CROSS_CHECKS):
            return False
        other = getattr(self.check, "other", "")
        return not self.check.holds(texts_of(record, self.field), texts_of(record, other) if other else ())


def broken(rules: Sequence[Rule], record: StandardRecord) -> tuple[Problem, ...]:
    """Return a problem for each rule that the record breaks."""
    return tuple(Problem(rule.field, rule.reason, rule.severity) for rule in rules if rule.is_broken_by(record))


def texts_of(record: StandardRecord, field: str) -> tuple[str, ...]:
    """Return the values of a field in standard form; of a custom field as the source wrote it."""
    if field == "name":
        found: Sequence[str] = (record.name.full,) if record.name else ()
    elif field == "phone":
        found = [phone.number for phone in record.phones]
    elif field == "email":
        found = record.emails
    elif field == "address":
        found = (record.address.text,) if record.address else ()
    elif field in ("gender", "birth_date", "resident_id"):
        found = (getattr(record, field),)
    else:
        found = (record.originals.get(field, "").strip(),)
    return tuple(text for text in found if text)


def fits(text: str, shape: str) -> bool:
    """Tell whether the whole text is of a shape, in at most len(text) * len(shape) steps; \\ makes a sign literal."""
    signs = _signs(shape)
    at = sign = 0
    star, resume = -1, 0
    while at < len(text):
        if sign < len(signs) and signs[sign] is None:
            star, resume, sign = sign, at, sign + 1
        elif sign < len(signs) and signs[sign](text[at]):  # type: ignore[misc]
            at, sign = at + 1, sign + 1
        elif star >= 0:
            resume += 1
            at, sign = resume, star + 1
        else:
            return False
    return all(item is None for item in signs[sign:])


def _signs(shape: str) -> list[Callable[[str], bool] | None]:
    """Return what each sign of a shape accepts; None for any run."""
    signs: list[Callable[[str], bool] | None] = []
    chars = iter(shape)
    for char in chars:
        if char == ANY_RUN:
            signs.append(None)
        elif char in _CLASSES:
            signs.append(_CLASSES[char])
        else:
            signs.append((next(chars, "\\") if char == "\\" else char).__eq__)
    return signs


def is_bound(text: str, kind: str) -> bool:
    """Tell whether a text may bound a range of a kind."""
    return not text or read(text, NUMBER if kind == LENGTH else kind) is not None
