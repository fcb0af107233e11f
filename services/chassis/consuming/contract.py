"""What a consumer class says (`@on_event`) and what its handlers get (`Event`)."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Generic, TypeVar

from google.protobuf import json_format
from google.protobuf.message import Message

BODY_LIMIT = 1 << 20  # bytes; a fact is a few hundred, and a page of 500 links stays below 64 KiB
CONTENT_TYPE = "application/cloudevents+json"

M = TypeVar("M", bound=Message)
Handler = Callable[..., None]


class PoisonedEvent(Exception):
    """The body can never be handled, however often it is tried; says the kind of fault and no content."""

    def __init__(self, kind: str) -> None:
        super().__init__(kind)
        self.kind = kind


@dataclass(frozen=True, slots=True)
class Event(Generic[M]):
    """A fact as received: the CloudEvents id, the resource it is about, when it happened, its version, the fact."""

    id: str
    subject: str
    time: datetime
    version: int
    message: M


def snake_case(name: str) -> str:
    """Return ProfileChanged as profile_changed."""
    return re.sub(r"(?<=[a-z0-9])(?=[A-Z])", "_", name).lower()


def on_event(source: str, message_class: type[M]) -> Callable[[Handler], Handler]:
    """Mark a method of a consumer class as the handler of one kind of fact of the service `source`.

    The method gets an `Event[message_class]`. Events come at least once and in any order: it must be
    idempotent by (name, version). What it raises is retried with back-off, then parked.
    """

    def mark(method: Handler) -> Handler:
        method.__kehu_event__ = (source, message_class)  # type: ignore[attr-defined]
        return method

    return mark


@dataclass(frozen=True, slots=True)
class Subscription:
    """One consumer's wish for one kind of fact; its queue's name is stable for ever."""

    consumer: str
    source: str
    event: str

    @property
    def exchange(self) -> str:
        """Where the source publishes."""
        return f"{self.source}.events"

    @property
    def queue(self) -> str:
        """Where the events of this subscription wait."""
        return f"{self.consumer}.{self.source}.{self.event}"

    @property
    def dead_queue(self) -> str:
        """Where events are parked."""
        return f"{self.queue}.dead"


def handlers(consumer: object) -> dict[Subscription, tuple[type[Message], Handler]]:
    """Return what a consumer (an instance of a class with a `name`) listens to, and with which methods."""
    name = str(consumer.name)  # type: ignore[attr-defined]
    found = {}
    for attribute in dir(type(consumer)):
        marked = getattr(getattr(type(consumer), attribute), "__kehu_event__", None)
        if marked is not None:
            source, message_class = marked
            subscription = Subscription(name, source, snake_case(message_class.DESCRIPTOR.name))
            found[subscription] = (message_class, getattr(consumer, attribute))
    return found


def decode(body: bytes, message_class: type[M]) -> Event[M]:
    """Read a CloudEvent whose data is the proto JSON of `message_class`; fields we do not know yet are skipped.

    Raises:
        PoisonedEvent: the body is too large, no JSON, no CloudEvent, or of another type.
    """
    if len(body) > BODY_LIMIT:
        raise PoisonedEvent("TooLarge")
    try:
        envelope = json.loads(body)
    except (ValueError, RecursionError):
        raise PoisonedEvent("NotJson") from None
    if not isinstance(envelope, Mapping):
        raise PoisonedEvent("NotCloudEvent")
    if envelope.get("type") != message_class.DESCRIPTOR.full_name:
        raise PoisonedEvent("WrongType")
    try:
        message = json_format.ParseDict(envelope["data"], message_class(), ignore_unknown_fields=True)
        time = datetime.fromisoformat(envelope["time"])
        return Event(str(envelope["id"]), str(envelope["subject"]), time, int(envelope.get("version", 0)), message)
    except (json_format.ParseError, KeyError, TypeError, ValueError, AttributeError, RecursionError):
        raise PoisonedEvent("NotCloudEvent") from None
