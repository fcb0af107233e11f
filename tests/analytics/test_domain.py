"""Scores, suppression, metrics and rows, without a lake."""

from __future__ import annotations

from datetime import UTC, datetime

import duckdb
import numpy as np
import pytest
from google.protobuf.timestamp_pb2 import Timestamp
from hypothesis import given, settings
from hypothesis import strategies as st
from kehu.analytics.v1 import analytics_pb2, audience_pb2, error_reason_pb2
from kehu.consent.v1 import consent_pb2
from kehu.consent.v1.events_pb2 import ConsentChanged
from kehu.marketing.v1.events_pb2 import DeliveryRecorded
from kehu.profiles.v1.events_pb2 import ProfileChanged, ProfilesMerged, ProfilesUnmerged

from services.analytics.domain import errors, rfm
from services.analytics.domain.importing import columns_of, parse_offset, parse_renames
from services.analytics.domain.metrics import REGISTRY, compile_metric, find_metric, month_start
from services.analytics.domain.reach import Reach, reach_of
from services.analytics.domain.rows import check_times, message_of, rows_of
from services.analytics.domain.suppression import Period, suppressed, withheld
from services.analytics.domain.tables import TABLES
from services.chassis.access import Condition, Either, Except
from services.chassis.errors import Denied, KehuError

NOON = datetime(2025, 3, 15, 12, tzinfo=UTC)


def stamp(moment: datetime = NOON) -> Timestamp:
    found = Timestamp()
    found.FromDatetime(moment)
    return found


def test_equal_values_score_the_same_and_a_value_at_a_cut_point_is_below_it() -> None:
    cuts = rfm.cut_points([1, 2, 3, 4, 5, 6, 7, 8, 9, 10])

    assert cuts == (2, 4, 6, 8)
    assert [rfm.score(value, cuts) for value in (1, 2, 3, 10)] == [1, 1, 2, 5]
    assert [rfm.score(value, cuts, less_is_better=True) for value in (1, 2, 3, 10)] == [5, 5, 4, 1]


def test_every_triple_of_scores_has_one_of_eight_segments() -> None:
    found = {rfm.segment(r, f, m) for r in range(1, 6) for f in range(1, 6) for m in range(1, 6)}

    assert set(rfm.SEGMENTS) == found
    assert rfm.segment(4, 5, 4) == "champions"
    assert rfm.SEGMENTS["champions"] == "重要价值客户"


measures = st.lists(
    st.tuples(st.integers(0, 400), st.integers(1, 30), st.integers(-500, 100_000)), min_size=1, max_size=60
)


@settings(max_examples=60, deadline=None)
@given(rows=measures)
def test_the_statements_score_as_the_definition_says(rows: list[tuple[int, int, int]]) -> None:
    with duckdb.connect() as database:
        database.execute(
            "CREATE TABLE measures(profile_id INT, recency_days INT, baskets BIGINT, monetary_cents BIGINT)"
        )
        database.executemany("INSERT INTO measures VALUES (?, ?, ?, ?)", [(i, *row) for i, row in enumerate(rows)])
        database.execute(f"CREATE TABLE cuts AS {rfm.cut_points_sql()}")
        wanted = "rfm_recency, rfm_frequency, rfm_monetary, rfm_segment"
        statement = f"SELECT {wanted} FROM ({rfm.scores_sql()}) ORDER BY profile_id"
        found = database.execute(statement).fetchall()
    cuts = [rfm.cut_points([row[column] for row in rows]) for column in range(3)]
    expected = []
    for recency, baskets, cents in rows:
        scores = (
            rfm.score(recency, cuts[0], less_is_better=True),
            rfm.score(baskets, cuts[1]),
            rfm.score(cents, cuts[2]),
        )
        expected.append((*scores, rfm.segment(*scores)))

    assert expected == found


def test_a_small_cell_takes_the_smallest_other_one_with_it() -> None:
    assert {("a",), ("b",)} == suppressed({("a",): 3, ("b",): 8, ("c",): 90})


def test_two_small_cells_alone_do_not_protect_each_other() -> None:
    hidden = suppressed({("a",): 1, ("b",): 2, ("c",): 50, ("d",): 60})

    assert {("a",), ("b",), ("c",)} == hidden


def test_nothing_is_withheld_where_all_cells_are_large_and_a_lone_small_cell_is() -> None:
    assert frozenset() == suppressed({("a",): 5, ("b",): 8})
    assert {()} == suppressed({(): 4})


cells = st.dictionaries(
    st.tuples(st.sampled_from("abcd"), st.sampled_from("xyz")), st.integers(1, 30), min_size=1, max_size=12
)


