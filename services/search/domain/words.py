"""Chinese words, readings and simplified forms; dictionaries are loaded when first needed, once a process."""

from __future__ import annotations

import importlib.util
import itertools
import re
import unicodedata
from collections.abc import Callable, Mapping
from functools import lru_cache
from types import ModuleType

MAX_READINGS = 8  # combinations of readings of one name; rare readings beyond them are not found by pinyin
_HAN = r"\u3400-\u4dbf\u4e00-\u9fff\uf900-\ufaff\U00020000-\U0002ebef〇"
_RUNS = re.compile(rf"[{_HAN}]+|[^\W\d_{_HAN}]+|\d+")
_IS_HAN = re.compile(rf"[{_HAN}]")
_TITLES = re.compile(r"(先生|女士|小姐|太太)$")


def normalized(text: str) -> str:
    """Return text in half width, lower case and simplified characters (NFKC, casefold, OpenCC t2s)."""
    folded = unicodedata.normalize("NFKC", text).casefold()
    return _simplifier()(folded) if _IS_HAN.search(folded) else folded


def runs(text: str) -> list[str]:
    """Split normalized text into runs of Han characters, of letters and of digits; the rest separates."""
    return _RUNS.findall(text)


def is_han(run: str) -> bool:
    """Tell whether a run is of Han characters."""
    return bool(_IS_HAN.match(run))


def without_title(name: str) -> str:
    """Return a normalized name without 先生, 女士 and the like at its end; a bare title stays."""
    return _TITLES.sub("", name) or name


def cut(text: str) -> list[str]:
    """Return the Chinese words of two characters and more in a run, shorter words inside long ones included."""
    return [word for word in _segmenter()(text) if len(word) > 1]


def readings(name: str) -> list[tuple[str, ...]]:
    """Return how a run of Han characters may be read, syllable by syllable without tones, usual readings first."""
    table = _syllables()
    each = [table.get(character, ())[: 3 if place < 4 else 1] for place, character in enumerate(name)]
    if not all(each):
        return []
    choices = itertools.product(*[list(enumerate(syllables)) for syllables in each])
    ranked = sorted(choices, key=lambda choice: sum(rank for rank, _ in choice))
    return [tuple(syllable for _, syllable in choice) for choice in ranked[:MAX_READINGS]]


@lru_cache(maxsize=1)
def _simplifier() -> Callable[[str], str]:
    import opencc

    return opencc.OpenCC("t2s").convert


@lru_cache(maxsize=1)
def _segmenter() -> Callable[[str], list[str]]:
    import jieba

    tokenizer = jieba.Tokenizer()
    # Its own initialize() would unmarshal a cache from the shared temporary folder, where anybody may put one.
    tokenizer.FREQ, tokenizer.total = tokenizer.gen_pfdict(tokenizer.get_dict_file())
    tokenizer.initialized = True
    return tokenizer.lcut_for_search


class _Syllables(Mapping[str, tuple[str, ...]]):
    """Readings by character, computed when asked for: the table of tones is large enough once."""

    def __init__(self, with_tones: Mapping[int, str]) -> None:
        self._with_tones = with_tones

    def __getitem__(self, character: str) -> tuple[str, ...]:
        spelled = self._with_tones[ord(character)].split(",")
        return tuple(dict.fromkeys(_without_tone(syllable) for syllable in spelled))

    def __iter__(self):  # noqa: ANN204
        return map(chr, self._with_tones)

    def __len__(self) -> int:
        return len(self._with_tones)


def _without_tone(syllable: str) -> str:
    decomposed = unicodedata.normalize("NFD", syllable.replace("ü", "v").translate(_U_WITH_TONE))
    return "".join(character for character in decomposed if character.isascii() and character.isalpha())


_U_WITH_TONE = str.maketrans(dict.fromkeys("ǖǘǚǜ", "v"))


@lru_cache(maxsize=1)
def _syllables() -> _Syllables:
    return _Syllables(_pinyin_table().pinyin_dict)


def _pinyin_table() -> ModuleType:
    """Load pypinyin's table of single characters alone: its package would bring 35 MB of phrases along."""
    package = importlib.util.find_spec("pypinyin")
    if package is None or not package.submodule_search_locations:
        raise ImportError("pypinyin is not installed")
    path = f"{package.submodule_search_locations[0]}/pinyin_dict.py"
    found = importlib.util.spec_from_file_location("kehu_pinyin_table", path)
    if found is None or found.loader is None:
        raise ImportError("pypinyin has no table of characters")
    module = importlib.util.module_from_spec(found)
    found.loader.exec_module(module)
    return module
