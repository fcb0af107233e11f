"""The composition root of consent."""

from __future__ import annotations

from collections.abc import Mapping

from kehu.consent.v1 import consent_pb2_grpc

from services.chassis import records
from services.chassis.config import ProcessConfig
from services.chassis.jobs import Handler
from services.chassis.server import Serving
from services.consent.api import ConsentServicer
from services.consent.documents import RECORD_CLASSES
from services.consent.events import ConsentConsumer
from services.consent.store import MongoConsentStore

SERVICE = "consent"


def serving(config: ProcessConfig) -> Serving:
    """Return what `kehu serve consent` serves."""
    records.connect(config, SERVICE)
    servicer = ConsentServicer(MongoConsentStore())
    add = consent_pb2_grpc.add_ConsentServiceServicer_to_server
    return Serving(SERVICE, [(add, servicer)], records=RECORD_CLASSES)


def consuming(config: ProcessConfig) -> ConsentConsumer | None:
    """Return the consumer that `kehu consume` runs."""
    records.connect(config, SERVICE)
    return ConsentConsumer(MongoConsentStore())


def working(config: ProcessConfig) -> Mapping[str, Handler] | None:
    """Consent has no long work."""
    return None
