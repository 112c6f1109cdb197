"""What a log event says: ours, Lambda's in both of its formats, or anybody's text."""

from __future__ import annotations

import json
from datetime import timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.logs.service import EPOCH, outcome_line
from twobuckets.logs.events import LogEvent
from twobuckets.logs.lines import (
    FailedInvocation,
    InvocationReport,
    InvocationStart,
    LogLine,
    Outcome,
    PlatformLine,
    iter_entries,
    parse_entry,
)
from twobuckets.processor.contract import Failure

ID = "8476a536-e9f4-11e8-9739-2dfe598c3fcd"
TRACE = (
    'Traceback (most recent call last):\n  File "/var/task/processor.py", line 3, in process\n'
    '    raise ValueError("no header")\n'
)


def event(message: str | dict[str, object], *, stream: str = "s", after: float = 0) -> LogEvent:
    text = message if isinstance(message, str) else json.dumps(message)
    at = EPOCH + timedelta(seconds=after)
    return LogEvent(at, at, text, stream, "1")


def test_an_outcome_line_is_read_in_full():
    entry = parse_entry(
        event(
            outcome_line(
                "failed",
                "a b.csv",
                version_id="v1",
                error={"type": "ValueError", "message": "no header", "trace": TRACE},
                notes=["n"],
                archive_version_id="av",
                something_new=1,
            )
        )
    )
    assert isinstance(entry, Outcome)
    assert (entry.outcome, entry.key, entry.version_id) == ("failed", "a b.csv", "v1")
    assert entry.error == Failure("ValueError", "no header", TRACE)
    assert entry.duration == timedelta(milliseconds=100)
    assert entry.size_bytes == 3
    assert entry.notes == ("n",)
    assert entry.archive_version_id == "av"


def test_an_outcome_line_inside_a_loggers_json_is_found():
    line = json.dumps(outcome_line("archived", "k"))
    entry = parse_entry(event({"level": "INFO", "message": line, "requestId": ID}))
    assert isinstance(entry, Outcome)
    assert entry.key == "k"


@pytest.mark.parametrize(
    "line",
    [
        {"twobuckets": 2, "outcome": "archived", "key": "k", "bucket": "b"},
        {"twobuckets": 1, "outcome": 7, "key": "k", "bucket": "b"},
        {"twobuckets": 1, "outcome": "archived", "key": None},
        '{"twobuckets":1,"outcome":"archived"',
        '{"twobuckets":1,' + '"a":[' * 5000,
    ],
)
def test_what_only_looks_like_an_outcome_line_is_text(line: str | dict[str, object]):
    assert not isinstance(parse_entry(event(line)), Outcome)
    assert isinstance(parse_entry(event(line)), LogLine)


FIELDS = [*outcome_line("", ""), "notes", "type", "record", "metrics", "status"]
FIELDS += ["requestId", "stackTrace", "errorType", "message", "level"]


@given(
    st.dictionaries(
        st.sampled_from(FIELDS),
        st.recursive(
            st.none() | st.booleans() | st.integers() | st.floats() | st.text(),
            lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner),
            max_leaves=5,
        )
        | st.sampled_from(["platform.report", "platform.start", 1, ID]),
    )
)
def test_any_json_is_read_without_an_error(fields: dict[str, object]):
    parse_entry(event(fields))


@given(st.text())
def test_any_text_is_read_without_an_error(text: str):
    parse_entry(event(text))


def test_lambdas_text_lines_are_told_apart():
    start = parse_entry(event(f"START RequestId: {ID} Version: $LATEST\n"))
    assert start == InvocationStart(EPOCH, ID, "s")
    assert isinstance(parse_entry(event(f"END RequestId: {ID}\n")), PlatformLine)
    assert isinstance(
        parse_entry(event("INIT_START Runtime Version: python:3.13.v1")), PlatformLine
    )
    report = parse_entry(
        event(
            f"REPORT RequestId: {ID}\tDuration: 3000.00 ms\tBilled Duration: 3000 ms\t"
            "Memory Size: 128 MB\tMax Memory Used: 127 MB\tInit Duration: 99.1 ms\t"
            "Status: timeout\n"
        )
    )
    assert isinstance(report, InvocationReport)
    assert (report.status, report.memory_mb, report.max_memory_used_mb) == ("timeout", 128, 127)
    assert report.duration == timedelta(seconds=3)
    logged = parse_entry(event(f"[WARNING]\t2026-05-04T12:00:00.123Z\t{ID}\ttoo\twide\n"))
    assert logged == LogLine(EPOCH, ID, "WARNING", "too\twide", "s")


