"""A data owner's way as docs/quality.md tells it, from an incident to verified, on a running stack."""

from __future__ import annotations

import httpx
import pytest
from kehu.client import KehuProblem

from tests.flows.raw import entries

pytestmark = [pytest.mark.flow, pytest.mark.timeout(240)]
COLUMNS = [("编号", "source_record_id"), ("姓名", "name"), ("手机", "phone"), ("邮箱", "email")]
PEOPLE = ["赵建国", "钱秀英", "孙子涵", "李浩然", "周雨桐", "吴志强", "郑美玲", "王文博", "冯晓燕", "陈国庆"]


def rows(broken: int) -> bytes:
    """Return a file of ten people, the e-mail of the first ones unreadable."""
    lines = [",".join(column for column, _ in COLUMNS)]
    for number, name in enumerate(PEOPLE):
        email = "nobody" if number < broken else f"q{number}@example.cn"
        lines.append(f"Q-{number},{name},1370000{4401 + number * 37},{email}")
    return ("\n".join(lines) + "\n").encode()


def test_a_data_owner_closes_an_incident(stack, tmp_path):
    steward = stack.steward
    mapping = [{"column": column, "field": field} for column, field in COLUMNS]
    body = {"display_name": "问卷", "owner_department": "marketing", "mapping": mapping}
    steward.post("/v1/sources", body, source_id="survey")
    rule = {"dimension": "QUALITY_DIMENSION_VALIDITY", "field": "email", "threshold": 0.95, "source": "sources/survey",
            "severity": "SEVERITY_HIGH", "due_days": 3}  # fmt: skip
    steward.post("/v1/qualityRules", rule, quality_rule_id="survey_email")

    def take(broken: int) -> None:
        file = tmp_path / f"survey-{broken}.csv"
        file.write_bytes(rows(broken))
        steward.wait_operation(steward.upload("/v1/sources/survey:import", file, format="csv"))

    take(4)
    done = steward.wait_operation(steward.post("/v1/qualityReports:measure", {}))
    assert int(done["incidents_found"]) >= 1

    owner = stack.marketer
    found = entries(owner.get("/v1/qualityIncidents", state="STATE_FOUND"), "quality_incidents")
    (incident,) = [item for item in found if item["rule"] == "qualityRules/survey_email"]
    assert (incident["department"], int(incident["measured"]), int(incident["passed"])) == ("marketing", 10, 6)
    name = incident["name"]
    shown = owner.get(f"/v1/{name}")
    samples = entries(shown, "samples")
    assert sorted(item["source_record"]["source_record_id"] for item in samples) == ["Q-0", "Q-1", "Q-2", "Q-3"]
    assert {item["record"]["display_name"] for item in samples} == {f"{person[0]}**" for person in PEOPLE[:4]}
    assert all(item["fails_now"] for item in samples)
    causes = entries(shown["occurrences"][0], "causes")
    assert {"FACTOR_REASON"} <= {item["factor"] for item in causes}
    seller = stack.sign_ins.department("sales", "sales")
    with pytest.raises(KehuProblem) as refused:
        seller.get(f"/v1/{name}")
    assert refused.value.status == 404
    assert not entries(seller.get("/v1/qualityIncidents"), "quality_incidents")

    taken = owner.post(f"/v1/{name}:acknowledge", {"note": "the survey asks for e-mails again"})
    assert taken["state"] == "STATE_FIXING"
    take(0)
    assert owner.get(f"/v1/{name}")["state"] == "STATE_FIXING"
    measured = owner.wait_operation(owner.post(f"/v1/{name}:remeasure", {}))
    assert (measured["department"], int(measured["incidents_verified"])) == ("marketing", 1)
    assert owner.get(f"/v1/{name}")["state"] == "STATE_VERIFIED"

    report = owner.get("/v1/qualityReports/latest")
    assert report["departments"] == ["marketing"]
    (answered,) = [item for item in report["responses"] if item["dimension"] == "QUALITY_DIMENSION_VALIDITY"]
    assert answered["verify_seconds"] > 0 and answered["acknowledge_seconds"] > 0
    page = httpx.get(f"{stack.running.url}/v1/{report['name']}/page", headers=owner.headers(), trust_env=False)
    assert page.headers["content-type"] == "text/html; charset=utf-8"
    assert "数据质量报告" in page.text and not [person for person in PEOPLE if person in page.text]
