"""Messages and JSON: equal to protobuf's own mapping, and stricter where the gateway says so."""

from __future__ import annotations

import json
import math
from urllib.parse import parse_qsl

import pytest
from google.protobuf import any_pb2, json_format, struct_pb2, timestamp_pb2
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from gateway.transcoding.json_text import DEPTH_LIMIT, BadJson, parse_json
from gateway.transcoding.query import PARAMETERS_LIMIT, parse_pairs
from gateway.transcoding.reading import Readers
from gateway.transcoding.scalars import BadField
from gateway.transcoding.writing import Writers

SLOW = settings(max_examples=60, deadline=None, suppress_health_check=list(HealthCheck))
texts = st.text(st.characters(exclude_categories=["Cs"]), max_size=20)
int32 = st.integers(-(2**31), 2**31 - 1)
int64 = st.integers(-(2**63), 2**63 - 1)
json_leaves = st.none() | st.booleans() | texts | st.floats(allow_nan=False, allow_infinity=False)
json_values = st.recursive(
    json_leaves, lambda inner: st.lists(inner, max_size=3) | st.dictionaries(texts, inner, max_size=3), max_leaves=8
)


@st.composite
def stamps(draw):
    return timestamp_pb2.Timestamp(
        seconds=draw(st.integers(-62135596800, 253402300799)),
        nanos=draw(st.sampled_from([0, 5_000_000, 250_000, 1, 999_999_999])),
    )


@st.composite
def dishes(draw, Dish, depth=2):
    """Any message of the kitchen, with each field set or not."""
    dish = Dish()
    plain = {
        "title": texts, "small": int32, "big": int64, "small_natural": st.integers(0, 2**32 - 1),
        "big_natural": st.integers(0, 2**64 - 1), "signed_big": int64, "fixed_small": st.integers(0, 2**32 - 1),
        "ratio": st.floats(width=32), "exact": st.floats(), "spicy": st.booleans(), "photo": st.binary(max_size=20),
        "heat": st.sampled_from([0, 1, 2]), "portions": int32, "person": texts, "robot": int64,
    }  # fmt: skip
    for name in draw(st.sets(st.sampled_from(sorted(plain)))):
        setattr(dish, name, draw(plain[name]))
    dish.tags.extend(draw(st.lists(texts, max_size=3)))
    dish.votes.extend(draw(st.lists(int64, max_size=3)))
    dish.heats.extend(draw(st.lists(st.sampled_from([0, 1, 2]), max_size=3)))
    dish.notes.update(draw(st.dictionaries(texts, texts, max_size=3)))
    dish.flags.update(draw(st.dictionaries(st.booleans(), int32, max_size=2)))
    dish.times.extend(draw(st.lists(stamps(), max_size=2)))
    if draw(st.booleans()):
        fill_well_known(draw, dish)
    if depth:
        dish.sides.extend(draw(st.lists(dishes(Dish, depth - 1), max_size=1)))
        for key, course in draw(st.dictionaries(int64, dishes(Dish, depth - 1), max_size=1)).items():
            dish.courses[key].CopyFrom(course)
    return dish


def fill_well_known(draw, dish):
    dish.create_time.CopyFrom(draw(stamps()))
    seconds = draw(st.integers(-315576000000, 315576000000))
    dish.cooking.seconds = seconds
    dish.cooking.nanos = draw(st.sampled_from([0, 1, 500_000_000])) * (-1 if seconds < 0 else 1)
    json_format.ParseDict(draw(st.dictionaries(texts, json_values, max_size=3)), dish.extra)
    json_format.ParseDict(draw(json_values), dish.anything)
    json_format.ParseDict(draw(st.lists(json_values, max_size=3)), dish.list)
    dish.packed.Pack(draw(stamps()))
    dish.maybe_text.value = draw(texts)
    dish.maybe_big.value = draw(int64)
    dish.maybe.value = draw(st.booleans())
    dish.maybe_bytes.value = draw(st.binary(max_size=10))
    dish.maybe_exact.value = draw(st.floats())


@pytest.fixture(scope="module")
def dish_class(messages):
    return messages["Dish"]


@pytest.fixture(scope="module")
def write(dish_class):
    return Writers().of(dish_class.DESCRIPTOR)


@pytest.fixture(scope="module")
def read(dish_class):
    fill = Readers().of(dish_class.DESCRIPTOR)

    def read(value):
        dish = dish_class()
        fill(dish, value)
        return dish

    return read


