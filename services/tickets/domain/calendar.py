"""Business time: work blocks, China's holidays and make-up days, and deadlines counted in them."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import UTC, date, datetime, time, timedelta
from functools import lru_cache
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

import chinese_calendar

from services.chassis.errors import FieldViolation, Invalid

MINUTES_OF_DAY = 24 * 60
SATURDAY = 5
DAYS_KNOWN = 20_000  # a list asks about the same days for each of its tickets
SEARCH_DAYS = 4000  # 90 days of promise at a few minutes of work a week still ends within it


class SlaPolicyInvalid(Invalid):
    """A policy or its calendar contradicts itself."""

    reason = "SLA_POLICY_INVALID"


@dataclass(frozen=True, slots=True)
class WorkBlock:
    """A stretch of work within one day, in minutes after midnight, end excluded: 0 ≤ start < end ≤ 1440."""

    start_minute: int
    end_minute: int


@dataclass(frozen=True, slots=True)
class Interval:
    """A stretch of time, UTC, end excluded."""

    start: datetime
    end: datetime


@dataclass(frozen=True, slots=True)
class BusinessCalendar:
    """When a team works: blocks per weekday (Monday first), holidays, and blocks of make-up days."""

    days: tuple[tuple[WorkBlock, ...], ...]
    time_zone: str = "Asia/Shanghai"
    chinese_holidays: bool = False
    make_up_blocks: tuple[WorkBlock, ...] = ()
    closed_dates: frozenset[date] = frozenset()


@dataclass(frozen=True, slots=True)
class Deadline:
    """When a promise is due, UTC; `holidays_unknown` when it crosses a year without a published calendar."""

    time: datetime
    holidays_unknown: bool


def check_calendar(calendar: BusinessCalendar) -> None:
    """Refuse a calendar that has no working time or contradicts itself.

    Raises:
        SlaPolicyInvalid: naming every fault.
    """
    faults = [*_zone_faults(calendar.time_zone), *_block_faults("make_up_blocks", calendar.make_up_blocks)]
    for number, blocks in enumerate(calendar.days, start=1):
        faults += _block_faults(f"days[weekday={number}].blocks", blocks)
    if len(calendar.days) != 7 or not any(calendar.days):
        faults.append(FieldViolation("calendar.days", "name at least one working day"))
    if faults:
        raise SlaPolicyInvalid("the calendar contradicts itself", violations=faults)


def _zone_faults(name: str) -> list[FieldViolation]:
    try:
        ZoneInfo(name)
    except (ZoneInfoNotFoundError, ValueError, OSError):
        return [FieldViolation("calendar.time_zone", "use an IANA name such as Asia/Shanghai")]
    return []


def _block_faults(field: str, blocks: Sequence[WorkBlock]) -> list[FieldViolation]:
    previous_end = 0
    for block in blocks:
        if not previous_end <= block.start_minute < block.end_minute <= MINUTES_OF_DAY:
            return [FieldViolation(f"calendar.{field}", "give blocks in order, not overlapping, start before end")]
        previous_end = block.end_minute
    return []


@lru_cache(maxsize=DAYS_KNOWN)
def _published(day: date) -> bool | None:
    """Tell whether China works on this day; None when the State Council's notice is not in the package yet."""
    try:
        return bool(chinese_calendar.is_workday(day))
    except NotImplementedError:
        return None


def blocks_of(day: date, calendar: BusinessCalendar) -> tuple[tuple[WorkBlock, ...], bool]:
    """Return the day's work blocks, and whether its public holidays are unknown (plain weekdays are taken)."""
    if day in calendar.closed_dates:
        return (), False
    plain = calendar.days[day.weekday()]
    if not calendar.chinese_holidays:
        return plain, False
    workday = _published(day)
    if workday is None:
        return plain, True
    if not workday:
        return (() if _is_holiday(day) else plain), False
    return plain or _make_up(day, calendar), False


@lru_cache(maxsize=DAYS_KNOWN)
def _is_holiday(day: date) -> bool:
    """Tell a public holiday from a plain weekend, on which a team with weekend blocks does work."""
    _, name = chinese_calendar.get_holiday_detail(day)
    return name is not None


def _make_up(day: date, calendar: BusinessCalendar) -> tuple[WorkBlock, ...]:
    """Return the blocks of a weekend day that is worked in place of a holiday (调休); none on a free weekday."""
    if day.weekday() < SATURDAY:
        return ()
    return calendar.make_up_blocks or next((blocks for blocks in calendar.days if blocks), ())


def _open_intervals(start: datetime, calendar: BusinessCalendar) -> Iterator[tuple[Interval, bool]]:
    """Yield working time from `start` on, each piece with whether its day's holidays are unknown."""
    zone = ZoneInfo(calendar.time_zone)
    first = start.astimezone(zone).date()
    for offset in range(SEARCH_DAYS):
        day = first + timedelta(days=offset)
        blocks, unknown = blocks_of(day, calendar)
        for block in blocks:
            opens = max(_moment(day, block.start_minute, zone), start)
            closes = _moment(day, block.end_minute, zone)
            if opens < closes:
                yield Interval(opens, closes), unknown


def _moment(day: date, minute: int, zone: ZoneInfo) -> datetime:
    midnight = datetime.combine(day + timedelta(days=minute // MINUTES_OF_DAY), time(), zone)
    wall = midnight + timedelta(minutes=minute % MINUTES_OF_DAY)
    return wall.astimezone(UTC)


def _without(interval: Interval, holds: Sequence[Interval]) -> Iterator[Interval]:
    """Yield what is left of an interval outside the holds, which are in order and do not overlap."""
    start = interval.start
    for hold in holds:
        if hold.end <= start or hold.start >= interval.end:
            continue
        if hold.start > start:
            yield Interval(start, hold.start)
        start = max(start, hold.end)
    if start < interval.end:
        yield Interval(start, interval.end)


def merged(holds: Sequence[Interval]) -> tuple[Interval, ...]:
    """Return the same time as intervals in order that neither overlap nor touch."""
    result: list[Interval] = []
    for hold in sorted(holds, key=lambda each: each.start):
        if hold.end <= hold.start:
            continue
        if result and hold.start <= result[-1].end:
            result[-1] = Interval(result[-1].start, max(result[-1].end, hold.end))
        else:
            result.append(hold)
    return tuple(result)


def business_deadline(
    start: datetime, minutes: int, calendar: BusinessCalendar, holds: Sequence[Interval] = ()
) -> Deadline | None:
    """Return when `minutes` of working time outside the holds have passed since `start`.

    None when the calendar has not that much working time within 4,000 days.

    Time on hold is thereby added to the target as business time. A count that ends with a block is due at the
    end of that block, not at the start of the next.
    """
    left = timedelta(minutes=minutes)
    start = start.astimezone(UTC)
    if not left:
        return Deadline(start, False)
    ordered = merged(holds)
    crossed_unknown = False
    for interval, unknown in _open_intervals(start, calendar):
        crossed_unknown = crossed_unknown or unknown
        for piece in _without(interval, ordered):
            length = piece.end - piece.start
            if length >= left:
                return Deadline(piece.start + left, crossed_unknown)
            left -= length
    return None


def business_time(interval: Interval, calendar: BusinessCalendar) -> timedelta:
    """Return the working time within an interval; complexity is linear in its days, at most 4,000."""
    total = timedelta()
    for piece, _ in _open_intervals(interval.start.astimezone(UTC), calendar):
        if piece.start >= interval.end:
            break
        total += min(piece.end, interval.end) - piece.start
    return total
