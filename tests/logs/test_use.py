"""What invocations took lately, summed up from Lambda's reports."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import pytest

from tests.logs.test_recent import outcome
from twobuckets.logs.lines import Entry, InvocationReport
from twobuckets.logs.use import FunctionUse, sum_up

NOW = datetime(2026, 5, 4, 13, 30, tzinfo=UTC)


def report(ms: int | None, used_mb: int | None = None, memory_mb: int | None = 512) -> Entry:
    duration = None if ms is None else timedelta(milliseconds=ms)
    return InvocationReport(NOW, f"r{ms}", "success", duration, memory_mb, used_mb, None, "s")


def use_of(*entries: Entry, architecture: str = "x86_64") -> FunctionUse:
    return sum_up("f", entries, since=NOW - timedelta(hours=1), architecture=architecture)


def test_times_are_those_of_half_and_of_99_in_a_hundred():
    use = use_of(*(report(ms) for ms in range(1, 201)))
    assert (use.invocations, use.files) == (200, 200)
    assert use.median == timedelta(milliseconds=100)
    assert use.p99 == timedelta(milliseconds=198)
    assert use_of(report(7)).p99 == timedelta(milliseconds=7)


def test_the_most_memory_that_one_used_is_told_of_what_it_is_given_now():
    use = use_of(report(1, 90, 256), report(1, 140, 256), report(1, 100, 512))
    assert (use.max_memory_used_mb, use.memory_mb) == (140, 512)


def test_a_thousand_files_cost_the_time_times_the_memory_and_the_requests():
    # Two files in each invocation of one second with half a GB.
    entries = [outcome(f"k{n}", "archived") for n in range(4)] + [report(1000), report(1000)]
    use = use_of(*entries)
    assert use.files == 4
    assert use.thousand_usd is not None
    assert use.thousand_usd == pytest.approx((2 * 0.5 * 0.0000166667 + 2 * 0.0000002) / 4 * 1000)
    cheaper = use_of(*entries, architecture="arm64").thousand_usd
    assert cheaper is not None
    assert cheaper < use.thousand_usd


def test_what_no_report_tells_is_none():
    use = use_of(report(None, None, None))
    told = (use.median, use.p99, use.memory_mb, use.max_memory_used_mb, use.thousand_usd)
    assert told == (None,) * 5
    assert use.invocations == 1


def test_a_file_that_was_tried_three_times_is_one_file_and_costs_three_invocations():
    once = use_of(outcome("a", "failed"), report(100)).thousand_usd
    thrice = use_of(*[outcome("a", "failed"), report(100)] * 3).thousand_usd
    assert once is not None
    assert thrice == pytest.approx(3 * once)
