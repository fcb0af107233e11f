"""Whatever is killed while a file is imported: every row is there afterwards, once, and is found."""

from __future__ import annotations

import threading

import pytest

from infra.processes import wait_until
from infra.story.context import whole
from tests.flows.people import customers, profile_of, write_csv

pytestmark = [pytest.mark.flow, pytest.mark.timeout(900)]
COUNT = 2_000


def test_every_process_may_be_killed_while_a_file_is_imported(whole_stack, till, tmp_path):
    people = customers(COUNT, 0)
    file = write_csv(tmp_path / "till.csv", people)
    done = threading.Event()
    operation = till.upload("/v1/sources/till:import", file, format="csv")
    victims = ("work", "profiles", "mongo", "rabbitmq", "consume", "search", "analytics", "access", "gateway")
    killer = whole_stack.kill_in_turn(victims, done)

    response = till.finished(operation)
    done.set()
    killer.join(120)
    whole_stack.wait_whole()

    summary = response["summary"]
    assert isinstance(summary, dict)
    assert whole(summary.get("rows_read")) == COUNT
    assert whole(summary.get("rows_rejected")) == 0
    profiles = list(till.pages("/v1/profiles", "profiles"))
    assert len(profiles) == COUNT
    assert len(profile_of(till, people[0])) == len(profile_of(till, people[-1])) == 1

    def indexed() -> int:
        return whole(till.get("/v1/search", types="profiles", page_size=1).get("total_size"))

    assert wait_until(lambda: indexed() == COUNT, 120, 1.0), f"{indexed()} of {COUNT} in the index"
    names = whole_stack.found(people[-1].name)
    assert len(names) == len(set(names)) > 0
