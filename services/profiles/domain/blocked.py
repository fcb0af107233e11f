"""Values that mean nothing though they look like something: placeholders typed to get past a form."""

import re

_EMPTY_WORDS_TEXT = """
null none nil nan n/a na undefined unknown anonymous test - -- --- . .. 无 没有 暂无 未知 不详
不明 未填写 未提供 保密 空 测试 匿名 无名 #n/a #value! #ref! (null) <null>
"""
_EMPTY_WORDS = frozenset(_EMPTY_WORDS_TEXT.split())
_LONGEST_EMPTY = max(map(len, _EMPTY_WORDS))
_NAMES_WORDS = """
顾客 客户 会员 散客 用户 游客 先生 女士 小姐 太太 测试用户 测试账号 新用户 匿名用户 贵宾 路人甲
customer user guest member admin administrator demo
"""
_NAMES = frozenset(_NAMES_WORDS.split())
_NO_NAMES = _NAMES | _EMPTY_WORDS
_PHONES = frozenset(("13800138000", "13800000000", "13900000000", "13000000000", "12345678901", "13712345678"))
_EMAILS_WORDS = """
test@test.com a@a.com noemail@noemail.com none@none.com abc@abc.com test@example.com 123@123.com
noreply@example.com
"""
_EMAILS = frozenset(_EMAILS_WORDS.split())
_EMAIL_LOCALS_WORDS = """
null none noemail no-email noreply no-reply test undefined anonymous
"""
_EMAIL_LOCALS = frozenset(_EMAIL_LOCALS_WORDS.split())
_ONLY_ZEROS = re.compile(r"[0\-\s.]*")
_RUN_UP = re.compile(r"1[3-9]\d12345678")
_SAME_DIGIT_SHARE = 9  # of a mobile's eleven digits


def is_empty_word(text: str) -> bool:
    """Say whether a cleaned cell only says that there is nothing: null, 无, 0000, --, -1."""
    if len(text) <= _LONGEST_EMPTY and (not text or text == "-1" or text.casefold() in _EMPTY_WORDS):
        return True
    return text[0] in "0- .\t" and _ONLY_ZEROS.fullmatch(text) is not None


def is_blocked_name(text: str) -> bool:
    """Say whether a cleaned name is a placeholder."""
    return text.casefold() in _NAMES


def is_no_name(text: str) -> bool:
    """Say of a few Chinese characters what is_empty_word and is_blocked_name say together."""
    return text in _NO_NAMES


def is_blocked_phone(digits: str) -> bool:
    """Say whether national digits are a placeholder such as 13800138000 or 11111111111."""
    if digits in _PHONES or _RUN_UP.fullmatch(digits):
        return True
    distinct, same = set(digits), min(_SAME_DIGIT_SHARE, len(digits))
    if len(digits) < 7 or len(distinct) > len(digits) - same + 1:  # one digit so often leaves no room for the others
        return False
    return max(map(digits.count, distinct)) >= same


def is_blocked_email(address: str) -> bool:
    """Say whether a canonical e-mail address is a placeholder."""
    return address in _EMAILS or address.partition("@")[0] in _EMAIL_LOCALS


def is_blocked_resident_id(number: str) -> bool:
    """Say whether 15 or 18 characters are a placeholder: one digit throughout, or a run up."""
    return len(set(number[:15])) <= 2 or number.startswith("123456789")
