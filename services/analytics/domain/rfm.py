"""RFM: recency, frequency and monetary value in quintiles, and the eight segments named by them.

Definition rfm/1. Recency: whole days from the last order_completed to the data cut-off. Frequency: different
baskets of order_completed. Monetary: sum of order_completed and order_refunded amounts, refunds negative, in cents.
Quintiles by cut points: the i-th is the smallest measured value v with at least i/5 of the profiles ≤ v. The score
is 1 + the number of cut points below the value, so a value `≤` the first cut point scores 1 and equal values always
score the same; for recency, where less is better, it is 5 less that number. High means a score of 4 or 5.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

DEFINITION_VERSION: Final = "rfm/1"
PURCHASE: Final = "order_completed"
REFUND: Final = "order_refunded"
HIGH: Final = 4
QUINTILES: Final = 5

# (high recency, high frequency, high monetary) → id, Chinese title: the eight classes of the Chinese RFM practice.
_BY_LEVELS: Final = {
    (True, True, True): ("champions", "重要价值客户"),
    (True, False, True): ("big_spenders_to_grow", "重要发展客户"),
    (False, True, True): ("loyal_slipping_away", "重要保持客户"),
    (False, False, True): ("cannot_lose", "重要挽留客户"),
    (True, True, False): ("regulars", "一般价值客户"),
    (True, False, False): ("newcomers", "一般发展客户"),
    (False, True, False): ("fading", "一般保持客户"),
    (False, False, False): ("hibernating", "一般挽留客户"),
}
SEGMENTS: Final = dict(_BY_LEVELS.values())


def cut_points(values: Sequence[int]) -> tuple[int, ...]:
    """Return the four cut points of a non-empty sample; O(n log n)."""
    ordered = sorted(values)
    return tuple(ordered[-(-len(ordered) * part // QUINTILES) - 1] for part in range(1, QUINTILES))


def score(value: int, cuts: Sequence[int], *, less_is_better: bool = False) -> int:
    """Return 1 to 5; 5 is best."""
    below = sum(cut < value for cut in cuts)
    return QUINTILES - below if less_is_better else 1 + below


def segment(recency: int, frequency: int, monetary: int) -> str:
    """Return the segment id of three scores, each 1 to 5."""
    return _BY_LEVELS[(recency >= HIGH, frequency >= HIGH, monetary >= HIGH)][0]


def _quintile_sql(column: str, cuts: str, *, less_is_better: bool) -> str:
    below = " + ".join(f"(c.{cuts}[{index}] < r.{column})::INT" for index in range(1, QUINTILES))
    return f"{QUINTILES} - ({below})" if less_is_better else f"1 + {below}"


def _segment_sql() -> str:
    cases = " ".join(
        f"WHEN (rfm_recency >= {HIGH}) = {levels[0]} AND (rfm_frequency >= {HIGH}) = {levels[1]}"
        f" AND (rfm_monetary >= {HIGH}) = {levels[2]} THEN '{name}'"
        for levels, (name, _) in _BY_LEVELS.items()
    )
    return f"CASE {cases} END"


def measures_sql(*, has_aliases: bool) -> str:
    """Return the statement that measures every live profile with a purchase; parameters $cutoff, $purchase, $refund."""
    owner = "coalesce(a.survivor_id, i.profile_id)" if has_aliases else "i.profile_id"
    join = " LEFT JOIN aliases a ON a.profile_id = i.profile_id" if has_aliases else ""
    bought = "FILTER (WHERE i.event_type = $purchase)"
    return (
        f"SELECT {owner} AS profile_id,"
        f" ((epoch_us($cutoff::TIMESTAMPTZ) - epoch_us(max(i.event_time) {bought})) // 86400000000)::INT"
        " AS recency_days,"
        f" ((epoch_us($cutoff::TIMESTAMPTZ) - epoch_us(min(i.event_time) {bought})) // 86400000000)::INT"
        " AS tenure_days,"
        f" count(DISTINCT coalesce(i.basket_id, i.message_id)) {bought} AS baskets,"
        " sum(i.amount_cents)::BIGINT AS monetary_cents"
        f" FROM interactions i{join} WHERE i.event_type IN ($purchase, $refund)"
        f" GROUP BY {owner} HAVING count(*) {bought} > 0"
    )


def cut_points_sql() -> str:
    """Return the statement that finds the cut points of the relation `measures`."""
    quantiles = "[0.2, 0.4, 0.6, 0.8]"
    columns = ", ".join(
        f"quantile_disc({column}, {quantiles}) AS {column}" for column in ("recency_days", "baskets", "monetary_cents")
    )
    return f"SELECT {columns} FROM measures"


def scores_sql() -> str:
    """Return the statement that scores the relation `measures` by the relation `cuts`."""
    recency = _quintile_sql("recency_days", "recency_days", less_is_better=True)
    frequency = _quintile_sql("baskets", "baskets", less_is_better=False)
    monetary = _quintile_sql("monetary_cents", "monetary_cents", less_is_better=False)
    return (
        f"SELECT *, {_segment_sql()} AS rfm_segment FROM (SELECT r.*, ({recency})::INT AS rfm_recency,"
        f" ({frequency})::INT AS rfm_frequency, ({monetary})::INT AS rfm_monetary FROM measures r, cuts c)"
    )
