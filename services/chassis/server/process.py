"""The two long-running processes of a service that this package builds: `serve` (gRPC) and `work` (jobs)."""

from __future__ import annotations

import logging
import os
import signal
import threading
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path

from services.chassis import telemetry
from services.chassis.access import SnapshotHolder, SnapshotPoller, TokenVerifier
from services.chassis.access.shadow import ShadowPoller
from services.chassis.access.wire import batch_writer, snapshot_fetcher
from services.chassis.audit import AuditSpool, Shipper
from services.chassis.client import Channels
from services.chassis.config import ProcessConfig
from services.chassis.errors import Unavailable
from services.chassis.jobs import Handler, MongoOperations, Worker
from services.chassis.outbox import Relay
from services.chassis.server.garbage import spare_collections
from services.chassis.server.guard import Guard
from services.chassis.server.plans import plans_by_path
from services.chassis.server.serving import Background, RunningServer, Serving, service_names
from services.chassis.server.trail import SpoolTrail

HEARTBEAT_SECONDS = 10.0
_log = logging.getLogger(__name__)


def serve(serving: Serving, config: ProcessConfig) -> None:
    """Serve one service until a signal: policy polled, calls guarded and audited, facts published."""
    from kehu.access.v1.access_pb2_grpc import AccessServiceStub

    spare_collections()
    channels = Channels(config, serving.service)
    access = channels.stub(AccessServiceStub)
    holder = SnapshotHolder()
    poller = SnapshotPoller(holder, snapshot_fetcher(access))
    spool = AuditSpool(config.data_dir / "audit" / serving.service)
    tokens = TokenVerifier(holder, config.token_issuer, config.token_audience)
    plans = plans_by_path(service_names(serving))
    guard = Guard(serving.service, plans, holder, tokens, SpoolTrail(serving.service, spool))
    shipper, shadow = Shipper(spool, batch_writer(access)), ShadowPoller(holder, access)
    background: list[Background] = [shipper, poller, shadow, *serving.background]
    relay = _relay(serving, config)
    if relay is not None:
        background.append(relay)
    RunningServer(replace(serving, background=background), guard, config, lambda: holder.loaded).run()
    spool.close()
    channels.close()


def _relay(serving: Serving, config: ProcessConfig) -> Relay | None:
    return Relay(serving.records, config.amqp_uri, serving.service) if serving.records else None


def work(handlers: Mapping[str, Mapping[str, Handler]], config: ProcessConfig) -> None:
    """Run the jobs of these services until a signal; what is under way goes on in the next process."""
    spare_collections()
    stop = threading.Event()
    for name in (signal.SIGTERM, signal.SIGINT):
        signal.signal(name, lambda *_: stop.set())
    telemetry.serve_metrics(config.probe_host, config.metrics_port)
    workers = [Worker(service, found) for service, found in handlers.items() if found]
    _retry_until_database(lambda: _ensure_operations(list(handlers)), stop)
    for worker in workers:
        worker.start()
    _log.info("ready")
    while not stop.wait(HEARTBEAT_SECONDS):
        beat(config.data_dir, "work")
    for worker in workers:
        worker.stop()
    _log.info("stopped")


def _ensure_operations(services: Sequence[str]) -> None:
    for service in services:
        MongoOperations(service).ensure_indexes()


def _retry_until_database(prepare: Callable[[], None], stop: threading.Event) -> None:
    while not stop.is_set():
        try:
            prepare()
            return
        except Unavailable:
            _log.warning("waiting for the database")
            stop.wait(0.5)


def beat(data_dir: Path, role: str) -> None:
    """Touch the role's heartbeat file, which the Kubernetes probe of a process without a port looks at."""
    path = data_dir / f"{role}.heartbeat"
    path.touch()
    os.utime(path)
