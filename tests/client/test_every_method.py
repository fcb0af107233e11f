"""Every route of the gateway has its method in the client, and what is given to it reaches the service whole."""

from __future__ import annotations

import inspect
import io
import re

import pytest
from google.api.httpbody_pb2 import HttpBody
from google.longrunning import operations_pb2
from google.protobuf.message_factory import GetMessageClass
from kehu.client import Kehu, Operation, Pages

from gateway.main import routed_methods
from gateway.transcoding.catalog import Method
from tests.client.filling import filled, fit_path

METHODS = routed_methods()
OURS = [method for method in METHODS if method.service != "operations"]
WHICH = range(4)  # of the members of a oneof


def python_name(method: Method) -> str:
    return re.sub(r"(?<=[a-z0-9])(?=[A-Z])", "_", method.full_name.rpartition(".")[2]).lower()


def bound(kehu: Kehu, method: Method):
    return getattr(getattr(kehu, method.service), python_name(method))


def sent_message(method: Method, which: int):
    """Return a request with everything in it, as the first of the method's forms with a body takes it."""
    descriptor = method.request.fields_by_name["header"].message_type if method.is_upload else method.request
    message = filled(descriptor, which)
    forms = sorted(method.bindings, key=lambda binding: not binding.body)
    fit_path(message, forms[0].template)
    return message


def arguments(message) -> dict[str, object]:
    return {field.name: value for field, value in message.ListFields()}


def reply_to(method: Method, which: int):
    if method.response.full_name == "google.api.HttpBody":
        is_scim = method.bindings[0].template.startswith("/scim")
        data = b'{"meta": {"location": "somewhere"}}' if is_scim else bytes(range(256))
        return HttpBody(content_type="application/x-test", data=data)
    return filled(method.response, which)


UNARY = [m for m in OURS if not (m.is_upload or m.is_lines or m.response is operations_pb2.Operation.DESCRIPTOR)]
BEGINNING = [m for m in OURS if m.response is operations_pb2.Operation.DESCRIPTOR]


def is_paged(method: Method) -> bool:
    return method.is_read and {"page_token"} <= set(method.request.fields_by_name) and "next_page_token" in (
        method.response.fields_by_name
    )  # fmt: skip


@pytest.mark.parametrize("method", UNARY, ids=lambda m: m.full_name)
def test_a_call_reaches_its_method_with_every_field_and_comes_back_whole(kehu, recorder, method):
    for which in WHICH:
        message, reply = sent_message(method, which), reply_to(method, which)
        if "next_page_token" in reply.DESCRIPTOR.fields_by_name:
            reply.next_page_token = ""
        recorder.replies.append(reply.SerializeToString())

        answer = bound(kehu, method)(**arguments(message))

        path, request, metadata = recorder.calls.pop()
        assert path == method.path
        assert GetMessageClass(method.request).FromString(request) == message
        assert metadata.get("x-purpose", "service") == "service"
        assert ("authorization" in metadata) != method.is_public
        if isinstance(answer, Pages):
            answer = answer.first
        if method.bindings[0].verb == "DELETE" and "scim" in method.bindings[0].template:
            assert answer.data == b""
        else:
            assert answer == reply


@pytest.mark.parametrize("method", filter(is_paged, UNARY), ids=lambda m: m.full_name)
def test_a_list_is_walked_to_its_end(kehu, recorder, method):
    message = sent_message(method, 0)
    pages = [reply_to(method, which) for which in WHICH[:3]]
    for number, page in enumerate(pages):
        page.next_page_token = f"to {number + 1}" if number < 2 else ""
    recorder.replies += [page.SerializeToString() for page in pages]

    found = bound(kehu, method)(**arguments(message))

    if not isinstance(found, Pages):
        assert method.full_name.rpartition(".")[2] in SEVERAL_LISTS
        return
    assert len(recorder.calls) == 1, "the other pages are read when they are asked for"
    items = list(found)
    name = next(field.name for field in method.response.fields if field.is_repeated)
    assert items == [item for page in pages for item in getattr(page, name)]
    asked = [GetMessageClass(method.request).FromString(request) for _, request, _ in recorder.calls]
    assert [one.page_token for one in asked] == [message.page_token, "to 1", "to 2"]
    for one in asked:
        one.page_token = message.page_token
        assert one == message


