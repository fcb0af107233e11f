"""Share commits: handlers that write at the same time wait together for one commit of all their documents."""

from __future__ import annotations

import threading
import time
from collections.abc import Sequence
from dataclasses import dataclass, field

from services.search.store.port import Engine, EngineUnavailable, IndexDocument

WINDOW_SECONDS = 0.2  # how long a first document waits for company; a commit costs 20 ms of CPU whatever is in it
MAX_BATCH = 500
PATIENCE_SECONDS = 30.0  # an engine that is away this long fails the handlers; their events are tried again later
RETRY_SECONDS = 1.0


@dataclass(slots=True)
class _Batch:
    """Documents that will be committed together, and what became of them."""

    documents: list[IndexDocument] = field(default_factory=list)
    done: threading.Event = field(default_factory=threading.Event)
    full: threading.Event = field(default_factory=threading.Event)
    error: BaseException | None = None


class BatchingWriter:
    """Writes for many threads; the first of a batch waits a moment for others, then commits for all.

    No thread of its own and no sleeping on eventlet's clock, so it works inside nameko's native threads.
    """

    def __init__(
        self,
        engine: Engine,
        window_seconds: float = WINDOW_SECONDS,
        patience_seconds: float = PATIENCE_SECONDS,
    ) -> None:
        self._engine = engine
        self._window = window_seconds
        self._patience = patience_seconds
        self._pause = threading.Event()  # waits without eventlet's clock; never set
        self._lock = threading.Lock()
        self._open: _Batch | None = None
        self._committing = threading.Lock()

    def write(self, documents: Sequence[IndexDocument]) -> None:
        """Return when the documents are committed.

        Raises:
            EngineUnavailable: the commit of the batch failed; repeat.
        """
        batch, leads = self._join(documents)
        if leads:
            self._lead(batch)
        else:
            batch.done.wait()
        if batch.error is not None:
            raise batch.error

    def _join(self, documents: Sequence[IndexDocument]) -> tuple[_Batch, bool]:
        with self._lock:
            leads = self._open is None
            batch = self._open = self._open or _Batch()
            batch.documents += documents
            if len(batch.documents) >= MAX_BATCH:
                self._open = None
                batch.full.set()
            return batch, leads

    def _lead(self, batch: _Batch) -> None:
        """Commit for the batch when its window is over or it is full, and no earlier commit is under way."""
        batch.full.wait(self._window)
        self._committing.acquire()
        try:
            with self._lock:
                if self._open is batch:
                    self._open = None
            self._write(batch.documents)
        except BaseException as error:
            batch.error = error
        finally:
            self._committing.release()
            batch.done.set()

    def _write(self, documents: Sequence[IndexDocument]) -> None:
        until = time.monotonic() + self._patience
        while True:
            try:
                return self._engine.write(documents)
            except EngineUnavailable:
                if time.monotonic() + RETRY_SECONDS > until:
                    raise
            self._pause.wait(RETRY_SECONDS)
