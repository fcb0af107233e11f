"""Every method and every field of every reply, with each role, for its purpose, another, and none: against the oracle.

A canary stands in every field of a reply, in lists, maps, alternatives and packed operations; the reply passes through
the guard that production has, over a socket, under the default policy (reliability.md rows 4, 6, 7 and 29).
"""

from __future__ import annotations

from collections.abc import Iterator
from functools import cache

import grpc
import pytest
from google.api import httpbody_pb2
from google.longrunning import operations_pb2, operations_pb2_grpc
from google.protobuf import empty_pb2
from google.protobuf.descriptor import MethodDescriptor
from google.protobuf.message import Message
from google.protobuf.message_factory import GetMessageClass
from kehu.options.v1 import options_pb2 as options

from services.access.defaults import default_content
from services.chassis.access import PolicySnapshot, SnapshotHolder
from services.chassis.config import SERVICES
from services.chassis.server import Serving, guard
from tests.access import oracle
from tests.access.canaries import filled, reachable, turns_of
from tests.architecture.test_contracts import methods
from tests.harness import Harness, running

METHODS = methods()


def rule_of(method: MethodDescriptor) -> options.AccessRule:
    return method.GetOptions().Extensions[options.access]


def is_the_gateways_own(method: MethodDescriptor) -> bool:
    """No route leads to these (test_contracts.py), so who calls is the gateway's process, whatever token it holds."""
    return rule_of(method).audience == options.AUDIENCE_SERVICE and "gateway" in rule_of(method).services


OF_PEOPLE = [method for method in METHODS if not is_the_gateways_own(method)]


class Canary:
    """Answers every method of every service, and for every operation, with the reply it was told to give."""

    reply: Message = empty_pb2.Empty()

    def __getattr__(self, name: str) -> object:
        return lambda request, context: self.reply


def _adders() -> Iterator[object]:
    from importlib import import_module

    for service in {method.containing_service.full_name: method.containing_service for method in METHODS}.values():
        module = import_module(service.file.name.removesuffix(".proto").replace("/", ".") + "_pb2_grpc")
        yield getattr(module, f"add_{service.name}Servicer_to_server")


@pytest.fixture(scope="module")
def policy() -> SnapshotHolder:
    content = default_content()
    links = [(f"user:{name}", table["role"], table["department"]) for name, table in oracle.TABLES.items()]
    holder = SnapshotHolder()
    holder.swap(PolicySnapshot(1, content.model, content.rules, links))  # row filters are test_every_row.py's
    return holder


@pytest.fixture(scope="module")
def canary() -> Canary:
    return Canary()


@pytest.fixture(scope="module")
def harness(policy: SnapshotHolder, canary: Canary) -> Iterator[Harness]:
    validate, guard.validate = guard.validate, lambda request: None  # requests are empty here
    try:
        with running(Serving("profiles", [(adder, canary) for adder in _adders()], jobs=canary), policy) as found:
            yield found
    finally:
        guard.validate = validate


def ask(channel: grpc.Channel, method: MethodDescriptor) -> Message | grpc.StatusCode:
    """Call a method with an empty request; return its reply or the code of its refusal."""
    path = f"/{method.containing_service.full_name}/{method.name}"
    request, reply = GetMessageClass(method.input_type), GetMessageClass(method.output_type)
    kind = channel.stream_unary if method.client_streaming else channel.unary_unary
    call = kind(path, request_serializer=request.SerializeToString, response_deserializer=reply.FromString)
    try:
        return call(iter([request()]) if method.client_streaming else request(), timeout=10)
    except grpc.RpcError as refused:
        return refused.code()


@cache
def replies(method: MethodDescriptor) -> tuple[Message, ...]:
    """Return replies that together carry a canary in every field."""
    kind = method.output_type
    if kind.full_name == "google.longrunning.Operation":
        return tuple(packed(found) for found in replies(METHODS_BY_NAME["GetProfile"]))
    if not kind.full_name.startswith("kehu."):
        found = GetMessageClass(kind)()
        return (found,)
    return tuple(filled(kind, turn, COVERED) for turn in range(turns_of(kind)))


