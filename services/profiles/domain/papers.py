"""Identity documents beside the resident ID, told apart by their form: passports, permits, company codes."""

import re

from stdnum import luhn
from stdnum.cn import uscc

from services.profiles.domain.documents import birth_date_of, check_digit
from services.profiles.domain.text import clean
from services.profiles.domain.values import Document

_NOISE = re.compile(r"[\s\-.'\"():：]+")
_LABEL = re.compile(
    "^(?P<passport>护照|passport)|(?P<hk_macao_permit>回乡证|港澳居民来往内地通行证)|(?P<taiwan_permit>台胞证|"
    "台湾居民来往大陆通行证)|(?P<exit_permit>往来港澳通行证|港澳通行证|往来台湾通行证|大陆居民往来台湾通行证)|"
    "(?P<credit_code>统一社会信用代码|营业执照)|(?P<foreigner_card>外国人永久居留(?:身份)?证|永居证)",
    re.IGNORECASE,
)
_WORDS = re.compile("^(?:号码?|no|number)+", re.IGNORECASE)
_FORMS = {
    "passport": re.compile(r"[EG]\d{8}|E[A-HJ-NP-Z]\d{7}|[DSP]E?\d{7,8}"),
    "hk_macao_permit": re.compile(r"[HM]\d{8}(?:\d\d)?"),
    "exit_permit": re.compile(r"[CWTL]\d{8}|C[A-HJ-NP-Z]\d{7}"),
    "foreigner_card": re.compile(r"[A-Z]{3}\d{12}|9\d{16}[\dX]"),
    "credit_code": re.compile(r"[0-9A-HJ-NPQRTUWXY]{18}"),
}
_LABELLED = {  # forms that say nothing without a word before them
    "passport": re.compile(r"[A-Z0-9]{6,12}"),
    "taiwan_permit": re.compile(r"\d{8}|\d{10}[A-Z]?"),
}
_BANK_CARD = re.compile(r"[2-6]\d{15}|6[02]\d{14}(?:\d|\d{3})")


def parse_document(text: str) -> tuple[Document | None, str]:
    """Return (document, "") or (None, reason) for a number that is no resident ID.

    A bank card is refused: it pays, it does not identify. An unknown form is RESIDENT_ID_UNREADABLE.
    """
    bare = _NOISE.sub("", clean(text))
    label = _LABEL.match(bare)
    number = _WORDS.sub("", bare[label.end() :] if label else bare).upper()
    if _BANK_CARD.fullmatch(number) and luhn.is_valid(number):
        return None, "DOCUMENT_BANK_CARD"
    kinds = [label.lastgroup or ""] if label else list(_FORMS)
    for kind in kinds:
        forms = (_FORMS.get(kind), _LABELLED.get(kind) if label else None)
        if any(form and form.fullmatch(number) for form in forms):
            if _is_right(kind, number):
                return Document(kind, number), ""
            if label:
                return None, "DOCUMENT_CHECK_DIGIT"
    return None, "RESIDENT_ID_UNREADABLE"


def _is_right(kind: str, number: str) -> bool:
    """Say whether a number's check digit is right, where its kind has one (GB 32100-2015, GB 11643-1999)."""
    if kind == "credit_code":
        return bool(uscc.is_valid(number))
    if kind == "foreigner_card" and len(number) == 18:
        return check_digit(number[:17]) == number[17] and bool(birth_date_of(number))
    return True
