"""Where a query matches a text that the caller may read: each hit by itself, never the whole run."""

from __future__ import annotations

import unicodedata
from collections.abc import Iterator

from services.search.domain import words
from services.search.domain.queries import parts_of

SNIPPET_CHARACTERS = 80
Range = tuple[int, int]


def text_matches(query: str, text: str) -> list[Range]:
    """Return the stretches of `text`, in characters, that the parts of the query match, in order."""
    folded, places = _folded(text)
    found = [
        (places[start], places[start + len(piece) - 1] + 1)
        for part in parts_of(query)
        for run in words.runs(part)
        for piece in _pieces(run, folded)
        for start in _occurrences(piece, folded)
    ]
    return _joined(found)


def name_matches(query: str, name: str) -> list[Range]:
    """Return the stretches of a name that the query matches, by characters or by pinyin."""
    found = text_matches(query, name)
    folded, places = _folded(name)
    for part in parts_of(query):
        if part.isascii() and part.isalpha():
            span = _spelled(part, folded)
            if span:
                found.append((places[span[0]], places[span[1] - 1] + 1))
    return _joined(found)


def snippet(query: str, text: str) -> str:
    """Return up to 80 characters of the text around its first match, or its beginning."""
    found = text_matches(query, text)
    start = max(found[0][0] - 20, 0) if found else 0
    return text[start : start + SNIPPET_CHARACTERS]


def _folded(text: str) -> tuple[str, list[int]]:
    """Return the text normalized character by character, and the place in `text` of each result character."""
    folded: list[str] = []
    places: list[int] = []
    for place, character in enumerate(text):
        for result in words.normalized(unicodedata.normalize("NFKC", character)):
            folded.append(result)
            places.append(place)
    return "".join(folded), places


def _pieces(run: str, folded: str) -> list[str]:
    """Return the run itself when it occurs, else the Chinese words of it: the same choice as the index makes."""
    if run in folded:
        return [run]
    name = words.without_title(run)
    if name in folded:
        return [name]
    return words.cut(run) if words.is_han(run) else []


def _occurrences(piece: str, folded: str) -> Iterator[int]:
    start = folded.find(piece)
    while start >= 0:
        yield start
        start = folded.find(piece, start + len(piece))


def _spelled(letters: str, name: str) -> Range | None:
    """Return the characters that a spelling or initials cover."""
    if not name or not all(words.is_han(character) for character in name):
        return None
    for syllables in words.readings(name[:8]):
        for start in range(min(len(syllables), 3)):
            length = 0
            for end in range(start, len(syllables)):
                length += len(syllables[end])
                spelled = "".join(syllables[start : end + 1])
                if length >= len(letters) and spelled.startswith(letters):
                    return start, end + 1
        if len(letters) > 1 and "".join(syllable[0] for syllable in syllables).startswith(letters):
            return 0, len(letters)
    return None


def _joined(found: list[Range]) -> list[Range]:
    result: list[Range] = []
    for start, end in sorted(set(found)):
        if result and start < result[-1][1]:
            result[-1] = (result[-1][0], max(end, result[-1][1]))
        else:
            result.append((start, end))
    return result
