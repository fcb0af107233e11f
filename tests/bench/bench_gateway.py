"""One read through gateway and service, everything on, against a plain FastAPI + pydantic → grpc.aio hop, and Go.

Ours: bearer token, policy at both hops, mTLS, protovalidate, obligations, an audit entry per call, metrics.
The peers: none of that. Each side is two processes on this machine; rounds alternate, the median counts, and the CPU
of both processes for each request, which others on this machine disturb less. The Go peer is grpc-gateway before a
gRPC service in Go, built by tests/bench/peers/go/build.sh; without Go it is left out, and said so.
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
from dataclasses import dataclass
from pathlib import Path

import psutil

from infra.certificates import ensure_certificates
from tests.bench.peers.scene import PATH, PURPOSE, config_of, token_of

ROOT = Path(__file__).parents[2]
CONNECTIONS = (1, 32, 128)
REACHES = {1: 1.2, 32: 3.0, 128: 3.0}  # against the plain hop; the ratio to Go is told, nothing is demanded of it
GO_PEER = ROOT / ".tools" / "go-peer" / "bin" / "peer"
PEERS = "tests.bench.peers"


def free_port() -> int:
    with socket.socket() as found:
        found.bind(("127.0.0.1", 0))
        return int(found.getsockname()[1])


@dataclass(frozen=True)
class Side:
    """A gateway and a service behind it: the address to read, the headers to send, the ids of the processes."""

    url: str
    headers: dict[str, str]
    pids: tuple[int, ...]

    def cpu(self) -> float:
        """Return the seconds of CPU used by the processes and their children."""
        parents = [psutil.Process(pid) for pid in self.pids]
        found = [*parents, *(child for parent in parents for child in parent.children(recursive=True))]
        return sum(sum(process.cpu_times()[:2]) for process in found)


@contextmanager
def process(arguments: Sequence[str], program: str = sys.executable, **environ: str) -> Iterator[int]:
    """Run a process, of Python unless told, from the project's root; yield its id."""
    quiet = subprocess.DEVNULL
    env = {**os.environ, **environ}
    found = subprocess.Popen([program, *arguments], cwd=ROOT, env=env, stdout=quiet, stderr=quiet)
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
def ours(folder: Path) -> Iterator[Side]:
    """Run our service and gateway."""
    service, port = f"127.0.0.1:{free_port()}", free_port()
    config = config_of(folder, {"consent": service})
    ensure_certificates(config.tls_dir, ["consent", "gateway"])
    headers = {"Authorization": f"Bearer {token_of(folder, config)}", "X-Purpose": PURPOSE}
    with ExitStack() as stack:
        one = stack.enter_context(process(["-m", f"{PEERS}.kehu_service", str(folder), service]))
        two = stack.enter_context(process(["-m", f"{PEERS}.kehu_gateway", str(folder), service, str(port)]))
        yield Side(f"http://127.0.0.1:{port}{PATH}", headers, (one, two))


@contextmanager
def plain() -> Iterator[Side]:
    """Run the peer's service and gateway."""
    service, port = free_port(), free_port()
    serve = ["-m", "granian", "--interface", "asgi", "--host", "127.0.0.1", "--port", str(port), "--no-ws"]
    with ExitStack() as stack:
        one = stack.enter_context(process(["-m", f"{PEERS}.plain_service", str(service)]))
        target = f"{PEERS}.plain_gateway:app"
        two = stack.enter_context(process([*serve, target], PEER_SERVICE=f"127.0.0.1:{service}"))
        yield Side(f"http://127.0.0.1:{port}{PATH}", {}, (one, two))


@contextmanager
def in_go() -> Iterator[Side]:
    """Run grpc-gateway and a service in Go."""
    service, port = f"127.0.0.1:{free_port()}", free_port()
    with ExitStack() as stack:
        one = stack.enter_context(process(["service", service], str(GO_PEER)))
        two = stack.enter_context(process(["gateway", f"127.0.0.1:{port}", service], str(GO_PEER)))
        yield Side(f"http://127.0.0.1:{port}{PATH}", {}, (one, two))


def go_is_built() -> bool:
    """Build the Go peer once; False where there is no Go, or no module proxy."""
    if not GO_PEER.exists() and shutil.which("go"):
        subprocess.run([ROOT / "tests" / "bench" / "peers" / "go" / "build.sh"], capture_output=True, check=False)
    return GO_PEER.exists()


Measured = dict[tuple[int, str], list[tuple[float, float]]]  # requests a second and µs of CPU for each, by round


def run(short: bool = False) -> list[dict[str, object]]:
    """Measure; for each number of connections a row against each peer."""
    seconds, rounds = (2.0, 1) if short else (3.0, 5)
    with ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="kehu-bench-")))
        sides = {"ours": stack.enter_context(ours(folder)), "plain": stack.enter_context(plain())}
        if go_is_built():
            sides["go"] = stack.enter_context(in_go())
        for side in sides.values():
            answer = wait_until_answers(side.url, side.headers)
            assert len(answer["consents"]) == 1, answer  # type: ignore[arg-type]
            load(side.url, side.headers, 32, 1.0)
        found: Measured = {}
        for _ in range(rounds):
            for connections in CONNECTIONS:
                for name, side in sides.items():
                    found.setdefault((connections, name), []).append(measured(side, connections, seconds))
    rows = [row(connections, found, "plain") for connections in CONNECTIONS]
    if "go" not in sides:
        told = "not measured: there is no Go, or tests/bench/peers/go/build.sh failed"
        return [*rows, {"figure": "one read against grpc-gateway in Go", "value": told, "ok": None}]
    return [*rows, *(row(connections, found, "go") for connections in CONNECTIONS)]


def measured(side: Side, connections: int, seconds: float) -> tuple[float, float]:
    """Return requests a second, and the µs of CPU of both processes for each."""
    before, began = side.cpu(), time.perf_counter()
    rate = load(side.url, side.headers, connections, seconds)
    return rate, (side.cpu() - before) / (rate * (time.perf_counter() - began)) * 1e6


def medians(rounds: list[tuple[float, float]]) -> tuple[float, float]:
    """Return the median of each column."""
    first, second = zip(*rounds, strict=True)
    return statistics.median(first), statistics.median(second)


def row(connections: int, found: Measured, peer: str) -> dict[str, object]:
    """Return one side beside ours; the ratios are the medians of those of each round, for machines change meanwhile."""
    value, cpu = medians(found[connections, "ours"])
    theirs, theirs_cpu = medians(found[connections, peer])
    pairs = zip(found[connections, "ours"], found[connections, peer], strict=True)
    ratio, cpu_ratio = medians([(own[0] / other[0], other[1] / own[1]) for own, other in pairs])
    reach = REACHES[connections]
    name = {"plain": "FastAPI → grpc.aio", "go": "grpc-gateway → service, both in Go"}[peer]
    return {
        "figure": f"one read through gateway and service, {connections} connections",
        "value": f"{value:,.0f}/s, {cpu:,.0f} µs of CPU each",
        "peer": f"{theirs:,.0f}/s, {theirs_cpu:,.0f} µs, {name}",
        "ratio": f"{ratio:.2f}× (CPU {cpu_ratio:.2f}×)",
        "reach": f"≥ {reach}×" if peer == "plain" else "told",
        "ok": ratio >= reach if peer == "plain" else None,
    }


if __name__ == "__main__":
    for line in run(short="--short" in sys.argv):
        print(line)
