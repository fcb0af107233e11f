"""Measure a matching against the truth, pair by pair."""

import json
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

RecordKey = tuple[str, str]


@dataclass(frozen=True, slots=True)
class Truth:
    """Who is who: the person behind each record, and the reasons of rows that should be set apart."""

    people: Mapping[RecordKey, str]
    broken: Mapping[RecordKey, str]


def read_truth(path: Path) -> Truth:
    """Read truth.jsonl."""
    people: dict[RecordKey, str] = {}
    broken: dict[RecordKey, str] = {}
    for line in path.read_text("utf-8").splitlines():
        item = json.loads(line)
        key = (item["source_id"], item["source_record_id"])
        people[key] = item["person_id"]
        if item["broken"]:
            broken[key] = item["broken"]
    return Truth(people, broken)


def evaluate(truth: Truth, assignments: Mapping[RecordKey, str]) -> tuple[float, float, float]:
    """Return pairwise precision, recall and F1 of profiles against persons.

    A broken row that was set apart takes part in no pair; any other row that is missing in `assignments`
    counts as a profile of its own.
    """
    keys = [key for key in truth.people if key in assignments or key not in truth.broken]
    found = {key: assignments.get(key, f"missing/{key[0]}/{key[1]}") for key in keys}
    right = _pairs(Counter((truth.people[key], found[key]) for key in keys))
    claimed, true = _pairs(Counter(found.values())), _pairs(Counter(truth.people[key] for key in keys))
    precision = right / claimed if claimed else 1.0
    recall = right / true if true else 1.0
    return precision, recall, 2 * precision * recall / (precision + recall) if right else 0.0


def _pairs(counts: Mapping[object, int]) -> int:
    return sum(count * (count - 1) // 2 for count in counts.values())
