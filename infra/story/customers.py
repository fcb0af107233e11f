"""The story's first part: three sources become golden records."""

from __future__ import annotations

import json
import subprocess
import sys
from collections import Counter
from collections.abc import Iterable
from contextlib import AbstractContextManager, suppress
from datetime import date, timedelta
from typing import TypeVar

from google.protobuf.json_format import ParseDict
from google.protobuf.message import Message
from kehu.client import Conflict
from kehu.profiles.v1.resources_pb2 import ImportMetadata, IntakeSummary, Profile, Source, SourceRecordName

from infra.sample.evaluate import RecordKey, evaluate, read_truth
from infra.story.context import (
    ORDER,
    WAIT_SECONDS,
    Context,
    Json,
    StepFailed,
    check_sum,
    require,
    shown,
)

M = TypeVar("M", bound=Message)
REFERENCE_DATE = date(2026, 11, 1)  # the sample's year ends here, or yesterday where that is earlier
PAGE_SIZE = 1000
PARTS = ("accepted", "unchanged", "stale", "rejected")
REGISTERED = (
    "display_name",
    "owner_department",
    "trust_rank",
    "mapping",
    "date_order",
    "utc_offset_minutes",
    "is_unique",
)


def write_sample(story: Context) -> list[str]:
    """Generate the files, by a process of its own: it takes half a gigabyte for some seconds."""
    story.progress(0.1, "households, people, files")
    until = min(REFERENCE_DATE, date.today() - timedelta(days=1))
    argv = [sys.executable, "-m", "infra.sample", str(story.sample), until.isoformat()]
    ended = subprocess.run(argv, stderr=subprocess.PIPE, text=True, check=False)
    if ended.returncode:
        told = ended.stderr.strip().splitlines()[-1:] or [f"it ended with code {ended.returncode}"]
        raise StepFailed(f"the sample could not be made: {told[0]}")
    made = json.loads((story.sample / "manifest.json").read_text())
    rows = ", ".join(f"{made['files'][source]} {shown(made['rows'][source])} rows" for source in ORDER)
    people = f"{shown(made['people'])} people of {shown(made['households'])} real households"
    return [
        f"{people}, {shown(made['transactions'])} transactions",
        f"{rows}; {shown(made['broken'])} rows are broken on purpose",
    ]


def register_sources(story: Context) -> list[str]:
    """Register the three sources with their mappings, and tell how each is read."""
    lines = []
    for source in _sources():
        made = read_message({name: source[name] for name in REGISTERED}, Source)
        with there_already():
            story.steward.profiles.create_source(source=made, source_id=source["source_id"])
        columns = f"{source['format']}, {len(source['mapping'])} columns mapped"
        lines.append(f"{source['source_id']} {source['display_name']}: {columns}")
    return lines


def read_message(document: Json, kind: type[M]) -> M:
    """Return a message of the sample's files."""
    return ParseDict(document, kind())


def there_already() -> AbstractContextManager[None]:
    """Pass over what an interrupted step has created already."""
    return suppress(Conflict)


def _sources() -> list[Json]:
    from importlib import resources

    found: list[Json] = json.loads(resources.files("infra.sample").joinpath("sources.json").read_text("utf-8"))
    return found


def import_files(story: Context) -> list[str]:
    """Import each file and tell how many rows were accepted and set apart, and why."""
    rows = story.read("manifest.json")["rows"]
    lines = []
    for number, source in enumerate(_sources()):
        name = source["source_id"]
        share, total = number / len(ORDER), rows[name]

        def progress(metadata: ImportMetadata, name: str = name, share: float = share, total: int = total) -> None:
            read = metadata.summary.rows_read
            story.progress(share + read / total / len(ORDER), f"{name} {shown(read)}/{shown(total)}")

        file = story.sample / source["file"]
        operation = story.steward.profiles.import_records(
            name=f"sources/{name}", file=file, format=source["format"], request_id=f"sample-{name}"
        )
        lines.append(_imported(name, operation.wait(WAIT_SECONDS, progress).summary, total))
    return lines


def _imported(name: str, summary: IntakeSummary, total: int) -> str:
    check_sum({part: getattr(summary, f"rows_{part}") for part in PARTS}, total)
    why = ", ".join(f"{reason} {shown(count)}" for reason, count in sorted(summary.rejects_by_reason.items()))
    kept = f"{shown(summary.rows_accepted)} accepted"
    same = f"{shown(summary.rows_unchanged)} unchanged, {shown(summary.rows_stale)} stale"
    apart = f"{shown(summary.rows_rejected)} set apart" + (f" ({why})" if why else "")
    return f"{name}: {shown(summary.rows_read)} rows, {kept}, {same}, {apart}"


def measure_matching(story: Context) -> list[str]:
    """Tell golden records and pairs for review, and measure who was matched with whom against the truth."""
    story.progress(0.1, "golden records")
    assignments = golden_assignments(story)
    require(assignments, "there are no golden records; see logs/profiles.log")
    profiles = set(assignments.values())
    pairs = sum(1 for _ in story.steward.profiles.list_match_candidates(page_size=PAGE_SIZE))
    truth = read_truth(story.sample / "truth.jsonl")
    text = json.dumps([[*key, profile] for key, profile in assignments.items()])
    (story.sample / "assignments.json").write_text(text)
    precision, recall, f1 = evaluate(truth, assignments)
    merged = Counter(assignments.values())
    return [
        f"{shown(len(profiles))} golden records of {shown(len(assignments))} records, "
        f"largest of {max(merged.values())}",
        f"{shown(pairs)} pairs for review",
        f"against the truth: precision {precision:.4f}, recall {recall:.4f}, F1 {f1:.4f}",
    ]


def golden_records(story: Context) -> Iterable[Profile]:
    """Return the profiles as the data office sees them."""
    return story.steward.profiles.list_profiles(page_size=PAGE_SIZE)


def golden_assignments(story: Context) -> dict[RecordKey, str]:
    """Return the profile id of every source record, from the golden records; rows that were set apart have none."""
    found: dict[RecordKey, str] = {}
    for profile in golden_records(story):
        for record in profile.source_records:
            found[key_of(record)] = profile.name.removeprefix("profiles/")
    return found


def key_of(record: SourceRecordName) -> RecordKey:
    """Return the ids of source and record."""
    return record.source.removeprefix("sources/"), record.source_record_id


def read_assignments(story: Context) -> dict[RecordKey, str]:
    """Return what `measure_matching` found."""
    rows = json.loads((story.sample / "assignments.json").read_text())
    return {(source, record): profile for source, record, profile in rows}
