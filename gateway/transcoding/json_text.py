"""Parse JSON request bodies strictly: bounded depth, no member twice, no NaN, UTF-8 only."""

from __future__ import annotations

import json
import re
from collections.abc import Iterable

from gateway.transcoding.scalars import BadField
from gateway.transcoding.writing import Json

DEPTH_LIMIT = 32  # real requests nest below ten; the parser and protobuf recurse
# Possessive, so that an unterminated string is passed over once and the scan stays linear.
BRACKETS = re.compile(rb'"(?:[^"\\]|\\.)*+"?|[\[{]|[\]}]', re.DOTALL)


class BadJson(ValueError):
    """The body is not one JSON value; the message says where."""


class Twice(dict[str, "Json"]):
    """An object in which `member` came twice; found again by its place after parsing."""

    member = ""


def is_too_deep(body: bytes) -> bool:
    """Whether arrays and objects nest deeper than DEPTH_LIMIT; linear in the body's length."""
    if body.count(b"{") + body.count(b"[") <= DEPTH_LIMIT:
        return False
    depth = 0
    for found in BRACKETS.finditer(body):
        token = found[0]
        if token in b"[{":
            depth += 1
            if depth > DEPTH_LIMIT:
                return True
        elif token in b"]}":
            depth -= 1
    return False


def no_constant(name: str) -> Json:
    """Refuse NaN and Infinity, which are not JSON."""
    raise BadJson(f"{name} is not JSON; write numbers JSON has no form for as text")


def parse_json(body: bytes) -> Json:
    """Return the JSON value.

    Raises:
        BadJson: it is not JSON in UTF-8, or nests deeper than DEPTH_LIMIT.
        BadField: an object has a member twice; the pointer names it.
    """
    if is_too_deep(body):
        raise BadJson(f"the body nests deeper than {DEPTH_LIMIT} levels")
    twice: list[Twice] = []

    def members(pairs: list[tuple[str, Json]]) -> dict[str, Json]:
        held = dict(pairs)
        if len(held) == len(pairs):
            return held
        seen: set[str] = set()
        marked = Twice(held)
        marked.member = next(name for name, _ in pairs if name in seen or seen.add(name))  # type: ignore
        twice.append(marked)
        return marked

    try:
        value: Json = json.loads(body.decode("utf-8"), object_pairs_hook=members, parse_constant=no_constant)
    except json.JSONDecodeError as error:
        raise BadJson(f"not JSON at line {error.lineno}, column {error.colno}: {error.msg}") from None
    except UnicodeDecodeError:
        raise BadJson("the body is not UTF-8") from None
    except RecursionError:
        raise BadJson(f"the body nests deeper than {DEPTH_LIMIT} levels") from None
    except BadJson:
        raise
    except ValueError:  # int() refuses more than 4,300 digits
        raise BadJson("a number has too many digits") from None
    if twice:
        refuse_twice(value)
        raise BadField("has a member twice")
    return value


def children_of(value: Json) -> Iterable[tuple[str | int, Json]]:
    """Return the members of an object or the items of an array, with what names them in a pointer."""
    if isinstance(value, dict):
        return list(value.items())
    return enumerate(value) if isinstance(value, list) else ()


def refuse_twice(value: Json) -> None:
    """Raise BadField at the first object below `value` that had a member twice."""
    if isinstance(value, Twice):
        raise BadField("is given twice").below(value.member)
    for key, child in children_of(value):
        try:
            refuse_twice(child)
        except BadField as bad:
            raise bad.below(key) from None
