"""`kehu status`: what runs, is it ready, how much memory it takes."""

from __future__ import annotations

from pathlib import Path

import psutil
from rich.console import Console
from rich.table import Table

from infra.roles import health
from infra.stack import Running, read_running


def show_status(data: Path) -> int:
    """Print a table; return 0 when all processes live and all services are ready, else 1.

    Raises:
        StackError: no stack was started in the folder.
    """
    running = read_running(data)
    table = Table("process", "pid", "state", "MiB", title=running.url)
    good, total = True, 0
    for name, pid in running.pids.items():
        state, memory = _state(running, name, pid)
        good, total = good and state in ("ready", "running"), total + memory
        table.add_row(name, str(pid), state, str(memory >> 20))
    table.add_row("all", "", "", str(total >> 20))
    Console().print(table)
    return 0 if good else 1


def _state(running: Running, name: str, pid: int) -> tuple[str, int]:
    """Return the state of one process, and the memory of it and its children in bytes (shared pages split)."""
    try:
        process = psutil.Process(pid)
        memory = sum(each.memory_full_info().pss for each in (process, *process.children(recursive=True)))
    except (psutil.NoSuchProcess, psutil.AccessDenied):
        return "gone", 0
    if name not in running.health_ports:
        return "running", memory
    return ("ready" if health(running.health_ports[name]) else "not ready"), memory
