"""The Fellegi–Sunter model as versioned data: how likely each level is for one person and for two."""

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from functools import lru_cache
from importlib import resources
from math import log2
from typing import Any

from services.profiles.domain.comparison import EXACT, LEVELS
from services.profiles.domain.values import PersonName

FLOOR = 1e-5  # no level is impossible
LevelOdds = Mapping[str, tuple[float, float]]


@dataclass(frozen=True, slots=True)
class MatchModel:
    """Probabilities of the levels (Fellegi and Sunter 1969): m for one person, u for two.

    `prior_weight` is log2 of the odds that two records taken at random are of one person. A weight of at
    least `merge_weight` bits merges, of at least `review_weight` asks a steward. `surnames` and `given_names`
    are shares of the population; names not listed have the share of the rarest listed one. `report` says what it
    was learnt from.

    `people` is among how many it was learnt, 0 where nobody knows; `crowd_weight` what is taken away, 0 or less, from
    pairs that have nothing of one person or one home in common: see `among`.
    """

    version: str
    prior_weight: float
    merge_weight: float
    review_weight: float
    odds: Mapping[str, LevelOdds]
    weights: Mapping[str, Mapping[str, float]]
    surnames: Mapping[str, float]
    given_names: Mapping[str, float]
    report: Mapping[str, Any] = field(default_factory=dict)
    people: int = 0
    crowd_weight: float = 0.0

    def name_adjustment(self, name: PersonName) -> float:
        """Return the bits a shared rare name adds, or a shared frequent one takes away (term frequency)."""
        share = self._share(self.surnames, name.surname) * self._share(self.given_names, name.given)
        u_exact = self.odds["name"][EXACT][1]
        return max(-_ADJUSTMENT_LIMIT, min(_ADJUSTMENT_LIMIT, log2(u_exact / max(share, 1e-9))))

    @staticmethod
    def _share(shares: Mapping[str, float], part: str) -> float:
        """Return how many have this part of a name; who is in no list is taken for as rare as the rarest there."""
        found = shares.get(part)
        return min(shares.values(), default=1e-3) if found is None else found


def among(model: MatchModel, people: int) -> MatchModel:
    """Return the model for a base of so many people: by a bit stricter for each doubling of those it was learnt among.

    Pairs grow with the square of the people, those of one person with the people: the odds of two records taken at
    random fall by half (Fellegi and Sunter 1969: the prior is their share). Who else bears one name and one birth date
    grows likewise; who else has one phone, mailbox, document or home does not, so pairs with those keep their weight.
    Whole bits: a base that grows changes the model seldom.
    """
    doublings = int(log2(people / model.people)) if 0 < model.people < people else 0
    return model if doublings == -model.crowd_weight else replace(model, crowd_weight=-float(doublings))


_ADJUSTMENT_LIMIT = 6.0  # bits; a name alone must not outweigh an identifier


def make_model(
    version: str,
    prior_weight: float,
    bands: tuple[float, float],
    odds: Mapping[str, LevelOdds],
    surnames: Mapping[str, float],
    given_names: Mapping[str, float],
    report: Mapping[str, Any],
) -> MatchModel:
    """Return a model with its weights computed; `bands` are the merge and the review weight."""
    weights = {
        comparison: {level: log2(m / u) for level, (m, u) in levels.items()} for comparison, levels in odds.items()
    }
    return MatchModel(version, prior_weight, *bands, odds, weights, surnames, given_names, report)


def model_from_json(text: str) -> MatchModel:
    """Read a model that model_to_json wrote."""
    read = json.loads(text)
    odds = {
        name: {level: (float(pair[0]), float(pair[1])) for level, pair in levels.items()}
        for name, levels in read["odds"].items()
    }
    bands = (float(read["merge_weight"]), float(read["review_weight"]))
    names = (read["surnames"], read["given_names"])
    made = make_model(read["version"], float(read["prior_weight"]), bands, odds, *names, read["report"])
    return replace(made, people=int(read.get("people", 0)), crowd_weight=float(read.get("crowd_weight", 0.0)))


def model_to_json(model: MatchModel) -> str:
    """Write a model as JSON, its probabilities with six significant digits."""
    written = {
        "version": model.version,
        "prior_weight": round(model.prior_weight, 4),
        "merge_weight": model.merge_weight,
        "review_weight": model.review_weight,
        "people": model.people,
        "crowd_weight": model.crowd_weight,
        "report": model.report,
        "odds": {
            name: {level: [float(f"{value:.6g}") for value in pair] for level, pair in levels.items()}
            for name, levels in model.odds.items()
        },
        "surnames": {key: float(f"{value:.4g}") for key, value in model.surnames.items()},
        "given_names": {key: float(f"{value:.4g}") for key, value in model.given_names.items()},
    }
    return json.dumps(written, ensure_ascii=False, indent=1) + "\n"


def completed(model: MatchModel) -> MatchModel:
    """Return a model of people with all levels of now; one that it was learnt without weighs nothing."""
    odds = {
        name: {level: model.odds.get(name, {}).get(level, (FLOOR, FLOOR)) for level in levels}
        for name, levels in LEVELS.items()
    }
    bands = (model.merge_weight, model.review_weight)
    names = (model.surnames, model.given_names)
    made = make_model(model.version, model.prior_weight, bands, odds, *names, model.report)
    return replace(made, people=model.people, crowd_weight=model.crowd_weight)


ModelSource = Callable[[], MatchModel]  # the model in use now; default_model where it never changes


@lru_cache(maxsize=1)
def default_model() -> MatchModel:
    """Return the model shipped with the package, match_model.json."""
    text = resources.files("services.profiles.domain").joinpath("match_model.json").read_text("utf-8")
    return model_from_json(text)
