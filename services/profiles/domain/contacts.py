"""E-mail addresses and genders in their standard forms."""

import re

from services.profiles.domain.blocked import is_blocked_email, is_empty_word
from services.profiles.domain.text import clean

EMAILS_LIMIT = 10  # in one cell
_LOCAL_LIMIT = 64  # octets before the @
_SEPARATORS = re.compile(r"[\s,;、|<>()\[\]\"']+")
_EMAIL = re.compile(  # RFC 5321 dot-string, 64 octets before the @ and 253 after it; a * hides whose it is: z***@qq.com
    r"(?=.{3,254}$)[a-z0-9!#$%&'+/=?^_`{|}~-]+(?:\.[a-z0-9!#$%&'+/=?^_`{|}~-]+)*"
    r"@(?:[a-z0-9](?:[a-z0-9-]{0,61}[a-z0-9])?\.)+[a-z]{2,63}"
)
_MALE_WORDS = """
男 男性 男士 先生 m male man mr 1 男生
"""
_MALE = frozenset(_MALE_WORDS.split())
_FEMALE_WORDS = """
女 女性 女士 小姐 太太 夫人 f female woman mrs ms miss 2 女生 阿姨
"""
_FEMALE = frozenset(_FEMALE_WORDS.split())
_NO_GENDER_WORDS = """
0 9 u x unknown other 未知 未说明 其他 其它 保密
"""
_NO_GENDER = frozenset(_NO_GENDER_WORDS.split())  # GB/T 2261.1 0 and 9


def parse_emails(text: str) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """Return the addresses of a cell in lower case, and the reasons of what could not be taken.

    The part before the @ is lowered too: no provider in use tells its cases apart (RFC 5321, 2.4 allows it).
    """
    if not text:
        return (), ()
    text = clean(text).lower()
    if _EMAIL.fullmatch(text) and text.find("@") <= _LOCAL_LIMIT and not is_blocked_email(text):
        return (text,), ()
    if is_empty_word(text):
        return (), ("EMAIL_BLOCKED",) if text else ()
    found: dict[str, None] = {}
    reasons: dict[str, None] = {}
    for word in _SEPARATORS.split(text)[: EMAILS_LIMIT * 2]:
        address = word.removeprefix("mailto:").strip(".:")
        if "@" not in address:
            continue
        if not _EMAIL.fullmatch(address) or address.find("@") > _LOCAL_LIMIT:
            reasons["EMAIL_UNREADABLE"] = None
        elif is_blocked_email(address):
            reasons["EMAIL_BLOCKED"] = None
        else:
            found[address] = None
    if not found and not reasons:
        reasons["EMAIL_UNREADABLE"] = None
    return tuple(found)[:EMAILS_LIMIT], tuple(reasons)


def parse_gender(text: str) -> tuple[str, str]:
    """Return ("male" | "female" | "", reason); "unknown" in any form is no gender and no problem."""
    if not text:
        return "", ""
    text = clean(text).casefold().rstrip(".")
    if text in _MALE:
        return "male", ""
    if text in _FEMALE:
        return "female", ""
    return "", "" if text in _NO_GENDER or is_empty_word(text) else "GENDER_UNREADABLE"


def gender_of_title(title: str) -> str:
    """Return the gender a title implies: 先生 male, 女士 female, 老师 neither."""
    return parse_gender(title)[0] if title.casefold() not in ("1", "2") else ""
