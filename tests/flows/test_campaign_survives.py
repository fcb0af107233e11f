"""Whatever is killed while a campaign runs: nobody gets two mails, the figures add up, the run ends by itself."""

from __future__ import annotations

from collections import Counter
from datetime import UTC, datetime, timedelta

import pytest

from infra.processes import wait_until
from infra.smtp_sink import read_mailbox
from tests.flows.people import customers, upsert
from tests.flows.raw import Json, whole

pytestmark = [pytest.mark.flow, pytest.mark.timeout(900)]
COUNT = 400
PARTS = ("sent", "skipped", "failed", "unknown", "pending")


@pytest.fixture(scope="module")
def segment(stack, till) -> str:
    """The id of a segment of people of its own, of whom every other one agreed; all of them are in the lake."""
    people = upsert(till, customers(COUNT, 100_000))
    before = (datetime.now(UTC) - timedelta(days=30)).isoformat()
    version = {"effective_time": before, "texts": [{"language": "zh-CN", "body": "我同意接收优惠信息。"}]}
    till.post("/v1/notices", {"display_name": "flows", "versions": [version]}, notice_id="flows-zh")
    purpose = {
        "display_name": "flows",
        "legal_basis": "LEGAL_BASIS_CONSENT",
        "data_categories": ["contact"],
        "channels": ["email"],
        "retention_days": 365,
        "notice_id": "flows-zh",
    }
    till.post("/v1/purposes", purpose, purpose_id="flows")
    record = {
        "purpose_id": "flows",
        "channel": "email",
        "state": "CONSENT_STATE_GRANTED",
        "notice_version": 1,
        "language": "zh-CN",
        "shown_time": (datetime.now(UTC) - timedelta(days=2)).isoformat(),
        "answer_time": (datetime.now(UTC) - timedelta(days=1)).isoformat(),
        "collected_via": "COLLECTED_VIA_WEB",
    }
    requests = [{"profile_id": profile_id, "consent": record} for profile_id in people[::2]]
    till.post("/v1/consents:batchRecord", {"requests": requests})
    asked = {"event_type": "asked", "event_time": datetime.now(UTC).isoformat()}
    interactions = [{"profile": f"profiles/{one}", "message_id": one, **asked} for one in people]
    stack.analyst.post("/v1/interactions:batchCreate", {"interactions": interactions})
    event = {"event_type": "asked", "measure": "MEASURE_COUNT", "operator": "OPERATOR_GE", "value": 1}
    made = stack.marketer.post("/v1/segments", {"display_name": "those asked", "rule": {"event": event}})

    def size() -> int:
        return whole(stack.marketer.post(f"/v1/{made['name']}:preview").get("total"))

    assert wait_until(lambda: size() == COUNT, 120, 1.0), size()
    return str(made["name"]).removeprefix("segments/")


def start(stack, segment: str, title: str) -> tuple[str, Json]:
    body = {
        "display_name": title,
        "segment_id": segment,
        "purpose_id": "flows",
        "channel": "email",
        "template": {"subject": title, "text": "{{display_name}} {{unsubscribe_url}}"},
        "frequency_cap": {"max_messages": 50, "window_days": 7},
        "quiet_hours": {"start": "00:00", "end": "00:00"},
    }
    name = str(stack.marketer.post("/v1/campaigns", body)["name"])
    return name, stack.marketer.post(f"/v1/{name}:run")


def mails(stack, title: str) -> Counter[str]:
    return Counter(mail.recipient for mail in read_mailbox(stack.folder / "mailbox") if mail.subject == title)


@pytest.mark.parametrize(
    "victim", ["work", "consent", "marketing", "mongo", "rabbitmq", "smtp", "analytics", "profiles"]
)
def test_a_process_may_be_killed_while_a_campaign_runs(whole_stack, segment, victim):
    name, operation = start(whole_stack, segment, f"killed {victim}")
    assert wait_until(lambda: len(mails(whole_stack, f"killed {victim}")) > 5, 60)
    whole_stack.kill(victim)
    whole_stack.marketer.wait_operation(operation)

    report = whole_stack.marketer.get(f"/v1/{name}/report")
    figures = {part: whole(report.get(part)) for part in PARTS}
    received = mails(whole_stack, f"killed {victim}")
    assert sum(figures.values()) == whole(report["audience"]) == COUNT
    assert figures["pending"] == 0
    assert set(received.values()) == {1}
    assert figures["sent"] <= len(received) <= figures["sent"] + figures["unknown"]
    assert figures["sent"] + figures["unknown"] + figures["failed"] == COUNT // 2


def test_a_run_pauses_while_consent_is_away_and_goes_on_by_itself(whole_stack, segment):
    frozen = whole_stack.freeze("consent")
    try:
        name, operation = start(whole_stack, segment, "paused")

        def pause_reason() -> str:
            return str(whole_stack.marketer.get(f"/v1/{name}/report").get("pause_reason", ""))

        assert wait_until(lambda: "CONSENT_UNAVAILABLE" in pause_reason(), 90, 0.5), pause_reason()
        assert mails(whole_stack, "paused") == {}
    finally:
        frozen.resume()

    whole_stack.marketer.wait_operation(operation)
    report = whole_stack.marketer.get(f"/v1/{name}/report")
    assert whole(report.get("sent")) == len(mails(whole_stack, "paused")) == COUNT // 2