@given(customers=cells)
def test_no_line_total_gives_a_small_cell_back(customers: dict[tuple[str, str], int]) -> None:
    hidden = suppressed(customers)
    assert {cell for cell, count in customers.items() if count < 5} <= hidden
    for dimension in (0, 1):
        for value in {cell[dimension] for cell in customers}:
            line = [cell for cell in customers if cell[dimension] == value]
            gone = [cell for cell in line if cell in hidden]
            if gone and len(gone) < len(line):
                assert len(gone) >= 2
                assert max(customers[cell] for cell in gone) >= 5


REGIONS, MONTHS = ("r1", "r2", "r3"), ("2025-01", "2025-02", "2025-03", "2025-04")
PERIODS = [(a, b) for a in ("", *MONTHS) for b in ("", *MONTHS) if not a or not b or a <= b]
counts = st.lists(st.integers(0, 14), min_size=12, max_size=12)


def released(fine: dict[tuple[str, str], int]) -> list[list[int]]:
    """All figures by region that anybody can ask for: any period, with months and without, as sums of fine cells."""
    grid = list(fine)
    by_month = {cell: count for cell, count in fine.items() if count}
    sums: list[list[int]] = []
    for period in (Period(*pair) for pair in PERIODS):
        for month_at, width in ((-1, 1), (1, 2)):
            asked: dict[tuple[str, ...], int] = {}
            for cell, count in by_month.items():
                if period.holds(cell[1]):
                    asked[cell[:width]] = asked.get(cell[:width], 0) + count
            shown = asked.keys() - withheld(asked, by_month, period, month_at)
            sums += [[int(period.holds(cell[1]) and cell[:width] == key) for cell in grid] for key in shown]
    return sums


@settings(max_examples=150, deadline=None)
@given(numbers=counts)
def test_no_combination_of_periods_gives_a_small_cell_back(numbers: list[int]) -> None:
    fine = dict(zip([(region, month) for region in REGIONS for month in MONTHS], numbers, strict=True))
    sums = released(fine)
    rank = np.linalg.matrix_rank(np.array(sums)) if sums else 0
    for number, (cell, count) in enumerate(fine.items()):
        if 0 < count < 5:
            wanted = [int(number == index) for index in range(len(fine))]  # derivable if it adds no rank
            assert np.linalg.matrix_rank(np.array([*sums, wanted])) == rank + 1, cell


def test_a_metric_refuses_what_it_does_not_have() -> None:
    with pytest.raises(errors.MetricNotFound):
        find_metric("luck")
    with pytest.raises(errors.InvalidMetricQuery):
        compile_metric(find_metric("sales"), ["outcome"], "", "", has_aliases=False)
    with pytest.raises(errors.InvalidMetricQuery):
        compile_metric(find_metric("sales"), ["tier", "tier"], "", "", has_aliases=False)
    with pytest.raises(errors.InvalidMetricQuery):
        compile_metric(find_metric("sales"), [], "2025-02", "2025-01", has_aliases=False)


@pytest.mark.parametrize("months", [("0000-01", ""), ("9999-12", ""), ("", "0000-01"), ("", "9999-12")])
def test_a_metric_refuses_a_month_that_no_clock_tells(months: tuple[str, str]) -> None:
    with pytest.raises(errors.InvalidMetricQuery) as raised:
        compile_metric(find_metric("sales"), [], *months, has_aliases=False)
    assert [violation.field for violation in raised.value.violations] == ["from_month" if months[0] else "to_month"]


def test_months_begin_in_china() -> None:
    assert datetime(2024, 12, 31, 16, tzinfo=UTC) == month_start("2025-01")
    assert month_start("2026-01") == month_start("2025-12", after=1)


def test_every_metric_has_an_owner_a_version_and_words() -> None:
    for metric in REGISTRY.values():
        assert metric.version >= 1 and metric.owner_department and metric.definition and metric.dimensions


def test_what_a_fact_leaves_empty_is_unknown_in_the_lake() -> None:
    rows = rows_of(ProfileChanged(profile_id="a", version=1, event_time=stamp()))
    (profile,) = rows["profiles"]

    assert (profile["gender"], profile["birth_year"], profile["province_code"]) == (None, None, None)
    assert rows["aliases"] == []


def test_a_merge_is_an_alias_whichever_fact_tells_it() -> None:
    told = rows_of(ProfilesMerged(profile_id="b", merged_profile_id="a", merged_profile_version=2, event_time=stamp()))
    seen = rows_of(ProfileChanged(profile_id="a", version=2, merged_into="b", deleted=True, event_time=stamp()))

    assert told["aliases"] == seen["aliases"]


