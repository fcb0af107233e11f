"""The steward's queue at work: who has which pair, and what a verdict does.

A pair is claimed by compare-and-set before anything is done with it, by the verdict itself if nobody claimed it: two
stewards never work on one pair, and of two verdicts at the same moment one is refused.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from datetime import UTC, datetime

from services.chassis.errors import Conflict
from services.profiles.domain.review import CLAIMED_FOR
from services.profiles.errors import CandidateClaimed, CandidateDecided, SecondPersonNeeded
from services.profiles.merging import Merger, resolve
from services.profiles.store import Store
from services.profiles.values import Pair, Profile

OPEN = ("awaiting_second", "open")
PAIRS_PER_LOOK = 50
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
        """Return the living profiles of a pair, each once; None when one is gone or out of reach."""
        living = resolve(self._store, [pair.one, pair.other])
        unique = {item.profile_id: item for item in living.values()}
        shown = len(living) == 2 and all(map(self._in_reach, unique.values()))
        return list(unique.values()) if shown else None

    def still_open(self, pairs: list[Pair]) -> list[Pair]:
        """Return the pairs in reach; those that became one profile meanwhile are closed on the way."""
        living = resolve(self._store, [item for pair in pairs for item in (pair.one, pair.other)])
        kept = []
        for pair in pairs:
            one, other = living.get(pair.one), living.get(pair.other)
            if one is None or other is None or one.profile_id == other.profile_id:
                self._close(pair)
            elif self._in_reach(one) and self._in_reach(other):
                kept.append(pair)
        return kept

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
        """
        if pair.first_by == self._steward and pair.state == "awaiting_second":
            metadata = {"name": f"matchCandidates/{pair.id}"}
            raise SecondPersonNeeded("another person must agree", metadata=metadata)
        pair = self.claim(pair)
        pair = replace(pair, reason=reason, claimed_by="", claim_until=None)
        if pair.needs_second and pair.first_state != state:
            first = replace(pair, state="awaiting_second", first_state=state, first_by=self._steward)
            return self._store.pairs.replace(first)
        if state == "confirmed":
            self._merger.merge([pair.one, pair.other])
        elif not self._keep_apart(pair):
            raise decided(self._close(pair))
        return self._answer(replace(pair, state=state, decided_by=self._steward))

    def _answer(self, pair: Pair) -> Pair:
        """Keep the verdict that was carried out, even if a look at the queue closed the pair for having become one."""
        try:
            return self._store.pairs.replace(pair)
        except Conflict:
            found = self._store.pairs.get(pair.id)
            if found is None or found.state != "obsolete":
                raise
            return self._store.pairs.replace(replace(pair, version=found.version))

    def _keep_apart(self, pair: Pair) -> bool:
        living = resolve(self._store, [pair.one, pair.other])
        if len({item.profile_id for item in living.values()}) != 2:
            return False
        self._merger.keep_apart(living[pair.one].profile_id, living[pair.other].profile_id)
        return True

    def _is_free(self, pair: Pair, now: datetime) -> bool:
        until = pair.claim_until
        return pair.claimed_by in ("", self._steward) or until is None or until <= now

    def _close(self, pair: Pair) -> Pair:
        return self._store.pairs.replace(replace(pair, state="obsolete", claimed_by="", claim_until=None))


def decided(pair: Pair) -> CandidateDecided:
    """Return the refusal of what was answered already."""
    metadata = {"name": f"matchCandidates/{pair.id}", "state": pair.state.upper()}
    return CandidateDecided("the pair was decided already", metadata=metadata)


def _claimed(pair: Pair) -> CandidateClaimed:
    return CandidateClaimed("another steward works on the pair", metadata={"name": f"matchCandidates/{pair.id}"})
