"""Whether the text of a custom field is of the format that the data dictionary asks for."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from datetime import date
from decimal import Decimal, InvalidOperation
from enum import StrEnum

from stdnum import luhn
from stdnum.cn import uscc

from services.profiles.domain.contacts import parse_emails

FORMAT_MISMATCH = "FORMAT_MISMATCH"


class Format(StrEnum):
    """Formats that a text may miss; a field of any text has none."""

    DATE = "date"
    NUMBER = "number"
    PHONE = "phone"
    EMAIL = "email"
    CODE = "code"
    BANK_CARD = "bank_card"
    COMPANY_CODE = "company_code"


_PHONE = re.compile(r"\+[1-9][0-9]{6,14}")  # ITU-T E.164: at most 15 digits with the country's
_CODE = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.:-]{0,63}")
_BANK_CARD = re.compile(r"[0-9]{4}(?:[ -]?[0-9]){8,15}")  # ISO/IEC 7812-1: 12 to 19 digits, typed in groups or not
_DATE = re.compile(r"[0-9]{4}-[0-9]{2}-[0-9]{2}")


def fits_format(text: str, kind: Format) -> bool:
    """Tell whether a whole text is of a format.

    A day YYYY-MM-DD, a finite number, a phone in E.164, one e-mail, one code of at most 64 signs, a bank card whose
    check digit is right (Luhn, ISO/IEC 7812-1), a company's code whose check digit is right (GB 32100-2015).
    """
    return _FITS[kind](text)


def _is_date(text: str) -> bool:
    if not _DATE.fullmatch(text):
        return False
    try:
        date.fromisoformat(text)
    except ValueError:
        return False
    return True


def _is_number(text: str) -> bool:
    try:
        return Decimal(text).is_finite()
    except InvalidOperation:
        return False


def _is_bank_card(text: str) -> bool:
    return _BANK_CARD.fullmatch(text) is not None and bool(luhn.is_valid(re.sub("[ -]", "", text)))


_FITS: Mapping[Format, Callable[[str], bool]] = {
    Format.DATE: _is_date,
    Format.NUMBER: _is_number,
    Format.PHONE: lambda text: _PHONE.fullmatch(text) is not None,
    Format.EMAIL: lambda text: parse_emails(text) == ((text.lower(),), ()),
    Format.CODE: lambda text: _CODE.fullmatch(text) is not None,
    Format.BANK_CARD: _is_bank_card,
    Format.COMPANY_CODE: lambda text: bool(uscc.is_valid(text)),
}
