"""The whole gateway on a real socket, before a real guarded service."""

from __future__ import annotations

import hashlib
import re

import pytest
from kehu.access.v1 import error_reason_pb2 as access_reasons

from gateway.routes.tokens import OAUTH_ERRORS
from tests.gateway.conftest import JSON_TYPE


def problem(reply):
    assert reply.headers["content-type"] == "application/problem+json", reply.text
    document = reply.json()
    assert document["instance"] == reply.headers["x-request-id"]
    return reply.status_code, document["reason"]


def pointers(reply):
    return [error["pointer"] for error in reply.json()["errors"]]


def test_a_read_reaches_the_service_as_the_caller_for_its_purpose(world):
    reply = world.http.get("/v1/dishes/soup", headers={"X-Purpose": "service"})

    assert reply.json() == {"name": "dishes/soup", "title": "user:cook|service", "etag": "3"}
    assert reply.headers["etag"] == '"3"'


def test_an_additional_binding_is_a_route_of_its_own(world):
    assert world.http.get("/v1/kitchens/k/dishes/soup").json()["name"] == "kitchens/k/dishes/soup"


def test_every_reply_carries_the_safe_headers_and_a_request_id(world):
    for path in ("/v1/dishes/soup", "/v1/nothing", "/docs", "/openapi.json"):
        headers = world.http.get(path).headers
        assert headers["x-content-type-options"] == "nosniff"
        assert headers["cache-control"] == "no-store"
        assert "frame-ancestors 'none'" in headers["content-security-policy"]
    assert re.fullmatch("[0-9a-f]{32}", world.http.get("/v1/dishes/soup").headers["x-request-id"])


def test_a_good_request_id_of_the_client_is_kept_to_the_service(world):
    reply = world.http.get("/v1/dishes/soup", headers={"X-Request-Id": "order-12345"})

    assert reply.headers["x-request-id"] == world.kitchen.calls[-1].request_id == "order-12345"


def test_the_callers_address_is_what_the_gateway_sees_and_not_what_a_header_says(world):
    world.http.get("/v1/dishes/soup", headers={"X-Caller-Address": "10.20.0.1", "X-Forwarded-For": "10.20.0.1"})

    assert world.kitchen.calls[-1].caller.address == "127.0.0.1"


@pytest.mark.parametrize("given", ["short", "a" * 65, "has space in", "new\u00e9line"])
def test_a_bad_request_id_is_replaced(world, given):
    reply = world.http.get("/v1/dishes/soup", headers={"X-Request-Id": given.encode("latin-1")})

    assert re.fullmatch("[0-9a-f]{32}", reply.headers["x-request-id"])


# --- who may


@pytest.mark.parametrize("value", ["", "Bearer", "Basic dXNlcjp4", "Token x", "bearer nonsense"])
def test_without_a_good_token_nothing_is_answered(world, value):
    reply = world.http.get("/v1/dishes/soup", headers={"Authorization": value})

    assert problem(reply)[0] == 401
    assert reply.headers["www-authenticate"].startswith("Bearer")
    assert world.kitchen.calls == []


def test_the_policy_is_asked_at_the_edge_and_its_refusal_audited(world):
    world.policy.denied.add(("dishes", "read"))

    assert problem(world.http.get("/v1/dishes/soup")) == (403, "PERMISSION_DENIED")
    assert world.kitchen.calls == []
    assert [(entry[0], entry[3]) for entry in world.harness.trail.entries] == [("user:cook", "PERMISSION_DENIED")]


def test_authorization_comes_before_validation_and_existence(world):
    world.policy.denied.add(("dishes", "create"))

    reply = world.http.post("/v1/dishes", content=b"not json at all")
    assert problem(reply) == (403, "PERMISSION_DENIED")


def test_a_route_that_needs_a_purpose_says_so(world):
    assert problem(world.http.get("/v1/dishes")) == (403, "PURPOSE_REQUIRED")


@pytest.mark.parametrize("purpose", ["Marketing", "a b", "x" * 65, "", "é"])
def test_a_malformed_purpose_is_refused(world, purpose):
    reply = world.http.get("/v1/dishes", headers={"X-Purpose": purpose.encode()})

    assert problem(reply) == (400, "BAD_HEADER")


def test_forwarded_identity_headers_change_nothing(world):
    forged = {
        "X-User": "user:boss",
        "X-Forwarded-User": "user:boss",
        "X-Forwarded-For": "10.0.0.1",
        "X-Test-Peer": "search",
    }

    assert world.http.get("/v1/dishes/soup", headers=forged).json()["title"] == "user:cook|"


