"""Clean text before anything is read from it: width, invisible characters, white space, traditional forms."""

import unicodedata
from functools import lru_cache
from typing import Protocol

TEXT_LIMIT = 500  # longer cells are never a name, a phone or an address


class _Converter(Protocol):
    def convert(self, text: str) -> str: ...


def clean(text: str) -> str:
    """Return text in half width (NFKC) without control characters, white space collapsed and trimmed.

    Cuts after TEXT_LIMIT characters. Idempotent.
    """
    text = text[:TEXT_LIMIT]
    if text.isascii():
        if not text.isprintable():
            text = "".join(char if char.isprintable() else " " for char in text)
        return " ".join(text.split())
    text = unicodedata.normalize("NFKC", text)
    if text.isprintable() and len(text) <= TEXT_LIMIT:
        return " ".join(text.split())
    visible = "".join(map(_visible, text))
    joined = unicodedata.normalize("NFKC", " ".join(visible.split()))
    return joined if len(joined) <= TEXT_LIMIT else clean(joined[:TEXT_LIMIT])


def _visible(char: str) -> str:
    if char.isprintable() or is_han(char):  # newer ones than this Python's table has among them
        return char
    return "" if unicodedata.category(char) in {"Cf", "Cs", "Co", "Cn"} else " "


def simplify(text: str) -> str:
    """Return text with traditional characters turned to simplified ones (OpenCC t2s), until it is stable.

    乾 stays where nothing else is traditional: it is a simplified character too (乾安县).
    """
    if text.isascii() or _changing().isdisjoint(text):
        return text
    for _ in range(3):
        changed = _opencc().convert(text)
        if changed == text.replace("乾", "干") or changed == text:
            return text
        text = changed
    return text


@lru_cache(maxsize=1)
def _changing() -> frozenset[str]:
    """Return the characters that have a simplified form; a text without them is asked for at no cost."""
    every = [chr(code) for first, last in _HAN_RANGES for code in range(first, last + 1)]
    return frozenset(char for char, changed in zip(every, _opencc().convert("\n".join(every)).split("\n"), strict=True)
                     if char != changed)  # fmt: skip


@lru_cache(maxsize=1)
def _opencc() -> _Converter:
    """Load OpenCC's tables at first use; processes that never see Chinese text do not pay for them."""
    import opencc

    converter: _Converter = opencc.OpenCC("t2s")
    return converter


_HAN_RANGES = ((0x3400, 0x4DBF), (0x4E00, 0x9FFF), (0x20000, 0x323AF))


def is_han(char: str) -> bool:
    """Say whether a character is a Chinese one (CJK ideographs, extensions A to H, 〇)."""
    code = ord(char)
    return 0x4E00 <= code <= 0x9FFF or 0x3400 <= code <= 0x4DBF or 0x20000 <= code <= 0x323AF or code == 0x3007
