"""Decide who a record belongs to: scored comparison, rules that always hold, three bands."""

from collections import Counter
from collections.abc import Callable, Mapping, Sequence

from services.profiles.domain.callings import CALLED, Callings, callings_among, is_meant
from services.profiles.domain.comparison import (
    EXACT,
    LEVELS,
    MISSING,
    OTHER,
    SAME,
    Traits,
    levels_of,
    traits_of,
    without_identifiers,
)
from services.profiles.domain.model import MatchModel
from services.profiles.domain.values import (
    Assignment,
    AssignmentKind,
    Band,
    Candidate,
    MatchScore,
    ScoreStep,
    StandardRecord,
)

SHARED_LIMIT = 5  # profiles; a phone or e-mail that more people have (a shop's, an agent's) identifies nobody
DIFFERENT_RESIDENT_ID = "DIFFERENT_RESIDENT_ID"
DIFFERENT_NAME = "DIFFERENT_NAME"
DIFFERENT_BIRTH_AND_GENDER = "DIFFERENT_BIRTH_AND_GENDER"
LOOSE_NAME = "LOOSE_NAME"
NO_ANCHOR = "NO_ANCHOR"
ONE_PER_SOURCE = "ONE_PER_SOURCE"
CONFLICTS = frozenset((DIFFERENT_RESIDENT_ID, DIFFERENT_NAME, DIFFERENT_BIRTH_AND_GENDER))
_BORN_THE_SAME_DAY = (SAME, "swapped")
_WRITTEN_THE_SAME = (EXACT, "swapped")
_SAID_THE_SAME = (*_WRITTEN_THE_SAME, "sound")
_LOOSE = ("near", "edit", "initial", "nickname", "grams", MISSING)
_SAME_PAPER = (SAME, "document")
_AT_HOME = ("detail", "room")
_AT_THE_DOOR = (*_AT_HOME, "building", "number")
_ONES_OWN: Mapping[str, Sequence[str]] = {  # few people share these, however many there are
    "phone": (SAME, "near"),
    "email": (SAME,),
    "resident_id": _SAME_PAPER,
    "address": (*_AT_HOME, "building"),
}


def compare(left: StandardRecord, right: StandardRecord, model: MatchModel) -> MatchScore:
    """Compare two records; see compare_traits."""
    return compare_traits(traits_of(left), traits_of(right), model)


def compare_traits(left: Traits, right: Traits, model: MatchModel, callings: Callings = frozenset()) -> MatchScore:
    """Return the score with its waterfall: the sum of the levels' weights, then rules and vetoes.

    `callings` are the incomplete names that mean one person, where all are known who share a phone or an e-mail.

    Two valid resident IDs that differ are two people whatever else agrees.
    """
    found = dict(zip(LEVELS, levels_of(left, right), strict=True))
    steps = [ScoreStep("prior", "", model.prior_weight)]
    steps += [ScoreStep(name, level, model.weights[name][level]) for name, level in found.items() if level]
    if found["name"] == EXACT and left.name:
        steps.append(ScoreStep("name", "frequency", model.name_adjustment(left.name)))
    if model.crowd_weight and is_of_the_crowd(found):
        steps.append(ScoreStep("crowd", "", model.crowd_weight))
    weight = sum(step.weight for step in steps)
    rule, vetoes = ruling(found)
    if found["name"] in CALLED and vetoes and is_meant(left, right, callings):
        rule, vetoes = ruling(found, is_meant=True)
    band = band_of(weight, rule, vetoes, model)
    bounded = max(-60.0, min(60.0, weight))
    probability = 2**bounded / (1 + 2**bounded)
    return MatchScore(band, weight, probability, tuple(steps), rule, vetoes, model.version)


def is_of_the_crowd(levels: Mapping[str, str]) -> bool:
    """Say whether nothing agrees that few people share, however many there are: the more people, the less it tells."""
    return not any(levels[name] in own for name, own in _ONES_OWN.items())


def band_of(weight: float, rule: str, vetoes: Sequence[str], model: MatchModel) -> Band:
    """Return the band of a pair from its weight in bits and what the rules say of its levels."""
    if DIFFERENT_RESIDENT_ID in vetoes:
        return Band.APART
    if rule or (weight >= model.merge_weight and not vetoes):
        return Band.MERGE
    return Band.REVIEW if weight >= model.review_weight else Band.APART


