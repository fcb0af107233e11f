"""Which phones and e-mails of a record tell nothing, since they are known under too many names."""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np

from services.profiles.resolution.gathering import Gathered, Lists


class Crowding:
    """The shared phones and e-mails of all records, each with the records that have it."""

    def __init__(self, gathered: Gathered, phones: np.ndarray, emails: np.ndarray) -> None:
        """Take the codes of those that are shared."""
        of_phones = [("phone", *_held(found, phones)) for found in (gathered.phones, gathered.implied)]
        self._parts = [*of_phones, ("email", *_held(gathered.emails, emails))]

    def of(self, members: Iterable[int]) -> list[tuple[str, str]]:
        """Return the kinds and values of what these records share with too many."""
        found: set[tuple[str, str]] = set()
        for kind, rows, codes, texts in self._parts:
            for at in members if rows.size else ():
                begin, end = np.searchsorted(rows, (at, at + 1))
                found.update((kind, texts[code]) for code in codes[begin:end].tolist())
        return sorted(found)


def _held(found: Lists, shared: np.ndarray) -> tuple[np.ndarray, np.ndarray, dict[int, str]]:
    """Return the records that have a shared value, ascending, with its codes; and the values by their codes."""
    kept = np.flatnonzero(np.isin(found.found(), shared))
    wanted = set(shared.tolist())
    texts = {code: str(text) for text, code in found.codes.known.items() if code in wanted} if wanted else {}
    return found.rows()[kept], found.found()[kept], texts
