"""Which of several profiles are one person: the strongest links join first, each join checked against all records."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from itertools import combinations

from services.profiles.domain.callings import Callings, callings_among
from services.profiles.domain.comparison import Traits, traits_of, without_identifiers
from services.profiles.domain.match import (
    DIFFERENT_RESIDENT_ID,
    breaks_one_per_source,
    compare_traits,
    may_join,
    shared_identifiers,
)
from services.profiles.domain.model import MatchModel
from services.profiles.domain.values import Band, MatchScore, StandardRecord

Relation = Callable[[str, str], bool]


@dataclass(frozen=True, slots=True)
class United:
    """Profiles that are one person, with the score that first linked each; and pairs to be asked about."""

    joined: tuple[tuple[str, ...], ...]
    links: Mapping[str, MatchScore]
    questions: Mapping[tuple[str, str], MatchScore]


def best_score(
    left: Sequence[StandardRecord],
    right: Sequence[StandardRecord],
    model: MatchModel,
    shared: frozenset[str] = frozenset(),
) -> MatchScore:
    """Return the best score of the pairs across two groups, without what too many share; neither is empty."""
    own, others = ([without_identifiers(traits_of(item), shared) for item in side] for side in (left, right))
    return _best(_scores(own, others, model, callings_among([*own, *others])))


def unite(
    groups: Mapping[str, Sequence[StandardRecord]],
    may_meet: Relation,
    are_apart: Relation,
    model: MatchModel,
    shared: frozenset[str] = frozenset(),
) -> United:
    """Return what of the groups joins; two join over their best pair if `may_meet` holds for a group of each.

    Groups that are apart never end in one; what is alike and not joined is a question. `shared` are phones and e-mails
    that too many have, beside those that too many of the groups have.
    """
    traits = _without_shared(groups, shared)
    callings = callings_among([item for group in traits.values() for item in group])
    scores = {both: _scores(traits[both[0]], traits[both[1]], model, callings) for both in combinations(groups, 2)}
    homes: dict[str, tuple[str, ...]] = {name: (name,) for name in groups}
    links: dict[str, MatchScore] = {}
    meeting = [both for both, found in scores.items() if found and _best(found).band is Band.MERGE and may_meet(*both)]
    waiting = sorted(meeting, key=lambda both: (-_best(scores[both]).weight, both))
    while waiting:
        fitting = next((both for both in waiting if _fits(homes, both, traits, scores, are_apart)), None)
        if fitting is None:
            break
        one, other = fitting
        links[other if other not in links else one] = _best(scores[fitting])
        together = homes[one] + homes[other]
        homes.update(dict.fromkeys(together, together))
        waiting = [both for both in waiting if homes[both[0]] != homes[both[1]]]
    questions = {
        both: _best(found)
        for both, found in scores.items()
        if found and homes[both[0]] != homes[both[1]] and not are_apart(*both) and _is_question(found)
    }
    return United(tuple(sorted({item for item in homes.values() if len(item) > 1})), links, questions)


def _without_shared(groups: Mapping[str, Sequence[StandardRecord]], known: frozenset[str]) -> dict[str, list[Traits]]:
    traits = {name: [traits_of(item) for item in records] for name, records in groups.items()}
    shared = known | shared_identifiers(list(traits.values()))
    return {name: [without_identifiers(item, shared) for item in found] for name, found in traits.items()}


def _scores(
    left: Sequence[Traits], right: Sequence[Traits], model: MatchModel, callings: Callings = frozenset()
) -> list[MatchScore]:
    return [compare_traits(a, b, model, callings) for a in left for b in right]


def _best(scores: Sequence[MatchScore]) -> MatchScore:
    return max(scores, key=lambda score: (score.band is Band.MERGE, score.weight))


def _is_question(scores: Sequence[MatchScore]) -> bool:
    is_two = any(DIFFERENT_RESIDENT_ID in score.vetoes for score in scores)
    return not is_two and _best(scores).band is not Band.APART


def _fits(
    homes: Mapping[str, tuple[str, ...]],
    both: tuple[str, str],
    traits: Mapping[str, Sequence[Traits]],
    scores: Mapping[tuple[str, str], Sequence[MatchScore]],
    are_apart: Relation,
) -> bool:
    one, other = homes[both[0]], homes[both[1]]
    if any(are_apart(a, b) for a in one for b in other):
        return False
    members = [[item for name in side for item in traits[name]] for side in (one, other)]
    if any(breaks_one_per_source(item, members[1]) for item in members[0]):
        return False
    across = [scores[a, b] if (a, b) in scores else scores[b, a] for a in one for b in other]
    return may_join([score for found in across for score in found])
