"""What a publication did: allowed and denied decisions in equal spans before and after it."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field
from datetime import datetime, timedelta

from services.access.domain.simulation import asked_of
from services.chassis.audit import AuditEntry

LEAST_DENIALS = 10  # fewer after a publication are chance
FACTOR = 2.0


@dataclass(slots=True)
class Counts:
    """The decisions about one action, before and after, and who was denied after."""

    allowed_before: int = 0
    denied_before: int = 0
    allowed_after: int = 0
    denied_after: int = 0
    denied_subjects: set[str] = field(default_factory=set)

    def alerts(self, factor: float) -> bool:
        """Tell whether denials have grown to `factor` times those before, and to ten at least."""
        return self.denied_after >= max(LEAST_DENIALS, factor * self.denied_before)


@dataclass(frozen=True, slots=True)
class Span:
    """Two stretches of equal length, before and after a moment."""

    start: datetime
    published: datetime
    end: datetime


def span_of(published: datetime, now: datetime, window: timedelta) -> Span:
    """Return the stretches: as long as the publication has been in force, `window` at most."""
    length = max(min(now - published, window), timedelta(0))
    return Span(published - length, published, published + length)


def counted(entries: Iterable[AuditEntry], span: Span) -> dict[tuple[str, str], Counts]:
    """Count the decisions of a trail by resource and action; entries may come in any order."""
    found: dict[tuple[str, str], Counts] = {}
    for entry in entries:
        asked, time = asked_of(entry), datetime.fromisoformat(entry.time)
        if asked is None or not span.start <= time < span.end:
            continue
        counts = found.setdefault((asked.resource, asked.action), Counts())
        side = "before" if time < span.published else "after"
        name = f"{'allowed' if asked.allowed else 'denied'}_{side}"
        setattr(counts, name, getattr(counts, name) + 1)
        if side == "after" and not asked.allowed:
            counts.denied_subjects.add(asked.subject)
    return found
