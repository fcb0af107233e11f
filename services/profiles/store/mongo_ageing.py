"""The part of the MongoDB store that retention walks through: things with an age."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from typing import Any

from pymongo.collection import Collection

from services.chassis import records
from services.profiles.domain.retention import RecordType
from services.profiles.values import Ageing

NOT_BELIEVED = {"$unset": {"golden": ""}}
_AGEING = {  # where things of a kind are, and which of their fields are time, source and profile
    RecordType.SUPERSEDED_VERSIONS: ("source_records", "r", "s", "p"),
    RecordType.PAST_PROFILES: ("profile_versions", "since", "", "p"),
    RecordType.REJECTS: ("rejects", "create_time", "source_id", ""),
    RecordType.UPLOADS: ("upload_chunks", "at", "", ""),
}


class AgeingPart:
    """Things of the kinds that age."""

    def _collection(self, name: str) -> Collection:
        raise NotImplementedError

    def ageing(self, kind: RecordType, after: str, limit: int) -> list[Ageing]:
        """Return things of a kind, by id."""
        name, *fields = _AGEING[kind]
        with records.driver_errors():
            found = self._collection(name).find({"_id": {"$gt": after}, **_there(kind)}, _shown(fields))
            return [_ageing_of(kind, item) for item in found.sort("_id", 1).limit(limit)]

    def aged(self, kind: RecordType, ids: Sequence[str]) -> list[Ageing]:
        """Return those that are there."""
        found = []
        name, *fields = _AGEING[kind]
        for item_id in ids:
            with records.driver_errors():
                found.append(self._collection(name).find_one({"_id": item_id, **_there(kind)}, _shown(fields)))
        return [_ageing_of(kind, item) for item in found if item]

    def drop_aged(self, kind: RecordType, ids: Sequence[str]) -> None:
        """Remove things of a kind."""
        for item_id in ids:
            with records.driver_errors():
                if kind is RecordType.PAST_PROFILES:
                    self._collection("profile_versions").update_one({"_id": item_id}, NOT_BELIEVED)
                else:
                    self._collection(_AGEING[kind][0]).delete_one({"_id": item_id})


def _there(kind: RecordType) -> dict[str, object]:
    """Return what tells a thing from what is left of it."""
    return {"golden": {"$exists": True}} if kind is RecordType.PAST_PROFILES else {}


def _shown(fields: Sequence[str]) -> dict[str, int]:
    return {field: 1 for field in fields if field}


def _ageing_of(kind: RecordType, document: Mapping[str, Any]) -> Ageing:
    """Return a thing of its document; one stored before its time was kept is as old as can be."""
    _, time, source, profile = _AGEING[kind]
    never = datetime(1970, 1, 1, tzinfo=UTC)
    return Ageing(str(document["_id"]), document.get(time, never), document.get(source, ""), document.get(profile, ""))
