"""People who are hard to tell apart: a table of public figures as reference works have them, made up.

What is wrong with such records: stage, pen and married names, initials, two spellings of one foreign name, names in the
other order, years for dates, dates of baptism, namesakes in one family and town, and records that could be of
either of two namesakes. Words are FEBRL's; the shares of errors were set before anything was measured.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import date, timedelta
from functools import lru_cache
from itertools import accumulate
from pathlib import Path
from random import Random

import pyarrow as pa
import pyarrow.parquet as pq

from tests.bench.table_people import febrl

NAMESAKES = 0.12  # of the people share name and town with a parent or cousin
ALIASES = (0.55, 0.25, 0.13, 0.07)  # how many have none, one, two, three other names
BY_ALIAS = 0.3  # of the records of who has other names
PARTED = 0.12  # of the records: names in the other order
INITIALS, NO_GIVEN = 0.08, 0.03
SPELT_OTHERWISE, MISTYPED = 0.15, 0.06
NO_DATE, YEAR_ONLY, DATE_OFF, YEAR_OFF, TURNED_DATE = 0.15, 0.14, 0.06, 0.04, 0.02
NO_PLACE, OTHER_PLACE = 0.18, 0.08
NO_TRADE, OTHER_TRADE = 0.2, 0.25
NO_POSTCODE, MOVED = 0.3, 0.15
BRIDGES = 0.5  # of the namesakes have a record with name and town alone
TRADES = (
    "politician", "writer", "painter", "composer", "singer", "actor", "soldier", "lawyer", "priest", "engineer",
    "merchant", "physician", "explorer", "chemist", "footballer", "cricketer", "journalist", "architect",
    "botanist", "sculptor", "poet", "historian", "judge", "photographer", "dancer", "diplomat",
)  # fmt: skip
_SPELLINGS = (
    ("ph", "f"), ("ck", "k"), ("y", "i"), ("ou", "u"), ("ch", "tch"), ("v", "w"), ("ie", "y"), ("c", "k"), ("ks", "x"),
    ("th", "t"), ("j", "y"), ("oe", "o"), ("ee", "i"), ("z", "s"), ("ll", "l"), ("nn", "n"), ("tt", "t"),
)  # fmt: skip


@dataclass(frozen=True, slots=True)
class Figure:
    """One person; `names` are given name and surname, the first is the true one."""

    names: tuple[tuple[str, str], ...]
    birth: date
    place: str
    trade: str
    postcode: str
    has_namesake: bool = False


def make_figures(folder: Path, people: int, records: float, path: Path, seed: int = 23) -> None:
    """Write a Parquet file of people with so many records each, on average, beside the first; a seed gives its rows."""
    words, dice = febrl(folder, "1", "2", "3", "4a", "4b"), Random(seed)
    given, surnames, towns, codes = (
        sorted({str(word) for word in words[name].drop_null().to_pylist() if len(str(word)) > 2})
        for name in ("given_name", "surname", "suburb", "postcode")
    )
    dice.shuffle(given)
    dice.shuffle(towns)
    places = towns[:400]
    figures: list[Figure] = []
    for _ in range(people):
        names = [(_frequent(given, dice), dice.choice(surnames))]
        for _ in range(dice.choices(range(4), ALIASES)[0]):
            names.append(_alias(names[0], given, surnames, dice))
        birth = date(1780, 1, 1) + timedelta(days=dice.randrange(70_000))
        figure = Figure(tuple(names), birth, _frequent(places, dice), _frequent(TRADES, dice), dice.choice(codes))
        if figures and dice.random() < NAMESAKES:
            figure = _namesake(dice.choice(figures), figure, dice)
        figures.append(figure)
    rows = [(at, *row) for at, figure in enumerate(figures) for row in _records(figure, records, dice)]
    dice.shuffle(rows)
    names = ("person", "given_name", "surname", "date_of_birth", "birth_place", "occupation", "postcode")
    columns = dict(zip(names, map(list, zip(*rows, strict=True)), strict=True))
    texts = {name: pa.array([value or None for value in columns[name]], pa.string()) for name in names[1:]}
    pq.write_table(pa.table({"rec_id": pa.array(range(len(rows))), "person": columns["person"], **texts}), path)


def _frequent(words: Sequence[str], dice: Random) -> str:
    """Return one of the words, early ones more often: by Zipf's law, flattened at its top as names are."""
    return dice.choices(words, cum_weights=_shares(len(words)))[0]


