"""Customers with known faults in three sources, for the tests of quality: who counts where is known beforehand."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path

from google.longrunning import operations_pb2
from kehu.profiles.v1 import quality_pb2 as pb

from services.chassis.jobs import LEASE, Owner, Worker
from services.profiles.admission import Admission, Entry, settings_of
from services.profiles.domain.quality_report import Cell
from services.profiles.quality.concluding import figures_of
from services.profiles.quality.measuring import Measurer, start_measuring
from services.profiles.quality.rules import plain_of
from services.profiles.quality.values import StoredQualityRule, day_of
from services.profiles.store import Store
from services.profiles.values import Source
from tests.profiles.people import SURNAMES, Service

PEOPLE = 60
TODAY = datetime.now(UTC).replace(microsecond=0)
OLD = timedelta(days=400)
WEIGHTS = [pow(2, 17 - place, 11) for place in range(17)]  # GB 11643-1999


def resident_id(number: int) -> str:
    """Return a number of a man of Beijing, born on 1 May of some year, with its check digit."""
    digits = f"110105{1950 + number % 50}0501{number:02d}1"
    return digits + "10X98765432"[sum(int(d) * w for d, w in zip(digits, WEIGHTS, strict=True)) % 11]


def sources_of(number: int) -> list[str]:
    """Return where a person is a customer, in the order in which the sources saw them."""
    return ["till", *(["shop"] if number % 2 == 0 else []), *(["app"] if number % 3 == 0 else [])]


def department_of(number: int) -> str:
    """Return which department owns a person: that of the last source."""
    return "service" if number % 3 == 0 else "sales"


def fields(number: int, source: str) -> dict[str, str]:
    """Return what a source says of a person, with its faults."""
    told = {
        "name": SURNAMES[number % 20] + "建国", "phone": f"139{10_203_040 + number * 7919}",
        "email": f"p{number}@mail.example.cn", "birth_date": f"{1950 + number % 50}-05-01",
        "resident_id": resident_id(number),
    }  # fmt: skip
    if source == "shop" and number % 5 == 0:
        told["phone"] = ""
    if source == "till" and number % 11 == 0:
        told["email"] = "nobody"
    if source == "app" and number % 7 == 0:
        told["birth_date"] = "1949-10-01"
    return told


def records() -> Iterator[tuple[int, str]]:
    """Yield person and source of every record."""
    for number in range(PEOPLE):
        for source in sources_of(number):
            yield number, source


def is_old(number: int, source: str) -> bool:
    """Tell whether a record has shown no sign of life for 400 days."""
    return source == "till" and number % 4 == 0


def fill(store: Store, service_vault: object, taker: object) -> None:
    """Take all records in."""
    admission = Admission(store, service_vault, taker)  # type: ignore[arg-type]
    for at, source_id in enumerate(("till", "shop", "app")):
        department = "service" if source_id == "app" else "sales"
        source = store.sources.insert(Source(source_id, department))
        entries = [
            Entry(
                number + 1, fields(number, source_id), False, str(number),
                TODAY - (OLD if is_old(number, source_id) else timedelta(days=10 - at)),
            )
            for number, where in records()
            if where == source_id
        ]  # fmt: skip
        admission.admit(settings_of(source), entries, f"operations/profiles-{source_id}")


def filled(keys: Path, store: Store | None = None) -> Service:
    """Return a service with all records."""
    service = Service(keys, store)
    fill(service.store, service.vault, service.taker)
    return service


def add_rule(store: Store, rule_id: str, dimension: str, field: str, threshold: float, **more: object) -> None:
    """Add a quality rule."""
    number = pb.QualityDimension.Value(f"QUALITY_DIMENSION_{dimension.upper()}")
    message = pb.QualityRule(dimension=number, field=field, threshold=threshold, **more)  # type: ignore[arg-type]
    store.quality_rules.insert(StoredQualityRule(rule_id, plain_of(message), 1))


def worker(service: Service) -> Worker:
    """Return a worker that measures ten profiles at a time and saves each time."""
    tools = service.tools
    measurer = Measurer(service.store, service.vault, tools.dictionary, service.jobs, 10, save_seconds=0)
    return Worker("profiles", measurer.handlers(), service.operations)


def measure(service: Service, department: str = "", request_id: str = "") -> pb.QualityMeasurement:
    """Measure until it is done, as often as the worker must be run."""
    owner = Owner("user:test", "data-office")
    return finish(service, start_measuring(service.jobs, department, owner, request_id))  # type: ignore[arg-type]


def finish(service: Service, operation: operations_pb2.Operation) -> pb.QualityMeasurement:
    """Run a measurement to its end, expired leases expiring at once."""
    for _ in range(100):
        found = service.operations.get(operation.name)
        assert found is not None
        if found["done"]:
            break
        past = datetime.now(UTC) - LEASE
        service.operations.update(operation.name, str(found["lease"]), {"wake_at": past})
        worker(service).run_one()
    result = pb.QualityMeasurement()
    done = service.jobs.get(operation.name, "data-office")
    assert done.response.Unpack(result), done.error
    return result


def cells(store: Store) -> dict[tuple[str, str, str, str], tuple[int, int]]:
    """Return the figures of today."""
    found = {}
    for item in figures_of(store, str(day_of(datetime.now(UTC)))):
        for dimension, field, source, passed, measured in item.cells:
            cell = Cell(dimension, field, source, item.department, passed, measured)  # type: ignore[arg-type]
            found[cell[:4]] = (cell.passed, cell.measured)
    return found  # type: ignore[return-value]
