"""The story's first part: three sources become golden records."""

from __future__ import annotations

import json
import subprocess
import sys
from collections import Counter
from datetime import date, timedelta

from infra.api import ApiError, Json, entries
from infra.sample.evaluate import RecordKey, evaluate, read_truth
from infra.story.context import ORDER, Context, shown, whole

REFERENCE_DATE = date(2026, 11, 1)  # the sample's year ends here, or yesterday where that is earlier
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
    subprocess.run([sys.executable, "-m", "infra.sample", str(story.sample), until.isoformat()], check=True)
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
        try:
            story.steward.post("/v1/sources", body, source_id=source["source_id"])
        except ApiError as error:
            if error.status != 409:
                raise
        columns = f"{source['format']}, {len(entries(source, 'mapping'))} columns mapped"
        lines.append(f"{source['source_id']} {source['display_name']}: {columns}")
    return lines


def _sources() -> list[Json]:
    from importlib import resources

    found: list[Json] = json.loads(resources.files("infra.sample").joinpath("sources.json").read_text("utf-8"))
    return found


def import_files(story: Context) -> list[str]:
    """Import each file and tell how many rows were accepted and set apart, and why."""
    rows = story.read("manifest.json")["rows"]
    assert isinstance(rows, dict)  # our own file
    lines = []
    for number, source in enumerate(_sources()):
        name = str(source["source_id"])
        share, total = number / len(ORDER), whole(rows[name])

        def progress(metadata: Json, name: str = name, share: float = share, total: int = total) -> None:
            read = whole(_summary(metadata).get("rows_read"))
            story.progress(share + read / total / len(ORDER), f"{name} {shown(read)}/{shown(total)}")

        form = {"format": str(source["format"])}
        file = story.sample / str(source["file"])
        operation = story.steward.upload(f"/v1/sources/{name}:import", file, key=f"sample-{name}", **form)
        summary = _summary(story.steward.finished(operation, progress))
        lines.append(_imported(name, summary))
    return lines


def _summary(document: Json) -> Json:
    summary = document.get("summary")
    return summary if isinstance(summary, dict) else {}


def _imported(name: str, summary: Json) -> str:
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
    assignments = _assignments(story)
    profiles = set(assignments.values())
    pairs = sum(1 for _ in story.steward.pages("/v1/matchCandidates", "match_candidates"))
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


def _assignments(story: Context) -> dict[RecordKey, str]:
    """Return the profile id of every source record, from the golden records; rows that were set apart have none."""
    found: dict[RecordKey, str] = {}
    for profile in story.steward.pages("/v1/profiles", "profiles"):
        for record in entries(profile, "source_records"):
            key = (str(record["source"]).removeprefix("sources/"), str(record["source_record_id"]))
            found[key] = str(profile["name"]).removeprefix("profiles/")
    return found


def read_assignments(story: Context) -> dict[RecordKey, str]:
    """Return what `measure_matching` found."""
    rows = json.loads((story.sample / "assignments.json").read_text())
    return {(source, record): profile for source, record, profile in rows}
