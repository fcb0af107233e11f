"""The story's stewardship: pairs reviewed, a wrong verdict undone."""

from __future__ import annotations

import secrets
import time
from collections import Counter
from collections.abc import Mapping, Sequence

from gateway.client import Json, KehuClient, KehuProblem, entries
from infra.sample.evaluate import RecordKey, evaluate, read_truth
from infra.story.context import Context, message, require, shown, whole
from infra.story.customers import PAGE_SIZE, create, golden_assignments
from infra.story.service import SEEN_SECONDS, is_found

REVIEWED = 40  # pairs answered
SAME, TWO = "confirm", "reject"


def review_pairs(story: Context) -> list[str]:
    """Answer the first pairs of the queue as the truth has them; a second steward says the same where two must.

    The first pair of two people is left for `undo_verdict`.
    """
    people = read_truth(story.sample / "truth.jsonl").people
    before = _quality(story)
    said: Counter[str] = Counter()
    twice, second = 0, _second_steward(story)
    queue = list(story.steward.items("/v1/matchCandidates", "match_candidates", page_size=PAGE_SIZE))
    for listed in sorted(queue, key=lambda item: -whole(item.get("priority"))):
        if sum(said.values()) == REVIEWED:
            break
        story.progress(sum(said.values()) / REVIEWED, f"{sum(said.values())}/{REVIEWED}")
        pair = story.steward.get(f"/v1/{listed['name']}")
        if pair["state"] != "STATE_OPEN":  # an earlier verdict made it moot
            continue
        verdict = _verdict(pair, people)
        if verdict == TWO and not pair.get("needs_second_person") and "mistaken" not in story.kept:
            sides = {str(side["name"]): _told(side) for side in entries(pair, "profiles")}
            story.kept["mistaken"] = {"pair": str(pair["name"]), "sides": sides}
        if not _is_left(story, pair):
            if _decide(story.steward, pair, verdict) == "STATE_AWAITING_SECOND":
                _decide(second, pair, verdict)
                twice += 1
            said[verdict] += 1
    require(said, "the review queue is empty, though pairs were found; see logs/profiles.log")
    after = _quality(story)
    return [
        f"{shown(sum(said.values()))} pairs answered: {shown(said[SAME])} one person, {shown(said[TWO])} two people; "
        f"{shown(twice)} of them by two stewards",
        f"against the truth: recall {before[1]:.4f} → {after[1]:.4f}, precision {before[0]:.4f} → {after[0]:.4f}, "
        f"F1 {before[2]:.4f} → {after[2]:.4f}",
    ]


def _is_left(story: Context, pair: Json) -> bool:
    """Say whether a pair is that of the wrong verdict, or has one of its customers."""
    if "mistaken" not in story.kept:
        return False
    return not {str(pair["profile"]), str(pair["other_profile"])}.isdisjoint(
        message(message(story.kept, "mistaken"), "sides")
    )


def _quality(story: Context) -> tuple[float, float, float]:
    return evaluate(read_truth(story.sample / "truth.jsonl"), golden_assignments(story))


def _verdict(pair: Json, people: Mapping[RecordKey, str]) -> str:
    """Return what a steward who asked the customers would say: are most records of both of one person?"""
    one, other = (_person(side, people) for side in entries(pair, "profiles"))
    return SAME if one == other else TWO


def _person(profile: Json, people: Mapping[RecordKey, str]) -> str:
    keys = (
        (str(record["source"]).removeprefix("sources/"), str(record["source_record_id"]))
        for record in entries(profile, "source_records")
    )
    ((person, _),) = Counter(people[key] for key in keys if key in people).most_common(1)
    return person


def _second_steward(story: Context) -> KehuClient:
    """Return a client of a new app of the data office, for what one steward may not decide alone.

    It may work when every process knows its role, seconds after it was made.
    """
    login = f"second-steward-{secrets.token_hex(3)}"
    body: Json = {"kind": "PRINCIPAL_KIND_APP", "login": login, "department": "data-office", "roles": ["role:steward"]}
    made = story.sign_ins.administrator().post("/v1/principals", body)
    secret = message(made, "secret")
    steward = story.sign_ins.app(login, str(secret["client_secret"]), "stewardship")
    deadline = time.monotonic() + SEEN_SECONDS
    while True:
        try:
            steward.get("/v1/matchCandidates", page_size=1)
        except KehuProblem as problem:
            if problem.status != 403 or time.monotonic() > deadline:
                raise
            time.sleep(0.5)
        else:
            return steward


def _decide(steward: KehuClient, pair: Json, verdict: str) -> str:
    """Say it, and return the state of the pair."""
    reason: Json = {"reason": "asked the customer" if verdict == SAME else "two members of a family"}
    return str(steward.post(f"/v1/{pair['name']}:{verdict}", reason)["state"])


