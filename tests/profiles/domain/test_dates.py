"""Dates of birth and of change."""

from datetime import UTC, datetime, timedelta

import pytest

from services.profiles.domain.ages import parse_birth_years
from services.profiles.domain.dates import parse_birth_date, parse_timestamp

_FORMS = (
    "1990年1月2日 1990年01月02号 90年1月2日 90.1.2 1990.1.2 19900102 900102 1990/1/2 1990-01-02T00:00:00Z "
    "１９９０－０１－０２ 一九九〇年一月二日 民国79年1月2日 02-Jan-90 2-Jan-1990 32875 "
    "1990年元月二日 九〇年一月二号 1990。1。2 1990_01_02 1990年1月2日(周二) 生于1990年1月2日 1990年1月2日出生"
)
FORMS = _FORMS.split()


@pytest.mark.parametrize(
    "text",
    [
        *FORMS,
        "1990-01-02 00:00:00",
        "Tue, 02 Jan 1990 00:00:00 GMT",
        "1990/1/2 星期二",
        "Jan 2, 1990",
        " 1990 年 1 月 2 日 ",
    ],
)
def test_every_written_form_of_one_day_is_that_day(text):
    assert parse_birth_date(text, "ymd", 2026) == ("1990-01-02", "")


@pytest.mark.parametrize(("order", "expected"), [("dmy", "1990-01-02"), ("mdy", "1990-02-01"), ("ymd", "")], ids=str)
def test_the_source_settles_which_number_is_the_day(order, expected):
    assert parse_birth_date("2/1/1990", order, 2026)[0] == expected


def test_a_number_over_twelve_is_the_day_whatever_the_source_says():
    assert {parse_birth_date("1/31/1990", order, 2026)[0] for order in ("ymd", "dmy", "mdy")} == {"1990-01-31"}


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("1990-02-30", "DATE_IMPOSSIBLE"),
        ("1990-13-01", "DATE_IMPOSSIBLE"),
        ("农历正月初一", "DATE_LUNAR"),
        ("阴历1990年1月2日", "DATE_LUNAR"),
        ("1990年闰五月初三", "DATE_LUNAR"),
        ("庚午年腊月廿三", "DATE_LUNAR"),
        ("01/02/90", "DATE_AMBIGUOUS"),
        ("3/4/1990", "DATE_AMBIGUOUS"),
        ("1900-01-01", "DATE_PLACEHOLDER"),
        ("0000-00-00", "DATE_PLACEHOLDER"),
        ("null", "DATE_PLACEHOLDER"),
        ("2031-01-02", "DATE_OUT_OF_RANGE"),
        ("1899-05-05", "DATE_OUT_OF_RANGE"),
        ("last spring", "DATE_UNREADABLE"),
        ("1990", "DATE_UNREADABLE"),
    ],
)
def test_what_is_no_date_is_refused_with_its_reason(text, reason):
    assert parse_birth_date(text, "ymd", 2026) == ("", reason)


def test_a_two_digit_year_is_of_the_past_hundred_years():
    assert parse_birth_date("26.1.2", "ymd", 2026)[0] == "2026-01-02"
    assert parse_birth_date("27.1.2", "ymd", 2026)[0] == "1927-01-02"


def test_a_short_year_is_last_where_the_source_writes_it_so():
    assert parse_birth_date("2/1/90", "dmy", 2026)[0] == parse_birth_date("1/2/90", "mdy", 2026)[0] == "1990-01-02"
    assert parse_birth_date("90.1.2", "dmy", 2026)[0] == "1990-01-02"


@pytest.mark.parametrize(
    ("text", "years"),
    [
        ("1990年", (1990, 1990)),
        ("1990-01", (1990, 1990)),
        ("90年3月", (1990, 1990)),
        ("90后", (1990, 1999)),
        ("八零后", (1980, 1989)),
        ("20后", (2020, 2026)),
        ("35岁", (1990, 1991)),
        ("三十五周岁", (1990, 1991)),
        ("虚岁35岁", (1991, 1992)),
        ("30-35岁", (1990, 1996)),
        ("age: 35 years", (1990, 1991)),
    ],
)
def test_what_is_less_than_a_date_becomes_a_range_of_birth_years(text, years):
    assert parse_birth_years(text, 2026) == years


@pytest.mark.parametrize("text", ["35", "150岁", "二十多岁", "40-30岁", "1990-01-02", "2031年", "long ago"])
def test_no_range_is_guessed(text):
    assert parse_birth_years(text, 2026) is None


