"""What schemathesis does differently here: checks of ours, a fresh token, and made-up page tokens left out.

Loaded by schemathesis itself (SCHEMATHESIS_HOOKS), not by pytest; KEHU_SCHEMA_STACK and KEHU_SCHEMA_SERVICE say for
whom.
"""

from __future__ import annotations

import json
import os
import re
from collections import defaultdict
from contextlib import suppress
from itertools import count
from pathlib import Path

import schemathesis
from kehu.client import KehuProblem
from schemathesis.core import NotSet
from schemathesis.core.parameters import ParameterLocation

from gateway.transcoding.json_text import DEPTH_LIMIT

# reasons that say: the request has another shape than the document allows
SHAPE = {"MALFORMED_JSON", "BAD_PATH", "BAD_QUERY", "BAD_HEADER", "INVALID_FIELD", "BODY_UNEXPECTED"}
ANYBODYS = {ParameterLocation.HEADER, ParameterLocation.COOKIE}  # clients and proxies add of these what they like
PATIENT = "20"
TOO_DEEP = f"the body nests deeper than {DEPTH_LIMIT} levels"
TOKEN_SECONDS = 200  # well within the five minutes of a second factor
NO_TOKEN = {"TOKEN_MISSING", "TOKEN_INVALID"}
NAME = r"[a-zA-Z]+/[\w.~-]+(?:/[a-zA-Z]+/[\w.~-]+)?"  # of a resource
RESOURCE = f'"({NAME})"'
NEWEST = 8
_KNOWN: dict[tuple[str, ...], dict[str, None]] = defaultdict(dict)  # by collections, such as profiles, overrides
_TURNS = count()


@schemathesis.hook
def before_call(ctx: object, case: schemathesis.Case, kwargs: dict[str, object]) -> None:
    """Take away made-up page tokens, and impatience: a deadline of 0.1 s rightly ends in 504.

    Of three requests that the document allows two are about things that there are: made-up ids end in 404.
    """
    if _is_positive(case) and os.environ["KEHU_SCHEMA_SERVICE"] != "access" and next(_TURNS) % 3:
        _name_real_things(case)
    if case.query:
        case.query.pop("page_token", None)
    if case.headers and _is_number(case.headers.get("X-Request-Timeout")):
        case.headers["X-Request-Timeout"] = PATIENT


@schemathesis.hook
def after_call(ctx: object, case: schemathesis.Case, response: schemathesis.Response) -> None:
    """Remember the resource names that replies tell."""
    if response.headers.get("content-type", [""])[0].startswith("application/json"):
        _remember(response.content.decode("utf-8", "replace"))


@schemathesis.serializer("application/x-ndjson")
def lines(ctx: object, value: object) -> bytes:
    """Write one line for each item."""
    items = value if isinstance(value, list) else [value]
    return b"".join(json.dumps(item).encode() + b"\n" for item in items)


@schemathesis.auth(refresh_interval=TOKEN_SECONDS, retry_on=[])
class FreshToken:
    """The token of the person or app that tests a service, signed in anew long before it ends."""

    def get(self, case: schemathesis.Case, context: object) -> str:
        """Return a new token: one that a command kept is put away."""
        from tests.flows.conftest import LiveStack
        from tests.flows.test_document import client_of

        folder, service = Path(os.environ["KEHU_SCHEMA_STACK"]), os.environ["KEHU_SCHEMA_SERVICE"]
        for kept in folder.glob("*-token.json"):
            kept.unlink()
        client = client_of(LiveStack(folder), service)
        for path, methods in case.operation.schema.raw_schema["paths"].items():
            if "{" not in path and service in methods.get("get", {}).get("tags", ()):
                with suppress(KehuProblem):
                    _remember(json.dumps(client.get(path)))
        return client.headers()["Authorization"]

    def set(self, case: schemathesis.Case, data: str, context: object) -> None:
        """Put the token where it belongs."""
        case.headers = {**(case.headers or {}), "Authorization": data}


@schemathesis.check
def the_token_is_taken(ctx: object, response: schemathesis.Response, case: schemathesis.Case) -> None:
    """What the document allows is not refused for want of a token: a run whose token has ended would prove nothing."""
    if _is_positive(case) and response.status_code == 401 and response.json().get("reason") in NO_TOKEN:
        raise AssertionError("the token of the run is not taken")


