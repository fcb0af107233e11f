"""The RPCs behind the real guard, over memory stores and a lake in a temporary folder."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

import grpc
import pytest
from google.longrunning import operations_pb2
from google.protobuf.timestamp_pb2 import Timestamp
from google.rpc import error_details_pb2
from grpc_status import rpc_status
from kehu.analytics.v1 import analytics_pb2 as pb
from kehu.analytics.v1 import analytics_pb2_grpc, audience_pb2

from services.analytics import reading
from services.analytics.api import AnalyticsServicer, Parts
from services.analytics.audiences import rule_digest
from services.analytics.domain.tables import ALIASES, INTERACTIONS, PROFILES
from services.analytics.feeding import flush
from services.analytics.files import Uploads
from services.analytics.jobs import COMPUTE, IMPORT, AnalyticsJobs
from services.analytics.lake import rows_table
from services.analytics.store import MemoryComputations, MemoryInbox
from services.analytics.warehouse import Warehouse
from services.chassis.access import NOTHING_SHOWN, Condition, Obligations
from services.chassis.crypto import Sealer
from services.chassis.jobs import Jobs, MemoryOperations, Worker
from services.chassis.paging import encode_token, filter_hash
from services.chassis.server import Serving
from tests.analytics.test_events import plain
from tests.harness import Harness, OpenPolicy, running

NOON = datetime(2025, 3, 15, 12, tzinfo=UTC)


@dataclass
class World:
    """A running analytics and what stands behind it."""

    harness: Harness
    stub: analytics_pb2_grpc.AnalyticsServiceStub
    warehouse: Warehouse
    inbox: MemoryInbox
    operations: MemoryOperations
    handlers: AnalyticsJobs

    def work(self) -> None:
        table = {IMPORT: self.handlers.import_interactions, COMPUTE: self.handlers.compute_scores}
        Worker("analytics", table, self.operations, threads=0).run_one()


@pytest.fixture
def world(warehouse: Warehouse, tmp_path: Path) -> Iterator[World]:
    inbox, operations = MemoryInbox(), MemoryOperations()
    uploads = Uploads(tmp_path / "uploads", Sealer("analytics", tmp_path / "keys"))
    parts = Parts(
        warehouse, inbox, Jobs("analytics", operations), uploads, plain, clock=lambda: datetime(2025, 6, 1, tzinfo=UTC)
    )
    add = analytics_pb2_grpc.add_AnalyticsServiceServicer_to_server
    serving = Serving("analytics", [(add, AnalyticsServicer(parts))], jobs=parts.jobs)
    resolve = lambda _, ids: {name: "p1" for name in ids}  # noqa: E731
    handlers = AnalyticsJobs(warehouse, uploads, resolve, MemoryComputations(), plain)
    with running(serving, OpenPolicy()) as harness:
        stub = harness.stub(analytics_pb2_grpc.AnalyticsServiceStub)
        yield World(harness, stub, warehouse, inbox, operations, handlers)


def stamp(moment: datetime = NOON) -> Timestamp:
    found = Timestamp()
    found.FromDatetime(moment)
    return found


def bought(number: int, profile: str = "p1", **fields: object) -> pb.Interaction:
    return pb.Interaction(
        profile=f"profiles/{profile}",
        message_id=f"m{number:03d}",
        event_type="order_completed",
        event_time=stamp(datetime(2025, 1 + number % 3, 1 + number % 28, tzinfo=UTC)),
        amount_cents=100 * number,
        channel="store",
        **fields,  # type: ignore[arg-type]
    )


def record(world: World, *interactions: pb.Interaction) -> None:
    request = pb.BatchCreateInteractionsRequest(interactions=interactions)
    world.stub.BatchCreateInteractions(request, timeout=10)
    flush(world.inbox, world.warehouse)


def profiles(world: World, count: int, **fields: object) -> None:
    rows = [
        {"profile_id": f"p{number}", "version": 1, "deleted": False, "tier": "gold", "part": "recent", **fields}
        for number in range(1, count + 1)
    ]
    world.warehouse.add(PROFILES, rows_table(PROFILES, rows))


def reason_of(error: grpc.RpcError) -> tuple[grpc.StatusCode, str]:
    status = rpc_status.from_call(error)
    assert status is not None
    for detail in status.details:
        info = error_details_pb2.ErrorInfo()
        if detail.Unpack(info):
            return error.code(), info.reason
    return error.code(), ""


def everybody() -> audience_pb2.AudienceRule:
    return audience_pb2.AudienceRule(trait={"trait": "tier", "operator": 1, "values": ["gold"]})


def test_recorded_interactions_are_listed_latest_first_page_by_page(world: World) -> None:
    record(world, *[bought(number) for number in range(10)], bought(99, "p2"))
    record(world, bought(3))
    seen: list[str] = []
    token = ""
    while True:
        request = pb.ListInteractionsRequest(parent="profiles/p1", page_size=4, page_token=token)
        page = world.stub.ListInteractions(request, timeout=10)
        seen += [one.message_id for one in page.interactions]
        token = page.next_page_token
        if not token:
            break

    assert seen == ["m008", "m005", "m002", "m007", "m004", "m001", "m009", "m006", "m003", "m000"]


def test_a_merged_profile_and_its_survivor_list_the_same(world: World) -> None:
    record(world, bought(1, "p1"), bought(2, "p2"))
    alias = {"profile_id": "p2", "survivor_id": "p1", "event_time": NOON, "part": "recent"}
    world.warehouse.add(ALIASES, rows_table(ALIASES, [alias]))
    for parent in ("profiles/p1", "profiles/p2"):
        page = world.stub.ListInteractions(pb.ListInteractionsRequest(parent=parent), timeout=10)
        assert [one.profile for one in page.interactions] == ["profiles/p1", "profiles/p1"]


def test_a_repeated_request_is_kept_once(world: World) -> None:
    request = pb.BatchCreateInteractionsRequest(interactions=[bought(1)], request_id="r-1")
    for _ in range(2):
        assert world.stub.BatchCreateInteractions(request, timeout=10).accepted_count == 1

    assert len(world.inbox.waiting(10)) == 1


def test_what_is_accepted_is_kept_though_its_request_id_was_used_for_something_else(world: World) -> None:
    for number in (1, 2):
        request = pb.BatchCreateInteractionsRequest(interactions=[bought(number)], request_id="r-1")
        assert world.stub.BatchCreateInteractions(request, timeout=10).accepted_count == 1
    flush(world.inbox, world.warehouse)
    page = world.stub.ListInteractions(pb.ListInteractionsRequest(parent="profiles/p1"), timeout=10)

    assert [one.message_id for one in page.interactions] == ["m002", "m001"]


def test_malformed_interactions_are_refused_whole(world: World) -> None:
    bad = [
        bought(1, currency="USD"),
        pb.Interaction(profile="p1", message_id="x", event_type="y", event_time=stamp()),
        pb.Interaction(profile="profiles/p1", message_id="x", event_type="Not Snake", event_time=stamp()),
        pb.Interaction(profile="profiles/p1", message_id="x", event_type="y"),
    ]
    for one in bad:
        request = pb.BatchCreateInteractionsRequest(interactions=[bought(2), one])
        with pytest.raises(grpc.RpcError) as raised:
            world.stub.BatchCreateInteractions(request, timeout=10)
        assert raised.value.code() == grpc.StatusCode.INVALID_ARGUMENT
    future = pb.Interaction(
        profile="profiles/p1", message_id="x", event_type="y", event_time=stamp(datetime(2026, 1, 1, tzinfo=UTC))
    )
    with pytest.raises(grpc.RpcError) as raised:
        world.stub.BatchCreateInteractions(pb.BatchCreateInteractionsRequest(interactions=[future]), timeout=10)

    assert reason_of(raised.value) == (grpc.StatusCode.INVALID_ARGUMENT, "INVALID_INTERACTION")
    assert world.inbox.waiting(10) == []


def test_behaviour_is_hidden_from_those_without_a_grant(world: World) -> None:
    record(world, bought(1))
    world.harness.policy.obligations = NOTHING_SHOWN
    page = world.stub.ListInteractions(pb.ListInteractionsRequest(parent="profiles/p1"), timeout=10)
    (one,) = page.interactions

    assert (one.message_id, one.event_type, one.amount_cents, one.category) == ("m001", "", 0, "")


def upload(world: World, content: bytes, **header: str) -> operations_pb2.Operation:
    def parts() -> Iterator[pb.ImportInteractionsRequest]:
        yield pb.ImportInteractionsRequest(header=pb.ImportInteractionsHeader(source_id="till", **header))  # type: ignore[arg-type]
        for start in range(0, len(content), 1000):
            yield pb.ImportInteractionsRequest(chunk=content[start : start + 1000])

    return world.stub.ImportInteractions(parts(), timeout=20)


def test_a_repeat_that_is_refused_takes_nothing_from_the_import_that_was_begun(world: World) -> None:
    content = b"source_record_id,message_id,event_time,amount\nc1,m1,2025-03-01 08:00:00,1.5\n"
    operation = upload(world, content, request_id="r-1")
    with pytest.raises(grpc.RpcError):
        upload(world, content[:9], request_id="r-1")
    world.work()
    done = Jobs("analytics", world.operations).get(operation.name, "data-office")
    response = pb.ImportInteractionsResponse()

    assert done.response.Unpack(response)
    assert response.written_rows == 1


def test_an_uploaded_file_is_imported_by_an_operation(world: World) -> None:
    lines = "".join(f"c{number},m{number},2025-03-01 08:00:00,1.5\n" for number in range(300))
    operation = upload(world, ("source_record_id,message_id,event_time,amount\n" + lines).encode())
    world.work()
    done = Jobs("analytics", world.operations).get(operation.name, "data-office")
    response = pb.ImportInteractionsResponse()

    assert done.response.Unpack(response)
    assert (response.read_rows, response.written_rows, len(response.file_sha256)) == (300, 300, 64)


def test_a_file_without_its_columns_is_refused_before_any_work(world: World) -> None:
    with pytest.raises(grpc.RpcError) as raised:
        upload(world, b"household,amount\n1,2\n")

    assert reason_of(raised.value) == (grpc.StatusCode.INVALID_ARGUMENT, "UNREADABLE_INTERACTION_FILE")
    assert list((world.warehouse.lake.root.parent / "uploads").iterdir()) == []


def test_scores_are_computed_and_read(world: World) -> None:
    profiles(world, 6)
    record(world, *[bought(number, f"p{number}") for number in range(1, 7)])
    with pytest.raises(grpc.RpcError) as raised:
        world.stub.GetScores(pb.GetScoresRequest(name="profiles/p6/scores"), timeout=10)
    world.stub.ComputeScores(pb.ComputeScoresRequest(), timeout=10)
    world.work()
    scores = world.stub.GetScores(pb.GetScoresRequest(name="profiles/p6/scores"), timeout=10)

    assert reason_of(raised.value) == (grpc.StatusCode.NOT_FOUND, "SCORES_NOT_FOUND")
    assert (scores.rfm_monetary, scores.baskets, scores.monetary_cents) == (5, 1, 600)
    assert (scores.definition_version, scores.rfm_segment_title[-2:]) == ("rfm/1", "客户")


def test_a_metric_answers_with_its_definition_and_withholds_small_cells(world: World) -> None:
    profiles(world, 12)
    north = [bought(number, f"p{number}") for number in range(1, 10)]
    online = [bought(number, f"p{number}") for number in range(10, 13)]
    for one in online:
        one.channel = "online"
    record(world, *north, *online)
    request = pb.QueryMetricRequest(name="metrics/sales")
    total = world.stub.QueryMetric(request, timeout=10)
    request.dimensions.append("channel")
    split = world.stub.QueryMetric(request, timeout=10)
    tier = world.stub.QueryMetric(
        pb.QueryMetricRequest(name="metrics/sales", dimensions=["tier", "month"], from_month="2025-01"), timeout=10
    )

    assert [(row.value, row.customer_count) for row in total.rows] == [(7800, 12)]
    assert (len(split.rows), split.suppressed_cell_count, split.source_row_count) == (0, 2, 0)
    assert (split.metric.definition_version, split.metric.owner_department) == (1, "sales")
    assert total.data_cutoff.ToDatetime() > datetime(2025, 3, 1)
    assert tier.suppressed_cell_count == 3


def asked(world: World, metric: str, *dimensions: str) -> pb.QueryMetricResponse:
    return world.stub.QueryMetric(pb.QueryMetricRequest(name=f"metrics/{metric}", dimensions=dimensions), timeout=10)


def test_the_refunds_of_few_follow_from_no_other_metrics(world: World) -> None:
    profiles(world, 40)
    sold = [bought(number, f"p{number}") for number in range(1, 41)]
    back = [bought(100 + number, f"p{number}") for number in (1, 2, *range(11, 17), *range(21, 30))]
    for one in back:
        one.event_type, one.amount_cents = "order_refunded", -50
    for one in (*sold, *back):
        one.channel = "abcd"[(int(one.profile.removeprefix("profiles/p")) - 1) // 10]
    record(world, *sold, *back)
    shown = {
        metric: [row.dimension_values[0] for row in asked(world, metric, "channel").rows]
        for metric in ("sales", "refunds", "average_basket", "baskets", "active_customers")
    }
    refunds = asked(world, "refunds", "channel")

    assert shown == {
        "sales": ["c", "d"], "refunds": ["c"], "average_basket": ["c", "d"],
        "baskets": ["a", "b", "c", "d"], "active_customers": ["a", "b", "c", "d"],
    }  # fmt: skip
    assert (refunds.suppressed_cell_count, refunds.source_row_count) == (2, 9)
    assert [(row.value, row.customer_count) for row in asked(world, "refunds").rows] == [(850, 17)]


def test_sums_of_parts_are_the_whole(world: World) -> None:
    profiles(world, 20)
    record(world, *[bought(number, f"p{number % 20 + 1}") for number in range(200)])
    for metric in ("sales", "baskets"):
        total = world.stub.QueryMetric(pb.QueryMetricRequest(name=f"metrics/{metric}"), timeout=10)
        months = world.stub.QueryMetric(
            pb.QueryMetricRequest(name=f"metrics/{metric}", dimensions=["month"]), timeout=10
        )
        assert sum(row.value for row in months.rows) == total.rows[0].value


def test_a_metric_of_too_many_cells_is_refused(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    profiles(world, 8)
    record(world, *[bought(number, f"p{number % 8 + 1}") for number in range(40)])
    monkeypatch.setattr(reading, "MOST_CELLS", 3)
    by_month = asked(world, "sales", "month")
    monkeypatch.setattr(reading, "MOST_CELLS", 2)
    with pytest.raises(grpc.RpcError) as raised:
        asked(world, "sales")

    assert len(by_month.rows) == 3
    assert reason_of(raised.value) == (grpc.StatusCode.INVALID_ARGUMENT, "INVALID_METRIC_QUERY")


def test_an_unknown_metric_and_an_unknown_dimension_are_refused(world: World) -> None:
    with pytest.raises(grpc.RpcError) as missing:
        world.stub.QueryMetric(pb.QueryMetricRequest(name="metrics/luck"), timeout=10)
    with pytest.raises(grpc.RpcError) as wrong:
        world.stub.QueryMetric(pb.QueryMetricRequest(name="metrics/sales", dimensions=["name"]), timeout=10)

    assert reason_of(missing.value) == (grpc.StatusCode.NOT_FOUND, "METRIC_NOT_FOUND")
    assert reason_of(wrong.value) == (grpc.StatusCode.INVALID_ARGUMENT, "INVALID_METRIC_QUERY")


def test_every_registered_metric_can_be_asked_by_each_of_its_dimensions(world: World) -> None:
    profiles(world, 8)
    record(world, *[bought(number, f"p{number % 8 + 1}") for number in range(40)])
    metrics = world.stub.ListMetrics(pb.ListMetricsRequest(), timeout=10).metrics
    for metric in metrics:
        for dimension in metric.dimensions:
            world.stub.QueryMetric(pb.QueryMetricRequest(name=metric.name, dimensions=[dimension]), timeout=10)

    assert len(metrics) >= 5


def test_marketing_evaluates_an_audience_as_itself_page_by_page_on_one_data_version(world: World) -> None:
    profiles(world, 7)
    stub = world.harness.stub(analytics_pb2_grpc.AnalyticsServiceStub, caller="", purpose="", peer="marketing")
    request = pb.EvaluateAudienceRequest(rule=everybody(), page_size=3)
    first = stub.EvaluateAudience(request, timeout=10)
    late = {"profile_id": "p0", "version": 1, "deleted": False, "tier": "gold", "part": "recent"}
    world.warehouse.add(PROFILES, rows_table(PROFILES, [late]))
    ids = list(first.profile_ids)
    token = first.next_page_token
    while token:
        request.page_token = token
        page = stub.EvaluateAudience(request, timeout=10)
        ids += page.profile_ids
        token = page.next_page_token
    counted = stub.EvaluateAudience(pb.EvaluateAudienceRequest(rule=everybody(), count_only=True), timeout=10)

    assert ids == [f"p{number}" for number in range(1, 8)]
    assert (first.total, counted.total, list(counted.profile_ids)) == (7, 8, [])


def test_another_service_may_not_evaluate(world: World) -> None:
    stub = world.harness.stub(analytics_pb2_grpc.AnalyticsServiceStub, caller="", purpose="", peer="tickets")
    with pytest.raises(grpc.RpcError) as raised:
        stub.EvaluateAudience(pb.EvaluateAudienceRequest(rule=everybody()), timeout=10)
    assert raised.value.code() in (grpc.StatusCode.PERMISSION_DENIED, grpc.StatusCode.UNAUTHENTICATED)


def test_a_token_of_another_rule_and_a_rule_that_does_not_fit_are_refused(world: World) -> None:
    profiles(world, 7)
    first = world.stub.EvaluateAudience(pb.EvaluateAudienceRequest(rule=everybody(), page_size=3), timeout=10)
    other = audience_pb2.AudienceRule(trait={"trait": "gender", "operator": 1, "values": ["male"]})
    wrong = audience_pb2.AudienceRule(trait={"trait": "gender", "operator": 6, "values": ["male"]})
    with pytest.raises(grpc.RpcError) as stale:
        request = pb.EvaluateAudienceRequest(rule=other, page_token=first.next_page_token)
        world.stub.EvaluateAudience(request, timeout=10)
    with pytest.raises(grpc.RpcError) as unfit:
        world.stub.EvaluateAudience(pb.EvaluateAudienceRequest(rule=wrong), timeout=10)

    assert stale.value.code() == grpc.StatusCode.INVALID_ARGUMENT
    assert reason_of(unfit.value) == (grpc.StatusCode.INVALID_ARGUMENT, "INVALID_AUDIENCE_RULE")


@pytest.mark.parametrize("edit", [{"t": "x"}, {"t": None, "m": None}, {"m": "m1"}, {"t": 1 << 62}, {}, {"t": -1}])
def test_an_edited_token_of_interactions_is_no_failure(world: World, edit: dict[str, str | int | None]) -> None:
    record(world, bought(1))
    token = encode_token(edit, filter_hash("interactions", "profiles/p1"))
    request = pb.ListInteractionsRequest(parent="profiles/p1", page_token=token)
    try:
        world.stub.ListInteractions(request, timeout=10)
    except grpc.RpcError as error:
        assert reason_of(error) == (grpc.StatusCode.INVALID_ARGUMENT, "PAGE_TOKEN_INVALID")


@pytest.mark.parametrize(
    "edit", [{"offset": "x"}, {"offset": -1}, {"profiles": "x"}, {"profiles": 99}, {"profiles": 1 << 50}, {"odd": 1}]
)
def test_an_edited_token_of_an_audience_is_no_failure(world: World, edit: dict[str, str | int | None]) -> None:
    profiles(world, 7)
    token = encode_token(edit, filter_hash("audience", rule_digest(everybody())))
    try:
        world.stub.EvaluateAudience(pb.EvaluateAudienceRequest(rule=everybody(), page_token=token), timeout=10)
    except grpc.RpcError as error:
        assert error.code() == grpc.StatusCode.INVALID_ARGUMENT
        assert reason_of(error)[1] in ("PAGE_TOKEN_INVALID", "STALE_PAGE_TOKEN")


@pytest.mark.parametrize("count_only", [True, False])
def test_an_audience_that_an_erasure_deletes_as_it_is_read_is_asked_anew(
    world: World, monkeypatch: pytest.MonkeyPatch, count_only: bool
) -> None:
    profiles(world, 7)
    request = pb.EvaluateAudienceRequest(rule=everybody())
    world.stub.EvaluateAudience(request, timeout=10)
    derived, request.count_only = world.warehouse.derived, count_only
    find = derived.find

    def erased_after(name: str) -> Path | None:
        found = find(name)
        derived.forget_all()
        return found

    with monkeypatch.context() as meanwhile:
        meanwhile.setattr(derived, "find", erased_after)
        with pytest.raises(grpc.RpcError) as raised:
            world.stub.EvaluateAudience(request, timeout=10)

    assert reason_of(raised.value) == (grpc.StatusCode.INVALID_ARGUMENT, "STALE_PAGE_TOKEN")
    assert world.stub.EvaluateAudience(request, timeout=10).total == 7


def test_a_row_filter_narrows_audiences_lists_scores_and_figures(world: World) -> None:
    profiles(world, 6, owner_department="sales")
    record(world, *[bought(number, f"p{number}") for number in range(1, 7)])
    everything = Obligations(everything=True, row_filter=(Condition("owner_department", ("marketing",)),))
    world.harness.policy.obligations = everything
    audience = world.stub.EvaluateAudience(pb.EvaluateAudienceRequest(rule=everybody()), timeout=10)
    page = world.stub.ListInteractions(pb.ListInteractionsRequest(parent="profiles/p1"), timeout=10)
    figures = world.stub.QueryMetric(pb.QueryMetricRequest(name="metrics/sales"), timeout=10)

    assert (audience.total, len(page.interactions), len(figures.rows)) == (0, 0, 0)


def test_an_empty_lake_answers_with_nothing(world: World) -> None:
    audience = world.stub.EvaluateAudience(pb.EvaluateAudienceRequest(rule=everybody()), timeout=10)
    page = world.stub.ListInteractions(pb.ListInteractionsRequest(parent="profiles/p1"), timeout=10)
    figures = world.stub.QueryMetric(pb.QueryMetricRequest(name="metrics/sales"), timeout=10)

    assert (audience.total, len(page.interactions), len(figures.rows)) == (0, 0, 0)
    assert world.warehouse.lake.snapshot(INTERACTIONS).rows == 0
