"""Build and run the gRPC server of a service: mTLS, guard, health, graceful drain."""

from __future__ import annotations

import importlib
import logging
import signal
import threading
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Protocol

import grpc
from google.longrunning import operations_pb2_grpc
from grpc_health.v1 import health, health_pb2, health_pb2_grpc

from services.chassis import records, telemetry
from services.chassis.config import MESSAGE_BYTES, ProcessConfig, TlsFiles
from services.chassis.errors import Unavailable
from services.chassis.jobs import Jobs
from services.chassis.server.connections import Listener
from services.chassis.server.guard import Guard
from services.chassis.server.multiplexer import Multiplexer
from services.chassis.server.operations import OperationsServicer
from services.chassis.server.plans import OPERATIONS

_log = logging.getLogger(__name__)
AddServicer = Callable[..., None]


class Background(Protocol):
    """A thread that lives as long as the server."""

    def start(self) -> None:
        """Begin."""

    def stop(self) -> None:
        """End and wait."""


@dataclass(frozen=True, slots=True)
class Serving:
    """What a service hands the chassis to serve: `servicers` are (generated add function, servicer) pairs."""

    service: str
    servicers: Sequence[tuple[AddServicer, object]]
    jobs: Jobs | None = None
    records: Sequence[type[records.Record]] = ()
    background: Sequence[Background] = ()
    prepare: Callable[[], None] = lambda: None
    ready: Callable[[], bool] = lambda: True


def service_name(add: AddServicer) -> str:
    """Return the full proto name that a generated add function registers."""
    # a service whose messages are all in other files imports its own file's descriptor nowhere
    importlib.import_module(add.__module__.removesuffix("_grpc"))
    short = add.__name__.removeprefix("add_").removesuffix("Servicer_to_server")
    return f"{add.__module__.rpartition('.')[0]}.{short}"


def service_names(serving: Serving) -> list[str]:
    """Return the full names of all services served, google.longrunning.Operations included."""
    return [service_name(add) for add, _ in serving.servicers] + [OPERATIONS.full_name]


def server_credentials(files: TlsFiles) -> grpc.ServerCredentials:
    """Return mTLS credentials that follow the files: a rotated certificate needs no restart."""
    last = [files.stamp()]

    def fetch() -> grpc.ServerCertificateConfiguration | None:
        stamp = files.stamp()
        if stamp == last[0]:
            return None
        last[0] = stamp
        return _certificates(files)

    return grpc.dynamic_ssl_server_credentials(_certificates(files), fetch, require_client_authentication=True)


def _certificates(files: TlsFiles) -> grpc.ServerCertificateConfiguration:
    pair = (files.key.read_bytes(), files.certificate.read_bytes())
    return grpc.ssl_server_certificate_configuration([pair], root_certificates=files.ca.read_bytes())


def build_server(serving: Serving, guard: Guard, threads: int) -> grpc.Server:
    """Return a server with the guard before every servicer; no port is open yet."""
    return build_servers(serving, guard, threads)[0]


def build_servers(serving: Serving, guard: Guard, threads: int) -> tuple[grpc.Server, Multiplexer]:
    """Return such a server, and what answers its calls when they come in frames."""
    options = [
        ("grpc.max_receive_message_length", MESSAGE_BYTES),
        ("grpc.max_send_message_length", MESSAGE_BYTES),
        ("grpc.max_metadata_size", 16 * 1024),
        ("grpc.so_reuseport", 0),
        ("grpc.http2.bdp_probe", 0),
    ]
    operations = OperationsServicer(serving.jobs or Jobs(serving.service))
    servicers = [*serving.servicers, (operations_pb2_grpc.add_OperationsServicer_to_server, operations)]
    multiplexer = Multiplexer(servicers, guard, threads)
    server = grpc.server(
        ThreadPoolExecutor(threads, thread_name_prefix="rpc"),
        interceptors=[multiplexer, guard],
        options=options,
        maximum_concurrent_rpcs=threads * 16,
    )
    for add, servicer in servicers:
        add(servicer, server)
    return server, multiplexer


