"""A steward's hour as docs/stewardship.md tells it: every call through the gateway of a running stack."""

from __future__ import annotations

from datetime import UTC, datetime

import pytest
from kehu.client import KehuProblem

from infra.processes import wait_until
from tests.flows.raw import entries

pytestmark = [pytest.mark.flow, pytest.mark.timeout(240)]
WANG = {"name": "王建国", "phone": "13912345671", "email": "wang@example.cn", "birth_date": "1980-05-06"}


def now() -> str:
    return datetime.now(UTC).isoformat().replace("+00:00", "Z")


def take(client, source: str, record_id: str, fields: dict, updated: str) -> str:
    body = {"records": [{"source_record_id": record_id, "fields": fields, "update_time": updated}]}
    return client.post(f"/v1/sources/{source}/records:batchUpsert", body)["results"][0]["profile"]


def first_phone(client, name: str, **parameters: str) -> str:
    return client.get(f"/v1/{name}", **parameters)["phones"][0]


def test_a_stewards_hour(stack, till):
    shop = {"display_name": "shop", "owner_department": "sales", "trust_rank": 50, "mapping": []}
    till.post("/v1/sources", shop, source_id="shop")
    name = take(till, "till", "H-1", WANG, "2025-01-01T00:00:00Z")
    assert take(till, "shop", "W-1", {**WANG, "phone": "13600001111"}, "2026-01-01T00:00:00Z") == name
    assert first_phone(till, name) == "+8613600001111"
    before = now()

    with pytest.raises(KehuProblem, match="second person"):
        till.patch("/v1/fields/phone", {"survivorship": "most_trusted"})
    body = {"field": "fields/phone", "field_definition": {"survivorship": "most_trusted"}, "reason": "tills know best"}
    change = till.post("/v1/fieldChanges", body)
    effect = till.wait_operation(till.post(f"/v1/{change['name']}:preview", {}))
    assert int(effect["values_changed"]) >= 1
    with pytest.raises(KehuProblem):
        till.post(f"/v1/{change['name']}:approve", {})
    approved = stack.administrator.post(f"/v1/{change['name']}:approve", {})
    done = stack.administrator.wait_operation({"name": approved["rederivation"]})
    assert int(done["profiles_changed"]) >= 1
    assert first_phone(till, name) == "+8613912345671"
    lineage = {item["field"]: item for item in reversed(till.get(f"/v1/{name}/lineage")["fields"])}
    assert (lineage["phone"]["rule"], lineage["phone"]["rule_version"]) == ("most_trusted", 1)

    body = {"field": "phone", "value": "137 0000 2222", "reason": "said so", "expire_time": "2999-01-01T00:00:00Z"}
    made = till.post(f"/v1/{name}/overrides", body)
    assert first_phone(till, name) == "+8613700002222"
    assert wait_until(lambda: name in stack.found("13700002222"), 30), "search follows the override"
    till.delete(f"/v1/{made['name']}")
    assert first_phone(till, name) == "+8613912345671"

    assert first_phone(till, name, as_of=before) == "+8613600001111"
    kinds = [item["kind"] for item in till.get(f"/v1/{name}/history", page_size=50)["revisions"]]
    assert kinds == ["KIND_OVERRIDE_ENDED", "KIND_OVERRIDDEN", "KIND_REDERIVED", "KIND_UPDATED", "KIND_CREATED"]

    other = take(till, "shop", "W-2", {"name": "王先生", "phone": "13912345671"}, "2026-02-01T00:00:00Z")
    assert other != name
    pair = till.post("/v1/matchCandidates:claimNext", {})["match_candidate"]
    assert {pair["profile"], pair["other_profile"]} == {name, other} and len(pair["profiles"]) == 2
    decided = till.post(f"/v1/{pair['name']}:confirm", {"reason": "same card at the counter"})
    assert (decided["state"], till.get(f"/v1/{other}")["name"]) == ("STATE_CONFIRMED", name)

    split = till.post(
        f"/v1/{name}:unmerge",
        {"source_records": [{"source": "sources/shop", "source_record_id": "W-2"}], "reason": "two cards"},
    )
    assert split["new_profile"]["display_name"].startswith("王")
    counted = till.post("/v1/matchCandidates:bulkDecide", {
        "rule": {"max_probability": 0.5}, "verdict": "STATE_REJECTED", "reason": "far apart",
    })  # fmt: skip
    assert int(counted.get("decided_count", 0)) == 0
    month = now()[:7]
    assert [item["match_candidate"] for item in entries(till.get("/v1/matchLabels", month=month), "match_labels")] == [
        pair["name"]
    ]
    (band,) = till.get(f"/v1/matchReports/{month}")["bands"]
    assert (band["band"], band["answered"]) == ("review", 1)
    with pytest.raises(KehuProblem):
        stack.marketer.post("/v1/matchCandidates:claimNext", {})
