"""Give profiles their lifecycle stage: all of them each day and after each computation of scores, some at once.

What was bought is analytics' to know and asked for a page at a time. Nothing of it is kept here: a stage is what the
last computation, the days since and the rules say. Who was merged since then is the sum of what was measured under
each id, until analytics scored the one that lives on anew: then nothing is measured under the others.
"""

from __future__ import annotations

import contextlib
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta

import grpc
from google.protobuf.message import Message
from kehu.analytics.v1 import analytics_pb2
from kehu.analytics.v1.analytics_pb2_grpc import AnalyticsServiceStub
from kehu.profiles.v1 import lifecycle_pb2 as pb

from services.chassis.errors import Conflict, Unavailable
from services.chassis.jobs import Handler, Job, Jobs, Owner, Paused
from services.profiles.aliases import resolve
from services.profiles.dictionary import Dictionary
from services.profiles.domain.lifecycle import Condition, Figures, Lifecycle, Measure, StageRule, united
from services.profiles.errors import ScoresMissing
from services.profiles.revised import Rulebook
from services.profiles.shaping import load, reshape, write
from services.profiles.store import Store
from services.profiles.values import Profile, Revision, StoredRule
from services.profiles.vault import Vault

STAGE, STAGE_DAILY, STAGE_CHANGED = "lifecycle", "lifecycle_daily", "lifecycle_changed"
DEFAULT = "default"
DAY_SECONDS, LOOK_SECONDS = 24 * 3600.0, 5.0
PAGE, ATTEMPTS, ASK_SECONDS = 1000, 8, 60.0
SLACK = timedelta(hours=1)  # a merge just before a computation may not be in it
SETTLE_SECONDS = 10.0  # analytics follows a merge or a split within a few seconds, by the same events
IDS_PER_CALL = 5000  # BatchGetScoresRequest takes no more
NOBODY = Owner("service:profiles", "")  # no department sees or cancels these operations


def _stage(stage: str, title: str, **conditions: tuple[int | None, int | None]) -> pb.StageRule:
    rule = pb.StageRule(stage=stage, display_name=title)
    for name, (least, most) in conditions.items():
        measure = pb.StageCondition.Measure.Value(f"MEASURE_{name.upper()}")
        rule.conditions.add(measure=measure, at_least=least, at_most=most)
    return rule


SUGGESTED = pb.Lifecycle(  # what an installation begins with, not in use before it is previewed and activated
    stages=[
        _stage("new", "新客", tenure_days=(None, 30)),
        _stage("loyal", "忠诚", recency_days=(None, 90), rfm_frequency=(4, None), rfm_monetary=(4, None)),
        _stage("active", "活跃", recency_days=(None, 90)),
        _stage("dormant", "沉睡", recency_days=(None, 365)),
        _stage("churned", "流失", baskets=(1, None)),
    ],
    default_stage="potential",
    default_display_name="潜在",
)


def lifecycles(store: Store) -> Rulebook[pb.Lifecycle]:
    """Return the rules of a store, those suggested put there first when it has none."""
    rules = Rulebook("lifecycles", pb.Lifecycle, store.lifecycles)
    if store.lifecycles.get(DEFAULT) is None:
        store.lifecycles.add_missing([StoredRule(DEFAULT, rules.plain(SUGGESTED), 1)])
    return rules


def domain_lifecycle(revision: int, message: pb.Lifecycle) -> Lifecycle:
    """Return a revision as the domain knows it."""
    rules = [StageRule(item.stage, tuple(map(_condition, item.conditions))) for item in message.stages]
    return Lifecycle(revision, tuple(rules), message.default_stage)


def _condition(message: pb.StageCondition) -> Condition:
    name = pb.StageCondition.Measure.Name(message.measure).removeprefix("MEASURE_").lower()
    least = message.at_least if message.HasField("at_least") else None
    most = message.at_most if message.HasField("at_most") else None
    return Condition(Measure(name), least, most, frozenset(message.tiers))


@dataclass(frozen=True, slots=True)
class Measured:
    """What the last computation measured, by the id it was measured under, up to when, and when it ended."""

    cutoff: datetime
    ended: datetime
    by_id: Mapping[str, Figures]


Ask = Callable[[Sequence[str]], Measured]


