"""Which living profile an id means by now, as the facts of profiles tell it; each service keeps its own copy.

What is known of an id is one value, written by the fact with the highest version of that id: facts that come late,
twice or in any order end in the same state. Links are kept as they were told, from an id to the one that took it over,
so that an id in the middle of a chain may live again.
"""

from __future__ import annotations

import threading
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Protocol

from services.chassis import records
from services.chassis.errors import AlreadyExists, Conflict

STEPS = 64  # merges of merges that are followed
TRIES = 8
IDS_PER_QUERY = 32  # the embedded server compares each document found with each key asked for


class Identities(Protocol):
    """What a service knows of the ids of profiles."""

    def lead(self, profile_id: str, survivor_id: str, version: int) -> bool:
        """Note that an id means another since its version, itself if that is empty; say whether that was news."""

    def knows(self, profile_id: str, version: int) -> bool:
        """Say whether that version of an id, or a later one, was noted."""

    def move(self, record_keys: Sequence[str], profile_id: str, time: datetime) -> None:
        """Note that a split took these source records ("source/id") out to a profile; the latest counts."""

    def living(self, profile_ids: Sequence[str]) -> dict[str, str]:
        """Return whom each of these ids means by now; those that mean themselves are left out."""

    def family(self, profile_ids: Sequence[str]) -> dict[str, str]:
        """Return for each id that leads to one of these, which of them."""

    def owners(self, record_keys: Sequence[str]) -> dict[str, str]:
        """Return the living profiles of those of these source records that a split ever moved."""


def one_living(identities: Identities, profile_id: str) -> str:
    """Return whom an id means by now."""
    return identities.living([profile_id]).get(profile_id, profile_id)


@dataclass(slots=True)
class MemoryIdentities:
    """In memory; passes the same conformance suite as the one in MongoDB."""

    _links: dict[str, tuple[str, int]] = field(default_factory=dict)
    _records: dict[str, tuple[datetime, str]] = field(default_factory=dict)
    _lock: threading.RLock = field(default_factory=threading.RLock, repr=False)

    def lead(self, profile_id: str, survivor_id: str, version: int) -> bool:
        """Note whom an id means."""
        with self._lock:
            if version <= self._links.get(profile_id, ("", -1))[1]:
                return False
            self._links[profile_id] = (survivor_id, version)
            return True

    def knows(self, profile_id: str, version: int) -> bool:
        """Say whether that was noted."""
        return version <= self._links.get(profile_id, ("", -1))[1]

    def move(self, record_keys: Sequence[str], profile_id: str, time: datetime) -> None:
        """Note who has records."""
        with self._lock:
            for key in record_keys:
                self._records[key] = max(self._records.get(key, (time, profile_id)), (time, profile_id))

    def living(self, profile_ids: Sequence[str]) -> dict[str, str]:
        """Return whom ids mean."""
        with self._lock:
            links = {key: survivor for key, (survivor, _) in self._links.items() if survivor}
        return _ends(profile_ids, links)

    def family(self, profile_ids: Sequence[str]) -> dict[str, str]:
        """Return who leads to ids."""
        with self._lock:
            links = {key: survivor for key, (survivor, _) in self._links.items() if survivor}
        ends = {key: _chain(key, links) for key in links}
        wanted = set(profile_ids)
        found = {key: next((item for item in chain[1:] if item in wanted), "") for key, chain in ends.items()}
        return {key: item for key, item in found.items() if item and key not in wanted}

    def owners(self, record_keys: Sequence[str]) -> dict[str, str]:
        """Return who has records."""
        with self._lock:
            found = {key: self._records[key][1] for key in record_keys if key in self._records}
        ends = self.living(list(found.values()))
        return {key: ends.get(item, item) for key, item in found.items()}


