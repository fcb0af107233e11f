"""What schemathesis does differently here: checks of ours, a fresh token, and made-up page tokens left out.

Loaded by schemathesis itself (SCHEMATHESIS_HOOKS), not by pytest; KEHU_SCHEMA_STACK and KEHU_SCHEMA_SERVICE say for
whom.
"""

from __future__ import annotations

import os
from pathlib import Path

import schemathesis
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


@schemathesis.hook
def before_call(ctx: object, case: schemathesis.Case, kwargs: dict[str, object]) -> None:
    """Take away made-up page tokens, and impatience: a deadline of 0.1 s rightly ends in 504."""
    if case.query:
        case.query.pop("page_token", None)
    if case.headers and _is_number(case.headers.get("X-Request-Timeout")):
        case.headers["X-Request-Timeout"] = PATIENT


@schemathesis.auth(refresh_interval=TOKEN_SECONDS, retry_on=[])
class FreshToken:
    """The token of the person or app that tests a service, signed in anew long before it ends."""

    def get(self, case: schemathesis.Case, context: object) -> str:
        """Return a new token: one that a command kept is put away."""
        from tests.flows.conftest import LiveStack
        from tests.flows.test_document import client_of

        folder = Path(os.environ["KEHU_SCHEMA_STACK"])
        for kept in folder.glob("*-token.json"):
            kept.unlink()
        return client_of(LiveStack(folder), os.environ["KEHU_SCHEMA_SERVICE"]).headers()["Authorization"]

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


def _is_let_pass(case: schemathesis.Case) -> bool:
    """Tell of null for absent, a number for an enum or a long, what only replies carry (AIP-203), no body for {}.

    OAuth ignores parameters it does not know (RFC 6749 §3.2).
    """
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
