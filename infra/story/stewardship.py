"""The story's stewardship: pairs reviewed, a wrong verdict undone."""

from __future__ import annotations

import secrets
import time
from collections import Counter
from collections.abc import Mapping

from kehu.client import Kehu, PermissionDenied
from kehu.profiles.v1.quality_pb2 import QualityIncident, SuspectedCause
from kehu.profiles.v1.resources_pb2 import MatchCandidate, Profile, Reject

from infra.sample.evaluate import RecordKey, evaluate, read_truth
from infra.story.context import Context, Json, require, shown
from infra.story.customers import PAGE_SIZE, golden_assignments, key_of, there_already
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
    queue = list(story.steward.profiles.list_match_candidates(page_size=PAGE_SIZE))
    for listed in sorted(queue, key=lambda item: -item.priority):
        if sum(said.values()) == REVIEWED:
            break
        story.progress(sum(said.values()) / REVIEWED, f"{sum(said.values())}/{REVIEWED}")
        pair = story.steward.profiles.get_match_candidate(name=listed.name)
        if pair.state != MatchCandidate.STATE_OPEN:  # an earlier verdict made it moot
            continue
        verdict = _verdict(pair, people)
        if verdict == TWO and not pair.needs_second_person and "mistaken" not in story.kept:
            sides = {side.name: _told(side) for side in pair.profiles}
            story.kept["mistaken"] = {"pair": pair.name, "sides": sides}
        if not _is_left(story, pair):
            if _decide(story.steward, pair.name, verdict) == MatchCandidate.STATE_AWAITING_SECOND:
                _decide(second, pair.name, verdict)
                twice += 1
            said[verdict] += 1
    require(said, "the review queue is empty, though pairs were found; see logs/profiles.log")
    after = _quality(story)
    return [
        f"{shown(sum(said.values()))} pairs answered as the truth has them: {shown(said[SAME])} one person, "
        f"{shown(said[TWO])} two people; {shown(twice)} of them by two stewards",
        f"against the truth: recall {before[1]:.4f} → {after[1]:.4f}, precision {before[0]:.4f} → {after[0]:.4f}, "
        f"F1 {before[2]:.4f} → {after[2]:.4f}",
    ]


def _is_left(story: Context, pair: MatchCandidate) -> bool:
    """Say whether a pair is that of the wrong verdict, or has one of its customers."""
    if "mistaken" not in story.kept:
        return False
    return not {pair.profile, pair.other_profile}.isdisjoint(story.kept["mistaken"]["sides"])


def _quality(story: Context) -> tuple[float, float, float]:
    return evaluate(read_truth(story.sample / "truth.jsonl"), golden_assignments(story))


def _verdict(pair: MatchCandidate, people: Mapping[RecordKey, str]) -> str:
    """Return what a steward who asked the customers would say: are most records of both of one person?"""
    one, other = (_person(side, people) for side in pair.profiles)
    return SAME if one == other else TWO


def _person(profile: Profile, people: Mapping[RecordKey, str]) -> str:
    keys = map(key_of, profile.source_records)
    ((person, _),) = Counter(people[key] for key in keys if key in people).most_common(1)
    return person


def _second_steward(story: Context) -> Kehu:
    """Return a client of a new app of the data office, for what one steward may not decide alone.

    It may work when every process knows its role, seconds after it was made.
    """
    login = f"second-steward-{secrets.token_hex(3)}"
    app = {"kind": "PRINCIPAL_KIND_APP", "login": login, "department": "data-office", "roles": ["role:steward"]}
    made = story.sign_ins.administrator().access.create_principal(principal=app)
    steward = story.sign_ins.app(login, made.secret.client_secret, "stewardship")
    deadline = time.monotonic() + SEEN_SECONDS
    while True:
        try:
            steward.profiles.list_match_candidates(page_size=1)
        except PermissionDenied:
            if time.monotonic() > deadline:
                raise
            time.sleep(0.5)
        else:
            return steward


def _decide(steward: Kehu, pair: str, verdict: str) -> MatchCandidate.State:
    """Say it, and return the state of the pair."""
    if verdict == SAME:
        return steward.profiles.confirm_match_candidate(name=pair, reason="asked the customer").state
    return steward.profiles.reject_match_candidate(name=pair, reason="two members of a family").state


