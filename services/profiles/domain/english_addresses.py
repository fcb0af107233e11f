"""Addresses of China written in Latin letters: No. 12, Lane 345, Nanjing West Rd, Jing'an District, Shanghai 200041."""

import re
import unicodedata
from functools import lru_cache

from services.profiles.domain.divisions import MUNICIPALITIES, division_table, level_of

# What English writes otherwise than pinyin does, by code; polyphones that names of places read in their own way.
_ENGLISH = {
    "150000": "inner mongolia;nei mongol", "540000": "tibet", "610000": "shaanxi", "810000": "hong kong;hongkong",
    "820000": "macau;macao", "650000": "xinjiang uygur;xinjiang uyghur", "450000": "guangxi zhuang",
    "640000": "ningxia hui", "110000": "peking", "230100": "harbin", "650100": "urumqi;wulumuqi", "540100": "lhasa",
    "150100": "hohhot", "150600": "ordos", "150700": "hulunbuir", "150800": "bayannur", "150900": "ulanqab",
    "152200": "hinggan", "152500": "xilingol", "152900": "alxa", "230200": "qiqihar", "650200": "karamay",
    "650400": "turpan", "652900": "aksu", "653100": "kashgar", "653200": "hotan", "654000": "ili",
    "540200": "shigatse;xigaze", "540300": "chamdo;qamdo", "540400": "nyingchi", "440100": "canton",
}  # fmt: skip
_READINGS = {"长": "chang", "朝": "chao", "行": "hang"}
_NOT_THAT = {("shanxi", "610000"), ("hainan", "632500")}  # 陕西 is Shaanxi; Hainan alone is the province
_COUNTRY = frozenset(("china", "cn", "chn", "prc", "prchina", "peoplesrepublicofchina", "mainlandchina"))
_TYPES = frozenset((
    "city", "shi", "province", "prov", "sheng", "municipality", "district", "dist", "qu", "county", "xian", "newarea",
    "newdistrict", "prefecture", "autonomousprefecture", "autonomousregion", "region", "sar",
))  # fmt: skip
_WORD = re.compile(r"[^\s,;]+")
_WITHIN = str.maketrans("", "", "'’`.-()")
_POSTCODE = re.compile(r"\d{6}")
_EDGE = re.compile(r"^[^A-Za-z0-9#\u00c0-\u024f]+|[\s,;.、|/-]+$")
_LONGEST = 5  # words of a country's name
_SHORT = 3  # letters of a name that is also a word of other languages


def read_english(text: str) -> tuple[str, str, str]:
    """Return (code, what is left of the text, reason) of an address in Latin letters; no code when it names no place.

    Read from its end, as one writes in English, or from its beginning, as one writes in Chinese. A name that two
    provinces have a city of is not guessed (ADDRESS_AMBIGUOUS).
    """
    words = [_Word(match.group(), text[match.end() : match.end() + 1] in (",", ";")) for match in _WORD.finditer(text)]
    keys = [_key(word) for word in words]
    for reader in (_FromEnd(keys, words), _FromStart(keys, words)):
        code, left, reason = reader.read()
        if code or reason:
            return code, _EDGE.sub("", " ".join(f"{word}{',' * word.has_comma}" for word in left)), reason
    return "", text, ""


class _Word(str):
    """A word, and whether a comma follows it."""

    has_comma: bool

    def __new__(cls, text: str, has_comma: bool) -> "_Word":
        made = super().__new__(cls, text)
        made.has_comma = has_comma
        return made


