"""Match models as messages."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from google.protobuf import json_format
from kehu.profiles.v1 import matching_pb2 as pb

from services.profiles.domain.model import MatchModel, completed, model_from_json
from services.profiles.messages import record_name
from services.profiles.training.values import StoredModel

LESSON = frozenset(pb.MatchLesson.DESCRIPTOR.fields_by_name)


def head_message(stored: StoredModel, *, in_use: bool) -> pb.MatchModel:
    """Return a model that was learnt, without its report."""
    return _head(stored, model_from_json(stored.content), in_use)


def model_message(stored: StoredModel, base: MatchModel | None, *, in_use: bool) -> pb.MatchModel:
    """Return a model that was learnt, compared with its base as far as that is still known."""
    model = completed(model_from_json(stored.content))
    made = _head(stored, model, in_use)
    _report(made, model, base)
    json_format.Parse(stored.effect, made.effect)
    return made


def shipped_message(model: MatchModel, *, in_use: bool) -> pb.MatchModel:
    """Return the shipped model."""
    made = _bands(model, in_use)
    _report(made, model, None)
    return made


def _head(stored: StoredModel, model: MatchModel, in_use: bool) -> pb.MatchModel:
    made = _bands(model, in_use)
    made.base, made.author = f"matchModels/{stored.base}", stored.author
    if stored.create_time:
        made.create_time.FromDatetime(stored.create_time)
    return made


def _bands(model: MatchModel, in_use: bool) -> pb.MatchModel:
    return pb.MatchModel(
        name=f"matchModels/{model.version}", in_use=in_use, prior_weight=model.prior_weight,
        merge_weight=model.merge_weight, review_weight=model.review_weight, learnt_people=model.people,
    )  # fmt: skip


def _report(made: pb.MatchModel, model: MatchModel, base: MatchModel | None) -> None:
    for comparison, levels in model.odds.items():
        for level, (one, two) in levels.items():
            item = made.levels.add(
                comparison=comparison, level=level, one_person=one, two_people=two,
                weight=model.weights[comparison][level],
            )  # fmt: skip
            before = base.weights.get(comparison, {}).get(level) if base else None
            if before is not None:
                item.weight_before = before
    for lesson in model.report.get("lessons", ()):
        made.lessons.add(**{name: value for name, value in lesson.items() if name in LESSON})


def effect_message(told: Mapping[str, Any]) -> pb.MatchModelEffect:
    """Return what the learning process told of the effect."""
    effect = told["effect"]
    made = pb.MatchModelEffect(
        **{name: effect[name] for name in ("people_before", "people_after", "people_joined", "people_parted")}
    )
    for before, after, count in effect["moves"]:
        made.pair_moves.add(before=before, after=after, pair_count=count)
    for said, before, after, count in told["verdicts"]:
        made.verdict_moves.add(same_person=said, before=before, after=after, verdict_count=count)
    for item in effect["samples"]:
        made.samples.add(
            source_records=map(record_name, item["records"]), before=item["before"], after=item["after"],
            profiles=[f"profiles/{profile_id}" for profile_id in item["profiles"]],
            weight_before=item["weights"][0], weight_after=item["weights"][1],
        )  # fmt: skip
    return made
