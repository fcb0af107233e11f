"""Hits as replies: payloads opened, matches marked where the caller reads the text; the guard masks the rest."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence

from kehu.search.v1 import events_pb2 as displays
from kehu.search.v1 import search_pb2 as pb

from services.chassis.crypto import Sealer
from services.search.domain.highlights import Range, name_matches, snippet, text_matches
from services.search.store import IndexHit, IndexResult

Shows = Callable[[str], bool]


class HitReader:
    """Makes replies of hits."""

    def __init__(self, payloads: Sealer) -> None:
        """Open payloads with search's own key."""
        self._payloads = payloads

    def reply(self, result: IndexResult, query: str, shows: Shows) -> pb.SearchResponse:
        """Return hits, count and facets; `shows` tells whether the caller reads personal/{group} in full."""
        facets = [
            pb.Facet(field=field, values=[pb.FacetValue(value=value, count=count) for value, count in counted])
            for field, counted in result.facets.items()
            if counted
        ]
        hits = [self._hit(hit, query, shows) for hit in result.hits]
        return pb.SearchResponse(hits=hits, total_size=result.total, facets=facets)

    def _hit(self, hit: IndexHit, query: str, shows: Shows) -> pb.Hit:
        opened = self._payloads.open(hit.payload, hit.id.encode())
        message = pb.Hit(name=hit.id, score=hit.score)
        if hit.id.startswith("profiles/"):
            message.profile.CopyFrom(_profile(displays.ProfileDisplay.FromString(opened), query, shows))
        else:
            message.ticket.CopyFrom(_ticket(displays.TicketDisplay.FromString(opened), query, shows))
        return message


def _profile(display: displays.ProfileDisplay, query: str, shows: Shows) -> pb.ProfileHit:
    return pb.ProfileHit(
        display_name=display.display_name,
        phones=display.phones,
        emails=display.emails,
        resident_id=display.resident_id,
        address=display.address,
        owner_department=display.owner_department,
        tier=display.tier,
        update_time=display.update_time,
        display_name_matches=_ranges(name_matches(query, display.display_name)) if shows("name") else (),
    )


def _ticket(display: displays.TicketDisplay, query: str, shows: Shows) -> pb.TicketHit:
    piece = snippet(query, display.description) if shows("content") else ""
    marked = shows("content")
    return pb.TicketHit(
        number=display.number,
        subject=display.subject,
        snippet=piece,
        profile=f"profiles/{display.profile_id}" if display.profile_id else "",
        kind=display.kind,
        status=display.status,
        status_category=display.status_category,
        priority=display.priority,
        department=display.department,
        update_time=display.update_time,
        subject_matches=_ranges(text_matches(query, display.subject)) if marked else (),
        snippet_matches=_ranges(text_matches(query, piece)) if marked else (),
    )


def _ranges(found: Iterable[Range]) -> Sequence[pb.TextRange]:
    return [pb.TextRange(start=start, end=end) for start, end in found]