class _FromEnd:
    """Takes country, postcode, province, city and county off the end of the words."""

    def __init__(self, keys: list[str], words: list[_Word]) -> None:
        self._keys, self._words = keys, words
        self._is_china = False

    def read(self) -> tuple[str, list[_Word], str]:
        """Return the code of the smallest division, the words that are left, and a reason."""
        code = ""
        self._drop_country()
        while True:
            found, count = self._division(code)
            if len(found) != 1:
                break
            code = found[0] if not code or level_of(found[0]) > level_of(code) else code
            self._drop(count)
        if "".join(self._keys) in _COUNTRY:
            self._words = []
        return code, self._words, "ADDRESS_AMBIGUOUS" if found and not code else ""

    def _drop_country(self) -> None:
        """Drop the country's name and a postcode at the edge."""
        while count := self._country():
            self._drop(count)

    def _country(self) -> int:
        """Return of how many words at the edge the country's name or a postcode is."""
        for count in range(min(_LONGEST, len(self._keys)), 0, -1):
            if all(self._edge(count)) and "".join(self._edge(count)) in _COUNTRY:
                self._is_china = True
                return count
        return 1 if self._keys and _POSTCODE.fullmatch(self._edge_words(1)[0].strip(".")) else 0

    def _division(self, code: str) -> tuple[list[str], int]:
        """Return the codes that the words at the edge may name below a division, and how many words these are."""
        for count in range(min(_LONGEST, len(self._keys)), 0, -1):
            keys = self._edge(count)
            for name, has_type in _without_type(keys) if all(keys) else ():
                if (found := _known(name, code)) and self._is_meant(name, count, has_type, code):
                    return found, count
        return [], 0

    def _is_meant(self, name: str, count: int, has_type: bool, code: str) -> bool:
        return len(name) > _SHORT or bool(code) or self._is_china or has_type

    def _edge(self, count: int) -> list[str]:
        return self._keys[-count:]

    def _edge_words(self, count: int) -> list[_Word]:
        return self._words[-count:]

    def _drop(self, count: int) -> None:
        self._keys, self._words = self._keys[:-count], self._words[:-count]


class _FromStart(_FromEnd):
    """Takes them off the beginning, where only a comma or a word like City tells a place from a road named after it."""

    def _is_meant(self, name: str, count: int, has_type: bool, code: str) -> bool:
        is_apart = has_type or self._words[count - 1].has_comma or len(self._words) == count
        return is_apart and super()._is_meant(name, count, has_type, code)

    def _edge(self, count: int) -> list[str]:
        return self._keys[:count]

    def _edge_words(self, count: int) -> list[_Word]:
        return self._words[:count]

    def _drop(self, count: int) -> None:
        self._keys, self._words = self._keys[count:], self._words[count:]


def _without_type(keys: list[str]) -> list[tuple[str, bool]]:
    """Return the name as written, and without a word for what it is, City or New Area, behind it."""
    found = [("".join(keys), False)]
    for count in (1, 2):
        if len(keys) > count and "".join(keys[-count:]) in _TYPES:
            found.append(("".join(keys[:-count]), True))
    return found


def _known(name: str, code: str) -> list[str]:
    """Return the divisions of a name below one, or that or one above it; without one, provinces before cities."""
    codes = _names().get(name, ())
    if not code:
        return next((found for level in (2, 4) if (found := [item for item in codes if level_of(item) == level])), [])
    prefix = code[:2] if code[:2] in MUNICIPALITIES else code[: level_of(code)]
    below = [item for item in codes if item.startswith(prefix)]
    deeper = [item for item in below if level_of(item) > level_of(code)]
    above = [item for item in codes if code.startswith(item[: level_of(item)])]
    return [item for item in deeper if level_of(item) == 4] or deeper or below[:1] or above[:1]


def _key(word: str) -> str:
    """Return a word in lower case without accents: Xi'an and Xīān are xian; nothing of what is more than letters."""
    plain = "".join(char for char in unicodedata.normalize("NFD", word) if not unicodedata.combining(char))
    letters = plain.lower().translate(_WITHIN)
    return letters if letters.isascii() and letters.isalpha() else ""


@lru_cache(maxsize=1)
def _names() -> dict[str, tuple[str, ...]]:
    """Return the codes of all divisions by their short names in letters; takes 0.3 s once per process."""
    from pypinyin import lazy_pinyin  # loaded at first use: see similarity.py

    found: dict[str, list[str]] = {}
    for code, division in division_table().by_code.items():
        short = division.names[-1]
        sounds = [_READINGS.get(char, sound) for char, sound in zip(short, lazy_pinyin(list(short)), strict=True)]
        phrase = "".join(lazy_pinyin(short))
        english = (name.replace(" ", "") for name in _ENGLISH.get(code, "").split(";") if name)
        for name in dict.fromkeys(("".join(sounds), phrase, *english)):
            for form in {name, name.replace("lv", "lu"), name.replace("lv", "lyu"), name.replace("nv", "nu")}:
                if (form, code) not in _NOT_THAT and code not in found.setdefault(form, []):
                    found[form].append(code)
    return {name: tuple(codes) for name, codes in found.items() if codes}
