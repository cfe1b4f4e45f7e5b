"""Cron lines: strictly forward, as Debian's cron over the changes of the clocks, and described in words."""

from datetime import UTC, datetime, timedelta
from itertools import pairwise
from zoneinfo import ZoneInfo

import pytest
from hypothesis import given
from hypothesis import strategies as st

from headwater.cron import describe, next_tick, previous_ticks, ticks_around, ticks_between, validate
from headwater.errors import ConfigError

BERLIN = "Europe/Berlin"
ZONES = st.sampled_from(["UTC", BERLIN, "America/New_York", "Asia/Kolkata", "Australia/Lord_Howe", "Pacific/Apia"])
LINES = st.sampled_from(
    [
        "* * * * *", "*/15 * * * *", "7 * * * *", "0,30 2 * * *", "30 2 * * *", "0 0 * * *", "30 1,2,3 * * *",
        "59 23 * * 0", "0 9 * * 1-5", "15 */2 * * *", "0 12 1 * *", "0-59/20 2 * * *", "0 4 29 2 *", "*/10 2 * * *",
    ]
)  # fmt: skip
INSTANTS = st.datetimes(datetime(2015, 1, 1), datetime(2035, 1, 1), timezones=st.just(UTC))


def berlin(*fields):
    return datetime(*fields, tzinfo=ZoneInfo(BERLIN)).astimezone(UTC)


@given(line=LINES, zone=ZONES, after=INSTANTS)
def test_the_next_tick_lies_strictly_ahead_on_a_whole_minute(line, zone, after):
    tick = next_tick(line, zone, after)
    assert tick > after
    assert tick.utcoffset() == timedelta(0)
    assert (tick.second, tick.microsecond) == (0, 0)


@given(line=LINES, zone=ZONES, after=INSTANTS, later=st.timedeltas(timedelta(0), timedelta(days=3)))
def test_a_later_instant_never_has_an_earlier_next_tick(line, zone, after, later):
    first, second = next_tick(line, zone, after), next_tick(line, zone, after + later)
    assert first <= second
    assert first == second or first <= after + later


@given(line=LINES, zone=ZONES, before=INSTANTS, count=st.integers(min_value=1, max_value=5))
def test_the_ticks_before_are_the_chain_of_next_ticks(line, zone, before, count):
    ticks = previous_ticks(line, zone, before, count)
    assert len(ticks) == count
    assert ticks[-1] < before <= next_tick(line, zone, ticks[-1])
    for tick, following in pairwise(ticks):
        assert next_tick(line, zone, tick) == following


@given(year=st.integers(2015, 2034), minute=st.integers(0, 59), hour=st.integers(0, 23), zone=ZONES)
def test_a_daily_job_fires_once_on_every_day_of_the_year(year, minute, hour, zone):
    tick, days = datetime(year - 1, 12, 28, tzinfo=UTC), []
    while (tick := next_tick(f"{minute} {hour} * * *", zone, tick)) < datetime(year + 1, 1, 4, tzinfo=UTC):
        days.append(tick.astimezone(ZoneInfo(zone)).date())
    assert len(days) == len(set(days))
    # Lord Howe and the others never skip a day; in the gap the job moves to its end, and stays on its day.
    assert len(days) == (days[-1] - days[0]).days + 1


def test_in_the_autumn_fold_a_daily_job_fires_once():
    first = berlin(2026, 10, 25, 2, 30)
    assert next_tick("30 2 * * *", BERLIN, berlin(2026, 10, 25, 2, 0)) == first
    assert next_tick("30 2 * * *", BERLIN, first) == berlin(2026, 10, 26, 2, 30)
    in_the_second_pass = first + timedelta(minutes=45)
    assert next_tick("30 2 * * *", BERLIN, in_the_second_pass) == berlin(2026, 10, 26, 2, 30)
    assert previous_ticks("30 2 * * *", BERLIN, in_the_second_pass, 1) == (first,)


def test_in_the_spring_gap_a_daily_job_fires_once_at_the_gap_s_end():
    gap_end = datetime(2026, 3, 29, 1, 0, tzinfo=UTC)
    assert next_tick("30 2 * * *", BERLIN, berlin(2026, 3, 29, 0, 0)) == gap_end
    assert next_tick("30 2 * * *", BERLIN, gap_end) == berlin(2026, 3, 30, 2, 30)
    assert next_tick("0,30 2 * * *", BERLIN, gap_end) == berlin(2026, 3, 30, 2, 0)


