"""Typed queries in OpenSearch's DSL: terms on fixed fields only, never query_string, scripts or wildcards."""

from __future__ import annotations

import base64
from collections.abc import Mapping
from typing import cast

from services.search.domain.queries import Clause, Match
from services.search.store.port import FACET_VALUES, IndexHit, IndexQuery, IndexResult, Tombstone

Json = Mapping[str, object]


def body(query: IndexQuery) -> dict[str, object]:
    """Return the search request."""
    filters: list[Json] = [{"terms": {field: sorted(values)}} for field, values in query.filters.items()]
    for rows in query.either:
        some = [
            {"bool": {"filter": [{"terms": {field: sorted(values)}} for field, values in row.items()]}} for row in rows
        ]
        filters.append({"bool": {"should": some, "minimum_should_match": 1}} if some else {"match_none": {}})
    filters.append({"term": {"deleted": False}})
    must = [_clause(clause) for clause in query.clauses]
    return {
        "query": {"bool": {"must": must, "filter": filters}},
        "from": query.offset,
        "size": query.limit,
        "track_total_hits": True,
        "track_scores": True,
        "sort": [{"_score": "desc"}, {"changed": "desc"}, {"id": "asc"}],
        "_source": ["id", "payload"],
        "aggs": {field: {"terms": {"field": field, "size": FACET_VALUES}} for field in query.facets},
    }


def _clause(clause: Clause) -> Json:
    if not clause:
        return {"match_none": {}}
    return {"dis_max": {"queries": [_match(match) for match in clause]}}


def _match(match: Match) -> Json:
    terms = [{"term": {match.field: token}} for token in match.tokens]
    return {"constant_score": {"filter": {"bool": {"filter": terms}}, "boost": match.weight}}


def result(found: Mapping[str, object], query: IndexQuery) -> IndexResult:
    """Return the reply as values."""
    outer = cast(dict, found["hits"])
    hits = tuple(
        IndexHit(hit["_source"]["id"], float(hit["_score"] or 0.0), base64.b64decode(hit["_source"].get("payload", "")))
        for hit in outer["hits"]
    )
    counted = cast(dict, found.get("aggregations", {}))
    facets = {field: _facet(counted[field]["buckets"]) for field in query.facets}
    return IndexResult(hits, int(outer["total"]["value"]), facets)


def _facet(buckets: list[dict]) -> tuple[tuple[str, int], ...]:
    counted = [(str(bucket["key"]), int(bucket["doc_count"])) for bucket in buckets]
    return tuple(sorted(counted, key=lambda pair: (-pair[1], pair[0])))


def tombstones_body(after: str, limit: int) -> dict[str, object]:
    """Return the request for tombstones above an id."""
    request: dict[str, object] = {
        "query": {"term": {"deleted": True}},
        "size": limit,
        "sort": [{"id": "asc"}],
        "_source": ["id", "version", "changed"],
    }
    return {**request, "search_after": [after]} if after else request


def tombstones(found: Mapping[str, object]) -> list[Tombstone]:
    """Return the tombstones of a reply."""
    sources = [hit["_source"] for hit in cast(dict, found["hits"])["hits"]]
    return [Tombstone(each["id"], int(each["version"]), int(each["changed"])) for each in sources]
