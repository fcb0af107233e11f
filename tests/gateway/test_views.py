"""The 360° view: all parts asked for at once, each with what became of it."""

from __future__ import annotations

import asyncio
import json

import grpc
import pytest
from buf.validate import validate_pb2
from google.rpc import code_pb2
from kehu.profiles.v1.profiles_pb2 import GetProfileRequest

from gateway.auth import Doorkeeper
from gateway.framing import FramedFailure, failure
from gateway.limits import Limits
from gateway.main import build_router, routed_methods
from gateway.problems import Problem
from gateway.routes.derived import Edge
from gateway.routes.views import PART_SECONDS, PARTS, PROFILE_ID
from gateway.transcoding.reading import Readers
from gateway.transcoding.writing import Writers
from gateway.wire import open_exchange
from services.chassis import errors
from services.chassis.server.status import to_status
from tests.harness import MemoryTrail, OpenPolicy, StatedTokens


class Services:
    """Answers every method with an empty message once `together` were asked, but for those told to fail."""

    services = frozenset({"profiles"})

    def __init__(self, together=1, **failing):
        self.together, self.failing, self.called = asyncio.Barrier(together), failing, []

    async def call(self, service, path, request, metadata, timeout):
        self.called.append((service, path.rpartition("/")[2], timeout, dict(metadata)))
        await asyncio.wait_for(self.together.wait(), 10)
        if service in self.failing:
            raise self.failing[service]
        return b""


def refused(error):
    status = to_status(error)
    return FramedFailure(status, status.SerializeToString())


def view(services, policy=None, purpose="service", path=b"/v1/profiles/p1:view"):
    """Ask for the view of p1, or of another path."""
    limits = Limits()
    doorkeeper = Doorkeeper(policy or OpenPolicy(), StatedTokens(), MemoryTrail(), limits)
    router = build_router(Edge(doorkeeper, services, limits, Readers(), Writers()), routed_methods())
    found = router.find(path)
    endpoint = found.ends["GET"][1]
    headers = [(b"authorization", b"Bearer user:li@service"), (b"x-purpose", purpose.encode())]
    scope = {"method": "GET", "query_string": b"", "headers": headers if purpose else headers[:1]}
    reply = asyncio.run(endpoint.route.answer(open_exchange(scope, None), found.segments))
    return json.loads(reply.body)


def statuses(document):
    return {name: part["status"] for name, part in document["parts"].items()}


def test_all_parts_are_asked_for_at_once_and_within_their_own_deadline():
    services = Services(together=len(PARTS))

    document = view(services)
    assert statuses(document) == dict.fromkeys((part.name for part in PARTS), "ok")
    assert document["partial"] is False
    assert {call[2] for call in services.called} == {PART_SECONDS}
    assert all(call[3]["authorization"] == "Bearer user:li@service" for call in services.called)


@pytest.mark.parametrize("code", [code_pb2.UNAVAILABLE, code_pb2.DEADLINE_EXCEEDED])
def test_a_service_that_is_down_leaves_its_part_out_and_says_so(code):
    document = view(Services(tickets=failure(code, "x")))

    assert statuses(document)["tickets"] == "unavailable"
    assert statuses(document)["profile"] == "ok"
    assert document["partial"] is True


def test_a_part_the_policy_denies_is_marked_and_not_asked_for():
    policy, services = OpenPolicy(), Services()
    policy.denied.add(("consents", "list"))

    document = view(services, policy)
    assert statuses(document)["consents"] == "forbidden"
    assert "consent" not in {call[0] for call in services.called}


def test_a_part_that_needs_a_purpose_is_marked():
    document = view(Services(), purpose="")

    assert document["parts"]["consents"]["reason"] == "PURPOSE_REQUIRED"


def test_what_a_customer_does_not_have_is_absent_and_nothing_is_partial():
    document = view(Services(analytics=refused(errors.NotFound("no scores"))))

    assert statuses(document)["scores"] == "absent"
    assert document["partial"] is False


def test_a_customer_who_is_not_there_is_not_found():
    with pytest.raises(Problem) as caught:
        view(Services(profiles=refused(errors.NotFound("no profile"))))

    assert caught.value.status == 404


def test_a_customer_one_may_not_see_is_refused():
    policy = OpenPolicy()
    policy.denied.add(("profiles", "read"))

    with pytest.raises(Problem) as caught:
        view(Services(), policy)
    assert caught.value.status == 403


@pytest.mark.parametrize("encoded", [b"%E7%8E%8B", b"a%20b", b"a&page_size=1", b"x&name=value", b"a.b", b"a" * 65])
def test_an_id_no_customer_can_have_is_refused_before_anything_is_asked_for(encoded):
    services = Services()

    with pytest.raises(Problem) as caught:
        view(services, path=b"/v1/profiles/" + encoded + b":view")
    assert (caught.value.status, caught.value.reason) == (400, "INVALID_FIELD")
    assert [fault.pointer for fault in caught.value.faults] == ["/profile_id"]
    assert services.called == []


def test_every_id_a_profile_may_have_has_a_view():
    pattern = GetProfileRequest.DESCRIPTOR.fields_by_name["name"].GetOptions().Extensions[validate_pb2.field]

    assert pattern.string.pattern == f"^profiles/{PROFILE_ID.pattern}$"


def test_a_service_that_fails_does_not_fail_the_view():
    document = view(Services(tickets=failure(code_pb2.INTERNAL, "x")))

    assert statuses(document)["tickets"] == "failed"
    assert grpc.StatusCode.INTERNAL.name not in json.dumps(document["parts"]["tickets"]["detail"])