def packed(response: Message) -> operations_pb2.Operation:
    operation = operations_pb2.Operation(name="operations/profiles-1", done=True)
    operation.response.Pack(response)
    operation.metadata.Pack(response)
    return operation


def owed(reply: Message, role: oracle.Role) -> Message:
    """Return what the oracle says is left of a reply."""
    if isinstance(reply, operations_pb2.Operation):
        inner = GetMessageClass(METHODS_BY_NAME["GetProfile"].output_type)()
        reply.response.Unpack(inner)
        return packed(oracle.owed(inner, role.sees))
    return oracle.owed(reply, role.sees) if reply.DESCRIPTOR.full_name.startswith("kehu.") else reply


METHODS_BY_NAME = {method.name: method for method in METHODS}
COVERED: set[str] = set()


def the_same(one: Message, other: Message) -> bool:
    if isinstance(one, operations_pb2.Operation):
        return unpacked(one) == unpacked(other)
    return one == other


def unpacked(operation: operations_pb2.Operation) -> list[Message]:
    found = []
    for item in (operation.response, operation.metadata):
        found.append(GetMessageClass(METHODS_BY_NAME["GetProfile"].output_type)())
        item.Unpack(found[-1])
    return found


@pytest.mark.parametrize("purpose", ["its own", "another", ""])
@pytest.mark.parametrize("name", sorted(oracle.TABLES))
def test_each_role_gets_of_every_reply_what_the_oracle_says_and_nothing_else(
    harness: Harness, canary: Canary, name: str, purpose: str
) -> None:
    table = oracle.TABLES[name]
    other = next(found["purpose"] for found in oracle.TABLES.values() if found["purpose"] != table["purpose"])
    role = oracle.Role(table, {"its own": table["purpose"], "another": other, "": ""}[purpose])
    caller = f"user:{name}@{table['department']}"
    channel = harness.stub(lambda found: found, caller=caller, purpose=role.purpose)
    wrong = []
    for method in OF_PEOPLE:
        public = rule_of(method).audience == options.AUDIENCE_PUBLIC
        seen_by = oracle.Role(table, "") if public else role
        for reply in replies(method):
            canary.reply = reply.__class__.FromString(reply.SerializeToString())
            found = ask(channel, method)
            if isinstance(found, grpc.StatusCode):
                if role.may_call(method) or found is not grpc.StatusCode.PERMISSION_DENIED:
                    wrong.append(f"{method.full_name}: {found}")
            elif not role.may_call(method):
                wrong.append(f"{method.full_name}: answered")
            elif not the_same(found, owed(reply, seen_by)):
                wrong.append(f"{method.full_name}: another reply")

    assert wrong == []


def test_no_personal_value_leaves_for_a_purpose_that_is_not_the_roles(harness: Harness, canary: Canary) -> None:
    """The same, without the oracle's walk: the bytes of the reply are looked through for what stood in it."""
    values = [value.encode() for value, _ in oracle.CANARIES.values()]
    leaks = []
    for name, table in oracle.TABLES.items():
        channel = harness.stub(lambda found: found, caller=f"user:{name}@{table['department']}", purpose="")
        for method in OF_PEOPLE:
            for reply in replies(method):
                canary.reply = reply.__class__.FromString(reply.SerializeToString())
                found = ask(channel, method)
                sent = b"" if isinstance(found, grpc.StatusCode) else found.SerializeToString()
                leaks += [f"{name} {method.full_name}" for value in values if value in sent]

    assert leaks == []


def test_every_field_that_a_reply_can_carry_had_a_canary() -> None:
    seen: dict[str, object] = {}
    fields = [field for method in METHODS for field in reachable(method.output_type, seen)]
    for method in METHODS:
        replies(method)

    assert len(METHODS) >= 150 and len(fields) >= 900
    assert {field.full_name for field in fields} - COVERED == set()