def same(left, right):
    """Equality that takes -0.0 as different from 0.0 no more than JSON does."""
    return json.dumps(left, sort_keys=True) == json.dumps(right, sort_keys=True)


@SLOW
@given(data=st.data())
def test_written_as_protobuf_writes_it(dish_class, write, data):
    dish = data.draw(dishes(dish_class))

    assert same(write(dish), json_format.MessageToDict(dish, preserving_proto_field_name=True))


@SLOW
@given(data=st.data())
def test_what_was_written_reads_back_the_same(dish_class, write, read, data):
    dish = data.draw(dishes(dish_class))

    again = read(parse_json(json.dumps(write(dish)).encode()))
    assert same(write(again), write(dish))


@SLOW
@given(data=st.data())
def test_read_as_protobuf_reads_it(dish_class, read, write, data):
    value = json_format.MessageToDict(data.draw(dishes(dish_class)), preserving_proto_field_name=True)

    expected = json_format.ParseDict(value, dish_class())
    assert same(write(read(value)), write(expected))


def test_masks_are_written_in_the_protos_names_and_read_in_both_spellings(read, write):
    dish = read({"mask": "create_time,dish.etag,maybeText"})

    assert list(dish.mask.paths) == ["create_time", "dish.etag", "maybe_text"]
    assert write(dish)["mask"] == "create_time,dish.etag,maybe_text"


def test_integers_come_as_numbers_or_text(read):
    assert read({"big": 9007199254740993}).big == read({"big": "9007199254740993"}).big == 9007199254740993
    assert read({"small": 3.0}).small == 3


def test_enums_come_by_name_or_number(read):
    assert read({"heat": "HEAT_HOT"}).heat == read({"heat": 2}).heat == 2


def test_null_means_absent_but_is_a_value_where_any_value_is(read):
    dish = read({"title": None, "create_time": None, "anything": None})

    assert not dish.HasField("create_time")
    assert dish.anything.WhichOneof("kind") == "null_value"


def test_a_packed_message_of_our_own_has_its_fields_beside_its_type(read, write, dish_class):
    dish = read({"packed": {"@type": "type.googleapis.com/kehu.kitchen.v1.Dish", "title": "soup"}})
    inner = dish_class()

    assert dish.packed.Unpack(inner) and inner.title == "soup"
    assert write(dish)["packed"] == {"@type": "type.googleapis.com/kehu.kitchen.v1.Dish", "title": "soup"}


def test_a_packed_message_nobody_knows_keeps_only_its_name(write, dish_class):
    dish = dish_class(packed=any_pb2.Any(type_url="type.googleapis.com/acme.Secret", value=b"\x01"))

    assert write(dish)["packed"] == {"@type": "type.googleapis.com/acme.Secret"}


REFUSED = [
    ({"colour": "red"}, "/colour", "not a field"),
    ({"createTime": "2026-01-01T00:00:00Z"}, "/createTime", "not a field"),
    ({"sides": [{}, {"small": "x"}]}, "/sides/1/small", "integer"),
    ({"courses": {"7": {"spicy": "yes"}}}, "/courses/7/spicy", "true or false"),
    ({"courses": {"seven": {}}}, "/courses/seven", "integer"),
    ({"small": 2**31}, "/small", "between"),
    ({"small": True}, "/small", "integer"),
    ({"small": 1.5}, "/small", "integer"),
    ({"big": "1e3"}, "/big", "integer"),
    ({"big": " 1"}, "/big", "integer"),
    ({"big_natural": -1}, "/big_natural", "between"),
    ({"title": 7}, "/title", "string"),
    ({"title": "\ud800"}, "/title", "Unicode"),
    ({"photo": "not base64!"}, "/photo", "base64"),
    ({"photo": "é"}, "/photo", "base64"),
    ({"heat": "HEAT_BOILING"}, "/heat", "HEAT_MILD, HEAT_HOT"),
    ({"heat": 99}, "/heat", "one of"),
    ({"heat": True}, "/heat", "one of"),
    ({"ratio": 1e39}, "/ratio", "32-bit"),
    ({"exact": "big"}, "/exact", "number"),
    ({"exact": 10**400}, "/exact", "double"),
    (json.loads('{"exact": 1e999}'), "/exact", "double"),
    (json.loads('{"ratio": -1e999}'), "/ratio", "double"),
    (json.loads('{"extra": {"a": [1e999]}}'), "/extra/a/0", "double"),
    ({"tags": "one"}, "/tags", "array"),
    ({"tags": ["a", None]}, "/tags/1", "string"),
    ({"notes": []}, "/notes", "object"),
    ({"sides": {}}, "/sides", "array"),
    ({"leftover": 3}, "/leftover", "object"),
    ({"person": "Li", "robot": "1"}, "/robot", "together with person"),
    ({"create_time": "yesterday"}, "/create_time", "2026-01-31"),
    ({"create_time": 5}, "/create_time", "2026-01-31"),
    ({"cooking": "5 minutes"}, "/cooking", "1.5s"),
    ({"mask": "a b"}, "/mask", "field names"),
    ({"mask": 0}, "/mask", "a string"),
    ({"mask": {}}, "/mask", "a string"),
    ({"extra": [1]}, "/extra", "object"),
    ({"list": {}}, "/list", "array"),
    ({"packed": {"title": "x"}}, "/packed", "@type"),
    ({"packed": {"@type": "x/acme.Nothing"}}, "/packed/@type", "known"),
    ({"maybe_big": "x"}, "/maybe_big", "integer"),
    ({"a/b~c": 1}, "/a~1b~0c", "not a field"),
    ([], "", "object"),
]