@pytest.mark.parametrize("path", ["/v1/dishes:scrub", "/v1/dishes:forgotten"])
def test_methods_for_services_and_methods_without_a_rule_have_no_route(world, path):
    assert world.http.post(path, json={"name": "x"}).status_code in (404, 405)


def test_public_routes_need_no_token_and_forward_none(world):
    reply = world.http.get("/menu/today", headers={"Authorization": ""})

    assert (reply.status_code, reply.text) == (200, "<h1>menu</h1>")
    assert reply.headers["content-type"] == "text/html; charset=utf-8"


def test_a_page_of_a_service_may_have_a_style_and_nothing_else(world):
    reply = world.http.get("/menu/today")

    (policy,) = reply.headers.get_list("content-security-policy")
    assert policy == "default-src 'none'; style-src 'unsafe-inline'; frame-ancestors 'none'"
    assert reply.headers["x-content-type-options"] == "nosniff"
    assert world.http.get("/v1/dishes/soup").headers.get_list("content-security-policy") == [
        "default-src 'none'; frame-ancestors 'none'"
    ]


# --- what is read


def test_query_parameters_are_typed_by_the_descriptor(world):
    query = (
        "page_size=20&tags=a&tags=b&heats=HEAT_HOT&heats=1&after=2026-01-31T08:00:00Z&range.low=-5&range.high=9"
        "&vegan=true&fields=name,create_time&raw=true&heat=HEAT_MILD&least=1.5&page_token=1"
    )

    asked = world.http.get(f"/v1/dishes?{query}", headers={"X-Purpose": "service"}).json()["asked"]
    assert asked == {
        "page_size": 20, "tags": ["a", "b"], "heats": ["HEAT_HOT", "HEAT_MILD"], "after": "2026-01-31T08:00:00Z",
        "range": {"low": "-5", "high": "9"}, "vegan": True, "fields": "name,create_time", "raw": True,
        "heat": "HEAT_MILD", "least": 1.5, "page_token": "1",
    }  # fmt: skip


@pytest.mark.parametrize(
    ("query", "pointer"),
    [
        ("colour=red", "/colour"), ("page_size=many", "/page_size"), ("page_size=1&page_size=2", "/page_size"),
        ("range=1", "/range"), ("range.low=x", "/range/low"), ("range.mid=1", "/range/mid"), ("dishes=x", "/dishes"),
        ("dishes.name=x", "/dishes/name"), ("raw=yes", "/raw"), ("heat=HEAT_BOILING", "/heat"), ("page_size=%ff", ""),
        ("page_size", ""), ("after=now", "/after"), ("&".join(["tags=a"] * 101), ""), ("heat=9", "/heat"),
    ],
)  # fmt: skip
def test_a_bad_parameter_is_refused_and_named(world, query, pointer):
    reply = world.http.get(f"/v1/dishes?{query}", headers={"X-Purpose": "service"})

    assert problem(reply) == (400, "INVALID_FIELD")
    assert pointers(reply) == [pointer]


def test_parameters_are_percent_decoded_once_and_plus_is_a_space(world):
    reply = world.http.post("/v1/dishes?dish_id=a%2Bb+c%2525", json={})

    assert reply.json()["dish_id"] == "a+b c%25"


def test_a_body_field_takes_the_body_and_the_rest_comes_from_the_query(world):
    reply = world.http.post("/v1/dishes?dish_id=soup", json={"title": "汤", "big": "9007199254740993"})

    assert reply.json() == {"dish": {"title": "汤", "big": "9007199254740993"}, "dish_id": "soup"}


def test_the_body_field_may_not_come_from_the_query(world):
    assert pointers(world.http.post("/v1/dishes?dish.title=x", json={})) == ["/dish/title"]


def test_the_whole_body_leaves_nothing_to_the_query(world):
    assert world.http.post("/v1/dishes/soup:serve", json={"table": 3}).json() == {"name": "dishes/soup", "table": 3}
    assert problem(world.http.post("/v1/dishes/soup:serve?table=3", json={})) == (400, "INVALID_FIELD")


def test_the_path_wins_and_a_body_that_differs_is_refused(world):
    assert pointers(world.http.patch("/v1/dishes/soup", json={"name": "dishes/cake"})) == ["/name"]
    assert world.http.patch("/v1/dishes/soup", json={"name": "dishes/soup"}).json() == {"dish": {"name": "dishes/soup"}}


def test_a_bad_field_of_the_body_is_named_by_pointer(world):
    reply = world.http.post("/v1/dishes", json={"sides": [{"small": "x"}]})

    assert (problem(reply), pointers(reply)) == ((400, "INVALID_FIELD"), ["/sides/0/small"])


