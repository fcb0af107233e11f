"""The job of retention: find what is due, keep what is held, take the rest, and leave one receipt.

A run goes through pages. What it is about to take of a page is in its checkpoint before anything is touched; who takes
over after a crash finishes that page first, sees what is gone already, and counts it once. A present record is taken
from by a new version that says less and carries the run as its origin; its content hash stays, so that the same row
coming again is recognized and changes nothing (docs/adr/0014). Everything else is removed.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import asdict, dataclass, field
from datetime import UTC, datetime

from google.protobuf.message import Message
from kehu.profiles.v1 import retention_pb2 as pb

from services.chassis.jobs import Handler, Job, Paused
from services.profiles.ageing.receipts import Receipts
from services.profiles.ageing.retiring import Item, Retirer
from services.profiles.ageing.transactions import Interactions, MonthRetirer
from services.profiles.dictionary import Dictionary
from services.profiles.domain.retention import WHOLE, Action, RecordType, RetentionRule
from services.profiles.errors import RetentionChanged, RuleNotFound
from services.profiles.revised import Rulebook
from services.profiles.store import Store
from services.profiles.vault import Vault

RETAIN = "retention"
SAMPLES = 20  # RetentionCount documents this maximum
ALL = 1000
STAGES = tuple(RecordType)
_ACTIONS = {pb.RetentionRule.ACTION_DELETE: Action.DELETE, pb.RetentionRule.ACTION_GENERALIZE: Action.GENERALIZE}


def retention_rules(store: Store) -> Rulebook[pb.RetentionRule]:
    """Return the retention rules of a store."""
    return Rulebook("retentionRules", pb.RetentionRule, store.retention_rules)


def domain_rule(rule_id: str, revision: int, message: pb.RetentionRule) -> RetentionRule:
    """Return a revision as the domain knows it."""
    kind = pb.RetentionRule.RecordType.Name(message.record_type).removeprefix("RECORD_TYPE_").lower()
    return RetentionRule(
        rule_id, revision, RecordType(kind), message.days, _ACTIONS[message.action], message.field or WHOLE,
        message.source.rpartition("/")[2], message.measured_from == pb.RetentionRule.CLOCK_RECEIVED,
        message.bars_newer_versions,
    )  # fmt: skip


@dataclass(slots=True)
class State:
    """How far a run is: the checkpoint of its job. `rules` are id, revision and content; counts are by rule."""

    number: int = 1
    start: str = ""
    rules: list[list[object]] = field(default_factory=list)
    counting: bool = False
    stage: int = 0
    after: str = ""
    next_after: str = ""
    part: int = 0
    doing: list[list[object]] = field(default_factory=list)
    due: list[int] = field(default_factory=list)
    done: list[int] = field(default_factory=list)
    held: list[int] = field(default_factory=list)
    samples: list[list[str]] = field(default_factory=list)

    def begin(self, *, counting: bool) -> None:
        """Go to the first page, all counts at zero."""
        none = [0] * len(self.rules)
        self.counting, self.stage, self.after, self.part = counting, 0, "", 0
        self.due, self.done, self.held, self.samples = none, none[:], none[:], [[] for _ in none]


class Keeper:
    """Runs retention."""

    def __init__(
        self, store: Store, vault: Vault, dictionary: Dictionary, interactions: Interactions, page: int = 200
    ) -> None:
        """Work with these tools, `page` profiles or things at a time."""
        self._store = store
        self._page = page
        self._rules = retention_rules(store)
        self._receipts = Receipts(store, vault)
        self._retirer = Retirer(store, vault, dictionary)
        self._months = MonthRetirer(store, interactions)

    def handlers(self) -> dict[str, Handler]:
        """Return the handler of this job."""
        return {RETAIN: self.run}

    def run(self, job: Job) -> Message:
        """Run once from the checkpoint on, and come back when a schedule says so.

        Raises:
            RuleNotFound: the one rule that it was to run is gone.
            RetentionChanged: another number of items is due than was expected.
            Paused: until the next run.
        """
        state = State(**job.checkpoint) if job.checkpoint else State()  # type: ignore[arg-type]
        shown = pb.RetentionRun()
        job.metadata.Unpack(shown)
        is_dry, expected = shown.dry_run, str(job.args.get("expected_count", ""))
        if not state.start:
            state.start, state.rules = datetime.now(UTC).isoformat(), self._rules_of(job, is_dry=is_dry)
            state.begin(counting=is_dry or bool(expected))
            self._save(job, state, shown)
        if state.counting:
            self._walk(job, state, shown)
            if is_dry:
                return self._tried(state, shown)
            if sum(state.due) != int(expected):
                raise RetentionChanged(
                    "another number of items is due than was expected; nothing was changed",
                    metadata={"due_count": str(sum(state.due))},
                )
            state.begin(counting=False)
            self._save(job, state, shown)
        self._walk(job, state, shown)
        return self._end(job, state, shown)

    def _rules_of(self, job: Job, *, is_dry: bool) -> list[list[object]]:
        """Return id, revision and content of the rules to run: what is in use, or the latest of one that is tried."""
        wanted = str(job.args.get("rule", ""))
        if not wanted:
            found = self._rules.shelf.page({}, "", ALL)
            return [[item.id, item.active_revision, item.active] for item in found if item.active]
        rule = self._rules.get(wanted)
        if is_dry:
            return [[rule.id, rule.revision, rule.latest]]
        if not rule.active:
            raise RuleNotFound("the rule is not in use", metadata={"name": wanted})
        return [[rule.id, rule.active_revision, rule.active]]

    def _walk(self, job: Job, state: State, shown: pb.RetentionRun) -> None:
        """Go through all pages from the checkpoint on; count, or take."""
        rules = [domain_rule(str(i), int(str(n)), self._rules.parsed(str(plain))) for i, n, plain in state.rules]
        start = datetime.fromisoformat(state.start)
        run = f"{job.name}/{state.number}"
        if state.doing:
            self._finish(job, state, shown, rules, run)
        for stage in range(state.stage, len(STAGES)):
            if stage > state.stage:
                state.stage, state.after = stage, ""
            if not any(rule.record_type is STAGES[stage] for rule in rules):
                continue
            while True:
                found = self._retirer_of(stage).due(STAGES[stage], rules, state.after, self._page, start)
                if not found.last:
                    break
                self._note(state, found.items, found.held)
                state.next_after = found.last
                state.doing = [] if state.counting else [list(item) for item in found.items]
                if state.doing:
                    self._save(job, state, shown)
                self._finish(job, state, shown, rules, run)

    def _retirer_of(self, stage: int) -> Retirer | MonthRetirer:
        return self._months if STAGES[stage] is RecordType.INTERACTIONS else self._retirer

    def _note(self, state: State, items: Sequence[Item], held: Iterable[int]) -> None:
        for item in items:
            state.due[item.rule] += 1
            if len(state.samples[item.rule]) < SAMPLES:
                state.samples[item.rule].append(item.text)
        for rule in held:
            state.held[rule] += 1

    def _finish(self, job: Job, state: State, shown: pb.RetentionRun, rules: Sequence[RetentionRule], run: str) -> None:
        """Take what the checkpoint says, keep the hashes of what was taken, and go on behind the page."""
        items = [Item(*entry) for entry in state.doing]  # type: ignore[arg-type]
        if items:
            start = datetime.fromisoformat(state.start)
            taken, held = self._retirer_of(state.stage).take(STAGES[state.stage], rules, items, start, run)
            self._receipts.add_items(run, state.part, [item.text for item in taken])
            for item in taken:
                state.done[item.rule] += 1
            for item in held:
                state.held[item.rule] += 1
        state.after, state.doing, state.part = state.next_after, [], state.part + 1
        self._save(job, state, shown)

    def _end(self, job: Job, state: State, shown: pb.RetentionRun) -> Message:
        start = datetime.fromisoformat(state.start)
        counts = [pb.RetentionCount() for _ in state.rules]
        for made, count in zip(counts, _counts(state, self._rules), strict=True):
            made.CopyFrom(count)
            made.ClearField("samples")
        receipt = self._receipts.issue(f"{job.name}/{state.number}", start, counts)
        _show(state, shown, self._rules)
        shown.receipt = f"retentionReceipts/{receipt.id}"
        hours = int(str(job.args.get("every_hours", 0)))
        if not hours:
            return shown
        job.save(asdict(State(number=state.number + 1)), shown)
        raise Paused("until the next run", hours * 3600.0)

    def _tried(self, state: State, shown: pb.RetentionRun) -> Message:
        _show(state, shown, self._rules)
        for rule, count in zip(state.rules, shown.counts, strict=True):
            self._rules.keep_trial(str(rule[0]), count.revision, count)
        return shown

    def _save(self, job: Job, state: State, shown: pb.RetentionRun) -> None:
        _show(state, shown, self._rules)
        job.save(asdict(state), shown)


def _show(state: State, shown: pb.RetentionRun, rules: Rulebook[pb.RetentionRule]) -> None:
    shown.start_time.FromDatetime(datetime.fromisoformat(state.start))
    del shown.counts[:]
    shown.counts.extend(_counts(state, rules))


def _counts(state: State, rules: Rulebook[pb.RetentionRule]) -> Iterator[pb.RetentionCount]:
    for at, (rule_id, revision, plain) in enumerate(state.rules):
        count = pb.RetentionCount(
            rule=f"retentionRules/{rule_id}", revision=int(str(revision)), basis=rules.parsed(str(plain)).basis,
            due_count=state.due[at], done_count=state.done[at], held_count=state.held[at], samples=state.samples[at],
        )  # fmt: skip
        count.time.FromDatetime(datetime.now(UTC))
        yield count
