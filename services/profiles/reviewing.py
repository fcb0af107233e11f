"""The steward's queue at work: who has which pair, and what a verdict does.

A pair is claimed by compare-and-set before anything is done with it, by the verdict itself if nobody claimed it: two
stewards never work on one pair, and of two verdicts at the same moment one is refused.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import replace
from datetime import UTC, datetime

from services.chassis.errors import Conflict
from services.chassis.records import new_id
from services.profiles.aliases import resolve
from services.profiles.domain.review import CLAIMED_FOR, needs_second_person
from services.profiles.errors import (
    CandidateClaimed,
    CandidateDecided,
    ProfileNotFound,
    ReasonNeeded,
    SecondPersonNeeded,
)
from services.profiles.folding import are_apart
from services.profiles.merging import Merger
from services.profiles.store import Store
from services.profiles.values import Pair, Profile

OPEN = ("awaiting_second", "open", "check")  # as they are worked through
PAIRS_PER_LOOK = 50
BULK_LIMIT, BULK_LOOK = 200, 2000  # pairs decided by one call, and looked at for it
InReach = Callable[[Profile], bool]


class Reviews:
    """Claims, verdicts and the next pair, for one steward."""

    def __init__(self, store: Store, merger: Merger, steward: str, in_reach: InReach) -> None:
        """Work for `steward`, with pairs of which both profiles are `in_reach`."""
        self._store = store
        self._merger = merger
        self._steward = steward
        self._in_reach = in_reach

    def both(self, pair: Pair) -> list[Profile] | None:
        """Return a pair's living profiles, each once, of a check the one with its record; None when out of reach."""
        living = self._living([pair])
        found = [living.get(item) for item in _sides(pair)]
        unique = {item.profile_id: item for item in found if item}
        shown = all(found) and all(map(self._in_reach, unique.values()))
        return list(unique.values()) if shown else None

    def _living(self, pairs: list[Pair]) -> dict[str, Profile]:
        """Return the living profiles of pairs by the ids, and by the record keys, that the pairs name."""
        keys = [pair.record for pair in pairs if pair.record]
        holders = self._store.by_record_keys(keys) if keys else []
        by_key = {key: item for item in holders for key in item.record_keys}
        ids = [item for pair in pairs if not pair.record for item in (pair.one, pair.other)]
        return {**resolve(self._store, ids), **{key: by_key[key] for key in keys if key in by_key}}

    def still_open(self, pairs: list[Pair]) -> list[Pair]:
        """Return the pairs in reach; those that became one profile meanwhile are closed on the way.

        A claimed one is not: the steward who merged the two may not have kept the verdict yet, or can repeat it.
        """
        living = self._living(pairs)
        kept = []
        for pair in pairs:
            found = [living.get(item) for item in _sides(pair)]
            if not all(found) or not _is_question(pair, found):
                if not _is_claimed(pair, datetime.now(UTC)):
                    with suppress(Conflict):  # somebody else closes it, or answers it
                        self._close(pair)
            elif all(item and self._in_reach(item) for item in found):
                kept.append(pair)
        return kept

    def reached(self, pairs: list[Pair]) -> list[Pair]:
        """Return the pairs whose sides live and are in reach."""
        living = self._living(pairs)
        sides = {pair.id: [living.get(item) for item in _sides(pair)] for pair in pairs}
        return [pair for pair in pairs if all(item and self._in_reach(item) for item in sides[pair.id])]

    def of_now(self, pairs: list[Pair]) -> list[Pair]:
        """Return pairs as they are shown: open ones by names and value of now, answered ones as they were answered."""
        asked = [item for pair in pairs if pair.state in OPEN for item in (pair.one, pair.other)]
        living = resolve(self._store, asked) if asked else {}
        now = {name: item.profile_id for name, item in living.items()}
        return [
            replace(
                pair, one=now.get(pair.one, pair.one), other=now.get(pair.other, pair.other),
                needs_second=_needs_second(pair, living),
            ) if pair.state in OPEN else pair for pair in pairs
        ]  # fmt: skip

    def needs_second(self, pair: Pair) -> bool:
        """Tell whether a verdict on a pair needs two persons as its profiles are now."""
        return _needs_second(pair, resolve(self._store, [pair.one, pair.other]))

    def claim(self, pair: Pair) -> Pair:
        """Reserve a pair for the steward; a repeat renews it.

        Raises:
            CandidateDecided: it was answered already.
            CandidateClaimed: another steward has it.
        """
        if pair.state not in OPEN:
            raise decided(pair)
        now = datetime.now(UTC)
        if not self._is_free(pair, now):
            raise _claimed(pair)
        try:
            claimed = replace(pair, claimed_by=self._steward, claim_until=now + CLAIMED_FOR)
            return self._store.pairs.replace(claimed)
        except Conflict as error:
            raise _claimed(pair) from error

    def release(self, pair: Pair) -> Pair:
        """Give a pair back; nothing happens when it is not the steward's."""
        if pair.claimed_by != self._steward or pair.state not in OPEN:
            return pair
        return self._store.pairs.replace(replace(pair, claimed_by="", claim_until=None))

    def next(self) -> Pair | None:
        """Claim what hangs most on and nobody has: first what awaits a second person, then what is open."""
        for state in OPEN:
            after = ""
            while found := self._store.pairs.page({"state": state}, after, PAIRS_PER_LOOK, by="place"):
                after = found[-1].place
                now = datetime.now(UTC)
                free = [item for item in found if self._is_free(item, now) and item.first_by != self._steward]
                for pair in self.still_open(free):
                    try:
                        return self.claim(pair)
                    except CandidateClaimed:
                        continue
        return None

    def decide(self, pair: Pair, state: str, reason: str) -> Pair:
        """Answer a pair: confirmed merges, rejected keeps apart for ever; a second person may have to agree first.

        Raises:
            CandidateDecided, CandidateClaimed: somebody else was first.
            SecondPersonNeeded: the steward gave the first verdict.
            ReasonNeeded: much hangs on it, and no reason was given.
        """
        if pair.first_by == self._steward and pair.state == "awaiting_second":
            metadata = {"name": f"matchCandidates/{pair.id}"}
            raise SecondPersonNeeded("another person must agree", metadata=metadata)
        pair = replace(pair, needs_second=self.needs_second(pair))
        if not reason and (pair.needs_second or (pair.record and state == "rejected")):
            raise ReasonNeeded("say why", metadata={"name": f"matchCandidates/{pair.id}"})
        pair = self.claim(pair)
        pair = replace(pair, reason=reason, claimed_by="", claim_until=None)
        if pair.needs_second and pair.first_state != state:
            first = replace(pair, state="awaiting_second", first_state=state, first_by=self._steward)
            return self._store.pairs.replace(first)
        if not (self._undo(pair, state) if pair.record else self._carry_out(pair, state)):
            raise decided(self._close(pair))
        month = f"{datetime.now(UTC):%Y-%m}"
        return self._store.pairs.replace(replace(pair, state=state, decided_by=self._steward, month=month))

    def bulk(self, fits: Callable[[Pair], bool]) -> tuple[list[Pair], int]:
        """Return the open pairs in reach that fit, BULK_LIMIT at most, and how many were left for two persons."""
        found: list[Pair] = []
        after, left, looked = "", 0, 0
        while len(found) < BULK_LIMIT and looked < BULK_LOOK:
            page = self._store.pairs.page({"state": "open"}, after, PAIRS_PER_LOOK, by="place")
            if not page:
                break
            after, looked, time = page[-1].place, looked + len(page), datetime.now(UTC)
            fitting = self.still_open([item for item in page if fits(item) and self._is_free(item, time)])
            alone = [pair for pair, now in zip(fitting, self.of_now(fitting), strict=True) if not now.needs_second]
            left += len(fitting) - len(alone)
            found += alone
        return found[:BULK_LIMIT], left

    def _carry_out(self, pair: Pair, state: str) -> bool:
        """Merge the two, or keep them apart; tell whether there were two, neither of them erased meanwhile."""
        both = [pair.one, pair.other]
        if state == "rejected":
            return self._merger.keep_apart(*both)
        living = resolve(self._store, both)
        if len(living) == len(both) and are_apart(*living.values()):
            return False
        with suppress(ProfileNotFound):
            self._merger.merge(both, self._steward)
        return len(resolve(self._store, both)) == len(both)

    def _undo(self, pair: Pair, state: str) -> bool:
        """Split the records of a wrong automatic merge out; tell whether they are with others still, or out as said."""
        home = next(iter(self._store.by_record_keys([pair.record])), None)
        joined = resolve(self._store, [pair.one]).get(pair.one)
        if home is None or joined is None or home.profile_id != joined.profile_id:
            return home is not None and state == "rejected"
        leaving = {pair.record, *pair.others}.intersection(home.record_keys)
        if len(leaving) == len(home.records):
            return False
        if state == "rejected":
            self._merger.split(home.profile_id, sorted(leaving), new_id(), self._steward, pair.reason)
        return True

    def _is_free(self, pair: Pair, now: datetime) -> bool:
        return pair.claimed_by == self._steward or not _is_claimed(pair, now)

    def _close(self, pair: Pair) -> Pair:
        return self._store.pairs.replace(replace(pair, state="obsolete", claimed_by="", claim_until=None))


