"""When the garbage collector looks for cycles, in a process that serves or works."""

from __future__ import annotations

import gc

GARBAGE_AFTER = 50_000  # objects: a batch makes many and next to no cycles, and looking for those took a sixth of it


def spare_collections() -> None:
    """Let the garbage collector look for cycles seldom, and never among what start-up made."""
    gc.freeze()
    gc.set_threshold(GARBAGE_AFTER, 20, 20)
