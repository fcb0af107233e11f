"""Learn a match model from all stored records, and say what would be decided otherwise by it.

It runs in a process of its own (`python -m services.profiles.resolution.learning`), as the full pass does and with the
same frames: the first says what is asked, then come pages of profiles, an empty frame ends them, one frame answers.
"""

from __future__ import annotations

import sys
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import orjson

from services.profiles.domain.comparison import LEVELS
from services.profiles.domain.match import band_of, is_of_the_crowd, ruling
from services.profiles.domain.model import MatchModel, among, model_from_json, model_to_json
from services.profiles.resolution.full_pass import FullPass, as_child, ending, read_frame, received, write_frame
from services.profiles.resolution.judging import APART, MERGE, REVIEW, Judged
from services.profiles.resolution.people import People, labels_of, learn
from services.profiles.values import record_key

LEAST_MATCHES = 200  # pairs of one person that the best kind of key must meet: fewer teach chance
SAMPLES = 10  # of each move from band to band
BANDS = {APART: "apart", REVIEW: "review", MERGE: "merge"}


def answer(stored: FullPass, asked: Mapping[str, Any]) -> dict[str, Any]:
    """Return the model as JSON with its effect, or why none was learnt: `refused`, and what was met.

    `asked` has the model in use as JSON, the new version, its bands, a seed, how many people are stored, and the
    verdicts: steps and is_one.
    """
    in_use = model_from_json(asked["model"])
    verdicts = [(_levels(steps), bool(is_one)) for steps, is_one in asked["verdicts"]]
    people = People((), ignores_shared=False, gathered=stored.people.gathered)
    try:
        if people.gathered.size < LEAST_MATCHES:
            raise ValueError("too few records")
        model = learn(people, asked["version"], tuple(asked["bands"]), asked["seed"], verdicts)
    except ValueError as error:
        return {"refused": str(error), "matches": 0}
    matches = max(lesson["matches"] for lesson in model.report["lessons"])
    if matches < LEAST_MATCHES:
        return {"refused": "too few pairs of one person", "matches": matches}
    del people
    made = model_to_json(replace(model, people=len(stored.profiles)))
    model = among(model_from_json(made), int(asked["people"]))
    return {
        "model": made, "effect": Comparison(stored, in_use, model).effect(),
        "verdicts": list(_outcomes(asked["verdicts"], in_use, model)),
    }  # fmt: skip


def _levels(steps: Sequence[Sequence[Any]]) -> dict[str, str]:
    """Return the levels of a waterfall; those that are no more are unknown."""
    return {name: level for name, level, *_ in steps if level in LEVELS.get(name, ())}


def _outcomes(
    verdicts: Sequence[Sequence[Any]], in_use: MatchModel, model: MatchModel
) -> Iterator[tuple[bool, str, str, int]]:
    """Yield verdict, bands by the model in use and the new one, how many; a name's frequency counts as it did then."""
    counts: Counter[tuple[bool, str, str]] = Counter()
    for steps, is_one in verdicts:
        found = {name: _levels(steps).get(name, "") for name in LEVELS}
        rarity = sum(float(weight) for _, level, weight in steps if level == "frequency")
        bands = []
        for judge in (in_use, model):
            weight = judge.prior_weight + rarity
            weight += sum(judge.weights[name][level] for name, level in found.items() if level)
            weight += judge.crowd_weight if is_of_the_crowd(found) else 0.0
            bands.append(str(band_of(weight, *ruling(found), judge)))
        counts[bool(is_one), bands[0], bands[1]] += 1
    for (said, before, after), count in sorted(counts.items()):
        yield said, before, after, count


class Comparison:
    """What two models make of the same records."""

    def __init__(self, stored: FullPass, in_use: MatchModel, model: MatchModel) -> None:
        self._stored = stored
        self._models = in_use, model

    def effect(self) -> dict[str, Any]:
        """Return pairs by band before and after, people before and after, and samples of the pairs that move."""
        stored, unique = self._stored, np.array(self._stored.uniques)
        (before, edges), (after, others) = (
            labels_of(stored.people, model, unique, stored.keys) for model in self._models
        )
        pairs = _both(edges, others)
        moved = [stored.people.judge(model).judge(*pairs) for model in self._models]
        counts: Counter[tuple[int, int]] = Counter(zip(moved[0].bands.tolist(), moved[1].bands.tolist(), strict=True))
        return {
            "moves": [[BANDS[one], BANDS[two], count] for (one, two), count in sorted(counts.items())],
            "people_before": int(np.unique(before).size),
            "people_after": int(np.unique(after).size),
            "people_joined": _spread(after, before),
            "people_parted": _spread(before, after),
            "samples": list(self._samples(*moved)),
        }

    def _samples(self, before: Judged, after: Judged) -> Iterator[dict[str, Any]]:
        for one in BANDS:
            for two in BANDS:
                chosen = np.flatnonzero((before.bands == one) & (after.bands == two))[:SAMPLES] if one != two else ()
                for at in chosen:
                    both = int(before.left[at]), int(before.right[at])
                    yield {
                        "records": [record_key(*self._stored.keys[item]) for item in both],
                        "profiles": [self._stored.profiles[self._stored.homes[item]] for item in both],
                        "before": BANDS[one], "after": BANDS[two],
                        "weights": [float(before.weights[at]), float(after.weights[at])],
                    }  # fmt: skip


def _both(one: Judged, other: Judged) -> tuple[np.ndarray, np.ndarray]:
    """Return the pairs that are not apart by one of two models, each once."""
    left, right = (np.concatenate([getattr(one, side), getattr(other, side)]) for side in ("left", "right"))
    sides = np.unique(np.stack([np.minimum(left, right), np.maximum(left, right)], 1), axis=0).astype(np.int32)
    return np.ascontiguousarray(sides[:, 0]), np.ascontiguousarray(sides[:, 1])


def _spread(whole: np.ndarray, parts: np.ndarray) -> int:
    """Return how many people of one clustering are several in the other."""
    pairs = np.unique(np.stack([whole, parts], 1), axis=0)
    return int((np.unique(pairs[:, 0], return_counts=True)[1] > 1).sum())


def main() -> None:
    """Serve one training over the pipe."""
    source, sink = sys.stdin.buffer, sys.stdout.buffer
    asked = orjson.loads(read_frame(source))
    write_frame(sink, ending(answer(received(source), asked)))
    sink.flush()


if __name__ == "__main__":
    as_child(main)