class RunningServer:
    """A server with its health and its background threads; `run` blocks until a signal."""

    def __init__(self, serving: Serving, guard: Guard, config: ProcessConfig, loaded: Callable[[], bool]) -> None:
        self._serving = serving
        self._config = config
        self._loaded = loaded
        self._stop = threading.Event()
        self._health = health.HealthServicer()
        self._server, multiplexer = build_servers(serving, guard, config.grpc_threads)
        self._frames = Listener(multiplexer, config.tls(serving.service))
        health_pb2_grpc.add_HealthServicer_to_server(self._health, self._server)
        self._probe: grpc.Server | None = None

    def run(self) -> None:
        """Serve until SIGTERM or SIGINT, then drain: not ready first, calls in flight finish, threads end."""
        for name in (signal.SIGTERM, signal.SIGINT):
            signal.signal(name, lambda *_: self._stop.set())
        self._set_health(health_pb2.HealthCheckResponse.NOT_SERVING)
        self._start_probe()
        self._prepare()
        if self._stop.is_set():
            return
        address = self._config.addresses[self._serving.service]
        credentials = server_credentials(self._config.tls(self._serving.service))
        if self._server.add_secure_port(_listen_address(address), credentials) == 0:
            raise OSError(f"cannot listen on {address}")
        self._server.start()
        host, _, _ = _listen_address(address).rpartition(":")
        self._frames.start(host.strip("[]"), self._config.frames_port)
        for thread in self._serving.background:
            thread.start()
        telemetry.serve_metrics(self._config.probe_host, self._config.metrics_port)
        self._watch_readiness()
        self._drain()

    def _prepare(self) -> None:
        """Wait for the database, create indexes and first data; an outage at start is waited out."""
        while not self._stop.is_set():
            try:
                records.ensure_indexes(self._serving.records)
                if self._serving.jobs is not None:
                    ensure = getattr(self._serving.jobs.store, "ensure_indexes", lambda: None)
                    ensure()
                self._serving.prepare()
                return
            except Unavailable:
                _log.warning("waiting for the database")
                self._stop.wait(0.5)

    def _start_probe(self) -> None:
        """Serve health alone, in the clear, for probes that cannot do mTLS."""
        if self._config.health_port:
            self._probe = grpc.server(ThreadPoolExecutor(2))
            health_pb2_grpc.add_HealthServicer_to_server(self._health, self._probe)
            self._probe.add_insecure_port(f"{self._config.probe_host}:{self._config.health_port}")
            self._probe.start()

    def _set_health(self, status: int) -> None:
        self._health.set("", status)
        self._health.set("live", health_pb2.HealthCheckResponse.SERVING)

    def _watch_readiness(self) -> None:
        was = None
        while not self._stop.is_set():
            ready = self._loaded() and self._serving.ready()
            if ready != was:
                was = ready
                serving = health_pb2.HealthCheckResponse
                self._set_health(serving.SERVING if ready else serving.NOT_SERVING)
                _log.info("ready" if ready else "not ready")
            self._stop.wait(0.2 if not ready else 1.0)

    def _drain(self) -> None:
        started = time.monotonic()
        self._set_health(health_pb2.HealthCheckResponse.NOT_SERVING)
        time.sleep(self._config.notice_seconds)  # until whoever balances has read that we are not ready
        stopped = self._server.stop(self._config.drain_seconds)
        self._frames.stop(self._config.drain_seconds)
        stopped.wait()
        for thread in reversed(self._serving.background):
            thread.stop()
        if self._probe is not None:
            self._probe.stop(0)
        _log.info("stopped", extra={"seconds": round(time.monotonic() - started, 2)})


def _listen_address(address: str) -> str:
    """Return where to listen: loopback addresses as they are, a name (Kubernetes) on every interface."""
    host, _, port = address.rpartition(":")
    return address if host.startswith("127.") or host == "localhost" else f"[::]:{port}"
