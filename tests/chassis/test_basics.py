"""Configuration, page tokens and logs."""

import json
import logging

import pytest
from hypothesis import given
from hypothesis import strategies as st

from services.chassis.config import ConfigError, load_config
from services.chassis.errors import Invalid
from services.chassis.logs import JsonFormatter
from services.chassis.paging import PageTokenInvalid, decode_token, encode_token, filter_hash, page_size_of

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
