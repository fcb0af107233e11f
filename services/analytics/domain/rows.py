"""Turn facts and recorded interactions into rows of the lake; what is empty is unknown and becomes NULL."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from datetime import UTC, datetime, timedelta
from typing import Final

from google.protobuf.message import Message
from google.protobuf.timestamp_pb2 import Timestamp
from kehu.analytics.v1 import analytics_pb2
from kehu.consent.v1 import consent_pb2
from kehu.consent.v1.events_pb2 import ConsentChanged
from kehu.marketing.v1.events_pb2 import DeliveryRecorded
from kehu.profiles.v1.events_pb2 import ProfileChanged, ProfileErased, ProfilesMerged, ProfilesUnmerged

from services.analytics.domain.errors import InvalidInteraction
from services.analytics.domain.tables import ALIASES, CONSENTS, DELIVERIES, ERASED, INTERACTIONS, MOVED, PROFILES
from services.chassis.errors import FieldViolation

Row = dict[str, object]
Rows = dict[str, list[Row]]  # table name → rows
EARLIEST: Final = datetime(2000, 1, 1, tzinfo=UTC)
AHEAD: Final = timedelta(days=1)  # clocks of senders may run ahead, not more
RECENT: Final = "recent"
Keyed = Callable[[str, str], str]  # kind and value → keyed token


def record_token(keyed: Keyed, source_id: str, source_record_id: str) -> str:
    """Return what stands for a source record in the lake."""
    return keyed("record", f"{source_id}/{source_record_id}")


def _time(stamp: Timestamp) -> datetime:
    return stamp.ToDatetime(tzinfo=UTC)


def _profile_changed(fact: ProfileChanged) -> Rows:
    row: Row = {
        "profile_id": fact.profile_id,
        "version": fact.version,
        "deleted": fact.deleted,
        "merged_into": fact.merged_into or None,
        "province_code": fact.province_code or None,
        "city_code": fact.city_code or None,
        "district_code": fact.district_code or None,
        "gender": fact.gender or None,
        "birth_year": fact.birth_year or None,
        "tier": fact.tier or None,
        "stage": fact.stage or None,
        "owner_department": fact.owner_department or None,
        "event_time": _time(fact.event_time),
        "part": RECENT,
    }
    alias = _alias(fact.profile_id, fact.merged_into or None, _time(fact.event_time), fact.version)
    # A living profile's alias row ends an earlier merge; most profiles never had one and need none.
    ends_merge = not fact.merged_into and not fact.deleted and fact.version > 1
    return {PROFILES.name: [row], ALIASES.name: [alias] if fact.merged_into or ends_merge else []}


def _alias(profile_id: str, survivor_id: str | None, at: datetime, version: int) -> Row:
    return {
        "profile_id": profile_id, "survivor_id": survivor_id, "event_time": at, "version": version, "part": RECENT,
    }  # fmt: skip


def _profile_erased(fact: ProfileErased) -> Rows:
    """Return the tombstone, which keeps an older state from coming back, and the ids whose late rows are removed."""
    row: Row = dict.fromkeys(PROFILES.columns)
    row |= {"profile_id": fact.profile_id, "version": fact.version, "deleted": True, "part": RECENT,
            "event_time": _time(fact.event_time)}  # fmt: skip
    gone: list[Row] = [{"profile_id": name, "event_time": _time(fact.event_time)} for name in fact.names]
    return {PROFILES.name: [row], ERASED.name: gone}


def _profiles_merged(fact: ProfilesMerged) -> Rows:
    at, version = _time(fact.event_time), fact.merged_profile_version
    return {ALIASES.name: [_alias(fact.merged_profile_id, fact.profile_id, at, version)]}


def _profiles_unmerged(fact: ProfilesUnmerged) -> Rows:
    """Read the links' record ids as what the consumer made of them: keyed tokens."""
    at = _time(fact.event_time)
    moved: list[Row] = [
        {"record": link.source_record_id, "profile_id": profile_id, "event_time": at, "part": RECENT}
        for profile_id, links in ((fact.unmerged_profile_id, fact.links), (fact.profile_id, fact.remaining_links))
        for link in links
    ]
    return {ALIASES.name: [_alias(fact.unmerged_profile_id, None, at, fact.version)], MOVED.name: moved}