@pytest.mark.parametrize(
    ("message", "reason", "kind"),
    [
        (
            f"2026-05-04T12:00:00.123Z {ID} Task timed out after 3.00 seconds\n\n",
            "timed-out",
            "Sandbox.Timedout",
        ),
        (
            f"RequestId: {ID} Error: Runtime exited with error: signal: killed\nRuntime.ExitError",
            "out-of-memory",
            "Runtime.ExitError",
        ),
        (
            f"RequestId: {ID} Error: Runtime exited with error: exit status 1\nRuntime.ExitError",
            "crashed",
            "Runtime.ExitError",
        ),
        (f"[ERROR] ValueError: no header\n{TRACE}", "raised", "ValueError"),
        (f"[ERROR] my.pkg.Odd\r{TRACE}", "raised", "my.pkg.Odd"),
        ("[ERROR] MemoryError\n" + TRACE, "out-of-memory", "MemoryError"),
        (
            {
                "timestamp": "2026-05-04T12:00:00Z",
                "log_level": "ERROR",
                "errorMessage": "no header",
                "errorType": "ValueError",
                "requestId": ID,
                "stackTrace": ["  File x\n", "    raise\n"],
            },
            "raised",
            "ValueError",
        ),
        (
            {
                "time": "2026-05-04T12:00:00Z",
                "type": "platform.report",
                "record": {"requestId": ID, "status": "timeout", "metrics": {"durationMs": 3}},
            },
            "timed-out",
            "Sandbox.Timedout",
        ),
        (
            {
                "type": "platform.report",
                "record": {"requestId": ID, "status": "error", "errorType": "Runtime.OutOfMemory"},
            },
            "out-of-memory",
            "Runtime.OutOfMemory",
        ),
    ],
)
def test_what_lambda_says_of_a_failed_invocation_is_understood(
    message: str | dict[str, object], reason: str, kind: str
):
    entry = parse_entry(event(message))
    assert isinstance(entry, FailedInvocation)
    assert (entry.reason, entry.error.type) == (reason, kind)


def test_an_error_that_a_logger_wrote_is_no_failed_invocation():
    entry = parse_entry(
        event(
            {
                "level": "ERROR",
                "message": "could not move x.csv",
                "logger": "root",
                "requestId": ID,
                "errorType": "ClientError",
                "errorMessage": "denied",
                "stackTrace": [],
            }
        )
    )
    assert entry == LogLine(EPOCH, ID, "ERROR", "could not move x.csv", "s")


def test_a_trace_belongs_to_the_invocation_that_runs_in_its_stream():
    entries = list(
        iter_entries(
            [
                event(f"START RequestId: {ID} Version: $LATEST", stream="one"),
                event(f"START RequestId: {ID[::-1]} Version: $LATEST", stream="other"),
                event(f"[ERROR] ValueError: no header\n{TRACE}", stream="one"),
                event("printed", stream="other"),
            ]
        )
    )
    assert [e.request_id for e in entries] == [ID, ID[::-1], ID, ID[::-1]]


def test_one_failure_is_told_once_and_its_retry_again():
    start = event(f"START RequestId: {ID} Version: $LATEST")
    line = event(outcome_line("failed", "k", request_id=ID))
    raised = event(f"[ERROR] RecordsFailedError: 1 record failed\n{TRACE}")
    report = event(f"REPORT RequestId: {ID}\tDuration: 3.00 ms\tStatus: error")
    entries = [
        e
        for e in iter_entries([start, line, raised, report, start, raised, report])
        if isinstance(e, Outcome | FailedInvocation)
    ]
    assert [type(e) for e in entries] == [Outcome, FailedInvocation]