def test_an_hourly_job_follows_the_elapsed_time_through_a_fold():
    ticks = [berlin(2026, 10, 25, 1, 0)]
    for _ in range(3):
        ticks.append(next_tick("0 * * * *", BERLIN, ticks[-1]))
    assert [(b - a).total_seconds() for a, b in pairwise(ticks)] == [3600, 3600, 3600]


def test_previous_ticks_come_oldest_first_and_exclude_the_instant_itself():
    noon = datetime(2026, 5, 1, 12, 0, tzinfo=UTC)
    assert previous_ticks("*/15 * * * *", "UTC", noon, 2) == (
        noon - timedelta(minutes=30),
        noon - timedelta(minutes=15),
    )
    assert previous_ticks("*/15 * * * *", "UTC", noon + timedelta(microseconds=1), 1) == (noon,)


def test_ticks_between_counts_the_end_and_not_the_start_up_to_its_limit():
    noon = datetime(2026, 5, 1, 12, 0, tzinfo=UTC)
    assert ticks_between("*/15 * * * *", "UTC", noon, noon + timedelta(hours=1), limit=100) == 4
    assert ticks_between("*/15 * * * *", "UTC", noon, noon, limit=100) == 0
    assert ticks_between("* * * * *", "UTC", noon, noon + timedelta(days=1), limit=7) == 7


def interval_seconds(line, zone, at):
    last, following, _ = ticks_around(line, zone, at)
    assert last <= at < following
    return (following - last).total_seconds()


def test_the_ticks_around_an_instant_are_the_last_and_the_two_that_follow():
    noon = datetime(2026, 5, 1, 12, 0, tzinfo=UTC)
    quarter = timedelta(minutes=15)
    assert ticks_around("*/15 * * * *", "UTC", noon) == (noon, noon + quarter, noon + 2 * quarter)
    assert ticks_around("*/15 * * * *", "UTC", noon - timedelta(microseconds=1))[1] == noon


def test_the_interval_is_the_gap_around_the_instant():
    saturday = datetime(2026, 5, 2, 12, 0, tzinfo=UTC)
    assert interval_seconds("0 9 * * 1-5", "UTC", saturday) == 3 * 86_400
    assert interval_seconds("0 9 * * 1-5", "UTC", saturday - timedelta(days=2)) == 86_400
    assert interval_seconds("*/15 * * * *", "UTC", saturday) == 900
    assert interval_seconds("30 2 * * *", BERLIN, berlin(2026, 10, 25, 1, 0)) == 25 * 3600 - 3600
    assert interval_seconds("30 2 * * *", BERLIN, berlin(2026, 10, 25, 12, 0)) == 25 * 3600


@pytest.mark.parametrize(
    ("line", "zone", "words"),
    [
        ("* * * * *", BERLIN, "every minute"),
        ("*/15 * * * *", BERLIN, "every 15 minutes"),
        ("0 * * * *", BERLIN, "every hour"),
        ("*/7 * * * *", "UTC", "every seventh minute of every hour"),
        ("0 */6 * * *", BERLIN, "every 6 hours (Europe/Berlin)"),
        ("30 2 * * *", BERLIN, "at 02:30 every day (Europe/Berlin)"),
        ("30 2 * * *", "UTC", "at 02:30 every day (UTC)"),
        ("0 9 * * 1-5", "UTC", "at 09:00 on Monday through Friday (UTC)"),
        ("15,45 * * * *", "UTC", "at minutes 15 and 45 of every hour"),
    ],
)
def test_a_cadence_is_said_in_words(line, zone, words):
    assert describe(line, zone) == words


@pytest.mark.parametrize(
    ("line", "part"),
    [
        ("0 0 * * * *", "has 6 fields, not 5"),
        ("* * * *", "has 4 fields, not 5"),
        ("@hourly", "has 1 fields, not 5"),
        ("", "has 0 fields, not 5"),
        ("60 * * * *", "bad minute"),
        ("* 25 * * *", "bad hour"),
        ("*/0 * * * *", "bad minute"),
        ("0 0 30 2 *", "bad day-of-month"),
        ("0 0 * * mondays", "bad day-of-week"),
    ],
)
def test_a_bad_line_is_refused_with_what_is_wrong(line, part):
    with pytest.raises(ConfigError, match=part):
        validate(line)


def test_an_unknown_zone_names_the_near_miss():
    with pytest.raises(ConfigError, match="Did you mean `Europe/Berlin`"):
        validate("* * * * *", "Europe/Berlim")
    with pytest.raises(ConfigError, match="no time zone"):
        validate("* * * * *", "../etc/passwd")
