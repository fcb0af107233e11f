"""Ask for the documents of many values of an indexed field, as many values at a time as is cheap."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from math import sqrt
from typing import Any

from pymongo.collection import Collection

from services.chassis import records


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
