"""Tries of people to show who they are: stored whatever comes of them, so that none goes uncounted."""

from __future__ import annotations

from collections.abc import Callable

from services.access.domain.errors import CredentialsRefused
from services.access.domain.principals import Principal
from services.access.store.ports import Principals
from services.chassis.errors import Conflict

TRIES = 5  # of storing one that others of the same person overtake

Tried = tuple[Principal | None, bool]  # the state to store, and whether they are in


def tried(principals: Principals, principal_id: str, attempt: Callable[[Principal | None], Tried]) -> Principal:
    """Return the person whom an attempt lets in, as stored.

    Raises:
        CredentialsRefused: whatever is wrong, or too many try at the same time.
    """
    for _ in range(TRIES):
        known = principals.get(principal_id)
        state, is_in = attempt(known)
        try:
            stored = principals.save(state) if state is not None and state != known else state
        except Conflict:  # somebody tries at the same time: every wrong try counts, a code counts once
            continue
        if stored is not None and is_in:
            return stored
        break
    raise CredentialsRefused
