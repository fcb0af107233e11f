"""What people are called beside their names: 小明, 阿明 and 明明 for 李明, Bob for Robert, in both directions.

`nicknames.json` lists Latin given names with the short forms in use for them; it was written for this project.
"""

import json
from collections import defaultdict
from dataclasses import dataclass
from functools import lru_cache
from importlib import resources

from services.profiles.domain.values import PersonName

_BEFORE = "小阿老"  # 小明, 阿明, 老王


@dataclass(frozen=True, slots=True)
class Callings:
    """What a name calls its bearer, what its bearer may be called, and whether it lacks the surname."""

    calls: frozenset[str] = frozenset()
    answers: frozenset[str] = frozenset()
    is_bare: bool = False


NONE = Callings()


def callings_of(name: PersonName) -> Callings:
    """Return what links a name to nicknames; nothing for names with ·."""
    if name.style == "latin":
        found = _latin(name.given or name.surname)
        return Callings(found, found, not name.given)
    return _han(name) if name.style == "han" else NONE


def are_nicknames(one: Callings, other: Callings, *, same_surname: bool) -> bool:
    """Say whether one is what the bearer of the other may be called; a surname that both tell must be the same."""
    if not (same_surname or one.is_bare or other.is_bare):
        return False
    return not (one.calls.isdisjoint(other.answers) and other.calls.isdisjoint(one.answers))


def _han(name: PersonName) -> Callings:
    surname, given = name.surname, name.given
    if not given and name.title in _BEFORE and name.title:
        return Callings(frozenset((surname,)), frozenset((surname,)), is_bare=True)
    if surname == given and len(given) == 1:
        return Callings(frozenset((given,)), frozenset((given,)), is_bare=True)
    if not given:
        return NONE
    if len(given) == 2 and (given[0] in _BEFORE or given[0] == given[1]):
        return Callings(frozenset((f"={given[1]}",)), frozenset((*given, f"={given[1]}")))
    return Callings(frozenset(), frozenset((*given, f"={given}")) if len(given) < 3 else frozenset())


def _latin(given: str) -> frozenset[str]:
    """Return the formal names of a given name's first word; it is one itself."""
    word = given.casefold().partition(" ")[0]
    return _formal().get(word, frozenset((word,))) if word else frozenset()


@lru_cache(maxsize=1)
def _formal() -> dict[str, frozenset[str]]:
    text = resources.files("services.profiles.domain").joinpath("nicknames.json").read_text("utf-8")
    found: defaultdict[str, set[str]] = defaultdict(set)
    for formal, short in json.loads(text).items():
        for word in (formal, *short.split()):
            found[word].add(formal)
    return {word: frozenset(formals) for word, formals in found.items()}