def scores_of(stub: AnalyticsServiceStub) -> Ask:
    """Return what asks analytics.

    Raises, when it is called:
        Unavailable: analytics does not answer.
        ScoresMissing: scores were never computed.
    """

    def ask(profile_ids: Sequence[str]) -> Measured:
        found: dict[str, Figures] = {}
        for start in range(0, max(len(profile_ids), 1), IDS_PER_CALL):
            part = analytics_pb2.BatchGetScoresRequest(profile_ids=profile_ids[start : start + IDS_PER_CALL])
            try:
                reply = stub.BatchGetScores(part, timeout=ASK_SECONDS)
            except grpc.RpcError as error:
                if error.code() in (grpc.StatusCode.UNAVAILABLE, grpc.StatusCode.DEADLINE_EXCEEDED):
                    raise Unavailable("the analytics service does not answer; stages are given later") from error
                raise
            if not reply.HasField("data_cutoff"):
                raise ScoresMissing("scores were never computed; compute them first")
            found.update({item.profile_id: _figures(item) for item in reply.profiles})
        return Measured(reply.data_cutoff.ToDatetime(tzinfo=UTC), reply.compute_time.ToDatetime(tzinfo=UTC), found)

    return ask


def _figures(item: analytics_pb2.MeasuredProfile) -> Figures:
    tenure = item.tenure_days if item.HasField("tenure_days") else None
    return Figures(
        item.baskets, item.monetary_cents, item.recency_days, tenure, item.rfm_recency, item.rfm_frequency,
        item.rfm_monetary,
    )  # fmt: skip


def start(jobs: Jobs) -> None:
    """Let the jobs run from now on; each is there once, however often this is called."""
    jobs.start(STAGE_DAILY, {}, pb.LifecycleEffect(), NOBODY, "always")
    jobs.start(STAGE_CHANGED, {}, pb.LifecycleEffect(), NOBODY, "always")


