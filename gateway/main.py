"""The gateway's composition root: reads the configuration, builds every object, serves."""

from __future__ import annotations

import asyncio
import contextlib
import signal
from collections.abc import Callable, Iterable, Sequence

import uvloop
from fastapi import FastAPI
from google.longrunning import operations_pb2  # noqa: F401 - its messages are in replies
from google.rpc import error_details_pb2  # noqa: F401 - and these in its errors
from granian.constants import HTTPModes, Interfaces
from granian.http import HTTP1Settings
from granian.server.embed import Server
from kehu.access.v1.access_pb2_grpc import AccessServiceStub

from gateway.app import Endpoint, Gateway, Hook
from gateway.auth import Doorkeeper
from gateway.certificates import CertificateReader
from gateway.connections import Connections, room
from gateway.framing import reach_by
from gateway.leases import lease_by
from gateway.leaving import Leaving
from gateway.limits import Limits
from gateway.openapi import build_document
from gateway.openapi.comments import descriptor_set_path, load_comments
from gateway.openapi.errors import error_lines
from gateway.pages import build_pages
from gateway.quotas import Quotas
from gateway.routes.bulk import BULK_TEMPLATE, BulkRoute
from gateway.routes.derived import DerivedRoute, Edge, Route
from gateway.routes.operations import OperationRoute, operation_methods
from gateway.routes.scim import PREFIX as SCIM_PREFIX
from gateway.routes.scim import ScimRoute
from gateway.routes.streams import StreamRoute
from gateway.routes.tokens import PREFIX, TokenRoute
from gateway.routes.uploads import UploadRoute
from gateway.routes.views import VIEW_TEMPLATE, ViewRoute
from gateway.threads import served
from gateway.transcoding.catalog import Method, import_protos, methods_of
from gateway.transcoding.paths import Router, parse_template
from gateway.transcoding.reading import Readers
from gateway.transcoding.writing import Writers
from gateway.upstreams import IDENTITY, Upstreams, connect_by
from services.chassis.access import SnapshotHolder, SnapshotPoller, TokenVerifier
from services.chassis.access.wire import batch_writer, snapshot_fetcher
from services.chassis.audit import AuditSpool, Shipper
from services.chassis.client import Channels
from services.chassis.config import ProcessConfig
from services.chassis.logs import configure_logs
from services.chassis.server.garbage import spare_collections
from services.chassis.server.serving import Background
from services.chassis.server.trail import SpoolTrail

HEADER_MILLISECONDS = 10_000  # a client slower than this with its headers, or silent, is cut off
HEADER_BYTES = 64 * 1024


def route_class(method: Method) -> type[DerivedRoute]:
    """Return what answers for a method."""
    if method.is_upload:
        return UploadRoute
    if method.is_lines:
        return StreamRoute
    if method.service == "operations":
        return OperationRoute
    if method.bindings[0].template.startswith(SCIM_PREFIX):
        return ScimRoute
    return TokenRoute if method.bindings[0].template.startswith(PREFIX) else DerivedRoute


def build_router(edge: Edge, methods: Iterable[Method]) -> Router[Endpoint]:
    """Return the router of all derived routes and the composed ones."""
    router: Router[Endpoint] = Router()
    derived: Router[DerivedRoute] = Router()
    for method in methods:
        for binding in method.bindings:
            template = parse_template(binding.template)
            route = route_class(method)(edge, method, binding, template)
            derived.add(binding.verb, template, route)
            router.add(binding.verb, template, Endpoint(f"{binding.verb} {binding.template}", route))
    composed: dict[tuple[str, str], Route] = {
        ("GET", VIEW_TEMPLATE): ViewRoute(edge, derived),
        ("POST", BULK_TEMPLATE): BulkRoute(edge, derived),
    }
    for (verb, path), answering in composed.items():
        router.add(verb, parse_template(path), Endpoint(f"{verb} {path}", answering))
    return router