@pytest.mark.parametrize(
    ("body", "headers", "expected"),
    [
        (b"{", JSON_TYPE, (400, "MALFORMED_JSON")),
        (b'{"title":"a","title":"b"}', JSON_TYPE, (400, "INVALID_FIELD")),
        (b'{"sides":' + b"[" * 50 + b"]" * 50 + b"}", JSON_TYPE, (400, "MALFORMED_JSON")),
        (b"title=x", {"Content-Type": "application/x-www-form-urlencoded"}, (415, "UNSUPPORTED_MEDIA_TYPE")),
        (b"{}", {"Content-Type": "text/plain"}, (415, "UNSUPPORTED_MEDIA_TYPE")),
        (b"{}", {}, (415, "UNSUPPORTED_MEDIA_TYPE")),
        (b"\x1f\x8b", {**JSON_TYPE, "Content-Encoding": "gzip"}, (415, "UNSUPPORTED_MEDIA_TYPE")),
        (b"{}", {**JSON_TYPE, "Content-Encoding": "zstd"}, (415, "UNSUPPORTED_MEDIA_TYPE")),
        (b'"' + b"a" * 1024 * 1024 + b'"', JSON_TYPE, (413, "BODY_TOO_LARGE")),
    ],
)
def test_a_bad_body_is_refused(world, body, headers, expected):
    assert problem(world.http.post("/v1/dishes", content=body, headers=headers)) == expected


def test_a_body_is_not_taken_where_none_belongs(world):
    reply = world.http.request("GET", "/v1/dishes/soup", content=b"{}", headers=JSON_TYPE)

    assert problem(reply) == (400, "BODY_UNEXPECTED")


def test_an_absent_body_is_an_empty_one(world):
    assert world.http.post("/v1/dishes/soup:serve").json() == {"name": "dishes/soup"}


@pytest.mark.parametrize(
    ("path", "status"), [("/v1/dishes//soup", 400), ("/v1/dishes/", 400), ("/v1/Dishes/soup", 404)]
)
def test_paths_have_one_form(world, path, status):
    assert world.http.get(path).status_code == status


def test_a_wrong_http_method_says_which_are_right(world):
    reply = world.http.delete("/v1/dishes/soup")

    assert problem(reply) == (405, "METHOD_NOT_ALLOWED")
    assert reply.headers["allow"] == "GET, PATCH"


# --- retries and versions


def test_an_idempotency_key_becomes_the_request_id(world):
    reply = world.http.post("/v1/dishes", json={}, headers={"Idempotency-Key": '"order-1"'})

    assert reply.json() == {"dish": {}, "request_id": "order-1"}


@pytest.mark.parametrize(
    ("path", "key"), [("/v1/dishes/soup:serve", "order-1"), ("/v1/dishes", "a b"), ("/v1/dishes?request_id=x", "y")]
)
def test_an_idempotency_key_that_cannot_be_kept_is_refused(world, path, key):
    reply = world.http.post(path, json={}, headers={"Idempotency-Key": key})

    assert problem(reply) == (400, "IDEMPOTENCY_KEY_REFUSED")


def test_if_match_goes_into_the_etag_and_a_mismatch_is_412(world):
    good = world.http.patch("/v1/dishes/soup", json={}, headers={"If-Match": '"3"'})
    stale = world.http.patch("/v1/dishes/soup", json={}, headers={"If-Match": '"2"'})

    assert good.json()["dish"]["etag"] == "3"
    assert problem(stale) == (412, "ETAG_MISMATCH")


@pytest.mark.parametrize("tag", ["3", 'W/"3"', '"3", "4"', '"'])
def test_a_malformed_if_match_is_refused(world, tag):
    assert problem(world.http.patch("/v1/dishes/soup", json={}, headers={"If-Match": tag})) == (400, "IF_MATCH_REFUSED")


def test_if_match_is_refused_where_nothing_has_a_version(world):
    reply = world.http.post("/v1/dishes/soup:serve", json={}, headers={"If-Match": '"3"'})

    assert problem(reply) == (400, "IF_MATCH_REFUSED")


# --- what fails behind


@pytest.mark.parametrize(
    ("dish", "expected"),
    [
        ("gone", (404, "DISH_GONE")),
        ("spicy", (400, "BAD_SPICE")),
        ("full", (429, "LIMIT_REACHED")),
        ("crash", (500, "INTERNAL")),
    ],
)
def test_a_services_refusal_keeps_its_reason(world, dish, expected):
    assert problem(world.http.get(f"/v1/dishes/{dish}")) == expected


def test_a_crash_shows_nothing_of_itself(world):
    assert "secret" not in world.http.get("/v1/dishes/crash").text


