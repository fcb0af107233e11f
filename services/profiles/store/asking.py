"""Ask for the documents of many values of an indexed field, as many values at a time as is cheap.

A command costs us some 0.3 ms, whatever it asks: batches ask many questions in one.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from math import sqrt
from typing import Any

from pymongo.collection import Collection

from services.chassis import records

FIRST_GROUPS, VALUES_AT_ONCE, DOCUMENTS_AT_ONCE = 6, 480, 1000


def find_among(
    collection: Collection,
    name: str,
    values: Sequence[str],
    least: int,
    projection: Mapping[str, int] | None = None,
    limit: int = 0,
) -> Iterator[dict[str, Any]]:
    """Yield the documents whose field has one of these values, at most `limit` for each value asked for together.

    The embedded server compares each document found with each value asked for, so that asking costs the square of
    `least` values when each finds one; the fewer are found, the more are asked for at a time, up to that square.
    """
    unique = list(dict.fromkeys(values))
    start, step = 0, least
    while part := unique[start : start + step]:
        with records.driver_errors():
            query = {name: {"$in": part} if len(part) > 1 else part[0]}
            found = list(collection.find(query, projection).limit(limit * len(part)))
        yield from found
        start += len(part)
        step = max(least, int(least * sqrt(len(part) / max(len(found), 1))))


def find_together(
    carrier: tuple[Collection, str],
    collection: Collection,
    name: str,
    values: Sequence[str],
    least: int,
    projection: Mapping[str, int] | None = None,
    limit: int = 0,
) -> Iterator[dict[str, Any]]:
    """Yield what `find_among` does, many of its questions in one command.

    `carrier` is the id of any document of the same database with its collection: it is joined with each group of
    values. Where it is missing each question is asked on its own.
    """
    unique = list(dict.fromkeys(values))
    start, step, size = 0, least, least * FIRST_GROUPS
    while len(part := unique[start : start + size]) > least:
        groups = [part[at : at + step] for at in range(0, len(part), step)]
        found = _joined(carrier, collection.name, name, groups, projection, limit * step)
        if not found and not _is_there(carrier):
            break
        yield from found
        start += len(part)
        step = max(least, int(least * sqrt(len(part) / max(len(found), 1))))
        size = max(step, VALUES_AT_ONCE)
    yield from find_among(collection, name, unique[start:], least, projection, limit)


def _joined(
    carrier: tuple[Collection, str],
    collection: str,
    name: str,
    groups: Sequence[Sequence[str]],
    projection: Mapping[str, int] | None,
    limit: int,
) -> list[dict[str, Any]]:
    """Return the documents of groups of values; those of more than one group come as often."""
    stages = [*([{"$limit": limit}] if limit else ()), *([{"$project": projection}] if projection else ())]
    join = {"from": collection, "localField": "group", "foreignField": name, "as": "found"}
    pipeline: list[dict[str, Any]] = [
        {"$match": {"_id": carrier[1]}},
        {"$project": {"group": {"$literal": groups}}},
        {"$unwind": "$group"},
        {"$lookup": {**join, "pipeline": stages} if stages else join},
        {"$unwind": "$found"},
        {"$replaceRoot": {"newRoot": "$found"}},
    ]
    with records.driver_errors():
        return list(carrier[0].aggregate(pipeline, batchSize=DOCUMENTS_AT_ONCE))


def _is_there(carrier: tuple[Collection, str]) -> bool:
    with records.driver_errors():
        return carrier[0].find_one({"_id": carrier[1]}, {"_id": 1}) is not None
