"""A worker of the marketing service as a process of its own, for tests that kill it.

Arguments: MongoDB URI, SMTP port, user, password, then the addresses of analytics, profiles and consent.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Callable
from datetime import UTC, datetime
from types import SimpleNamespace

import grpc
from kehu.analytics.v1.analytics_pb2_grpc import AnalyticsServiceStub
from kehu.consent.v1.consent_pb2_grpc import ConsentServiceStub
from kehu.profiles.v1.profiles_pb2_grpc import ProfilesServiceStub

from services.chassis import records
from services.chassis.client import intercepted
from services.chassis.config import SmtpConfig
from services.chassis.jobs import MongoOperations, Worker
from services.marketing.gate import Gate
from services.marketing.jobs import RUN, CampaignRunner
from services.marketing.mail import SmtpMailer
from services.marketing.remotes import RemoteAudiences, RemoteConsents, RemoteContacts
from services.marketing.sending import Clocks, Sender
from services.marketing.store_mongo import MongoMarketingStore
from tests.harness import _As


def as_marketing(address: str) -> grpc.Channel:
    """Return a channel that says it is the marketing service."""
    return intercepted(grpc.intercept_channel(grpc.insecure_channel(address), _As([("x-test-peer", "marketing")])))


def build(smtp: SmtpConfig, analytics: str, profiles: str, consent: str) -> CampaignRunner:
    """Return the runner that main.py builds, over these addresses."""
    store = MongoMarketingStore()
    consents = RemoteConsents(ConsentServiceStub(as_marketing(consent)))
    contacts = RemoteContacts(ProfilesServiceStub(as_marketing(profiles)))
    gate = Gate(store, consents, contacts, lambda address: f"token-{hash(address)}")
    clocks = Clocks(lambda: datetime.now(UTC), time.monotonic)
    link: Callable[[str], str] = lambda one: f"https://kehu.example/v1/unsubscribe/{one}"  # noqa: E731
    sender = Sender(store, gate, SmtpMailer(smtp), link, clocks)
    return CampaignRunner(store, RemoteAudiences(AnalyticsServiceStub(as_marketing(analytics))), gate, sender, clocks)


def main() -> None:
    """Work until killed."""
    uri, port, user, password, *addresses = sys.argv[1:]
    records.connect(SimpleNamespace(mongo_uri=uri, grpc_threads=4), "marketing")  # type: ignore[arg-type]
    smtp = SmtpConfig("127.0.0.1", int(port), user, password, "Kehu <no-reply@kehu.example>", False)
    worker = Worker("marketing", {RUN: build(smtp, *addresses)}, MongoOperations("marketing"), threads=1)
    worker.start()
    print("ready", flush=True)
    time.sleep(3600)


if __name__ == "__main__":
    main()
