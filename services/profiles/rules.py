"""Validation rules in use, and the job that tries one on what is stored."""

from __future__ import annotations

import threading
import time
from collections.abc import Hashable, Sequence
from dataclasses import replace
from datetime import UTC, datetime
from functools import lru_cache
from typing import cast

from google.protobuf import json_format
from google.protobuf.message import Message
from kehu.profiles.v1 import validation_pb2 as pb

from services.chassis.errors import Conflict
from services.chassis.jobs import Job
from services.chassis.records import etag_of
from services.profiles.dictionary import FRESH_SECONDS
from services.profiles.domain import validation as checks
from services.profiles.domain.validation import Rule
from services.profiles.domain.values import Problem, Severity, StandardRecord
from services.profiles.errors import RuleNotFound
from services.profiles.shaping import load
from services.profiles.store import Store
from services.profiles.values import StoredRule
from services.profiles.vault import Vault

TRY_RULE = "try-rule"
RULES_LIMIT = 1000
PROFILES_PER_BATCH = 200
EXAMPLES_LIMIT = 20  # RuleTrial documents this maximum
OUTPUT = ("name", "revision", "active_revision", "trial", "create_time", "update_time", "etag")
KINDS = {
    pb.RangeCheck.KIND_NUMBER: checks.NUMBER,
    pb.RangeCheck.KIND_DATE: checks.DATE,
    pb.RangeCheck.KIND_LENGTH: checks.LENGTH,
}
RELATIONS = {
    pb.CompareCheck.RELATION_LESS: checks.LESS,
    pb.CompareCheck.RELATION_LESS_OR_EQUAL: checks.LESS_OR_EQUAL,
    pb.CompareCheck.RELATION_EQUAL: checks.EQUAL,
    pb.CompareCheck.RELATION_NOT_EQUAL: checks.NOT_EQUAL,
}


def plain_of(message: pb.ValidationRule) -> str:
    """Return what of a rule makes a revision, as JSON."""
    kept = pb.ValidationRule()
    kept.CopyFrom(message)
    for name in OUTPUT:
        kept.ClearField(name)  # type: ignore[arg-type]
    return json_format.MessageToJson(kept, preserving_proto_field_name=True, indent=None, ensure_ascii=False)


def rule_message(rule: StoredRule) -> pb.ValidationRule:
    """Return the message of a rule: its latest revision."""
    message = json_format.Parse(rule.latest, pb.ValidationRule())
    message.name = f"validationRules/{rule.id}"
    message.revision, message.active_revision = rule.revision, rule.active_revision
    if rule.trial:
        json_format.Parse(rule.trial, message.trial)
    if rule.create_time and rule.update_time:
        message.create_time.FromDatetime(rule.create_time)
        message.update_time.FromDatetime(rule.update_time)
    message.etag = etag_of(rule.version)
    return message


def domain_rule(rule_id: str, plain: str) -> Rule:
    """Return a revision as the domain knows it."""
    message = json_format.Parse(plain, pb.ValidationRule())
    is_grave = message.severity == pb.ValidationRule.SEVERITY_REJECT
    severity = Severity.REJECT if is_grave else Severity.WARNING
    return Rule(rule_id, message.field, _check(message), severity, message.source.rpartition("/")[2])


def _check(message: pb.ValidationRule) -> checks.Check:
    kind = message.WhichOneof("check")
    if kind == "range":
        return checks.Range(KINDS[message.range.kind], message.range.least, message.range.most)
    if kind == "shape":
        return checks.Shape(tuple(message.shape.shapes))
    if kind == "list":
        return checks.Listed(frozenset(message.list.values))
    if kind == "compare":
        return checks.Compared(message.compare.other_field, RELATIONS[message.compare.relation])
    return checks.Present(message.present.when_field)


class RuleBook:
    """The rules in use, read from the store and remembered for moments."""

    def __init__(self, store: Store) -> None:
        self._store = store
        self._rules: Sequence[Rule] = ()
        self._read_at = float("-inf")
        self._lock = threading.Lock()

    def broken(self, record: StandardRecord) -> tuple[Problem, ...]:
        """Return a problem for each rule in use that the record breaks."""
        rules = self._in_use()
        return checks.broken(rules, record) if rules else ()

    def _in_use(self) -> Sequence[Rule]:
        with self._lock:
            if time.monotonic() - self._read_at > FRESH_SECONDS:
                stored = self._store.rules.page({}, "", RULES_LIMIT)
                self._rules = [domain_rule(item.id, item.active) for item in stored if item.active]
                self._read_at = time.monotonic()
            return self._rules

    def forget(self) -> None:
        """Read the rules anew at the next use."""
        with self._lock:
            self._read_at = float("-inf")


def rule_book(store: Store) -> RuleBook:
    """Return the one rule book of a store in this process."""
    return _book(cast("Hashable", store))


@lru_cache(maxsize=4)
def _book(store: Hashable) -> RuleBook:
    return RuleBook(cast("Store", store))


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
