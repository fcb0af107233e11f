"""What an index engine promises, in values that know no engine."""

from __future__ import annotations

import re
import secrets
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Protocol

from services.chassis.errors import Unavailable
from services.search.domain.queries import Clause

TERM_FIELDS = ("name", "contact", "document", "address", "content", "number")
KEYWORD_FIELDS = (
    "type",
    "province_code",
    "city_code",
    "department",
    "tier",
    "kind",
    "status",
    "status_category",
    "priority",
    "profile_id",
)
MAX_HITS = 1000  # as deep as paging goes; both engines rank at most so many hits exactly
FACET_VALUES = 50
NUMBERED = re.compile(r"\d{6}")
GONE = "the index that was being built is gone; start the rebuild again"


class EngineUnavailable(Unavailable):
    """The index does not answer, or a write was not taken; nothing of it is in the message."""


class IndexGone(EngineUnavailable):
    """An index that was being built was dropped by a later rebuild."""


@dataclass(frozen=True, slots=True)
class IndexDocument:
    """A record as the index holds it: tokens by field, plain keywords, and what is shown, sealed.

    `version` orders writes: a smaller one never replaces a larger. `changed` is milliseconds since 1970, UTC.
    A deleted document stays as a tombstone, so that an older event cannot bring the record back.
    """

    id: str
    version: int
    changed: int
    deleted: bool = False
    terms: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    keywords: Mapping[str, str] = field(default_factory=dict)
    payload: bytes = b""


@dataclass(frozen=True, slots=True)
class Tombstone:
    """A record that is gone, and the version at which it went."""

    id: str
    version: int
    changed: int

    def document(self) -> IndexDocument:
        """Return it as a document."""
        return IndexDocument(self.id, self.version, self.changed, deleted=True)


@dataclass(frozen=True, slots=True)
class IndexQuery:
    """Every clause by one of its matches, every filter by one of its values; no clauses match everything.

    Of each set in `either`, one row holds: each of its fields has one of the values.
    """

    clauses: tuple[Clause, ...]
    filters: Mapping[str, frozenset[str]]
    facets: tuple[str, ...] = ()
    offset: int = 0
    limit: int = 20
    either: tuple[tuple[Mapping[str, frozenset[str]], ...], ...] = ()


@dataclass(frozen=True, slots=True)
class IndexHit:
    """One hit: what `IndexDocument` said, and its score."""

    id: str
    score: float
    payload: bytes = field(repr=False)


@dataclass(frozen=True, slots=True)
class IndexResult:
    """A page of hits by score, then the latest change, then id; counts cover all hits."""

    hits: tuple[IndexHit, ...]
    total: int
    facets: Mapping[str, tuple[tuple[str, int], ...]]


@dataclass(frozen=True, slots=True)
class Aliases:
    """Which physical index answers, and which are being built beside it."""

    live: str
    building: tuple[str, ...] = ()


class Engine(Protocol):
    """A versioned index under an alias. Calls are safe from many threads and processes."""

    def prepare(self) -> None:
        """Create the first index when there is none; safe to repeat.

        Raises:
            EngineUnavailable: the engine does not answer.
        """

    def write(self, documents: Sequence[IndexDocument]) -> None:
        """Write to the live index and to all that are being built; older versions change nothing.

        Raises:
            EngineUnavailable: nothing, or a part, was written; repeating it is harmless.
        """

    def load(self, index: str, documents: Sequence[IndexDocument]) -> None:
        """Write to one index that is being built."""

    def search(self, query: IndexQuery) -> IndexResult:
        """Return a page of hits; `offset + limit` is at most 1000."""

    def aliases(self) -> Aliases:
        """Return what is live and what is being built."""

    def create(self) -> str:
        """Create an index; when it returns, every writer writes to it too."""

    def swap(self, index: str) -> str:
        """Make a built index the live one at once; return the name of the one it replaced, or its own.

        Raises:
            IndexGone: it is not live and is not being built any more.
        """

    def drop(self, index: str) -> None:
        """Delete an index that is not live; one that is gone already is fine."""

    def tombstones(self, page: int = 500) -> Iterator[list[Tombstone]]:
        """Yield the tombstones of the live index by id, `page` at a time."""


def newest(documents: Iterable[IndexDocument]) -> list[IndexDocument]:
    """Return one document per id, the one of the highest version; of equal ones the last."""
    found: dict[str, IndexDocument] = {}
    for document in documents:
        known = found.get(document.id)
        if known is None or document.version >= known.version:
            found[document.id] = document
    return list(found.values())


def next_name(known: Iterable[str]) -> str:
    """Return a name for an index: a number above those known, and what makes it no name that was ever used before.

    Whoever goes on with a rebuild whose index was dropped must not take another one's for it.
    """
    numbers = [int(found[0]) for name in known if (found := NUMBERED.search(name))]
    return f"{max(numbers, default=0) + 1:06d}-{secrets.token_hex(4)}"
