"""The sample's story: it waits for what comes late, and never tells as well what is missing."""

from __future__ import annotations

import json

import pytest
from typer.testing import CliRunner

from infra.api import SignIns
from infra.cli import app
from infra.story import customers, engagement, service, spending, stewardship
from infra.story.context import Context, StepFailed, read_state, save_state
from infra.story.teller import STEPS

OK = {"name": "operations/o", "done": True}


def ended(kind, **response):
    """Return an operation that is done, with a response of a kind."""
    return {**OK, "response": {"@type": f"type.googleapis.com/kehu.{kind}", **response}}


@pytest.fixture
def told():
    """What the progress bar showed."""
    return []


@pytest.fixture
def story(gateway, told):
    (gateway.folder / "sample").mkdir()
    return Context(gateway.folder, SignIns(gateway.credentials), lambda share, text: told.append(text))


def put_mail(story, subject, recipient="k@mail.example", link="<http://127.0.0.1:9/u>"):
    folder = story.folder / "mailbox"
    folder.mkdir(exist_ok=True)
    head = f"X-Envelope-To: {recipient}\r\nSubject: {subject}\r\nList-Unsubscribe: {link}\r\n\r\n"
    (folder / f"{len(list(folder.iterdir()))}.eml").write_bytes(head.encode())


@pytest.fixture
def lake(gateway, story, monkeypatch):
    """Three golden records; the lake knows what a test says, and scores are ready to be computed."""
    monkeypatch.setattr(spending, "LOOK_SECONDS", 0.0)
    assignments = [["till", str(number), profile] for number, profile in enumerate(["a", "b", "c", "merged"])]
    (story.sample / "assignments.json").write_text(json.dumps(assignments))
    gateway.answers["/v1/profiles"] = [
        {"profiles": [{"name": "profiles/a"}, {"name": "profiles/b"}], "next_page_token": "t"},
        {"profiles": [{"name": "profiles/c"}]},
    ]
    gateway.answers["/v1/scores:compute"] = [ended("analytics.v1.ComputeScoresResponse", profile_count="3")]
    gateway.answers["/v1/metrics/sales:query"] = [{}]
    return gateway.answers.setdefault("/v1/audiences:evaluate", [])


def test_scores_are_computed_when_the_lake_knows_every_golden_record(gateway, story, lake, told):
    lake += [
        {},
        {},
        {"profile_ids": ["a", "x"], "next_page_token": "t"},
        {"profile_ids": ["c"]},
        {"profile_ids": ["a", "b", "c"]},
    ]

    assert spending.compute_scores(story)[0].startswith("3 customers scored")
    assert told == ["lake: 0/3 customers", "lake: 2/3 customers"]


def test_a_lake_that_learns_nothing_more_is_told(gateway, story, lake, monkeypatch):
    monkeypatch.setattr(spending, "LAKE_SECONDS", 0.0)
    lake += [{"profile_ids": ["a"]}]

    with pytest.raises(StepFailed, match=r"2 of 3 golden records have not reached the lake.* logs/consume\.log"):
        spending.compute_scores(story)
    assert gateway.asked["/v1/scores:compute"] == 0


def test_scores_of_nobody_are_told(gateway, story, lake):
    lake += [{"profile_ids": ["a", "b", "c"]}]
    gateway.answers["/v1/scores:compute"] = [ended("analytics.v1.ComputeScoresResponse")]

    with pytest.raises(StepFailed, match="no customer was scored"):
        spending.compute_scores(story)


@pytest.mark.parametrize(
    ("response", "complaint"),
    [
        ({"read_rows": "5", "written_rows": "3"}, "3 written are not 5"),
        ({"read_rows": "5", "apart": [{"reason": "UNMATCHED", "rows": "5"}]}, "no transaction belongs to a customer"),
    ],
)
def test_lost_transactions_are_told(gateway, story, response, complaint):
    (story.sample / "manifest.json").write_text('{"transactions": 5}')
    (story.sample / "transactions.parquet").write_bytes(b"x")
    gateway.answers["/v1/interactions:import"] = [ended("analytics.v1.ImportInteractionsResponse", **response)]

    with pytest.raises(StepFailed, match=complaint):
        spending.import_transactions(story)


