"""What the steps of the story share."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from google.protobuf.timestamp_pb2 import Timestamp
from kehu.client import Kehu

from infra.api import SignIns
from infra.stack import write_private

Json = dict[str, Any]
Progress = Callable[[float, str], None]
ORDER = ("till", "shop", "callcentre")
WAIT_SECONDS = 3600.0  # for a long operation; it goes on by itself, and so does the next load


class StepFailed(Exception):
    """A step found something missing or wrong: says what, and where to look."""


@dataclass(slots=True)
class Context:
    """The stack's folder, its API, and what earlier steps left for later ones."""

    folder: Path
    sign_ins: SignIns
    progress: Progress
    kept: Json = field(default_factory=dict)
    _clients: dict[tuple[str, str], Kehu] = field(default_factory=dict)

    @property
    def sample(self) -> Path:
        """Where the generated files are."""
        return self.folder / "sample"

    def as_department(self, name: str, purpose: str) -> Kehu:
        """Return the client of a department's app for a purpose; no purpose is one too."""
        if (name, purpose) not in self._clients:
            self._clients[name, purpose] = self.sign_ins.department(name, purpose)
        return self._clients[name, purpose]

    @property
    def steward(self) -> Kehu:
        """The data office."""
        return self.as_department("data-office", "stewardship")

    @property
    def marketer(self) -> Kehu:
        """Marketing."""
        return self.as_department("marketing", "marketing")

    @property
    def analyst(self) -> Kehu:
        """Analytics."""
        return self.as_department("analytics", "analysis")

    def read(self, name: str) -> Json:
        """Return a JSON file of the sample."""
        document: Json = json.loads((self.sample / name).read_text("utf-8"))
        return document


def read_state(folder: Path) -> Json:
    """Return what an earlier run of the story left."""
    path = folder / "sample-state.json"
    state: Json = json.loads(path.read_text("utf-8")) if path.exists() else {"done": {}, "kept": {}}
    return state


def save_state(folder: Path, state: Json) -> None:
    """Keep what is done so far."""
    write_private(folder / "sample-state.json", state)


def shown(count: int) -> str:
    """Return a figure as people read it."""
    return f"{count:,}"


def moment(time: Timestamp) -> str:
    """Return a time as people read it: to the second, in UTC."""
    return time.ToDatetime().isoformat(" ", "seconds") + " UTC"


def require(holds: object, complaint: str) -> None:
    """Go on only if it holds.

    Raises:
        StepFailed: it does not.
    """
    if not holds:
        raise StepFailed(complaint)


def check_sum(parts: Mapping[str, int], total: int) -> str:
    """Return the sum as people read it, parts of zero left out.

    Raises:
        StepFailed: it does not add up.
    """
    told = " + ".join(f"{shown(count)} {name}" for name, count in parts.items() if count) or "0"
    require(sum(parts.values()) == total, f"the figures do not add up: {told} are not {shown(total)}")
    return told
