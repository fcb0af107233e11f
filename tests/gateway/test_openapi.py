"""The OpenAPI document is valid, complete, and says what the protos say."""

from __future__ import annotations

import re

import pytest
from kehu.options.v1 import options_pb2
from openapi_spec_validator import OpenAPIV31SpecValidator

from gateway.main import build_router, routed_methods
from gateway.openapi import build_document
from gateway.openapi.comments import descriptor_set_path, load_comments
from gateway.openapi.errors import error_lines, errors_markdown
from gateway.routes.bulk import BULK_TEMPLATE
from gateway.routes.views import VIEW_TEMPLATE
from gateway.transcoding.catalog import import_protos, methods_of
from gateway.transcoding.requests import ETAG, KEY
from infra import docs_errors

COMPOSED = {("get", VIEW_TEMPLATE), ("post", BULK_TEMPLATE)}


@pytest.fixture(scope="module")
def methods():
    return routed_methods()


@pytest.fixture(scope="module")
def document(methods):
    return build_document(methods, load_comments(descriptor_set_path()), "https://api.example")


def test_it_is_valid_openapi(document):
    assert [fault.message for fault in OpenAPIV31SpecValidator(document).iter_errors()] == []


def test_every_route_is_in_it_once(document, methods):
    operations = [operation for item in document["paths"].values() for operation in item.values()]

    assert len(operations) == sum(len(method.bindings) for method in methods) + len(COMPOSED)
    assert len({operation["operationId"] for operation in operations}) == len(operations)


def test_the_routes_that_are_composed_of_others_are_in_it(document):
    for verb, template in COMPOSED:
        assert document["paths"][template][verb]["responses"]["200"]
        path = template.replace("{profile_id}", "p1").encode()
        assert verb.upper() in build_router(None, []).find(path).ends


def test_a_stream_of_lines_may_take_as_long_as_its_route_lets_it(document, methods):
    (lines, *_) = [method for method in methods if method.is_lines]
    operation = document["paths"]["/v1/sources/{source_id}/records:stream"]["post"]

    assert lines.bindings[0].template.endswith("/records:stream")
    assert {"$ref": "#/components/parameters/LinesTimeout"} in operation["parameters"]
    assert "; 60 when absent" in document["components"]["parameters"]["LinesTimeout"]["description"]


def test_headers_that_the_document_allows_are_taken(document):
    for name, taken in (("IdempotencyKey", KEY), ("IfMatch", ETAG)):
        allowed = re.compile(document["components"]["parameters"][name]["schema"]["pattern"])
        for text in (*map(chr, range(32, 0x100)), *("a" * n for n in (2, 40, 41, 62, 64, 65))):
            for given in (text, f'"{text}"'):
                if given != "*" and allowed.search(given):
                    assert taken.fullmatch(given), (name, given)


def test_every_method_of_the_services_has_a_rule_and_a_route_only_if_outsiders_may_call_it():
    for method in methods_of(import_protos()):
        assert method.plan.resource and method.plan.action, method.full_name
        assert method.is_routed == (method.plan.audience != options_pb2.AUDIENCE_SERVICE), method.full_name


def test_every_operation_says_what_it_does(document):
    silent = [
        f"{verb} {path}"
        for path, item in document["paths"].items()
        for verb, operation in item.items()
        if not operation["description"] and not path.startswith("/v1/operations")
    ]

    assert silent == []


def test_every_operation_needs_a_token_unless_it_is_public(document, methods):
    public = {method.full_name.removeprefix("kehu.") for method in methods if method.is_public}

    for item in document["paths"].values():
        for operation in item.values():
            assert ("security" in operation) == (operation["operationId"].split("-")[0] in public)


def test_fields_carry_the_rules_of_the_proto(document):
    operation = document["paths"]["/v1/sources/{source_id}:import"]["post"]
    form = operation["requestBody"]["content"]["multipart/form-data"]["schema"]

    assert form["properties"]["file"]["format"] == "binary"
    assert form["properties"]["sheet"]["maxLength"] == 64
    assert "name" not in form["properties"]
    assert "file" in form["required"]


def test_output_only_fields_are_read_only(document):
    source = document["components"]["schemas"]["profiles.v1.Source"]

    assert source["properties"]["create_time"]["readOnly"] is True
    assert source["properties"]["create_time"]["format"] == "date-time"


def test_every_reason_has_a_meaning():
    lines = list(error_lines(import_protos(), load_comments(descriptor_set_path())))

    assert [line.reason for line in lines if not line.meaning] == []
    assert '| <a id="RATE_LIMITED"></a>`RATE_LIMITED` |' in errors_markdown(lines)


def test_the_errors_page_is_up_to_date():
    assert docs_errors.main(["--check"]) == 0, "run `python -m infra.docs_errors`"


def test_a_change_must_name_nothing_of_its_resource(document):
    changes = {
        path: operations["patch"]["requestBody"]["content"]["application/json"]["schema"]
        for path, operations in document["paths"].items()
        if "patch" in operations
    }

    sources = next(schema for path, schema in changes.items() if path.startswith("/v1/sources/"))
    assert "display_name" in sources["properties"]
    assert {path: schema["required"] for path, schema in changes.items() if "required" in schema} == {}
    assert "owner_department" in document["components"]["schemas"]["profiles.v1.Source"]["required"]


def test_what_is_refused_when_it_is_left_out_is_required(document):
    schemas = document["components"]["schemas"]
    (split,) = [one for name, one in schemas.items() if name.endswith("SplitStep")]

    assert split["required"] == ["delimiter", "take"], "0, which an absent number is, is refused"
    assert document["paths"]["/v1/profiles:lookup"]["post"]["requestBody"]["required"], "one of several is required"
    assert not document["paths"]["/v1/scores:compute"]["post"]["requestBody"]["required"]
