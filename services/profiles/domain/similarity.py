"""How alike two texts are: one typing error apart, or of one sound."""

from collections import Counter
from functools import lru_cache

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


def sounds_of_name(name: PersonName) -> tuple[str, str]:
    """Return the pinyin of surname and given name; Latin names are taken as they are written."""
    surname = _SURNAME_SOUNDS.get(name.surname) or "".join(map(sound_of, name.surname))
    return surname, "".join(map(sound_of, name.given.replace(" ", "")))


def sound_key(name: PersonName) -> str:
    """Return the name's letters in alphabetical order: one key for 王伟, 伟王, 王玮 and Wang Wei."""
    return "".join(sorted("".join(sounds_of_name(name))))
