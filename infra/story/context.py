"""What the steps of the story share."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

from infra.api import Json, Session, SignIns
from infra.stack import write_private

Progress = Callable[[float, str], None]
ORDER = ("till", "shop", "callcentre")


@dataclass(slots=True)
class Context:
    """The stack's folder, its API, and what earlier steps left for later ones."""

    folder: Path
    sign_ins: SignIns
    progress: Progress
    kept: Json = field(default_factory=dict)
    _sessions: dict[tuple[str, str], Session] = field(default_factory=dict)

    @property
    def sample(self) -> Path:
        """Where the generated files are."""
        return self.folder / "sample"

    def as_department(self, name: str, purpose: str) -> Session:
        """Return the session of a department's app for a purpose; no purpose is one too."""
        if (name, purpose) not in self._sessions:
            self._sessions[name, purpose] = self.sign_ins.department(name, purpose)
        return self._sessions[name, purpose]

    @property
    def steward(self) -> Session:
        """The data office."""
        return self.as_department("data-office", "stewardship")

    @property
    def marketer(self) -> Session:
        """Marketing."""
        return self.as_department("marketing", "marketing")

    @property
    def analyst(self) -> Session:
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


def whole(value: object) -> int:
    """Return a figure of a reply; proto JSON writes 64-bit integers as strings and leaves zeros out."""
    return int(str(value or 0))


def shown(value: object) -> str:
    """Return a figure as people read it."""
    return f"{whole(value):,}"
