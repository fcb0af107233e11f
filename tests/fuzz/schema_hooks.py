"""What schemathesis does differently here: two checks of ours, and values that only the server can give left out.

Loaded by schemathesis itself (SCHEMATHESIS_HOOKS), not by pytest.
"""

from __future__ import annotations

from collections.abc import Mapping

import schemathesis
from schemathesis.core.parameters import ParameterLocation

# reasons that say: the request has another shape than the document allows
SHAPE = {"MALFORMED_JSON", "BAD_PATH", "BAD_QUERY", "BAD_HEADER", "INVALID_FIELD", "BODY_UNEXPECTED"}
ANYBODYS = {ParameterLocation.HEADER, ParameterLocation.COOKIE}  # clients and proxies add of these what they like
PATIENT = "20"


@schemathesis.hook
def before_call(ctx: object, case: schemathesis.Case, kwargs: dict[str, object]) -> None:
    """Take away made-up page tokens, and impatience: a deadline of 0.1 s rightly ends in 504."""
    if case.query:
        case.query.pop("page_token", None)
    if case.headers and _is_number(case.headers.get("X-Request-Timeout")):
        case.headers["X-Request-Timeout"] = PATIENT


@schemathesis.check
def right_shapes_are_taken(ctx: object, response: schemathesis.Response, case: schemathesis.Case) -> None:
    """A request as the document wants it is refused for what it means, never for its shape."""
    if _is_positive(case) and response.status_code == 400 and _is_about_shape(response):
        raise AssertionError("the document allows it, the gateway refuses its shape")


@schemathesis.check
def wrong_shapes_are_refused(ctx: object, response: schemathesis.Response, case: schemathesis.Case) -> None:
    """A request against the document is refused; null for absent and a number for an enum are proto JSON's own."""
    if case.meta is None or _is_positive(case) or _has_null(case.body) or _has_number(case.query):
        return
    wrong = {place for place, component in case.meta.components.items() if component.mode.is_negative}
    if wrong - ANYBODYS and response.status_code < 400:
        raise AssertionError(f"the document forbids it ({sorted(place.value for place in wrong)}), the gateway took it")


def _is_positive(case: schemathesis.Case) -> bool:
    return case.meta is not None and case.meta.generation.mode.is_positive


def _is_about_shape(response: schemathesis.Response) -> bool:
    problem = response.json()
    if problem.get("reason") == "INVALID_REQUEST":
        return problem["detail"] == "the request has bad fields"  # else fields contradict each other
    return problem.get("reason") in SHAPE


def _has_null(body: object) -> bool:
    if isinstance(body, dict):
        return any(_has_null(value) for value in body.values())
    return body is None or (isinstance(body, list) and any(_has_null(value) for value in body))


def _has_number(query: Mapping[str, object] | None) -> bool:
    return any(str(value).isdigit() for value in (query or {}).values())


def _is_number(text: object) -> bool:
    try:
        return float(str(text)) > 0
    except ValueError:
        return False
