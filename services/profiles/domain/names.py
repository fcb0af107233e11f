"""Names of persons: titles kept apart, compound surnames, names with ·, Latin names in both orders."""

import re

from services.profiles.domain.blocked import is_blocked_name, is_empty_word, is_no_name
from services.profiles.domain.pinyin import is_pinyin, is_pinyin_surname, is_syllable
from services.profiles.domain.romanized import is_romanized_surname
from services.profiles.domain.text import clean, is_han, simplify
from services.profiles.domain.values import PersonName

_COMPOUND_SURNAMES_WORDS = """
欧阳 太史 端木 上官 司马 东方 独孤 南宫 万俟 闻人 夏侯 诸葛 尉迟 公羊 赫连 澹台 皇甫 宗政 濮阳
公冶 太叔 申屠 公孙 慕容 仲孙 钟离 长孙 宇文 司徒 鲜于 司空 闾丘 子车 亓官 司寇 巫马 公西 颛孙
壤驷 公良 漆雕 乐正 宰父 谷梁 拓跋 夹谷 轩辕 令狐 段干 百里 呼延 东郭 南门 羊舌 微生 梁丘 左丘
东门 西门 第五 纳兰 完颜 叶赫 单于 淳于 耶律 尔朱 贺兰 乌孙 富察 那拉 鲜卑 钮祜禄 瓜尔佳 叶赫那拉 爱新觉罗
"""
COMPOUND_SURNAMES = frozenset(_COMPOUND_SURNAMES_WORDS.split())
_COMPOUND_STARTS = frozenset(surname[:2] for surname in COMPOUND_SURNAMES)
_SURNAME_LENGTHS = (4, 3, 2)  # of the compound ones, the longest first
_LABEL = re.compile("^(?:姓名|名字|联系人|收货人|收件人|客户|会员|尊敬的|亲爱的|敬爱的)[:：\\s]*(?=.{2})")
_TITLE = re.compile(
    "(先生|女士|小姐|太太|夫人|老师|同志|同学|总?经理|董事长?|主任|医生|大夫|护士|教授|律师|师傅|阿姨|叔叔|老板|老板娘|"
    "总监|总裁|副总|主管|店长|队长|书记|院长|[处局科部行厂所站]长|工程师|会计|秘书|博士|校长|[总工董局处哥姐嫂叔姨])$"
)
_PLAIN = re.compile(  # two or three characters that neither begin as a nickname nor may end in a title
    "(?![老小阿].$|.?某)[\u4e00-\u9fff]{1,2}(?![先生女士小姐太人老师同志学经理董事长主任医大夫护教授律傅阿姨叔板娘总监裁副管店队书记"
    "院处局科部行厂所站工程会计秘博校哥嫂某])[\u4e00-\u9fff]"
)
_PRIVATE = re.compile("(?<=[\u3400-\u9fff])[\ue000-\uf8ff]")  # of one system's own font: nobody else can tell which
_HAN = re.compile("[\u3007\u3400-\u4dbf\u4e00-\u9fff\U00020000-\U000323af]")  # as is_han says
_SEVERAL = re.compile(r"\s*[、/&;,|+]\s*")
_BETWEEN_CALLED = re.compile(r"\s*[、/&;,|+和与及]\s*|\s+")
_CALLED = re.compile(".{1,6}(?:先生|女士|小姐|太太|夫人)")
_NICKNAME = re.compile(r"^([老小阿])(\S)$")
_PARENTHESES = re.compile(r"[(\[【<「].*?[)\]】>」]|[(\[【<「].*$")
_LATIN_TITLE = re.compile(r"^(mr|mrs|ms|miss|dr|prof|sir|madam)\b\.?\s*", re.IGNORECASE)
_LATIN_TITLE_AFTER = re.compile(r"[\s,]+(mr|mrs|ms|miss|dr|prof|jr|sr|phd)\.?$", re.IGNORECASE)
_LATIN_TITLES = frozenset(("mr", "mrs", "ms", "miss", "dr", "prof", "sir", "madam", "jr", "sr", "phd"))
_DOTS = re.compile(r"\s*[·•・‧∙⋅．.]\s*")
# a character that somebody hid, or that no encoding of theirs had: 李*明, 李XX, 王某某, 龚?
_HIDDEN = re.compile(r"[*?×○●□■某\ufffd]|(?<![A-Za-z])[xX]+(?![A-Za-z])")
_PLAIN_LIMIT = 4
_NAME_LENGTH_LIMIT = 60


def parse_name(text: str) -> tuple[PersonName | None, str]:
    """Return (name, "") or (None, reason); both empty for empty text."""
    if len(text) < _PLAIN_LIMIT and _PLAIN.fullmatch(text):  # such a text is clean
        simple = simplify(text)
        if (simple is text or _PLAIN.fullmatch(simple)) and not is_no_name(simple):
            return split_han_name(simple), ""
        text = simple
    text = clean(_PRIVATE.sub("?", text))
    if is_empty_word(text):
        return None, "NAME_BLOCKED" if text else ""
    if is_blocked_name(text):
        return None, "NAME_BLOCKED"
    plain = _LABEL.sub("", _PARENTHESES.sub(" ", text).strip(" ,;:-_'\"")) or text
    if _names_several(plain):
        return None, "NAME_SEVERAL"
    name = _han_name(plain) if _HAN.search(plain) else _latin_name(plain)
    if name is None:
        return None, "NAME_UNREADABLE"
    return (None, "NAME_BLOCKED") if is_blocked_name(name.full) else (name, "")