def test_lost_rows_of_a_file_are_told(gateway, story):
    (story.sample / "manifest.json").write_text('{"rows": {"till": 4, "shop": 4, "callcentre": 4}}')
    (story.sample / "till.csv").write_bytes(b"x")
    summary = {"rows_read": "3", "rows_accepted": "2", "rows_rejected": "1"}
    gateway.answers["/v1/sources/till:import"] = [ended("profiles.v1.ImportRecordsResponse", summary=summary)]

    with pytest.raises(StepFailed, match=r"2 accepted \+ 1 rejected are not 4"):
        customers.import_files(story)


def test_a_refused_answer_of_a_customer_is_told(gateway, story):
    consent = {
        "source_id": "till",
        "source_record_id": "1",
        "purpose_id": "marketing",
        "channel": "email",
        "evidence": "web-form",
        "state": "granted",
        "answer_time": "2026-01-01T00:00:00+08:00",
    }
    plan = {"notices": [], "purposes": [], "consents": [consent], "without_consent": 0}
    (story.sample / "plan.json").write_text(json.dumps(plan))
    (story.sample / "assignments.json").write_text('[["till", "1", "a"]]')
    gateway.answers["/v1/consents:batchRecord"] = [{"results": [{"reason": "NOTICE_UNKNOWN"}]}]

    with pytest.raises(StepFailed, match="refused NOTICE_UNKNOWN 1 of 1 answers"):
        engagement.record_consents(story)


def test_an_empty_segment_is_told(gateway, story):
    gateway.answers["/v1/segments"] = [{"name": "segments/s", "display_name": "regulars"}]
    gateway.answers["/v1/segments/s:preview"] = [{}]

    with pytest.raises(StepFailed, match="nobody is in the segment"):
        engagement.preview_segment(story)


@pytest.fixture
def campaign(gateway, story):
    """A campaign whose run has ended; a test says its report."""
    story.kept["segment_id"] = "s"
    gateway.answers["/v1/campaigns"] = [{"name": "campaigns/c"}]
    gateway.answers["/v1/campaigns/c:run"] = [OK]
    skips = [{"reason": "SKIP_REASON_NO_ADDRESS", "count": "1"}]
    gateway.answers["/v1/campaigns/c/report"] = [{"audience": "2", "sent": "1", "skipped": "1", "skips": skips}]
    return gateway.answers["/v1/campaigns/c/report"][0]


def test_a_campaign_that_adds_up_is_told_with_its_mails(story, campaign):
    put_mail(story, "秋季会员优惠")

    assert engagement.run_campaign(story) == [
        "audience 2 = 1 sent + 1 skipped: adds up",
        "skipped: NO_ADDRESS 1",
        "1 mails in the mailbox",
    ]


@pytest.mark.parametrize(
    ("changes", "complaint"),
    [
        ({"audience": "3"}, r"do not add up: 1 sent \+ 1 skipped are not 3"),
        ({"skips": []}, "do not add up: 0 are not 1"),
        ({"audience": "3", "pending": "1"}, "1 are still pending"),
        ({"audience": "3", "sent": "2"}, r"2 mails were sent and 1 arrived; see logs/smtp\.log"),
        ({"audience": "1", "sent": "0"}, "0 mails were sent"),
    ],
)
def test_a_campaign_whose_figures_are_wrong_is_told(story, campaign, changes, complaint):
    put_mail(story, "秋季会员优惠")
    campaign.update(changes)

    with pytest.raises(StepFailed, match=complaint):
        engagement.run_campaign(story)


@pytest.mark.parametrize("link", [None, "none"])
def test_a_mailbox_without_a_link_is_told(story, link):
    if link:
        put_mail(story, "秋季会员优惠", link=link)

    with pytest.raises(StepFailed, match="no mail with an unsubscribe link"):
        engagement.unsubscribe_and_run_again(story)


def test_a_refused_link_is_told_without_naming_it(gateway, story):
    put_mail(story, "秋季会员优惠", link=f"<{gateway.url}/u/secret>")

    with pytest.raises(StepFailed, match="unsubscribe link was refused: 404") as caught:
        engagement.unsubscribe_and_run_again(story)
    assert "secret" not in str(caught.value)


def test_a_mail_to_one_who_unsubscribed_is_told(gateway, story, campaign):
    story.kept["first_sent"] = 1
    put_mail(story, "秋季会员优惠", link=f"<{gateway.url}/u/1>")
    put_mail(story, "冬季会员优惠")
    gateway.answers["/u/1"] = [{}]

    with pytest.raises(StepFailed, match="was written to again"):
        engagement.unsubscribe_and_run_again(story)


