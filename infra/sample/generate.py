"""Write the sample: `generate(directory, seed)`; the same seed writes the same bytes."""

import csv
import io
import json
from dataclasses import asdict, dataclass
from datetime import date, datetime, timedelta
from pathlib import Path
from random import Random

from infra.sample import observations, plan, transactions, workbook
from infra.sample.journey import demographics_of_households
from infra.sample.observations import Row
from infra.sample.people import Person, make_people

SEED = 20261121
REFERENCE_DATE = date(2026, 11, 1)
_TILL_CARD_OF_SECOND = 0.45
_CHANCES = {  # source: (first person, second person, a second record of the same person, an older copy)
    "till": (1.0, _TILL_CARD_OF_SECOND, 0.05, 0.015),
    "shop": (0.85, 0.62, 0.05, 0.015),
    "callcentre": (0.80, 0.52, 0.15, 0.015),
}
_BROKEN_SHARE = 0.012
_RECORD_IDS = 499_979  # a prime; the strides deal each source's record ids in an order of its own
_STRIDE = {"shop": 7_919, "callcentre": 104_729}


@dataclass(frozen=True, slots=True)
class Manifest:
    """What was written: file names relative to the directory, and how many of what."""

    directory: Path
    seed: int
    files: dict[str, str]
    rows: dict[str, int]
    records: int
    broken: int
    people: int
    households: int
    transactions: int


def generate(directory: Path, seed: int = SEED, reference_date: date = REFERENCE_DATE) -> Manifest:
    """Write sources, transactions, plan and truth under `directory`, and manifest.json; some 10 s."""
    directory.mkdir(parents=True, exist_ok=True)
    households = demographics_of_households()
    people = make_people(households, seed)
    latest = datetime.combine(reference_date - timedelta(days=1), observations.LATEST.time())
    rows = {source_id: make_rows(people, source_id, seed, latest) for source_id in _CHANCES}
    (directory / "till.csv").write_bytes(_as_csv(rows["till"]))
    (directory / "shop.jsonl").write_text(_as_json_lines([dict(row.columns) for row in rows["shop"]]), "utf-8")
    workbook.write(directory / "callcentre.xlsx", "客户", [dict(row.columns) for row in rows["callcentre"]])
    truth = _truth(rows)
    (directory / "truth.jsonl").write_text(_as_json_lines(truth), "utf-8")
    cards = _cards(rows["till"])
    lines = transactions.write(directory / "transactions.parquet", cards, reference_date)
    (directory / "plan.json").write_text(plan.make_plan(cards, seed, reference_date), "utf-8")
    manifest = Manifest(
        directory, seed,
        {"till": "till.csv", "shop": "shop.jsonl", "callcentre": "callcentre.xlsx", "truth": "truth.jsonl",
         "transactions": "transactions.parquet", "plan": "plan.json"},
        {source_id: len(found) for source_id, found in rows.items()},
        len(truth), sum(bool(item["broken"]) for item in truth), len(people), len(households), lines,
    )  # fmt: skip
    shown = {**asdict(manifest), "directory": "."}
    (directory / "manifest.json").write_text(json.dumps(shown, ensure_ascii=False, indent=1) + "\n", "utf-8")
    return manifest


def make_rows(people: list[Person], source_id: str, seed: int, latest: datetime = observations.LATEST) -> list[Row]:
    """Return a source's rows, none of a time after `latest`, in the order of its file.

    The cards of first persons are never broken.
    """
    first, second, again, older = _CHANCES[source_id]
    rows: list[Row] = []
    extra: list[Row] = []
    for place, person in enumerate(people, start=1):
        serial = place if source_id == "till" else place * _STRIDE[source_id] % _RECORD_IDS
        random = Random(f"{seed}/{source_id}/{person.person_id}")
        is_first = person.person_id.endswith("a")
        if random.random() >= (first if is_first else second):
            continue
        row = observations.observe(person, source_id, serial, random, latest)
        rows.append(row)
        if random.random() < again:
            extra.append(observations.observe(person, source_id, 500_000 + serial, random, latest))
        if random.random() < older:
            extra.append(observations.stale_copy(row, person, random))
    random = Random(f"{seed}/{source_id}/order")
    if source_id != "till":
        rows.sort(key=lambda row: row.source_record_id)
    return _with_broken(rows, extra, source_id, random)


def _with_broken(rows: list[Row], extra: list[Row], source_id: str, random: Random) -> list[Row]:
    """Return all rows, some spoilt and the extra ones at random places; older copies may follow newer rows."""
    versions = {row.source_record_id for row in extra}
    may_break = [
        at
        for at, row in enumerate(rows)
        if row.source_record_id not in versions and (source_id != "till" or row.person_id.endswith("b"))
    ]
    chosen = random.sample(may_break, round(len(rows) * _BROKEN_SHARE))
    for at, row in zip(chosen, observations.broken_copies([rows[at] for at in chosen], random), strict=True):
        rows[at] = row
    for row in extra:
        rows.insert(random.randrange(len(rows) + 1), row)
    return rows


def _cards(rows: list[Row]) -> dict[int, tuple[str, str]]:
    """Return for each household its first person's card and their second card, or the first again."""
    cards: dict[int, tuple[str, str]] = {}
    for row in rows:
        if row.person_id.endswith("a"):
            household = int(row.person_id[1:-1])
            known = {card for card in cards.get(household, ()) if card} | {row.source_record_id}
            cards[household] = (min(known), max(known))
    return cards


def _truth(rows: dict[str, list[Row]]) -> list[dict[str, str]]:
    found: dict[tuple[str, str], dict[str, str]] = {}
    for row in (row for source in rows.values() for row in source):
        item = {
            "source_id": row.source_id,
            "source_record_id": row.source_record_id,
            "person_id": row.person_id,
            "broken": row.broken,
        }
        found[row.source_id, row.source_record_id] = item
    return list(found.values())


def _as_csv(rows: list[Row]) -> bytes:
    text = io.StringIO(newline="")
    writer = csv.DictWriter(text, fieldnames=list(rows[0].columns))
    writer.writeheader()
    writer.writerows(row.columns for row in rows)
    return text.getvalue().encode("gb18030")


def _as_json_lines(items: list[dict[str, str]]) -> str:
    return "".join(json.dumps(item, ensure_ascii=False) + "\n" for item in items)