def _names_several(text: str) -> bool:
    """Say whether each part is a whole Chinese name (张三、李四, not 欧阳,娜娜) or one with a title (李女士 王先生)."""
    called = _BETWEEN_CALLED.split(text)
    if len(called) > 1 and all(map(_CALLED.fullmatch, called)):
        return True
    if not _SEVERAL.search(text):
        return False
    parts = _SEVERAL.split(text)
    return all(1 < len(part) < 5 and all(map(is_han, part)) and part not in COMPOUND_SURNAMES for part in parts)


def _han_name(text: str) -> PersonName | None:
    """Read a name that has Chinese characters; one with hidden characters tells its surname at most."""
    dotted = _DOTS.sub("·", simplify(text)).strip("·")
    if "·" in dotted and sum(map(is_han, dotted)) >= 4:
        own, title = _without_titles(dotted)
        given, _, surname = own.partition("·")
        return None if _HIDDEN.search(own) else _checked(PersonName(surname, given, title, "dotted"))
    text, latin_title = _without_latin_titles(text)
    shown, *hidden = _HIDDEN.split(simplify(text))
    if hidden:
        surname = split_han_name("".join(filter(is_han, shown))).surname
        _, title = _without_titles("".join(filter(is_han, surname + hidden[-1])))
        return PersonName(surname, "", title or latin_title) if surname else None
    text, title = _without_titles("".join(filter(is_han, shown)))
    title = title or latin_title
    if match := _NICKNAME.match(text) if not title else None:
        return PersonName(match[2], "", match[1])
    return _checked(split_han_name(text, title))


def split_han_name(text: str, title: str = "") -> PersonName:
    """Split simplified characters into surname and given name; compound surnames have two to four characters."""
    length = 1
    if text[:2] in _COMPOUND_STARTS:
        length = next((size for size in _SURNAME_LENGTHS if text[:size] in COMPOUND_SURNAMES), 1)
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


def _without_latin_titles(text: str) -> tuple[str, str]:
    """Return the text without Mr before or PhD after it, and the first of them."""
    title = ""
    for pattern in (_LATIN_TITLE, _LATIN_TITLE_AFTER):
        while match := pattern.search(text):
            title = title or match[1].capitalize()
            text = pattern.sub("", text)
    return text, title


def _latin_name(text: str) -> PersonName | None:
    """Read a Latin name in either order: a comma, one word in capitals or a Chinese surname tells which."""
    text, title = _without_latin_titles(text)
    before, comma, after = text.partition(",")
    words = [word for word in _WORD.findall(f"{after} {before}") if word.casefold() not in _LATIN_TITLES]
    if not words:
        return None
    if len(words) == 1:
        return _checked(PersonName(_capitalized(words[0]), "", title, "latin"))
    surname_at = _surname_start(words, bool(comma and _WORD.search(before)))
    surname, given = words[surname_at], words[:surname_at] + words[surname_at + 1 :]
    is_surname = is_pinyin_surname(surname) or is_romanized_surname(surname)
    is_chinese = is_surname and all(map(is_pinyin, given))
    while not is_chinese and len(given) > 1 and given[-1].casefold() in _PARTICLES:
        surname = f"{given.pop()} {surname}"
    return _checked(PersonName(_capitalized(surname), _capitalized(" ".join(given)), title, "latin", is_chinese))


def _surname_start(words: list[str], has_comma: bool) -> int:
    """Return the position of the surname among the words of a Latin name, given name first after a comma.

    Where all words are Chinese, what is no Chinese surname is not taken for one while another word is: first a
    spelling that can be nothing else (Cheung Feng), then pinyin, then one that pinyin has, too (Chan Ying).
    """
    last = len(words) - 1
    loud = [at for at, word in enumerate(words) if _is_loud(word)]
    told = last if has_comma or len(loud) != 1 or loud[0] not in (0, last) else loud[0]
    is_told = has_comma or bool(loud)
    if all(is_pinyin(word) or is_romanized_surname(word) for word in words):
        order = (told, 0, min(1, last), last) if is_told else (0, last)
        for fits in (_is_only_surname, is_pinyin_surname, is_romanized_surname):
            if found := [at for at in order if fits(words[at])]:
                return found[0]
    return told


def _is_only_surname(word: str) -> bool:
    return is_romanized_surname(word) and not is_syllable(word)


def _is_loud(word: str) -> bool:
    """Say whether a word is written in capitals; an initial is not."""
    return word.isupper() and any(sum(map(str.isupper, part)) > 1 for part in _PART.findall(word))


def _capitalized(text: str) -> str:
    return " ".join(
        word.lower() if word.casefold() in _PARTICLES else _PART.sub(lambda part: part[0].capitalize(), word)
        for word in text.split(" ")
    )


_WORD = re.compile(r"[^\W\d_]+(?:['’-][^\W\d_]+)*")
_PART = re.compile(r"[^\W\d_]+")
_PARTICLES = frozenset(("van", "von", "der", "den", "de", "del", "della", "di", "da", "dos", "du", "la", "le", "bin",
                        "ibn", "ten", "ter", "zu"))  # fmt: skip


def _checked(name: PersonName) -> PersonName | None:
    return name if 0 < len(name.full) <= _NAME_LENGTH_LIMIT else None
