"""The composition root of analytics."""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial
from typing import TYPE_CHECKING

from kehu.analytics.v1 import analytics_pb2_grpc
from kehu.profiles.v1.profiles_pb2_grpc import ProfilesServiceStub

from services.analytics.domain.rows import Keyed
from services.analytics.events import AnalyticsConsumer
from services.analytics.store import RECORD_CLASSES, SERVICE, MongoComputations, MongoInbox
from services.chassis import records
from services.chassis.client import Channels
from services.chassis.config import ProcessConfig
from services.chassis.crypto import BlindIndex, Sealer
from services.chassis.jobs import Handler, Jobs
from services.chassis.server import Serving

if TYPE_CHECKING:
    from services.analytics.files import Uploads
    from services.analytics.warehouse import Warehouse


def serving(config: ProcessConfig) -> Serving:
    """Return what `kehu serve analytics` serves; its feeder thread carries the inbox into the lake."""
    from services.analytics.api import AnalyticsServicer, Parts
    from services.analytics.feeding import Feeder
    from services.analytics.jobs import sweep_uploads

    records.connect(config, SERVICE)
    inbox, jobs, warehouse = MongoInbox(), Jobs(SERVICE), _warehouse(config, "serve")
    uploads = _uploads(config)
    parts = Parts(warehouse, inbox, jobs, uploads, _keyed(config))
    add = analytics_pb2_grpc.add_AnalyticsServiceServicer_to_server

    def prepare() -> None:
        inbox.ensure_indexes()
        warehouse.lake.create()

    return Serving(
        SERVICE,
        [(add, AnalyticsServicer(parts))],
        jobs=jobs,
        records=RECORD_CLASSES,
        background=[Feeder(inbox, warehouse, partial(sweep_uploads, uploads, jobs.store))],
        prepare=prepare,
    )


def consuming(config: ProcessConfig) -> AnalyticsConsumer | None:
    """Return the consumer that `kehu consume` runs; it fills the inbox and loads no engine."""
    records.connect(config, SERVICE)
    return AnalyticsConsumer(MongoInbox(), _keyed(config))


def working(config: ProcessConfig) -> Mapping[str, Handler] | None:
    """Return the handlers that `kehu work` runs."""
    from services.analytics.jobs import COMPUTE, IMPORT, AnalyticsJobs, profiles_resolver

    records.connect(config, SERVICE)
    warehouse = _warehouse(config, "work")
    warehouse.lake.create()
    resolve = profiles_resolver(Channels(config, SERVICE).stub(ProfilesServiceStub))
    jobs = AnalyticsJobs(warehouse, _uploads(config), resolve, MongoComputations(), _keyed(config))
    return {IMPORT: jobs.import_interactions, COMPUTE: jobs.compute_scores}


def _keyed(config: ProcessConfig) -> Keyed:
    return BlindIndex(config.keys_dir, SERVICE).token


def _uploads(config: ProcessConfig) -> Uploads:
    from services.analytics.files import Uploads

    return Uploads(config.lake_dir / "_uploads", Sealer(SERVICE, config.keys_dir, config.protection.cipher_of_keys))


def _warehouse(config: ProcessConfig, role: str) -> Warehouse:
    from services.analytics.engine import Engine
    from services.analytics.lake import Lake
    from services.analytics.warehouse import Warehouse

    return Warehouse(Lake(config.lake_dir), Engine(config.data_dir / "spill" / f"analytics-{role}"))
