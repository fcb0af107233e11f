"""`kehu up`: the whole platform on one machine, in one folder."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Mapping
from pathlib import Path

from rich.console import Console

from infra.processes import clean_environment, listens, memory_of
from infra.roles import processes_of
from infra.servers import MISSING_RABBITMQ, RABBITMQ_SCRIPT, _import_root
from infra.stack import Stack, StackError, locked, prepare_stack, read_private, renew_certificates, save_running
from infra.supervisor import Supervisor

READY_SECONDS = 120.0


def ensure_rabbitmq(console: Console, environ: Mapping[str, str]) -> None:
    """Install RabbitMQ from Debian when it is missing and no other broker is named.

    Raises:
        StackError: it cannot be installed here; says how to get it.
    """
    if RABBITMQ_SCRIPT.exists() or environ.get("KEHU_AMQP_URI"):
        return
    sudo = [] if os.geteuid() == 0 else ["sudo"]
    if shutil.which("apt-get") is None or (sudo and shutil.which("sudo") is None):
        raise StackError(MISSING_RABBITMQ)
    console.print("RabbitMQ is missing: installing Debian's package rabbitmq-server (once)")
    apt = [*sudo, "env", "DEBIAN_FRONTEND=noninteractive", "apt-get"]
    subprocess.run([*apt, "update", "-q"], check=False, stdout=subprocess.DEVNULL)
    install = [*apt, "install", "-q", "-y", "--no-install-recommends", "rabbitmq-server"]
    done = subprocess.run(install, check=False, stdout=subprocess.DEVNULL)
    if done.returncode or not RABBITMQ_SCRIPT.exists():
        raise StackError(MISSING_RABBITMQ)
    if shutil.which("systemctl") and Path("/run/systemd/system").exists():
        console.print("the system's own RabbitMQ service is switched off: Kehu runs a private one")
        subprocess.run([*sudo, "systemctl", "disable", "--now", "rabbitmq-server"], check=False)


def up(folder: Path, port: int, sample: bool, console: Console) -> int:
    """Run a stack until Ctrl-C or SIGTERM; return the exit code.

    Raises:
        StackError: it cannot start here; says what to do.
    """
    ensure_rabbitmq(console, os.environ)
    if listens(port):
        raise StackError(f"port {port} is taken: give another with --port")
    with locked(folder):
        stack = prepare_stack(folder, port, os.environ)

        def say(text: str) -> None:
            console.print(text)
            save_running(stack, supervisor.pids())

        supervisor = Supervisor(processes_of(stack), stack.folder / "logs", say, lambda: renew_certificates(stack))
        for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
            signal.signal(number, lambda *_: supervisor.ask_to_stop())
        try:
            return _run(stack, supervisor, sample, console)
        finally:
            console.print("stopping …")
            supervisor.stop()
            (stack.folder / "stack.json").unlink(missing_ok=True)
            console.print("stopped; the data stays in", str(folder))


def _run(stack: Stack, supervisor: Supervisor, sample: bool, console: Console) -> int:
    began = time.monotonic()
    console.print(f"starting {len(supervisor.watched)} processes, logs in {stack.folder / 'logs'}")
    supervisor.start()
    late = supervisor.wait_ready(READY_SECONDS)
    save_running(stack, supervisor.pids())
    if supervisor.is_stopping:
        return 0
    if late:
        console.print(f"[red]not ready after {READY_SECONDS:.0f} s: {', '.join(late)}; see {stack.folder / 'logs'}")
        return 1
    megabytes = memory_of(os.getpid()).proportional >> 20
    console.print(f"all processes are ready after {time.monotonic() - began:.1f} s, {megabytes} MiB")
    if sample and read_private(stack.folder / "sample-state.json").get("finished"):
        console.print(f"the sample is loaded already; `kehu load --data {stack.folder}` tells what it found")
    elif sample and not _load(stack, supervisor):
        console.print("[yellow]the sample was not loaded to its end; the next `kehu up` goes on with it")
    _greet(stack, console)
    supervisor.watch()
    return 0


def _load(stack: Stack, supervisor: Supervisor) -> bool:
    """Load the sample in a process of its own, watching the others meanwhile; say whether it is loaded."""
    if supervisor.is_stopping:
        return False
    argv = [sys.executable, "-m", "infra.cli", "load", "--data", str(stack.folder)]
    environment = clean_environment({"PYTHONPATH": _import_root(), "TERM": os.environ.get("TERM", "dumb")})
    columns = os.environ.get("COLUMNS")
    loader = subprocess.Popen(argv, env=environment | ({"COLUMNS": columns} if columns else {}), process_group=0)
    supervisor.watch(until=lambda: loader.poll() is not None)
    if loader.poll() is None:
        loader.terminate()
    return loader.wait() == 0


def _greet(stack: Stack, console: Console) -> None:
    console.print(f"[bold green]ready {stack.url}[/]")
    console.print(f"sign in: clients and the administrator are in {stack.credentials_file}")
    console.print(f"  kehu search 北京 --data {stack.folder}   ·   kehu status --data {stack.folder}")
    console.print(f"  the API's pages: {stack.url}/docs   ·   mails sent: kehu mail --data {stack.folder}")
    console.print("Ctrl-C stops everything")
