"""The composition root of tickets."""

from __future__ import annotations

from kehu.access.v1.access_pb2_grpc import AccessServiceStub
from kehu.tickets.v1 import tickets_pb2_grpc

from services.chassis import records
from services.chassis.client import Channels
from services.chassis.config import ProcessConfig
from services.chassis.crypto import Sealer
from services.chassis.server import Serving
from services.chassis.server.lending import Lending
from services.tickets.api import TicketsServicer
from services.tickets.events import TicketsConsumer
from services.tickets.store import Facts
from services.tickets.store.documents import RECORDS
from services.tickets.store.mongo import MongoTicketsStore


def _store(config: ProcessConfig) -> MongoTicketsStore:
    records.connect(config, "tickets")
    facts = Facts(Sealer("events", config.keys_dir, config.protection.cipher_of_keys))
    return MongoTicketsStore(Sealer("tickets", config.keys_dir, config.protection.cipher_of_keys), facts)


def serving(config: ProcessConfig) -> Serving:
    """Return what `kehu serve tickets` runs."""
    store = _store(config)
    lending = Lending(Channels(config, "tickets").stub(AccessServiceStub))
    servicer = TicketsServicer(store, lending=lending)
    return Serving(
        "tickets",
        [(tickets_pb2_grpc.add_TicketsServiceServicer_to_server, servicer)],
        records=RECORDS,
        prepare=store.prepare,
    )


def consuming(config: ProcessConfig) -> TicketsConsumer:
    """Return what `kehu consume tickets` runs."""
    return TicketsConsumer(_store(config))


def working(config: ProcessConfig) -> None:
    """Return nothing: tickets has no long jobs."""
