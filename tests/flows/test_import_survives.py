"""Whatever is killed while a file is imported: every row is there afterwards, once, and is found."""

from __future__ import annotations

import pytest

from infra.processes import wait_until
from tests.flows.people import customers, profile_of, write_csv
from tests.flows.raw import whole

pytestmark = [pytest.mark.flow, pytest.mark.timeout(300)]
COUNT = 600
VICTIMS = ("work", "profiles", "mongo", "rabbitmq", "consume", "search", "analytics", "access", "gateway")


@pytest.mark.parametrize("victim", VICTIMS)
def test_a_process_may_be_killed_while_a_file_is_imported(whole_stack, till, tmp_path, victim):
    def known() -> int:
        return sum(1 for _ in till.items("/v1/profiles", "profiles", page_size=1000))

    def indexed() -> int:
        return whole(till.get("/v1/search", types="profiles", page_size=1).get("total_size"))

    before = known()
    people = customers(COUNT, 1_000 * VICTIMS.index(victim))
    operation = till.upload("/v1/sources/till:import", write_csv(tmp_path / "till.csv", people), format="csv")

    def is_under_way() -> bool:
        summary = till.get(f"/v1/{operation['name']}").get("metadata", {}).get("summary", {})
        return whole(summary.get("rows_read")) > 0

    assert wait_until(is_under_way, 60)
    whole_stack.kill(victim)
    summary = till.wait_operation(operation)["summary"]

    assert whole(summary.get("rows_read")) == COUNT
    assert whole(summary.get("rows_rejected")) == 0
    assert known() == before + COUNT
    assert len(profile_of(till, people[0])) == len(profile_of(till, people[-1])) == 1
    assert wait_until(lambda: indexed() == before + COUNT, 120, 0.5), f"{indexed()} of {before + COUNT} in the index"