def undo_verdict(story: Context) -> list[str]:
    """Confirm a pair that is two people, undo it, and look whether everything is as it was."""
    mistaken = message(story.kept, "mistaken")
    sides = message(mistaken, "sides")
    pair = story.steward.get(f"/v1/{mistaken['pair']}")
    one, other = sides
    if pair["state"] == "STATE_OPEN":
        _decide(story.steward, pair, SAME)
    merged = story.steward.get(f"/v1/{other}")
    kept, gone = (one, other) if merged["name"] == one else (other, one)
    if _told(story.steward.get(f"/v1/{kept}")) != sides[kept]:
        records = [{"source": source, "source_record_id": record} for source, record, *_ in _records(sides[gone])]
        body: Json = {"source_records": list(records), "reason": "the customers say they are two"}
        story.steward.post(f"/v1/{kept}:unmerge", body)
    back = {profile: _told(story.steward.get(f"/v1/{profile}")) for profile in (kept, gone)}
    require(back == sides, f"{kept} and {gone} are not what they were before the verdict")
    began = time.monotonic()
    require(
        all(is_found(story, str(_name(sides[profile])), profile) for profile in (kept, gone)),
        f"search does not find both in {SEEN_SECONDS:.0f} s; see logs/consume.log",
    )
    return [
        f"{gone[:13]}… merged into {kept[:13]}… by a wrong verdict, split again: names, phones and records as before",
        f"both found by search {time.monotonic() - began:.1f} s later; the pair is never asked again",
    ]


def _told(profile: Json) -> list[object]:
    """Return what must be the same after an undo: name, phones, records; as a state file keeps it."""
    records = sorted(
        [str(item["source"]), str(item["source_record_id"])] for item in entries(profile, "source_records")
    )
    phones = profile.get("phones")
    return [profile.get("display_name", ""), phones if isinstance(phones, list) else [], records]


def _records(told: object) -> Sequence[Sequence[str]]:
    assert isinstance(told, list)
    records: Sequence[Sequence[str]] = told[2]
    return records


def _name(told: object) -> str:
    assert isinstance(told, list)
    return str(told[0])


QUALITY_RULE: Json = {
    "display_name": "门店数据有效率 rows of the tills that are valid",
    "dimension": "QUALITY_DIMENSION_VALIDITY",
    "field": "@record",
    "source": "sources/till",
    "threshold": 0.965,
    "severity": "SEVERITY_HIGH",
    "due_days": 7,
}


def close_incident(story: Context) -> list[str]:
    """Measure, take up the incident that a rule opens, correct its rows, and let a measurement close it."""
    create(story, "/v1/qualityRules", QUALITY_RULE, quality_rule_id="till_valid")
    story.progress(0.1, "measuring")
    story.steward.wait_operation(story.steward.post("/v1/qualityReports:measure", {}, key="sample-measure"))
    found = [item for item in entries(story.steward.get("/v1/qualityIncidents"), "quality_incidents")]
    incidents = [item for item in found if item["rule"] == "qualityRules/till_valid"]
    require(incidents, "the rule till_valid opened no incident; see logs/work.log")
    name = str(incidents[0]["name"])
    incident = story.steward.get(f"/v1/{name}")
    if incident["state"] == "STATE_FOUND":
        story.steward.post(f"/v1/{name}:acknowledge", {"note": "rows without their wrong dates and phones"})
    story.progress(0.5, "correcting rows")
    corrected = _correct_rejects(story)
    again = story.steward.post(f"/v1/{name}:remeasure", {})
    story.steward.wait_operation(again)
    closed = story.steward.get(f"/v1/{name}")
    require(closed["state"] == "STATE_VERIFIED", f"{name} is {closed['state']} after its rows were corrected")
    first = entries(closed, "occurrences")[0]
    causes = [f"{str(cause['factor'])[7:].lower()} {cause['value']}" for cause in entries(first, "causes")][:1]
    page = story.steward.get("/v1/qualityReports/latest")
    return [
        f"incident of {closed['department']}: {_share(first)} of the tills' rows valid, at least "
        f"{QUALITY_RULE['threshold']} asked; suspected: {', '.join(causes) or 'nothing stands out'}",
        f"{shown(corrected)} rows corrected, measured again: {_share(closed)}, verified",
        f"report {page['name']}, to read in a browser at /v1/{page['name']}/page",
    ]


def _share(counts: Json) -> str:
    return f"{shown(counts.get('passed'))} of {shown(counts.get('measured'))}"


def _correct_rejects(story: Context) -> int:
    """Send the tills' rows again without the values that were refused; return how many are right now."""
    mapping = entries(story.steward.get("/v1/sources/till"), "mapping")
    columns = {str(item["field"]): str(item["column"]) for item in mapping}
    corrected = 0
    for reject in list(story.steward.items("/v1/rejects", "rejects", source="sources/till", page_size=200)):
        wrong: Json = {
            columns[str(reason["field"])]: "" for reason in entries(reject, "reasons") if reason.get("field") in columns
        }
        if reject.get("state") == "STATE_OPEN" and wrong:
            done = story.steward.post(f"/v1/{reject['name']}:replay", {"corrections": wrong})
            corrected += done["state"] != "STATE_OPEN"
    return corrected
