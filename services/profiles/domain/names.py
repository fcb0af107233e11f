"""Names of persons: titles kept apart, compound surnames, names with ·, Latin names."""

import re

from services.profiles.domain.blocked import is_blocked_name, is_empty_word
from services.profiles.domain.text import clean, is_han, simplify
from services.profiles.domain.values import PersonName

_COMPOUND_SURNAMES_WORDS = """
欧阳 太史 端木 上官 司马 东方 独孤 南宫 万俟 闻人 夏侯 诸葛 尉迟 公羊 赫连 澹台 皇甫 宗政 濮阳
公冶 太叔 申屠 公孙 慕容 仲孙 钟离 长孙 宇文 司徒 鲜于 司空 闾丘 子车 亓官 司寇 巫马 公西 颛孙
壤驷 公良 漆雕 乐正 宰父 谷梁 拓跋 夹谷 轩辕 令狐 段干 百里 呼延 东郭 南门 羊舌 微生 梁丘 左丘
东门 西门 第五 纳兰 完颜 叶赫 单于 淳于 耶律
"""
COMPOUND_SURNAMES = frozenset(_COMPOUND_SURNAMES_WORDS.split())
_TITLE = re.compile(
    "(先生|女士|小姐|太太|夫人|老师|同志|经理|总经理|董事长|主任|医生|大夫|教授|律师|师傅|阿姨|叔叔|老板|"
    "总监|博士|校长|[总工董局处])$"
)
_NICKNAME = re.compile(r"^([老小阿])(\S)$")
_PARENTHESES = re.compile(r"[(\[【<「].*?[)\]】>」]|[(\[【<「].*$")
_LATIN_TITLE = re.compile(r"^(mr|mrs|ms|miss|dr|prof|sir|madam)\b\.?\s*", re.IGNORECASE)
_LATIN_TITLE_AFTER = re.compile(r"[\s,]+(mr|mrs|ms|miss|dr|prof|jr|sr|phd)\.?$", re.IGNORECASE)
_DOTS = re.compile(r"\s*[·•・‧∙⋅．.]\s*")
_MASK = re.compile(r"[*?xX某]+$")
_NAME_LENGTH_LIMIT = 60


def parse_name(text: str) -> tuple[PersonName | None, str]:
    """Return (name, "") or (None, reason); both empty for empty text."""
    text = clean(text)
    if is_empty_word(text):
        return None, "NAME_BLOCKED" if text else ""
    if is_blocked_name(text):
        return None, "NAME_BLOCKED"
    plain = _PARENTHESES.sub(" ", text).strip(" ,;:-_'\"") or text
    name = _han_name(plain) if any(is_han(char) for char in plain) else _latin_name(plain)
    if name is None:
        return None, "NAME_UNREADABLE"
    return (None, "NAME_BLOCKED") if is_blocked_name(name.full) else (name, "")


def _han_name(text: str) -> PersonName | None:
    dotted = _DOTS.sub("·", simplify(text)).strip("·")
    if "·" in dotted and sum(is_han(char) for char in dotted) >= 4:
        given, _, surname = dotted.partition("·")
        return _checked(PersonName(surname, given, "", "dotted"))
    text = "".join(char for char in simplify(_LATIN_TITLE.sub("", text)) if is_han(char) or char in "*?xX")
    text = "".join(char for char in _MASK.sub("", text) if is_han(char))
    text, title = _without_titles(text)
    if match := _NICKNAME.match(text) if not title else None:
        return PersonName(match[2], "", match[1])
    return _checked(split_han_name(text, title))


def split_han_name(text: str, title: str = "") -> PersonName:
    """Split simplified characters into surname and given name; two characters form the compound surnames."""
    length = 2 if text[:2] in COMPOUND_SURNAMES else 1
    return PersonName(text[:length], text[length:], title)


def _without_titles(text: str) -> tuple[str, str]:
    """Return the text before all its titles, and the innermost of them."""
    title = ""
    while True:
        shorter, found = _without_title(text)
        if not found:
            return text, title
        text, title = shorter, found


def _without_title(text: str) -> tuple[str, str]:
    """Return the text before its title, and the title; a title alone or of a whole name stays a name."""
    match = _TITLE.search(text)
    if not match or not match.start():
        return text, ""
    if len(match[1]) == 1 and match.start() not in (1, 2, 3):
        return text, ""
    if len(match[1]) == 1 and match[1] != "总" and text[: match.start()] not in COMPOUND_SURNAMES:
        return (text[:1], match[1]) if match.start() == 1 else (text, "")
    return text[: match.start()], match[1]


def _latin_name(text: str) -> PersonName | None:
    title = ""
    for pattern in (_LATIN_TITLE, _LATIN_TITLE_AFTER):
        if match := pattern.search(text):
            title = title or match[1].capitalize()
            text = pattern.sub("", text)
    before, comma, after = text.partition(",")
    words = [word.capitalize() for word in re.findall(r"[^\W\d_]+(?:['’-][^\W\d_]+)*", f"{after} {before}")]
    if not words:
        return None
    if len(words) == 1:
        return _checked(PersonName(words[0], "", title, "latin"))
    return _checked(PersonName(words[-1], " ".join(words[:-1]), title, "latin"))


def _checked(name: PersonName) -> PersonName | None:
    return name if 0 < len(name.full) <= _NAME_LENGTH_LIMIT else None
