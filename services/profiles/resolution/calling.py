"""Whom incomplete names mean, of all records at once: `domain/callings.py` on the few phones and e-mails it needs."""

from collections import defaultdict

import numpy as np

from services.profiles.domain.callings import means_one
from services.profiles.domain.comparison import named
from services.profiles.resolution.gathering import Gathered
from services.profiles.resolution.judging import Meant
from services.profiles.resolution.kernels import Sets


def meant_by(gathered: Gathered, shared_phones: np.ndarray, shared_emails: np.ndarray) -> Meant:
    """Return the identifiers of each whole name, and those on which an incomplete name means one person.

    Shared ones are left out. Phones and e-mails are numbered together: e-mails after all phones.
    """
    phones = len(gathered.phones.codes.known)
    parts = [gathered.phones.sets(shared_phones), gathered.implied.sets(shared_phones)]
    mails = gathered.emails.sets(shared_emails)
    rows, codes = _flat([*parts, Sets(mails.codes.astype(np.int64) + phones, mails.starts)])
    names, genders = gathered.column("names"), gathered.column("genders")
    is_called = np.array([not name.is_complete for name in gathered.bearers] + [False], bool)[names]
    asked = np.zeros(phones + len(gathered.emails.codes.known), bool)
    asked[codes[is_called[rows]]] = True
    chosen = asked[codes] & (names[rows] >= 0)
    held: defaultdict[int, set[tuple[int, int]]] = defaultdict(set)
    for code, row in zip(codes[chosen].tolist(), rows[chosen].tolist(), strict=True):
        held[code].add((int(names[row]), int(genders[row])))
    sexes = ["", *map(str, gathered.genders.known)]
    means = {code: _meanings(gathered, found, sexes) for code, found in held.items()}
    told = np.flatnonzero(is_called[rows])
    ones = [name in means[code] for code, name in zip(codes[told].tolist(), names[rows[told]].tolist(), strict=True)]
    told = told[np.array(ones, bool)]
    whole = np.flatnonzero(~is_called[rows])
    return Meant(_sets(rows[whole], codes[whole], gathered.size), _sets(rows[told], codes[told], gathered.size))


def _meanings(gathered: Gathered, found: set[tuple[int, int]], sexes: list[str]) -> set[int]:
    """Return the codes of the incomplete names that mean one person among the holders of an identifier."""
    holders = [(name, named(gathered.bearers[name], sexes[gender + 1])) for name, gender in found]
    called = {name: traits for name, traits in holders if not gathered.bearers[name].is_complete}
    known = [traits for _, traits in holders]
    return {name for name, traits in called.items() if means_one(traits, known)}


def _flat(sets: list[Sets]) -> tuple[np.ndarray, np.ndarray]:
    """Return the values of several sets with their rows, in the order of the rows."""
    rows = np.concatenate([np.repeat(np.arange(item.starts.size - 1), np.diff(item.starts)) for item in sets])
    codes = np.concatenate([item.codes for item in sets])
    order = np.argsort(rows, kind="stable")
    return rows[order], codes[order]


def _sets(rows: np.ndarray, codes: np.ndarray, size: int) -> Sets:
    counts = np.bincount(rows, minlength=size)
    return Sets(codes.astype(np.int32), np.concatenate([[0], np.cumsum(counts)]))
