"""Whatever a value holds, one event is one line of JSON, and nothing of it reaches a terminal as a command."""

from __future__ import annotations

import io
import json
import logging

import pytest

from services.chassis.logs import JsonFormatter
from tests.fuzz.payloads import PAYLOADS

BREAKS = (
    "a\r\nb",
    '{"level": "info"}\n',
    "\x1b[2J\x1b[31m",
    "\u2028",
    "\u2029",
    "\x85",
    "\x0b\x0c",
    "\x00",
    "\udcff",
    '","x":"',
)


@pytest.fixture
def lines() -> tuple[logging.Logger, io.BytesIO]:
    raw = io.BytesIO()
    handler = logging.StreamHandler(io.TextIOWrapper(raw, encoding="ascii", write_through=True))
    handler.setFormatter(JsonFormatter("test"))
    logger = logging.Logger("of this test")
    logger.addHandler(handler)
    return logger, raw


@pytest.mark.parametrize("place", ["event", "field", "key", "error", "service"])
def test_one_event_is_one_line_of_json_whatever_it_holds(lines: tuple[logging.Logger, io.BytesIO], place: str) -> None:
    logger, raw = lines
    texts = (*BREAKS, *PAYLOADS)
    for text in texts:
        if place == "service":
            logger.handlers[0].setFormatter(JsonFormatter(text))
        try:
            raise ValueError(text)
        except ValueError:
            logger.error(
                "%s", text if place == "event" else "e", exc_info=place == "error",
                extra={"given": text} if place == "field" else {f"x{text}": 1} if place == "key" else {},
            )  # fmt: skip
    written = raw.getvalue()

    assert written.count(b"\n") == len(texts)
    assert all(byte == 10 or 32 <= byte < 127 for byte in written)
    events = [json.loads(line) for line in written.splitlines()]
    if place == "event":
        assert [event["event"] for event in events] == list(texts)
    if place == "error":
        assert all(event["error"] == "ValueError" for event in events)
        assert b"DROP TABLE" not in written  # the text of an exception may hold a value
