"""What makes a run slow down: CloudWatch's word that Lambda throttles the processor."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from typing import Any

import boto3
import pytest
from botocore.stub import Stubber

from twobuckets.reprocess.run import count_throttles

NOW = datetime(2026, 5, 4, 12, 0, tzinfo=UTC)


@pytest.fixture
def cloudwatch() -> Iterator[tuple[Any, Stubber]]:
    client = boto3.client(
        "cloudwatch",
        region_name="eu-central-1",
        aws_access_key_id="AKIDEXAMPLE",
        aws_secret_access_key="secret",
    )
    with Stubber(client) as stubber:
        yield client, stubber


def question(function: str) -> dict[str, Any]:
    return {
        "Namespace": "AWS/Lambda",
        "MetricName": "Throttles",
        "Dimensions": [{"Name": "FunctionName", "Value": function}],
        "StartTime": NOW - timedelta(minutes=3),
        "EndTime": NOW,
        "Period": 60,
        "Statistics": ["Sum"],
    }


@pytest.mark.parametrize(
    "function",
    [
        "intake-processor",
        "intake-processor:live",
        "arn:aws:lambda:eu-central-1:123456789012:function:intake-processor",
        "arn:aws:lambda:eu-central-1:123456789012:function:intake-processor:live",
    ],
)
def test_the_newest_minute_counts_however_the_function_is_named(
    cloudwatch: tuple[Any, Stubber], function: str
):
    client, stubber = cloudwatch
    # CloudWatch gives the minutes in any order.
    sums = [(1, 7.0), (3, 0.0), (2, 40.0)]
    points = [{"Timestamp": NOW - timedelta(minutes=m), "Sum": s, "Unit": "Count"} for m, s in sums]
    stubber.add_response(
        "get_metric_statistics", {"Datapoints": points}, question("intake-processor")
    )
    assert count_throttles(client, function, NOW) == 7
    stubber.assert_no_pending_responses()


def test_a_silent_function_was_not_throttled(cloudwatch: tuple[Any, Stubber]):
    client, stubber = cloudwatch
    stubber.add_response("get_metric_statistics", {"Datapoints": []}, question("f"))
    assert count_throttles(client, "f", NOW) == 0


def test_without_the_permission_a_run_goes_on_at_its_rate(cloudwatch: tuple[Any, Stubber]):
    client, stubber = cloudwatch
    stubber.add_client_error("get_metric_statistics", "AccessDenied", http_status_code=403)
    assert count_throttles(client, "f", NOW) == 0
