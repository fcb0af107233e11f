"""Measuring on the real database by processes killed with SIGKILL: the figures are those of an undisturbed run."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from google.longrunning import operations_pb2
from kehu.profiles.v1 import quality_pb2 as pb

from services.chassis import records
from services.chassis.jobs import Jobs, MongoOperations, Owner
from services.profiles.quality.measuring import start_measuring
from services.profiles.store import MongoStore, Store
from tests.profiles.killing import until
from tests.profiles.people import Service
from tests.profiles.quality_world import PEOPLE, add_rule, cells, fill, filled, measure
from tests.profiles.test_quality import state_of
from tests.profiles.test_store import mongo_store

__all__ = ["mongo_store"]


@pytest.fixture
def process_of(mongo_uri: str, mongo_store: Store, tmp_path: Path) -> Iterator[list[subprocess.Popen[bytes]]]:
    started: list[subprocess.Popen[bytes]] = []
    yield started
    for process in started:
        process.kill()
        process.wait()


def test_a_measurement_killed_again_and_again_leaves_the_figures_of_an_undisturbed_one(
    mongo_uri: str, mongo_store: MongoStore, tmp_path: Path, process_of: list[subprocess.Popen[bytes]]
) -> None:
    whole = filled(tmp_path / "keys")
    add_rule(whole.store, "emails", "validity", "email", 0.99)
    measure(whole)
    service = Service(tmp_path / "keys", mongo_store)
    fill(mongo_store, service.vault, service.taker)
    add_rule(mongo_store, "emails", "validity", "email", 0.99)
    operations, jobs = MongoOperations("profiles"), Jobs("profiles")
    operations.ensure_indexes()
    operation = start_measuring(jobs, "", Owner("user:test", "data-office"), "")
    assert isinstance(operation, operations_pb2.Operation)
    argv = [sys.executable, "-m", "tests.profiles.measure_process", mongo_uri, records.database("profiles").name]

    def progress() -> pb.QualityMeasurement:
        found = pb.QualityMeasurement()
        jobs.get(operation.name, "data-office").metadata.Unpack(found)
        return found

    for least in (5, 20, 35):
        process = subprocess.Popen([*argv, str(tmp_path / "keys")], cwd=Path(__file__).parents[2])
        process_of.append(process)
        until(lambda least=least: progress().profiles_read >= least)
        process.kill()
        process.wait()
        assert progress().profiles_read < PEOPLE, "it was killed in the middle"
        held = operations.get(operation.name)
        assert held is not None
        operations.update(operation.name, str(held["lease"]), {"wake_at": datetime.now(UTC) - timedelta(1)})
    process_of.append(subprocess.Popen([*argv, str(tmp_path / "keys")], cwd=Path(__file__).parents[2]))
    until(lambda: jobs.get(operation.name, "data-office").done)

    done = pb.QualityMeasurement()
    assert jobs.get(operation.name, "data-office").response.Unpack(done)
    assert done.profiles_read == PEOPLE
    assert cells(mongo_store) == cells(whole.store)
    assert state_of(mongo_store) == state_of(whole.store)
