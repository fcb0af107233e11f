"""What is another department's or person's is answered like what is not there: every id of every request (BOLA).

Generated from the descriptors (reliability row 5): a new method, or a new field that names something, is tried or fails
here until somebody says what it names. Each id is sent as one of ours, which must make a difference, as one of another
department, and as one of nothing: the two last must be told in the same words, and nothing may have changed.
"""

from __future__ import annotations

import json
import re
import uuid
from collections.abc import Iterator, Mapping

import grpc
import pytest
from google.longrunning import operations_pb2, operations_pb2_grpc
from google.protobuf import json_format
from google.protobuf.descriptor import MethodDescriptor
from google.protobuf.message import Message
from google.rpc import error_details_pb2
from grpc_status import rpc_status
from kehu.options.v1 import options_pb2 as options

from services.chassis.access.shares import LENT_BY
from tests.reach.positions import NOT_OURS, SHARED, WORDS, Position, kind_of, of_people, positions, texts
from tests.reach.worlds import MINE, NARROWABLE, THEIRS, Values, World, all_worlds

# whom only `profiles` is narrowed for: tickets, incidents and campaigns have row filters of their own
OF_PEOPLE = {"profiles", "records", "phone", "email", "resident_id", "overrides", "relationships", "matchCandidates",
             "rejects", "legalHolds", "exports", "scores"}  # fmt: skip
# words of the policy and of registers, where a department is written and none is read
WRITTEN = {
    "CreatePrincipal", "UpdatePrincipal", "CreateIssuer", "UpdateIssuer", "CreatePolicy", "ExtendPolicy",
    "CreateSource", "UpdateSource", "CreateQualityRule", "UpdateQualityRule", "CreateFieldDefinition",
    "UpdateFieldDefinition", "CreateFieldChange", "ListPrincipals", "WhatCan", "ExplainAccess",
}  # fmt: skip
# the whole trail is the auditor's, and an id of nobody says whose a leaked file is: no rows
OF_AUDITORS = {"ListAuditEntries:department", "ListAuditEntries:profile_id", "TraceExport:profile"}
TRIED = [
    each for each in positions()
    if each.kind not in SHARED | NOT_OURS and each.id not in OF_AUDITORS
    and not (each.kind == "departments" and each.method.name in WRITTEN)
]  # fmt: skip
# what is written down without being looked for: the answer is the same for one of ours
NOT_LOOKED_FOR = {
    *(f"CreateTicket:ticket.{field}" for field in ("name", "profile", "department", "source_record.source_record_id")),
    *(f"UpdateTicket:ticket.{field}" for field in ("profile", "department", "source_record.source_record_id")),
    *(f"BatchCreateInteractions:interactions.{field}" for field in ("profile", "source_record.source_record_id")),
    "CreateWebhookSubscription:webhook_subscription.name", "AssignTicket:assignee",
    "CreateSuppression:suppression.profile_id",
}  # fmt: skip
VOLATILE = re.compile(r"name|secret|number|etag|\w*[tT]ime")


@pytest.fixture(scope="module")
def worlds(tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[str, World]]:
    with all_worlds(tmp_path_factory.mktemp("reach")) as found:
        yield found


def put(message: Message, path: tuple[str, ...], value: str) -> None:
    """Set a text field, however deep."""
    *above, last = path
    for name in above:
        inner = getattr(message, name)
        if message.DESCRIPTOR.fields_by_name[name].is_repeated:
            inner = inner[0] if inner else inner.add()
        message = inner
    if message.DESCRIPTOR.fields_by_name[last].is_repeated:
        getattr(message, last)[:] = [value]
    else:
        setattr(message, last, value)


def answer(world: World, at: Position, thing: str, around: Values) -> str:
    """Return what the narrowed caller is told, without the names that were asked for and what no two answers share."""
    request = world.request(at.method.name, around)
    put(request, at.path, thing)
    try:
        found: object = _lasting(json_format.MessageToDict(world.call(at.method.name, request)))
    except grpc.RpcError as refused:
        found = _refusal(refused)
    told = json.dumps(found, ensure_ascii=False)
    for part in sorted({thing, *thing.split("/")[1::2]}, key=len, reverse=True):
        told = re.sub(rf"(?<!\w){re.escape(part)}(?!\w)", "IT", told)
    return re.sub(r"[0-9a-f]{32}", "ANOTHER", told)


