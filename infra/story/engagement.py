"""The story's third part: consent, a segment, and a campaign that writes only to those who agreed."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterator
from datetime import datetime, timedelta
from pathlib import Path

import httpx
from kehu.consent.v1.consent_pb2 import Notice, Purpose, RecordConsentRequest
from kehu.marketing.v1.resources_pb2 import Campaign, CampaignReport, Segment, SkipCount, SkipReason

from infra.smtp_sink import read_mailbox
from infra.story.context import WAIT_SECONDS, Context, Json, StepFailed, check_sum, moment, require, shown
from infra.story.customers import read_assignments, read_message, there_already

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
    notices, purposes, consents = (plan[name] for name in ("notices", "purposes", "consents"))
    for notice in notices:
        text = {"language": notice["language"], "body": notice["wording"]}
        version = {"effective_time": notice["effective_time"], "texts": [text]}
        made = read_message({"display_name": notice["notice_id"], "versions": [version]}, Notice)
        with there_already():
            story.steward.consent.create_notice(notice=made, notice_id=notice["notice_id"])
    for purpose in purposes:
        with there_already():
            story.steward.consent.create_purpose(purpose=_purpose(purpose), purpose_id=purpose["purpose_id"])
    counts = _record(story, consents)
    told = ", ".join(f"{state} {shown(count)}" for state, count in sorted(counts.items()))
    return [
        f"{len(notices)} notices, {len(purposes)} purposes",
        f"answers of customers: {told}, none {shown(plan['without_consent'])}",
    ]


def _purpose(purpose: Json) -> Purpose:
    channels = purpose["channels"]
    return Purpose(
        display_name=purpose["display_name"],
        legal_basis="LEGAL_BASIS_CONSENT",
        data_categories=purpose["data_categories"],
        channels=CHANNELS if channels == ["any"] else channels,
        retention_days=purpose["retention_days"],
        notice_id=f"{purpose['purpose_id']}-zh",
    )


def _record(story: Context, consents: list[Json]) -> Counter[str]:
    """Record the answers in batches, a withdrawal after the grant it withdraws; return how many of each state."""
    assignments = read_assignments(story)
    requests = [request for consent in consents for request in _requests(consent, assignments)]
    counts: Counter[str] = Counter()
    for start in range(0, len(requests), BATCH):
        story.progress(start / len(requests), f"{shown(start)}/{shown(len(requests))} answers")
        batch = [request for _, request in requests[start : start + BATCH]]
        reply = story.steward.consent.batch_record_consents(requests=batch)
        for (state, _), result in zip(requests[start : start + BATCH], reply.results, strict=True):
            counts[f"refused {result.reason}" if result.reason else state] += 1
    refused = ", ".join(f"{state} {shown(count)}" for state, count in counts.items() if state.startswith("refused"))
    require(not refused, f"{refused} of {shown(len(requests))} answers")
    counts["granted"] -= counts["revoked"]  # who withdrew had granted before
    return counts


def _requests(consent: Json, assignments: dict[tuple[str, str], str]) -> Iterator[tuple[str, RecordConsentRequest]]:
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
    for said, answer_time in steps:
        record = {**common, "state": f"CONSENT_STATE_{said.upper()}", "answer_time": answer_time}
        request = {"profile_id": profile_id, "consent": record, "request_id": f"{key}-{said}"[:64]}
        yield said, read_message(request, RecordConsentRequest)


def preview_segment(story: Context) -> list[str]:
    """Define a segment by a rule of five conditions, and see who is in."""
    body = {"display_name": "常客 regulars", "rule": RULE, "description": "bought often and lately, grown up"}
    marketing = story.marketer.marketing
    segment = marketing.create_segment(segment=read_message(body, Segment), request_id="sample-segment")
    segment_id = segment.name.removeprefix("segments/")
    story.kept["segment_id"] = segment_id
    seen = marketing.preview_segment(segment_id=segment_id)
    require(seen.total, "nobody is in the segment: nobody could be written to")
    return [f"{segment.display_name}: {shown(seen.total)} customers, data up to {moment(seen.data_cutoff)}"]


def run_campaign(story: Context) -> list[str]:
    """Write to the segment: who agreed gets a mail, everybody else is skipped for a reason."""
    title = "秋季会员优惠"
    report = _run(story, "autumn", title)
    told = _told(story, report)
    sent, arrived = report.sent, sum(mail.subject == title for mail in read_mailbox(_mailbox(story)))
    require(0 < sent <= arrived, f"{shown(sent)} mails were sent and {shown(arrived)} arrived; see logs/smtp.log")
    story.kept["first_sent"] = sent
    return told


def _mailbox(story: Context) -> Path:
    return story.folder / "mailbox"


def _run(story: Context, key: str, title: str) -> CampaignReport:
    body = {
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
    marketing = story.marketer.marketing
    made = marketing.create_campaign(campaign=read_message(body, Campaign), request_id=f"sample-campaign-{key}")
    campaign_id = made.name.removeprefix("campaigns/")
    operation = marketing.run_campaign(campaign_id=campaign_id, request_id=f"sample-run-{key}")

    def progress(metadata: CampaignReport) -> None:
        del metadata  # the report has the figures of every state
        seen = marketing.get_campaign_report(campaign_id=campaign_id)
        settled = seen.sent + seen.skipped
        story.progress(settled / max(1, seen.audience), f"{shown(settled)}/{shown(seen.audience)}")

    operation.wait(WAIT_SECONDS, progress)
    return marketing.get_campaign_report(campaign_id=campaign_id)


def _told(story: Context, report: CampaignReport) -> list[str]:
    parts = {name: getattr(report, name) for name in ("sent", "skipped", "failed", "unknown", "pending")}
    figures = check_sum(parts, report.audience)
    require(not parts["pending"], f"the run has ended, but {shown(parts['pending'])} are still pending")
    reasons = {_reason(row): row.count for row in report.skips}
    check_sum(reasons, parts["skipped"])
    why = ", ".join(f"{reason} {shown(count)}" for reason, count in reasons.items()) or "none"
    mails = sum(1 for _ in _mailbox(story).glob("*.eml"))
    return [
        f"audience {shown(report.audience)} = {figures}: adds up",
        f"skipped: {why}",
        f"{shown(mails)} mails in the mailbox",
    ]


def _reason(row: SkipCount) -> str:
    reason = SkipReason.Name(row.reason).removeprefix("SKIP_REASON_")
    return f"{reason} ({row.detail})" if row.detail else reason


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
    fewer = story.kept["first_sent"] - report.sent
    same = [other for other in read_mailbox(_mailbox(story)) if other.recipient == mail.recipient]
    require(all(other.subject != title for other in same), "who had unsubscribed was written to again")
    again = len(same)
    return [f"one click on one mail's link; mails to that address: {again}; sent {fewer} fewer", *_told(story, report)]
