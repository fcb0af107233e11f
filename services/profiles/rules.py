"""The job that tries a validation rule on what is stored."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime

from google.protobuf import json_format
from google.protobuf.message import Message
from kehu.profiles.v1 import validation_pb2 as pb

from services.chassis.errors import Conflict
from services.chassis.jobs import Job
from services.profiles.checks import domain_rule
from services.profiles.domain.validation import Rule
from services.profiles.domain.values import StandardRecord
from services.profiles.errors import RuleNotFound
from services.profiles.shaping import load
from services.profiles.store import Store
from services.profiles.vault import Vault

TRY_RULE = "try-rule"
PROFILES_PER_BATCH = 200
EXAMPLES_LIMIT = 20  # RuleTrial documents this maximum


class Trials:
    """Tries rules on the records that are stored; only their counts are written."""

    def __init__(self, store: Store, vault: Vault, profiles_per_batch: int = PROFILES_PER_BATCH) -> None:
        """Work with these tools, `profiles_per_batch` at a time."""
        self._store = store
        self._vault = vault
        self._profiles_per_batch = profiles_per_batch

    def run(self, job: Job) -> Message:
        """Check profile after profile from the checkpoint on.

        Raises:
            RuleNotFound: it is gone.
        """
        trial = pb.RuleTrial()
        job.metadata.Unpack(trial)
        rule = domain_rule(str(job.args["rule_id"]), str(job.args["plain"]))
        after = str(job.checkpoint.get("after", ""))
        while batch := self._store.page_profiles(after, self._profiles_per_batch, ()):
            opened, _ = load(self._store, self._vault, batch)
            for record in (record for item in opened for record in item.records.values()):
                self._note(trial, rule, record)
            after = batch[-1].profile_id
            job.save({"after": after}, trial)
        trial.time.FromDatetime(datetime.now(UTC))
        self._keep(rule.rule_id, trial)
        return trial

    def _note(self, trial: pb.RuleTrial, rule: Rule, record: StandardRecord) -> None:
        if rule.source_id not in ("", record.source_id) or not record.originals:
            return
        trial.records_checked += 1
        if rule.is_broken_by(record):
            trial.records_broken += 1
            if len(trial.examples) < EXAMPLES_LIMIT:
                trial.examples.append(f"sources/{record.source_id}/records/{record.source_record_id}")

    def _keep(self, rule_id: str, trial: pb.RuleTrial) -> None:
        for _ in range(8):
            stored = self._store.rules.get(rule_id)
            if stored is None:
                raise RuleNotFound("the rule is gone", metadata={"name": f"validationRules/{rule_id}"})
            if stored.revision != trial.revision:
                return  # changed meanwhile: the operation says what the former revision did
            try:
                self._store.rules.replace(replace(stored, trial=json_format.MessageToJson(trial, indent=None)))
            except Conflict:
                continue
            return
