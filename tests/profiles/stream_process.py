"""What takes a stream in, as a process to kill: `python -m tests.profiles.stream_process URI DATABASE KEYS FILE N`.

Sends the lines of a file from line N on, a hundred at a time, and prints the last line of each batch once it is taken.
"""

from __future__ import annotations

import sys
from itertools import islice
from pathlib import Path

import mongoengine

from services.profiles.admission import Admission, settings_of
from services.profiles.dictionary import Dictionary
from services.profiles.domain.model import default_model
from services.profiles.intake.streaming import entries_of
from services.profiles.store import MongoStore
from services.profiles.taking import Taker
from services.profiles.vault import Vault

LINES_AT_ONCE = 100


def main() -> None:
    """Take the lines in until they end."""
    uri, database, keys, file, first = sys.argv[1:6]
    mongoengine.connect(db=database, alias="profiles", host=uri, tz_aware=True, uuidRepresentation="standard")
    store, vault = MongoStore(), Vault(Path(keys))
    admission = Admission(store, vault, Taker(store, vault, default_model, Dictionary(store)))
    source = store.sources.get("till")
    assert source is not None
    with Path(file).open("rb") as lines:
        coming = islice(lines, int(first) - 1, None)
        number = int(first)
        while batch := list(islice(coming, LINES_AT_ONCE)):
            entries, last = entries_of(b"".join(batch), number)
            admission.admit(settings_of(source), entries, "stream/1")
            print(last, flush=True)
            number = last + 1


if __name__ == "__main__":
    main()
