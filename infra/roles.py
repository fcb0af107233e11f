"""Kehu's own processes as the supervisor sees them: one per service, one consumer, one worker, the gateway."""

from __future__ import annotations

import sys
import time
import urllib.error
import urllib.request
from dataclasses import dataclass, field
from pathlib import Path

from infra.processes import FRUGAL, LOOPBACK, Command, Server, clean_environment
from infra.servers import _import_root
from infra.stack import Stack
from services.chassis.config import SERVICES


def _command(stack: Stack, *arguments: str, **extra: str) -> Command:
    python = {"PYTHONPATH": _import_root(), "PYTHONUNBUFFERED": "1"}
    environment = {**stack.environment(), **extra, **python, **FRUGAL}
    argv = (sys.executable, "-m", *arguments)
    return Command(argv, clean_environment(environment), stack.folder)


@dataclass(slots=True)
class ServiceProcess:
    """`kehu serve SERVICE`; ready when its health says so."""

    stack: Stack
    service: str

    @property
    def name(self) -> str:
        """The service's name."""
        return self.service

    def prepare(self) -> None:
        """Nothing to write: the stack is laid out."""

    def command(self) -> Command:
        """Return `kehu serve` with a health port of its own."""
        port = str(self.stack.ports[f"{self.service}-health"])
        return _command(self.stack, "infra.process", "serve", self.service, KEHU_HEALTH_PORT=port)

    def is_ready(self) -> bool:
        """Ask gRPC health."""
        return health(self.stack.ports[f"{self.service}-health"])

    def tidy(self) -> None:
        """Leave nothing."""


def health(port: int) -> bool:
    """Tell whether the gRPC health service at this loopback port says SERVING."""
    import grpc
    from grpc_health.v1 import health_pb2, health_pb2_grpc

    with grpc.insecure_channel(f"{LOOPBACK}:{port}", options=[("grpc.enable_http_proxy", 0)]) as channel:
        try:
            reply = health_pb2_grpc.HealthStub(channel).Check(health_pb2.HealthCheckRequest(), timeout=1)
        except grpc.RpcError:
            return False
    return bool(reply.status == health_pb2.HealthCheckResponse.SERVING)


@dataclass(slots=True)
class LoopProcess:
    """`kehu consume` or `kehu work`: no port; ready when it has touched its heartbeat file."""

    stack: Stack
    role: str
    _started: float = field(default_factory=time.time)

    @property
    def name(self) -> str:
        """The role."""
        return self.role

    def prepare(self) -> None:
        """Remember when it was started: an older heartbeat is not its own."""
        self._started = time.time()

    def command(self) -> Command:
        """Return the role's command line."""
        module = ("infra.consume",) if self.role == "consume" else ("infra.process", "work")
        return _command(self.stack, *module)

    def is_ready(self) -> bool:
        """Look at its heartbeat."""
        return _touched_since(self.stack.folder / f"{self.role}.heartbeat", self._started)

    def tidy(self) -> None:
        """Leave nothing."""


def _touched_since(path: Path, moment: float) -> bool:
    return path.exists() and path.stat().st_mtime >= moment - 0.01


@dataclass(slots=True)
class GatewayProcess:
    """`kehu gateway`; ready when /readyz says so."""

    stack: Stack
    name: str = "gateway"

    def prepare(self) -> None:
        """Nothing to write."""

    def command(self) -> Command:
        """Return `kehu gateway`."""
        return _command(self.stack, "infra.process", "gateway")

    def is_ready(self) -> bool:
        """Ask /readyz."""
        try:
            with urllib.request.urlopen(f"{self.stack.url}/readyz", timeout=2) as reply:
                return bool(reply.status == 200)
        except (urllib.error.URLError, OSError):
            return False

    def tidy(self) -> None:
        """Leave nothing."""


def processes_of(stack: Stack) -> list[Server]:
    """Return all processes of a stack, those others wait for first."""
    own: list[Server] = [server for server in (stack.rabbit, stack.mongo) if server is not None]
    services: list[Server] = [ServiceProcess(stack, service) for service in SERVICES]
    loops: list[Server] = [LoopProcess(stack, role) for role in ("consume", "work")]
    return [*own, stack.smtp, *services, GatewayProcess(stack), *loops]