def _is_claimed(pair: Pair, now: datetime) -> bool:
    return bool(pair.claimed_by) and pair.claim_until is not None and pair.claim_until > now


def _sides(pair: Pair) -> list[str]:
    return [pair.record] if pair.record else [pair.one, pair.other]


def _needs_second(pair: Pair, living: Mapping[str, Profile]) -> bool:
    """Say whether a verdict needs two persons: once it did it does, others may have come to, a sample never."""
    if pair.needs_second or (pair.record and not pair.is_doubt):
        return pair.needs_second
    both = {living[item].profile_id: living[item] for item in (pair.one, pair.other) if item in living}.values()
    vetoes = () if pair.is_doubt else pair.vetoes
    return needs_second_person(sum(len(item.records) for item in both), any(item.tier for item in both), vetoes)


def _is_question(pair: Pair, found: list[Profile | None]) -> bool:
    """Say whether there is anything to ask: two profiles not ruled apart, for a check other records beside the one."""
    if pair.record:
        return all(item is not None and len(item.records) > 1 for item in found)
    unique = {item.profile_id: item for item in found if item}
    return len(unique) == 2 and not are_apart(*unique.values())


def decided(pair: Pair) -> CandidateDecided:
    """Return the refusal of what was answered already."""
    metadata = {"name": f"matchCandidates/{pair.id}", "state": pair.state.upper()}
    return CandidateDecided("the pair was decided already", metadata=metadata)


def _claimed(pair: Pair) -> CandidateClaimed:
    return CandidateClaimed("another steward works on the pair", metadata={"name": f"matchCandidates/{pair.id}"})