def test_an_operation_opens_every_message_that_any_service_packs(harness: Harness, canary: Canary) -> None:
    wrong, kinds = [], {}
    for method in METHODS:
        for _ in reachable(method.output_type, kinds):
            pass
    for name, table in oracle.TABLES.items():
        role = oracle.Role(table, table["purpose"])
        caller = f"user:{name}@{table['department']}"
        if "operations" not in table["allow"]:
            continue
        stub = harness.stub(operations_pb2_grpc.OperationsStub, caller=caller, purpose=role.purpose)
        for kind in kinds.values():
            inner = filled(kind, 0, set())
            canary.reply = packed(inner)
            reply = stub.GetOperation(operations_pb2.GetOperationRequest(name="operations/profiles-1"), timeout=10)
            found = GetMessageClass(kind)()
            reply.response.Unpack(found)
            if found != oracle.owed(inner, role.sees):
                wrong.append(f"{name} {kind.full_name}")

    assert len(kinds) >= 150 and wrong == []


@pytest.mark.parametrize("service", [*SERVICES, "gateway"])
def test_a_service_calls_what_the_protos_list_it_for_and_nothing_else(
    harness: Harness, canary: Canary, service: str
) -> None:
    channel = harness.stub(lambda found: found, caller="", purpose="", peer=service)
    wrong = []
    for method in METHODS:
        rule = rule_of(method)
        listed = service in rule.services or rule.audience == options.AUDIENCE_PUBLIC
        canary.reply = replies(method)[0].__class__()
        if (ask(channel, method) in REFUSALS) is listed:
            wrong.append(method.full_name)

    assert wrong == []


def test_each_function_of_administrators_is_forbidden_to_every_other_role_and_service(
    harness: Harness, canary: Canary
) -> None:
    """Reliability row 6: what administrators, auditors and directories do, tried by all others for every purpose."""
    names = ("administrator", "auditor", "provisioner")
    keepers = [oracle.Role(oracle.TABLES[name], "administration") for name in names]
    functions = [
        method for method in METHODS if rule_of(method).audience == options.AUDIENCE_PRINCIPAL
        and any(role.may_call(method) for role in keepers) and rule_of(method).resource not in ("account", "operations")
    ]  # fmt: skip
    tried = 0
    for name, table in oracle.TABLES.items():
        for purpose in {table["purpose"], "administration"}:
            role = oracle.Role(table, purpose)
            caller = f"user:{name}@{table['department']}"
            channel = harness.stub(lambda found: found, caller=caller, purpose=purpose)
            for method in functions:
                if not role.may_call(method):
                    tried += 1
                    assert ask(channel, method) is grpc.StatusCode.PERMISSION_DENIED, f"{name} {method.name}"
    for service in SERVICES:
        channel = harness.stub(lambda found: found, caller="", purpose="", peer=service)
        for method in functions:
            if service not in rule_of(method).services:
                tried += 1
                assert ask(channel, method) is grpc.StatusCode.PERMISSION_DENIED, f"{service} {method.name}"

    assert len(functions) >= 80 and tried >= 1_500


REFUSALS = (grpc.StatusCode.PERMISSION_DENIED, grpc.StatusCode.UNAUTHENTICATED)


def test_a_page_is_served_as_it_is_and_holds_nothing_personal_by_its_rule() -> None:
    """HTML cannot be masked: who answers with it is named here, and what is drawn is tested beside it.

    SCIM's JSON tells a directory of its own company's people (tests/access/test_scim.py), never of customers.
    """
    whole = [method for method in METHODS if method.output_type is httpbody_pb2.HttpBody.DESCRIPTOR]
    pages = {method.name for method in whole if rule_of(method).resource != "scim"}

    assert pages == {"GetQualityReportPage", "GetUnsubscribe", "DownloadExport"}