def _refusal(refused: grpc.RpcError) -> object:
    """Return all that a refusal says, but for the id of the decision."""
    status, said = rpc_status.from_call(refused), []
    for detail in status.details:
        kind = detail.TypeName().rpartition(".")[2]
        message = getattr(error_details_pb2, kind)()
        detail.Unpack(message)
        if isinstance(message, error_details_pb2.ErrorInfo):
            message.metadata.pop("decision_id", None)
        said.append(json_format.MessageToDict(message))
    return [refused.code().name, status.message, said]


def _lasting(value: object) -> object:
    if isinstance(value, dict):
        return {key: _lasting(item) for key, item in value.items() if not VOLATILE.fullmatch(key)}
    return [_lasting(item) for item in value] if isinstance(value, list) else value


def nothing(world: World, at: Position, like: str) -> str:
    """Return the name of nothing, of the form of a thing."""
    parts = like.split("/")
    return world.nobody.get(at.kind) or "/".join(
        uuid.uuid4().hex if n % 2 or len(parts) == 1 else p for n, p in enumerate(parts)
    )


def _is_narrowed_by_profiles(at: Position) -> bool:
    return at.kind in OF_PEOPLE and "Tickets" not in at.method.full_name


ASKED = [pytest.param(at, NARROWABLE, id=at.id) for at in TRIED]
ASKED += [pytest.param(at, {"profiles"}, id=f"{at.id}-by-profiles") for at in TRIED if _is_narrowed_by_profiles(at)]


@pytest.mark.parametrize(("at", "narrowed"), ASKED)
def test_what_is_another_departments_is_answered_like_what_is_not_there(
    worlds: dict[str, World], at: Position, narrowed: set[str]
) -> None:
    world = worlds[at.method.containing_service.full_name]
    world.harness.policy.narrowed = frozenset(narrowed)
    ours, theirs = world.make(at.kind, MINE), world.make(at.kind, THEIRS)
    before = world.state(at.kind, theirs)

    of_theirs = answer(world, at, theirs, world.around(at.method.name, THEIRS))
    of_nothing = answer(world, at, nothing(world, at, theirs), world.around(at.method.name, THEIRS))

    assert of_theirs == of_nothing
    assert world.state(at.kind, theirs) == before
    if "PERMISSION_DENIED" not in of_theirs and at.id not in NOT_LOOKED_FOR:
        assert answer(world, at, ours, world.around(at.method.name, MINE)) != of_nothing, (
            "a request that would be answered for one of ours"
        )


def rule_of(method: MethodDescriptor) -> options.AccessRule:
    """Return the access rule of a method."""
    return method.GetOptions().Extensions[options.access]


BORROWED = [at for at in TRIED if at.kind in LENT_BY]


@pytest.mark.parametrize("at", BORROWED, ids=lambda at: at.id)
def test_a_record_that_is_lent_is_reached_by_reading_it_and_by_nothing_else(
    worlds: dict[str, World], at: Position
) -> None:
    """A borrower reads it where the method declares the field of its id; another record next to it stays away."""
    world, rule = worlds[at.method.containing_service.full_name], rule_of(at.method)
    policy = world.harness.policy
    lent, kept = world.make(at.kind, THEIRS), world.make(at.kind, THEIRS)
    before = world.state(at.kind, lent)
    policy.narrowed, policy.lent = frozenset(NARROWABLE), {at.kind: (lent.rpartition("/")[2],)}
    try:
        around = world.around(at.method.name, THEIRS)
        of_lent, of_kept = (answer(world, at, thing, around) for thing in (lent, kept))
        of_nothing = answer(world, at, nothing(world, at, lent), around)
    finally:
        policy.lent = {}

    opens = at.kind in (rule.resource, *rule.rows_of) and LENT_BY[at.kind] in rule.row_fields
    assert of_kept == of_nothing
    assert world.state(at.kind, lent) == before
    assert (of_lent != of_nothing) is opens


def test_a_borrower_is_tried_with_every_method_that_reads_what_is_lent() -> None:
    opening = {at.method.name for at in BORROWED if LENT_BY[at.kind] in rule_of(at.method).row_fields
               and at.kind == rule_of(at.method).resource}  # fmt: skip

    assert opening == {"GetProfile", "GetProfileLineage", "GetProfileHistory", "ListOverrides", "RevealField",
                       "GetTicket", "ListComments"}  # fmt: skip
    assert len(BORROWED) > 40


