"""The OpenAPI document against the running stack, by schemathesis: each bound of each operation, kept and broken.

`KEHU_SCHEMA_PHASES=coverage,fuzzing,stateful` adds random requests and sequences of them, `KEHU_SCHEMA_EXAMPLES` for
each operation (100 unless told).
"""

from __future__ import annotations

import os
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.flows.conftest import ROOT, LiveStack, a_stack
from tests.flows.people import customers
from tests.flows.raw import Raw

pytestmark = [pytest.mark.flow, pytest.mark.slow]
WHO_TESTS = {
    "access": "administrator",
    "profiles": "steward",
    "consent": "steward",
    "search": "steward",
    "analytics": "analyst",
    "marketing": "marketer",
    "tickets": "agent",
    "webhooks": "administrator",
}
REPLACED = "positive_data_acceptance,negative_data_rejection"  # by the two checks of tests/fuzz/schema_hooks.py
PHASES = os.environ.get("KEHU_SCHEMA_PHASES", "coverage")
EXAMPLES = os.environ.get("KEHU_SCHEMA_EXAMPLES", "100")
SECONDS = 900 if PHASES == "coverage" else 3600


@pytest.fixture(scope="module")
def own_stack(tmp_path_factory: pytest.TempPathFactory) -> Iterator[LiveStack]:
    """A stack that may be filled with nonsense, with customers to begin with."""
    with a_stack(tmp_path_factory.mktemp("document")) as running:
        some_customers(running)
        yield running


def some_customers(stack: LiveStack) -> None:
    """Register two sources with some customers in common, and one question to a steward."""
    for source in ("till", "shop"):
        body = {"display_name": source, "owner_department": "sales", "trust_rank": 1, "mapping": []}
        stack.steward.post("/v1/sources", body, source_id=source)
        records = [
            {"source_record_id": p.card, "fields": {"name": p.name, "phone": p.phone, "birth_date": p.born}}
            for p in customers(10, 0 if source == "till" else 5)
        ]
        records.append({"source_record_id": "Q", "fields": {"name": f"王{source}", "phone": "13912345671"}})
        stack.steward.post(f"/v1/sources/{source}/records:batchUpsert", {"records": records})


@pytest.mark.timeout(SECONDS + 60)
@pytest.mark.parametrize("service", WHO_TESTS)
def test_the_gateway_does_what_its_document_says(own_stack: LiveStack, service: str, tmp_path: Path) -> None:
    purpose = client_of(own_stack, service).headers()["X-Purpose"]
    argv = [str(Path(sys.executable).with_name("st")), "run", f"{own_stack.running.url}/openapi.json"]
    argv += ["--include-tag", service, "--phases", PHASES, "-n", EXAMPLES]
    argv += ["--checks", "all", "--exclude-checks", REPLACED]
    argv += ["--continue-on-failure", "--suppress-health-check", "all", "--rate-limit", "400/s", "--no-color"]
    argv += ["-H", f"X-Purpose: {purpose}"]
    environment = {**os.environ, "SCHEMATHESIS_HOOKS": "tests.fuzz.schema_hooks", "PYTHONPATH": str(ROOT)}
    environment |= {"KEHU_SCHEMA_STACK": str(own_stack.folder), "KEHU_SCHEMA_SERVICE": service}
    ended = subprocess.run(argv, cwd=tmp_path, env=environment, capture_output=True, text=True, timeout=SECONDS)

    assert ended.returncode == 0, told(ended.stdout) + ended.stderr[-2000:]
    assert not re.search(r"\b0 generated", ended.stdout)


def told(output: str) -> str:
    """Return what failed, and the sums."""
    failures = output.partition("= FAILURES =")[2].partition("= WARNINGS =")[0]
    lines = [line[:500] for line in failures.splitlines() if line.strip()]
    return "\n".join(lines)[:20_000] + output[-1500:]


def client_of(stack: LiveStack, service: str) -> Raw:
    """Return whom a service is tested as."""
    role = WHO_TESTS[service]
    if role == "agent":
        return stack.sign_ins.department("service", "service")
    found: Raw = getattr(stack, role)
    return found
