"""The index on OpenSearch: strict mappings, external versions, aliases; needs no plugin and no analysis.

`{base}` is the alias that answers, `{base}-building` those being built; each index has `{name}-write`, and bulk
writes require that alias, so a late writer cannot bring a dropped index back. Processes learn of a moved alias
within ALIAS_SECONDS; create() and swap() wait that long, after which every writer knows.
"""

from __future__ import annotations

import base64
import contextlib
import json
import logging
import threading
import time
from collections.abc import Iterator, Mapping, Sequence

from opensearchpy import OpenSearch
from opensearchpy.exceptions import NotFoundError, OpenSearchException, RequestError

from services.search.store import opensearch_query
from services.search.store.port import (
    GONE,
    KEYWORD_FIELDS,
    TERM_FIELDS,
    Aliases,
    EngineUnavailable,
    IndexDocument,
    IndexGone,
    IndexQuery,
    IndexResult,
    Tombstone,
    newest,
    next_name,
)

ALIAS_SECONDS = 1.0
REQUEST_SECONDS = 10
BULK_DOCUMENTS = 500
BUSY_WAITS = (0.1, 0.3, 1.0)  # seconds before a document refused with 429 is sent again
_GONE = "index_not_found_exception"


def _properties() -> dict[str, object]:
    """Return the fields: tokens are only matched, keywords are also counted."""
    token = {"type": "keyword", "doc_values": False, "norms": False}
    properties: dict[str, object] = {
        "id": {"type": "keyword"},
        "version": {"type": "long", "index": False},
        "changed": {"type": "long"},
        "deleted": {"type": "boolean"},
        "payload": {"type": "binary"},
    }
    properties |= dict.fromkeys(TERM_FIELDS, token)
    return properties | dict.fromkeys(KEYWORD_FIELDS, {"type": "keyword"})


def mapping() -> dict[str, object]:
    """Return settings and mappings of an index: unknown fields are refused."""
    settings = {"index": {"refresh_interval": "200ms", "number_of_shards": 1, "auto_expand_replicas": "0-1"}}
    return {"settings": settings, "mappings": {"dynamic": "strict", "properties": _properties()}}


