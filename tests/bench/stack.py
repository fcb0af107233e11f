"""A whole stack for the length of a bench, with tokens for its apps."""

from __future__ import annotations

import contextlib
import json
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

import httpx

from infra.processes import free_port

START_SECONDS = 120


@dataclass
class RunningStack:
    """A started stack: its address, its folder, and callers."""

    url: str
    folder: Path
    process: subprocess.Popen[str]
    _tokens: dict[str, str] = field(default_factory=dict)

    def headers(self, department: str, purpose: str) -> dict[str, str]:
        """Return the headers of a department's app."""
        if department not in self._tokens:
            credentials = json.loads((self.folder / "credentials.json").read_text())
            client = next(c for c in credentials["clients"] if c["department"] == department)
            form = {"grant_type": "client_credentials"}
            login = (client["client_id"], client["client_secret"])
            reply = httpx.post(credentials["token_url"], data=form, auth=login, timeout=10)
            reply.raise_for_status()
            self._tokens[department] = reply.json()["access_token"]
        return {"Authorization": f"Bearer {self._tokens[department]}", "X-Purpose": purpose}


@contextlib.contextmanager
def running_stack() -> Iterator[RunningStack]:
    """Start an empty stack in a folder of its own and stop it at the end."""
    with tempfile.TemporaryDirectory(prefix="kehu-bench-", ignore_cleanup_errors=True) as name:
        port = free_port()
        folder, log = Path(name) / "data", Path(name) / "up.log"
        kehu = Path(sys.executable).with_name("kehu")
        command = [str(kehu), "up", "--no-sample", "--data", str(folder), "--port", str(port)]
        process = subprocess.Popen(command, stdout=log.open("w"), stderr=subprocess.STDOUT, text=True)
        try:
            url = f"http://127.0.0.1:{port}"
            _wait_ready(log, process)
            yield RunningStack(url, folder, process)
        finally:
            process.send_signal(signal.SIGINT)
            process.wait(60)


def _wait_ready(log: Path, process: subprocess.Popen[str]) -> None:
    until = time.monotonic() + START_SECONDS
    while time.monotonic() < until and process.poll() is None:
        if "ready http" in log.read_text():
            return
        time.sleep(0.2)
    raise RuntimeError(f"the stack did not become ready: {log.read_text()[-2000:]}")
