"""Configuration, page tokens and logs."""

import base64
import json
import logging
from datetime import UTC, datetime

import pytest
from hypothesis import given
from hypothesis import strategies as st

from services.chassis.config import ConfigError, load_config
from services.chassis.errors import Invalid
from services.chassis.logs import JsonFormatter
from services.chassis.paging import (
    PageTokenInvalid,
    decode_token,
    encode_token,
    filter_hash,
    moment_of,
    number_of,
    page_size_of,
)

COMPLETE = {"KEHU_MONGO_URI": "mongodb://db", "KEHU_AMQP_URI": "amqp://broker"}


def test_all_faults_of_the_environment_are_told_at_once():
    with pytest.raises(ConfigError) as caught:
        load_config({"KEHU_GATEWAY_PORT": "none", "KEHU_ADDRESSES": "access", "KEHU_TOKEN_AUDIENCE": ""})

    for name in ("KEHU_MONGO_URI", "KEHU_AMQP_URI", "KEHU_GATEWAY_PORT", "KEHU_ADDRESSES", "KEHU_TOKEN_AUDIENCE"):
        assert name in str(caught.value)


def test_an_unnamed_service_answers_at_its_own_name():
    config = load_config({**COMPLETE, "KEHU_ADDRESSES": "access=127.0.0.1:9001"})

    assert ("127.0.0.1:9001", "consent:8443") == (config.addresses["access"], config.addresses["consent"])


def test_the_gateway_needs_no_store():
    assert "" == load_config({}, with_stores=False).mongo_uri


def test_connection_strings_are_not_in_the_repr():
    config = load_config({**COMPLETE, "KEHU_MONGO_URI": "mongodb://user:secret@db"})

    assert "secret" not in repr(config)


@given(st.dictionaries(st.text(max_size=10), st.one_of(st.text(max_size=20), st.integers(0, 2**40)), max_size=3))
def test_a_page_token_comes_back_as_it_went(position):
    of_filter = filter_hash("profiles", "department")

    assert position == decode_token(encode_token(position, of_filter), of_filter)


def written(raw: str) -> str:
    return base64.urlsafe_b64encode(raw.encode()).decode().rstrip("=")


UNFIT = ['{"f":"%s","p":{"a":[1]}}', '{"f":"%s","p":{"a":1.5}}', '{"f":"%s","p":[]}', '{"f":"%s","p":{"a":"\\ud800"}}']


@pytest.mark.parametrize("raw", [*UNFIT, "[" * 2000])
def test_a_page_token_that_somebody_wrote_is_refused(raw):
    of_filter = filter_hash("this")
    with pytest.raises(PageTokenInvalid):
        decode_token(written(raw.replace("%s", of_filter)), of_filter)


@pytest.mark.parametrize("value", ["x", "1", -1, 1 << 60])
def test_a_position_that_is_no_number_or_no_time_is_refused(value):
    with pytest.raises(PageTokenInvalid):
        number_of({"a": value}, "a")
    with pytest.raises(PageTokenInvalid):
        moment_of({"a": value}, "a")


def test_a_position_gives_its_numbers_and_times_back():
    noon = datetime(2025, 3, 15, 12, tzinfo=UTC)

    assert (number_of({"a": 7}, "a"), number_of({}, "a"), moment_of({"a": noon.isoformat()}, "a")) == (7, 0, noon)
    with pytest.raises(PageTokenInvalid):
        moment_of({}, "a")
    with pytest.raises(PageTokenInvalid):
        moment_of({"a": "2025-03-15T12:00:00"}, "a")


@pytest.mark.parametrize("token", ["x", "%%%", "e30", encode_token({"a": 1}, "other")])
def test_a_foreign_page_token_is_refused(token):
    with pytest.raises(PageTokenInvalid):
        decode_token(token, filter_hash("this"))


def test_page_sizes_are_coerced_and_negative_ones_refused():
    assert (50, 7, 1000) == (page_size_of(0), page_size_of(7), page_size_of(5000))
    with pytest.raises(Invalid):
        page_size_of(-1)


def test_one_event_is_one_line_whatever_is_in_it():
    record = logging.makeLogRecord({"msg": "a\r\nb\x1b[31m\u2028c", "levelname": "INFO", "note": "x\ny"})

    line = JsonFormatter("access").format(record)

    assert 1 == len(line.splitlines())
    assert "a\r\nb\x1b[31m\u2028c" == json.loads(line)["event"]


def test_an_exception_shows_its_place_and_not_its_text():
    try:
        raise ValueError("13800138000")
    except ValueError as error:
        record = logging.makeLogRecord({"msg": "failed", "exc_info": (ValueError, error, error.__traceback__)})

    line = JsonFormatter("access").format(record)

    assert "13800138000" not in line
    assert "ValueError" == json.loads(line)["error"]
