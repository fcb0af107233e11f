"""The job that measures: leased, resumable, in batches; killed anywhere and run again, the figures are the same."""

from __future__ import annotations

import time
from collections.abc import Iterable, Sequence
from contextlib import suppress
from datetime import UTC, datetime, timedelta

from google.protobuf.message import Message
from kehu.profiles.v1 import quality_pb2 as pb

from services.chassis.errors import AlreadyExists
from services.chassis.jobs import Handler, Job, Jobs, Owner, Paused
from services.chassis.times import CHINA
from services.profiles.dictionary import Dictionary
from services.profiles.domain.quality import MATCH, Dimension, Finding, reject_findings
from services.profiles.overriding import NOBODY
from services.profiles.quality.concluding import conclude
from services.profiles.quality.examining import (
    Examiner,
    all_sources,
    department_of,
    settings_of,
)
from services.profiles.quality.rules import all_rules
from services.profiles.quality.tally import QualityRule, Tally
from services.profiles.quality.values import UNASSIGNED, day_of
from services.profiles.store import Store
from services.profiles.values import Pair, Profile, Reject
from services.profiles.vault import Vault

MEASURE, SCHEDULE = "measure-quality", "schedule-quality"
PROFILES_PER_BATCH, ROWS_PER_BATCH = 200, 500
SAVE_SECONDS = 5.0
MATCH_MONTHS = 3  # months of verdicts on sampled merges that accuracy of merging goes by
DAILY_HOUR = 2  # of the night in China
PROFILES, REJECTS, MATCHES = "profiles", "rejects", "matches"


def start_measuring(jobs: Jobs, department: str, owner: Owner, request_id: str) -> Message:
    """Queue a measurement of a department, or of all when it is empty."""
    metadata = pb.QualityMeasurement(department=department)
    return jobs.start(MEASURE, {"department": department}, metadata, owner, request_id)


def schedule(jobs: Jobs) -> None:
    """See that a measurement of everything is queued every day; a repeat changes nothing."""
    with suppress(AlreadyExists):  # another process was faster
        jobs.start(SCHEDULE, {}, pb.QualityMeasurement(), NOBODY, "daily")


class Measurer:
    """Measures the quality of all that is stored."""

    def __init__(
        self,
        store: Store,
        vault: Vault,
        dictionary: Dictionary,
        jobs: Jobs,
        profiles_per_batch: int = PROFILES_PER_BATCH,
        save_seconds: float = SAVE_SECONDS,
    ) -> None:
        """Work with these tools, saving a checkpoint each `save_seconds`."""
        self._store = store
        self._vault = vault
        self._dictionary = dictionary
        self._jobs = jobs
        self._profiles_per_batch = profiles_per_batch
        self._save_seconds = save_seconds

    def handlers(self) -> dict[str, Handler]:
        """Return the handlers of these jobs."""
        return {MEASURE: self.run, SCHEDULE: self.run_schedule}

    def run_schedule(self, job: Job) -> Message:
        """Queue the measurement of today once its hour has come, and come back tomorrow."""
        now = datetime.now(UTC).astimezone(CHINA)
        due = now.replace(hour=DAILY_HOUR, minute=0, second=0, microsecond=0)
        if now >= due:
            with suppress(AlreadyExists):
                start_measuring(self._jobs, "", NOBODY, f"daily/{day_of(now)}")
            due += timedelta(days=1)
        job.save({}, pb.QualityMeasurement())  # failures of other days are forgotten
        raise Paused("until the next day", (due - now).total_seconds())

    def run(self, job: Job) -> Message:
        """Measure from the checkpoint on; then keep the figures and judge the rules by them."""
        run = _Run(self._store, job, list(all_rules(self._store)), self._save_seconds)
        examiner = Examiner(self._store, self._vault, self._dictionary, run.start_time)
        if run.phase == PROFILES:
            self._measure_profiles(run, examiner)
            run.enter(REJECTS)
        departments = {item.id: item.owner_department for item in all_sources(self._store)}
        if run.phase == REJECTS:
            while rows := self._store.rejects.page({"state": "open"}, run.after, ROWS_PER_BATCH):
                for row in rows:
                    found = reject_findings(
                        tuple(str(item[0]) for item in row.reasons),
                        row.source_id,
                        f"rejects/{row.id}",
                        examiner.scope,
                    )
                    run.add_reject(row, found, departments.get(row.source_id, ""))
                run.advance(rows[-1].id)
            run.enter(MATCHES)
        for month in _months(run.start_time):
            self._measure_matches(run, month)
        return conclude(self._store, run.tally, run.rules, run.metadata, job, run.start_time)

    def _measure_profiles(self, run: _Run, examiner: Examiner) -> None:
        owner = "" if run.department == UNASSIGNED else run.department
        departments = (owner,) if run.department else ()
        while batch := self._store.page_profiles(run.after, self._profiles_per_batch, departments):
            for item in examiner.examine(batch):
                for finding in item.findings:
                    run.tally.add(finding, item.department, item.circumstances[finding.key])
            run.metadata.profiles_read += len(batch)
            run.metadata.records_read += sum(len(item.records) for item in batch)
            run.advance(batch[-1].profile_id)

    def _measure_matches(self, run: _Run, month: str) -> None:
        """Count the verdicts on sampled automatic merges, for the source and the department of the record that joined.

        Their number is bounded by what stewards answer in three months; they are counted in one go, again after a
        crash.
        """
        after = ""
        while pairs := self._store.pairs.page({"month": month}, after, ROWS_PER_BATCH):
            checks = [item for item in pairs if item.record and item.state in ("confirmed", "rejected")]
            homes = self._homes(checks)
            for item in checks:
                if item.record in homes:
                    run.add_match(item, department_of(homes[item.record]))
            after = pairs[-1].id

    def _homes(self, checks: Sequence[Pair]) -> dict[str, Profile]:
        found = self._store.by_record_keys([item.record for item in checks])
        return {key: profile for profile in found for key in profile.record_keys}