class Stager:
    """Gives stages."""

    def __init__(
        self,
        store: Store,
        vault: Vault,
        dictionary: Dictionary,
        ask: Ask,
        page: int = PAGE,
        settles: float = SETTLE_SECONDS,
    ) -> None:
        """Work with these tools, `page` profiles at a time; `ask` tells what was measured of some.

        Merged and split profiles are looked at after `settles` seconds.
        """
        self._store = store
        self._vault = vault
        self._dictionary = dictionary
        self._ask = ask
        self._page = page
        self._settles = settles

    def handlers(self) -> dict[str, Handler]:
        """Return the handlers of these jobs."""
        return {STAGE: self.run, STAGE_DAILY: self.run_daily, STAGE_CHANGED: self.run_changed}

    def run(self, job: Job) -> Message:
        """Evaluate all profiles by the rules in use, or preview the latest revision.

        Raises:
            ScoresMissing: nobody's purchases are known; nothing was changed.
        """
        effect = pb.LifecycleEffect()
        job.metadata.Unpack(effect)
        if not job.checkpoint:
            revision, plain = self._rules(preview=effect.preview)
            effect.revision = revision
            job.save({"after": "", "plain": plain}, effect)
        if not job.checkpoint["plain"]:
            return effect  # no rules are in use: nothing to do
        self._walk(job, effect)
        effect.time.FromDatetime(datetime.now(UTC))
        if effect.preview:
            lifecycles(self._store).keep_trial(DEFAULT, effect.revision, effect)
        return effect

    def run_daily(self, job: Job) -> Message:
        """Evaluate all profiles each day, for days pass without an event.

        Raises:
            Paused: until the next day.
        """
        with contextlib.suppress(ScoresMissing):
            self.run(job)
        job.save({}, pb.LifecycleEffect())
        raise Paused("until the next day", DAY_SECONDS)

    def run_changed(self, job: Job) -> Message:
        """Evaluate the profiles that were merged or split, as soon as analytics had time to score them anew.

        Raises:
            Paused: until the next look.
        """
        revision, plain = self._rules(preview=False)
        after, settled = "", datetime.now(UTC) - timedelta(seconds=self._settles)
        while page := self._store.unstaged.page({}, after, self._page):
            after = page[-1].id
            waiting = [item for item in page if item.update_time and item.update_time <= settled]
            if plain and waiting:
                living = resolve(self._store, [item.id for item in waiting])
                lifecycle = self._lifecycle(revision, plain)
                try:
                    self._give(list({item.profile_id: item for item in living.values()}.values()), lifecycle)
                except ScoresMissing:
                    break
            for item in waiting:
                try:
                    self._store.unstaged.delete(item)
                except Conflict:
                    continue  # it changed again meanwhile and is looked at again
            job.save({}, pb.LifecycleEffect())
        raise Paused("until the next look", LOOK_SECONDS)

    def _rules(self, *, preview: bool) -> tuple[int, str]:
        stored = lifecycles(self._store).get(f"lifecycles/{DEFAULT}")
        return (stored.revision, stored.latest) if preview else (stored.active_revision, stored.active)

    def _lifecycle(self, revision: int, plain: str) -> Lifecycle:
        return domain_lifecycle(revision, lifecycles(self._store).parsed(plain))

    def _walk(self, job: Job, effect: pb.LifecycleEffect) -> None:
        plain, after = str(job.checkpoint["plain"]), str(job.checkpoint["after"])
        lifecycle = self._lifecycle(effect.revision, plain)
        moves = Counter({(item.from_stage, item.to_stage): item.profile_count for item in effect.moves})
        while page := self._store.page_profiles(after, self._page, ()):
            found, cutoff = self._give(page, lifecycle, preview=effect.preview)
            moves.update(found)
            after = page[-1].profile_id
            effect.profiles_read += len(page)
            effect.data_cutoff.FromDatetime(cutoff)
            del effect.moves[:]
            for (one, other), count in sorted(moves.items()):
                effect.moves.add(from_stage=one, to_stage=other, profile_count=count)
            job.save({"after": after, "plain": plain}, effect)

    def _give(
        self, profiles: Sequence[Profile], lifecycle: Lifecycle, *, preview: bool = False
    ) -> tuple[Counter[tuple[str, str]], datetime]:
        """Give profiles their stages and count the moves; who lost a race is looked at again.

        Raises:
            Conflict: others kept changing them.
        """
        moves: Counter[tuple[str, str]] = Counter()
        waiting = {item.profile_id: item for item in profiles}
        for _ in range(ATTEMPTS):
            now = datetime.now(UTC)
            measured = self._measured(list(waiting.values()))
            stages = {key: self._stage_of(item, lifecycle, measured, now) for key, item in waiting.items()}
            moved = [item for key, item in waiting.items() if stages[key] != item.stage]
            lost = set() if preview else self._write(moved, stages, lifecycle.revision, now)
            done = [item for key, item in waiting.items() if key not in lost and (item.stage or stages[key])]
            moves.update((item.stage, stages[item.profile_id]) for item in done)
            if not lost:
                return moves, measured.cutoff
            living = self._store.profiles(sorted(lost))
            waiting = {key: item for key, item in living.items() if not (item.merged_into or item.is_erased)}
        raise Unavailable("others keep changing the same profiles; stages are given later")

    def _measured(self, profiles: Sequence[Profile]) -> Measured:
        """Return what was measured of profiles, under former ids too where somebody was merged since.

        Those lie scattered among all ids, so that to ask for them takes a hundred times as long.
        """
        found = self._ask(sorted(item.profile_id for item in profiles))
        late = sorted(name for item in profiles if _is_merged_since(item, found.ended - SLACK) for name in item.aliases)
        return replace(found, by_id={**found.by_id, **self._ask(late).by_id}) if late else found

    def _stage_of(self, profile: Profile, lifecycle: Lifecycle, measured: Measured, now: datetime) -> str:
        """Return the stage of a profile, none for one whose records were all deleted."""
        if all(map(self._vault.says_nothing, profile.records)):
            return ""
        return lifecycle.stage_of(_figures_of(profile, measured, now))

    def _write(self, profiles: Sequence[Profile], stages: Mapping[str, str], revision: int, now: datetime) -> set[str]:
        opened, ciphers = load(self._store, self._vault, profiles)
        rules = self._dictionary.rules()
        shaped = []
        for item in opened:
            staged = replace(item.profile, stage=stages[item.profile_id], stage_time=now, stage_revision=revision)
            why = Revision(0, now, "staged")
            shaped.append(reshape(item.profile, staged, item.records, ciphers, self._vault, rules, now, why))
        return set(write(self._store, shaped))


def _is_merged_since(profile: Profile, time: datetime) -> bool:
    return any(item.kind == "merged" and item.time >= time for item in profile.revisions)


def _figures_of(profile: Profile, measured: Measured, now: datetime) -> Figures:
    names: Iterable[str] = (profile.profile_id, *profile.aliases)
    bought = united(measured.by_id[name] for name in names if name in measured.by_id)
    passed = max((now - measured.cutoff) // timedelta(days=1), 0)
    registered = (now - profile.create_time) // timedelta(days=1)
    return replace(bought.later(passed), registered_days=registered, tier=profile.tier)