def test_a_merged_name_out_of_reach_does_not_tell_the_name_of_now(worlds: dict[str, World]) -> None:
    world = worlds["kehu.analytics.v1.AnalyticsService"]
    world.harness.policy.narrowed = frozenset({"profiles"})
    former, survivor = world.merged(THEIRS)

    told = []
    for id, name in (("GetScores:name", f"{former}/scores"), ("ListInteractions:parent", former)):
        at = next(each for each in TRIED if each.id == id)
        told.append((answer(world, at, name, {}), answer(world, at, nothing(world, at, name), {})))
        assert survivor.partition("/")[2] not in told[-1][0]

    assert [one == other for one, other in told] == [True, True]


LISTS = [  # of search, whose rows are in tests/search/test_api.py, there is none
    method for method in of_people()
    if "page_token" in method.input_type.fields_by_name and "search" not in method.full_name
]  # fmt: skip
THINGS = {  # of which lists tell
    "kehu.profiles.v1.ProfilesService": ("profiles", "overrides", "relationships", "legalHolds", "matchCandidates",
                                         "decided", "exports", "qualityIncidents"),
    "kehu.tickets.v1.TicketsService": ("tickets", "profiles"),
    "kehu.marketing.v1.MarketingService": ("segments", "campaigns", "runs", "profiles"),
    "kehu.consent.v1.ConsentService": ("profiles",),
    "kehu.analytics.v1.AnalyticsService": ("profiles",),
    "kehu.access.v1.AccessService": ("accessRequests", "sessions", "recertification", "share"),
    "kehu.webhooks.v1.WebhooksService": ("webhookSubscriptions", "delivery"),
}  # fmt: skip


@pytest.mark.parametrize("method", LISTS, ids=lambda method: method.name)
def test_no_list_tells_of_another_departments_things_whatever_it_is_asked_by(
    worlds: dict[str, World], method: MethodDescriptor
) -> None:
    world = worlds[method.containing_service.full_name]
    world.harness.policy.narrowed = frozenset(NARROWABLE)
    theirs, ours = ({world.make(kind, whose).split("/")[-1] for kind in THINGS[world.full_name]}
                    for whose in (THEIRS, MINE))  # fmt: skip
    seen = ""
    for values in _asked_by(method):
        try:
            seen += json_format.MessageToJson(world.ask(method.name, {**world.around(method.name, MINE), **values}))
        except grpc.RpcError as refused:
            assert refused.code() in (grpc.StatusCode.PERMISSION_DENIED, grpc.StatusCode.INVALID_ARGUMENT)

    assert [one for one in theirs if one in seen] == []
    assert method.name not in TELLING or any(one in seen for one in ours)


# lists that tell of ours, so that telling of nothing is no answer
TELLING = {"ListProfiles", "ListMatchCandidates", "ListQualityIncidents", "ListTickets", "ListSegments",
           "ListCampaigns", "ListDeliveries", "ListAccessRequests", "ListShares"}  # fmt: skip


def _asked_by(method: MethodDescriptor) -> Iterator[Mapping[str, object]]:
    """Yield requests by every value of every enum, and by the other department."""
    yield {"page_size": 1000}
    for field in method.input_type.fields:
        if field.enum_type is not None:
            yield from ({"page_size": 1000, field.name: value.name} for value in field.enum_type.values)
        elif "department" in field.name:
            yield {"page_size": 1000, field.name: THEIRS}


def test_an_operation_of_another_department_is_answered_like_none(worlds: dict[str, World]) -> None:
    world = worlds["kehu.profiles.v1.ProfilesService"]
    theirs = world.ask("ExportProfiles", {"owner_department": THEIRS}, THEIRS).name
    stub = world.harness.stub(operations_pb2_grpc.OperationsStub, caller="user:me@sales")
    nothing_, told = f"operations/profiles-{uuid.uuid4().hex}", []
    for name in (theirs, nothing_):
        for call, kind in ((stub.GetOperation, "Get"), (stub.CancelOperation, "Cancel")):
            with pytest.raises(grpc.RpcError) as refused:
                call(getattr(operations_pb2, f"{kind}OperationRequest")(name=name), timeout=5)
            told.append(json.dumps(_refusal(refused.value)).replace(name, "IT"))

    assert told[:2] == told[2:] and "NOT_FOUND" in told[0]
    mine = stub.ListOperations(operations_pb2.ListOperationsRequest(), timeout=5).operations
    assert theirs not in {one.name for one in mine}


def test_every_text_of_a_request_names_something_known_or_is_among_the_words() -> None:
    unknown = {field.name for method in of_people() for _, field in texts(method.input_type) if not kind_of(field)}

    assert unknown - WORDS == set(), "say in positions.py what it names, or that it names nothing"
    assert len(TRIED) >= 100
