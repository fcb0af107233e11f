"""What the story records besides customers: purposes, notices and each household's consent, as one JSON plan."""

import json
from collections.abc import Mapping
from datetime import date, datetime, timedelta, timezone
from random import Random

from infra.sample.journey import read_table

_ZONE = timezone(timedelta(hours=8))
PURPOSES = (
    {
        "purpose_id": "marketing",
        "display_name": "营销推广",
        "legal_basis": "consent",
        "data_categories": ["name", "contact", "behaviour"],
        "channels": ["email", "sms"],
        "retention_days": 1096,
        "needs_separate_consent": False,
    },
    {
        "purpose_id": "analysis",
        "display_name": "消费分析",
        "legal_basis": "consent",
        "data_categories": ["behaviour"],
        "channels": ["any"],
        "retention_days": 1826,
        "needs_separate_consent": False,
    },
)
NOTICES = (
    {
        "notice_id": "marketing-zh",
        "purpose_id": "marketing",
        "language": "zh-CN",
        "wording": "我同意贵公司使用我的姓名、联系方式和购买记录，通过所选渠道向我发送优惠信息。我可以随时撤回同意。",
    },
    {
        "notice_id": "analysis-zh",
        "purpose_id": "analysis",
        "language": "zh-CN",
        "wording": "我同意贵公司分析我的购买记录，以改进商品和服务。我可以随时撤回同意。",
    },
)
_STATES = ("granted", "denied", "revoked", "none")
_SHARES = {"redeemed": (88, 2, 6, 4), "addressed": (68, 8, 9, 15), "other": (34, 16, 6, 44)}


def make_plan(cards: Mapping[int, tuple[str, str]], seed: int, reference_date: date) -> str:
    """Return the plan as JSON: purposes, notices, campaigns, and consent per household card and channel.

    Who was addressed by the real campaigns, and more so who redeemed a coupon, is likelier to have agreed.
    """
    addressed = set(read_table("campaigns", ["household_id"])["household_id"].to_pylist())
    redeemed = set(read_table("coupon_redemptions", ["household_id"])["household_id"].to_pylist())
    consents = []
    for household, (card, _) in sorted(cards.items()):
        group = "redeemed" if household in redeemed else "addressed" if household in addressed else "other"
        random = Random(f"{seed}/consent/{household}")
        for purpose_id, channel in (("marketing", "email"), ("marketing", "sms"), ("analysis", "any")):
            consents.append(_consent(card, purpose_id, channel, _SHARES[group], random, reference_date))
    written = {
        "reference_date": reference_date.isoformat(),
        "purposes": PURPOSES,
        "notices": [
            {**notice, "effective_time": _instant(reference_date - timedelta(days=800), 0)} for notice in NOTICES
        ],
        "campaigns": _campaigns(),
        "consents": [consent for consent in consents if consent["state"] != "none"],
        "without_consent": sum(consent["state"] == "none" for consent in consents),
    }
    return json.dumps(written, ensure_ascii=False, indent=1) + "\n"


def _consent(
    card: str, purpose_id: str, channel: str, shares: tuple[int, ...], random: Random, reference_date: date
) -> dict[str, str]:
    state = random.choices(_STATES, shares)[0]
    answered = reference_date - timedelta(days=random.randrange(60, 700))
    revoked = reference_date - timedelta(days=random.randrange(2, 60))
    return {
        "source_id": "till",
        "source_record_id": card,
        "purpose_id": purpose_id,
        "channel": channel,
        "state": state,
        "notice_id": f"{purpose_id}-zh",
        "answer_time": _instant(answered, random.randrange(36_000)),
        "revoke_time": _instant(revoked, random.randrange(36_000)) if state == "revoked" else "",
        "evidence": random.choice(("paper-form", "web-form", "till-display")),
    }


def _instant(day: date, seconds: int) -> str:
    return (datetime(day.year, day.month, day.day, 9, tzinfo=_ZONE) + timedelta(seconds=seconds)).isoformat()


def _campaigns() -> list[dict[str, object]]:
    """Return the grocer's campaigns with how many households each addressed."""
    counts: dict[int, int] = {}
    for campaign in read_table("campaigns", ["campaign_id"])["campaign_id"].to_pylist():
        counts[campaign] = counts.get(campaign, 0) + 1
    table = read_table("campaign_descriptions", ["campaign_id", "campaign_type"]).to_pylist()
    return [
        {
            "campaign": f"C{row['campaign_id']:02d}",
            "type": row["campaign_type"],
            "households": counts[row["campaign_id"]],
        }
        for row in sorted(table, key=lambda row: row["campaign_id"])
    ]
