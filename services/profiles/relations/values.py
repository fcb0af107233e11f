"""Relationships as they are stored: the ends as keyed tokens, all else sealed."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import datetime


@dataclass(frozen=True, slots=True)
class StoredRelation:
    """A relationship; `one` and `other` are tokens of records, of an organization, or of a code that a record holds.

    `state` is stated, suggested or dismissed. `keys` are the data keys it is sealed under, one after the other: with
    either destroyed it is gone. `digest` is a keyed hash of what a source's column says.
    """

    id: str
    one: str
    other: str
    state: str
    keys: Sequence[str] = ()
    sealed: bytes = field(default=b"", repr=False)
    digest: str = ""
    version: int = 0
    create_time: datetime | None = None
    update_time: datetime | None = None


@dataclass(frozen=True, slots=True)
class RelationCode:
    """The record that holds a code others refer to; the id is the token of the code within its source and field."""

    id: str
    record: str
    version: int = 0
    create_time: datetime | None = None
    update_time: datetime | None = None


@dataclass(frozen=True, slots=True)
class HouseholdKey:
    """A record that gave an address to the room; ids sort by the token of address and surname, then by record."""

    id: str
    place: str
    record: str
    version: int = 0
    create_time: datetime | None = None
    update_time: datetime | None = None