@schemathesis.check
def right_shapes_are_taken(ctx: object, response: schemathesis.Response, case: schemathesis.Case) -> None:
    """A request as the document wants it is refused for what it means, never for its shape."""
    replaces_all = (case.query or {}).get("update_mask") == "*"  # then what the body leaves out is judged as empty
    if _is_positive(case) and response.status_code == 400 and _is_about_shape(response) and not replaces_all:
        raise AssertionError("the document allows it, the gateway refuses its shape")


@schemathesis.check
def wrong_shapes_are_refused(ctx: object, response: schemathesis.Response, case: schemathesis.Case) -> None:
    """A request against the document is refused, but for what proto JSON and OAuth let pass."""
    if case.meta is None or _is_positive(case) or _is_let_pass(case):
        return
    wrong = {place for place, component in case.meta.components.items() if component.mode.is_negative}
    if wrong - ANYBODYS and response.status_code < 400:
        raise AssertionError(f"the document forbids it ({sorted(place.value for place in wrong)}), the gateway took it")


def _remember(told: str) -> None:
    for name in re.findall(RESOURCE, told):
        known = _KNOWN[tuple(name.split("/")[::2])]
        known[name] = known.pop(name, None)  # the newest last


def _name_real_things(case: schemathesis.Case) -> None:
    """Put names of things that there are in place of made-up ones, in the path and in the body."""
    collections = tuple(re.findall(r"/(\w+)/\{\w+\}", case.path))
    names = [name for place in range(len(collections), 0, -1) for name in _some(collections[:place])]
    if names and case.path_parameters:
        ids = names[0].split("/")[1::2]
        case.path_parameters.update(zip(re.findall(r"\{(\w+)\}", case.path), ids, strict=False))
    if isinstance(case.body, dict | list):
        case.body = _named(case.body)


def _some(collections: tuple[str, ...]) -> list[str]:
    """Return a name of such a thing, one of the newest, or none."""
    newest = list(_KNOWN[collections])[-NEWEST:]
    return [newest[next(_TURNS) % len(newest)]] if newest else []


def _named(body: object) -> object:
    if isinstance(body, dict):
        return {key: _named(value) for key, value in body.items()}
    if isinstance(body, list):
        return [_named(item) for item in body]
    if isinstance(body, str) and re.fullmatch(NAME, body):
        return (_some(tuple(body.split("/")[::2])) or [body])[0]
    return body


def _is_let_pass(case: schemathesis.Case) -> bool:
    """Tell of files, null for absent, numbers for enums and longs, what only replies carry (AIP-203), no body for {}.

    OAuth ignores parameters it does not know (RFC 6749 §3.2).
    """
    if case.media_type == "multipart/form-data":  # any bytes are a file
        return True
    numbers_in_query = any(str(value).isdigit() for value in (case.query or {}).values())
    if numbers_in_query or isinstance(case.body, NotSet) or case.operation.path.startswith("/oauth2/"):
        return True
    read_only, by_number = _names(case.operation.schema.raw_schema)
    return _holds(case.body, read_only, by_number)


def _names(document: dict) -> tuple[frozenset[str], frozenset[str]]:
    """Return the properties that only replies carry, and those whose value may be written as a number."""
    shapes = document["components"]["schemas"]
    enums = {f"#/components/schemas/{name}" for name, shape in shapes.items() if "enum" in shape}
    found = [pair for shape in shapes.values() for pair in shape.get("properties", {}).items()]
    read_only = {name for name, shape in found if shape.get("readOnly")}
    by_number = {name for name, shape in found if shape.get("format") == "int64" or shape.get("$ref") in enums}
    return frozenset(read_only), frozenset(by_number | {"expected_count"})


def _holds(body: object, read_only: frozenset[str], by_number: frozenset[str]) -> bool:
    if isinstance(body, list):
        return any(_holds(item, read_only, by_number) for item in body)
    if not isinstance(body, dict):
        return body is None
    return any(
        key in read_only or (key in by_number and isinstance(value, int)) or _holds(value, read_only, by_number)
        for key, value in body.items()
    )


def _is_positive(case: schemathesis.Case) -> bool:
    return case.meta is not None and case.meta.generation.mode.is_positive


def _is_about_shape(response: schemathesis.Response) -> bool:
    problem = response.json()
    if problem.get("detail") == TOO_DEEP:  # a limit like that of bytes: no document can say it
        return False
    if problem.get("reason") == "INVALID_REQUEST":
        return problem["detail"] == "the request has bad fields"  # else fields contradict each other
    return problem.get("reason") in SHAPE


def _is_number(text: object) -> bool:
    try:
        return float(str(text)) > 0
    except ValueError:
        return False
