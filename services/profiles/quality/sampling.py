"""Rows that failed, as they are now: read again at each look, so that nothing of them is stored with an incident."""

from __future__ import annotations

from collections.abc import Sequence

from kehu.profiles.v1 import quality_pb2 as pb
from kehu.profiles.v1 import resources_pb2

from services.profiles.admission import Admission, settings_of
from services.profiles.believed import believe
from services.profiles.domain.incidents import Incident
from services.profiles.domain.quality import MATCH
from services.profiles.domain.sources import read_row
from services.profiles.domain.standardize import ADDRESS_FIELDS, standardize
from services.profiles.domain.validation import texts_of
from services.profiles.domain.values import Problem, RawRecord, StandardRecord
from services.profiles.messages import classified
from services.profiles.quality.examining import Examiner, department_of
from services.profiles.shaping import load
from services.profiles.store import Store
from services.profiles.values import Profile, Reject, Source
from services.profiles.vault import Vault

REJECTS = "rejects/"


class Sampler:
    """Shows the rows of an incident that still are of its department; the caller's masks are the guard's work."""

    def __init__(self, store: Store, vault: Vault, admission: Admission, examiner: Examiner) -> None:
        self._store = store
        self._vault = vault
        self._admission = admission
        self._examiner = examiner

    def samples(self, incident: Incident) -> list[pb.QualitySample]:
        """Return the rows that failed in the last measurement, without those that are gone or another department's."""
        keys = list(incident.current.samples)
        records = [key for key in keys if not key.startswith(REJECTS)]
        found = [self._of_reject(incident, key) for key in keys if key.startswith(REJECTS)]
        profiles = self._store.by_record_keys(records) if records else []
        owned = [item for item in profiles if department_of(item) == incident.department]
        return [*self._of_records(incident, owned, records), *(item for item in found if item)]

    def _of_records(
        self, incident: Incident, profiles: Sequence[Profile], keys: Sequence[str]
    ) -> list[pb.QualitySample]:
        opened, _ = load(self._store, self._vault, profiles)
        failing = {
            (finding.dimension, finding.field, finding.key)
            for item in self._examiner.examine([item.profile for item in opened])
            for finding in item.findings
            if not finding.passed
        }
        held = {key: (item.profile, record) for item in opened for key, record in item.records.items()}
        samples = []
        for key in (key for key in keys if key in held):
            profile, record = held[key]
            sample = self._of_record(incident.field, profile, record)
            fails = incident.field == MATCH or (incident.dimension, incident.field, key) in failing
            sample.fails_now = fails
            samples.append(sample)
        return samples

    def _of_record(self, name: str, profile: Profile, record: StandardRecord) -> pb.QualitySample:
        source = f"sources/{record.source_id}"
        sample = pb.QualitySample(profile=f"profiles/{profile.profile_id}", record=_alone(record))
        sample.source_record.source, sample.source_record.source_record_id = source, record.source_record_id
        return _filled(sample, name, record)

    def _of_reject(self, incident: Incident, key: str) -> pb.QualitySample | None:
        """Return a row that is set apart, read as it would be read now."""
        reject = self._store.rejects.get(key.removeprefix(REJECTS))
        source = self._store.sources.get(reject.source_id) if reject else None
        if reject is None or source is None or source.owner_department != incident.department:
            return None
        record = self._record_of(reject, source)
        sample = pb.QualitySample(reject=key, fails_now=reject.state == "open", record=_alone(record))
        _filled(sample, incident.field, record)
        sample.problems[:] = [f"{name}:{reason}" for name, reason in reject.reasons]
        return sample

    def _record_of(self, reject: Reject, source: Source) -> StandardRecord:
        settings = settings_of(source)
        entry = self._admission.reopen(reject, {})
        time = entry.updated_time or reject.create_time or self._examiner.scope.now
        raw = RawRecord(source_id=settings.source_id, source_record_id="", updated_time=time, fields=entry.values)
        return standardize(read_row(settings, entry.values, time) if entry.is_row else raw, settings)


def _alone(record: StandardRecord) -> resources_pb2.Profile:
    """Return what a record alone says, custom fields left out: their masks are the dictionary's."""
    believed = believe([record])
    value = believed.golden.value
    message = resources_pb2.Profile(
        display_name=value("name"), gender=value("gender"), birth_date=value("birth_date"), phones=believed.phones(),
        emails=believed.emails(), resident_id=value("resident_id"),
    )  # fmt: skip
    if value("address"):
        message.address.text = value("address")
    return message


def _filled(sample: pb.QualitySample, name: str, record: StandardRecord) -> pb.QualitySample:
    """Add the value of a field, as it was written where it could not be read, and the problems of the row."""
    texts = texts_of(record, name) or tuple(
        record.originals[column] for column in _columns(name) if record.originals.get(column)
    )
    sample.value.CopyFrom(classified(name, " ".join(texts)))
    sample.problems.extend(map(_problem_text, record.problems))
    return sample


def _columns(name: str) -> tuple[str, ...]:
    return ADDRESS_FIELDS if name == "address" else (name,)


def _problem_text(problem: Problem) -> str:
    return f"{problem.field}:{problem.reason}"
