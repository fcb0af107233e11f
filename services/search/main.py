"""The composition root of search."""

from __future__ import annotations

import contextlib
from collections.abc import Mapping

from kehu.profiles.v1 import profiles_pb2_grpc
from kehu.search.v1 import search_pb2_grpc
from kehu.tickets.v1 import tickets_pb2_grpc

from services.chassis import records
from services.chassis.client import Channels
from services.chassis.config import ProcessConfig
from services.chassis.crypto import BlindIndex, Sealer
from services.chassis.jobs import Handler, Jobs
from services.chassis.server import Serving
from services.search.api import REBUILD, SearchServicer
from services.search.documents import DocumentMaker, keyed_by
from services.search.events import SearchConsumer
from services.search.hits import HitReader
from services.search.jobs import RebuildIndex
from services.search.store import Engine, EngineUnavailable
from services.search.store.batching import BatchingWriter

SERVICE = "search"


def _engine(config: ProcessConfig) -> Engine:
    """Return the engine the configuration names; only its own library is loaded."""
    if config.search_engine == "opensearch":
        from services.search.store.opensearch_engine import OpenSearchEngine

        return OpenSearchEngine(config.opensearch_url)
    from services.search.store.tantivy_engine import TantivyEngine

    return TantivyEngine(config.index_dir)


def _maker(config: ProcessConfig) -> DocumentMaker:
    keyed = keyed_by(BlindIndex(config.keys_dir, SERVICE))
    own = Sealer(SERVICE, config.keys_dir, config.protection.cipher_of_keys)
    return DocumentMaker(keyed, Sealer("events", config.keys_dir), own)


def serving(config: ProcessConfig) -> Serving:
    """Return what `kehu serve search` runs."""
    records.connect(config, SERVICE)
    engine, jobs = _engine(config), Jobs(SERVICE)
    hits = HitReader(Sealer(SERVICE, config.keys_dir, config.protection.cipher_of_keys))
    servicer = SearchServicer(engine, keyed_by(BlindIndex(config.keys_dir, SERVICE)), hits, jobs)
    add = search_pb2_grpc.add_SearchServiceServicer_to_server
    return Serving(SERVICE, [(add, servicer)], jobs=jobs, prepare=engine.prepare)


def consuming(config: ProcessConfig) -> SearchConsumer:
    """Return what `kehu consume search` runs; an engine that is down now is tried again with each event."""
    engine = _engine(config)
    with contextlib.suppress(EngineUnavailable):
        engine.prepare()
    return SearchConsumer(BatchingWriter(engine).write, _maker(config))


def working(config: ProcessConfig) -> Mapping[str, Handler]:
    """Return what `kehu work search` runs."""
    records.connect(config, SERVICE)
    channels = Channels(config, SERVICE)
    profiles = channels.stub(profiles_pb2_grpc.ProfilesServiceStub)
    tickets = channels.stub(tickets_pb2_grpc.TicketsServiceStub)
    return {REBUILD: RebuildIndex(_engine(config), _maker(config), profiles, tickets)}
