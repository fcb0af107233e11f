"""Resolve a whole batch at once with the functions that decide single writes."""

from collections import defaultdict
from collections.abc import Iterable, Iterator, Sequence
from itertools import combinations

from services.profiles.domain.blocking import KEY_CANDIDATES_LIMIT, blocking_keys
from services.profiles.domain.comparison import Traits, traits_of, without_identifiers
from services.profiles.domain.match import SHARED_LIMIT, compare_traits, may_join
from services.profiles.domain.model import MatchModel
from services.profiles.domain.values import Band, Cluster, MatchScore, StandardRecord


def newest_versions(records: Iterable[StandardRecord]) -> list[StandardRecord]:
    """Return the newest version of each record; of two with one time the later in order."""
    newest: dict[tuple[str, str], StandardRecord] = {}
    for record in records:
        known = newest.get(record.key)
        if known is None or known.updated_time <= record.updated_time:
            newest[record.key] = record
    return list(newest.values())


def resolve(records: Iterable[StandardRecord], model: MatchModel) -> tuple[Cluster, ...]:
    """Return the clusters of a batch; strongest pairs join first, each join is checked against all members.

    Cost grows with the pairs that share a blocking key, not with the square of the batch.
    """
    chosen = newest_versions(records)
    traits = _prepared(chosen)
    scores = {pair: compare_traits(traits[pair[0]], traits[pair[1]], model) for pair in candidate_pairs(chosen)}
    merges = [pair for pair, score in scores.items() if score.band is Band.MERGE]
    merges.sort(key=lambda pair: (-scores[pair].weight, pair))
    members = {at: [at] for at in range(len(chosen))}
    for left, right in merges:
        one, other = members[left], members[right]
        if one is not other and _fit(one, other, traits, scores, model):
            one.extend(other)
            for at in other:
                members[at] = one
    return _clusters(chosen, members, scores)


def candidate_pairs(records: Sequence[StandardRecord]) -> Iterator[tuple[int, int]]:
    """Yield each pair of positions that shares a blocking key, once; keys with too many records are skipped."""
    blocks: defaultdict[str, list[int]] = defaultdict(list)
    for at, record in enumerate(records):
        for key in blocking_keys(record):
            blocks[key].append(at)
    seen: set[tuple[int, int]] = set()
    for block in blocks.values():
        if len(block) <= KEY_CANDIDATES_LIMIT:
            for pair in combinations(block, 2):
                if pair not in seen:
                    seen.add(pair)
                    yield pair


def _prepared(records: Sequence[StandardRecord]) -> list[Traits]:
    """Return the traits, without phones and e-mails under which too many names are known."""
    names: defaultdict[str, set[str]] = defaultdict(set)
    traits = [traits_of(record) for record in records]
    for item in traits:
        for identifier in (*item.phones, *item.emails):
            names[identifier].add(item.full_name)
    shared = frozenset(identifier for identifier, known in names.items() if len(known) > SHARED_LIMIT)
    return [without_identifiers(item, shared) for item in traits]


def _fit(
    one: Sequence[int],
    other: Sequence[int],
    traits: Sequence[Traits],
    scores: dict[tuple[int, int], MatchScore],
    model: MatchModel,
) -> bool:
    across = []
    for left in one:
        for right in other:
            if traits[left].is_unique_in_source and traits[left].key[0] == traits[right].key[0]:
                return False
            pair = (min(left, right), max(left, right))
            across.append(scores.get(pair) or compare_traits(traits[left], traits[right], model))
    return may_join(across)


def _clusters(
    records: Sequence[StandardRecord], members: dict[int, list[int]], scores: dict[tuple[int, int], MatchScore]
) -> tuple[Cluster, ...]:
    reviews: defaultdict[int, set[int]] = defaultdict(set)
    for (left, right), score in scores.items():
        if score.band is not Band.APART and members[left] is not members[right]:
            reviews[id(members[left])].add(right)
            reviews[id(members[right])].add(left)
    groups = {id(group): group for group in members.values()}
    return tuple(
        Cluster(
            tuple(records[at].key for at in sorted(group)),
            tuple(records[at].key for at in sorted(reviews[number])),
        )
        for number, group in groups.items()
    )
