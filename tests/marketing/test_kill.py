"""kill -9 of the worker in the middle of a run, on the MongoDB-wire server and a real mail server."""

from __future__ import annotations

import contextlib
import random
import subprocess
import sys
import time
import uuid
from collections import Counter
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from types import SimpleNamespace

import mongoengine
import pytest
from kehu.consent.v1.consent_pb2_grpc import add_ConsentServiceServicer_to_server

from infra.servers import USER
from infra.smtp_sink import read_mailbox
from services.chassis import records
from services.chassis.jobs import Jobs, MongoOperations, Owner
from services.chassis.server import Serving
from services.consent.api import ConsentServicer
from services.consent.domain.records import ProfileConsents
from services.consent.store import MemoryConsentStore
from services.marketing.documents import RECORD_CLASSES
from services.marketing.domain.campaigns import Campaign, step
from services.marketing.domain.deliveries import Run, RunState, tally
from services.marketing.domain.templates import Template
from services.marketing.jobs import RUN
from services.marketing.store_mongo import MongoMarketingStore
from services.marketing.wire import report_to_proto
from tests.consent.registry import OFFERS, member_notice, record
from tests.fakes.analytics_fake import AnalyticsFake, analytics_serving
from tests.fakes.profiles_fake import ProfilesFake, profiles_serving
from tests.harness import running
from tests.marketing.world import NEVER, RULE

PEOPLE = 120
KILLS = 4
A_GRANT = record("g", "GRANTED", notice=3, answered="2026-07-01")
ROOT = Path(__file__).parents[2]


@pytest.fixture
def store(mongo_uri):
    records.connect(SimpleNamespace(mongo_uri=mongo_uri, grpc_threads=4), "marketing")
    records.ensure_indexes(RECORD_CLASSES)
    MongoOperations("marketing").ensure_indexes()
    yield MongoMarketingStore()
    mongoengine.disconnect("marketing")


@contextlib.contextmanager
def surroundings(ids):
    """Run analytics, profiles and consent; three of four people consented."""
    consents = MemoryConsentStore()
    consents.save_notice(member_notice())
    consents.save_purpose(OFFERS)
    granted = [ProfileConsents(one, (A_GRANT,)) for index, one in enumerate(ids) if index % 4]
    consents.save_consents([(one, []) for one in granted])
    analytics, profiles = AnalyticsFake(), ProfilesFake()
    analytics.audience, analytics.page_limit = list(ids), 50
    profiles.contacts = {one: (f"顾客{one}", f"{one}@example.cn") for one in ids}
    consent = Serving("consent", [(add_ConsentServiceServicer_to_server, ConsentServicer(consents))])
    with (
        running(analytics_serving(analytics)) as one,
        running(profiles_serving(profiles)) as two,
        running(consent) as three,
    ):
        yield [one.address, two.address, three.address]


def start_run(store) -> tuple[str, str, str]:
    campaign_id, run_id = uuid.uuid4().hex, uuid.uuid4().hex
    template = Template("您好 {{display_name}}", "text")
    campaign = Campaign(campaign_id, "五月", "s1", "offers", "email", template, quiet_hours=NEVER)
    campaign = store.save_campaign(campaign)
    now = datetime.now(UTC)
    run = store.save_run(Run(run_id, campaign_id, RULE.SerializeToString(), RunState.SCHEDULED, start_time=now))
    args = {"run_id": run_id, "campaign_id": campaign_id}
    operation = Jobs("marketing").start(RUN, args, report_to_proto(run, {}, campaign), Owner("u", "d"), run_id)
    started, fact = step(campaign, "run", now, run_id)
    store.save_campaign(replace(started), [fact])
    return campaign_id, run_id, operation.name


def report(store, campaign_id, run_id):
    run, campaign = store.run(run_id), store.campaign(campaign_id)
    in_hand = tally(store.page(run_id, run.page)) if run.page_ids else {}
    found = report_to_proto(run, in_hand, campaign)
    assert found.sent + found.skipped + found.failed + found.unknown + found.pending == found.audience
    return found


@contextlib.contextmanager
def worker(arguments):
    command = [sys.executable, "-m", "tests.marketing.worker_process", *arguments]
    environment = {"PYTHONPATH": f"{ROOT}:{ROOT / 'proto'}", "PATH": "/usr/bin:/bin"}
    process = subprocess.Popen(command, cwd=ROOT, env=environment, stdout=subprocess.PIPE, text=True)
    try:
        assert process.stdout is not None and process.stdout.readline() == "ready\n"
        yield process
    finally:
        process.kill()
        process.wait()
        process.stdout.close()


def until(claim, seconds):
    deadline = time.monotonic() + seconds
    while not claim():
        assert time.monotonic() < deadline, "not in time"
        time.sleep(0.01)


@pytest.mark.slow
def test_kill_minus_nine_again_and_again_sends_nothing_twice(store, mongo_uri, smtp_sink):
    ids = [f"k{number:04d}" for number in range(PEOPLE)]
    chance = random.Random(7)
    with surroundings(ids) as addresses:
        campaign_id, run_id, name = start_run(store)
        arguments = [mongo_uri, str(smtp_sink.port), USER, smtp_sink.password, *addresses]

        def mails():
            return len(list(smtp_sink.folder.glob("*.eml")))

        for _ in range(KILLS):
            before = mails()
            with worker(arguments) as process:
                wanted = before + chance.randint(3, 15)
                until(lambda wanted=wanted: mails() >= wanted, 60)
                time.sleep(chance.uniform(0, 0.02))
                process.kill()
            report(store, campaign_id, run_id)
            found = store_operation(name)
            MongoOperations("marketing").update(name, found["lease"], {"wake_at": datetime.now(UTC)})  # lease over
        with worker(arguments):
            until(lambda: store_operation(name)["done"], 120)

    final = report(store, campaign_id, run_id)
    sent = Counter(mail.recipient for mail in read_mailbox(smtp_sink.folder))
    assert max(sent.values()) == 1
    assert (final.audience, final.skipped, final.pending, final.failed) == (PEOPLE, PEOPLE // 4, 0, 0)
    assert final.sent + final.unknown == PEOPLE - PEOPLE // 4
    assert final.unknown <= KILLS
    assert final.sent <= len(sent) <= final.sent + final.unknown


def store_operation(name):
    found = MongoOperations("marketing").get(name)
    assert found is not None
    return found
