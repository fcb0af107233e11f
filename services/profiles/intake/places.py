"""Places to pull from that the operator named: what they are, and the files that lie in them.

A caller names a place, never an address, so nothing inside the network can be reached through a pull.
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import datetime
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Any, TypeVar

import orjson

from services.chassis.errors import KehuError
from services.profiles.errors import PullFailed, PullTargetUnknown

T = TypeVar("T")
TARGETS_FILE = "pull-targets.json"
FILES_LIMIT = 10_000  # of one folder and those below it
SETTLE_SECONDS = 10.0  # a local file that changed more recently may still be written
STAMPS = ("mtime", "LastModified", "last_modified", "updated", "created")


@dataclass(frozen=True, slots=True)
class Target:
    """A place to pull from: its URL and what its file system is opened with."""

    url: str
    options: Mapping[str, Any] = field(default_factory=dict, repr=False)


@dataclass(frozen=True, slots=True)
class Wanted:
    """Which files of a place: those of a folder whose names fit, with those of the folders below or without."""

    folder: str = ""
    pattern: str = ""
    descends: bool = False


@dataclass(frozen=True, slots=True)
class Found:
    """A file of a listing; `mark` changes when the file does."""

    path: str
    name: str
    mark: str
    stamp: float


class TooManyFiles(Exception):
    """A folder holds more than a look goes through."""


def load_targets(keys_dir: Path) -> dict[str, Target]:
    """Return the places that the operator's file names; none without it."""
    place = keys_dir / TARGETS_FILE
    if not place.exists():
        return {}
    return {
        name: Target(item["url"], item.get("options", {})) for name, item in orjson.loads(place.read_bytes()).items()
    }


def target_of(targets: Mapping[str, Target], name: str) -> Target:
    """Return a place by name.

    Raises:
        PullTargetUnknown: there is no such place.
    """
    if name not in targets:
        raise PullTargetUnknown("no such place is configured", metadata={"target": name})
    return targets[name]


def list_files(
    target: Target, credentials: Mapping[str, str], wanted: Wanted, settle: float
) -> tuple[Any, list[Found]]:
    """Return the file system and the files that fit, oldest first; local ones must be `settle` seconds old.

    Raises:
        TooManyFiles: nobody would look through them.
    """
    import fsspec

    options = {**target.options, **credentials, "skip_instance_cache": True, "use_listings_cache": False}
    system, root = fsspec.core.url_to_fs(target.url, **options)
    folder = f"{root.rstrip('/')}/{wanted.folder}" if wanted.folder else root
    found = [_found(entry) for entry in _entries(system, folder, wanted.descends) if entry["type"] == "file"]
    is_local = "file" in (system.protocol if isinstance(system.protocol, tuple | list) else (system.protocol,))
    kept = [
        item
        for item in found
        if fnmatchcase(item.name, wanted.pattern or "*") and not (is_local and not _is_settled(item, root, settle))
    ]
    return system, sorted(kept, key=lambda item: (item.stamp, item.name))


@contextmanager
def reading(target: str) -> Iterator[None]:
    """Turn whatever a file system raises into PullFailed, which names its kind and nothing else."""
    try:
        yield
    except KehuError:
        raise
    except Exception as error:
        metadata = {"target": target, "cause": type(error).__name__}
        raise PullFailed("the place cannot be read", metadata=metadata) from None


def guarded(pages: Iterator[T], target: str) -> Iterator[T]:
    """Yield pages; what goes wrong while one is fetched is a PullFailed."""
    while True:
        with reading(target):
            page = next(pages, None)
        if page is None:
            return
        yield page


def _entries(system: Any, folder: str, descends: bool) -> Iterator[Mapping[str, Any]]:
    """Yield what lies in a folder, and below it level by level; links to folders are not followed."""
    waiting, count = [folder], 0
    while waiting:
        entries = system.ls(waiting.pop(), detail=True)
        count += len(entries)
        if count > FILES_LIMIT:
            raise TooManyFiles(f"more than {FILES_LIMIT}")
        yield from entries
        if descends:
            waiting += [item["name"] for item in entries if item["type"] == "directory" and not item.get("islink")]


def _is_settled(item: Found, root: str, settle: float) -> bool:
    """Tell whether a local file lies within the place, whatever links say, and is no longer written."""
    real, within = os.path.realpath(item.path), os.path.realpath(root)
    return os.path.commonpath((real, within)) == within and datetime.now().timestamp() - item.stamp >= settle


def _found(entry: Mapping[str, Any]) -> Found:
    path = str(entry["name"])
    stamp = next((entry[name] for name in STAMPS if entry.get(name)), 0.0)
    told: Sequence[object] = (path, entry.get("size"), stamp, entry.get("ETag"), entry.get("etag"))
    mark = hashlib.sha256("\0".join(map(str, told)).encode()).hexdigest()[:24]
    seconds = stamp.timestamp() if isinstance(stamp, datetime) else float(stamp) if _is_number(stamp) else 0.0
    return Found(path, path.rpartition("/")[2], mark, seconds)


def _is_number(stamp: object) -> bool:
    return isinstance(stamp, int | float)
