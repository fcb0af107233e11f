"""The snapshot that a process decides by, the candidate beside it, and the thread that keeps it new."""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable
from typing import TYPE_CHECKING

from services.chassis import telemetry
from services.chassis.errors import Invalid, Unavailable
from services.chassis.repeating import Repeating

if TYPE_CHECKING:
    from services.chassis.access.shadow import Shadow
    from services.chassis.access.snapshot import PolicySnapshot

log = logging.getLogger("kehu.access")


class RulesRefused(Invalid):
    """Newer rules cannot be used; `kept` is the last good ones with what else is new: revocations, keys, shares."""

    def __init__(self, text: str, kept: PolicySnapshot | None = None) -> None:
        """`kept` is None when nothing else is new, or nothing was ever loaded."""
        super().__init__(text)
        self.kept = kept


class SnapshotHolder:
    """Holds the snapshot of this process; readers take one reference and keep it for their whole request."""

    def __init__(self) -> None:
        """Start empty: nothing can be decided until a first snapshot comes."""
        self._snapshot: PolicySnapshot | None = None
        self._loaded = threading.Event()
        self.shadow: Shadow | None = None  # a candidate decided alongside, never in place

    @property
    def current(self) -> PolicySnapshot:
        """Return the last good snapshot.

        Raises:
            Unavailable: none was ever loaded; the process is not ready.
        """
        snapshot = self._snapshot
        if snapshot is None:
            raise Unavailable("No access policy has been loaded yet; try again in a few seconds.")
        return snapshot

    @property
    def known(self) -> PolicySnapshot | None:
        """Return the snapshot, or None before the first."""
        return self._snapshot

    @property
    def loaded(self) -> bool:
        """Tell whether decisions can be made."""
        return self._snapshot is not None

    def swap(self, snapshot: PolicySnapshot) -> None:
        """Replace the snapshot whole, by one reference."""
        self._snapshot = snapshot
        self._loaded.set()

    def wait_loaded(self, timeout_seconds: float) -> bool:
        """Wait for the first snapshot."""
        return self._loaded.wait(timeout_seconds)


class SnapshotPoller(Repeating):
    """A thread that asks for a newer snapshot twice a second; on failure the last good one stays.

    What is revoked counts even if the rules of the same reply cannot be used.
    """

    INTERVAL_SECONDS = 0.5  # ten idle processes cost access one percent of a core more than at 2 s (docs/identity.md)

    def __init__(
        self,
        holder: SnapshotHolder,
        fetch: Callable[[PolicySnapshot | None], PolicySnapshot | None],
        interval_seconds: float = INTERVAL_SECONDS,
    ) -> None:
        """`fetch` gets the known snapshot and returns a newer one, or None when there is none."""
        super().__init__("policy-poller")
        self._holder = holder
        self._fetch = fetch
        self._interval = interval_seconds
        self._failing = False

    def turn(self) -> float:
        """Fetch; as long as there is no snapshot at all, again soon."""
        self.poll_once()
        return self._interval if self._holder.loaded else min(self._interval, 0.25)

    def poll_once(self) -> bool:
        """Fetch once; tell whether access answered with something usable."""
        try:
            snapshot = self._fetch(self._holder.known)
        except Exception as error:  # whatever failed, the last good rules stay in force
            if isinstance(error, RulesRefused) and error.kept is not None:
                self._holder.swap(error.kept)
            if not self._failing:
                log.warning("policy not refreshed, the last one stays in force: %s", type(error).__name__)
            self._failing = True
            return False
        self._failing = False
        if snapshot is not None:
            self._holder.swap(snapshot)
            telemetry.POLICY_REVISION.set(snapshot.version)
            log.info("policy version %s in force", snapshot.version)
        telemetry.POLICY_ANSWERED.set_to_current_time()
        return True
