"""Recovery codes: ten, for who lost their authenticator; each good once, slow to guess, shown when they are made."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence

CODES = 10
ALPHABET = "abcdefghjkmnpqrstuvwxyz23456789"  # nothing that is read as another sign
CODE = re.compile(rf"[0-9][{ALPHABET}]{{12}}")  # its place, and 59 random bits


def codes_of(choose: Callable[[str], str]) -> list[str]:
    """Return ten codes such as `3-k7wq2m-x9m4tc`; `choose` picks a random letter."""
    words = ["".join(choose(ALPHABET) for _ in range(12)) for _ in range(CODES)]
    return [f"{place}-{word[:6]}-{word[6:]}" for place, word in enumerate(words)]


def plain(code: str) -> str:
    """Return the code as it is hashed, however it was typed."""
    return re.sub(r"[\s-]", "", code.lower())


def spent(hashes: Sequence[str], code: str, matches: Callable[[str, str], bool], decoy: str) -> tuple[str, ...] | None:
    """Return the hashes without the one of this code, None when it is wrong or was used; either takes as long."""
    typed = plain(code)[:64]
    place = int(typed[0]) if CODE.fullmatch(typed) else 0
    known = hashes[place] if place < len(hashes) else ""
    right = matches(known or decoy, typed)
    if not (known and right):
        return None
    return tuple("" if at == place else hashed for at, hashed in enumerate(hashes))
