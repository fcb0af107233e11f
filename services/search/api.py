"""The gRPC face of search."""

from __future__ import annotations

import grpc
from google.longrunning import operations_pb2
from kehu.search.v1 import search_pb2 as pb
from kehu.search.v1 import search_pb2_grpc

from services.chassis import paging
from services.chassis.access import Obligations
from services.chassis.errors import FieldViolation, Invalid
from services.chassis.jobs import Jobs, Owner
from services.chassis.server import current_call
from services.search.domain import filters
from services.search.domain.queries import plan
from services.search.domain.terms import Keyed
from services.search.hits import HitReader
from services.search.store import MAX_HITS, Engine, IndexQuery

DEFAULT_HITS = 20
MAX_PAGE = 100
REBUILD = "rebuild_index"


class SearchTooDeep(Invalid):
    """Only the first 1,000 hits can be paged through."""

    reason = "SEARCH_TOO_DEEP"


class SearchServicer(search_pb2_grpc.SearchServiceServicer):
    """Serves kehu.search.v1.SearchService."""

    def __init__(self, engine: Engine, keyed: Keyed, hits: HitReader, jobs: Jobs) -> None:
        self._engine = engine
        self._keyed = keyed
        self._hits = hits
        self._jobs = jobs

    def Search(self, request: pb.SearchRequest, context: grpc.ServicerContext) -> pb.SearchResponse:
        """Find what the caller may find; count and facet within the same rows."""
        obligations = current_call().decision.obligations
        seen = _seen(obligations)
        wanted = filters.parse_filter(request.filter)
        filters.check_filter(wanted, seen)
        clauses = obligations.row_filter
        types = filters.visible_types(filters.check_types(request.types), seen)
        narrowed = filters.with_rows(wanted, types, filters.plain_rows(clauses))
        planned = plan(request.q, obligations.may_search, lambda *group: _shows(obligations, *group), self._keyed)
        shape = paging.filter_hash(planned.clauses, sorted(request.types), request.filter)
        offset = paging.number_of(paging.decode_token(request.page_token, shape), "offset")
        limit = min(paging.page_size_of(request.page_size) if request.page_size else DEFAULT_HITS, MAX_PAGE)
        _check_depth(offset, limit)
        facets = filters.visible_facets(seen)
        either = filters.rows_of(clauses)
        result = self._engine.search(IndexQuery(planned.clauses, narrowed, facets, offset, limit, either))
        reply = self._hits.reply(result, request.q, lambda group: obligations.disposition("personal", group) == "show")
        reply.groups_not_searched.extend(planned.left_out)
        if offset + limit < min(result.total, MAX_HITS):
            reply.next_page_token = paging.encode_token({"offset": offset + limit}, shape)
        return reply

    def RebuildIndex(self, request: pb.RebuildIndexRequest, context: grpc.ServicerContext) -> operations_pb2.Operation:
        """Start a rebuild; the old index answers until it is done."""
        caller = current_call().caller
        owner = Owner(caller.subject, caller.department)
        return self._jobs.start(REBUILD, {}, pb.RebuildIndexMetadata(stage="waiting"), owner, request.request_id)


def _seen(obligations: Obligations) -> dict[tuple[str, str], bool]:
    """Return which groups of filter fields and types the caller sees at least masked."""
    needed = [*filters.FILTER_FIELDS.values(), *filters.TYPE_GROUPS.values()]
    groups = {group for group in needed if group[0] != "internal"}
    return {group: obligations.disposition(*group) != "hide" for group in groups}


def _shows(obligations: Obligations, classification: str, group: str) -> bool:
    return obligations.disposition(classification, group) == "show"


def _check_depth(offset: int, limit: int) -> None:
    if offset < 0 or offset + limit > MAX_HITS:
        violation = FieldViolation("page_token", "narrow the search by more words or a filter")
        raise SearchTooDeep(f"only the first {MAX_HITS} hits can be paged through", violations=[violation])
