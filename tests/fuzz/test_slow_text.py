"""No text that a customer, a file or a caller brings makes a reader slow (ReDoS; reliability row 55)."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from datetime import date

import pytest

from services.chassis import obligations
from services.profiles.domain.addresses import parse_address
from services.profiles.domain.cells import alive, dead, without_controls
from services.profiles.domain.contacts import parse_emails, parse_gender
from services.profiles.domain.dates import parse_birth_date, parse_date, parse_timestamp
from services.profiles.domain.documents import parse_resident_id
from services.profiles.domain.english_addresses import read_english
from services.profiles.domain.names import parse_name
from services.profiles.domain.papers import parse_document
from services.profiles.domain.phones import parse_phones
from services.profiles.domain.places import read_place
from services.search.domain.terms import name_terms, phone_terms

LONGEST, SECONDS = 4000, 0.1
TODAY = date(2026, 11, 22)
PIECES = ("a", "1", " ", "\t", "省", "市", "区", "路1号", "-", ".", "@", "a@", "a.b@", "+", "+86", "(", "((", "0",
          "138 ", "，", "·", "张", "1990-", "//", "\u3000", "１", "x-y.", "No.", "栋2单元", "é")  # fmt: skip
ENDS = ("", "!", "\n", "@")
TEXTS = [(piece * LONGEST)[:LONGEST] + end for piece in PIECES for end in ENDS]
READERS: dict[str, Callable[[str], object]] = {
    "address": parse_address, "english address": read_english, "place": read_place, "name": parse_name,
    "phones": parse_phones, "emails": parse_emails, "gender": parse_gender, "resident id": parse_resident_id,
    "document": parse_document, "date": lambda text: parse_date(text, "ymd", 2026),
    "birth date": lambda text: parse_birth_date(text, "dmy", 2026),
    "timestamp": lambda text: parse_timestamp(text, "ymd", 480, 2026),
    "cells": lambda text: (dead(text), alive(text), without_controls(text)),
    "names in the index": lambda text: list(name_terms(text)),
    "phones in the index": lambda text: list(phone_terms(text)),
    **{f"mask {number}": lambda text, mask=mask: mask(text, TODAY) for number, mask in obligations.MASKS.items()},
}  # fmt: skip


def slow(read: Callable[[str], object]) -> Iterator[tuple[str, float]]:
    for text in TEXTS:
        taken = cpu(read, text)
        if taken > SECONDS:  # a collection of garbage may have fallen into it
            taken = min(taken, *(cpu(read, text) for _ in range(4)))
        if taken > SECONDS:
            yield text[:8] + text[-2:], round(taken, 2)


def cpu(read: Callable[[str], object], text: str) -> float:
    began = time.thread_time()
    read(text)
    return time.thread_time() - began


@pytest.mark.parametrize("name", READERS)
def test_no_text_takes_a_reader_longer_than_a_tenth_of_a_second(name: str) -> None:
    for text in ("a", "浙江省杭州市西湖区文三路1号", "b" * 100, "1 Wensan Road, Xihu District, Hangzhou"):
        READERS[name](text)  # tables are loaded once

    assert len(TEXTS) >= 100 and list(slow(READERS[name])) == []
