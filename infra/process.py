"""Become one of Kehu's own processes, configured by the environment.

`kehu serve`, `work` and `gateway` come here; so does `python -m infra.process`, without the command line's libraries.
"""

from __future__ import annotations

import importlib
import os
import sys
from collections.abc import Sequence
from typing import NoReturn

from services.chassis.config import SERVICES, ConfigError, ProcessConfig, load_config
from services.chassis.logs import configure_logs


def _configured(name: str) -> ProcessConfig:
    """Return the configuration, or end with what is wrong in it."""
    configure_logs(name)
    try:
        return load_config(os.environ, with_stores=name != "gateway")
    except ConfigError as error:
        _end(str(error))


def _end(message: str) -> NoReturn:
    print(message, file=sys.stderr)
    raise SystemExit(2)


def serve(service: str) -> None:
    """Serve one service until a signal."""
    config = _configured(service)
    from services.chassis.server import process

    process.serve(importlib.import_module(f"services.{service}.main").serving(config), config)


def work(services: Sequence[str]) -> None:
    """Run the jobs of the services that have any, until a signal."""
    config = _configured("work")
    from services.chassis.server import process

    handlers = {}
    for service in services:
        working = getattr(importlib.import_module(f"services.{service}.main"), "working", None)
        found = working(config) if working is not None else None
        if found:
            handlers[service] = found
    process.beat(config.data_dir, "work")  # its own first beat comes ten seconds later
    process.work(handlers, config)


def gateway() -> None:
    """Serve the HTTP API until a signal."""
    config = _configured("gateway")
    from gateway.main import run

    run(config, config.gateway_host, config.gateway_port)


def main() -> None:
    """Become what the arguments say: `serve SERVICE`, `work [SERVICE…]` or `gateway`."""
    match sys.argv[1:]:
        case ["serve", service] if service in SERVICES:
            serve(service)
        case ["work", *services] if set(services) <= set(SERVICES):
            work(services or SERVICES)
        case ["gateway"]:
            gateway()
        case _:
            _end("arguments: serve SERVICE | work [SERVICE…] | gateway")


if __name__ == "__main__":
    main()