def test_a_services_bad_fields_become_pointers(world):
    assert pointers(world.http.get("/v1/dishes/spicy")) == ["/dish/tags/2"]


def test_the_deadline_is_the_clients(world):
    assert problem(world.http.get("/v1/dishes/slow", headers={"X-Request-Timeout": "0.2"})) == (
        504,
        "DEADLINE_EXCEEDED",
    )
    assert world.http.get("/v1/dishes/slow", headers={"X-Request-Timeout": "5"}).status_code == 200


@pytest.mark.parametrize("seconds", ["0", "-1", "soon", "61", "1e3", ""])
def test_a_deadline_out_of_bounds_is_refused(world, seconds):
    assert problem(world.http.get("/v1/dishes/soup", headers={"X-Request-Timeout": seconds})) == (400, "BAD_HEADER")


# --- forms, uploads, operations


ONE_CLICK = (
    b'--=_b\r\nContent-Disposition: form-data; name="List-Unsubscribe"\r\n\r\nOne-Click\r\n'
    b'--=_b\r\nContent-Disposition: form-data; name="token"\r\n\r\nanother\r\n--=_b--'
)


@pytest.mark.parametrize(
    ("content_type", "body"),
    [
        ("application/x-www-form-urlencoded", b"List-Unsubscribe=One-Click"),
        ('multipart/form-data; boundary="=_b"', ONE_CLICK),
        ('multipart/form-data; boundary="=_b"', ONE_CLICK + b"\r\n"),
    ],
)
def test_mail_programs_unsubscribe_by_one_click(world, content_type, body):
    """RFC 8058: the body is List-Unsubscribe=One-Click in either form, the link says everything."""
    headers = {"Authorization": "", "Content-Type": content_type}
    reply = world.http.post("/unsubscribe/t1", content=body, headers=headers)

    assert (reply.status_code, reply.json()) == (200, {})
    assert world.kitchen.calls[-1].token == "t1"


@pytest.mark.parametrize(
    ("kwargs", "expected"),
    [
        ({"files": {"List-Unsubscribe": ("a.txt", b"One-Click")}}, (400, "MALFORMED_FORM")),
        (
            {"content": ONE_CLICK[:-5], "headers": {"Content-Type": 'multipart/form-data; boundary="=_b"'}},
            (400, "MALFORMED_FORM"),
        ),
        ({"content": ONE_CLICK, "headers": {"Content-Type": "multipart/form-data"}}, (415, "UNSUPPORTED_MEDIA_TYPE")),
    ],
)
def test_a_form_with_a_file_or_without_an_end_is_refused(world, kwargs, expected):
    before = len(world.kitchen.calls)

    assert problem(world.http.post("/unsubscribe/t1", **kwargs)) == expected
    assert len(world.kitchen.calls) == before


def test_a_token_is_asked_for_by_form_or_basic(world):
    form = {"grant_type": "client_credentials", "client_id": "app", "client_secret": "right+secret", "extra": "ignored"}
    by_form = world.http.post("/oauth2/token", data=form, headers={"Authorization": ""})
    by_basic = world.http.post(
        "/oauth2/token", data={"grant_type": "client_credentials"}, auth=("app", "right%2Bsecret")
    )

    assert by_form.json() == by_basic.json()
    assert by_form.json()["expires_in"] == 900


@pytest.mark.parametrize("query", ["client_id=app&client_secret=right%2Bsecret", "extra=ignored", "%ff"])
def test_a_secret_in_the_url_gives_no_token(world, query):
    """RFC 6749 §2.3.1: URLs are logged on the way."""
    form = {"grant_type": "client_credentials"}
    reply = world.http.post(f"/oauth2/token?{query}", data=form, headers={"Authorization": ""})

    assert (reply.status_code, reply.json()["error"]) == (400, "invalid_request")
    assert "body" in reply.json()["error_description"]
    assert world.kitchen.calls == []


def test_oauth_errors_have_oauths_shape(world):
    wrong = world.http.post("/oauth2/token", data={"client_secret": "wrong"}, headers={"Authorization": ""})
    twice = world.http.post("/oauth2/token", data={"client_id": "a"}, auth=("a", "b"))
    broken = world.http.post("/oauth2/token", data={}, headers={"Authorization": "Basic ???"})

    assert (wrong.status_code, wrong.json()["error"]) == (401, "invalid_client")
    assert wrong.json()["reason"] == "CREDENTIALS_REFUSED"
    assert (twice.status_code, twice.json()["error"]) == (400, "invalid_request")
    assert (broken.status_code, broken.json()["error"]) == (401, "invalid_client")
    assert wrong.headers["www-authenticate"].startswith("Basic")


