"""The links between ids of profiles, in memory and in MongoDB."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any, Protocol

import pymongo

from services.access.domain.names import Link
from services.chassis import records
from services.chassis.errors import AlreadyExists

IDS_PER_QUERY = 32  # the embedded server compares each document found with each key asked for


class Names(Protocol):
    """What access knows of the ids of profiles; links are added, never changed."""

    def add(self, link: Link) -> None:
        """Note a link; the same again changes nothing."""

    def of(self, profile_ids: Iterable[str]) -> list[Link]:
        """Return all links of these ids."""

    def into(self, profile_ids: Iterable[str]) -> list[Link]:
        """Return all links that lead to these ids."""


class MemoryNames:
    """In a dict."""

    def __init__(self) -> None:
        self._links: dict[tuple[str, int], Link] = {}

    def add(self, link: Link) -> None:
        """Note a link."""
        self._links.setdefault((link.profile_id, link.version), link)

    def of(self, profile_ids: Iterable[str]) -> list[Link]:
        """Return links of ids."""
        wanted = set(profile_ids)
        return [link for link in self._links.values() if link.profile_id in wanted]

    def into(self, profile_ids: Iterable[str]) -> list[Link]:
        """Return links to ids."""
        wanted = set(profile_ids)
        return [link for link in self._links.values() if link.into in wanted]


class MongoNames:
    """One document for each link."""

    def ensure_indexes(self) -> None:
        """Create the indexes."""
        for name in ("profile_id", "into"):
            _rows().create_index(name)

    def add(self, link: Link) -> None:
        """Note a link."""
        row = {"profile_id": link.profile_id, "into": link.into, "version": link.version, "time": link.time}
        try:
            with records.driver_errors():
                _rows().insert_one({"_id": f"{link.profile_id}:{link.version}", **row})
        except AlreadyExists:
            return

    def of(self, profile_ids: Iterable[str]) -> list[Link]:
        """Return links of ids."""
        return self._found("profile_id", profile_ids)

    def into(self, profile_ids: Iterable[str]) -> list[Link]:
        """Return links to ids."""
        return self._found("into", profile_ids)

    def _found(self, name: str, profile_ids: Iterable[str]) -> list[Link]:
        wanted, found = sorted(map(str, profile_ids)), []
        for start in range(0, len(wanted), IDS_PER_QUERY):
            with records.driver_errors():
                found += list(_rows().find({name: {"$in": wanted[start : start + IDS_PER_QUERY]}}))
        return [Link(row["profile_id"], row["into"], row["version"], row["time"]) for row in found]


def _rows() -> pymongo.collection.Collection[dict[str, Any]]:
    return records.database("access")["profile_names"]