class _Run:
    """A measurement under way: where it is, and its sums so far."""

    def __init__(self, store: Store, job: Job, rules: list[QualityRule], save_seconds: float) -> None:
        self._job = job
        self._save_seconds = save_seconds
        self._saved_at = time.monotonic()
        self.department = str(job.args.get("department", ""))
        self.rules = rules
        self.tally = Tally(rules)
        self.metadata = pb.QualityMeasurement()
        job.metadata.Unpack(self.metadata)
        saved = job.checkpoint
        now = datetime.now(UTC)
        self.start_time = datetime.fromisoformat(
            str(saved.get("start") or now.replace(microsecond=now.microsecond // 1000 * 1000).isoformat())
        )
        self.phase, self.after = str(saved.get("phase", PROFILES)), str(saved.get("after", ""))
        if saved.get("tally"):
            self.tally.load(saved["tally"])  # type: ignore[arg-type]
        else:
            self.metadata.start_time.FromDatetime(self.start_time)
            self.save()

    def add_reject(self, row: Reject, found: Iterable[Finding], department: str) -> None:
        """Count a row that is set apart, if it is of what is measured."""
        if self.department not in ("", department) or not department:
            return
        operation = row.operation if row.operation.startswith("operations/") else ""
        circumstances = {
            "source": (f"sources/{row.source_id}",),
            "batch": (operation,) if operation else (),
            "settings": settings_of(row.source_id, row.source_version),
            "reason": tuple(dict.fromkeys(str(item[1]) for item in row.reasons)),
        }
        for finding in found:
            self.tally.add(finding, department, circumstances)
        self.metadata.rejects_read += 1

    def add_match(self, pair: Pair, department: str) -> None:
        """Count a verdict on an automatic merge."""
        if self.department in ("", department):
            source_id = pair.record.partition("/")[0]
            finding = Finding(Dimension.ACCURACY, MATCH, source_id, pair.record, pair.state == "confirmed")
            self.tally.add(finding, department, {"source": (f"sources/{source_id}",)})

    def advance(self, after: str) -> None:
        """Note how far this phase is; a checkpoint is saved now and then."""
        self.after = after
        if time.monotonic() - self._saved_at >= self._save_seconds:
            self.save()

    def enter(self, phase: str) -> None:
        """Begin the next phase."""
        self.phase, self.after = phase, ""
        self.save()

    def save(self) -> None:
        """Save the checkpoint."""
        checkpoint = {
            "start": self.start_time.isoformat(), "phase": self.phase, "after": self.after, "tally": self.tally.dump(),
        }  # fmt: skip
        self._job.save(checkpoint, self.metadata)
        self._saved_at = time.monotonic()


def _months(now: datetime) -> list[str]:
    """Return the months whose verdicts count, as pairs name them."""
    first = now.year * 12 + now.month - 1
    return [f"{month // 12}-{month % 12 + 1:02d}" for month in range(first - MATCH_MONTHS + 1, first + 1)]
