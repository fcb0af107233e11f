"""What a run needs of others, and how their absence shows."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import Protocol

from services.marketing.domain.planning import ConsentAnswer


class Waiting(Exception):
    """The run cannot go on now; it is taken up again after some seconds. `reason` is CampaignReport.pause_reason."""

    def __init__(self, reason: str, seconds: float) -> None:
        super().__init__(reason)
        self.reason = reason
        self.seconds = seconds


@dataclass(frozen=True, slots=True)
class AudiencePage:
    """Up to 500 recipients in the order of their ids; an empty token ends the audience."""

    profile_ids: tuple[str, ...]
    next_token: str
    total: int
    data_cutoff: datetime | None


@dataclass(frozen=True, slots=True)
class ConsentAnswers:
    """One answer for each person asked about, and how long an allowance may be acted on."""

    by_person: Mapping[str, ConsentAnswer]
    use_within_seconds: float


@dataclass(frozen=True, slots=True)
class Contact:
    """Where to write to a person; lives in memory only."""

    display_name: str = field(repr=False)
    address: str = field(repr=False)


class Audiences(Protocol):
    """The engine that evaluates rules."""

    def page(self, rule: bytes, token: str) -> AudiencePage:
        """Return a page of the rule's audience; Waiting when it does not answer, AudienceRefused when it never will."""


class Consents(Protocol):
    """The consent service."""

    def decide(self, person_ids: Sequence[str], purpose_id: str, channel: str) -> ConsentAnswers:
        """Return answers for at most 500 people; Waiting when it does not answer."""

    def revoke(self, profile_id: str, purpose_id: str, channel: str, request_id: str) -> None:
        """Withdraw consent; repeating the request id changes nothing."""


class Contacts(Protocol):
    """The profiles service."""

    def contacts(self, profile_ids: Sequence[str], channel: str) -> Mapping[str, Contact]:
        """Return the contacts of those of at most 500 people that have one; Waiting when it does not answer."""


class MailRefused(Exception):
    """The mail server said no, for now or for good; nothing was delivered."""

    def __init__(self, code: int, permanent: bool) -> None:
        super().__init__(str(code))
        self.code = code
        self.permanent = permanent


class MailDown(Exception):
    """The mail server does not answer; nothing was handed over."""


class MailDoubtful(Exception):
    """The connection broke after the message was handed over: it may have been taken."""


class MailStale(Exception):
    """The allowance ran out before the message was handed over; nothing was."""


@dataclass(frozen=True, slots=True)
class OutgoingMail:
    """One message; the id is the same however often it is built."""

    delivery_id: str
    address: str = field(repr=False)
    subject: str = field(repr=False)
    text: str = field(repr=False)
    html: str = field(repr=False)
    unsubscribe_url: str = field(repr=False)


class Mailer(Protocol):
    """Hands messages over."""

    def send(self, mail: OutgoingMail, may_send: Callable[[], bool]) -> None:
        """Hand one message over; asks `may_send` right before its first byte.

        Raises:
            MailRefused, MailDown, MailStale: surely not handed over. MailDoubtful: perhaps.
        """
