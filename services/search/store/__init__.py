"""The index behind one Protocol, kept by either of two engines that pass the same suite.

port: the Protocol and its values · tantivy_engine: embedded, files on disk · opensearch_engine: a cluster ·
batching: many handlers share one commit.
"""

from services.search.store.port import (
    KEYWORD_FIELDS,
    MAX_HITS,
    TERM_FIELDS,
    Aliases,
    Engine,
    EngineUnavailable,
    IndexDocument,
    IndexGone,
    IndexHit,
    IndexQuery,
    IndexResult,
    Tombstone,
    newest,
)

__all__ = [
    "KEYWORD_FIELDS",
    "MAX_HITS",
    "TERM_FIELDS",
    "Aliases",
    "Engine",
    "EngineUnavailable",
    "IndexDocument",
    "IndexGone",
    "IndexHit",
    "IndexQuery",
    "IndexResult",
    "Tombstone",
    "newest",
]
