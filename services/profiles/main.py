"""The composition root of profiles: reads configuration, builds objects, nothing else."""

from __future__ import annotations

from kehu.access.v1.access_pb2_grpc import AccessServiceStub
from kehu.analytics.v1.analytics_pb2_grpc import AnalyticsServiceStub
from kehu.consent.v1.consent_pb2_grpc import ConsentServiceStub
from kehu.profiles.v1 import profiles_pb2_grpc

from services.chassis import records
from services.chassis.client import Channels
from services.chassis.config import ProcessConfig
from services.chassis.jobs import Handler, Jobs
from services.chassis.server import Serving
from services.chassis.server.lending import Lending
from services.profiles.ageing import staging
from services.profiles.ageing.retaining import Keeper
from services.profiles.ageing.transactions import RemoteInteractions
from services.profiles.api import ProfilesServicer
from services.profiles.api.common import Tools
from services.profiles.definitions.effects import EffectCounter
from services.profiles.definitions.rederiving import Rederiver
from services.profiles.dictionary import Dictionary
from services.profiles.documents import ProfileDocument
from services.profiles.events import ProfilesConsumer
from services.profiles.exporting import Exporter
from services.profiles.intake.places import load_targets
from services.profiles.intake.pulls import Puller
from services.profiles.intake.sweeping import Sweeper
from services.profiles.jobs import Importer
from services.profiles.overriding import Overrider
from services.profiles.protection.erasing import Eraser, replay
from services.profiles.protection.rotating import KeyRotator
from services.profiles.quality.measuring import Measurer, schedule
from services.profiles.relations.remotes import RemoteConsents
from services.profiles.relations.suggesting import Suggester
from services.profiles.resolution.resolving import Resolver
from services.profiles.settling import Settler, start
from services.profiles.sharing import SharedTaker
from services.profiles.store import MongoStore
from services.profiles.store.incidents import IncidentDocument
from services.profiles.taking import Taker
from services.profiles.training.learning import Learner
from services.profiles.training.models import Models
from services.profiles.vault import Vault

SERVICE = "profiles"


def serving(config: ProcessConfig) -> Serving:
    """Return what `kehu serve profiles` runs."""
    records.connect(config, SERVICE)
    store, vault = MongoStore(SERVICE), Vault(config.keys_dir, config.protection)
    jobs, dictionary = Jobs(SERVICE), Dictionary(store)

    def prepare() -> None:
        store.prepare()
        replay(store, jobs)
        start(jobs)
        schedule(jobs)
        staging.start(jobs)

    models = Models(store)
    taker = SharedTaker(Taker(store, vault, models, dictionary))
    channels = Channels(config, SERVICE)
    consents, lending = RemoteConsents(channels.stub(ConsentServiceStub)), Lending(channels.stub(AccessServiceStub))
    tools = Tools(store, vault, taker, jobs, dictionary, consents=consents, models=models,
                  reveals_per_day=config.reveals_per_day, targets=load_targets(config.keys_dir),
                  lending=lending)  # fmt: skip
    return Serving(
        SERVICE,
        [(profiles_pb2_grpc.add_ProfilesServiceServicer_to_server, ProfilesServicer(tools))],
        jobs=jobs,
        records=[ProfileDocument, IncidentDocument],
        prepare=prepare,
    )


def consuming(config: ProcessConfig) -> ProfilesConsumer:
    """Return what `kehu consume profiles` runs."""
    records.connect(config, SERVICE)
    return ProfilesConsumer(MongoStore(SERVICE), Jobs(SERVICE))


def working(config: ProcessConfig) -> dict[str, Handler] | None:
    """Return the job handlers that `kehu work profiles` runs."""
    records.connect(config, SERVICE)
    store, vault = MongoStore(SERVICE), Vault(config.keys_dir, config.protection)
    dictionary, models = Dictionary(store), Models(store)
    taker = Taker(store, vault, models, dictionary)
    importer, resolver = Importer(store, vault, taker), Resolver(store, vault, taker.merger, models)
    keepers = Rederiver(store, vault, dictionary), Overrider(store, vault, dictionary), Learner(store, vault, models)
    analytics = Channels(config, SERVICE).stub(AnalyticsServiceStub)
    keeper = Keeper(store, vault, dictionary, RemoteInteractions(analytics))
    puller = Puller(store, vault, Jobs(SERVICE), load_targets(config.keys_dir), importer.admission)
    keys = Eraser(store, vault), KeyRotator(store, vault)
    settler, counter, suggester = Settler(store, taker.merger), EffectCounter(store, vault), Suggester(store, vault)
    found: dict[str, Handler] = {}
    measurer = Measurer(store, vault, dictionary, Jobs(SERVICE))
    stager = staging.Stager(store, vault, dictionary, staging.scores_of(analytics))
    for item in (settler, importer, counter, suggester, puller, resolver, measurer, stager, keeper, *keepers, *keys,
                 Exporter(store, vault), Sweeper(store, Jobs(SERVICE).store)):  # fmt: skip
        found.update(item.handlers())
    return found
