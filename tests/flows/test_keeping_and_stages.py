"""What docs/lifecycle.md and docs/retention.md tell, as calls through the gateway of a running stack."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import pytest
from kehu.client import KehuProblem

from infra.processes import wait_until
from tests.flows.raw import entries

pytestmark = [pytest.mark.flow, pytest.mark.timeout(600)]
STAGED_SECONDS = 180  # the flows before it have left thousands of profiles, which are given theirs in the same pages
LI = {"name": "李思远", "phone": "13512349871", "email": "lisiyuan@example.cn", "birth_date": "1979-03-02"}
HAN = {"name": "韩雪梅", "phone": "13512340012", "email": "hanxuemei@example.cn", "birth_date": "1991-11-23"}


def text(moment: datetime) -> str:
    return moment.isoformat().replace("+00:00", "Z")


def take(client, record_id: str, fields: dict[str, str], updated: datetime) -> str:
    record = {"source_record_id": record_id, "fields": fields, "update_time": text(updated)}
    return client.post("/v1/sources/club/records:batchUpsert", {"records": [record]})["results"][0]["profile"]


def test_purchases_give_stages_and_are_kept_as_long_as_a_rule_says(stack):
    steward, now = stack.steward, datetime.now(UTC)
    steward.post("/v1/sources", {"display_name": "club", "owner_department": "sales", "mapping": []}, source_id="club")
    old = now - timedelta(days=2500)
    li, han = take(steward, "C-1", LI, old), take(steward, "C-2", HAN, now)
    unstaged = datetime.now(UTC)

    def buy(profile: str, message_id: str, moment: datetime) -> None:
        one = {"profile": profile, "message_id": message_id, "event_type": "order_completed", "amount_cents": "9900",
               "event_time": text(moment)}  # fmt: skip
        steward.post("/v1/interactions:batchCreate", {"interactions": [one]})

    def bought(profile: str) -> list[str]:
        return sorted(
            item["message_id"] for item in entries(steward.get(f"/v1/{profile}/interactions"), "interactions")
        )

    def stages() -> list[str]:
        return [steward.get(f"/v1/{name}").get("stage", "") for name in (li, han)]

    def scored() -> bool:
        """Compute all scores; say whether both have one, for how many there are is not told of fewer than five."""
        steward.wait_operation(steward.post("/v1/scores:compute", {}))
        try:
            return all(steward.get(f"/v1/{name}/scores") for name in (li, han))
        except KehuProblem as problem:
            assert problem.status == 404, problem
            return False

    buy(li, "c-1-old", old)
    buy(li, "c-1-late", now - timedelta(days=200))
    buy(han, "c-2-old", old)
    buy(han, "c-2-now", now - timedelta(days=1))
    assert wait_until(lambda: len(bought(li) + bought(han)) == 4, 30, 0.5)

    # lifecycle.md
    rules = steward.get("/v1/lifecycles/default")
    assert [item["stage"] for item in rules["stages"]] == ["new", "loyal", "active", "dormant", "churned"]
    with pytest.raises(KehuProblem) as refused:
        steward.post("/v1/lifecycles/default:activate", {"revision": 1})
    assert refused.value.reason == "RULE_NOT_TRIED"
    assert wait_until(scored, 60, 1.0), "the lake knows both profiles"
    effect = steward.wait_operation(steward.post("/v1/lifecycles/default:preview", {}))
    moves = {item["to_stage"]: int(item["profile_count"]) for item in effect["moves"]}
    assert moves.keys() >= {"dormant"} and sum(moves.values()) <= int(effect["profiles_read"])
    assert stages() == ["", ""]
    steward.post("/v1/lifecycles/default:activate", {"revision": 1})
    assert wait_until(lambda: all(stages()), STAGED_SECONDS, 0.5)
    assert stages()[0] == "dormant" and stages()[1] in ("active", "loyal")
    buy(li, "c-1-now", now - timedelta(hours=1))
    assert wait_until(lambda: "c-1-now" in bought(li), 30, 0.5)
    steward.wait_operation(steward.post("/v1/scores:compute", {}))
    assert wait_until(lambda: stages()[0] in ("active", "loyal"), STAGED_SECONDS, 0.5), "they follow the scores"
    assert steward.get(f"/v1/{li}/history", page_size=1)["revisions"][0]["kind"] == "KIND_STAGED"
    assert "stage" not in steward.get(f"/v1/{li}", as_of=text(unstaged))

    assert take(steward, "C-3", HAN, now) == han
    split = {"source_records": [{"source": "sources/club", "source_record_id": "C-3"}], "reason": "her daughter"}
    daughter = steward.post(f"/v1/{han}:unmerge", split)["new_profile"]["name"]
    assert wait_until(lambda: steward.get(f"/v1/{daughter}").get("stage"), STAGED_SECONDS, 0.5), "they follow a split"
    assert steward.get(f"/v1/{daughter}")["stage"] == "potential" and stages()[1] in ("active", "loyal")

    # retention.md, the lake
    rule = {"display_name": "交易记录保存五年", "record_type": "RECORD_TYPE_INTERACTIONS", "days": 1825,
            "action": "ACTION_DELETE", "basis": "电子商务法 第三十一条；会员协议 第8条"}  # fmt: skip
    steward.post("/v1/retentionRules", rule, retention_rule_id="purchases")
    tried = steward.wait_operation(
        steward.post("/v1/retention:run", {"rule": "retentionRules/purchases", "dry_run": True})
    )
    (count,) = tried["counts"]
    assert (count["due_count"], count["samples"]) == ("1", [f"interactions/{old:%Y-%m}"])
    steward.post("/v1/retentionRules/purchases:activate", {"revision": 1})
    hold = steward.post("/v1/legalHolds", {"profile": han, "reason": "(2026) 沪01民初123号"})
    run = steward.wait_operation(steward.post("/v1/retention:run", {"expected_count": 1}))
    assert (run["counts"][0]["done_count"], run["counts"][0]["held_count"]) == ("1", "1")
    assert (bought(li), bought(han)) == (["c-1-late", "c-1-now"], ["c-2-now", "c-2-old"])
    steward.post(f"/v1/{hold['name']}:release", {})
    run = steward.wait_operation(steward.post("/v1/retention:run", {}))
    assert bought(han) == ["c-2-now"]
    item = f"interactions/{old:%Y-%m}"
    assert steward.get(f"/v1/{run['receipt']}:prove", item=item)["item_count"] == "1"
    receipts = entries(steward.get("/v1/retentionReceipts"), "retention_receipts")
    assert [item["is_genuine"] for item in receipts] == [True, True]

    # retention.md, a record; lifecycle.md, who has none left
    rule = {"display_name": "五年未更新", "record_type": "RECORD_TYPE_SOURCE_RECORDS", "source": "sources/club",
            "days": 1825, "action": "ACTION_DELETE", "basis": "个人信息保护法 第十九条、第四十七条"}  # fmt: skip
    steward.post("/v1/retentionRules", rule, retention_rule_id="stale_members")
    steward.wait_operation(steward.post("/v1/retention:run", {"rule": "retentionRules/stale_members", "dry_run": True}))
    steward.post("/v1/retentionRules/stale_members:activate", {"revision": 1})
    run = steward.wait_operation(steward.post("/v1/retention:run", {"rule": "retentionRules/stale_members"}))
    assert run["counts"][0]["done_count"] == "1"
    gone = steward.get(f"/v1/{li}")
    assert "stage" not in gone and not gone.get("display_name")
    # the stages of all, told at once, may stand before it in the queue
    assert wait_until(
        lambda: li not in stack.found(LI["phone"]) and han in stack.found(HAN["phone"]), STAGED_SECONDS, 0.5
    )
    item = "sources/club/records/C-1"
    assert steward.get(f"/v1/{run['receipt']}:prove", item=item)["item_count"] == "1"
