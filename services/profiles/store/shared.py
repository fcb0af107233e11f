"""Which tokens more than one living profile carries: exact, and bounded in what is read for each."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

from pymongo.collection import Collection

from services.chassis import records
from services.profiles.store.protocol import MAX_PER_TOKEN
from services.profiles.values import Profile

TOKENS_PER_QUERY = 16
MANY_TOKENS, FEW_FOUND_FACTOR = 128, 4  # more are asked for at once while few are found: see mongo.KEYS_PER_QUERY
VERIFIED_AT_ONCE = 8


def holders(links: Collection, counted: Mapping[str, int]) -> dict[str, set[str]]:
    """Return the record keys behind tokens, of each at least as many as it is given with, or all."""
    held: dict[str, set[str]] = {token: set() for token in counted}
    waiting, start, step = list(counted), 0, TOKENS_PER_QUERY
    while part := waiting[start : start + step]:
        limit = sum(counted[token] for token in part)
        found = _links(links, part, limit)
        if len(found) >= limit and len(part) > 1:  # one token's may hide another's: each on its own
            found = [link for token in part for link in _links(links, [token], counted[token])]
        for link in found:
            for token in set(part).intersection(link["t"]):
                held[token].add(link["_id"])
        start += len(part)
        step = MANY_TOKENS if len(found) * FEW_FOUND_FACTOR < len(part) else TOKENS_PER_QUERY
    return held


def _links(links: Collection, tokens: Sequence[str], limit: int) -> list[dict[str, Any]]:
    query = {"$in": list(tokens)} if len(tokens) > 1 else tokens[0]
    with records.driver_errors():
        return list(links.find({"t": query}, {"t": 1}).limit(limit))


class SharedTokens:
    """Looks tokens up in the links of records; links that lost writes left behind are told apart by the profiles."""

    def __init__(self, links: Collection, living: Callable[[Iterable[str]], list[Profile]]) -> None:
        self._links = links
        self._living = living

    def among(self, held: Sequence[tuple[str, str]]) -> set[tuple[str, str]]:
        """Return those of (token, profile id) whose token another living profile carries too."""
        owners: defaultdict[str, set[str]] = defaultdict(set)
        tokens = list(dict.fromkeys(token for token, _ in held))
        for start in range(0, len(tokens), TOKENS_PER_QUERY):
            part = tokens[start : start + TOKENS_PER_QUERY]
            limit = MAX_PER_TOKEN * len(part)
            with records.driver_errors():
                links = list(self._links.find({"t": {"$in": part}}, {"p": 1, "t": 1}).limit(limit))
            for link in links:
                for token in set(part).intersection(link["t"]):
                    owners[token].add(link["p"])
            if len(links) >= limit:  # some were cut off: each token on its own
                for token in part:
                    owners[token].update(self._ends_of(token))
        return {(token, owner) for token, owner in held if self._is_shared(token, owner, owners[token] - {owner})}

    def _ends_of(self, token: str) -> set[str]:
        """Return the lowest and the highest of the ids that a token leads to: of two or more, one is another's."""
        found: set[str] = set()
        for order in (1, -1):
            with records.driver_errors():
                links = self._links.find({"t": token}, {"p": 1}).sort("p", order).limit(MAX_PER_TOKEN)
                found.update(link["p"] for link in links)
        return found

    def _is_shared(self, token: str, owner: str, others: set[str]) -> bool:
        waiting = sorted(others)
        while waiting:
            some, waiting = waiting[:VERIFIED_AT_ONCE], waiting[VERIFIED_AT_ONCE:]
            if any(item.profile_id != owner and token in item.tokens for item in self._living(some)):
                return True
        return False
