"""The sample is deterministic, as large and as wrong as promised, and is resolved without reading the truth."""

import csv
import json
import time
from collections import Counter
from datetime import UTC, date, datetime
from hashlib import sha256
from itertools import combinations

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
import pytest
from stdnum.cn import ric

from infra.sample import evaluate as measure
from infra.sample.generate import Manifest, generate, make_rows
from infra.sample.journey import demographics_of_households
from infra.sample.people import AGE_BANDS, REFERENCE_YEAR, make_people
from infra.sample.reading import load_sources, read_records, read_rows
from services.profiles.domain.blocking import KEY_CANDIDATES_LIMIT, blocking_keys
from services.profiles.domain.callings import callings_among
from services.profiles.domain.comparison import traits_of
from services.profiles.domain.golden import build_golden
from services.profiles.domain.match import compare_traits, decide
from services.profiles.domain.model import default_model
from services.profiles.domain.sources import read_row
from services.profiles.domain.standardize import standardize
from services.profiles.domain.values import Band, Candidate, StandardRecord
from services.profiles.resolution.people import People, newest_versions, resolve

RECEIVED = datetime(2026, 11, 1, tzinfo=UTC)


@pytest.fixture(scope="module")
def sample(tmp_path_factory: pytest.TempPathFactory) -> Manifest:
    return generate(tmp_path_factory.mktemp("sample"))


@pytest.fixture(scope="module")
def records(sample: Manifest) -> list[StandardRecord]:
    return read_records(sample.directory, RECEIVED)


@pytest.fixture(scope="module")
def truth(sample: Manifest) -> measure.Truth:
    return measure.read_truth(sample.directory / "truth.jsonl")


def test_the_same_seed_writes_the_same_bytes(sample, tmp_path):
    again = generate(tmp_path)

    for file in sample.files.values():
        one, other = ((manifest.directory / file).read_bytes() for manifest in (sample, again))
        assert sha256(one).digest() == sha256(other).digest(), file


def test_another_seed_makes_other_people():
    households = demographics_of_households()[:50]

    assert make_people(households, 1) == make_people(households, 1)
    assert not {person.name for person in make_people(households, 1)} >= {
        person.name for person in make_people(households, 2)
    }


def test_it_is_as_large_as_promised(sample):
    assert (sample.households, sample.transactions) == (2469, 1_469_307)
    assert 7_200 <= sum(sample.rows.values()) <= 7_800
    assert sample.people > sample.households


def test_the_matching_reaches_its_figures_and_an_exact_key_does_not(records, truth):
    accepted = [record for record in records if not record.is_rejected]
    clusters = resolve(accepted, default_model())
    found = {key: str(at) for at, cluster in enumerate(clusters) for key in cluster.keys}
    exact = {
        record.key: f"{record.name.full}/{record.phones[0].number}"
        for record in newest_versions(accepted)
        if record.name and record.phones
    }

    precision, recall, f1 = measure.evaluate(truth, found)
    assert precision >= 0.995 and f1 >= 0.98, (precision, recall, f1)
    assert measure.evaluate(truth, exact)[2] < f1 - 0.1


def test_records_that_come_one_by_one_end_in_the_clusters_of_a_batch(records, truth):
    accepted = newest_versions(record for record in records if not record.is_rejected)
    profiles: dict[str, list[StandardRecord]] = {}
    index: dict[str, set[str]] = {}
    for number, record in enumerate(accepted):
        keys = blocking_keys(record)
        near = sorted({profile for key in keys for profile in index.get(key, ()) if profile in profiles})
        found = decide(
            record,
            [Candidate(item, datetime(2026, 1, 1, tzinfo=UTC), tuple(profiles[item])) for item in near],
            default_model(),
        )
        home = found.profile_id or f"p{number:06d}"
        profiles.setdefault(home, []).append(record)
        for merged in found.merged_profile_ids:
            profiles[home] += profiles.pop(merged)
        for member in profiles[home]:
            for key in blocking_keys(member):
                index.setdefault(key, set()).add(home)
    assigned = {record.key: profile for profile, members in profiles.items() for record in members}
    batch = {key: str(at) for at, cluster in enumerate(resolve(accepted, default_model())) for key in cluster.keys}

    precision, _, f1 = measure.evaluate(truth, assigned)
    assert precision >= 0.995 and f1 >= 0.98, (precision, f1)
    assert measure.evaluate(measure.Truth(batch, {}), assigned)[2] > 0.9999


