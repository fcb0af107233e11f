"""The MongoDB form of a profile; private to the store.

Hot paths write plain dictionaries through the chassis's bulk rule: hydrating mongoengine documents costs more than
everything else that is done with a record.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import astuple, replace
from datetime import datetime
from typing import ClassVar

import mongoengine
from pymongo.collection import Collection
from pymongo.write_concern import WriteConcern

from services.chassis.records import RECORD_INDEXES, Record
from services.profiles.values import FormerName, Profile, Revision, StoredOverride, StoredRecord

VERSION_DIGITS = 10


class ProfileDocument(Record):
    """The collection of profiles and its indexes.

    What finds a profile, by record, by token or in a list, is a collection of its own, `links`, one small document for
    each source record: on the embedded server each index makes every update dearer, changed or not, and profiles are
    updated more often than founded.
    """

    key_id = mongoengine.StringField()
    golden = mongoengine.BinaryField()
    records = mongoengine.ListField(mongoengine.DictField())
    owner_department = mongoengine.StringField()
    tier = mongoengine.StringField()
    stage = mongoengine.StringField()
    stage_time = mongoengine.DateTimeField()
    stage_revision = mongoengine.IntField()
    merged_into = mongoengine.StringField()
    is_handing_over = mongoengine.BooleanField()
    parting = mongoengine.ListField()
    former = mongoengine.ListField()
    aliases = mongoengine.ListField(mongoengine.StringField())
    apart = mongoengine.ListField(mongoengine.StringField())
    overrides = mongoengine.ListField(mongoengine.DictField())
    revisions = mongoengine.ListField(mongoengine.DictField())

    meta: ClassVar[dict[str, object]] = {
        "db_alias": "profiles",
        "collection": "profiles",
        "auto_create_index": False,
        "strict": False,
        "indexes": [
            *RECORD_INDEXES,
        ],
    }


class _State(dict[str, object]):
    """What `to_mongo()` returns: a mapping that gives itself as a plain dictionary."""

    def to_dict(self) -> dict[str, object]:
        return dict(self)


class ProfileWrite:
    """A profile in the shape the chassis writes, without a mongoengine document behind it."""

    is_whole = True  # the store reads profiles with their outboxes

    __slots__ = ("create_time", "id", "outbox", "outbox_at", "profile", "request_ids", "update_time", "version")
    _db_field_map = ProfileDocument._db_field_map

    def __init__(self, profile: Profile) -> None:
        self.profile = profile
        self.id = profile.profile_id
        self.version = profile.version
        self.create_time = profile.create_time
        self.update_time = profile.update_time
        self.outbox: object = profile.carried.get("outbox", [])
        self.outbox_at: datetime | None = None
        self.request_ids: object = profile.carried.get("request_ids", [])

    @staticmethod
    def _get_collection() -> Collection:
        """Return the collection as bulk writes use it: in memory first, since the store syncs the journal after all."""
        return ProfileDocument._get_collection().with_options(write_concern=WriteConcern(w=1, j=False))

    def to_mongo(self) -> _State:
        """Return the document; empty values are left out, as the sparse indexes need."""
        profile = self.profile
        state = _State(
            profile.carried,
            _id=self.id,
            version=self.version,
            key_id=profile.key_id,
            golden=profile.golden,
            records=[_record_document(record) for record in profile.records],
            owner_department=profile.owner_department,
            tier=profile.tier,
            stage=profile.stage,
            stage_time=profile.stage_time,
            stage_revision=profile.stage_revision,
            merged_into=profile.merged_into,
            is_handing_over=profile.is_handing_over,
            parting=_revision_document(profile.parting) if profile.parting else None,
            former=[list(astuple(item)) for item in profile.former],
            aliases=profile.aliases,
            apart=profile.apart,
            overrides=[_override_document(item) for item in profile.overrides],
            revisions=[_revision_document(revision) for revision in profile.revisions],
            create_time=self.create_time,
            update_time=self.update_time,
            outbox=self.outbox,
            outbox_at=self.outbox_at,
            request_ids=self.request_ids,
        )
        for name in [name for name, value in state.items() if not value and name not in ("version", "outbox")]:
            del state[name]
        return state


def _record_document(record: StoredRecord) -> dict[str, object]:
    marks = {name: list(value) for name, value in (("m", record.retired), ("q", record.barred)) if value}
    return {
        **marks,
        "s": record.source_id,
        "i": record.source_record_id,
        "n": record.number,
        "h": record.content_hash,
        "t": record.updated_time,
        "r": record.received_time,
        "k": record.key_id,
        "b": record.sealed,
        "o": record.origin,
        "x": list(record.tokens),
        **({"v": record.source_version} if record.source_version else {}),
    }


def record_of(document: Mapping[str, object]) -> StoredRecord:
    """Return the source record of its stored form."""
    required = (document[name] for name in ("s", "i", "n", "h", "t", "r", "k", "b", "o", "x"))
    more = document.get("m", ()), document.get("q", ()), document.get("v", 0)
    return StoredRecord(*required, *more)  # type: ignore[arg-type, call-arg]


def record_document(record: StoredRecord, profile_id: str) -> dict[str, object]:
    """Return the stored form of a superseded version, in the collection of its own."""
    return {**_record_document(record), "_id": f"{record.key}/{record.number}", "p": profile_id}


def link_document(record: StoredRecord, profile_id: str, now: datetime) -> dict[str, object]:
    """Return the document that leads from a record and its tokens to a profile; `c` is when it was claimed."""
    return {"_id": record.key, "p": profile_id, "t": list(record.tokens), "c": now}


def _revision_document(revision: Revision) -> list[object]:
    return [revision.version, revision.time, revision.kind, list(revision.changed_fields),
            list(revision.source_records), revision.other_profile, revision.by, revision.reason]  # fmt: skip


def _override_document(item: StoredOverride) -> list[object]:
    return [item.id, item.name, item.anchor, item.key_id, item.set_time, item.expire_time, item.sealed]


OWN_NAMES = frozenset((*ProfileDocument._db_field_map.values(), "write_id")) - {"outbox", "request_ids"}


def profile_of(document: Mapping[str, object]) -> Profile:
    """Return the profile of its stored form."""
    get = document.get
    return Profile(
        profile_id=str(document["_id"]),
        create_time=document["create_time"],  # type: ignore[arg-type]
        update_time=document["update_time"],  # type: ignore[arg-type]
        version=document["version"],  # type: ignore[arg-type]
        key_id=get("key_id", ""),  # type: ignore[arg-type]
        golden=get("golden", b""),  # type: ignore[arg-type]
        records=[record_of(item) for item in get("records", ())],  # type: ignore[attr-defined]
        owner_department=get("owner_department", ""),  # type: ignore[arg-type]
        tier=get("tier", ""),  # type: ignore[arg-type]
        stage=get("stage", ""),  # type: ignore[arg-type]
        stage_time=get("stage_time"),  # type: ignore[arg-type]
        stage_revision=get("stage_revision", 0),  # type: ignore[arg-type]
        merged_into=get("merged_into", ""),  # type: ignore[arg-type]
        is_handing_over=get("is_handing_over", False),  # type: ignore[arg-type]
        parting=Revision(*get("parting")) if get("parting") else None,  # type: ignore[misc]
        former=tuple(FormerName(*item) for item in get("former", ())),  # type: ignore[attr-defined]
        aliases=get("aliases", []),  # type: ignore[arg-type]
        apart=get("apart", []),  # type: ignore[arg-type]
        overrides=[StoredOverride(*item) for item in get("overrides", ())],  # type: ignore[attr-defined]
        revisions=[Revision(*item) for item in get("revisions", ())],  # type: ignore[attr-defined]
        carried={name: document[name] for name in document.keys() - OWN_NAMES},
    )


def past_id(profile_id: str, version: int) -> str:
    """Return the id of a past version: those of one profile sort by version."""
    return f"{profile_id}/{version:0{VERSION_DIGITS}d}"


def past_document(past: Profile) -> dict[str, object]:
    """Return the stored form of what a profile was, in the collection of its own."""
    state = ProfileWrite(past).to_mongo()
    state.pop("outbox", None)
    return {**state, "_id": past_id(past.profile_id, past.version), "p": past.profile_id, "since": past.since}


def past_profile(document: Mapping[str, object]) -> Profile:
    """Return what a profile was of its stored form."""
    return replace(profile_of({**document, "_id": document["p"]}), carried={})