def test_a_customer_who_is_not_found_is_told(gateway, story, monkeypatch):
    monkeypatch.setattr(service, "SEEN_SECONDS", 0.0)
    story.kept["customer"] = "a"
    (story.sample / "assignments.json").write_text("[]")
    gateway.answers["/v1/profiles/a"] = [{"display_name": "王小明", "phones": ["+8613812348000"]}]

    with pytest.raises(StepFailed, match=r"not found by name .* logs/search\.log") as caught:
        service.find_customer(story)
    assert "王" not in str(caught.value)


TRUTH = {("till", "1"): "wang", ("shop", "1"): "wang", ("till", "2"): "li", ("shop", "2"): "zhao"}


def side(profile, *keys):
    records = [{"source": f"sources/{source}", "source_record_id": record} for source, record in keys]
    return {"name": f"profiles/{profile}", "display_name": profile, "source_records": records}


SIDES = {
    "a": side("a", ("till", "1")),
    "b": side("b", ("shop", "1")),
    "c": side("c", ("till", "2")),
    "d": side("d", ("shop", "2")),
}


@pytest.fixture
def queue(gateway, story):
    """Two pairs: a and b are one person, c and d are two; a verdict on the first waits for a second steward."""
    rows = [
        {"source_id": source, "source_record_id": record, "person_id": person, "broken": ""}
        for (source, record), person in TRUTH.items()
    ]
    (story.sample / "truth.jsonl").write_text("\n".join(json.dumps(row) for row in rows))
    gateway.answers["/v1/profiles"] = [{"profiles": list(SIDES.values())}]
    gateway.answers["/v1/principals"] = [{"secret": {"client_secret": "s"}}]
    pairs = [{"name": "matchCandidates/ab", "priority": "9"}, {"name": "matchCandidates/cd", "priority": "7"}]
    gateway.answers["/v1/matchCandidates"] = [{"match_candidates": pairs}]
    for one, other in ("ab", "cd"):
        gateway.answers[f"/v1/matchCandidates/{one}{other}"] = [
            {
                "name": f"matchCandidates/{one}{other}",
                "state": "STATE_OPEN",
                "profile": f"profiles/{one}",
                "other_profile": f"profiles/{other}",
                "profiles": [SIDES[one], SIDES[other]],
                "needs_second_person": one == "a",
            }
        ]
    gateway.answers["/v1/matchCandidates/ab:confirm"] = [{"state": "STATE_AWAITING_SECOND"}, {"state": "STATE_MERGED"}]
    return gateway.answers


def test_pairs_are_answered_as_the_truth_has_them_by_two_stewards_where_two_must(gateway, story, queue):
    lines = stewardship.review_pairs(story)

    assert lines[0] == "1 pairs answered as the truth has them: 1 one person, 0 two people; 1 of them by two stewards"
    assert gateway.asked["/v1/matchCandidates/ab:confirm"] == 2
    assert gateway.asked["/v1/matchCandidates/cd:reject"] == 0, "the pair of two people is left for the wrong verdict"
    assert story.kept["mistaken"]["pair"] == "matchCandidates/cd"


def test_an_empty_review_queue_is_told(gateway, story, queue):
    queue["/v1/matchCandidates"] = [{}]

    with pytest.raises(StepFailed, match=r"the review queue is empty.* logs/profiles\.log"):
        stewardship.review_pairs(story)


def test_an_undo_that_did_not_bring_a_phone_back_is_told(gateway, story, queue):
    stewardship.review_pairs(story)
    both = {**SIDES["c"], "source_records": [*SIDES["c"]["source_records"], *SIDES["d"]["source_records"]]}
    queue["/v1/matchCandidates/cd:confirm"] = [{"state": "STATE_MERGED"}]
    queue["/v1/profiles/c"] = [both, {**SIDES["c"], "phones": ["+8613800000000"]}]
    queue["/v1/profiles/d"] = [both, SIDES["d"]]
    queue["/v1/profiles/c:unmerge"] = [{}]

    with pytest.raises(StepFailed, match="are not what they were before the verdict"):
        stewardship.undo_verdict(story)
    assert gateway.asked["/v1/profiles/c:unmerge"] == 1


