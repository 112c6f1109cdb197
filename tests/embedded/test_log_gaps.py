"""The embedded AWS pages and filters log events as AWS does."""

from __future__ import annotations

import json
import time
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING

import pytest

from twobuckets.logs.events import iter_events
from twobuckets.logs.lines import OUTCOME_OR_FAILURE_PATTERN

if TYPE_CHECKING:
    from collections.abc import Iterator

    from mypy_boto3_logs import CloudWatchLogsClient

    from twobuckets.aws.clients import Aws

GROUP = "/aws/lambda/paged"


@pytest.fixture
def group(embedded: Aws) -> Iterator[CloudWatchLogsClient]:
    """Hold one log group with nothing in it."""
    embedded.logs.create_log_group(logGroupName=GROUP)
    yield embedded.logs
    embedded.logs.delete_log_group(logGroupName=GROUP)


def put(logs: CloudWatchLogsClient, stream: str, messages: list[str], *, at_ms: int) -> None:
    logs.create_log_stream(logGroupName=GROUP, logStreamName=stream)
    logs.put_log_events(
        logGroupName=GROUP,
        logStreamName=stream,
        logEvents=[{"timestamp": at_ms + n // 3, "message": m} for n, m in enumerate(messages)],
    )


def test_more_than_a_page_is_read_to_the_end(group: CloudWatchLogsClient):
    at_ms = int(time.time() * 1000) - 60_000
    for stream in ("one", "two", "three"):
        put(group, stream, [f"{stream} {n}" for n in range(4_000)], at_ms=at_ms)
    events = list(iter_events(group, GROUP))
    assert len(events) == 12_000
    assert len({e.event_id for e in events}) == 12_000
    assert [e.logged_at for e in events] == sorted(e.logged_at for e in events)
    mine = [e.message for e in events if e.log_stream == "two"]
    assert mine == [f"two {n}" for n in range(4_000)]


def test_small_pages_hold_each_event_once_in_the_order_it_was_written(group: CloudWatchLogsClient):
    put(group, "s", [str(n) for n in range(25)], at_ms=int(time.time() * 1000) - 60_000)
    pages = group.get_paginator("filter_log_events").paginate(
        logGroupName=GROUP, PaginationConfig={"PageSize": 4}
    )
    assert [e["message"] for page in pages for e in page["events"]] == [str(n) for n in range(25)]


def test_the_patterns_that_select_outcomes_and_failures_work(group: CloudWatchLogsClient):
    line = json.dumps({"twobuckets": 1, "outcome": "archived"})
    late = "2026-05-04T12:00:00.123Z 8476a536 Task timed out after 3.00 seconds"
    put(group, "s", [line, "hello", late, "{broken"], at_ms=int(time.time() * 1000) - 60_000)
    start_at = datetime.now(UTC) - timedelta(hours=1)

    def read(pattern: str) -> list[str]:
        return [e.message for e in iter_events(group, GROUP, start_at=start_at, pattern=pattern)]

    assert read("{ $.twobuckets = 1 }") == [line]
    assert read(OUTCOME_OR_FAILURE_PATTERN) == [line, late]
    assert len(read("")) == 4
    assert read("hello") == ["hello"]


def test_a_token_that_is_none_is_refused(group: CloudWatchLogsClient):
    with pytest.raises(group.exceptions.InvalidParameterException):
        group.filter_log_events(logGroupName=GROUP, nextToken="bm9uZQ==")
