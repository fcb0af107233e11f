"""The story's third part: consent, a segment, and a campaign that writes only to those who agreed."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterator
from datetime import datetime, timedelta
from pathlib import Path

import httpx

from gateway.client import Json, entries
from infra.smtp_sink import read_mailbox
from infra.story.context import WAIT_SECONDS, Context, StepFailed, check_sum, message, require, shown, whole
from infra.story.customers import create, read_assignments

BATCH = 500  # consents:batchRecord takes no more
TEXT = "{{display_name}}，您好：\n本周会员商品八折。\n退订：{{unsubscribe_url}}\n"
CHANNELS = ("email", "sms", "phone", "app_push", "wechat", "post")
VIA = {"paper-form": "COLLECTED_VIA_PAPER", "web-form": "COLLECTED_VIA_WEB", "till-display": "COLLECTED_VIA_STORE"}


def _spent(measure: str, value: str, within_days: int) -> Json:
    condition = {"event_type": "order_completed", "measure": measure, "operator": "OPERATOR_GE"}
    return {"event": {**condition, "value": value, "within_days": within_days}}


def _score(score: str, least: str) -> Json:
    return {"score": {"score": score, "operator": "OPERATOR_GE", "values": [least]}}


RULE: Json = {
    "all": {
        "rules": [
            _spent("MEASURE_DISTINCT_BASKETS", "8", 90),
            _spent("MEASURE_SUM_CENTS", "100000", 365),
            _score("rfm_frequency", "4"),
            _score("rfm_recency", "3"),
            {"trait": {"trait": "age", "operator": "OPERATOR_GE", "values": ["18"]}},
        ]
    }
}


def record_consents(story: Context) -> list[str]:
    """Register notices and purposes, then record what each customer answered."""
    plan = story.read("plan.json")
    notices, purposes, consents = (entries(plan, name) for name in ("notices", "purposes", "consents"))
    for notice in notices:
        text = {"language": notice["language"], "body": notice["wording"]}
        version = {"effective_time": notice["effective_time"], "texts": [text]}
        body: Json = {"display_name": notice["notice_id"], "versions": [version]}
        create(story, "/v1/notices", body, notice_id=str(notice["notice_id"]))
    for purpose in purposes:
        create(story, "/v1/purposes", _purpose(purpose), purpose_id=str(purpose["purpose_id"]))
    counts = _record(story, consents)
    told = ", ".join(f"{state} {shown(count)}" for state, count in sorted(counts.items()))
    return [
        f"{len(notices)} notices, {len(purposes)} purposes",
        f"answers of customers: {told}, none {shown(plan['without_consent'])}",
    ]


def _purpose(purpose: Json) -> Json:
    channels = purpose["channels"]
    return {
        "display_name": purpose["display_name"],
        "legal_basis": "LEGAL_BASIS_CONSENT",
        "data_categories": purpose["data_categories"],
        "channels": list(CHANNELS) if channels == ["any"] else channels,
        "retention_days": purpose["retention_days"],
        "notice_id": f"{purpose['purpose_id']}-zh",
    }


def _record(story: Context, consents: list[Json]) -> Counter[str]:
    """Record the answers in batches, a withdrawal after the grant it withdraws; return how many of each state."""
    assignments = read_assignments(story)
    requests = [request for consent in consents for request in _requests(consent, assignments)]
    counts: Counter[str] = Counter()
    for start in range(0, len(requests), BATCH):
        story.progress(start / len(requests), f"{shown(start)}/{shown(len(requests))} answers")
        batch = [request for _, request in requests[start : start + BATCH]]
        reply = story.steward.post("/v1/consents:batchRecord", {"requests": batch})
        for (state, _), result in zip(requests[start : start + BATCH], entries(reply, "results"), strict=True):
            counts[state if not result.get("reason") else f"refused {result['reason']}"] += 1
    refused = ", ".join(f"{state} {shown(count)}" for state, count in counts.items() if state.startswith("refused"))
    require(not refused, f"{refused} of {shown(len(requests))} answers")
    counts["granted"] -= counts["revoked"]  # who withdrew had granted before
    return counts


def _requests(consent: Json, assignments: dict[tuple[str, str], str]) -> Iterator[tuple[str, Json]]:
    profile_id = assignments.get((str(consent["source_id"]), str(consent["source_record_id"])))
    if profile_id is None:
        return
    state = str(consent["state"])
    answered = datetime.fromisoformat(str(consent["answer_time"]))
    key = f"sample-{consent['source_record_id']}-{consent['purpose_id']}-{consent['channel']}"
    common: Json = {
        "purpose_id": consent["purpose_id"],
        "channel": "" if consent["channel"] == "any" else consent["channel"],
        "collected_via": VIA[str(consent["evidence"])],
        "language": "zh-CN",
        "notice_version": 1,
        "shown_time": (answered - timedelta(minutes=1)).isoformat(),
    }
    first = "denied" if state == "denied" else "granted"
    steps = [(first, answered.isoformat())] + ([(state, consent["revoke_time"])] if state == "revoked" else [])
    for said, moment in steps:
        record = {**common, "state": f"CONSENT_STATE_{said.upper()}", "answer_time": moment}
        yield said, {"profile_id": profile_id, "consent": record, "request_id": f"{key}-{said}"[:64]}


def preview_segment(story: Context) -> list[str]:
    """Define a segment by a rule of five conditions, and see who is in."""
    body: Json = {"display_name": "常客 regulars", "rule": RULE, "description": "bought often and lately, grown up"}
    segment = story.marketer.post("/v1/segments", body, key="sample-segment")
    segment_id = str(segment["name"]).removeprefix("segments/")
    story.kept["segment_id"] = segment_id
    seen = story.marketer.post(f"/v1/segments/{segment_id}:preview")
    require(whole(seen.get("total")), "nobody is in the segment: nobody could be written to")
    return [f"{segment['display_name']}: {shown(seen.get('total'))} customers, data up to {seen.get('data_cutoff')}"]


def run_campaign(story: Context) -> list[str]:
    """Write to the segment: who agreed gets a mail, everybody else is skipped for a reason."""
    title = "秋季会员优惠"
    report = _run(story, "autumn", title)
    told = _told(story, report)
    sent, arrived = whole(report.get("sent")), sum(mail.subject == title for mail in read_mailbox(_mailbox(story)))
    require(0 < sent <= arrived, f"{shown(sent)} mails were sent and {shown(arrived)} arrived; see logs/smtp.log")
    story.kept["first_report"] = report
    return told


def _mailbox(story: Context) -> Path:
    return story.folder / "mailbox"


def _run(story: Context, key: str, title: str) -> Json:
    body: Json = {
        "display_name": title,
        "segment_id": story.kept["segment_id"],
        "purpose_id": "marketing",
        "channel": "email",
        "template": {
            "subject": title,
            "text": TEXT,
        },
        "frequency_cap": {"max_messages": 2, "window_days": 7},
        "quiet_hours": {"start": "00:00", "end": "00:00"},  # the sample must run at any time of day
        "message_cost_cents": "5",
    }
    campaign = story.marketer.post("/v1/campaigns", body, key=f"sample-campaign-{key}")
    name = str(campaign["name"])
    operation = story.marketer.post(f"/v1/{name}:run", key=f"sample-run-{key}")

    def progress(metadata: Json) -> None:
        del metadata  # the report has the figures of every state
        seen = story.marketer.get(f"/v1/{name}/report")
        settled = whole(seen.get("sent")) + whole(seen.get("skipped"))
        story.progress(settled / max(1, whole(seen.get("audience"))), f"{shown(settled)}/{shown(seen.get('audience'))}")

    story.marketer.wait_operation(operation, WAIT_SECONDS, progress)
    return story.marketer.get(f"/v1/{name}/report")


def _told(story: Context, report: Json) -> list[str]:
    parts = {name: whole(report.get(name)) for name in ("sent", "skipped", "failed", "unknown", "pending")}
    audience = whole(report.get("audience"))
    figures = check_sum(parts, audience)
    require(not parts["pending"], f"the run has ended, but {shown(parts['pending'])} are still pending")
    reasons = {_reason(row): whole(row.get("count")) for row in entries(report, "skips")}
    check_sum(reasons, parts["skipped"])
    why = ", ".join(f"{reason} {shown(count)}" for reason, count in reasons.items()) or "none"
    mails = sum(1 for _ in _mailbox(story).glob("*.eml"))
    return [
        f"audience {shown(audience)} = {figures}: adds up",
        f"skipped: {why}",
        f"{shown(mails)} mails in the mailbox",
    ]


def _reason(row: Json) -> str:
    reason = str(row.get("reason", "")).removeprefix("SKIP_REASON_")
    return f"{reason} ({row['detail']})" if row.get("detail") else reason


def unsubscribe_and_run_again(story: Context) -> list[str]:
    """Follow the link of one mail as a mail program does (RFC 8058), and run a second campaign."""
    mail = next(read_mailbox(_mailbox(story)), None)
    link = re.search(r"<(https?://[^>]+)>", mail.list_unsubscribe) if mail else None
    if mail is None or link is None:
        raise StepFailed("there is no mail with an unsubscribe link in the mailbox; see logs/smtp.log")
    reply = httpx.post(link[1], data={"List-Unsubscribe": "One-Click"}, timeout=30, trust_env=False)
    require(reply.is_success, f"a mail's unsubscribe link was refused: {reply.status_code}")
    title = "冬季会员优惠"
    report = _run(story, "winter", title)
    fewer = whole(message(story.kept, "first_report").get("sent")) - whole(report.get("sent"))
    same = [other for other in read_mailbox(_mailbox(story)) if other.recipient == mail.recipient]
    require(all(other.subject != title for other in same), "who had unsubscribed was written to again")
    again = len(same)
    return [f"one click on one mail's link; mails to that address: {again}; sent {fewer} fewer", *_told(story, report)]
