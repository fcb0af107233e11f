"""`kehu status`: what runs, is it ready, how much memory it takes."""

from __future__ import annotations

from pathlib import Path

from rich.console import Console
from rich.table import Table

from infra.processes import Memory, memory_of
from infra.roles import health
from infra.stack import Running, read_running

CAPTION = "MiB: pages that processes share are split among them; resident: counted in each"


def show_status(data: Path) -> int:
    """Print a table; return 0 when all processes live and all services are ready, else 1.

    Raises:
        StackError: no stack was started in the folder.
    """
    running = read_running(data)
    table = Table("process", "pid", "state", "MiB", "resident", title=running.url, caption=CAPTION)
    good = True
    for name, pid in running.pids.items():
        memory = memory_of(pid)
        state = _state(running, name) if memory.resident else "gone"
        good = good and state in ("ready", "running")
        table.add_row(name, str(pid), state, *_megabytes(memory))
    table.add_row("up", str(running.pid), "", *_megabytes(memory_of(running.pid, with_children=False)))
    table.add_row("all", "", "", *_megabytes(memory_of(running.pid)))
    Console().print(table)
    return 0 if good else 1


def _megabytes(memory: Memory) -> tuple[str, str]:
    return str(memory.proportional >> 20), str(memory.resident >> 20)


def _state(running: Running, name: str) -> str:
    """Return the state of a process that lives."""
    if name not in running.health_ports:
        return "running"
    return "ready" if health(running.health_ports[name]) else "not ready"
