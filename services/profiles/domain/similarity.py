"""How alike two texts are: one typing error apart, or of one sound."""

import re
from collections import Counter
from dataclasses import dataclass
from functools import lru_cache
from importlib import resources

from services.profiles.domain.pinyin import is_pinyin
from services.profiles.domain.romanized import READINGS
from services.profiles.domain.text import is_han
from services.profiles.domain.values import PersonName

# Characters that sound otherwise as a surname than pypinyin's most frequent reading (GB/T 28039-2011).
_SURNAME_SOUNDS = {
    "单": "shan", "仇": "qiu", "解": "xie", "区": "ou", "查": "zha", "曾": "zeng", "盖": "ge", "朴": "piao",
    "翟": "zhai", "缪": "miao", "尉迟": "yuchi", "万俟": "moqi", "长孙": "zhangsun", "澹台": "tantai",
}  # fmt: skip


def is_one_edit(left: str, right: str) -> bool:
    """Say whether one replaced, missing, added or swapped-with-its-neighbour character parts two texts."""
    if left == right:
        return False
    shorter, longer = sorted((left, right), key=len)
    if len(longer) - len(shorter) > 1:
        return False
    start = 0
    while start < len(shorter) and shorter[start] == longer[start]:
        start += 1
    if len(shorter) < len(longer):
        return shorter[start:] == longer[start + 1 :]
    if shorter[start + 1 :] == longer[start + 1 :]:
        return True
    swapped = longer[start + 1 : start + 2] + longer[start : start + 1] + longer[start + 2 :]
    return shorter[start:] == swapped


GRAMS_FROM = 5  # characters of the shorter name: what is shorter differs by more than a slip in every gram


def grams_of(text: str) -> tuple[str, ...]:
    """Return the pairs of neighbouring characters, ends included, sorted; none of a short text."""
    if len(text) < GRAMS_FROM:
        return ()
    framed = f"^{text.casefold()}$"
    return tuple(sorted(framed[at : at + 2] for at in range(len(framed) - 1)))


def is_alike(left: tuple[str, ...], right: tuple[str, ...]) -> bool:
    """Say whether the cosine of two texts' counted grams is at least 3/4."""
    if not left or not right:
        return False
    one, other = Counter(left), Counter(right)
    dot = sum(count * other[gram] for gram, count in one.items())
    norms = sum(count * count for count in one.values()) * sum(count * count for count in other.values())
    return 16 * dot * dot >= 9 * norms


@lru_cache(maxsize=8192)
def sound_of(char: str) -> str:
    """Return a character's most frequent reading in pinyin without tone, in ASCII (ü is v)."""
    if not is_han(char):
        return char.casefold()
    from pypinyin import lazy_pinyin  # loaded at first use: its tables cost 0.2 s and 50 MB

    return lazy_pinyin(char, v_to_u=False)[0]


@dataclass(frozen=True, slots=True)
class Sounds:
    """How a name may be read: its surname alone, surname and given name each, both together in either order.

    `near` are the last without what dialects leave out (模糊音): zh as z, n as l, ing as in; and the characters, each
    in place of all that look like it (形近字).
    """

    surnames: frozenset[str] = frozenset()
    words: frozenset[str] = frozenset()
    whole: frozenset[str] = frozenset()
    near: frozenset[str] = frozenset()


SILENT = Sounds()


def sounds_of_name(name: PersonName) -> Sounds:
    """Return the sounds of a name in pinyin; Latin letters that spell Chinese otherwise also as they are read."""
    pairs, heard = _readings(name.surname, name.given, is_latin=name.style == "latin")
    surnames = frozenset(surname for surname, given in pairs if given == pairs[0][1])
    near = {text for one, two in heard for text in (one + two, two + one)}
    if name.style != "latin":
        near.add(name.full.translate(_looks()))
    whole = frozenset(text for one, two in pairs for text in (one + two, two + one))
    return Sounds(surnames, surnames | {pairs[0][1]}, whole, frozenset(near))


def sound_keys(name: PersonName) -> tuple[str, ...]:
    """Return the letters of each reading in alphabetical order: 王伟, 伟王, 王玮, Wang Wei and Wong Wei share one."""
    heard = _readings(name.surname, name.given, is_latin=name.style == "latin")[1]
    return tuple(sorted({"".join(sorted(one + two)) for one, two in heard}))


_Pairs = tuple[tuple[str, str], ...]


@lru_cache(maxsize=4096)
def _readings(surname: str, given: str, *, is_latin: bool) -> tuple[_Pairs, _Pairs]:
    """Return surname and given name in all their readings, and the same as dialects have them."""
    own = _SURNAME_SOUNDS.get(surname) or "".join(map(sound_of, surname))
    rest = "".join(map(sound_of, given.replace(" ", "")))
    pairs = [(own, rest)]
    is_chinese = not is_latin or (is_pinyin(rest) and (is_pinyin(own) or own in READINGS))
    if is_latin and (is_chinese or not rest):
        pairs += [(one, rest) for one in READINGS.get(own, ())]
        pairs += [(own, one) for one in READINGS.get(rest, ())]  # either word may be the surname
    heard = [(_near(one), _near(two)) for one, two in pairs] if is_chinese else pairs
    return tuple(pairs), tuple(heard)


def _near(sound: str) -> str:
    """Return pinyin as who tells neither zh from z, n from l, nor ing from in would write it."""
    return _NASAL.sub("n", _RETROFLEX.sub(r"\1", sound)).replace("n", "l")


_RETROFLEX = re.compile("([zcs])h")
_NASAL = re.compile("ng(?![aeiouv])")  # before a vowel the g begins the next syllable


@lru_cache(maxsize=1)
def _looks() -> dict[int, str]:
    """Return for each character of a group that looks alike the first of them (infra.lookalikes draws the groups)."""
    groups = resources.files("services.profiles.domain").joinpath("lookalikes.txt").read_text("utf-8").split()
    return {ord(char): group[0] for group in groups for char in group}
