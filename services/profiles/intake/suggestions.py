"""Suggest which field each column of a file feeds, by its header in Chinese or English and by what its cells hold."""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import date

from services.profiles.domain.addresses import parse_address
from services.profiles.domain.contacts import parse_emails, parse_gender
from services.profiles.domain.dates import parse_birth_date, parse_timestamp
from services.profiles.domain.documents import parse_resident_id
from services.profiles.domain.names import parse_name
from services.profiles.domain.phones import parse_phones
from services.profiles.domain.sources import SOURCE_RECORD_ID, UPDATED_TIME

WORDS = {
    SOURCE_RECORD_ID: "编号 会员编号 会员号 会员id 会员卡号 客户编号 客户号 客户id 用户编号 用户id 记录编号 "
    "主键 序号 id member_id member_no customer_id customer_no user_id record_id "
    "source_record_id open_id openid card_no",
    UPDATED_TIME: "更新时间 修改时间 更新日期 最后修改时间 最后更新 变更时间 更新 updated_at "
    "update_time updated_time modified_at last_modified modify_time",
    "name": "姓名 名字 客户姓名 会员姓名 客户名称 联系人 收货人 收件人 真实姓名 name full_name "
    "customer_name member_name real_name contact",
    "phone": "手机 手机号 手机号码 电话 电话号码 联系电话 联系方式 移动电话 固定电话 座机 "
    "收货人电话 phone mobile phone_number mobile_number mobile_phone tel telephone cell",
    "email": "邮箱 电子邮箱 电子邮件 邮件 邮箱地址 email e_mail mail email_address",
    "gender": "性别 称谓性别 gender sex",
    "birth_date": "生日 出生日期 出生年月 出生年月日 birth_date birthday date_of_birth dob birthdate",
    "resident_id": "身份证 身份证号 身份证号码 证件 证件号 证件号码 居民身份证 resident_id id_card "
    "id_card_no id_number identity_no",
    "province": "省 省份 所在省 省市 province state",
    "city": "市 城市 所在市 city",
    "district": "区 区县 县 县区 所在区 district county",
    "address": "地址 详细地址 联系地址 收货地址 家庭住址 住址 address street_address addr",
    "tier": "等级 会员等级 客户等级 级别 会员级别 tier level member_level grade",
}
BY_NAME, BY_PART, BY_CONTENT = 0.9, 0.6, 0.8
LEAST = 0.5
MOST_COLUMNS = 1000  # looked at: every cell of theirs is tried as each kind of value
PART_LENGTH = 2  # a word of one character within a header tells nothing
TOGETHER = frozenset(("phone", "email", "address"))  # several columns may feed them
_NOISE = re.compile(r"[\s_\-./:：()（）\[\]【】*#]+")


def _plain(text: str) -> str:
    return _NOISE.sub("", unicodedata.normalize("NFKC", text)).casefold()


_FIELD_OF = {_plain(word): field for field, words in WORDS.items() for word in words.split()}
_LONGEST_FIRST = sorted(_FIELD_OF, key=len, reverse=True)


@dataclass(frozen=True, slots=True)
class Suggestion:
    """A column, the field it seems to feed, how sure that is from 0 to 1, and by what: name, content or both."""

    column: str
    field: str
    score: float
    by: str


def suggest(columns: Sequence[str], rows: Sequence[Mapping[str, str]]) -> list[Suggestion]:
    """Return suggestions for the first MOST_COLUMNS, surest first; a field that one column feeds goes to the surest."""
    columns = columns[:MOST_COLUMNS]
    found = [item for column in columns for item in _candidates(column, [row.get(column, "") for row in rows])]
    found.sort(key=lambda item: (-item.score, columns.index(item.column)))
    chosen: dict[str, Suggestion] = {}
    fed: set[str] = set()
    for item in found:
        if item.column not in chosen and (item.field not in fed or item.field in TOGETHER):
            chosen[item.column] = item
            fed.add(item.field)
    return list(chosen.values())


def _candidates(column: str, cells: Sequence[str]) -> list[Suggestion]:
    named, certainty = _by_name(column)
    values = [cell for cell in cells if cell.strip()]
    held = _by_content(values)
    scores = {field: (share * BY_CONTENT, "content") for field, share in held.items()}
    if named:
        share = held.get(named)
        is_against = share is not None and values and share < LEAST
        if share is not None and share >= LEAST:
            scores[named] = (certainty + (1 - certainty) * share, "both")
        else:
            scores[named] = (certainty / 2 if is_against else certainty, "name")
    if scores.get(SOURCE_RECORD_ID) and len(set(values)) < len(cells):
        del scores[SOURCE_RECORD_ID]  # an id that is missing or comes twice is none
    return [Suggestion(column, field, score, by) for field, (score, by) in scores.items() if score >= LEAST]


def _by_name(column: str) -> tuple[str, float]:
    plain = _plain(column)
    if plain in _FIELD_OF:
        return _FIELD_OF[plain], BY_NAME
    part = next((word for word in _LONGEST_FIRST if len(word) >= PART_LENGTH and word in plain), "")
    return (_FIELD_OF[part], BY_PART) if part else ("", 0.0)


def _is_time(text: str) -> bool:
    return ":" in text and parse_timestamp(text, "ymd", 480, date.today().year) is not None


def _is_birth(text: str) -> bool:
    return ":" not in text and bool(parse_birth_date(text, "dmy", 2100)[0])


def _is_place(text: str) -> bool:
    found = parse_address(text)[0]
    return found is not None and bool(found.city_code) and bool(found.detail)


def _is_person(text: str) -> bool:
    found = parse_name(text)[0]
    return found is not None and found.is_complete and len(text) <= 30 and not any(map(str.isdigit, text))


_HOLDS: dict[str, Callable[[str], bool]] = {
    "resident_id": lambda text: bool(parse_resident_id(text)[0]),
    "phone": lambda text: bool(parse_phones(text)[0]),
    "email": lambda text: bool(parse_emails(text)[0]),
    UPDATED_TIME: _is_time,
    "birth_date": _is_birth,
    "gender": lambda text: not text.strip().isdigit() and bool(parse_gender(text)[0]),
    "address": _is_place,
    "name": _is_person,
}


def _by_content(values: Sequence[str]) -> dict[str, float]:
    """Return for each field that can be told by its values which share of them is of it."""
    if not values:
        return {}
    return {field: sum(map(holds, values)) / len(values) for field, holds in _HOLDS.items()}
