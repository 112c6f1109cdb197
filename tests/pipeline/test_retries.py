"""How often an event is tried, whichever way it comes."""

from __future__ import annotations

import json
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from botocore.stub import Stubber

from twobuckets.aws.clients import Aws
from twobuckets.pipeline import retries
from twobuckets.pipeline.facts import Facts
from twobuckets.settings import Pipeline

ARN = "arn:aws:lambda:eu-central-1:123456789012:function:proc"
QUEUE = "arn:aws:sqs:eu-central-1:123456789012:arrivals"
URL = "https://sqs.eu-central-1.amazonaws.com/123456789012/arrivals"
MINUTE = timedelta(minutes=1)


@pytest.fixture
def aws(fake_credentials: None) -> Aws:
    return Aws(region="eu-central-1")


def read(
    aws: Aws, *, queue: dict[str, str] | None = None, is_direct: bool = False, tries: int = 2
) -> retries.Retries:
    """Read the retries of arrivals for a function of one minute's time-out."""
    pipeline = Pipeline(stack=None, staging="intake", archive="kept", function="proc")
    notification = {
        "LambdaFunctionConfigurations": [
            {"LambdaFunctionArn": ARN, "Events": ["s3:ObjectCreated:*"]}
        ]
    }
    with Stubber(aws.s3) as s3, Stubber(aws.functions) as functions, Stubber(aws.sqs) as sqs:
        sources: Any = [{"EventSourceArn": QUEUE}] if queue is not None else []
        functions.add_response("list_event_source_mappings", {"EventSourceMappings": sources})
        if queue is not None:
            sqs.add_response("get_queue_url", {"QueueUrl": URL})
            sqs.add_response("get_queue_attributes", {"Attributes": queue})
            s3.add_response(
                "get_bucket_notification_configuration", notification if is_direct else {}
            )
        if queue is None or is_direct:
            functions.add_response(
                "list_function_event_invoke_configs",
                {
                    "FunctionEventInvokeConfigs": [
                        {"FunctionArn": f"{ARN}:$LATEST", "MaximumRetryAttempts": tries}
                    ]
                },
            )
            functions.add_response("get_function_configuration", {"Timeout": 60})
        return retries.retries_of_arrivals(Facts(aws, pipeline, datetime.now(UTC)))


def test_an_asynchronous_event_is_tried_as_the_functions_setting_says(aws: Aws):
    found = read(aws, tries=1)
    assert found == retries.asynchronous(MINUTE, 1)
    assert (found.attempts, found.lasts, found.pause) == (2, 3 * MINUTE, MINUTE)
    assert [found.is_last(attempt) for attempt in (1, 2)] == [False, True]


def test_with_a_queue_in_front_its_settings_rule(aws: Aws):
    queue = {
        "VisibilityTimeout": "360",
        "RedrivePolicy": json.dumps({"deadLetterTargetArn": "arn:dlq", "maxReceiveCount": "5"}),
    }
    found = read(aws, queue=queue)
    assert (found.attempts, found.lasts, found.pause) == (5, 30 * MINUTE, 6 * MINUTE)
    assert found.by == "SQS"
    assert not found.is_last(3)


def test_a_queue_without_a_dead_letter_queue_tries_until_its_retention_is_over(aws: Aws):
    found = read(aws, queue={"MessageRetentionPeriod": "3600"})
    assert (found.attempts, found.lasts) == (None, 60 * MINUTE)
    assert not found.is_last(1_000)


def test_where_both_ways_lead_to_the_function_the_more_patient_one_rules(aws: Aws):
    queue = {"RedrivePolicy": json.dumps({"maxReceiveCount": 2})}
    assert read(aws, queue=queue, is_direct=True).attempts == 3
    aws = Aws(region="eu-central-1")
    queue = {"RedrivePolicy": json.dumps({"maxReceiveCount": 4})}
    assert read(aws, queue=queue, is_direct=True).attempts == 4
