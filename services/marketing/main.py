"""The composition root of marketing."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from datetime import UTC, datetime

from kehu.analytics.v1.analytics_pb2_grpc import AnalyticsServiceStub
from kehu.consent.v1.consent_pb2_grpc import ConsentServiceStub
from kehu.marketing.v1 import marketing_pb2_grpc
from kehu.profiles.v1.profiles_pb2_grpc import ProfilesServiceStub

from services.chassis import records
from services.chassis.client import Channels
from services.chassis.config import ProcessConfig
from services.chassis.crypto import BlindIndex, read_keys
from services.chassis.jobs import Handler
from services.chassis.server import Serving
from services.marketing.api import MarketingServicer
from services.marketing.documents import RECORD_CLASSES
from services.marketing.domain.links import delivery_of, unsubscribe_token
from services.marketing.events import MarketingConsumer
from services.marketing.gate import Gate
from services.marketing.jobs import REVOKE, RUN, CampaignRunner, ConsentRevoker
from services.marketing.mail import SmtpMailer
from services.marketing.operations import CampaignOperations
from services.marketing.optouts import Surroundings
from services.marketing.remotes import RemoteAudiences, RemoteConsents, RemoteContacts
from services.marketing.sending import Clocks, Sender
from services.marketing.store_mongo import MongoMarketingStore

SERVICE = "marketing"
KEY = "unsubscribe"


def serving(config: ProcessConfig) -> Serving:
    """Return what `kehu serve marketing` serves."""
    records.connect(config, SERVICE)
    store = MongoMarketingStore()
    jobs = CampaignOperations(store)
    keys = tuple(key.secret for key in read_keys(KEY, config.keys_dir))
    around = Surroundings(lambda token: delivery_of(keys, token))
    analytics = Channels(config, SERVICE).stub(AnalyticsServiceStub)
    servicer = MarketingServicer(store, jobs, analytics, around)
    add = marketing_pb2_grpc.add_MarketingServiceServicer_to_server
    return Serving(
        SERVICE, [(add, servicer)], jobs=jobs, records=RECORD_CLASSES, prepare=store.identities.ensure_indexes
    )


def consuming(config: ProcessConfig) -> MarketingConsumer | None:
    """Return the consumer that `kehu consume` runs."""
    records.connect(config, SERVICE)
    return MarketingConsumer(MongoMarketingStore())


def working(config: ProcessConfig) -> Mapping[str, Handler] | None:
    """Return the handlers of the jobs that `kehu work` runs."""
    records.connect(config, SERVICE)
    channels = Channels(config, SERVICE)
    store = MongoMarketingStore()
    consents = RemoteConsents(channels.stub(ConsentServiceStub))
    contacts = RemoteContacts(channels.stub(ProfilesServiceStub))
    index = BlindIndex(config.keys_dir, SERVICE)
    gate = Gate(store, consents, contacts, lambda address: index.token("email", address.strip().lower()))
    clocks = Clocks(lambda: datetime.now(UTC), time.monotonic)
    sender = Sender(store, gate, SmtpMailer(config.smtp), _link_of(config), clocks)
    audiences = RemoteAudiences(channels.stub(AnalyticsServiceStub))
    runner = CampaignRunner(store, audiences, gate, sender, clocks)
    return {RUN: runner, REVOKE: ConsentRevoker(store, consents)}


def _link_of(config: ProcessConfig) -> Callable[[str], str]:
    key = read_keys(KEY, config.keys_dir)[-1].secret
    base = config.public_url.rstrip("/")
    return lambda delivery_id: f"{base}/v1/unsubscribe/{unsubscribe_token(key, delivery_id)}"
