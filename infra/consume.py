# ruff: noqa: E402  eventlet patches the process before anything else is imported
"""The consumer process: `python -m infra.consume [SERVICE…]`; `kehu consume` becomes this program.

It is a module of its own because eventlet must patch the process before anything else is imported;
`thread=False` keeps gRPC and pymongo usable in the native threads that run the handlers.
"""

import eventlet

eventlet.monkey_patch(thread=False)

import importlib
import logging
import os
import sys
import threading
from collections.abc import Sequence

from services.chassis import telemetry
from services.chassis.config import SERVICES, ProcessConfig, load_config
from services.chassis.consuming.topology import known_subscriptions
from services.chassis.consuming.worker import run_consumers
from services.chassis.logs import configure_logs
from services.chassis.server.process import HEARTBEAT_SECONDS, beat


def consumers(services: Sequence[str], config: ProcessConfig) -> list[object]:
    """Return the consumers of the services that have one; the others are not even imported."""
    listening = {subscription.consumer for subscription in known_subscriptions()}
    mains = [importlib.import_module(f"services.{service}.main") for service in services if service in listening]
    return [main.consuming(config) for main in mains]


def _beat(config: ProcessConfig) -> None:
    beat(config.data_dir, "consume")
    timer = threading.Timer(HEARTBEAT_SECONDS, _beat, (config,))
    timer.daemon = True
    timer.start()


def main() -> None:
    """Consume the events of the named services, all by default, until a signal."""
    configure_logs("consume")
    config = load_config(os.environ)
    telemetry.serve_metrics(config.probe_host, config.metrics_port)
    services = sys.argv[1:] or list(SERVICES)
    run_consumers(consumers(services, config), config.amqp_uri, on_started=lambda: _beat(config))
    logging.getLogger(__name__).info("stopped")


if __name__ == "__main__":
    main()