@pytest.mark.parametrize(("value", "pointer", "says"), REFUSED)
def test_a_refusal_names_the_field(read, value, pointer, says):
    with pytest.raises(BadField) as caught:
        read(value)

    assert caught.value.pointer == pointer
    assert says in caught.value.detail


@pytest.mark.parametrize(
    "body",
    [b"", b"{", b"{} {}", b"{'a': 1}", b'{"a": NaN}', b'{"a": Infinity}', b"\xff", b"\xef\xbb\xbf{}", b'{"a":1,}']
    + [b"[" * 100_000, b'{"a":' * (DEPTH_LIMIT + 1) + b"1" + b"}" * (DEPTH_LIMIT + 1), b"1" * 5000],
)
def test_what_is_not_json_is_refused(body):
    with pytest.raises(BadJson):
        parse_json(body)


def test_depth_counts_no_brackets_inside_strings():
    assert parse_json(b'{"a": "' + b"[" * 1000 + b'\\"["}') == {"a": "[" * 1000 + '"['}


def test_the_deepest_body_allowed_is_read():
    value = parse_json(b"[" * DEPTH_LIMIT + b"]" * DEPTH_LIMIT)

    depth = 0
    while value:
        value, depth = value[0], depth + 1
    assert depth == DEPTH_LIMIT - 1


@pytest.mark.parametrize(
    ("body", "pointer"),
    [(b'{"a":1,"a":2}', "/a"), (b'{"x":[{"y":1},{"y":1,"z":2,"y":3}]}', "/x/1/y"), (b'{"a":1,"\\u0061":2}', "/a")],
)
def test_a_member_given_twice_is_named(body, pointer):
    with pytest.raises(BadField) as caught:
        parse_json(body)

    assert caught.value.pointer == pointer


def test_an_unterminated_string_is_scanned_once():
    """Quadratic scanning of a megabyte would take minutes."""
    with pytest.raises(BadJson):
        parse_json(b"[" * 40 + b'"' + b'\\"' * 500_000)


def test_numbers_without_json_form_are_written_as_text(write, dish_class):
    assert write(dish_class(exact=math.inf, ratio=-math.inf)) == {"exact": "Infinity", "ratio": "-Infinity"}


def test_an_unknown_enum_number_is_written_as_a_number(write, dish_class):
    assert write(dish_class(heat=77)) == {"heat": 77}


def test_nested_values_are_read(read):
    dish = read({"extra": {"a": [1, {"b": None}]}, "things": [None, 1]})

    assert dish.extra == json_format.ParseDict({"a": [1, {"b": None}]}, struct_pb2.Struct())
    assert [thing.WhichOneof("kind") for thing in dish.things] == ["null_value", "number_value"]


@given(st.text("ab1_.~:,-=&+%", max_size=24))
def test_a_query_is_cut_the_same_whether_or_not_anything_in_it_is_encoded(text):
    try:
        expected = parse_qsl(text, keep_blank_values=True, strict_parsing=True, errors="strict") if text else []
    except ValueError:
        with pytest.raises(BadField):
            parse_pairs(text.encode())
    else:
        assert parse_pairs(text.encode()) == expected


def test_a_query_has_as_many_parameters_as_may_be_and_no_more():
    most = "&".join(["a=1"] * PARAMETERS_LIMIT)

    assert len(parse_pairs(most.encode())) == PARAMETERS_LIMIT
    with pytest.raises(BadField):
        parse_pairs(f"{most}&a=1".encode())