SEVERAL_LISTS = {"WhatCan"}


@pytest.mark.parametrize("method", BEGINNING, ids=lambda m: m.full_name)
def test_an_operation_has_the_types_its_method_names(kehu, recorder, method):
    service = method.request.file.pool.FindServiceByName(method.full_name.rpartition(".")[0])
    info = (
        service.methods_by_name[method.full_name.rpartition(".")[2]]
        .GetOptions()
        .Extensions[operations_pb2.operation_info]
    )
    package = service.file.package
    response, metadata = (
        filled(method.request.file.pool.FindMessageTypeByName(f"{package}.{name}"))
        for name in (info.response_type, info.metadata_type)
    )
    reply = operations_pb2.Operation(name=f"operations/{method.service}-1", done=True)
    reply.response.Pack(response)
    reply.metadata.Pack(metadata)
    recorder.replies.append(reply.SerializeToString())
    message = sent_message(method, 0)
    more = {"file": io.BytesIO(b"a file")} if method.is_upload else {}
    given = {name: value for name, value in arguments(message).items() if not (more and name == "file_name")}

    operation = bound(kehu, method)(**given, **more)

    assert isinstance(operation, Operation) and operation.is_done
    assert (operation.response, operation.metadata) == (response, metadata)
    path, request, _ = recorder.calls.pop()
    assert path == method.path
    if not method.is_upload:
        assert GetMessageClass(method.request).FromString(request) == message


@pytest.mark.parametrize("method", [m for m in OURS if m.is_upload], ids=lambda m: m.full_name)
def test_a_file_goes_up_after_its_header(kehu, recorder, method):
    if method.response is operations_pb2.Operation.DESCRIPTOR:
        reply = operations_pb2.Operation(name=f"operations/{method.service}-1")
    else:
        reply = filled(method.response)
    recorder.replies.append(reply.SerializeToString())
    header = sent_message(method, 0)
    given = {name: value for name, value in arguments(header).items() if name != "file_name"}
    content = bytes(range(256)) * 3000

    bound(kehu, method)(file=io.BytesIO(content), **given)

    parts = [GetMessageClass(method.request).FromString(part) for part in recorder.parts]
    if "file_name" in header.DESCRIPTOR.fields_by_name:
        header.file_name = "file"
    assert parts[0].header == header
    assert b"".join(part.chunk for part in parts[1:]) == content


def test_lines_are_sent_on_and_answered(kehu, recorder):
    (method,) = (m for m in OURS if m.is_lines)
    replies = [filled(method.response, which) for which in range(3)]
    recorder.replies += [reply.SerializeToString() for reply in replies]
    header = sent_message(method, 0)
    lines = [{"source_record_id": str(number)} for number in range(1100)]

    answers = list(bound(kehu, method)(parent=header.parent, request_id="k", lines=lines, first_line=5))

    requests = [GetMessageClass(method.request).FromString(request) for _, request, _ in recorder.calls]
    assert answers == replies
    assert [request.first_line for request in requests] == [5, 505, 1005]
    assert sum(request.lines.count(b"\n") for request in requests) == 1100
    assert {(request.parent, request.request_id) for request in requests} == {(header.parent, "k")}


def test_the_client_has_no_method_beside_the_routes(kehu):
    for service in {method.service for method in OURS}:
        methods = {name for name, _ in inspect.getmembers(type(getattr(kehu, service)), inspect.isfunction)}
        routed = {python_name(method) for method in OURS if method.service == service}

        assert {name for name in methods if not name.startswith("_")} == routed
