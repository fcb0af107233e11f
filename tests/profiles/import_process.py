"""A worker process of profiles for the tests to kill: `python -m tests.profiles.import_process URI DATABASE KEYS [N]`.

N is how many rows are taken in at once.
"""

from __future__ import annotations

import sys
from pathlib import Path

import mongoengine

from services.chassis.jobs import Jobs, Worker
from services.profiles.admission import BATCH_ROWS
from services.profiles.dictionary import Dictionary
from services.profiles.domain.model import default_model
from services.profiles.jobs import Importer
from services.profiles.pulls import Puller, load_targets
from services.profiles.resolving import Resolver
from services.profiles.retaining import Keeper
from services.profiles.store import MongoStore
from services.profiles.taking import Taker
from services.profiles.vault import Vault


def main() -> None:
    """Run due jobs until killed."""
    uri, database, keys = sys.argv[1:4]
    mongoengine.connect(db=database, alias="profiles", host=uri, tz_aware=True, uuidRepresentation="standard")
    store, vault = MongoStore(), Vault(Path(keys))
    taker = Taker(store, vault, default_model(), Dictionary(store))
    resolver = Resolver(store, vault, taker.merger, default_model())
    keeper = Keeper(store, vault, Dictionary(store), page=50)
    batch_rows = int(sys.argv[4]) if len(sys.argv) > 4 else BATCH_ROWS
    importer = Importer(store, vault, taker, batch_rows)
    puller = Puller(store, vault, Jobs("profiles"), load_targets(Path(keys)), importer.admission)
    handlers = {**importer.handlers(), **resolver.handlers(), **keeper.handlers(), **puller.handlers()}
    worker = Worker("profiles", handlers)
    print("ready", flush=True)
    while True:
        worker.run_one()


if __name__ == "__main__":
    main()