def test_a_batch_decides_each_pair_as_a_single_write_does(records):
    accepted = newest_versions(record for record in records if not record.is_rejected)
    traits = [traits_of(record) for record in accepted]
    callings = callings_among(traits)
    people, bands = People(accepted), (Band.APART, Band.REVIEW, Band.MERGE)
    judge, keys, seen = people.judge(default_model()), people.keys(), set()
    for part in keys.parts():
        judged = judge.judge(*keys.pairs_of(part, np.zeros(0, np.int8)))
        for at, (left, right) in enumerate(zip(judged.left.tolist(), judged.right.tolist(), strict=True)):
            single = compare_traits(traits[left], traits[right], default_model(), callings)
            assert (single.band, single.weight) == (bands[judged.bands[at]], judged.weights[at])
            seen.add((left, right))
    blocks: dict[str, list[int]] = {}
    for at, record in enumerate(accepted):
        for key in set(blocking_keys(record)):
            blocks.setdefault(key, []).append(at)

    shared = [block for block in blocks.values() if len(block) <= KEY_CANDIDATES_LIMIT]
    assert seen == {pair for block in shared for pair in combinations(block, 2)}


def test_golden_records_believe_the_right_values(records, truth, sample):
    people = {person.person_id: person for person in make_people(demographics_of_households(), sample.seed)}
    accepted = {record.key: record for record in newest_versions(item for item in records if not item.is_rejected)}
    right: Counter[tuple[str, bool]] = Counter()
    for cluster in resolve(accepted.values(), default_model()):
        golden = build_golden([accepted[key] for key in cluster.keys])
        person = people[truth.people[cluster.keys[0]]]
        true = {"name": person.name, "phone": f"+86{person.phone}", "birth_date": person.birth_date.isoformat()}
        true["district_code"] = person.place.code
        right.update((name, golden.value(name) == value) for name, value in true.items() if golden.value(name))

    shares = {name: right[name, True] / (right[name, True] + right[name, False]) for name, _ in right}
    assert min(shares.values()) >= 0.93, shares


def test_every_spoilt_row_is_set_apart_for_its_reason_and_hardly_any_other(records, truth):
    rejected = {record.key: {problem.reason for problem in record.problems} for record in records if record.is_rejected}

    assert set(truth.broken) <= set(rejected)
    assert all(reason in rejected[key] for key, reason in truth.broken.items())
    assert len(set(rejected) - set(truth.broken)) <= 10


def test_the_truth_is_never_in_the_sources(sample, truth):
    for source in load_sources():
        for row in read_rows(source, sample.directory):
            assert not set(row.values()) & set(truth.people.values())


def test_people_fit_their_households_and_their_resident_ids_are_valid():
    households = demographics_of_households()
    people = make_people(households, seed=5)
    ages = {household.household_id: household.age for household in households}

    assert len(households) == 2469
    for person in people:
        assert ric.calc_check_digit(person.resident_id) == person.resident_id[-1]
        assert f"{person.birth_date:%Y%m%d}" == person.resident_id[6:14]
        low, high = AGE_BANDS.get(ages[person.household_id], (18, 99))
        assert low <= REFERENCE_YEAR - person.birth_date.year <= high


def test_mails_can_never_leave(records):
    assert all(email.endswith(".example") for record in records for email in record.emails)


def test_the_sources_make_the_errors_they_are_meant_to_make(sample, records, truth):
    with (sample.directory / "till.csv").open(encoding="gb18030", newline="") as file:
        rows = list(csv.DictReader(file))
    keys = Counter(row["会员卡号"] for row in rows)
    people = Counter(person for (source, _), person in truth.people.items() if source == "till")
    reasons = {problem.reason for record in records for problem in record.problems}

    assert any(count > 1 for count in keys.values()), "an older version of a row"
    assert any(count > 1 for count in people.values()), "one person with two cards"
    assert {"PHONE_BLOCKED", "DATE_LUNAR", "DATE_PLACEHOLDER", "RESIDENT_ID_CHECK_DIGIT"} <= reasons
    assert any("１" in row["手机号"] for row in rows), "full width"
    assert any("區" in row["住址"] or "號" in row["住址"] for row in rows), "traditional characters"
    assert any(record.name and record.name.title for record in records), "titles"
    assert any(len(record.phones) > 1 for record in records), "two phones in one cell"


