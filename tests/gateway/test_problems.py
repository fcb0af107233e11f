"""One table from gRPC status to problem+json; nothing of the inside gets out."""

from __future__ import annotations

import grpc
import orjson
import pytest
from google.rpc import code_pb2, error_details_pb2, status_pb2

from gateway.framing import FramedFailure, failure
from gateway.problems import from_rpc, pointer_of
from services.chassis import errors
from services.chassis.server.status import to_status

DOCS = "https://api.example/docs/errors"


def failed(error):
    status = to_status(error)
    return FramedFailure(status, status.SerializeToString())


@pytest.mark.parametrize(
    ("error", "status"),
    [
        (errors.Invalid("x"), 400), (errors.NotFound("x"), 404), (errors.AlreadyExists("x"), 409),
        (errors.Conflict("x"), 409), (errors.NotAllowed("x"), 400), (errors.Denied("x"), 403),
        (errors.Unauthenticated("x"), 401), (errors.Unavailable("x"), 503), (errors.Exhausted("x"), 429),
    ],
)  # fmt: skip
def test_each_kind_has_its_status_and_keeps_its_reason(error, status):
    problem = from_rpc(failed(error))

    assert (problem.status, problem.reason, problem.detail) == (status, error.reason, "x")


@pytest.mark.parametrize(
    ("code", "status"),
    [
        (code_pb2.UNAVAILABLE, 503), (code_pb2.DEADLINE_EXCEEDED, 504), (code_pb2.RESOURCE_EXHAUSTED, 429),
        (code_pb2.UNIMPLEMENTED, 501), (code_pb2.UNKNOWN, 500), (code_pb2.INTERNAL, 500), (code_pb2.DATA_LOSS, 500),
    ],
)  # fmt: skip
def test_a_failure_no_service_described_says_nothing_of_the_inside(code, status):
    problem = from_rpc(failure(code, "connect 10.0.0.7:8443: secret"))

    assert problem.status == status
    assert b"secret" not in problem.body(DOCS, "r1")


def test_text_of_another_domain_is_not_repeated():
    status = status_pb2.Status(code=code_pb2.NOT_FOUND, message="bucket kehu-secret")
    status.details.add().Pack(error_details_pb2.ErrorInfo(reason="X", domain="storage.example"))

    problem = from_rpc(FramedFailure(status, status.SerializeToString()))
    assert b"secret" not in problem.body(DOCS, "r1")


def test_an_etag_mismatch_is_412_only_after_if_match():
    assert from_rpc(failed(errors.Conflict("x")), had_if_match=True).status == 412
    assert from_rpc(failed(errors.Conflict("x"))).status == 409


def test_the_document_is_rfc_9457_with_reason_metadata_and_pointers():
    bad = errors.Invalid(
        "bad fields",
        metadata={"limit": "3"},
        violations=[errors.FieldViolation("profile.phones[2].number", "too long")],
    )

    document = orjson.loads(from_rpc(failed(bad), body_field="profile").body(DOCS, "r1"))
    assert document == {
        "type": f"{DOCS}#INVALID_REQUEST",
        "title": "Bad Request",
        "status": 400,
        "detail": "bad fields",
        "instance": "r1",
        "reason": "INVALID_REQUEST",
        "metadata": {"limit": "3"},
        "errors": [{"pointer": "/phones/2/number", "detail": "too long"}],
    }


@pytest.mark.parametrize("kind", [errors.Unavailable, errors.Exhausted])
def test_what_may_be_retried_says_when(kind):
    assert dict(from_rpc(failed(kind("x"))).headers)[b"retry-after"] == b"1"


def test_unauthenticated_challenges():
    assert b"Bearer" in dict(from_rpc(failed(errors.Unauthenticated("x"))).headers)[b"www-authenticate"]


def test_broken_details_are_an_internal_error():
    broken = FramedFailure(status_pb2.Status(code=code_pb2.NOT_FOUND, message="secret"), b"\xff\xff")

    assert from_rpc(broken).status == 500


@pytest.mark.parametrize(
    ("path", "body", "pointer"),
    [("a.b[3].c", "", "/a/b/3/c"), ("dish", "dish", ""), ("dish[1]", "dish", "/1"), ("dishes.x", "dish", "/dishes/x")],
)
def test_pointers_start_at_the_body(path, body, pointer):
    assert pointer_of(path, body) == pointer


def test_every_status_code_has_a_problem():
    for code in grpc.StatusCode:
        if code is not grpc.StatusCode.OK:
            assert 400 <= from_rpc(failure(code.value[0], "x")).status <= 599
