"""The outcomes of a while at a glance: each file once, by what became of it."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

from hypothesis import given
from hypothesis import strategies as st

from twobuckets.logs.lines import Entry, FailedInvocation, InvocationReport, Outcome
from twobuckets.logs.recent import SLOTS, count_outcomes
from twobuckets.processor.contract import Failure

NOW = datetime(2026, 5, 4, 13, 30, tzinfo=UTC)
HOUR = timedelta(hours=1)


def outcome(key: str, kind: str, at: datetime = NOW, request_id: str | None = None) -> Outcome:
    return Outcome(
        logged_at=at,
        outcome=kind,
        bucket="staging",
        key=key,
        version_id="v1",
        etag="e",
        size_bytes=1,
        duration=None,
        request_id=request_id or f"of-{key}",
        attempt=1,
        error=None,
        reason=None,
        duplicate=False,
        archive_version_id=None,
        sequencer=None,
        notes=(),
        log_stream="s",
    )


def report(request_id: str, at: datetime = NOW) -> InvocationReport:
    return InvocationReport(at, request_id, "success", None, None, None, None, "s")


def death(request_id: str, at: datetime = NOW) -> FailedInvocation:
    return FailedInvocation(at, "timed-out", request_id, Failure("Sandbox.Timedout", ""), "s")


def test_a_file_that_failed_three_times_is_one_failed_file_in_three_tries():
    entries = [outcome("a", "failed") for _ in range(3)] + [outcome("b", "archived")]
    counted = count_outcomes("group", entries, since=NOW - HOUR, now=NOW)
    assert counted.counts == {"failed": 1, "archived": 1}
    assert counted.tries == {"failed": 3, "archived": 1}
    assert not counted.counts_invocations


def test_a_file_that_failed_and_was_archived_then_is_archived():
    entries = [outcome("a", "failed"), outcome("a", "archived")]
    counted = count_outcomes("group", entries, since=NOW - HOUR, now=NOW)
    assert counted.counts == {"archived": 1}
    assert counted.tries == {"failed": 1, "archived": 1}


def test_a_try_that_died_without_a_word_is_the_file_that_its_request_named_later():
    entries: list[Entry] = [death("r"), outcome("a", "archived", request_id="r"), death("other")]
    counted = count_outcomes("group", entries, since=NOW - HOUR, now=NOW)
    assert counted.counts == {"archived": 1, "failed": 1}


def test_reports_tell_of_a_processor_that_writes_no_outcome_lines():
    entries: list[Entry] = [report("a"), report("b"), death("c"), death("c"), report("c")]
    counted = count_outcomes("group", entries, since=NOW - HOUR, now=NOW)
    assert counted.counts == {"succeeded": 3}
    assert counted.counts_invocations


@given(st.lists(st.timedeltas(timedelta(0), timedelta(days=30)), max_size=50))
def test_every_file_is_counted_once_and_in_the_slot_of_its_time(ages: list[timedelta]):
    since = NOW - timedelta(days=30)
    entries = [outcome(str(n), "archived", NOW - age) for n, age in enumerate(ages)]
    counted = count_outcomes("group", entries, since=since, now=NOW)
    assert sum(counted.over_time) == counted.counts.get("archived", 0) == len(ages)
    for slot, count in enumerate(counted.over_time):
        begins = since + slot * (NOW - since) / SLOTS
        later = [e for e in entries if e.logged_at >= begins + timedelta(microseconds=1)]
        assert sum(counted.over_time[slot:]) >= len(later) or count == 0
