"""Files that reach our processor through topics, queues and EventBridge, and doctor beside it."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import pytest

from tests.doctor.conftest import run_doctor
from tests.embedded.pair import FUNCTION, STAGING, Pair
from tests.embedded.test_doctor_hand_made import named
from tests.embedded.test_processor import make_processor_pair

if TYPE_CHECKING:
    from collections.abc import Iterator

    from twobuckets.aws.clients import Aws

__all__ = ["named"]

KEYS = {"a b+c.csv", "in/ü.csv"}
CREATED = ["s3:ObjectCreated:*"]
ALL_EVENTS = [*CREATED, "s3:ObjectRemoved:*", "s3:ObjectTagging:*"]


@pytest.fixture
def pair(named: Aws) -> Iterator[Pair]:
    pair = make_processor_pair(named)
    named.functions.remove_permission(FunctionName=FUNCTION, StatementId="staging")
    yield pair
    for topic in named.sns.list_topics()["Topics"]:
        named.sns.delete_topic(TopicArn=topic["TopicArn"])
    for rule in named.events.list_rules()["Rules"]:
        targets = named.events.list_targets_by_rule(Rule=rule["Name"])["Targets"]
        named.events.remove_targets(Rule=rule["Name"], Ids=[target["Id"] for target in targets])
        named.events.delete_rule(Name=rule["Name"])
    for mapping in named.functions.list_event_source_mappings()["EventSourceMappings"]:
        named.functions.delete_event_source_mapping(UUID=mapping["UUID"])


def allow(service: str, action: str, resource: str) -> str:
    statement = {
        "Effect": "Allow",
        "Principal": {"Service": service},
        "Action": action,
        "Resource": resource,
    }
    return json.dumps({"Version": "2012-10-17", "Statement": statement})


def make_topic(aws: Aws) -> str:
    arn = aws.sns.create_topic(Name="arrivals")["TopicArn"]
    aws.sns.set_topic_attributes(
        TopicArn=arn,
        AttributeName="Policy",
        AttributeValue=allow("s3.amazonaws.com", "sns:Publish", arn),
    )
    return arn


def make_queue(aws: Aws, sender: str) -> str:
    """Make a queue that feeds the function."""
    url = aws.sqs.create_queue(QueueName="arrivals", Attributes={"VisibilityTimeout": "60"})
    attributes = aws.sqs.get_queue_attributes(
        QueueUrl=url["QueueUrl"], AttributeNames=["QueueArn"]
    )["Attributes"]
    arn = attributes["QueueArn"]
    aws.sqs.set_queue_attributes(
        QueueUrl=url["QueueUrl"], Attributes={"Policy": allow(sender, "sqs:SendMessage", arn)}
    )
    aws.functions.create_event_source_mapping(
        FunctionName=FUNCTION,
        EventSourceArn=arn,
        BatchSize=5,
        FunctionResponseTypes=["ReportBatchItemFailures"],
    )
    return arn


def tell(aws: Aws, **notification: Any) -> None:
    aws.s3.put_bucket_notification_configuration(
        Bucket=STAGING,
        NotificationConfiguration=notification,  # type: ignore[arg-type]
    )


def let_call(aws: Aws, service: str) -> str:
    aws.functions.add_permission(
        FunctionName=FUNCTION,
        StatementId="route",
        Action="lambda:InvokeFunction",
        Principal=service,
    )
    return aws.functions.get_function_configuration(FunctionName=FUNCTION)["FunctionArn"]


def through_topic(aws: Aws) -> None:
    topic = make_topic(aws)
    aws.sns.subscribe(
        TopicArn=topic, Protocol="lambda", Endpoint=let_call(aws, "sns.amazonaws.com")
    )
    tell(aws, TopicConfigurations=[{"TopicArn": topic, "Events": ALL_EVENTS}])


def through_topic_and_queue(aws: Aws) -> None:
    topic = make_topic(aws)
    queue = make_queue(aws, "sns.amazonaws.com")
    aws.sns.subscribe(TopicArn=topic, Protocol="sqs", Endpoint=queue)
    tell(aws, TopicConfigurations=[{"TopicArn": topic, "Events": ALL_EVENTS}])


def through_queue(aws: Aws) -> None:
    queue = make_queue(aws, "s3.amazonaws.com")
    tell(aws, QueueConfigurations=[{"QueueArn": queue, "Events": ALL_EVENTS}])


def through_eventbridge_and_queue(aws: Aws) -> None:
    queue = make_queue(aws, "events.amazonaws.com")
    pattern = {"source": ["aws.s3"], "detail": {"bucket": {"name": [STAGING]}}}
    aws.events.put_rule(Name="arrivals", EventPattern=json.dumps(pattern))
    aws.events.put_targets(Rule="arrivals", Targets=[{"Id": "queue", "Arn": queue}])
    tell(aws, EventBridgeConfiguration={})


def through_eventbridge(aws: Aws) -> None:
    pattern = {"source": ["aws.s3"], "detail": {"bucket": {"name": [STAGING]}}}
    arn = let_call(aws, "events.amazonaws.com")
    aws.events.put_rule(Name="arrivals", EventPattern=json.dumps(pattern))
    aws.events.put_targets(Rule="arrivals", Targets=[{"Id": "function", "Arn": arn}])
    tell(aws, EventBridgeConfiguration={})


@pytest.mark.parametrize(
    "lead",
    [
        through_topic,
        through_topic_and_queue,
        through_queue,
        through_eventbridge,
        through_eventbridge_and_queue,
    ],
)
def test_files_come_through_and_doctor_has_nothing_against_it(named: Aws, pair: Pair, lead: Any):
    lead(named)
    pair.put(*KEYS)
    pair.wait_for_archived(KEYS)
    # Our own deletes are events as well: they are said to be none of ours, and fail nothing.
    pair.wait_for_lines("ignored what is no file's arrival", 1)
    assert [line for line in pair.lines() if '"level": "ERROR"' in line] == []
    wiring = run_doctor("--check", "wiring")
    assert wiring.findings == []
    assert wiring.exit_code == 0