@lru_cache
def _shares(count: int) -> list[float]:
    return list(accumulate(1 / (rank + 10) for rank in range(count)))


def _alias(name: tuple[str, str], given: list[str], surnames: list[str], dice: Random) -> tuple[str, str]:
    """Return a stage or pen name, a married name, a second given name, or a surname of two parts."""
    kind = dice.random()
    if kind < 0.3:
        return _frequent(given, dice), dice.choice(surnames)
    if kind < 0.6:
        return name[0], dice.choice(surnames)
    return (_frequent(given, dice), name[1]) if kind < 0.8 else (name[0], f"{name[1]} {dice.choice(surnames)}")


def _namesake(other: Figure, own: Figure, dice: Random) -> Figure:
    """Return a child or cousin of the same name and town, often of the same trade."""
    birth = other.birth + timedelta(days=dice.randrange(6_000, 14_000))
    trade = other.trade if dice.random() < 0.5 else own.trade
    return Figure((other.names[0], *own.names[1:]), birth, other.place, trade, own.postcode, has_namesake=True)


def _records(figure: Figure, records: float, dice: Random) -> list[tuple[str, ...]]:
    count = min(30, 1 + int(dice.expovariate(1 / records)))
    rows = [_record(figure, dice) for _ in range(count)]
    if figure.has_namesake and dice.random() < BRIDGES:
        rows.append((*figure.names[0], "", figure.place, figure.trade if dice.random() < 0.5 else "", ""))
    return rows


def _record(figure: Figure, dice: Random) -> tuple[str, ...]:
    name = figure.names[0]
    if len(figure.names) > 1 and dice.random() < BY_ALIAS:
        name = dice.choice(figure.names[1:])
    given, surname = (_slip(word, dice) for word in name)
    if dice.random() < INITIALS:
        given = given[:1]
    elif dice.random() < NO_GIVEN:
        given = ""
    if dice.random() < PARTED:
        given, surname = surname, given
    place = "" if dice.random() < NO_PLACE else _slip(figure.place, dice)
    if place and dice.random() < OTHER_PLACE:
        place = f"{place} {dice.choice(('district', 'county', 'upper', 'old town'))}"
    trade = "" if dice.random() < NO_TRADE else figure.trade
    trade = dice.choice(TRADES) if trade and dice.random() < OTHER_TRADE else trade
    postcode = "" if dice.random() < NO_POSTCODE else figure.postcode
    postcode = f"{dice.randrange(10_000):04d}" if postcode and dice.random() < MOVED else postcode
    return given, surname, _date(figure.birth, dice), place, trade, postcode


def _slip(word: str, dice: Random) -> str:
    if dice.random() < SPELT_OTHERWISE:
        fitting = [(old, new) for pair in _SPELLINGS for old, new in (pair, pair[::-1]) if old in word]
        word = word.replace(*dice.choice(fitting), 1) if fitting else word
    if dice.random() < MISTYPED and len(word) > 3:
        at = dice.randrange(1, len(word) - 1)
        word = word[:at] + dice.choice((word[at + 1] + word[at] + word[at + 2 :], word[at + 1 :]))
    return word


def _date(birth: date, dice: Random) -> str:
    kind = dice.random()
    for share, make in (
        (NO_DATE, lambda: ""),
        (YEAR_ONLY, lambda: f"{birth:%Y}0101"),
        (DATE_OFF, lambda: f"{birth + timedelta(days=dice.randrange(1, 40)):%Y%m%d}"),
        (YEAR_OFF, lambda: f"{birth.year + dice.choice((-1, 1, -10, 10)):04d}{birth:%m%d}"),
        (TURNED_DATE, lambda: f"{birth:%Y%d%m}"),
    ):
        if kind < share:
            return make()
        kind -= share
    return f"{birth:%Y%m%d}"
