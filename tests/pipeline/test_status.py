"""What status says of policies and notifications, in the spellings that AWS takes."""

from __future__ import annotations

import json
from typing import Any

import pytest
from botocore.stub import Stubber

from twobuckets.aws.clients import Aws
from twobuckets.pipeline.status import (
    Unread,
    WiringStatus,
    describe_bucket,
    describe_function,
    describe_wiring,
)

ARN = "arn:aws:lambda:eu-central-1:123456789012:function:proc"
QUEUE = "arn:aws:sqs:eu-central-1:123456789012:arrivals"
TOPIC = "arn:aws:sns:eu-central-1:123456789012:arrivals"
CREATED = "s3:ObjectCreated:*"
TO_FUNCTION = {"LambdaFunctionConfigurations": [{"LambdaFunctionArn": ARN, "Events": [CREATED]}]}
TO_QUEUE = {"QueueConfigurations": [{"QueueArn": QUEUE, "Events": [CREATED]}]}
TO_TOPIC = {"TopicConfigurations": [{"TopicArn": TOPIC, "Events": [CREATED]}]}


@pytest.fixture
def aws(fake_credentials: None) -> Aws:
    return Aws(region="eu-central-1")


def allow(**parts: Any) -> dict[str, Any]:
    s3 = {"Service": "s3.amazonaws.com"}
    return {"Effect": "Allow", "Action": "lambda:InvokeFunction", "Principal": s3} | parts


def from_bucket(arn: str, operator: str = "ArnLike") -> dict[str, Any]:
    return {"Condition": {operator: {"AWS:SourceArn": arn}}}


def look_at_wiring(
    aws: Aws,
    notification: dict[str, Any],
    *statements: dict[str, Any],
    sources: tuple[str, ...] | None = None,
    function: str = "proc",
    account: str | None = None,
) -> WiringStatus:
    """Describe the wiring; only what is given here may be asked for."""
    with Stubber(aws.s3) as s3, Stubber(aws.functions) as functions, Stubber(aws.sts) as sts:
        s3.add_response("get_bucket_notification_configuration", notification)
        if sources is not None:
            mappings: Any = [{"EventSourceArn": arn} for arn in sources]
            functions.add_response("list_event_source_mappings", {"EventSourceMappings": mappings})
        if statements:
            functions.add_response("get_policy", {"Policy": json.dumps({"Statement": statements})})
            functions.add_response("get_function_configuration", {"FunctionArn": ARN})
        if account is not None:
            sts.add_response("get_caller_identity", {"Account": account})
        return describe_wiring(aws.s3, aws.functions, aws.sts, "intake", function)


@pytest.mark.parametrize(
    ("statement", "is_permitted"),
    [
        (allow(), True),
        (allow(**from_bucket("arn:aws:s3:::intake")), True),
        (allow(**from_bucket("arn:aws:s3:::int*")), True),
        (allow(Principal={"Service": ["s3.amazonaws.com"]}), True),
        (allow(Principal="*", Action=["lambda:Invoke*"]), True),
        (allow(Action="lambda:GetFunction"), False),
        (allow(Effect="Deny"), False),
        (allow(Principal={"Service": "sns.amazonaws.com"}), False),
    ],
)
def test_whether_s3_may_invoke_the_function_is_read_as_iam_reads_it(
    aws: Aws, statement: dict[str, Any], is_permitted: bool
):
    found = look_at_wiring(aws, TO_FUNCTION, statement)
    assert found == WiringStatus((CREATED,), (), is_permitted)


@pytest.mark.parametrize(("account", "is_permitted"), [("1" * 12, True), ("2" * 12, False)])
def test_a_bucket_may_be_in_the_account_of_whoever_asks(aws: Aws, account: str, is_permitted: bool):
    ours = allow(Condition={"StringEquals": {"AWS:SourceAccount": "1" * 12}})
    assert look_at_wiring(aws, TO_FUNCTION, ours, account=account).is_permitted is is_permitted


@pytest.mark.parametrize("function", ["proc", ARN, "proc:prod", f"{ARN}:prod"])
def test_a_function_is_itself_however_it_is_named(aws: Aws, function: str):
    target = f"{ARN}:prod" if function.endswith(":prod") else ARN
    notification = {
        "LambdaFunctionConfigurations": [{"LambdaFunctionArn": target, "Events": [CREATED]}]
    }
    found = look_at_wiring(aws, notification, allow(), function=function)
    assert found == WiringStatus((CREATED,), (), True)


