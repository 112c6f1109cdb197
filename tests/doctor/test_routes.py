"""Doctor on ways from S3 to the processor that lead through topics, queues and EventBridge."""

from __future__ import annotations

import json
import shlex
from typing import TYPE_CHECKING, Any

import pytest

from tests.doctor.conftest import FUNCTION, STAGING, Answers, HandMadePair, run_doctor

if TYPE_CHECKING:
    from collections.abc import Callable

QUEUE = "arn:aws:sqs:eu-central-1:123456789012:arrivals"
OTHER_QUEUE = f"{QUEUE}-of-others"
TOPIC = "arn:aws:sns:eu-central-1:123456789012:arrivals"
MAPPING = {
    "UUID": "a-uuid",
    "EventSourceArn": QUEUE,
    "State": "Enabled",
    "FunctionResponseTypes": ["ReportBatchItemFailures"],
}
CREATED = ["s3:ObjectCreated:*"]


def subscribe(answers: Answers, *endpoints: str) -> None:
    found = [{"TopicArn": TOPIC, "Protocol": "sqs", "Endpoint": e} for e in endpoints]
    answers.give("ListSubscriptionsByTopic", {"Subscriptions": found})


@pytest.fixture
def through_topic(pair: HandMadePair, answers: Answers) -> HandMadePair:
    """Staging tells a topic, and a queue feeds the function."""
    answers.give(
        "GetBucketNotificationConfiguration",
        {"TopicConfigurations": [{"TopicArn": TOPIC, "Events": CREATED}]},
    )
    pair.functions.remove_permission(FunctionName=FUNCTION, StatementId="s3")
    answers.give("ListEventSourceMappings", {"EventSourceMappings": [MAPPING]})
    answers.give("GetQueueUrl", {"QueueUrl": "https://sqs/arrivals"})
    answers.give("GetQueueAttributes", {"Attributes": {"VisibilityTimeout": "30"}})
    return pair


def test_a_topic_that_tells_the_functions_queue_is_a_way(
    through_topic: HandMadePair, answers: Answers
):
    subscribe(answers, "mailto:ops@example.com", QUEUE)
    assert run_doctor("--check", "wiring").checks == set()


def test_a_topic_that_tells_another_queue_is_none(through_topic: HandMadePair, answers: Answers):
    subscribe(answers, OTHER_QUEUE)
    assert "notification-target" in run_doctor("--check", "wiring").checks


def test_a_topic_whose_subscriptions_may_not_be_read_is_neither(
    through_topic: HandMadePair, answers: Answers
):
    answers.refuse("ListSubscriptionsByTopic", "AuthorizationError")
    found = run_doctor("--check", "notification-target").of("could-not-look")
    assert found["permission"] == "sns:ListSubscriptionsByTopic"


def test_a_topic_that_is_gone_leads_nowhere(through_topic: HandMadePair, answers: Answers):
    answers.refuse("ListSubscriptionsByTopic", "NotFound", 404)
    assert "notification-target" in run_doctor("--check", "wiring").checks


def test_a_queue_that_forgets_what_failed_is_named(ours: HandMadePair, answers: Answers):
    silent = {name: value for name, value in MAPPING.items() if name != "FunctionResponseTypes"}
    answers.give("ListEventSourceMappings", {"EventSourceMappings": [silent]})
    found = run_doctor("--check", "batch-failures-ignored").of("batch-failures-ignored")
    assert found["subject"] == QUEUE
    assert found["remedy"].endswith(
        "update-event-source-mapping --uuid a-uuid "
        "--function-response-types ReportBatchItemFailures"
    )
    answers.give("ListEventSourceMappings", {"EventSourceMappings": [MAPPING]})
    assert run_doctor("--check", "batch-failures-ignored").checks == set()


def test_a_queue_is_opened_to_s3_beside_what_another_bucket_may_send(
    pair: HandMadePair, answers: Answers
):
    """Written by this tool or not, a statement of the same name is somebody's way to the queue."""
    theirs = {
        "Sid": "TakeFromStaging",
        "Effect": "Allow",
        "Principal": {"Service": "s3.amazonaws.com"},
        "Action": "sqs:SendMessage",
        "Resource": QUEUE,
        "Condition": {"ArnEquals": {"aws:SourceArn": "arn:aws:s3:::elsewhere"}},
    }
    answers.give(
        "GetBucketNotificationConfiguration",
        {"QueueConfigurations": [{"QueueArn": QUEUE, "Events": CREATED}]},
    )
    answers.give("GetQueueUrl", {"QueueUrl": "https://sqs/arrivals"})
    policy = json.dumps({"Version": "2012-10-17", "Statement": [theirs]})
    answers.give("GetQueueAttributes", {"Attributes": {"Policy": policy}})
    words = shlex.split(run_doctor("--check", "queue-policy").of("queue-policy")["remedy"])
    written = json.loads(json.loads(words[words.index("--attributes") + 1])["Policy"])
    assert written["Statement"][0] == theirs
    assert written["Statement"][1]["Condition"]["ArnEquals"] == {
        "aws:SourceArn": f"arn:aws:s3:::{STAGING}"
    }


def test_a_processor_of_others_may_answer_as_it_likes(pair: HandMadePair, answers: Answers):
    silent = MAPPING | {"FunctionResponseTypes": []}
    answers.give("ListEventSourceMappings", {"EventSourceMappings": [silent]})
    assert run_doctor("--check", "batch-failures-ignored").checks == set()


def rules_of(arn: str) -> Callable[[dict[str, Any]], dict[str, Any]]:
    def answer(params: dict[str, Any]) -> dict[str, Any]:
        return {"RuleNames": ["uploads"] if arn in str(params["body"]) else []}

    return answer


@pytest.mark.parametrize(
    ("rewriting", "is_found"),
    [
        ({}, False),
        ({"InputPath": "$.detail"}, True),
        ({"Input": "{}"}, True),
        ({"InputTransformer": {"InputTemplate": "{}"}}, True),
    ],
)
def test_a_rule_that_rewrites_events_is_named(
    ours: HandMadePair, answers: Answers, rewriting: dict[str, Any], is_found: bool
):
    answers.give("GetBucketNotificationConfiguration", {"EventBridgeConfiguration": {}})
    answers.give("ListEventSourceMappings", {"EventSourceMappings": [MAPPING]})
    answers.give("GetQueueUrl", {"QueueUrl": "https://sqs/arrivals"})
    answers.give("GetQueueAttributes", {"Attributes": {"VisibilityTimeout": "30"}})
    answers.give("ListRuleNamesByTarget", rules_of(QUEUE))
    answers.give("ListTargetsByRule", {"Targets": [{"Id": "q", "Arn": QUEUE, **rewriting}]})
    run = run_doctor("--check", "wiring")
    assert run.checks == ({"event-rewritten"} if is_found else set())
    if is_found:
        assert next(iter(rewriting)) in run.of("event-rewritten")["detail"]
        assert run.of("event-rewritten")["remedy"].endswith("list-targets-by-rule --rule uploads")
