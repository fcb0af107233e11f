"""The story's last part: a complaint with its clock, the customer found, the audit trail verified."""

from __future__ import annotations

import time

from gateway.client import Json, entries
from infra.story.context import Context, message, require, shown
from infra.story.customers import read_assignments

SEEN_SECONDS = 60.0  # the index follows the events; on a busy machine it lags
WORK_DAY = ({"start_minute": 540, "end_minute": 720}, {"start_minute": 810, "end_minute": 1080})


def open_complaint(story: Context) -> list[str]:
    """Open a complaint of one customer and tell when an answer and a solution are due."""
    agent = story.as_department("service", "service")
    days = [{"weekday": day, "blocks": list(WORK_DAY)} for day in range(1, 6)]
    calendar = {"time_zone": "Asia/Shanghai", "chinese_holidays": True, "days": days}
    targets = [{"priority": "PRIORITY_HIGH", "first_response_minutes": 60, "resolution_minutes": 960}]
    policy: Json = {
        "display_name": "投诉",
        "rank": 1,
        "kinds": ["TICKET_KIND_COMPLAINT"],
        "targets": targets,
        "calendar": calendar,
    }
    agent.post("/v1/slaPolicies", policy, key="sample-sla")
    ticket: Json = {
        "kind": "TICKET_KIND_COMPLAINT",
        "priority": "PRIORITY_HIGH",
        "channel": "CHANNEL_PHONE",
        "subject": "生鲜商品变质",
        "description": "顾客反映昨天购买的牛奶已变质，要求退款并说明原因。",
        "profile": f"profiles/{_customer(story)}",
    }
    opened = agent.post("/v1/tickets", ticket, key="sample-complaint")
    sla = message(opened, "sla")
    first, whole_time = message(sla, "first_response"), message(sla, "resolution")
    return [
        f"{opened['number']} for {ticket['profile']}",
        f"answer due {first['due_time']} ({first['minutes']} business minutes), "
        f"solution due {whole_time['due_time']} ({whole_time['minutes']})",
    ]


def _customer(story: Context) -> str:
    """Return the profile that the story follows: of the first card whose holder left a name and a phone."""
    assignments = read_assignments(story)
    for key in sorted(assignments):
        if "customer" not in story.kept and key[0] == "till":
            known = story.steward.get(f"/v1/profiles/{assignments[key]}")
            if known.get("display_name") and known.get("phones"):
                story.kept["customer"] = assignments[key]
    require("customer" in story.kept, "no customer of the till has a name and a phone")
    return str(story.kept["customer"])


def find_customer(story: Context) -> list[str]:
    """Find one customer by name, pinyin and last digits; compare what three callers are shown."""
    from pypinyin import lazy_pinyin  # its word list takes 50 MB: only now

    profile = f"profiles/{_customer(story)}"
    known = story.steward.get(f"/v1/{profile}")
    name, phone = str(known.get("display_name", "")), _phone(known)
    queries = {"name": name, "pinyin": "".join(lazy_pinyin(name)), "last four digits": phone[-4:]}
    lines: list[str] = []
    for kind, query in queries.items():
        story.progress(len(lines) / 3, kind)
        missed = f"the customer was not found by {kind} in {SEEN_SECONDS:.0f} s; see logs/consume.log, logs/search.log"
        require(is_found(story, query, profile), missed)
        lines.append(f"by {kind}: found")
    callers = (("marketing", "marketing"), ("data-office", "stewardship"), ("data-office", ""))
    for department, purpose in callers:
        lines.append(f"{department}, {purpose or 'no purpose'}: {_seen(story, department, purpose, profile)}")
    return lines


def is_found(story: Context, query: str, profile: str) -> bool:
    """Search until the profile is found, as long as the index may lag."""
    deadline = time.monotonic() + SEEN_SECONDS
    while time.monotonic() < deadline:
        found = story.steward.post("/v1/search", {"q": query, "types": ["profiles"], "page_size": 100})
        if any(hit["name"] == profile for hit in entries(found, "hits")):
            return True
        time.sleep(0.5)
    return False


def _seen(story: Context, department: str, purpose: str, profile: str) -> str:
    document = story.as_department(department, purpose).get(f"/v1/{profile}")
    return f"{document.get('display_name') or 'name hidden'}, {_phone(document) or 'phone hidden'}"


def _phone(profile: Json) -> str:
    phones = profile.get("phones")
    return str(phones[0]) if isinstance(phones, list) and phones else ""


def verify_audit(story: Context) -> list[str]:
    """Have the whole hash chain of the audit trail checked."""
    found = story.sign_ins.administrator().get("/v1/auditEntries:verify")
    broken = f"the audit trail is broken at block {found.get('first_bad_block')}: {found.get('fault')}"
    require(found.get("intact"), broken)
    head = str(found["head_hash"])[:16]
    return [f"{shown(found.get('entries'))} entries in {shown(found.get('blocks'))} blocks, intact; head {head}…"]