def test_the_rows_of_each_fact_fit_their_table() -> None:
    facts = [
        ProfileChanged(profile_id="a", version=2, event_time=stamp()),
        ProfilesMerged(profile_id="b", merged_profile_id="a", version=2, event_time=stamp()),
        ProfilesUnmerged(profile_id="b", unmerged_profile_id="a", version=4, links=[{}], event_time=stamp()),
        ConsentChanged(profile_id="a", purpose_id="p", version=1, event_time=stamp()),
        DeliveryRecorded(run_id="r", profile_id="a", outcome="sent", version=1, event_time=stamp()),
        analytics_pb2.BatchCreateInteractionsRequest(interactions=[{"profile": "profiles/a", "event_time": stamp()}]),
    ]
    for fact in facts:
        kept = message_of(fact.DESCRIPTOR.full_name, fact.SerializeToString())
        for name, rows in rows_of(kept).items():
            for row in rows:
                assert set(row) == set(TABLES[name].columns)


def test_a_consent_state_keeps_its_short_name() -> None:
    granted = consent_pb2.ConsentState.Value("CONSENT_STATE_GRANTED")
    (row,) = rows_of(ConsentChanged(profile_id="a", state=granted, event_time=stamp()))["consents"]

    assert row["state"] == "granted"


def test_an_event_from_the_future_is_refused() -> None:
    late = analytics_pb2.Interaction(event_time=stamp(datetime(2030, 1, 1, tzinfo=UTC)))
    with pytest.raises(errors.InvalidInteraction) as raised:
        check_times([analytics_pb2.Interaction(event_time=stamp()), late], NOON)
    assert [violation.field for violation in raised.value.violations] == ["interactions[1].event_time"]


def test_columns_are_renamed_and_the_missing_ones_named() -> None:
    options = rfm_options("household_id=source_record_id, sales_value=amount")
    names = ["household_id", "message_id", "event_time", "sales_value", "week"]

    assert columns_of(names, options)["source_record_id"] == "household_id"
    with pytest.raises(errors.UnreadableInteractionFile) as raised:
        columns_of(["household_id"], options)
    assert raised.value.metadata["missing_columns"] == "message_id,event_time,amount"


def rfm_options(columns: str) -> object:
    from services.analytics.domain.importing import FileOptions

    return FileOptions("till", "order_completed", "", parse_renames(columns), 480)


@pytest.mark.parametrize("text", ["a", "a=nothing", "=amount", "a=amount,b=amount"])
def test_badly_written_renames_are_refused(text: str) -> None:
    with pytest.raises(errors.UnreadableInteractionFile):
        parse_renames(text)


def test_offsets_are_minutes() -> None:
    assert [parse_offset(""), parse_offset("+00:00"), parse_offset("-05:30")] == [480, 0, -330]


def test_a_row_filter_narrows_the_rule_and_an_unknown_one_denies() -> None:
    rule = audience_pb2.AudienceRule(trait={"trait": "tier", "operator": 1, "values": ["gold"]})
    narrowed = reach_of([Condition("owner_department", ("sales",))]).rule(rule)

    assert [child.trait.trait for child in narrowed.all.rules] == ["owner_department", "tier"]
    assert rule == Reach(()).rule(rule)
    gold, east = Condition("tier", ("gold",)), Condition("province_code", ("310000", "330000"))
    either = reach_of([Either(((gold,), (east,))), Except("gender", ("male",))])
    assert [len(each.all.rules) for each in either.rule(rule).all.rules[0].any.rules] == [1, 1]
    assert getattr(either.rule(rule).all.rules[1], "not").trait.trait == "gender"
    where, values = either.where()
    assert where == (
        "true AND ((p.tier IN ($reach_0)) OR (p.province_code IN ($reach_1, $reach_2)))"
        " AND (p.gender IS NOT NULL AND p.gender <> '' AND p.gender NOT IN ($reach_3))"
    )
    assert list(values.values()) == ["gold", "310000", "330000", "male"]
    for clause in (Condition("phone", ("1",)), Either(((gold,), (Condition("phone", ("1",)),))), Either(())):
        with pytest.raises(Denied):
            reach_of([clause])
    with pytest.raises(Denied):
        reach_of([Except("phone", ("1",))])
    with pytest.raises(Denied):
        reach_of([Condition("phone", ("1",))])
    with pytest.raises(Denied):
        reach_of([Condition("tier", ())])


def test_every_reason_is_listed_in_the_proto() -> None:
    raised = {
        value.reason
        for value in vars(errors).values()
        if isinstance(value, type) and issubclass(value, KehuError) and value.__module__ == errors.__name__
    }
    names = error_reason_pb2.ErrorReason.DESCRIPTOR.values_by_name
    listed = {name.removeprefix("ERROR_REASON_") for name in names} - {"UNSPECIFIED"}

    assert listed == raised
