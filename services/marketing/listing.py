"""Pages of lists, and the rows a policy lets a caller reach."""

from __future__ import annotations

from collections.abc import Sequence

from services.chassis.access import values_in_reach
from services.chassis.errors import Denied
from services.chassis.paging import decode_token, encode_token, filter_hash
from services.chassis.server import current_call


def position_of(page_token: str, of: str) -> str:
    """Return the id after which a page starts."""
    return str(decode_token(page_token, filter_hash(of)).get("after", ""))


def next_token(ids: Sequence[str], size: int, of: str) -> str:
    """Return the token of the next page when there are more ids than fit on this one."""
    return encode_token({"after": ids[size - 1]}, filter_hash(of)) if len(ids) > size else ""


def reach() -> list[str] | None:
    """Return the departments whose rows the caller reaches; None means all.

    Raises:
        Denied: the policy narrows rows by a field these resources do not have.
    """
    clauses = current_call().decision.obligations.row_filter
    departments = values_in_reach(clauses, "owner_department")
    if clauses and not departments:
        raise Denied("your policy narrows rows by a field that campaigns and segments do not have")
    return None if departments is None else sorted(departments)


def check_reach(owner_department: str) -> bool:
    """Say whether the caller reaches rows of a department; "*" asks for the rows of all.

    Raises:
        Denied: rows of all are asked for, and the caller does not reach them.
    """
    departments = reach()
    if owner_department == "*" and departments is not None:
        raise Denied("your policy narrows rows: name a campaign")
    return departments is None or owner_department in departments
