"""What runs by itself: finish merges and splits whose process died, give old pairs their place in the queue."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime

from google.protobuf.empty_pb2 import Empty
from google.protobuf.message import Message

from services.chassis.errors import Conflict
from services.chassis.jobs import Handler, Job, Jobs, Owner, Paused
from services.profiles.aliases import resolve
from services.profiles.domain.review import needs_second_person, priority_of
from services.profiles.intake.sweeping import SWEEP
from services.profiles.merging import Merger
from services.profiles.reviewing import OPEN
from services.profiles.store import Store
from services.profiles.values import Pair, place_of

SETTLE, PLACE = "settle_profiles", "place_candidates"
NOBODY = Owner("service:profiles", "")  # no department sees or cancels these operations
LOOK_SECONDS = 5.0
PAIRS_PER_PAGE = 200


def start(jobs: Jobs) -> None:
    """Let the jobs run from now on; each is there once, however often this is called."""
    jobs.start(SETTLE, {}, Empty(), NOBODY, "always")
    jobs.start(PLACE, {}, Empty(), NOBODY, "once")
    jobs.start(SWEEP, {}, Empty(), NOBODY, "always")


class Settler:
    """The handlers of these jobs."""

    def __init__(self, store: Store, merger: Merger) -> None:
        self._store = store
        self._merger = merger

    def handlers(self) -> dict[str, Handler]:
        """Return the handlers of these jobs."""
        return {SETTLE: self.settle, PLACE: self.place}

    def settle(self, job: Job) -> Message:
        """Finish what was left half done, then look again.

        Raises:
            Paused: always; there is no end to it.
        """
        self._merger.settle_abandoned(datetime.now(UTC))
        raise Paused("until the next look", LOOK_SECONDS)

    def place(self, job: Job) -> Message:
        """Give pairs from before there was a queue their place in it."""
        for state in OPEN:
            after = ""
            while found := self._store.pairs.page({"state": state}, after, PAIRS_PER_PAGE):
                after = found[-1].id
                for pair in found:
                    if not pair.place:
                        self._place(pair)
        return Empty()

    def _place(self, pair: Pair) -> None:
        both = {item.profile_id: item for item in resolve(self._store, [pair.one, pair.other]).values()}.values()
        records, has_tier = sum(len(item.records) for item in both), any(item.tier for item in both)
        priority = priority_of(records, has_tier, pair.probability)
        placed = replace(
            pair, priority=priority, place=place_of(priority, pair.id),
            needs_second=pair.needs_second or needs_second_person(records, has_tier, pair.vetoes),
        )  # fmt: skip
        try:
            self._store.pairs.replace(placed)
        except Conflict:
            return  # a steward is at it: what a verdict writes keeps its place
