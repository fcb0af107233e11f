"""What is stored of match models."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime

IN_USE = "in-use"


@dataclass(frozen=True, slots=True)
class StoredModel:
    """A model that was learnt: `content` as model_to_json writes it, `effect` a MatchModelEffect as JSON.

    `base` is the model that was in use when it was learnt, with which the effect compares it.
    """

    id: str
    content: str
    base: str
    effect: str
    author: str
    version: int = 0
    create_time: datetime | None = None
    update_time: datetime | None = None


@dataclass(frozen=True, slots=True)
class ModelUse:
    """The models that were activated and not undone, the one in use last; none means the shipped one.

    `switches` are kind, model, time, subject and reason of every change, oldest first.
    """

    id: str = IN_USE
    models: Sequence[str] = ()
    switches: Sequence[Sequence[str]] = ()
    version: int = 0
    create_time: datetime | None = None
    update_time: datetime | None = None