class MongoIdentities:
    """In the service's own database, in collections `aliases` and `moved_records`."""

    def __init__(self, service: str) -> None:
        self._service = service

    def ensure_indexes(self) -> None:
        """Create the index of family()."""
        with records.driver_errors():
            records.database(self._service)["aliases"].create_index([("survivor_id", 1)])

    def lead(self, profile_id: str, survivor_id: str, version: int) -> bool:
        """Note whom an id means."""
        value = {"survivor_id": str(survivor_id), "version": int(version)}
        return self._newer("aliases", str(profile_id), value, "version")

    def knows(self, profile_id: str, version: int) -> bool:
        """Say whether that was noted."""
        return any(version <= int(row["version"]) for row in self._find("aliases", "_id", {profile_id}))

    def move(self, record_keys: Sequence[str], profile_id: str, time: datetime) -> None:
        """Note who has records."""
        for key in record_keys:
            self._newer("moved_records", str(key), {"profile_id": str(profile_id), "time": time}, "time")

    def _newer(self, name: str, key: str, value: Mapping[str, object], order: str) -> bool:
        """Write a value unless what is there is as new; say whether it was written."""
        collection = records.database(self._service)[name]
        for _ in range(TRIES):
            try:
                with records.driver_errors():
                    known = collection.find_one({"_id": key})
                    if known is None:
                        collection.insert_one({"_id": key, **value})
                        return True
                    if not known[order] < _as_stored(value[order]):
                        return False
                    if collection.replace_one({"_id": key, order: known[order]}, dict(value)).matched_count:
                        return True
            except AlreadyExists:
                continue
        raise Conflict("others keep changing it; try again")

    def living(self, profile_ids: Sequence[str]) -> dict[str, str]:
        """Return whom ids mean."""
        links: dict[str, str] = {}
        waiting = set(profile_ids)
        for _ in range(STEPS):
            found = {row["_id"]: row["survivor_id"] for row in self._find("aliases", "_id", waiting)}
            links |= {key: survivor for key, survivor in found.items() if survivor}
            waiting = {survivor for survivor in found.values() if survivor and survivor not in links}
            if not waiting:
                break
        return _ends(profile_ids, links)

    def family(self, profile_ids: Sequence[str]) -> dict[str, str]:
        """Return who leads to ids."""
        roots = {item: item for item in profile_ids}
        waiting = set(roots)
        for _ in range(STEPS):
            rows = self._find("aliases", "survivor_id", waiting)
            fresh = {row["_id"]: roots[row["survivor_id"]] for row in rows if row["_id"] not in roots}
            roots |= fresh
            waiting = set(fresh)
            if not waiting:
                break
        return {key: root for key, root in roots.items() if key not in set(profile_ids)}

    def owners(self, record_keys: Sequence[str]) -> dict[str, str]:
        """Return who has records."""
        found = {row["_id"]: row["profile_id"] for row in self._find("moved_records", "_id", set(record_keys))}
        ends = self.living(list(found.values()))
        return {key: ends.get(item, item) for key, item in found.items()}

    def _find(self, name: str, column: str, values: set[str]) -> list[dict[str, str]]:
        found: list[dict[str, str]] = []
        wanted = sorted(map(str, values))
        for start in range(0, len(wanted), IDS_PER_QUERY):
            part = wanted[start : start + IDS_PER_QUERY]
            with records.driver_errors():
                found += records.database(self._service)[name].find({column: {"$in": part}})
        return found


def _as_stored(value: object) -> object:
    """Return a time as the database keeps it: to the millisecond."""
    if not isinstance(value, datetime):
        return value
    return value.astimezone(UTC).replace(microsecond=value.microsecond // 1000 * 1000)


def _ends(profile_ids: Sequence[str], links: Mapping[str, str]) -> dict[str, str]:
    ends = {item: _chain(item, links)[-1] for item in profile_ids}
    return {item: end for item, end in ends.items() if end != item}


def _chain(profile_id: str, links: Mapping[str, str]) -> list[str]:
    """Return the ids from one to the end of its chain; a ring, there until a late fact comes, ends at its least id."""
    chain = [profile_id]
    while len(chain) <= STEPS and (following := links.get(chain[-1], "")):
        if following in chain:
            ring = chain[chain.index(following) :]
            return [*chain, min(ring)]
        chain.append(following)
    return chain
