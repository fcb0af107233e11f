"""Measures quality until it is killed by a test: `python -m tests.profiles.measure_process URI DATABASE KEYS`."""

from __future__ import annotations

import sys
from pathlib import Path

import mongoengine

from services.chassis.jobs import Jobs, Worker
from services.profiles.dictionary import Dictionary
from services.profiles.quality.measuring import Measurer
from services.profiles.store import MongoStore
from services.profiles.vault import Vault


def main() -> None:
    """Run due jobs until killed, five profiles at a time, saving after each five."""
    uri, database, keys = sys.argv[1:4]
    mongoengine.connect(db=database, alias="profiles", host=uri, tz_aware=True, uuidRepresentation="standard")
    store = MongoStore()
    measurer = Measurer(store, Vault(Path(keys)), Dictionary(store), Jobs("profiles"), 5, save_seconds=0)
    worker = Worker("profiles", measurer.handlers())
    while True:
        worker.run_one()


if __name__ == "__main__":
    main()
