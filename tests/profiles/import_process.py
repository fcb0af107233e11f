"""A worker process of profiles to kill: `python -m tests.profiles.import_process URI DATABASE KEYS [N [M]]`.

N is how many rows are taken in at once; before a job is saved for the Mth time, it kills itself with SIGKILL.
"""

from __future__ import annotations

import os
import signal
import sys
from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path

import mongoengine

from services.analytics import expiring
from services.analytics.engine import Engine
from services.analytics.lake import Lake
from services.analytics.warehouse import Warehouse
from services.chassis.jobs import Job, Jobs, Worker
from services.profiles.admission import BATCH_ROWS
from services.profiles.ageing.retaining import Keeper
from services.profiles.ageing.staging import Measured, Stager
from services.profiles.ageing.transactions import Month
from services.profiles.dictionary import Dictionary
from services.profiles.domain.lifecycle import Figures
from services.profiles.exporting import Exporter
from services.profiles.intake.places import load_targets
from services.profiles.intake.pulls import Puller
from services.profiles.jobs import Importer
from services.profiles.protection.rotating import KeyRotator
from services.profiles.resolution.resolving import Resolver
from services.profiles.store import MongoStore
from services.profiles.taking import Taker
from services.profiles.training.learning import Learner
from services.profiles.training.models import Models
from services.profiles.vault import Vault


def everybody_bought(profile_ids: Sequence[str]) -> Measured:
    """Answer as analytics does of people who bought thrice, last fifty days ago."""
    figures = Figures(3, 30_000, 50, 400, 3, 3, 3)
    now = datetime.now(UTC)
    return Measured(now, now, dict.fromkeys(profile_ids, figures))


class LakeInteractions:
    """The interactions of a lake on disk, without the service in front of it."""

    def __init__(self, root: Path) -> None:
        self._root = root

    def _warehouse(self) -> Warehouse:
        return Warehouse(Lake(self._root), Engine(self._root / "_spill"))

    def months(self, kept_ids: Sequence[str]) -> list[Month]:
        """Return the months that have interactions."""
        return [Month(item.month, item.rows, item.kept) for item in expiring.months(self._warehouse(), kept_ids)]

    def delete(self, months: Sequence[str], kept_ids: Sequence[str]) -> None:
        """Delete the interactions of months."""
        expiring.delete_months(self._warehouse(), months, kept_ids)


def die_before_save(number: int) -> None:
    """Kill this process when a job is about to be saved for the `number`th time."""
    saved, left = Job.save, iter(range(number - 1, -1, -1))

    def save(job: Job, *args: object) -> None:
        if next(left) == 0:
            os.kill(os.getpid(), signal.SIGKILL)
        saved(job, *args)  # type: ignore[arg-type]

    Job.save = save  # type: ignore[method-assign, assignment]


def main() -> None:
    """Run due jobs until killed."""
    uri, database, keys = sys.argv[1:4]
    mongoengine.connect(db=database, alias="profiles", host=uri, tz_aware=True, uuidRepresentation="standard")
    store, vault = MongoStore(), Vault(Path(keys))
    models = Models(store)
    taker = Taker(store, vault, models, Dictionary(store))
    resolver, learner = Resolver(store, vault, taker.merger, models), Learner(store, vault, models)
    keeper = Keeper(store, vault, Dictionary(store), LakeInteractions(Path(keys) / "lake"), page=50)
    batch_rows = int(sys.argv[4]) if len(sys.argv) > 4 else BATCH_ROWS
    if len(sys.argv) > 5:
        die_before_save(int(sys.argv[5]))
    importer = Importer(store, vault, taker, batch_rows)
    puller = Puller(store, vault, Jobs("profiles"), load_targets(Path(keys)), importer.admission)
    stager = Stager(store, vault, Dictionary(store), everybody_bought, page=50)
    rotator = KeyRotator(store, vault, others_know_after=0.1, read_seconds=0.1)
    items = (importer, resolver, learner, keeper, puller, stager, rotator, Exporter(store, vault))
    worker = Worker("profiles", {kind: handler for item in items for kind, handler in item.handlers().items()})
    print("ready", flush=True)
    while True:
        worker.run_one()


if __name__ == "__main__":
    main()
