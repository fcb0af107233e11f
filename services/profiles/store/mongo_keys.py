"""The part of the MongoDB store that keeps data keys and forgets people.

Data keys are a collection of their own, so that their backups can be kept for a shorter time than those of profiles.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

from pymongo.collection import Collection
from pymongo.operations import UpdateOne

from services.chassis import records
from services.profiles.documents import past_id
from services.profiles.values import Profile, StoredRecord


class KeysPart:
    """Data keys, what they sealed long ago, and the traces of erased people."""

    def _collection(self, name: str) -> Collection:
        raise NotImplementedError

    def _find(self, collection: str, name: str, values: Sequence[str]) -> Iterator[dict[str, Any]]:
        raise NotImplementedError

    def _add(self, name: str, documents: Sequence[dict[str, object]]) -> list[str]:
        raise NotImplementedError

    def data_keys(self, key_ids: Sequence[str]) -> dict[str, bytes]:
        """Return wrapped data keys."""
        return {item["_id"]: item["wrapped"] for item in self._find("data_keys", "_id", key_ids)}

    def add_data_keys(self, wrapped: Mapping[str, bytes]) -> dict[str, bytes]:
        """Add wrapped data keys."""
        duplicates = self._add("data_keys", [{"_id": key, "wrapped": value} for key, value in wrapped.items()])
        return self.data_keys(duplicates)

    def page_data_keys(self, after: str, limit: int) -> dict[str, bytes]:
        """Return wrapped data keys by id."""
        with records.driver_errors():
            found = list(self._collection("data_keys").find({"_id": {"$gt": after}}).sort("_id", 1).limit(limit))
        return {item["_id"]: item["wrapped"] for item in found}

    def rewrap_data_keys(self, changes: Mapping[str, tuple[bytes, bytes]]) -> None:
        """Replace wrapped data keys."""
        if changes:
            with records.driver_errors():
                self._collection("data_keys").bulk_write(
                    [
                        UpdateOne({"_id": key, "wrapped": before}, {"$set": {"wrapped": after}})
                        for key, (before, after) in changes.items()
                    ],
                    ordered=False,
                )

    def succeed(self, key_id: str, former: Sequence[str]) -> None:
        """Note which data keys a key takes the place of."""
        change = {"$set": {"former": list(former)}} if former else {"$unset": {"former": ""}}
        with records.driver_errors():
            self._collection("data_keys").update_one({"_id": key_id}, change)

    def former_keys(self, key_ids: Sequence[str]) -> dict[str, list[str]]:
        """Return the data keys that keys are taking the place of."""
        return {item["_id"]: item["former"] for item in self._find("data_keys", "_id", key_ids) if item.get("former")}

    def destroy_data_key(self, key_id: str) -> None:
        """Remove a data key."""
        with records.driver_errors():
            self._collection("data_keys").delete_one({"_id": key_id})

    def reseal_archived(self, changes: Sequence[tuple[StoredRecord, StoredRecord]]) -> None:
        """Replace superseded versions."""
        with records.driver_errors():
            for before, after in changes:
                self._collection("source_records").update_one(
                    {"_id": f"{before.key}/{before.number}", "k": before.key_id},
                    {"$set": {"k": after.key_id, "b": after.sealed}},
                )

    def reseal_past(self, changes: Sequence[tuple[Profile, Profile]]) -> None:
        """Replace what is sealed of past versions."""
        with records.driver_errors():
            for before, after in changes:
                self._collection("profile_versions").update_one(
                    {"_id": past_id(before.profile_id, before.version), "key_id": before.key_id},
                    {"$set": {"key_id": after.key_id, "golden": after.golden}},
                )

    def drop_traces(self, profile_ids: Sequence[str], record_keys: Sequence[str]) -> None:
        """Remove history, superseded versions and links."""
        with records.driver_errors():
            for name in ("profile_versions", "links"):
                self._collection(name).delete_many({"p": {"$in": list(profile_ids)}})
            self.drop_superseded(record_keys)

    def drop_superseded(self, record_keys: Iterable[str]) -> None:
        """Remove the superseded versions of records."""
        by_source: defaultdict[str, list[str]] = defaultdict(list)
        for source_id, _, record_id in (key.partition("/") for key in record_keys):
            by_source[source_id].append(record_id)
        for source_id, record_ids in by_source.items():
            self._collection("source_records").delete_many({"s": source_id, "i": {"$in": record_ids}})
