"""Sizes, durations and instants."""

from __future__ import annotations

import contextlib
from datetime import UTC, datetime, timedelta, timezone

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from twobuckets.units import (
    counted,
    format_bytes,
    format_duration,
    format_instant,
    parse_bytes,
    parse_duration,
    parse_instant,
)

NOW = datetime(2026, 5, 4, 12, 0, tzinfo=UTC)


@pytest.mark.parametrize(
    ("text", "count"),
    [
        ("0", 0),
        ("500", 500),
        ("500B", 500),
        ("8MiB", 8 * 2**20),
        ("8M", 8 * 2**20),
        ("8 mb", 8 * 10**6),
        ("1.5GB", 1_500_000_000),
        ("1.5GiB", 3 * 2**29),
        ("2T", 2 * 2**40),
    ],
)
def test_a_size_counts_in_the_unit_it_names(text: str, count: int):
    assert parse_bytes(text) == count


@pytest.mark.parametrize("text", ["", "MiB", "-1", "1XB", "1iB", "1 2", "0x10", "1e3", "nan"])
def test_what_is_no_size_is_refused_with_examples(text: str):
    with pytest.raises(ValueError, match="write for example"):
        parse_bytes(text)


@given(st.integers(0, 2**62))
def test_a_formatted_size_reads_back_within_its_own_precision(count: int):
    # 1.0 of a unit, shown to one decimal, is off by at most 5 %.
    assert abs(parse_bytes(format_bytes(count)) - count) <= count * 0.05


@given(st.integers(0, 2**62))
def test_a_formatted_size_shows_less_than_1024_of_its_unit(count: int):
    assert float(format_bytes(count).split()[0]) < 1024 or format_bytes(count).endswith("PiB")


@pytest.mark.parametrize(
    ("text", "seconds"),
    [("90", 90), ("90s", 90), ("15m", 900), ("1h30m", 5400), ("2d", 172_800), ("1w", 604_800)],
)
def test_a_duration_adds_up_its_parts(text: str, seconds: int):
    assert parse_duration(text) == timedelta(seconds=seconds)


@pytest.mark.parametrize("text", ["", "m", "-5m", "5 years", "1h-2m", "9" * 30])
def test_what_is_no_duration_is_refused(text: str):
    with pytest.raises(ValueError, match="duration"):
        parse_duration(text)


@given(st.integers(0, 10**9))
def test_a_formatted_duration_reads_back_no_longer_and_hardly_shorter(seconds: int):
    read = parse_duration(format_duration(timedelta(seconds=seconds)))
    assert timedelta(seconds=seconds * 0.95) <= read <= timedelta(seconds=seconds)


def test_an_instant_is_an_age_or_iso_8601_in_any_offset():
    assert parse_instant("2h", now=NOW, zone=UTC) == datetime(2026, 5, 4, 10, 0, tzinfo=UTC)
    assert parse_instant("2026-05-04T13:30:00+02:00", now=NOW, zone=UTC) == datetime(
        2026, 5, 4, 11, 30, tzinfo=UTC
    )
    assert parse_instant("2026-05-04", now=NOW, zone=UTC) == datetime(2026, 5, 4, tzinfo=UTC)
    with pytest.raises(ValueError, match="neither an instant nor an age"):
        parse_instant("yesterday-ish", now=NOW, zone=UTC)
    with pytest.raises(ValueError, match="longer duration"):
        parse_instant("999999w", now=NOW, zone=UTC)


def test_an_instant_without_an_offset_is_one_of_the_zone():
    zone = timezone(timedelta(hours=2))
    assert parse_instant("2026-05-04 13:30", now=NOW, zone=zone) == datetime(
        2026, 5, 4, 11, 30, tzinfo=UTC
    )
    assert parse_instant("2026-05-04 13:30Z", now=NOW, zone=zone).hour == 13


def test_a_bare_number_is_a_date_or_nothing():
    assert parse_instant("20260504", now=NOW, zone=UTC) == datetime(2026, 5, 4, tzinfo=UTC)
    with pytest.raises(ValueError, match="neither an instant nor an age"):
        parse_instant("90", now=NOW, zone=UTC)


@given(
    st.text()
    | st.from_regex(r"[0-9]{1,400}(\.[0-9]{1,400})? ?(ms|[smhdw]|[kmgtp]i?b?)?", fullmatch=True)
    | st.from_regex(r"[0-9]{4}-[01][0-9]-[0-3][0-9]T[0-2][0-9]:00:00[+-][0-2][0-9]:00")
)
@example("0001-01-01T00:00:00+05:00")
@example("0001-01-01")
def test_text_is_understood_or_refused_and_an_age_never_leads_beyond_time(text: str):
    with contextlib.suppress(ValueError):
        assert parse_bytes(text) >= 0
    with contextlib.suppress(ValueError):
        assert NOW - parse_duration(text) < NOW + parse_duration(text) or parse_duration(
            text
        ) < timedelta(microseconds=1)
    for zone in (UTC, None):
        with contextlib.suppress(ValueError):
            assert parse_instant(text, now=NOW, zone=zone).tzinfo is UTC


@given(st.integers(0, 10**15), st.integers(0, 10**6 - 1))
def test_a_size_is_exact_however_large(whole: int, thousandths: int):
    assert parse_bytes(f"{whole}.{thousandths:06}TB") == (whole * 10**6 + thousandths) * 10**6


@given(st.datetimes(timezones=st.just(timezone(timedelta(hours=5, minutes=30)))))
def test_a_formatted_instant_reads_back_to_the_millisecond(instant: datetime):
    truncated = instant.replace(microsecond=instant.microsecond // 1000 * 1000)
    if instant.year > 1:
        assert parse_instant(format_instant(instant), now=NOW, zone=UTC) == truncated


# NOW is a Monday.
@pytest.mark.parametrize(
    ("said", "began"),
    [
        ("today", "2026-05-04T00:00:00+00:00"),
        ("Yesterday", "2026-05-03T00:00:00+00:00"),
        ("monday", "2026-05-04T00:00:00+00:00"),
        ("tue", "2026-04-28T00:00:00+00:00"),
        (" sunday ", "2026-05-03T00:00:00+00:00"),
    ],
)
def test_a_day_is_where_it_began(said: str, began: str):
    assert parse_instant(said, now=NOW, zone=UTC).isoformat() == began


def test_a_day_is_one_of_the_zone_that_is_asked_for():
    zone = timezone(timedelta(hours=14))
    # It is Tuesday there already.
    assert parse_instant("today", now=NOW, zone=zone) == datetime(2026, 5, 4, 10, tzinfo=UTC)
    assert parse_instant("monday", now=NOW, zone=zone) == datetime(2026, 5, 3, 10, tzinfo=UTC)


@pytest.mark.parametrize("said", ["mo", "mondays", "tomorrow", "todayish"])
def test_what_is_no_day_is_refused(said: str):
    with pytest.raises(ValueError, match="yesterday"):
        parse_instant(said, now=NOW, zone=UTC)


@pytest.mark.parametrize(
    ("count", "words", "said"),
    [
        (0, ("file",), "0 files"),
        (1, ("file",), "1 file"),
        (1234, ("file",), "1,234 files"),
        (1, ("is", "are"), "1 is"),
        (2, ("check could not run", "checks could not run"), "2 checks could not run"),
    ],
)
def test_a_count_has_its_noun_in_the_right_number(count: int, words: tuple[str, ...], said: str):
    assert counted(count, *words) == said
