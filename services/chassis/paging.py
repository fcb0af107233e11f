"""Opaque page tokens (AIP-158): they carry a position, never a right, and are tied to their filter."""

from __future__ import annotations

import base64
import hashlib
import json
from collections.abc import Mapping
from datetime import datetime

from services.chassis.errors import FieldViolation, Invalid

DEFAULT_PAGE_SIZE = 50
MOST = 1 << 53  # every position is below, and more is no whole number in JSON
MAX_PAGE_SIZE = 1000  # the list methods of every proto document this maximum
Seen = tuple[datetime, str]  # time and id of the last one told of a list by time: several may be of one moment


class PageTokenInvalid(Invalid):
    """The page token is not one of ours, or belongs to another filter."""

    reason = "PAGE_TOKEN_INVALID"


def page_size_of(requested: int) -> int:
    """Return the page size: 0 means the default, too large is coerced, negative is refused (AIP-158)."""
    if requested < 0:
        violation = FieldViolation("page_size", "must be 0 or more")
        raise Invalid("page_size must not be negative", violations=[violation])
    return min(requested or DEFAULT_PAGE_SIZE, MAX_PAGE_SIZE)


def filter_hash(*parts: object) -> str:
    """Return a short hash of everything that shapes a list, for `encode_token` and `decode_token`."""
    return hashlib.sha256(repr(parts).encode()).hexdigest()[:16]


def encode_token(payload: Mapping[str, str | int | None], of_filter: str) -> str:
    """Return an opaque token for a position within a filter."""
    raw = json.dumps({"f": of_filter, "p": dict(payload)}, separators=(",", ":")).encode()
    return base64.urlsafe_b64encode(raw).decode().rstrip("=")


def decode_token(token: str, of_filter: str) -> dict[str, str | int | None]:
    """Return the position of a token; an empty token is the start, an empty dict.

    Raises:
        PageTokenInvalid: when it is malformed or was made for another filter.
    """
    if not token:
        return {}
    try:
        raw = json.loads(base64.urlsafe_b64decode(token + "=" * (-len(token) % 4)))
        position = raw["p"]
        if raw["f"] == of_filter and all(isinstance(value, str | int | None) for value in position.values()):
            json.dumps(position, ensure_ascii=False).encode()  # half a character pair is no text
            return dict(position)
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError):
        pass
    raise _invalid()


def number_of(token: Mapping[str, str | int | None], name: str) -> int:
    """Return a number of a position, 0 when it is not there.

    Raises:
        PageTokenInvalid: it is no whole number from 0 to MOST; somebody wrote the token.
    """
    number = token.get(name) or 0
    if not isinstance(number, int) or not 0 <= number <= MOST:
        raise _invalid()
    return number


def moment_of(token: Mapping[str, str | int | None], name: str) -> datetime:
    """Return a time of a position.

    Raises:
        PageTokenInvalid: it is no time with an offset; somebody wrote the token.
    """
    try:
        moment = datetime.fromisoformat(str(token.get(name)))
    except ValueError as error:
        raise _invalid() from error
    if moment.tzinfo is None:
        raise _invalid()
    return moment


def encode_seen(seen: Seen | None, of_filter: str) -> str:
    """Return the token of a place in a list by time and id, empty for none."""
    return encode_token({"at": seen[0].isoformat(), "id": seen[1]}, of_filter) if seen else ""


def decode_seen(token: str, of_filter: str) -> Seen | None:
    """Return the place of such a token, None for an empty one.

    Raises:
        PageTokenInvalid: when it is malformed or was made for another filter.
    """
    position = decode_token(token, of_filter)
    return (moment_of(position, "at"), str(position.get("id"))) if position else None


def _invalid() -> PageTokenInvalid:
    violation = FieldViolation("page_token", "use the next_page_token of the previous page with the same filter")
    return PageTokenInvalid("the page token does not belong to this list", violations=[violation])
