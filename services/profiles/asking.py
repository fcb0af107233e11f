"""Questions for stewards: two profiles that may be one person, and records that may not belong where they are."""

from __future__ import annotations

from collections.abc import Sequence

from services.profiles.domain.review import needs_second_person, priority_of
from services.profiles.domain.values import MatchScore
from services.profiles.values import Pair, Profile, pair_id, place_of


def question(one: Profile, other: Profile, records: int, score: MatchScore) -> Pair:
    """Return the question whether two profiles, with so many records together, are one person."""
    key, has_tier = pair_id(one.profile_id, other.profile_id), bool(one.tier or other.tier)
    priority = priority_of(records, has_tier, score.probability)
    return Pair(
        key, one.profile_id, other.profile_id, score.weight, score.probability, _steps(score), list(score.vetoes),
        priority=priority, place=place_of(priority, key), model=score.model_version,
        needs_second=needs_second_person(records, has_tier, score.vetoes),
    )  # fmt: skip


def check(record: str, profile_id: str, score: MatchScore) -> Pair:
    """Return the question whether a record that was merged automatically belongs to its profile."""
    key, priority = pair_id(record, "check"), priority_of(0, False, 1 - score.probability)
    return Pair(
        key, profile_id, profile_id, score.weight, score.probability, _steps(score), list(score.vetoes), state="check",
        priority=priority, place=place_of(priority, key), record=record, model=score.model_version,
    )  # fmt: skip


def doubt(profile: Profile, leaving: Sequence[str], score: MatchScore) -> Pair:
    """Return the question whether records that single writes joined, and the full pass would not, belong here."""
    first, *others = sorted(leaving)
    key, has_tier = pair_id(first, f"doubt/{profile.profile_id}"), bool(profile.tier)
    priority = priority_of(len(profile.records), has_tier, 1 - score.probability)
    return Pair(
        key, profile.profile_id, profile.profile_id, score.weight, score.probability, _steps(score),
        list(score.vetoes), state="check", priority=priority, place=place_of(priority, key), record=first,
        others=others, is_doubt=True, model=score.model_version,
        needs_second=needs_second_person(len(profile.records), has_tier, ()),
    )  # fmt: skip


def _steps(score: MatchScore) -> list[list[object]]:
    return [[step.comparison, step.level, step.weight] for step in score.steps]
