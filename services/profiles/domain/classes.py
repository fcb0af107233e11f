"""How strictly a record or a golden record must be sealed: by the strictest class among its fields."""

from __future__ import annotations

from collections.abc import Iterable

from services.profiles.domain.dictionary import DEFAULT_BY_NAME, Classification
from services.profiles.domain.values import StandardRecord

_PARTS = ("province", "city", "district", "town", "phones", "emails", "tier")
_SENSITIVE = {name for name, field in DEFAULT_BY_NAME.items() if field.classification is Classification.SENSITIVE}
NOT_SENSITIVE = (frozenset(DEFAULT_BY_NAME) | frozenset(_PARTS)) - _SENSITIVE


def has_sensitive(fields: Iterable[str]) -> bool:
    """Tell whether any of these fields is sensitive (PIPL article 28); one that is not built in counts as such."""
    return not NOT_SENSITIVE.issuperset(fields)


def is_sensitive(record: StandardRecord) -> bool:
    """Tell whether a record holds a sensitive field, an identity paper among them."""
    return bool(record.resident_id or record.documents) or has_sensitive(record.originals)