class OpenSearchEngine:
    """The Engine on an OpenSearch cluster."""

    def __init__(self, url: str, base: str = "kehu") -> None:
        for name in ("opensearch", "urllib3.connectionpool"):
            logging.getLogger(name).setLevel(logging.CRITICAL)  # its lines carry ids and bodies
        self._client = OpenSearch(
            hosts=[url], timeout=REQUEST_SECONDS, max_retries=2, retry_on_timeout=False, pool_maxsize=16
        )
        self._base = base
        self._known: tuple[float, Aliases] | None = None
        self._pause = threading.Event()  # waits without eventlet's clock; never set

    def prepare(self) -> None:
        """Create the first index when there is none; of several processes one wins."""
        with _errors():
            if not self._client.indices.exists_alias(name=self._base):
                with contextlib.suppress(RequestError):
                    self._make(f"{self._base}-000001", self._base)
            fields = {"properties": _properties()}  # those of a newer release are added; a rebuild fills them
            self._client.indices.put_mapping(index=f"{self._base}-*", body=fields)
            self._client.cluster.health(index=self._base, params={"wait_for_status": "yellow"})

    def write(self, documents: Sequence[IndexDocument]) -> None:
        """Write to the live index and to all that are being built."""
        with _errors():
            for _ in range(3):
                aliases = self._aliases(ALIAS_SECONDS)
                names = (aliases.live, *aliases.building)
                if all([self._bulk(name, documents) for name in names]):
                    return
                self._known = None
        raise EngineUnavailable("the index is being replaced; try again")

    def load(self, index: str, documents: Sequence[IndexDocument]) -> None:
        """Write to one index that is being built."""
        with _errors():
            if not self._bulk(index, documents):
                raise IndexGone(GONE)

    def search(self, query: IndexQuery) -> IndexResult:
        """Return a page of hits."""
        with _errors():
            found = self._client.search(index=self._base, body=opensearch_query.body(query))
        return opensearch_query.result(found, query)

    def aliases(self) -> Aliases:
        """Return what is live and what is being built."""
        with _errors():
            return self._aliases(0.0)

    def create(self) -> str:
        """Create an index, and wait until every writer knows it."""
        with _errors():
            known = self._client.indices.get(index=f"{self._base}-*", params={"expand_wildcards": "all"})
            name = f"{self._base}-{next_name(each.removeprefix(self._base) for each in known)}"
            self._make(name, f"{self._base}-building")
        self._wait_for_writers()
        return name

    def swap(self, index: str) -> str:
        """Make a built index the live one, and wait until every writer knows it."""
        with _errors():
            aliases = self._aliases(0.0)
            live = aliases.live
            if live != index:
                if index not in aliases.building:
                    raise IndexGone(GONE)
                self._client.indices.refresh(index=index)
                self._client.indices.update_aliases(
                    body={
                        "actions": [
                            {"add": {"index": index, "alias": self._base}},
                            {"remove": {"index": live, "alias": self._base}},
                            {"remove": {"index": index, "alias": f"{self._base}-building"}},
                        ]
                    }
                )
        self._wait_for_writers()
        return live

    def drop(self, index: str) -> None:
        """Delete an index that is not live."""
        if index == self.aliases().live:
            raise ValueError("the live index is not dropped")
        with _errors(), contextlib.suppress(NotFoundError):
            self._client.indices.delete(index=index)

    def tombstones(self, page: int = 500) -> Iterator[list[Tombstone]]:
        """Yield the tombstones of the live index by id."""
        self.refresh()
        after = ""
        while True:
            with _errors():
                body = opensearch_query.tombstones_body(after, page)
                found = opensearch_query.tombstones(self._client.search(index=self._base, body=body))
            if not found:
                return
            yield found
            after = found[-1].id

    def refresh(self) -> None:
        """Make all writes visible now instead of within 200 ms: for tests and after a rebuild."""
        with _errors():
            self._client.indices.refresh(index=f"{self._base}-*")

    def _make(self, name: str, alias: str) -> None:
        self._client.indices.create(index=name, body={**mapping(), "aliases": {alias: {}, f"{name}-write": {}}})

    def _aliases(self, at_most_seconds_old: float) -> Aliases:
        known = self._known
        if known is not None and time.monotonic() - known[0] < at_most_seconds_old:
            return known[1]
        asked = time.monotonic()
        found = self._client.indices.get_alias(index=f"{self._base}-*")
        live = [name for name, each in found.items() if self._base in each["aliases"]]
        building = [name for name, each in found.items() if f"{self._base}-building" in each["aliases"]]
        if len(live) != 1:
            raise EngineUnavailable("no index is live; run prepare or a rebuild")
        aliases = Aliases(live[0], tuple(sorted(building)))
        self._known = (asked, aliases)
        return aliases

    def _wait_for_writers(self) -> None:
        """Wait until no process still uses older aliases than now."""
        self._known = None
        self._pause.wait(ALIAS_SECONDS + 0.2)

    def _bulk(self, index: str, documents: Sequence[IndexDocument]) -> bool:
        """Write documents; False when the index is gone. Stale versions (409) are done, busy ones (429) repeated."""
        fresh = newest(documents)
        for start in range(0, len(fresh), BULK_DOCUMENTS):
            waiting = fresh[start : start + BULK_DOCUMENTS]
            for pause in (*BUSY_WAITS, None):
                outcome = self._send(index, waiting)
                if outcome is None:
                    return False
                waiting = outcome
                if not waiting:
                    break
                if pause is None:
                    raise EngineUnavailable("the index is too busy; try again")
                self._pause.wait(pause)
        return True

    def _send(self, index: str, documents: Sequence[IndexDocument]) -> list[IndexDocument] | None:
        """Return the documents to send again, or None when the index is gone."""
        lines = [json.dumps(each) for document in documents for each in _action(document)]
        try:
            reply = self._client.bulk(
                body="\n".join(lines) + "\n", index=f"{index}-write", params={"require_alias": "true"}
            )
        except NotFoundError:
            return None
        busy: list[IndexDocument] = []
        for document, item in zip(documents, reply["items"], strict=True):
            status = item["index"]["status"]
            if status == 429:
                busy.append(document)
            elif status == 404 and item["index"]["error"]["type"] == _GONE:
                return None
            elif status >= 400 and status != 409:
                kind = item["index"].get("error", {}).get("type", "unknown")
                raise EngineUnavailable("the index refused a document", metadata={"error": str(kind)})
        return busy


def _action(document: IndexDocument) -> tuple[Mapping[str, object], Mapping[str, object]]:
    head = {"index": {"_id": document.id, "version": document.version, "version_type": "external_gte"}}
    body: dict[str, object] = {
        "id": document.id,
        "version": document.version,
        "changed": document.changed,
        "deleted": document.deleted,
    }
    if not document.deleted:
        body |= {name: list(tokens) for name, tokens in document.terms.items()}
        body |= {name: value for name, value in document.keywords.items() if value}
        body["payload"] = base64.b64encode(document.payload).decode()
    return head, body


@contextlib.contextmanager
def _errors() -> Iterator[None]:
    """Hide the client's errors: they carry requests, and requests carry documents."""
    try:
        yield
    except OpenSearchException as error:
        kind = type(error).__name__
    else:
        return
    raise EngineUnavailable("the search cluster does not answer; try again", metadata={"error": kind}) from None
