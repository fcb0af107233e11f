"""The full pass: all stored records are resolved at once, and the profiles brought to what comes of it.

It merges by the same path as single writes, and only what a fresh look allows: records that came meanwhile, verdicts
and sources that have each person once are respected. What single writes joined and the pass would not is asked about,
never split by itself. Every step may be repeated: killed anywhere and run again, the end is the same.
"""

from __future__ import annotations

import uuid
from collections.abc import Iterable, Iterator, Sequence
from contextlib import suppress
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any

from google.protobuf.message import Message
from kehu.profiles.v1 import resolution_pb2 as pb

from services.chassis.errors import AlreadyExists, Busy, Conflict, KehuError, Unavailable
from services.chassis.jobs import Handler, Job, Paused
from services.profiles.asking import check, doubt, question
from services.profiles.domain.model import ModelSource
from services.profiles.domain.review import is_sampled
from services.profiles.domain.values import MatchScore
from services.profiles.errors import ProfileNotFound, ResolutionOverLimit
from services.profiles.folding import Working
from services.profiles.merging import Merger, resolve
from services.profiles.messages import record_name
from services.profiles.resolution.differing import Findings, Looker
from services.profiles.resolution.planning import ChildEngine, Engine, Plan, page_of
from services.profiles.store import Store
from services.profiles.values import Pair, pair_id
from services.profiles.vault import Vault

RESOLVE = "resolve"
PROFILES_PER_PAGE = 500
SAMPLES = 20  # of each kind; ResolutionProgress documents it
FORMER_NAMES = 8  # of each side, under which a pair may have been asked about


class Resolver:
    """Runs full passes."""

    def __init__(
        self, store: Store, vault: Vault, merger: Merger, model: ModelSource, engine: Engine | None = None
    ) -> None:
        """Work with these tools; the engine is a child process if no other is given."""
        self._store = store
        self._vault = vault
        self._merger = merger
        self._model = model
        self._looker = Looker(store, vault, model)
        self._engine: Engine = engine or ChildEngine()

    def handlers(self) -> dict[str, Handler]:
        """Return the handlers of this job."""
        return {RESOLVE: self.run}

    def run(self, job: Job) -> Message:
        """Make one pass from the checkpoint on.

        Raises:
            ResolutionOverLimit: it would merge more profiles than it may; nothing was changed.
            Paused: until the next pass.
        """
        now, start = datetime.now(UTC), datetime.fromisoformat(str(job.args["start"]))
        if now < start:
            raise Paused("until the first pass", (start - now).total_seconds())
        minutes = int(str(job.args["minutes"]))
        progress = pb.ResolutionProgress()
        job.metadata.Unpack(progress)
        self._merger.settle_abandoned(now)
        try:
            self._pass(job, progress)
            progress.last_failure = ""
        except (Unavailable, Busy):
            raise  # the worker soon goes on from the checkpoint
        except KehuError as error:
            if not minutes:
                raise
            self._drop_plan(job)
            progress.last_failure = error.reason
        progress.passes += 1
        progress.end_time.FromDatetime(datetime.now(UTC))
        if not minutes:
            return progress
        job.save({}, progress)
        raise Paused("until the next pass", _until_next(start, timedelta(minutes=minutes)))

    def _pass(self, job: Job, progress: pb.ResolutionProgress) -> None:
        limit = int(str(job.args["merge_limit"]))
        if not job.checkpoint.get("ready"):
            self._make_plan(job, progress)
        while not self._work_through(job, progress, limit):
            self._make_plan(job, progress)

    def _work_through(self, job: Job, progress: pb.ResolutionProgress, limit: int) -> bool:
        """Do what is planned; say whether the model in use is still the one that it was planned by, and no stricter."""
        plan = Plan(self._store, self._vault, str(job.checkpoint["plan"]))
        parts = int(str(job.checkpoint["parts"]))
        if limit and progress.merges_planned > limit:
            plan.drop(parts)
            raise ResolutionOverLimit(
                "the pass would merge more profiles than it may; nothing was changed",
                metadata={"planned": str(progress.merges_planned), "limit": str(limit)},
            )
        for number, item in plan.read(parts, int(str(job.checkpoint.get("done", 0)))):
            model, crowd = self._model(), float(str(job.checkpoint.get("crowd", 0.0)))
            if model.version != progress.model_version or model.crowd_weight < crowd:
                return False
            self._settle(item, progress, is_dry=not limit)
            job.save({**job.checkpoint, "done": number}, progress)
        plan.drop(parts)
        return True

    def _make_plan(self, job: Job, progress: pb.ResolutionProgress) -> None:
        """Resolve all records and keep what differs; a plan whose making was cut short is dropped."""
        self._drop_plan(job)
        passes, failure, model = progress.passes, progress.last_failure, self._model()
        progress.Clear()
        progress.MergeFrom(
            pb.ResolutionProgress(
                passes=passes, last_failure=failure, model_version=model.version,
                dry_run=not int(str(job.args["merge_limit"])),
            )
        )  # fmt: skip
        progress.begin_time.FromDatetime(datetime.now(UTC))
        plan = Plan(self._store, self._vault, uuid.uuid4().hex)
        checkpoint: dict[str, object] = {"plan": plan.plan_id, "parts": 0, "crowd": model.crowd_weight}
        _save_unready(job, checkpoint, progress)
        found = self._engine.differences(model, self._pages(job, progress))
        for parts in plan.write(_counted(found, progress)):
            checkpoint["parts"] = parts
            _save_unready(job, checkpoint, progress)
        job.save({**checkpoint, "ready": True, "done": 0}, progress)

    def _drop_plan(self, job: Job) -> None:
        if "plan" in job.checkpoint:
            Plan(self._store, self._vault, str(job.checkpoint["plan"])).drop(int(str(job.checkpoint["parts"])))

    def _pages(self, job: Job, progress: pb.ResolutionProgress) -> Iterator[bytes]:
        after = ""
        while batch := self._store.page_profiles(after, PROFILES_PER_PAGE, ()):
            yield page_of(self._vault, self._store, batch)
            after = batch[-1].profile_id
            progress.profiles_read += len(batch)
            progress.records_read += sum(len(item.records) for item in batch)
            job.save(job.checkpoint, progress)

    def _settle(self, item: dict[str, Any], progress: pb.ResolutionProgress, *, is_dry: bool) -> None:
        if not is_dry:
            self._merger.settle(item["profiles"])
        found = self._looker.look(item)
        _note(progress, found)
        progress.profiles_merged += sum(len(group) - 1 for group in found.united.joined)
        if is_dry:
            progress.questions += len(found.united.questions)
            progress.doubts += len(found.doubts)
            return
        for group in found.united.joined:
            with suppress(ProfileNotFound):  # all of them were erased since the look
                self._merge(group, found)
        for (one, other), score in found.united.questions.items():
            both = found.living[one], found.living[other]
            progress.questions += self._ask_about(both[0], both[1], score)
        for profile_id, keys, score in found.doubts:
            home = resolve(self._store, [profile_id]).get(profile_id)
            leaving = set(keys).intersection(home.record_keys if home else ())
            if home and 0 < len(leaving) < len(home.records):
                progress.doubts += self._ask(doubt(home, sorted(leaving), score))

    def _merge(self, group: Sequence[str], found: Findings) -> None:
        survivor = self._merger.merge(group)
        living = resolve(self._store, group)
        for name in group:
            record = min(found.living[name].profile.records, key=lambda item: item.key)
            is_merged = name != survivor and name in living and living[name].profile_id == survivor
            if is_merged and name in found.united.links and is_sampled(record.content_hash):
                self._store.pairs.add_missing([check(record.key, survivor, found.united.links[name])])

    def _ask_about(self, one: Working, other: Working, score: MatchScore) -> bool:
        """Ask whether two profiles are one person, unless that was asked under their former names."""
        names = [[item.profile_id, *item.profile.aliases][:FORMER_NAMES] for item in (one, other)]
        former = (pair_id(a, b) for a in names[0] for b in names[1])
        known = next((pair for pair in map(self._store.pairs.get, former) if pair), None)
        if known is not None and known.state != "obsolete":
            return False
        living = [resolve(self._store, [item.profile_id]).get(item.profile_id) for item in (one, other)]
        if living[0] is None or living[1] is None or living[0].profile_id == living[1].profile_id:
            return False
        records = len(living[0].records) + len(living[1].records)
        return self._ask(question(living[0], living[1], records, score))

    def _ask(self, pair: Pair) -> bool:
        """Put a question; one that was answered stays answered, one that was closed is asked again."""
        known = self._store.pairs.get(pair.id)
        try:
            if known is None:
                self._store.pairs.insert(pair)
                return True
            if known.state == "obsolete":
                self._store.pairs.replace(replace(pair, version=known.version, create_time=known.create_time))
                return True
        except (AlreadyExists, Conflict):
            pass  # somebody else asked at this moment
        return False


