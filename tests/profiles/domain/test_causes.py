"""A cause is suspected where failing rows are more frequent than elsewhere, and shown with its counts."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from services.profiles.domain.causes import FACTORS, suspected


def test_the_lift_is_the_share_among_failed_by_the_share_among_all() -> None:
    (cause,) = suspected(100, 1000, {"batch": {"operations/a": (80, 200), "operations/b": (20, 800)}})

    assert (cause.factor, cause.value, cause.failed, cause.measured) == ("batch", "operations/a", 80, 200)
    assert cause.lift == pytest.approx((80 / 100) / (200 / 1000)) == pytest.approx(4.0)
    assert cause.excess == pytest.approx(80 - 100 * 200 / 1000) == pytest.approx(60)


def test_what_every_row_has_explains_nothing() -> None:
    assert suspected(100, 1000, {"source": {"sources/till": (100, 1000)}}) == []


def test_a_handful_of_rows_is_no_suspicion_however_strong() -> None:
    assert suspected(100, 1000, {"batch": {"operations/a": (2, 2)}}) == []
    assert suspected(100, 1000, {"batch": {"operations/a": (4, 4)}}) == []


def test_what_explains_most_rows_comes_first_and_of_equals_the_more_telling() -> None:
    counts = {
        "source": {"sources/shop": (90, 300)}, "batch": {"operations/a": (90, 300), "operations/b": (10, 10)},
    }  # fmt: skip

    found = [(item.factor, item.value) for item in suspected(100, 1000, counts)]
    assert found == [("batch", "operations/a"), ("source", "sources/shop"), ("batch", "operations/b")]


COUNTS = st.dictionaries(st.text(max_size=3), st.tuples(st.integers(0, 50), st.integers(0, 50)))


@given(st.dictionaries(st.sampled_from(FACTORS), COUNTS))
def test_every_cause_is_over_represented(counts: dict[str, dict[str, tuple[int, int]]]) -> None:
    rows = {f: {v: (bad, bad + good) for v, (bad, good) in held.items() if bad + good} for f, held in counts.items()}
    failed, measured = 40, 400
    for cause in suspected(failed, measured, rows):
        assert cause.value
        assert cause.lift >= 1.2
        assert cause.excess > 0
    assert suspected(0, measured, rows) == []