def test_some_people_share_a_phone_and_they_are_kept_apart(records, truth):
    by_phone: dict[str, set[str]] = {}
    for record in records:
        for phone in record.phones:
            by_phone.setdefault(phone.number, set()).add(truth.people[record.key])
    shared = [people for people in by_phone.values() if len(people) > 1]
    found = {
        key: at
        for at, cluster in enumerate(resolve([item for item in records if not item.is_rejected], default_model()))
        for key in cluster.keys
    }
    profiles: dict[str, set[int]] = {}
    for key, profile in found.items():
        profiles.setdefault(truth.people[key], set()).add(profile)
    joined = [
        pair
        for people in shared
        for pair in combinations(sorted(people), 2)
        if profiles.get(pair[0], set()) & profiles.get(pair[1], set())
    ]

    assert len(shared) > 50
    assert len(joined) <= len(shared) * 0.05


def test_transactions_fall_in_the_year_before_the_reference_date_on_known_cards(sample, truth):
    table = pq.read_table(sample.directory / "transactions.parquet")
    times = pc.min_max(pc.cast(table["event_time"], pa.timestamp("s", "UTC"), safe=False)).as_py()

    assert 1_469_307 == table.num_rows == len(pc.unique(table["message_id"]))
    assert date(2025, 10, 30) <= times["min"].date() and times["max"].date() <= date(2026, 10, 31)
    cards = set(pc.unique(table["source_record_id"]).to_pylist())
    assert {("till", card) for card in cards} <= set(truth.people) - set(truth.broken)
    assert all(truth.people["till", card].endswith("a") for card in cards)
    assert pc.min(table["amount_cents"]).as_py() >= 0
    assert pc.sum(table["amount_cents"]).as_py() == pytest.approx(459_392_900, rel=0.02)


def test_a_sample_of_an_earlier_day_has_no_row_of_a_later_one():
    people = make_people(demographics_of_households()[:200], 1)
    times = {row.columns["updated_at"] for row in make_rows(people, "shop", 1, datetime(2026, 2, 28, 20))}

    assert "2026-02" < max(times) <= "2026-02-28T20:00:00+08:00"


def test_the_plan_mixes_consents_and_names_only_known_cards(sample, truth):
    plan = json.loads((sample.directory / "plan.json").read_text("utf-8"))
    states = Counter(item["state"] for item in plan["consents"] if item["purpose_id"] == "marketing")

    assert {"granted", "denied", "revoked"} == set(states)
    assert plan["without_consent"] > 500
    assert all(("till", item["source_record_id"]) in truth.people for item in plan["consents"])
    assert sum(item["households"] for item in plan["campaigns"]) == 6_589


def test_the_measure_counts_pairs():
    keys = [("s", str(at)) for at in range(4)]
    truth = measure.Truth(dict(zip(keys, "AABB", strict=True)), {})

    assert measure.evaluate(truth, dict(zip(keys, "xxyy", strict=True))) == (1.0, 1.0, 1.0)
    precision, recall, _ = measure.evaluate(truth, dict(zip(keys, "xxxx", strict=True)))
    assert (pytest.approx(precision), recall) == (2 / 6, 1.0)
    assert measure.evaluate(truth, dict(zip(keys[:2], "xx", strict=True)))[:2] == (1.0, 0.5)


def test_standardizing_and_matching_cost_less_than_a_millisecond_a_record(sample, records):
    rows = [(source.settings, row) for source in load_sources() for row in read_rows(source, sample.directory)]
    start = time.process_time()
    made = [standardize(read_row(settings, row, RECEIVED), settings) for settings, row in rows]
    resolve([record for record in made if not record.is_rejected], default_model())

    assert (time.process_time() - start) / len(rows) < 0.001
    assert made == records