def _save_unready(job: Job, checkpoint: dict[str, object], progress: pb.ResolutionProgress) -> None:
    """Save a plan in the making, which is made anew after a failure: how often it failed goes on being counted."""
    attempts = job.attempts
    job.save(checkpoint, progress)
    job.attempts = attempts


def _until_next(start: datetime, interval: timedelta) -> float:
    """Return the seconds until the next time that is a whole number of intervals after the start."""
    now = datetime.now(UTC)
    return (interval - (now - start) % interval).total_seconds()


def _counted(items: Iterable[dict[str, Any]], progress: pb.ResolutionProgress) -> Iterator[dict[str, Any]]:
    """Yield the items of a plan, and note its figures."""
    for item in items:
        if item["kind"] == "end":
            progress.clusters, progress.peak_kilobytes = item["clusters"], item.get("kilobytes", 0)
        else:
            progress.merges_planned += len(item["profiles"]) - 1 if item["kind"] != "ask" else 0
            yield item


def _note(progress: pb.ResolutionProgress, found: Findings) -> None:
    """Add samples of what is done, while there are few of their kind."""
    for group in found.united.joined:
        score = next(found.united.links[name] for name in group if name in found.united.links)
        _sample(progress, pb.ResolutionSample.KIND_MERGE, group, (), score)
    for both, score in found.united.questions.items():
        _sample(progress, pb.ResolutionSample.KIND_QUESTION, both, (), score)
    for profile_id, keys, score in found.doubts:
        _sample(progress, pb.ResolutionSample.KIND_DOUBT, [profile_id], keys, score)


def _sample(
    progress: pb.ResolutionProgress,
    kind: pb.ResolutionSample.Kind,
    profiles: Sequence[str],
    keys: Sequence[str],
    score: MatchScore,
) -> None:
    if sum(item.kind == kind for item in progress.samples) < SAMPLES:
        made = progress.samples.add(
            kind=kind, profiles=[f"profiles/{item}" for item in profiles], source_records=map(record_name, keys),
            weight=score.weight, probability=score.probability,
        )  # fmt: skip
        for step in score.steps:
            made.steps.add(comparison=step.comparison, level=step.level, weight=step.weight)