def test_the_concurrency_is_the_whole_functions_whichever_alias_is_meant(aws: Aws):
    with Stubber(aws.functions) as functions:
        functions.add_client_error("get_function_configuration", "ServiceException")
        functions.add_response(
            "get_function_concurrency",
            {"ReservedConcurrentExecutions": 7},
            {"FunctionName": "proc"},
        )
        found = describe_function(aws.functions, f"{ARN}:prod", built_sha256=None)
    assert found.reserved_concurrency == 7


def test_another_alias_of_the_function_is_another_target(aws: Aws):
    found = look_at_wiring(aws, TO_FUNCTION, allow(), function="proc:prod")
    assert found == WiringStatus((), (ARN,), True)


def test_a_queue_that_feeds_the_function_wakes_it_and_s3_need_not_be_permitted(aws: Aws):
    assert look_at_wiring(aws, TO_QUEUE, sources=(QUEUE,)) == WiringStatus((CREATED,), (), None)


def test_a_queue_that_feeds_something_else_is_told_as_another_target(aws: Aws):
    found = look_at_wiring(aws, TO_QUEUE, allow(), sources=(f"{QUEUE}-2",))
    assert found == WiringStatus((), (QUEUE,), True)


def test_a_topic_that_may_call_the_function_wakes_it(aws: Aws):
    with Stubber(aws.s3) as s3, Stubber(aws.functions) as functions:
        s3.add_response("get_bucket_notification_configuration", TO_TOPIC)
        policy = json.dumps({"Statement": allow(Principal={"Service": "sns.amazonaws.com"})})
        functions.add_response("get_policy", {"Policy": policy})
        found = describe_wiring(aws.s3, aws.functions, aws.sts, "intake", "proc")
    assert found == WiringStatus((CREATED,), (), None)


def test_what_brings_the_events_says_when_it_can_not_be_read(aws: Aws):
    with Stubber(aws.s3) as s3, Stubber(aws.functions) as functions:
        s3.add_response("get_bucket_notification_configuration", TO_QUEUE)
        functions.add_client_error(
            "list_event_source_mappings", "AccessDeniedException", http_status_code=403
        )
        functions.add_client_error("get_policy", "ResourceNotFoundException", http_status_code=404)
        found = describe_wiring(aws.s3, aws.functions, aws.sts, "intake", "proc")
    assert isinstance(found.events, Unread)
    assert found.events.action == "ListEventSourceMappings"
    assert (found.others, found.is_permitted) == ((QUEUE,), False)


PLAIN = {"Bool": {"aws:SecureTransport": "false"}}
DENY = {"Effect": "Deny", "Principal": "*", "Action": "s3:*", "Resource": "*", "Condition": PLAIN}


@pytest.mark.parametrize(
    ("statement", "is_tls_only"),
    [
        (DENY, True),
        (DENY | {"Condition": {"Bool": {"aws:SecureTransport": ["false"]}}}, True),
        (DENY | {"Condition": {"Bool": {"AWS:secureTransport": False}}}, True),
        (DENY | {"Principal": {"AWS": ["*"]}}, True),
        (DENY | {"Principal": {"AWS": "arn:aws:iam::123456789012:user/one"}}, False),
        (DENY | {"Action": "s3:GetObject"}, False),
        (DENY | {"Effect": "Allow"}, False),
    ],
)
def test_whether_a_bucket_takes_tls_only_is_read_as_iam_reads_it(
    aws: Aws, statement: dict[str, Any], is_tls_only: bool
):
    with Stubber(aws.s3) as s3:
        s3.add_response("get_bucket_lifecycle_configuration", {})
        s3.add_response("get_public_access_block", {})
        s3.add_response("get_bucket_encryption", {})
        s3.add_response("get_bucket_versioning", {})
        s3.add_response("get_bucket_policy", {"Policy": json.dumps({"Statement": statement})})
        s3.add_response("get_bucket_cors", {})
        assert describe_bucket(aws.s3, "staging", "intake").is_tls_only is is_tls_only