def ruling(levels: Mapping[str, str], *, is_meant: bool = False) -> tuple[str, tuple[str, ...]]:
    """Return the rule that decides for a merge, if any, and what forbids an automatic one.

    Levels alone say it, and whether an incomplete name means one person only on a phone or e-mail of both.
    """
    vetoes = _vetoes(levels)
    if is_meant and vetoes == (LOOSE_NAME,) and _is_the_one_called(levels):
        return "contact+called", ()
    return "" if vetoes else _rule(levels), vetoes


def _rule(levels: Mapping[str, str]) -> str:
    """Return the deterministic rule that holds: an identifier and the full name agree."""
    if levels["name"] != EXACT:
        return ""
    for identifier in ("resident_id", "phone", "email"):
        if levels[identifier] == SAME:
            return f"{identifier}+name"
    return "document+name" if levels["resident_id"] == "document" else ""


def _vetoes(levels: Mapping[str, str]) -> tuple[str, ...]:
    """Return what forbids an automatic merge.

    A shared phone, e-mail or address is no proof: families share them, so a name that agrees only in part
    needs the birth date or the resident ID besides.
    """
    name, birth, gender = levels["name"], levels["birth_date"], levels["gender"]
    vetoes = []
    if levels["resident_id"] == OTHER:
        vetoes.append(DIFFERENT_RESIDENT_ID)
    if name == OTHER or (name == "surname" and not _is_mistyped(levels)):
        vetoes.append(DIFFERENT_NAME)
    is_doubted = gender == OTHER or name not in _WRITTEN_THE_SAME
    if birth == OTHER and is_doubted and levels["resident_id"] not in _SAME_PAPER:
        vetoes.append(DIFFERENT_BIRTH_AND_GENDER)
    if (name in _LOOSE or (name == "sound" and gender == OTHER)) and not _is_supported(levels):
        vetoes.append(LOOSE_NAME)
    is_anchored = levels["resident_id"] in _SAME_PAPER or SAME in (levels["phone"], levels["email"], birth)
    is_slip = name in _SAID_THE_SAME and levels["phone"] == "near" and birth not in ("year", OTHER)
    is_home = levels["address"] in (_AT_THE_DOOR if name == EXACT else _AT_HOME)
    if not (is_anchored or is_home or is_slip):
        vetoes.append(NO_ANCHOR)
    return tuple(vetoes)


def _is_mistyped(levels: Mapping[str, str]) -> bool:
    """Say whether a wrong given name must be a slip: the resident ID and a contact agree (twins share no ID)."""
    is_reached = SAME in (levels["phone"], levels["email"]) or levels["address"] in _AT_HOME
    return levels["resident_id"] in _SAME_PAPER and is_reached


def _is_supported(levels: Mapping[str, str]) -> bool:
    """Say whether something of the person, not of the family, agrees besides a loose name: birth date or document.

    A family shares phone, mailbox, house, and often the sound of its children's names (王建林 and 王建玲); brother and
    sister who are twins share the birth date too.
    """
    if levels["resident_id"] in _SAME_PAPER:
        return True
    is_near = SAME in (levels["phone"], levels["email"]) or levels["address"] in _AT_HOME
    return is_near and levels["birth_date"] in _BORN_THE_SAME_DAY and levels["gender"] != OTHER


def _is_the_one_called(levels: Mapping[str, str]) -> bool:
    """Say whether sex, birth, or a nickname at the same door speak for the one person on a phone who is called so.

    Who shares a phone shares the district: where nobody knows whether 张丽 is a woman, 张先生 may be her father.
    """
    is_reached = SAME in (levels["phone"], levels["email"])
    is_backed = (
        levels["gender"] == SAME
        or levels["birth_date"] in (SAME, "swapped", "near", "year")
        or (levels["name"] == "nickname" and levels["address"] in _AT_THE_DOOR)
    )
    return levels["name"] in CALLED and is_reached and is_backed and levels["gender"] != OTHER


def shared_identifiers(groups: Sequence[Sequence[Traits]]) -> frozenset[str]:
    """Return the phones and e-mails that more than SHARED_LIMIT of the groups have."""
    counts: Counter[str] = Counter()
    for group in groups:
        counts.update({item for traits in group for item in (*traits.phones, *traits.emails)})
    return frozenset(item for item, count in counts.items() if count > SHARED_LIMIT)


