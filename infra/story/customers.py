"""The story's first part: three sources become golden records."""

from __future__ import annotations

import json
import subprocess
import sys
from collections import Counter
from collections.abc import Iterator
from datetime import date, timedelta

from gateway.client import Json, KehuProblem, entries
from infra.sample.evaluate import RecordKey, evaluate, read_truth
from infra.story.context import (
    ORDER,
    WAIT_SECONDS,
    Context,
    StepFailed,
    check_sum,
    message,
    require,
    shown,
    whole,
)

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
        body = {name: source[name] for name in REGISTERED}
        create(story, "/v1/sources", body, source_id=str(source["source_id"]))
        columns = f"{source['format']}, {len(entries(source, 'mapping'))} columns mapped"
        lines.append(f"{source['source_id']} {source['display_name']}: {columns}")
    return lines


def create(story: Context, path: str, body: Json, **ids: str) -> None:
    """Create what an interrupted step may have created already."""
    try:
        story.steward.post(path, body, **ids)
    except KehuProblem as problem:
        if problem.status != 409:
            raise


def _sources() -> list[Json]:
    from importlib import resources

    found: list[Json] = json.loads(resources.files("infra.sample").joinpath("sources.json").read_text("utf-8"))
    return found


def import_files(story: Context) -> list[str]:
    """Import each file and tell how many rows were accepted and set apart, and why."""
    rows = message(story.read("manifest.json"), "rows")
    lines = []
    for number, source in enumerate(_sources()):
        name = str(source["source_id"])
        share, total = number / len(ORDER), whole(rows[name])

        def progress(metadata: Json, name: str = name, share: float = share, total: int = total) -> None:
            read = whole(message(metadata, "summary").get("rows_read")) if "summary" in metadata else 0
            story.progress(share + read / total / len(ORDER), f"{name} {shown(read)}/{shown(total)}")

        form = {"format": str(source["format"])}
        file = story.sample / str(source["file"])
        operation = story.steward.upload(f"/v1/sources/{name}:import", file, key=f"sample-{name}", **form)
        summary = message(story.steward.wait_operation(operation, WAIT_SECONDS, progress), "summary")
        lines.append(_imported(name, summary, total))
    return lines


def _imported(name: str, summary: Json, total: int) -> str:
    check_sum({part: whole(summary.get(f"rows_{part}")) for part in PARTS}, total)
    reasons = summary.get("rejects_by_reason")
    counts = sorted(reasons.items()) if isinstance(reasons, dict) else []
    why = ", ".join(f"{reason} {shown(count)}" for reason, count in counts)
    kept = f"{shown(summary.get('rows_accepted'))} accepted"
    same = f"{shown(summary.get('rows_unchanged'))} unchanged, {shown(summary.get('rows_stale'))} stale"
    apart = f"{shown(summary.get('rows_rejected'))} set apart" + (f" ({why})" if why else "")
    return f"{name}: {shown(summary.get('rows_read'))} rows, {kept}, {same}, {apart}"


def measure_matching(story: Context) -> list[str]:
    """Tell golden records and pairs for review, and measure who was matched with whom against the truth."""
    story.progress(0.1, "golden records")
    assignments = golden_assignments(story)
    require(assignments, "there are no golden records; see logs/profiles.log")
    profiles = set(assignments.values())
    pairs = sum(1 for _ in story.steward.items("/v1/matchCandidates", "match_candidates", page_size=PAGE_SIZE))
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


def golden_records(story: Context) -> Iterator[Json]:
    """Yield the profiles as the data office sees them."""
    return story.steward.items("/v1/profiles", "profiles", page_size=PAGE_SIZE)


def golden_assignments(story: Context) -> dict[RecordKey, str]:
    """Return the profile id of every source record, from the golden records; rows that were set apart have none."""
    found: dict[RecordKey, str] = {}
    for profile in golden_records(story):
        for record in entries(profile, "source_records"):
            key = (str(record["source"]).removeprefix("sources/"), str(record["source_record_id"]))
            found[key] = str(profile["name"]).removeprefix("profiles/")
    return found


def read_assignments(story: Context) -> dict[RecordKey, str]:
    """Return what `measure_matching` found."""
    rows = json.loads((story.sample / "assignments.json").read_text())
    return {(source, record): profile for source, record, profile in rows}
