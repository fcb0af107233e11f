"""`make bench`: run every tests/bench/bench_*.py and print one table; code 1 when a reach was missed.

Each has `run(short)`, which returns rows with the keys figure, value, peer, ratio, reach and ok.
"""

from __future__ import annotations

import argparse
import importlib
import sys
import time
import traceback
from collections.abc import Mapping, Sequence
from pathlib import Path

from rich.console import Console
from rich.table import Table

COLUMNS = ("figure", "value", "peer", "ratio", "reach")
VERDICTS = {True: "[green]reached[/]", False: "[red]MISSED[/]", None: ""}  # None: told beside another figure
Row = Mapping[str, object]


def bench_names(only: Sequence[str]) -> list[str]:
    """Return the names of the benches, those asked for or all."""
    found = sorted(path.stem.removeprefix("bench_") for path in Path(__file__).parent.glob("bench_*.py"))
    unknown = set(only) - set(found)
    if unknown:
        sys.exit(f"no such bench: {', '.join(sorted(unknown))}; there are {', '.join(found)}")
    return list(only) or found


def measure(name: str, short: bool, console: Console) -> list[Row]:
    """Run one bench; what breaks is a row of its own, so that the others are still measured."""
    began = time.monotonic()
    try:
        rows: list[Row] = list(importlib.import_module(f"tests.bench.bench_{name}").run(short))
    except Exception as error:
        traceback.print_exc()
        rows = [{"figure": name, "value": f"broke: {type(error).__name__}", "ok": False}]
    console.print(f"{name}: {time.monotonic() - began:.0f} s", style="dim")
    return rows


def table_of(rows: Sequence[Row]) -> Table:
    """Return the table that is printed."""
    table = Table(*COLUMNS, "", title="Kehu against the named references, in one run")
    for row in rows:
        table.add_row(*(str(row.get(column, "")) for column in COLUMNS), VERDICTS[row["ok"]])
    return table


def main() -> int:
    """Run the benches."""
    parser = argparse.ArgumentParser(prog="python -m tests.bench")
    parser.add_argument("--short", action="store_true", help="small data, one round: does it run?")
    parser.add_argument("only", nargs="*", help="names of benches; all when none is given")
    arguments = parser.parse_args()
    console = Console()
    rows = [row for name in bench_names(arguments.only) for row in measure(name, arguments.short, console)]
    console.print(table_of(rows))
    return 1 if any(row["ok"] is False for row in rows) else 0


if __name__ == "__main__":
    sys.exit(main())
