"""Each promise of docs/security.md has a test that is there."""

from __future__ import annotations

import re
from pathlib import Path

ROOT = Path(__file__).parents[2]
NAMED = re.compile(r"`(tests/[a-z0-9_/]+\.py)::(test_\w+)`")


def test_every_test_that_a_promise_names_is_there() -> None:
    named = NAMED.findall((ROOT / "docs" / "security.md").read_text())
    gone = [f"{path}::{name}" for path, name in named if f"def {name}(" not in _text(ROOT / path)]

    assert len(named) > 40
    assert gone == []


def test_every_promise_names_a_test() -> None:
    rows = [line for line in (ROOT / "docs" / "security.md").read_text().splitlines() if line.startswith("| ")]
    promises = [row for row in rows if not row.startswith(("| promise", "| row"))]

    assert [row for row in promises if not NAMED.search(row)] == []


def test_every_target_of_access_and_of_the_api_names_its_test() -> None:
    lines = (ROOT / "docs" / "security.md").read_text().splitlines()
    rows = {int(found[1]): line for line in lines if (found := re.match(r"\| (\d+) \|", line))}

    assert sorted(rows) == [*range(1, 18), *range(44, 63)]
    assert [row for row, line in rows.items() if not NAMED.search(line)] == []


def _text(path: Path) -> str:
    return path.read_text() if path.exists() else ""
