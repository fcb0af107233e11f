"""One read through gateway and service, everything on, against a plain FastAPI + pydantic → grpc.aio hop.

Ours: bearer token, policy at both hops, mTLS, protovalidate, obligations, an audit entry per call, metrics.
The peer: none of that. Each side is two processes on this machine; rounds alternate, the median counts.
"""

from __future__ import annotations

import json
import os
import re
import shutil
import socket
import statistics
import subprocess
import sys
import tempfile
import time
import urllib.error
import urllib.request
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path

from infra.certificates import ensure_certificates
from tests.bench.peers.scene import PATH, PURPOSE, config_of, token_of

ROOT = Path(__file__).parents[2]
CONNECTIONS = (1, 32, 128)
REACH = 1.0
PEERS = "tests.bench.peers"


def free_port() -> int:
    with socket.socket() as found:
        found.bind(("127.0.0.1", 0))
        return int(found.getsockname()[1])


@contextmanager
def process(arguments: Sequence[str], **environ: str) -> Iterator[int]:
    """Run a Python process from the project's root; yield its id."""
    quiet = subprocess.DEVNULL
    env = {**os.environ, **environ}
    found = subprocess.Popen([sys.executable, *arguments], cwd=ROOT, env=env, stdout=quiet, stderr=quiet)
    try:
        yield found.pid
    finally:
        found.terminate()
        try:
            found.wait(10)
        except subprocess.TimeoutExpired:
            found.kill()
            found.wait()


def wait_until_answers(url: str, headers: dict[str, str], seconds: float = 60.0) -> dict[str, object]:
    """Return the first good answer."""
    deadline = time.monotonic() + seconds
    while True:
        try:
            with urllib.request.urlopen(urllib.request.Request(url, headers=headers), timeout=5) as reply:
                return json.load(reply)
        except (urllib.error.URLError, OSError):
            if time.monotonic() > deadline:
                raise
            time.sleep(0.2)


def load(url: str, headers: dict[str, str], connections: int, seconds: float) -> float:
    """Return requests per second; fails when any request was refused."""
    lines = [f"{name}: {value}" for name, value in headers.items()]
    if shutil.which("wrk"):
        flags = [flag for line in lines for flag in ("-H", line)]
        command = ["wrk", "-t1", f"-c{connections}", f"-d{round(seconds)}s", *flags, url]
    else:
        command = [sys.executable, "-m", f"{PEERS}.loader", str(connections), f"{seconds:g}", url, *lines]
    out = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True).stdout
    if "Non-2xx" in out:
        raise RuntimeError(f"requests were refused:\n{out}")
    found = re.search(r"Requests/sec:\s+([0-9.]+)", out)
    if found is None:
        raise RuntimeError(f"the load tool said:\n{out}")
    return float(found[1])


@contextmanager
def ours(folder: Path) -> Iterator[tuple[str, dict[str, str]]]:
    """Run our service and gateway; yield the address to read and the headers to send."""
    service, port = f"127.0.0.1:{free_port()}", free_port()
    config = config_of(folder, {"consent": service})
    ensure_certificates(config.tls_dir, ["consent", "gateway"])
    headers = {"Authorization": f"Bearer {token_of(folder, config)}", "X-Purpose": PURPOSE}
    with ExitStack() as stack:
        stack.enter_context(process(["-m", f"{PEERS}.kehu_service", str(folder), service]))
        stack.enter_context(process(["-m", f"{PEERS}.kehu_gateway", str(folder), service, str(port)]))
        yield f"http://127.0.0.1:{port}{PATH}", headers


@contextmanager
def plain() -> Iterator[tuple[str, dict[str, str]]]:
    """Run the peer's service and gateway."""
    service, port = free_port(), free_port()
    serve = ["-m", "granian", "--interface", "asgi", "--host", "127.0.0.1", "--port", str(port), "--no-ws"]
    with ExitStack() as stack:
        stack.enter_context(process(["-m", f"{PEERS}.plain_service", str(service)]))
        target = f"{PEERS}.plain_gateway:app"
        stack.enter_context(process([*serve, target], PEER_SERVICE=f"127.0.0.1:{service}"))
        yield f"http://127.0.0.1:{port}{PATH}", {}


def run(short: bool = False) -> list[dict[str, object]]:
    """Measure; one row per number of connections."""
    seconds, rounds = (2.0, 1) if short else (4.0, 3)
    with tempfile.TemporaryDirectory(prefix="kehu-bench-") as name, ours(Path(name)) as a, plain() as b:
        answers = [wait_until_answers(url, headers) for url, headers in (a, b)]
        assert len(answers[0]["consents"]) == len(answers[1]["consents"]) == 1, answers
        rates: dict[tuple[int, str], list[float]] = {}
        for url, headers in (a, b):
            load(url, headers, 32, 1.0)
        for _ in range(rounds):
            for connections in CONNECTIONS:
                for side, (url, headers) in (("ours", a), ("plain", b)):
                    rates.setdefault((connections, side), []).append(load(url, headers, connections, seconds))
    return [row(connections, rates) for connections in CONNECTIONS]


def row(connections: int, rates: dict[tuple[int, str], list[float]]) -> dict[str, object]:
    value = statistics.median(rates[connections, "ours"])
    peer = statistics.median(rates[connections, "plain"])
    ratio = value / peer
    return {
        "figure": f"one read through gateway and service, {connections} connections, requests/s",
        "value": round(value),
        "peer": round(peer),
        "ratio": round(ratio, 2),
        "reach": REACH,
        "ok": ratio >= REACH,
    }


if __name__ == "__main__":
    for line in run(short="--short" in sys.argv):
        print(line)
