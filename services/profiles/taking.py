"""Take batches of records in: find, fold, seal, write; the one path of imports, single writes and replays.

Guarantee, with any number of processes at work: each source record belongs to one living profile at most (a unique
index), no profile's change overwrites another's (compare-and-set), and two records of one person that arrive at the
same moment in two processes are found by the second look that follows when another batch was written meanwhile.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field
from datetime import UTC, datetime

from services.chassis.records import new_id
from services.profiles.ageing.retiring import unbarred
from services.profiles.aliases import resolve
from services.profiles.asking import check, question
from services.profiles.dictionary import Dictionary
from services.profiles.domain.match import decide
from services.profiles.domain.model import ModelSource
from services.profiles.domain.uniting import unite
from services.profiles.domain.values import AssignmentKind, MatchScore, Problem
from services.profiles.errors import ProfilesBusy
from services.profiles.folding import Fold, Incoming, Outcome, Working, are_apart
from services.profiles.intake.neighbours import Neighbours
from services.profiles.merging import Merger
from services.profiles.shaping import Shaped, keep_superseded, load, shape_changed
from services.profiles.store import Done, Found, Store, Writing
from services.profiles.values import Pair
from services.profiles.vault import Ciphers, Vault

ATTEMPTS = 8
AT_ONCE = 8  # records that are looked up, and profiles that are written, in one command each
PART_PROFILES = 100  # shaped while the database writes as many: more at once leaves it waiting, fewer costs calls


@dataclass(frozen=True, slots=True)
class Taken:
    """What became of one record, the profile it belongs to, and the rules it breaks that look at other records.

    `is_clean` says that no open reject was of this record when it was looked up.
    """

    outcome: Outcome
    profile_id: str = ""
    problems: tuple[Problem, ...] = ()
    is_clean: bool = False


@dataclass(slots=True)
class Tally:
    """What happened to profiles in a batch: ids, so that callers who shared it can each be told of their own."""

    created: list[str] = field(default_factory=list)
    updated: list[str] = field(default_factory=list)
    merged: list[tuple[str, str]] = field(default_factory=list)
    pairs: list[tuple[str, str]] = field(default_factory=list)

    @property
    def profiles_created(self) -> int:
        """Return how many profiles were founded."""
        return len(self.created)

    @property
    def profiles_updated(self) -> int:
        """Return how many profiles were changed, each as often as it was written."""
        return len(self.updated)

    @property
    def profiles_merged(self) -> int:
        """Return how many profiles ended in another."""
        return len(self.merged)

    @property
    def review_pairs(self) -> int:
        """Return how many pairs were put before a steward."""
        return len(self.pairs)

    def of(self, profile_ids: set[str]) -> Tally:
        """Return what concerns these profiles."""
        return Tally(
            [item for item in self.created if item in profile_ids],
            [item for item in self.updated if item in profile_ids],
            [both for both in self.merged if profile_ids.intersection(both)],
            [both for both in self.pairs if profile_ids.intersection(both)],
        )


@dataclass(slots=True)
class Round:
    """One try at a batch: what is settled and what must be tried again."""

    taken: dict[str, Taken] = field(default_factory=dict)
    again: list[Incoming] = field(default_factory=list)
    founded: list[str] = field(default_factory=list)
    is_vain: bool = False  # nothing was settled and nobody merged


class Taker:
    """Takes batches of standard records into one store."""

    def __init__(
        self,
        store: Store,
        vault: Vault,
        model: ModelSource,
        dictionary: Dictionary,
        part_profiles: int = PART_PROFILES,
    ) -> None:
        """Take in with these tools, writing `part_profiles` at a time."""
        self._part_profiles = part_profiles
        self._store = store
        self._vault = vault
        self._model = model
        self.dictionary = dictionary
        self.merger = Merger(store, vault, dictionary)

    def take(self, batch: Sequence[Incoming]) -> tuple[list[Taken], Tally]:
        """Take records in and return what became of each, in the same order, when all is durably written.

        Raises:
            ProfilesBusy: others kept changing the same profiles; what was written stays, a repeat goes on.
        """
        tally = Tally()
        results: list[Taken] = []
        for part in _without_repeats(batch):
            taken = self._take_part(part, tally)
            results += [taken[incoming.key] for incoming in part]
        return results, tally

    def _take_part(self, part: Sequence[Incoming], tally: Tally) -> dict[str, Taken]:
        taken: dict[str, Taken] = {}
        waiting = list(part)
        is_retry, in_vain = False, 0
        while waiting:
            if in_vain == ATTEMPTS:
                raise ProfilesBusy("others keep changing the same profiles; try again")
            done = self._round(waiting, tally, is_retry=is_retry)
            taken.update(done.taken)
            waiting, is_retry, in_vain = done.again, True, in_vain + done.is_vain
        return taken

    def _round(self, waiting: Sequence[Incoming], tally: Tally, *, is_retry: bool) -> Round:
        now = datetime.now(UTC)
        if is_retry:
            self.merger.settle_abandoned(now)
        neighbours = Neighbours.now(self._vault, self.dictionary)
        few = waiting if len(waiting) <= AT_ONCE else ()
        marks = {self._vault.record_reject_token(item.key): item.key for item in few}
        seen = self._look(waiting, neighbours.counted(item.record for item in waiting), list(marks))
        loaded, ciphers = load(self._store, self._vault, seen.profiles, seen.data_keys)
        waiting = unbarred(waiting, loaded, self._vault, self.dictionary.indexes())
        waiting, problems = neighbours.judge_batch(waiting, loaded, seen.held)
        founded_id = (lambda _key: new_id()) if is_retry else self._vault.founded_id
        fold = Fold(loaded, self._model(), founded_id, now, seen.crowded)
        outcomes = {incoming.key: fold.take(incoming) for incoming in waiting}
        lost, is_alone = self._write(fold, ciphers, now, tally, seen.rounds)
        clean = set() if seen.set_apart is None else {marks[token] for token in marks.keys() - seen.set_apart}
        result = self._sort_out(fold, outcomes, lost, problems, clean)
        if result.founded and not (is_alone or self._store.rounds() == seen.rounds + 1):
            tally.merged += self._look_again(result.founded)
        merged = self._merge(fold) if fold.merges else []
        tally.merged += merged
        result.is_vain = not merged and len(result.again) == len(waiting)
        return result

    def _merge(self, fold: Fold) -> list[tuple[str, str]]:
        """Merge the profiles that records joined, and that are as the fold saw them; return who ended in whom.

        Of groups that share a profile the first is merged: the others were not compared with all of it. Their records
        wait, as all do whose profiles did not become one.
        """
        stored = self._store.profiles([item for group in fold.merges for item in group])
        groups: list[tuple[str, ...]] = []
        seen: set[str] = set()
        for group in fold.merges:
            is_as_seen = all(stored[item].version == fold.working[item].profile.version for item in group)
            if is_as_seen and seen.isdisjoint(group):
                groups.append(group)
                seen.update(group)
        self.merger.merge_all(groups)
        living = resolve(self._store, sorted(seen))
        ends = {item: profile.profile_id for item, profile in living.items()}
        both = [(group[0], gone) for group in groups for gone in group[1:]]
        return [(one, gone) for one, gone in both if one in ends and ends.get(gone) == ends[one]]

    def _look(self, waiting: Sequence[Incoming], counted: Mapping[str, int], reject_tokens: Sequence[str]) -> Found:
        """Return the profiles that may concern these records, how many batches there were before, and who holds what.

        `counted` are the tokens whose holders are asked for, `reject_tokens` those of the records in open rejects,
        which only a look at a few records tells.
        """
        keys = [item.key for item in waiting]
        if len(waiting) <= AT_ONCE:
            tokens = [token for incoming in waiting for token in incoming.tokens]
            return self._store.look(keys, tokens, counted, reject_tokens)
        before = self._store.rounds()
        found = {item.profile_id: item for item in self._store.by_record_keys(keys)}
        known = {record.key: record.content_hash for item in found.values() for record in item.records}
        fresh = [incoming for incoming in waiting if known.get(incoming.key) != incoming.content_hash]
        tokens = [token for incoming in fresh for token in incoming.tokens]
        others, crowded = self._store.near(tokens)
        found.update({item.profile_id: item for item in others})
        return Found(list(found.values()), {}, before, self._store.holders(counted), crowded=crowded)

    def _write(self, fold: Fold, ciphers: Ciphers, now: datetime, tally: Tally, before: int) -> tuple[set[str], bool]:
        """Write what the fold made; return who lost, and whether it is known that nobody else wrote since the look."""
        changed = fold.changed()
        done = self._write_at_once(fold, changed, ciphers, now, before) if 0 < len(changed) <= AT_ONCE else None
        if done is None:
            done = self._write_in_parts(fold, changed, ciphers, now)
        tally.pairs += [(one, other) for one, other, _ in fold.pairs.values()][: done.new_pairs]
        written = [(item.profile_id, item.profile.version) for item in changed if item.profile_id not in done.lost]
        written += [(item, fold.working[item].profile.version - 1) for item in fold.own_work]
        tally.created += [profile_id for profile_id, version in written if version == 0]
        tally.updated += [profile_id for profile_id, version in written if version > 0]
        return set(done.lost), done.is_alone

    def _write_at_once(
        self, fold: Fold, changed: Sequence[Working], ciphers: Ciphers, now: datetime, before: int
    ) -> Done | None:
        wrapped, made = self._vault.make_ciphers([item.profile.key_id for item in changed if item.is_new])
        shaped = self._shaped(changed, Ciphers({**ciphers.by_id, **made.by_id}), now)
        superseded = [(old, item.profile.profile_id) for item in shaped for old in item.superseded]
        was = [item.was for item in shaped if item.was]
        changes = [(item.profile, item.facts) for item in shaped]
        return self._store.write_at_once(
            Writing(wrapped, _pairs(fold), _checks(fold), superseded, was, changes, before)
        )

    def _write_in_parts(self, fold: Fold, changed: Sequence[Working], ciphers: Ciphers, now: datetime) -> Done:
        """Write data keys and questions, then the profiles."""
        made = self._vault.new_ciphers(self._store, [item.profile.key_id for item in changed if item.is_new])
        asked = self._store.pairs.add_missing(_pairs(fold))
        self._store.pairs.add_missing(_checks(fold))
        return Done(list(self._write_changed(changed, Ciphers({**ciphers.by_id, **made.by_id}), now)), asked, False)

    def _shaped(self, changed: Sequence[Working], ciphers: Ciphers, now: datetime) -> list[Shaped]:
        rules = self.dictionary.rules()
        return [shape_changed(item, ciphers, self._vault, rules, now) for item in changed]

    def _write_changed(self, changed: Sequence[Working], ciphers: Ciphers, now: datetime) -> set[str]:
        """Shape and write profiles, a part being shaped while the store writes the last; durable when it returns."""
        lost: set[str] = set()
        with ThreadPoolExecutor(1, thread_name_prefix="take-write") as writer:
            writing: Future[list[str]] | None = None
            for start in range(0, len(changed), self._part_profiles):
                shaped = self._shaped(changed[start : start + self._part_profiles], ciphers, now)
                lost.update(writing.result() if writing else ())
                writing = writer.submit(self._write_part, shaped)
            lost.update(writing.result() if writing else ())
        if len(lost) < len(changed):
            self._store.close_round()
        return lost

    def _write_part(self, shaped: Sequence[Shaped]) -> list[str]:
        keep_superseded(self._store, shaped)
        return self._store.write_part([(item.profile, item.facts) for item in shaped])

    def _sort_out(
        self,
        fold: Fold,
        outcomes: Mapping[str, Outcome],
        lost: set[str],
        problems: Mapping[str, tuple[Problem, ...]],
        clean: Collection[str],
    ) -> Round:
        result = Round(again=list(fold.deferred))
        refused = [key for key in problems if key not in outcomes]
        result.taken.update({key: Taken(Outcome.REJECTED, problems=problems[key]) for key in refused})
        homes = {key: item for item in fold.working.values() for key in item.records}
        for key, outcome in outcomes.items():
            home = homes.get(key)
            if outcome is Outcome.DEFERRED or home is None:
                continue
            if home.profile_id in lost and key in home.incoming:
                result.again.append(home.incoming[key])
            else:
                result.taken[key] = Taken(outcome, home.profile_id, problems.get(key, ()), key in clean)
        result.founded = [item.profile_id for item in fold.changed() if item.is_new and item.profile_id not in lost]
        return result

    def _look_again(self, founded: Sequence[str]) -> list[tuple[str, str]]:
        """Merge the profiles just founded with those that others wrote at the same time; return who ended in whom."""
        merged: list[tuple[str, str]] = []
        for profile in self._store.profiles(founded).values():
            near, crowded = self._store.near(profile.tokens)
            loaded, _ = load(self._store, self._vault, near)
            mine = next((item for item in loaded if item.profile_id == profile.profile_id), None)
            others = [item for item in loaded if item is not mine]
            if mine is None or not others:
                continue
            twins = self._twins(mine, others, self._vault.identifiers_of(mine.records.values(), crowded))
            if twins:
                self.merger.merge([mine.profile_id, *twins])
                merged += [(twin, mine.profile_id) for twin in twins]
        return merged

    def _twins(self, mine: Working, others: Sequence[Working], crowded: frozenset[str]) -> list[str]:
        """Return which of the others are the person of `mine`, by all records of each and of one another.

        `crowded` are phones and e-mails of `mine` that too many have.
        """
        model, name = self._model(), mine.profile_id
        candidates = [item.candidate() for item in others if not are_apart(mine.profile, item.profile)]
        decided = (decide(record, candidates, model, crowded=crowded).kind for record in mine.records.values())
        if AssignmentKind.MERGE not in decided:
            return []
        met = {item.profile_id: item for item in (mine, *others)}
        united = unite(
            {key: list(item.records.values()) for key, item in met.items()},
            lambda one, other: name in (one, other),
            lambda one, other: are_apart(met[one].profile, met[other].profile),
            model,
            crowded,
        )
        return [key for group in united.joined if name in group for key in group if key != name]


def _without_repeats(batch: Sequence[Incoming]) -> Iterator[list[Incoming]]:
    """Yield the batch in parts in which no record comes twice, so that each version is kept."""
    part: dict[str, Incoming] = {}
    for incoming in batch:
        if incoming.key in part:
            yield list(part.values())
            part = {}
        part[incoming.key] = incoming
    if part:
        yield list(part.values())


def _pairs(fold: Fold) -> list[Pair]:
    return [_pair(fold, one, other, score) for one, other, score in fold.pairs.values()]


def _pair(fold: Fold, one: str, other: str, score: MatchScore) -> Pair:
    both = fold.working[one], fold.working[other]
    return question(both[0].profile, both[1].profile, sum(len(item.records) for item in both), score)


def _checks(fold: Fold) -> list[Pair]:
    """Return the automatic merges that a steward looks at, as a sample."""
    return [check(key, fold.home_of(key).profile_id, score) for key, score in fold.checks.items()]