def _consent_changed(fact: ConsentChanged) -> Rows:
    state = consent_pb2.ConsentState.Name(fact.state).removeprefix("CONSENT_STATE_").lower()
    row: Row = {
        "profile_id": fact.profile_id,
        "purpose_id": fact.purpose_id,
        "channel": fact.channel,
        "state": state,
        "version": fact.version,
        "event_time": _time(fact.event_time),
        "part": RECENT,
    }
    return {CONSENTS.name: [row]}


def _delivery_recorded(fact: DeliveryRecorded) -> Rows:
    row: Row = {
        "campaign_id": fact.campaign_id,
        "run_id": fact.run_id,
        "profile_id": fact.profile_id,
        "channel": fact.channel or None,
        "outcome": fact.outcome,
        "skip_reason": fact.skip_reason or None,
        "version": fact.version,
        "event_time": _time(fact.event_time),
        "part": RECENT,
    }
    return {DELIVERIES.name: [row]}


def _interactions(request: analytics_pb2.BatchCreateInteractionsRequest) -> Rows:
    return {INTERACTIONS.name: [_interaction(one) for one in request.interactions]}


def _interaction(one: analytics_pb2.Interaction) -> Row:
    at = _time(one.event_time)
    return {
        "message_id": one.message_id,
        "profile_id": one.profile.removeprefix("profiles/"),
        "event_type": one.event_type,
        "event_time": at,
        "amount_cents": one.amount_cents,
        "channel": one.channel or None,
        "category": one.category or None,
        "basket_id": one.basket_id or None,
        "product_id": one.product_id or None,
        "quantity": one.quantity,
        "record": one.source_record.source_record_id or None,
        "month": at.strftime("%Y-%m"),
    }


_READERS: Final[Mapping[str, tuple[type[Message], Callable[..., Rows]]]] = {
    message.DESCRIPTOR.full_name: (message, reader)
    for message, reader in (
        (ProfileChanged, _profile_changed),
        (ProfilesMerged, _profiles_merged),
        (ProfilesUnmerged, _profiles_unmerged),
        (ProfileErased, _profile_erased),
        (ConsentChanged, _consent_changed),
        (DeliveryRecorded, _delivery_recorded),
        (analytics_pb2.BatchCreateInteractionsRequest, _interactions),
    )
}


def rows_of(message: Message) -> Rows:
    """Return the rows of a fact or of recorded interactions, by table.

    Raises:
        KeyError: no table takes this kind of message.
        ValueError: a time is out of range, or an enum value unknown.
    """
    _, reader = _READERS[message.DESCRIPTOR.full_name]
    return reader(message)


def message_of(kind: str, body: bytes) -> Message:
    """Return the message kept as `kind` (its full name) and bytes."""
    message_class, _ = _READERS[kind]
    return message_class.FromString(body)


def check_times(interactions: Sequence[analytics_pb2.Interaction], now: datetime) -> None:
    """Refuse events from before 2000 or more than a day ahead: one would move the data cut-off for all.

    Raises:
        InvalidInteraction: naming each of them.
    """
    violations = [
        FieldViolation(f"interactions[{index}].event_time", "must be from 2000 on and at most a day ahead")
        for index, one in enumerate(interactions)
        if not _is_possible(one.event_time, now)
    ]
    if violations:
        raise InvalidInteraction("some interactions have no possible time", violations=violations)


def _is_possible(stamp: Timestamp, now: datetime) -> bool:
    try:
        return EARLIEST <= _time(stamp) <= now + AHEAD
    except (ValueError, OverflowError):  # seconds or nanoseconds out of range
        return False