@pytest.mark.parametrize(
    ("grant_type", "expected"), [("password", "invalid_grant"), ("implicit", "unsupported_grant_type")]
)
def test_a_refused_grant_is_400_by_its_oauth_name(world, grant_type, expected):
    """RFC 6749 §5.2: 401 is for the client's own credentials only."""
    reply = world.http.post("/oauth2/token", data={"grant_type": grant_type}, headers={"Authorization": ""})

    assert (reply.status_code, reply.json()["error"]) == (400, expected)
    assert "www-authenticate" not in reply.headers


def test_the_reasons_with_an_oauth_name_are_those_of_access():
    assert {f"ERROR_REASON_{reason}" for reason in OAUTH_ERRORS} <= set(access_reasons.ErrorReason.keys())


def test_an_upload_is_streamed_with_its_fields(world):
    content = bytes(range(256)) * 8192
    reply = world.http.post(
        "/v1/kitchens/k:import",
        data={"language": "zh", "pages": "3"},
        files={"file": ("菜谱.csv", content, "text/csv")},
    )

    assert reply.json()["header"] == {"name": "kitchens/k", "file_name": "菜谱.csv", "language": "zh", "pages": 3}
    assert int(reply.json()["size_bytes"]) == len(content)
    assert reply.json()["sha256"] == hashlib.sha256(content).hexdigest()
    assert reply.json()["longest_chunk"] <= 512 * 1024


def test_an_empty_file_is_an_upload_too(world):
    reply = world.http.post("/v1/kitchens/k:import", files={"file": ("empty.csv", b"")})

    assert reply.json()["sha256"] == hashlib.sha256(b"").hexdigest()


@pytest.mark.parametrize(
    ("kwargs", "expected"),
    [
        ({"json": {}}, (415, "UNSUPPORTED_MEDIA_TYPE")),
        ({"files": {"language": (None, "zh")}}, (400, "MALFORMED_FORM")),
        ({"files": [("file", ("a", b"1")), ("file", ("b", b"2"))]}, (400, "MALFORMED_FORM")),
        ({"files": [("pages", (None, "many")), ("file", ("a", b"1"))]}, (400, "INVALID_FIELD")),
        ({"files": [("colour", (None, "red")), ("file", ("a", b"1"))]}, (400, "INVALID_FIELD")),
        ({"files": [("language", (None, "x" * 100_000)), ("file", ("a", b"1"))]}, (400, "MALFORMED_FORM")),
        ({"files": [("language", (None, "xx")), ("file", ("a", b"1" * 3_000_000))]}, (400, "BAD_SPICE")),
        (
            {"content": b"--b\r\nnonsense", "headers": {"Content-Type": "multipart/form-data; boundary=b"}},
            (400, "MALFORMED_FORM"),
        ),
        ({"content": b"", "headers": {"Content-Type": "multipart/form-data"}}, (415, "UNSUPPORTED_MEDIA_TYPE")),
    ],
)
def test_a_bad_upload_is_refused(world, kwargs, expected):
    assert problem(world.http.post("/v1/kitchens/k:import", **kwargs)) == expected


def test_an_operation_is_asked_of_the_service_in_its_name(world):
    assert problem(world.http.get("/v1/operations/kitchen-123")) == (404, "OPERATION_NOT_FOUND")
    for name in ("nobody-123", "operations-1", "operations"):
        assert problem(world.http.get(f"/v1/operations/{name}")) == (404, "UNKNOWN_OPERATION")
        assert problem(world.http.post(f"/v1/operations/{name}:cancel", json={})) == (404, "UNKNOWN_OPERATION")


# --- the gateway's own pages


def test_health_readiness_and_metrics(world):
    world.ready[0] = False
    assert world.http.get("/healthz").status_code == 200
    assert world.http.get("/readyz").status_code == 503
    world.ready[0] = True
    assert world.http.get("/readyz").status_code == 200
    assert 'route="GET /v1/{name=dishes/*}"' in world.http.get("/metrics").text


def test_fastapis_own_refusals_have_the_common_shape(world):
    assert world.http.post("/docs").headers["content-type"] == "application/problem+json"


def test_the_docs_and_the_reasons_are_pages_that_load_nothing(world):
    docs, reasons = world.http.get("/docs"), world.http.get("/docs/errors")

    assert "/v1/dishes/{dish_id}" in docs.text
    assert 'id="RATE_LIMITED"' in reasons.text
    for page in (docs, reasons):
        assert "src=" not in page.text
        assert "default-src 'none'" in page.headers["content-security-policy"]
