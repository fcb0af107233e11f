"""Our side's gateway: the real application and server, with the bench's policy loaded beforehand."""

from __future__ import annotations

import sys
from pathlib import Path

import uvloop

from gateway.auth import Doorkeeper
from gateway.connections import Connections
from gateway.framing import reach_by
from gateway.limits import Limits
from gateway.main import build_gateway, routed_methods, serve
from gateway.routes.derived import Edge
from gateway.transcoding.reading import Readers
from gateway.transcoding.writing import Writers
from gateway.upstreams import Upstreams, connect_by
from services.chassis.access import SnapshotHolder, TokenVerifier
from services.chassis.audit import AuditSpool
from services.chassis.logs import configure_logs
from services.chassis.server.garbage import spare_collections
from services.chassis.server.trail import SpoolTrail
from tests.bench.peers.scene import config_of, snapshot_of


def main(folder: Path, service: str, port: int) -> None:
    configure_logs("gateway")
    config = config_of(folder, {"consent": service})
    limits = Limits(rate=1e6, burst=1e6)  # counted as always, never reached
    holder = SnapshotHolder()
    holder.swap(snapshot_of(folder))
    tokens = TokenVerifier(holder, config.token_issuer, config.token_audience)
    trail = SpoolTrail("gateway", AuditSpool(folder / "audit" / "gateway"))
    methods = routed_methods()
    upstreams = Upstreams(methods, connect_by(config), reach=reach_by(config, "gateway"))
    edge = Edge(Doorkeeper(holder, tokens, trail, limits), upstreams, limits, Readers(), Writers())
    app = build_gateway(edge, methods, config.public_url, lambda: True)
    spare_collections()
    uvloop.run(serve(app, "127.0.0.1", port, 0.0, Connections(port, config.connections_each)))


if __name__ == "__main__":
    main(Path(sys.argv[1]), sys.argv[2], int(sys.argv[3]))