def undo_verdict(story: Context) -> list[str]:
    """Confirm a pair that is two people, undo it, and look whether everything is as it was."""
    profiles, mistaken = story.steward.profiles, story.kept["mistaken"]
    sides: Json = mistaken["sides"]
    one, other = sides
    if profiles.get_match_candidate(name=mistaken["pair"]).state == MatchCandidate.STATE_OPEN:
        _decide(story.steward, mistaken["pair"], SAME)
    kept, gone = (one, other) if profiles.get_profile(name=other).name == one else (other, one)
    if _told(profiles.get_profile(name=kept)) != sides[kept]:
        records = [{"source": source, "source_record_id": record} for source, record in sides[gone]["records"]]
        profiles.unmerge_profile(name=kept, source_records=records, reason="the customers say they are two")
    back = {profile: _told(profiles.get_profile(name=profile)) for profile in (kept, gone)}
    require(back == sides, f"{kept} and {gone} are not what they were before the verdict")
    began = time.monotonic()
    require(
        all(is_found(story, sides[profile]["name"], profile) for profile in (kept, gone)),
        f"search does not find both in {SEEN_SECONDS:.0f} s; see logs/consume.log",
    )
    return [
        f"{gone[:13]}… merged into {kept[:13]}… by a wrong verdict, split again: names, phones and records as before",
        f"both found by search {time.monotonic() - began:.1f} s later; the pair is never asked again",
    ]


def _told(profile: Profile) -> Json:
    """Return what must be the same after an undo, as a state file keeps it."""
    records = sorted([item.source, item.source_record_id] for item in profile.source_records)
    return {"name": profile.display_name, "phones": list(profile.phones), "records": records}


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
    profiles = story.steward.profiles
    with there_already():
        profiles.create_quality_rule(quality_rule=QUALITY_RULE, quality_rule_id="till_valid")
    story.progress(0.1, "measuring")
    profiles.measure_quality(request_id="sample-measure").wait()
    incidents = [item for item in profiles.list_quality_incidents() if item.rule == "qualityRules/till_valid"]
    require(incidents, "the rule till_valid opened no incident; see logs/work.log")
    name = incidents[0].name
    if profiles.get_quality_incident(name=name).state == QualityIncident.STATE_FOUND:
        profiles.acknowledge_quality_incident(name=name, note="rows without their wrong dates and phones")
    story.progress(0.5, "correcting rows")
    corrected = _correct_rejects(story)
    profiles.remeasure_quality_incident(name=name).wait()
    closed = profiles.get_quality_incident(name=name)
    state = QualityIncident.State.Name(closed.state)
    require(state == "STATE_VERIFIED", f"{name} is {state} after its rows were corrected")
    first = closed.occurrences[0]
    causes = [f"{SuspectedCause.Factor.Name(cause.factor)[7:].lower()} {cause.value}" for cause in first.causes][:1]
    page = profiles.get_quality_report(name="qualityReports/latest")
    return [
        f"incident of {closed.department}: {_share(first.passed, first.measured)} of the tills' rows valid, at least "
        f"{QUALITY_RULE['threshold']} asked; suspected: {', '.join(causes) or 'nothing stands out'}",
        f"{shown(corrected)} rows corrected, measured again: {_share(closed.passed, closed.measured)}, verified",
        f"report {page.name}, to read in a browser at /v1/{page.name}/page",
    ]


def _share(passed: int, measured: int) -> str:
    return f"{shown(passed)} of {shown(measured)}"


def _correct_rejects(story: Context) -> int:
    """Send the tills' rows again without the values that were refused; return how many are right now."""
    profiles = story.steward.profiles
    columns = {item.field: item.column for item in profiles.get_source(name="sources/till").mapping}
    corrected = 0
    for reject in list(profiles.list_rejects(source="sources/till", page_size=200)):
        wrong = {columns[reason.field]: "" for reason in reject.reasons if reason.field in columns}
        if reject.state == Reject.STATE_OPEN and wrong:
            done = profiles.replay_reject(name=reject.name, corrections=wrong)
            corrected += done.state != Reject.STATE_OPEN
    return corrected