@pytest.mark.parametrize(
    "text",
    ["2026-10-01 08:30:15", "2026/10/1 8:30:15", "2026-10-01T08:30:15+08:00", "2026年10月1日 08:30:15", "1790814615"],
)
def test_a_time_without_zone_is_of_the_source_and_all_forms_are_one_instant(text):
    assert parse_timestamp(text, "ymd", 480, 2026) == datetime(2026, 10, 1, 0, 30, 15, tzinfo=UTC)


@pytest.mark.parametrize(
    "text",
    [
        "20261001083015", "2026/10/1 8:30:15 AM", "2026/10/1 上午8:30:15", "2026年10月1日上午8点30分15秒",
        "2026-10-1 0:30:15 UTC", "2026-10-1 00:30:15+00:00", "2026/10/01 02:30:15 +0200", "01-OCT-26 08:30:15",
        "26/10/1 8:30:15", "2026/10/1 8:30:15.250",
    ],
)  # fmt: skip
def test_a_clock_of_any_form_is_heeded_with_its_half_of_the_day_and_its_zone(text):
    assert parse_timestamp(text, "ymd", 480, 2026) == datetime(2026, 10, 1, 0, 30, 15, tzinfo=UTC)


@pytest.mark.parametrize(
    "text", ["2026/10/1 8:30:15 PM", "2026-10-1 20:30:15", "2026/10/1 下午8:30:15", "20261001203015"]
)
def test_an_evening_is_no_morning(text):
    assert parse_timestamp(text, "ymd", 480, 2026) == datetime(2026, 10, 1, 12, 30, 15, tzinfo=UTC)


@pytest.mark.parametrize(
    ("text", "day", "hour"),
    [
        ("2026/10/1 晚上12:00", 1, 16), ("2026/10/1 晚上8点", 1, 12), ("2026/10/1 中午12:00", 1, 4),
        ("2026/10/1 12:00 am", 0, 16),
        ("2026/10/1 中午1:00", 1, 5), ("2026/10/1 中午11:00", 1, 3), ("2026/10/1 凌晨12:00", 0, 16),
        ("2026/10/1 傍晚6点", 1, 10),
    ],
)  # fmt: skip
def test_noon_and_midnight_are_half_a_day_apart(text, day, hour):
    expected = datetime(2026, 9, 30, hour, tzinfo=UTC) + timedelta(days=day)
    assert parse_timestamp(text, "ymd", 480, 2026) == expected


@pytest.mark.parametrize(
    "text",
    ["2026/10/1 晚上1:30", "2026/10/1 晚上0:30", "2026/10/1 24:00:01", "2026/10/1 25:00", "9999/12/31 晚上12:00"],
)
def test_an_hour_that_may_be_of_the_next_day_or_of_none_is_no_time(text):
    assert parse_timestamp(text, "ymd", 480, 2026) is None


def test_milliseconds_without_any_sign_are_of_the_second_and_no_clock_of_their_own():
    moment = datetime(2026, 10, 1, 0, 30, 15, 123_000, tzinfo=UTC)
    assert parse_timestamp("20261001083015123", "ymd", 480, 2026) == moment
    assert parse_timestamp("202610010830151", "ymd", 480, 2026) is None


@pytest.mark.parametrize(("text", "hour"), [("45231", 16), ("45231.75", 10), ("45231.7500000001", 10)])
def test_a_time_that_lost_its_format_in_a_spreadsheet_keeps_its_clock(text, hour):
    day = 31 if hour == 16 else 1
    assert parse_timestamp(text, "ymd", 480, 2026) == datetime(2023, 10 + (day == 1), day, hour, tzinfo=UTC)


@pytest.mark.parametrize("text", ["05-JAN-23", "23-01-05", "23/01/05", "230105"])
def test_two_digits_of_a_year_are_of_the_past(text):
    assert parse_timestamp(text, "ymd", 0, 2026) == datetime(2023, 1, 5, tzinfo=UTC)


@pytest.mark.parametrize(
    "text", ["yesterday", "2026-10-01 25:00", "", "9999-99-99", "2026/10/1 8:30 CEST", "2026/10/1 8:3x"]
)
def test_an_unreadable_time_is_none(text):
    assert parse_timestamp(text, "ymd", 480, 2026) is None


@pytest.mark.parametrize("text", ["1900/1/0", "1900-01-00", "1900-1-0 0:00", "1900年1月0日"])
def test_the_day_that_a_spreadsheet_shows_for_nothing_is_a_placeholder_and_sets_no_row_apart(text):
    assert parse_birth_date(text, "ymd", 2026) == ("", "DATE_PLACEHOLDER")
