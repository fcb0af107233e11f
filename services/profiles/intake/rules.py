"""The job that tries a validation rule on what is stored."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import UTC, datetime

from google.protobuf.message import Message
from kehu.profiles.v1 import validation_pb2 as pb

from services.chassis.jobs import Job, Paused
from services.profiles.domain.validation import Rule
from services.profiles.domain.values import StandardRecord
from services.profiles.folding import Working
from services.profiles.intake.checks import domain_rule, validation_rules
from services.profiles.intake.indexing import Indexer, former_versions
from services.profiles.intake.neighbours import Neighbours, needs_token
from services.profiles.remembered import FRESH_SECONDS
from services.profiles.shaping import load
from services.profiles.store import Store
from services.profiles.vault import Vault

TRY_RULE = "try-rule"
PROFILES_PER_BATCH = 200
SETTLE_SECONDS = FRESH_SECONDS + 1
INDEXED, INDEXED_UP_TO = "indexed", "indexed_up_to"  # of a checkpoint
EXAMPLES_LIMIT = 20  # RuleTrial documents this maximum


class Trials:
    """Tries rules on the records that are stored; only their counts are written."""

    def __init__(
        self,
        store: Store,
        vault: Vault,
        profiles_per_batch: int = PROFILES_PER_BATCH,
        settle_seconds: float = SETTLE_SECONDS,
    ) -> None:
        """Work with these tools, `profiles_per_batch` at a time, on rules that every process knows by then."""
        self._settle_seconds = settle_seconds
        self._indexer = Indexer(store, vault)
        self._store = store
        self._vault = vault
        self._profiles_per_batch = profiles_per_batch

    def run(self, job: Job) -> Message:
        """Check profile after profile from the checkpoint on; before that, index what a rule counts by.

        Raises:
            RuleNotFound: it is gone.
        """
        trial = pb.RuleTrial()
        job.metadata.Unpack(trial)
        rule = domain_rule(str(job.args["rule_id"]), str(job.args["plain"]))
        self._index(job, rule, trial)
        after = str(job.checkpoint.get("after", ""))
        while batch := self._store.page_profiles(after, self._profiles_per_batch, ()):
            opened, _ = load(self._store, self._vault, batch)
            found = self._broken(rule, opened)
            for key, record in ((key, record) for item in opened for key, record in item.records.items()):
                self._note(trial, rule, record, key in found)
            after = batch[-1].profile_id
            job.save({INDEXED: True, "after": after}, trial)
        trial.time.FromDatetime(datetime.now(UTC))
        validation_rules(self._store).keep_trial(rule.rule_id, trial.revision, trial)
        return trial

    def _index(self, job: Job, rule: Rule, trial: pb.RuleTrial) -> None:
        """See to it that every stored record has the tokens that the rule counts by."""
        if rule.index is None or not needs_token(rule.index) or job.checkpoint.get(INDEXED):
            return
        stored, now = self._store.rules.get(rule.rule_id), datetime.now(UTC)
        if stored and stored.update_time and (now - stored.update_time).total_seconds() < self._settle_seconds:
            raise Paused("not every process knows the rule yet", self._settle_seconds)
        after = str(job.checkpoint.get(INDEXED_UP_TO, ""))
        while batch := self._store.page_profiles(after, self._profiles_per_batch, ()):
            self._indexer.add(batch, rule.index)
            after = batch[-1].profile_id
            job.save({INDEXED_UP_TO: after}, trial)

    def _broken(self, rule: Rule, opened: Sequence[Working]) -> set[str]:
        """Return the keys of the records that break the rule."""
        found = {key: record for item in opened for key, record in item.records.items()}
        if not rule.looks_around:
            return {key for key, record in found.items() if rule.is_broken_by(record)}
        neighbours = Neighbours(self._vault, [rule])
        held = self._store.holders(neighbours.counted(found.values()))
        former = former_versions(self._store, self._vault, opened) if rule.index is None else {}
        return {key for key, record in found.items() if neighbours.judge(record, held, former.get(key))}

    def _note(self, trial: pb.RuleTrial, rule: Rule, record: StandardRecord, is_broken: bool) -> None:
        if rule.source_id not in ("", record.source_id) or not record.originals:
            return
        trial.records_checked += 1
        if is_broken:
            trial.records_broken += 1
            if len(trial.examples) < EXAMPLES_LIMIT:
                trial.examples.append(f"sources/{record.source_id}/records/{record.source_record_id}")