@pytest.fixture
def incident(gateway):
    """An incident of the tills' rows; its reject is corrected by a replay."""
    occurrence = {"passed": "8", "measured": "10", "causes": [{"factor": "batch", "value": "imports/1"}]}
    found = {"name": "qualityIncidents/i", "rule": "qualityRules/till_valid", "state": "STATE_FOUND"}
    told = {**found, "department": "sales", "occurrences": [occurrence], "passed": "10", "measured": "10"}
    gateway.answers |= {
        "/v1/qualityRules": [{}],
        "/v1/qualityReports:measure": [OK],
        "/v1/qualityIncidents": [{"quality_incidents": [found]}],
        "/v1/qualityIncidents/i": [told, {**told, "state": "STATE_VERIFIED"}],
        "/v1/qualityIncidents/i:acknowledge": [{}],
        "/v1/qualityIncidents/i:remeasure": [OK],
        "/v1/qualityReports/latest": [{"name": "qualityReports/r"}],
        "/v1/sources/till": [{"mapping": [{"field": "birth_date", "column": "生日"}]}],
        "/v1/rejects": [
            {"rejects": [{"name": "rejects/1", "state": "STATE_OPEN", "reasons": [{"field": "birth_date"}]}]}
        ],
        "/v1/rejects/1:replay": [{"state": "STATE_REPLAYED"}],
    }
    return gateway.answers


def test_an_incident_is_closed_by_measuring_its_corrected_rows(gateway, story, incident):
    lines = stewardship.close_incident(story)

    assert "8 of 10 of the tills' rows valid" in lines[0]
    assert lines[1] == "1 rows corrected, measured again: 10 of 10, verified"
    assert json.loads(gateway.bodies[-4])["corrections"] == {"生日": ""}


def test_an_incident_that_stays_open_is_told(gateway, story, incident):
    incident["/v1/qualityIncidents/i"] = [incident["/v1/qualityIncidents/i"][0]]

    with pytest.raises(StepFailed, match="qualityIncidents/i is STATE_FOUND after its rows were corrected"):
        stewardship.close_incident(story)


def only(step, folder):
    """Leave just this step to be done."""
    done = {each.key: {"lines": ["told"], "seconds": 0.1} for each in STEPS if each.key != step}
    save_state(folder, {"done": done, "kept": {}})


def load(folder):
    return CliRunner().invoke(app, ["load", "--data", str(folder)])


def test_a_broken_audit_trail_ends_the_load_and_the_next_one_looks_again(gateway):
    only("audit", gateway.folder)
    gateway.answers["/v1/auditEntries:verify"] = [
        {"first_bad_block": "3", "fault": "HASH_DIFFERS"},
        {"intact": True, "entries": "5", "blocks": "2", "head_hash": "ab"},
    ]

    broken = load(gateway.folder)
    assert broken.exit_code == 1
    assert "step 17, audit trail verified: the audit trail is broken at block 3: HASH_DIFFERS" in broken.output
    assert "Traceback" not in broken.output
    assert "audit" not in read_state(gateway.folder)["done"]

    mended = load(gateway.folder)
    assert mended.exit_code == 0
    assert "5 entries in 2 blocks, intact" in mended.output
    assert read_state(gateway.folder)["finished"]


@pytest.mark.parametrize(
    ("answer", "complaint"),
    [
        ((403, {"reason": "DENIED", "detail": "not yours"}), "403 DENIED: not yours"),
        ({"name": "operations/o", "done": True, "error": {"message": "the disk is full"}}, "the disk is full"),
    ],
)
def test_what_the_gateway_refuses_ends_the_load_with_one_line(gateway, answer, complaint):
    only("transactions", gateway.folder)
    (gateway.folder / "sample").mkdir()
    (gateway.folder / "sample" / "manifest.json").write_text('{"transactions": 5}')
    (gateway.folder / "sample" / "transactions.parquet").write_bytes(b"x")
    gateway.answers["/v1/interactions:import"] = [answer]

    ended = load(gateway.folder)

    assert ended.exit_code == 1
    assert complaint in ended.output.splitlines()[-1]
    assert ended.exception is None or isinstance(ended.exception, SystemExit)


def test_a_sample_file_that_is_gone_ends_the_load_with_one_line(gateway):
    only("transactions", gateway.folder)

    ended = load(gateway.folder)

    assert ended.exit_code == 1
    assert "manifest.json" in ended.output.splitlines()[-1]
