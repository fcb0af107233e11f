"""Typed queries run on a tantivy searcher."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from itertools import groupby

import tantivy

from services.search.domain.queries import Clause, Match
from services.search.store.port import FACET_VALUES, MAX_HITS, IndexHit, IndexQuery, IndexResult, Tombstone

Parts = list[tuple[tantivy.Occur, tantivy.Query]]


def run(schema: tantivy.Schema, fields: frozenset[str], searcher: tantivy.Searcher, query: IndexQuery) -> IndexResult:
    """Return a page of hits and the counts of all; on a field that the index has not, nothing matches."""
    compiled = _compiled(schema, fields, query)
    if query.clauses:
        found = searcher.search(compiled, limit=MAX_HITS, count=True)
    else:  # all score the same: those that were written first would be taken
        found = searcher.search(compiled, limit=MAX_HITS, count=True, order_by_field="changed")
    addresses = [address for _, address in found.hits]
    scores = [float(score) if query.clauses else 0.0 for score, _ in found.hits]
    changed = [int(moment or 0) for moment in searcher.fast_field_values("changed", addresses)]
    ranked = sorted(zip(scores, changed, addresses, strict=True), key=lambda hit: (-hit[0], -hit[1]))
    hits = tuple(_page(searcher, ranked, query.offset, query.offset + query.limit))
    total = int(found.count)  # type: ignore[attr-defined]  # missing in the stub of tantivy 0.27
    return IndexResult(hits, total, _facets(searcher, compiled, [field for field in query.facets if field in fields]))


def _compiled(schema: tantivy.Schema, fields: frozenset[str], query: IndexQuery) -> tantivy.Query:
    known = [tuple(match for match in clause if match.field in fields) for clause in query.clauses]
    parts: Parts = [(tantivy.Occur.Must, _clause(schema, clause)) for clause in known]
    for field, values in query.filters.items():
        parts.append((tantivy.Occur.Must, _allowed(schema, fields, field, values)))
    for rows in query.either:
        parts.append((tantivy.Occur.Must, _one_of(schema, fields, rows)))
    alive = tantivy.Query.term_query(schema, "deleted", False)
    parts.append((tantivy.Occur.Must, tantivy.Query.const_score_query(alive, 0.0)))
    return tantivy.Query.boolean_query(parts)


def _allowed(schema: tantivy.Schema, fields: frozenset[str], field: str, values: frozenset[str]) -> tantivy.Query:
    some = values and field in fields
    allowed = tantivy.Query.term_set_query(schema, field, sorted(values)) if some else _nothing()
    return tantivy.Query.const_score_query(allowed, 0.0)


def _one_of(
    schema: tantivy.Schema, fields: frozenset[str], rows: Sequence[Mapping[str, frozenset[str]]]
) -> tantivy.Query:
    alternatives: Parts = []
    for row in rows:
        every: Parts = [(tantivy.Occur.Must, _allowed(schema, fields, field, values)) for field, values in row.items()]
        alternatives.append((tantivy.Occur.Should, tantivy.Query.boolean_query(every)))
    found = tantivy.Query.boolean_query(alternatives) if alternatives else _nothing()
    return tantivy.Query.const_score_query(found, 0.0)


def _nothing() -> tantivy.Query:
    return tantivy.Query.empty_query()


def _clause(schema: tantivy.Schema, clause: Clause) -> tantivy.Query:
    if not clause:
        return _nothing()
    return tantivy.Query.disjunction_max_query([_match(schema, match) for match in clause])


def _match(schema: tantivy.Schema, match: Match) -> tantivy.Query:
    terms: Parts = [
        (tantivy.Occur.Must, tantivy.Query.term_query(schema, match.field, token, "basic")) for token in match.tokens
    ]
    return tantivy.Query.const_score_query(tantivy.Query.boolean_query(terms), match.weight)


def _page(
    searcher: tantivy.Searcher, ranked: Sequence[tuple[float, int, tantivy.DocAddress]], first: int, last: int
) -> Iterator[IndexHit]:
    """Yield the hits from `first` to before `last`; those of one score and moment are in the order of their ids."""
    start = 0
    for _, group in groupby(ranked, key=lambda hit: hit[:2]):
        alike = list(group)
        if start < last and first < start + len(alike):
            hits = sorted((_hit(searcher, score, address) for score, _, address in alike), key=lambda hit: hit.id)
            yield from hits[max(first - start, 0) : last - start]
        start += len(alike)


def _hit(searcher: tantivy.Searcher, score: float, address: tantivy.DocAddress) -> IndexHit:
    document = searcher.doc(address)
    return IndexHit(str(document.get_first("id")), float(score), bytes(document.get_first("payload") or b""))


def _facets(
    searcher: tantivy.Searcher, compiled: tantivy.Query, fields: Sequence[str]
) -> dict[str, tuple[tuple[str, int], ...]]:
    """Return the counts of all fields in one pass over the hits."""
    if not fields:
        return {}
    request = {field: {"terms": {"field": field, "size": FACET_VALUES}} for field in fields}
    found = searcher.aggregate(compiled, request)
    return {field: _counted(found[field]["buckets"]) for field in fields}


def _counted(buckets: Sequence[Mapping[str, object]]) -> tuple[tuple[str, int], ...]:
    counted = [(str(bucket["key"]), int(str(bucket["doc_count"]))) for bucket in buckets]
    return tuple(sorted(counted, key=lambda pair: (-pair[1], pair[0])))


def versions(schema: tantivy.Schema, searcher: tantivy.Searcher, ids: Sequence[str]) -> dict[str, int]:
    """Return the versions of those documents that are there, tombstones included."""
    if not ids or searcher.num_docs == 0:
        return {}
    query = tantivy.Query.term_set_query(schema, "id", list(ids))
    found = searcher.search(query, limit=len(ids), count=False)
    documents = [searcher.doc(address) for _, address in found.hits]
    return {str(each.get_first("id")): int(each.get_first("version") or 0) for each in documents}


def tombstones(schema: tantivy.Schema, searcher: tantivy.Searcher, page: int) -> Iterator[list[Tombstone]]:
    """Yield the tombstones of one commit by id, `page` at a time."""
    gone = tantivy.Query.term_query(schema, "deleted", True)
    offset = 0
    while True:
        found = searcher.search(
            gone, limit=page, count=False, order_by_field="id", order=tantivy.Order.Asc, offset=offset
        )
        if not found.hits:
            return
        yield [_tombstone(searcher.doc(address)) for _, address in found.hits]
        offset += page


def _tombstone(document: tantivy.Document) -> Tombstone:
    version, changed = document.get_first("version"), document.get_first("changed")
    return Tombstone(str(document.get_first("id")), int(version or 0), int(changed or 0))