def may_join(scores: Sequence[MatchScore]) -> bool:
    """Say whether two groups may become one, from the scores of all pairs across them.

    No pair may have two resident IDs, and pairs that agree must be at least as many as pairs that conflict:
    one strong edge does not chain two people together. Who agrees by a surname or a nickname only has half a vote:
    张先生 may be the father or the son.
    """
    if any(DIFFERENT_RESIDENT_ID in score.vetoes for score in scores):
        return False
    conflicts = sum(not CONFLICTS.isdisjoint(score.vetoes) for score in scores)
    votes = [1 if _is_called(score) else 2 for score in scores if score.band is Band.MERGE]
    return sum(votes) >= max(1, 2 * conflicts)


def _is_called(score: MatchScore) -> bool:
    return any(step.comparison == "name" and step.level in CALLED for step in score.steps)


def decide(
    record: StandardRecord,
    candidates: Sequence[Candidate],
    model: MatchModel,
    rejected: frozenset[str] = frozenset(),
    prepare: Callable[[StandardRecord], Traits] = traits_of,
    crowded: frozenset[str] = frozenset(),
) -> Assignment:
    """Return where a record belongs among the candidates that share a blocking key with it.

    `rejected` are profiles a steward has ruled apart from this record. An earlier version of the same record
    inside a candidate is not compared; drop it from the candidate before. `prepare` is traits_of, or remembers it.
    `crowded` are phones and e-mails of the record that so many have that not all of them are candidates.
    """
    if not candidates:
        return Assignment(AssignmentKind.NEW)
    groups = {
        candidate.profile_id: [prepare(item) for item in candidate.records if item.key != record.key]
        for candidate in candidates
    }
    shared = crowded | shared_identifiers([group for name, group in groups.items() if name not in rejected])
    own = without_identifiers(prepare(record), shared)
    groups = {name: [without_identifiers(item, shared) for item in group] for name, group in groups.items()}
    callings = callings_among([own, *(item for group in groups.values() for item in group)], own.identifiers)
    groups = {name: group for name, group in groups.items() if name not in rejected}
    best, strong = {}, []
    for profile_id, group in groups.items():
        scores = [compare_traits(own, item, model, callings) for item in group]
        if not scores:
            continue
        top = max(scores, key=lambda score: (score.band is Band.MERGE, score.weight))
        if top.band is Band.APART or any(DIFFERENT_RESIDENT_ID in score.vetoes for score in scores):
            continue
        best[profile_id] = top
        if may_join(scores) and not breaks_one_per_source(own, group):
            strong.append(profile_id)
    return _assign(own, best, strong, groups, candidates, model, callings)


def breaks_one_per_source(own: Traits, group: Sequence[Traits]) -> bool:
    """Say whether a source that has each person once would have two records in the group."""
    return own.is_unique_in_source and any(item.key[0] == own.key[0] for item in group)


def _assign(
    own: Traits,
    best: dict[str, MatchScore],
    strong: list[str],
    groups: dict[str, list[Traits]],
    candidates: Sequence[Candidate],
    model: MatchModel,
    callings: Callings,
) -> Assignment:
    """Join the best of the strong profiles, merge those that fit it, and leave the others to a steward."""
    if not strong:
        kind = AssignmentKind.REVIEW if best else AssignmentKind.NEW
        return Assignment(kind, review_profile_ids=tuple(best), scores=best)
    strong.sort(key=lambda profile_id: -best[profile_id].weight)
    joined = [strong[0]]
    for profile_id in strong[1:]:
        members = [own, *(item for other in joined for item in groups[other])]
        if _may_merge(members, groups[profile_id], model, callings):
            joined.append(profile_id)
    ages = {candidate.profile_id: (candidate.created_time, candidate.profile_id) for candidate in candidates}
    joined.sort(key=ages.__getitem__)
    rest = tuple(profile_id for profile_id in best if profile_id not in joined)
    return Assignment(AssignmentKind.MERGE, joined[0], tuple(joined[1:]), rest, best)


def _may_merge(left: Sequence[Traits], right: Sequence[Traits], model: MatchModel, callings: Callings) -> bool:
    """Say whether two profiles that one record links strongly become one, as two groups of a batch would."""
    pairs = [(a, b) for a in left for b in right]
    if any(a.is_unique_in_source and a.key[0] == b.key[0] for a, b in pairs):
        return False
    return may_join([compare_traits(a, b, model, callings) for a, b in pairs])
