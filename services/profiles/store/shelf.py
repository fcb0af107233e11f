"""A shelf keeps small values of one kind by id: one implementation on MongoDB, one in memory, same promises."""

from __future__ import annotations

import dataclasses
import threading
from collections.abc import Callable, Mapping, Sequence
from datetime import UTC, datetime
from typing import Generic, Protocol, TypeVar

from pymongo import errors as mongo
from pymongo.collection import Collection

from services.chassis import records
from services.chassis.errors import AlreadyExists, Conflict
from services.profiles.store.asking import find_among


class Shelved(Protocol):
    """A frozen dataclass with an id, a version and the times of its life."""

    @property
    def id(self) -> str:
        """Return its id."""

    @property
    def version(self) -> int:
        """Return its version; 0 before it is stored."""


T = TypeVar("T", bound=Shelved)
VALUES_PER_QUERY = 32  # at least


class Shelf(Protocol[T]):
    """Values of one kind; every change is a compare-and-set on the version."""

    def get(self, item_id: str) -> T | None:
        """Return one by id."""

    def insert(self, item: T) -> T:
        """Add it as version 1; AlreadyExists when the id is taken."""

    def add_missing(self, items: Sequence[T]) -> int:
        """Add those whose id is not taken; return how many."""

    def replace(self, item: T) -> T:
        """Write the new state if nobody changed it since `item.version`; Conflict otherwise."""

    def delete(self, item: T) -> None:
        """Remove it if nobody changed it since; Conflict otherwise."""

    def page(self, equal: Mapping[str, str], after: str, limit: int, by: str = "id") -> list[T]:
        """Return those with these field values and a greater id than `after`, by id; or by another unique field."""

    def among(self, name: str, values: Sequence[str]) -> list[T]:
        """Return those whose field has one of these values."""


def _stamped(item: T, version: int, now: datetime) -> T:
    created = getattr(item, "create_time", None) or now
    return dataclasses.replace(item, version=version, create_time=created, update_time=now)  # type: ignore[type-var]


class MongoShelf(Generic[T]):
    """A shelf that is a collection."""

    def __init__(self, kind: type[T], collection: Callable[[], Collection]) -> None:
        self._kind = kind
        self._collection = collection
        self._names = [item.name for item in dataclasses.fields(kind)]  # type: ignore[arg-type]

    def get(self, item_id: str) -> T | None:
        """Return one by id."""
        with records.driver_errors():
            found = self._collection().find_one({"_id": item_id})
        return self._read(found) if found else None

    def insert(self, item: T) -> T:
        """Add it."""
        stored = _stamped(item, 1, datetime.now(UTC))
        with records.driver_errors():
            self._collection().insert_one(self._document(stored))
        return stored

    def add_missing(self, items: Sequence[T]) -> int:
        """Add those whose id is not taken."""
        if not items:
            return 0
        documents = [self.new_document(item) for item in items]
        with records.driver_errors():
            try:
                return len(self._collection().insert_many(documents, ordered=False).inserted_ids)
            except mongo.BulkWriteError as error:
                records.places_taken(error)
                return int(error.details["nInserted"])

    def new_document(self, item: T) -> dict[str, object]:
        """Return its first stored form."""
        return self._document(_stamped(item, 1, datetime.now(UTC)))

    def replace(self, item: T) -> T:
        """Write the new state by compare-and-set."""
        stored = _stamped(item, item.version + 1, datetime.now(UTC))
        document = self._document(stored)
        with records.driver_errors():
            result = self._collection().replace_one({"_id": document.pop("_id"), "version": item.version}, document)
        if result.matched_count == 0:
            raise Conflict("it was changed meanwhile; read it again and repeat")
        return stored

    def delete(self, item: T) -> None:
        """Remove it by compare-and-set."""
        with records.driver_errors():
            result = self._collection().delete_one({"_id": item.id, "version": item.version})
        if result.deleted_count == 0:
            raise Conflict("it was changed meanwhile; read it again and repeat")

    def page(self, equal: Mapping[str, str], after: str, limit: int, by: str = "id") -> list[T]:
        """Return a page by id or another unique field."""
        name = "_id" if by == "id" else by
        query = {**equal, name: {"$gt": after}}
        with records.driver_errors():
            return [self._read(found) for found in self._collection().find(query).sort(name, 1).limit(limit)]

    def among(self, name: str, values: Sequence[str]) -> list[T]:
        """Return those whose field has one of these values, asked for a few at a time."""
        name = "_id" if name == "id" else name
        return [self._read(item) for item in find_among(self._collection(), name, values, VALUES_PER_QUERY)]

    def _document(self, item: T) -> dict[str, object]:
        document = {name: getattr(item, name) for name in self._names}
        document["_id"] = document.pop("id")
        return document

    def _read(self, found: Mapping[str, object]) -> T:
        known = {name: found[name] for name in self._names if name in found}
        return self._kind(**{**known, "id": found["_id"]})


class MemoryShelf(Generic[T]):
    """A shelf in memory, for tests and benches."""

    def __init__(self) -> None:
        self._items: dict[str, T] = {}
        self._lock = threading.Lock()

    def get(self, item_id: str) -> T | None:
        """Return one by id."""
        return self._items.get(item_id)

    def insert(self, item: T) -> T:
        """Add it."""
        with self._lock:
            if item.id in self._items:
                raise AlreadyExists("a record with this name or key exists already")
            stored = self._items[item.id] = _stamped(item, 1, datetime.now(UTC))
        return stored

    def add_missing(self, items: Sequence[T]) -> int:
        """Add those whose id is not taken."""
        added = 0
        for item in items:
            try:
                self.insert(item)
            except AlreadyExists:
                continue
            added += 1
        return added

    def replace(self, item: T) -> T:
        """Write the new state by compare-and-set."""
        with self._lock:
            self._check(item)
            stored = self._items[item.id] = _stamped(item, item.version + 1, datetime.now(UTC))
        return stored

    def delete(self, item: T) -> None:
        """Remove it by compare-and-set."""
        with self._lock:
            self._check(item)
            del self._items[item.id]

    def page(self, equal: Mapping[str, str], after: str, limit: int, by: str = "id") -> list[T]:
        """Return a page by id or another unique field."""
        with self._lock:
            items = [item for item in self._items.values() if getattr(item, by) > after]
        found = sorted(items, key=lambda item: getattr(item, by))
        return [item for item in found if all(getattr(item, k) == v for k, v in equal.items())][:limit]

    def among(self, name: str, values: Sequence[str]) -> list[T]:
        """Return those whose field has one of these values."""
        wanted = set(values)
        with self._lock:
            return [item for item in self._items.values() if getattr(item, name) in wanted]

    def _check(self, item: T) -> None:
        found = self._items.get(item.id)
        if found is None or found.version != item.version:
            raise Conflict("it was changed meanwhile; read it again and repeat")
