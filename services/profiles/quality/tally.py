"""The sums of one measurement while it runs: figures, and for each rule what its failing rows have in common.

Its size depends on fields, sources, departments and rules, never on how many records are measured.
"""

from __future__ import annotations

import zlib
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field

import orjson

from services.profiles.domain.causes import FACTORS
from services.profiles.domain.quality import Finding
from services.profiles.domain.quality_report import Cell

SAMPLES_LIMIT = 20
VALUES_LIMIT = 500  # circumstances counted for one factor of a rule; those met later are counted as others
Circumstances = Mapping[str, Sequence[str]]


@dataclass(frozen=True, slots=True)
class QualityRule:
    """A rule in use: the least share that must pass; no source or department means all."""

    rule_id: str
    dimension: str
    field: str
    threshold: float
    source_id: str = ""
    department: str = ""
    least_measured: int = 1
    severity: str = "medium"
    due_days: int = 7
    is_active: bool = True

    def fails(self, passed: int, measured: int) -> bool:
        """Tell whether these figures break the rule."""
        return measured >= max(self.least_measured, 1) and passed < self.threshold * measured


@dataclass(slots=True)
class Suspects:
    """What is known of a rule's rows in one department: sums, sums by circumstance, and the first that failed."""

    passed: int = 0
    measured: int = 0
    counts: dict[str, dict[str, list[int]]] = field(default_factory=lambda: {name: {} for name in FACTORS})
    samples: list[str] = field(default_factory=list)

    def add(self, finding: Finding, circumstances: Circumstances) -> None:
        """Count one row."""
        self.measured += 1
        self.passed += finding.passed
        if not finding.passed and len(self.samples) < SAMPLES_LIMIT:
            self.samples.append(finding.key)
        for factor, values in circumstances.items():
            counted = self.counts[factor]
            for value in values:
                if value not in counted and len(counted) >= VALUES_LIMIT:
                    value = ""
                sums = counted.setdefault(value, [0, 0])
                sums[0] += not finding.passed
                sums[1] += 1


class Tally:
    """The sums of a measurement."""

    def __init__(self, rules: Iterable[QualityRule]) -> None:
        self._cells: dict[tuple[str, str, str, str], list[int]] = {}
        self._suspects: dict[tuple[str, str], Suspects] = {}
        self._rules: defaultdict[tuple[str, str], list[QualityRule]] = defaultdict(list)
        for rule in rules:
            self._rules[rule.dimension, rule.field].append(rule)

    def add(self, finding: Finding, department: str, circumstances: Circumstances) -> None:
        """Count one finding."""
        sums = self._cells.setdefault((finding.dimension, finding.field, finding.source_id, department), [0, 0])
        sums[0] += finding.passed
        sums[1] += 1
        for rule in self._rules.get((finding.dimension, finding.field), ()):
            if rule.source_id in ("", finding.source_id) and rule.department in ("", department):
                self.suspects(rule.rule_id, department).add(finding, circumstances)

    def suspects(self, rule_id: str, department: str) -> Suspects:
        """Return what is known of a rule's rows in a department."""
        return self._suspects.setdefault((rule_id, department), Suspects())

    def departments(self) -> list[str]:
        """Return the departments that anything was measured of."""
        return sorted({department for *_, department in self._cells})

    def cells(self) -> list[Cell]:
        """Return the figures."""
        return [Cell(*key, *self._cells[key]) for key in sorted(self._cells)]

    def dump(self) -> bytes:
        """Return the sums as a checkpoint keeps them."""
        suspects = [
            [*key, item.passed, item.measured, item.counts, item.samples] for key, item in self._suspects.items()
        ]
        cells = [[*key, *sums] for key, sums in self._cells.items()]
        return zlib.compress(orjson.dumps({"cells": cells, "suspects": suspects}), 1)

    def load(self, dumped: bytes) -> None:
        """Take the sums of a checkpoint."""
        plain = orjson.loads(zlib.decompress(dumped))
        for dimension, name, source_id, department, *sums in plain["cells"]:
            self._cells[dimension, name, source_id, department] = sums
        for rule_id, department, *rest in plain["suspects"]:
            self._suspects[rule_id, department] = Suspects(*rest)