def routed_methods() -> list[Method]:
    """Return every method the gateway answers for."""
    return [*(method for method in methods_of(import_protos()) if method.is_routed), *operation_methods()]


def build_gateway(
    edge: Edge,
    methods: Sequence[Method],
    public_url: str,
    is_ready: Callable[[], bool],
    start: Sequence[Hook] = (),
    stop: Sequence[Hook] = (),
) -> Gateway:
    """Return the application over the parts given; tests give it a test's."""
    comments = load_comments(descriptor_set_path())
    docs_url = f"{public_url}/docs/errors"
    document = build_document(methods, comments, public_url)
    pages: FastAPI = build_pages(document, error_lines(import_protos(), comments), is_ready, docs_url)
    return Gateway(build_router(edge, methods), pages, docs_url, edge.limits.in_flight, start, stop)


def create_app(config: ProcessConfig, limits: Limits | None = None) -> Gateway:
    """Return the application of this configuration; its threads start with the server's lifespan."""
    limits = limits or Limits()
    channels = Channels(config, IDENTITY)
    access = channels.stub(AccessServiceStub)
    holder = SnapshotHolder()
    spool = AuditSpool(config.data_dir / "audit" / IDENTITY)
    threads: list[Background] = [
        Shipper(spool, batch_writer(access)),
        SnapshotPoller(holder, snapshot_fetcher(access)),
    ]
    tokens = TokenVerifier(holder, config.token_issuer, config.token_audience)
    reader = CertificateReader(config.certificate_proxies)
    methods = routed_methods()
    reach = reach_by(config, IDENTITY)
    upstreams = Upstreams(methods, connect_by(config), config.tls(IDENTITY).stamp, reach)
    trail, quotas = SpoolTrail(IDENTITY, spool), Quotas(lease_by(upstreams))
    doorkeeper = Doorkeeper(holder, tokens, trail, limits, certificates=reader, quotas=quotas)
    edge = Edge(doorkeeper, upstreams, limits, Readers(), Writers())

    async def start() -> None:
        for thread in threads:
            thread.start()

    async def stop() -> None:
        await upstreams.close()
        for thread in reversed(threads):
            await asyncio.to_thread(thread.stop)
        spool.close()
        channels.close()

    return build_gateway(edge, methods, config.public_url, lambda: holder.loaded, [start], [stop])


def build_server(app: Gateway | Leaving, host: str, port: int) -> Server:
    """Return the HTTP server: one process, the loop it is awaited on."""
    return Server(
        app,
        address=host,
        port=port,
        interface=Interfaces.ASGI,
        http=HTTPModes.http1,  # to tell HTTP/2 apart it would wait for the first bytes without end
        http1_settings=HTTP1Settings(header_read_timeout=HEADER_MILLISECONDS, max_buffer_size=HEADER_BYTES),
        websockets=False,
        log_enabled=False,
        backlog=1024,
        backpressure=room(),
    )


async def serve(app: Gateway, host: str, port: int, notice_seconds: float, connections: Connections) -> None:
    """Serve until SIGTERM or SIGINT: not ready first, for as long as notice takes; then requests under way end."""
    leaving = Leaving(app)
    server = build_server(leaving, host, port)
    loop = asyncio.get_running_loop()

    def leave() -> None:
        leaving.leave()
        loop.call_later(notice_seconds, server.stop)

    for name in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(name, leave)
    connections.look()  # where that cannot be done, nothing is served
    watching = asyncio.ensure_future(connections.watch())
    with contextlib.suppress(asyncio.CancelledError):
        await served(server.serve())
    watching.cancel()


def run(config: ProcessConfig, host: str, port: int) -> None:
    """Run the gateway process."""
    configure_logs(IDENTITY)
    connections = Connections(port, config.connections_each, config.certificate_proxies)
    app = create_app(config)
    spare_collections()
    uvloop.run(serve(app, host, port, config.notice_seconds, connections))
