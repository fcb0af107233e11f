"""Claims about what profiles is told of purchases, for lifecycle stages."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import pytest
from kehu.analytics.v1 import analytics_pb2_grpc

from services.analytics.scoring import compute_scores
from services.profiles.ageing.staging import scores_of
from services.profiles.domain.lifecycle import united
from services.profiles.errors import ScoresMissing
from tests.analytics.test_api import World, world
from tests.analytics.test_splits import Lakeside, merged, unmerged

__all__ = ["world"]


def test_profiles_is_told_what_was_measured_and_a_merged_customer_counts_once(world: World) -> None:
    ask = scores_of(world.harness.stub(analytics_pb2_grpc.AnalyticsServiceStub, caller="", peer="profiles"))
    with pytest.raises(ScoresMissing):
        ask(["a"])
    side = Lakeside(world.warehouse)
    side.live("a", "b", "c")
    side.buy("a", "m1", "1", days_ago=10, cents=300)
    side.buy("b", "m2", "7", days_ago=40, cents=500)
    side.buy("b", "m3", "7", days_ago=70, cents=500)
    compute_scores(world.warehouse)

    def figures(*names: str) -> tuple[object, ...]:
        found = united(ask(names).by_id[name] for name in names if name in ask(names).by_id)
        return found.baskets, found.monetary_cents, found.recency_days, found.tenure_days

    measured = ask(["a", "b", "c", "nobody"])
    assert sorted(measured.by_id) == ["a", "b"]
    assert (figures("a"), figures("b")) == ((1, 300, 0, 0), (2, 1000, 30, 60))  # days to the newest event
    apart = figures("a", "b")

    side.tell(merged("a", "b", 2))
    assert figures("a", "b") == apart == (3, 1300, 0, 60)

    side.tell(unmerged("a", "b", 4, "7"))
    assert (figures("a"), figures("b")) == ((1, 300, 0, 0), (2, 1000, 30, 60))
    assert (ask(["a"]).cutoff, ask(["a"]).ended) == (measured.cutoff, measured.ended)
    assert timedelta() <= datetime.now(UTC) - measured.ended < timedelta(minutes=2)
