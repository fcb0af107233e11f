"""The story's last part: a complaint with its clock, the customer found, the audit trail verified."""

from __future__ import annotations

import time

from kehu.profiles.v1.resources_pb2 import Profile

from infra.story.context import Context, moment, require, shown
from infra.story.customers import read_assignments

SEEN_SECONDS = 60.0  # the index follows the events; on a busy machine it lags
WORK_DAY = ({"start_minute": 540, "end_minute": 720}, {"start_minute": 810, "end_minute": 1080})


def open_complaint(story: Context) -> list[str]:
    """Open a complaint of one customer and tell when an answer and a solution are due."""
    agent = story.as_department("service", "service").tickets
    days = [{"weekday": day, "blocks": list(WORK_DAY)} for day in range(1, 6)]
    calendar = {"time_zone": "Asia/Shanghai", "chinese_holidays": True, "days": days}
    targets = [{"priority": "PRIORITY_HIGH", "first_response_minutes": 60, "resolution_minutes": 960}]
    policy = {
        "display_name": "投诉",
        "rank": 1,
        "kinds": ["TICKET_KIND_COMPLAINT"],
        "targets": targets,
        "calendar": calendar,
    }
    agent.create_sla_policy(sla_policy=policy, request_id="sample-sla")
    ticket = {
        "kind": "TICKET_KIND_COMPLAINT",
        "priority": "PRIORITY_HIGH",
        "channel": "CHANNEL_PHONE",
        "subject": "生鲜商品变质",
        "description": "顾客反映昨天购买的牛奶已变质，要求退款并说明原因。",
        "profile": f"profiles/{_customer(story)}",
    }
    opened = agent.create_ticket(ticket=ticket, request_id="sample-complaint")
    first, whole_time = opened.sla.first_response, opened.sla.resolution
    return [
        f"{opened.number} for {opened.profile}",
        f"answer due {moment(first.due_time)} ({first.minutes} business minutes), "
        f"solution due {moment(whole_time.due_time)} ({whole_time.minutes})",
    ]


def _customer(story: Context) -> str:
    """Return the profile that the story follows: of the first card whose holder left a name and a phone."""
    assignments = read_assignments(story)
    for key in sorted(assignments):
        if "customer" not in story.kept and key[0] == "till":
            known = story.steward.profiles.get_profile(name=f"profiles/{assignments[key]}")
            if known.display_name and known.phones:
                story.kept["customer"] = assignments[key]
    require("customer" in story.kept, "no customer of the till has a name and a phone")
    return str(story.kept["customer"])


def find_customer(story: Context) -> list[str]:
    """Find one customer by name, pinyin and last digits; compare what three callers are shown."""
    from pypinyin import lazy_pinyin  # its word list takes 50 MB: only now

    profile = f"profiles/{_customer(story)}"
    known = story.steward.profiles.get_profile(name=profile)
    name, phone = known.display_name, _phone(known)
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
        found = story.steward.search.search(q=query, types=["profiles"], page_size=100).first
        if any(hit.name == profile for hit in found.hits):
            return True
        time.sleep(0.5)
    return False


def _seen(story: Context, department: str, purpose: str, profile: str) -> str:
    known = story.as_department(department, purpose).profiles.get_profile(name=profile)
    return f"{known.display_name or 'name hidden'}, {_phone(known) or 'phone hidden'}"


def _phone(profile: Profile) -> str:
    return next(iter(profile.phones), "")


def verify_audit(story: Context) -> list[str]:
    """Have the whole hash chain of the audit trail checked."""
    found = story.sign_ins.administrator().access.verify_audit_entries()
    require(found.intact, f"the audit trail is broken at block {found.first_bad_block}: {found.fault}")
    return [f"{shown(found.entries)} entries in {shown(found.blocks)} blocks, intact; head {found.head_hash[:16]}…"]
