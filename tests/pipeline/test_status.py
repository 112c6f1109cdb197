"""What status says of policies and notifications, in the spellings that AWS takes."""

from __future__ import annotations

import io
import json
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any

import pytest
from botocore.awsrequest import AWSResponse, HTTPHeaders
from botocore.stub import Stubber
from moto import mock_aws

from twobuckets.aws.clients import Aws
from twobuckets.errors import TwoBucketsError
from twobuckets.pipeline.facts import Facts
from twobuckets.pipeline.lookups import Unread
from twobuckets.pipeline.status import (
    BucketStatus,
    FunctionStatus,
    PartMissing,
    QueuesStatus,
    WiringStatus,
    count_unread,
    describe_bucket,
    describe_function,
    describe_queues,
    describe_staging,
    describe_wiring,
)
from twobuckets.settings import Pipeline

ARN = "arn:aws:lambda:eu-central-1:123456789012:function:proc"
QUEUE = "arn:aws:sqs:eu-central-1:123456789012:arrivals"
TOPIC = "arn:aws:sns:eu-central-1:123456789012:arrivals"
CREATED = "s3:ObjectCreated:*"
NOW = datetime(2026, 5, 4, 13, 30, tzinfo=UTC)
TO_FUNCTION = {"LambdaFunctionConfigurations": [{"LambdaFunctionArn": ARN, "Events": [CREATED]}]}
TO_QUEUE = {"QueueConfigurations": [{"QueueArn": QUEUE, "Events": [CREATED]}]}
TO_TOPIC = {"TopicConfigurations": [{"TopicArn": TOPIC, "Events": [CREATED]}]}


if TYPE_CHECKING:
    from collections.abc import Iterator


@pytest.fixture
def aws(fake_credentials: None) -> Aws:
    return Aws(region="eu-central-1")


def facts_of(aws: Aws, function: str = "proc") -> Facts:
    """Return the facts of a pipeline whose staging bucket is `intake`."""
    return Facts(
        aws, Pipeline(stack=None, staging="intake", archive="kept", function=function), NOW
    )


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
        functions.add_response("get_function_configuration", {"FunctionArn": ARN})
        s3.add_response("get_bucket_notification_configuration", notification)
        if sources is not None:
            mappings: Any = [{"EventSourceArn": arn} for arn in sources]
            functions.add_response("list_event_source_mappings", {"EventSourceMappings": mappings})
        if statements:
            functions.add_response("get_policy", {"Policy": json.dumps({"Statement": statements})})
        if account is not None:
            sts.add_response("get_caller_identity", {"Account": account})
        found = describe_wiring(facts_of(aws, function))
    assert found is not None
    return found


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
        found = describe_function(facts_of(aws, f"{ARN}:prod"), built_sha256=None)
    assert isinstance(found, FunctionStatus)
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
        functions.add_response("get_function_configuration", {"FunctionArn": ARN})
        s3.add_response("get_bucket_notification_configuration", TO_TOPIC)
        policy = json.dumps({"Statement": allow(Principal={"Service": "sns.amazonaws.com"})})
        functions.add_response("get_policy", {"Policy": policy})
        found = describe_wiring(facts_of(aws))
    assert found == WiringStatus((CREATED,), (), None)


def test_what_brings_the_events_says_when_it_can_not_be_read(aws: Aws):
    with Stubber(aws.s3) as s3, Stubber(aws.functions) as functions:
        functions.add_response("get_function_configuration", {"FunctionArn": ARN})
        s3.add_response("get_bucket_notification_configuration", TO_QUEUE)
        functions.add_client_error(
            "list_event_source_mappings", "AccessDeniedException", http_status_code=403
        )
        functions.add_client_error("get_policy", "ResourceNotFoundException", http_status_code=404)
        found = describe_wiring(facts_of(aws))
    assert found is not None
    assert isinstance(found.events, Unread)
    assert found.events.action == "lambda:ListEventSourceMappings"
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
        s3.add_response("head_bucket", {})
        s3.add_response("get_bucket_lifecycle_configuration", {})
        s3.add_response("get_public_access_block", {})
        s3.add_response("get_bucket_encryption", {})
        s3.add_response("get_bucket_versioning", {})
        s3.add_response("get_bucket_policy", {"Policy": json.dumps({"Statement": statement})})
        s3.add_response("get_bucket_cors", {})
        found = describe_bucket(facts_of(aws), "staging", "intake")
    assert isinstance(found, BucketStatus)
    assert found.is_tls_only is is_tls_only


# --- on moto


@pytest.fixture
def moto(fake_credentials: None) -> Iterator[Aws]:
    """A versioned bucket `intake`, and nothing else."""
    with mock_aws():
        made = Aws(region="eu-central-1")
        made.s3.create_bucket(
            Bucket="intake", CreateBucketConfiguration={"LocationConstraint": "eu-central-1"}
        )
        made.s3.put_bucket_versioning(
            Bucket="intake", VersioningConfiguration={"Status": "Enabled"}
        )
        yield made


def answer_with(client: Any, body: bytes, status: int, *operations: str):
    """Answer operations of S3 with these bytes, whatever they are."""

    def answer(**_: Any) -> AWSResponse:
        raw: Any = io.BytesIO(body)
        raw.stream = lambda *_, **__: iter([body])
        return AWSResponse("https://s3", status, HTTPHeaders(), raw)

    for operation in operations:
        client.meta.events.register_first(f"before-send.s3.{operation}", answer)


def deny(client: Any, *operations: str):
    """Make operations fail as S3 does without the permission."""
    said = b"<Error><Code>AccessDenied</Code><Message>Access Denied</Message></Error>"
    answer_with(client, said, 403, *operations)


def test_what_is_denied_is_named_and_hides_nothing_else(moto: Aws):
    deny(moto.s3, "GetBucketVersioning", "GetPublicAccessBlock", "ListMultipartUploads")
    facts = facts_of(moto)
    found = describe_bucket(facts, "staging", "intake")
    assert isinstance(found, BucketStatus)
    assert found.versioning == Unread("access denied", "s3:GetBucketVersioning")
    assert found.is_private == Unread("access denied", "s3:GetBucketPublicAccessBlock")
    assert found.is_tls_only is False
    assert count_unread(found) == 2
    staging = describe_staging(facts)
    assert staging is not None
    assert staging.uploads == Unread("access denied", "s3:ListBucketMultipartUploads")
    assert not isinstance(staging.staged, Unread)


def test_a_rule_for_a_part_of_the_bucket_is_no_rule_for_the_bucket(moto: Aws):
    def rule(prefix: str, days: int) -> dict[str, Any]:
        return {
            "ID": f"{prefix}{days}",
            "Status": "Enabled",
            "Filter": {"Prefix": prefix},
            "AbortIncompleteMultipartUpload": {"DaysAfterInitiation": days},
        }

    def days_with(*rules: Any) -> object:
        moto.s3.put_bucket_lifecycle_configuration(
            Bucket="intake", LifecycleConfiguration={"Rules": list(rules)}
        )
        found = describe_bucket(facts_of(moto), "staging", "intake")
        assert isinstance(found, BucketStatus)
        return found.abort_uploads_days

    assert days_with(rule("tmp/", 1)) is None
    assert days_with(rule("tmp/", 1), rule("", 7)) == 7


def test_what_does_not_exist_is_said_once_and_nothing_is_claimed_of_it(moto: Aws):
    facts = facts_of(moto)
    assert describe_bucket(facts, "archive", "kept") == PartMissing("archive", "kept")
    assert describe_function(facts, built_sha256=None) == PartMissing("function", "proc")
    assert describe_wiring(facts) is None
    elsewhere = Facts(
        moto, Pipeline(stack=None, staging="nowhere", archive="kept", function="proc"), NOW
    )
    assert describe_staging(elsewhere) is None


@pytest.mark.parametrize(
    "code", ["InvalidAccessKeyId", "SignatureDoesNotMatch", "ExpiredToken", "RequestTimeTooSkewed"]
)
def test_what_keeps_all_from_being_read_ends_a_glance_at_once(aws: Aws, code: str):
    with Stubber(aws.s3) as stub:
        stub.add_client_error("head_bucket", code, "no", 403)
        with pytest.raises(TwoBucketsError, match="bucket intake"):
            describe_bucket(facts_of(aws), "staging", "intake")


def test_each_fact_is_asked_for_once_whoever_asks(moto: Aws):
    asked: list[str] = []
    moto.s3.meta.events.register("before-call.s3", lambda model, **_: asked.append(str(model.name)))
    facts = facts_of(moto)
    for _ in range(2):
        describe_bucket(facts, "staging", "intake")
        facts.buckets.lifecycle("intake")
        facts.buckets.policy("intake")
    assert len(asked) == len(set(asked))


@pytest.mark.parametrize("status", [403, 405])
def test_an_answer_that_is_not_of_aws_is_no_missing_permission(moto: Aws, status: int):
    page = b"<html><body>Sign in to the guest network</body></html>"

    answer_with(moto.s3, page, status, "GetBucketVersioning")
    found = describe_bucket(facts_of(moto), "staging", "intake")
    assert isinstance(found, BucketStatus)
    assert isinstance(found.versioning, Unread)
    assert f"not AWS (HTTP status {status}" in found.versioning.reason
    assert found.versioning.action is None


def test_the_queue_that_feeds_the_function_is_counted_with_what_it_gave_up(aws: Aws):
    dead = f"{QUEUE}-dead"
    counts = {
        "ApproximateNumberOfMessages": "12",
        "ApproximateNumberOfMessagesNotVisible": "3",
        "ApproximateNumberOfMessagesDelayed": "1",
    }
    redrive = {"RedrivePolicy": json.dumps({"deadLetterTargetArn": dead, "maxReceiveCount": 3})}
    at = datetime.now(UTC)
    with (
        Stubber(aws.functions) as functions,
        Stubber(aws.sqs) as sqs,
        Stubber(aws.cloudwatch) as cloudwatch,
    ):
        functions.add_response("get_function_configuration", {"FunctionArn": ARN})
        mappings: Any = [{"EventSourceArn": QUEUE}]
        functions.add_response("list_event_source_mappings", {"EventSourceMappings": mappings})
        sqs.add_response("get_queue_url", {"QueueUrl": "https://sqs/1/arrivals"})
        sqs.add_response("get_queue_attributes", {"Attributes": counts | redrive})
        cloudwatch.add_response(
            "get_metric_statistics", {"Datapoints": [{"Timestamp": at, "Maximum": 240.0}]}
        )
        sqs.add_client_error("get_queue_url", "AccessDenied")
        found = describe_queues(facts_of(aws))
    assert isinstance(found, QueuesStatus)
    assert isinstance(found.queues, tuple)
    [queue] = found.queues
    assert (queue.waiting, queue.taken, queue.delayed) == (12, 3, 1)
    assert queue.oldest == timedelta(minutes=4)
    assert queue.dead_letter_queue == dead.rpartition(":")[2]
    assert isinstance(queue.given_up, Unread)
    assert queue.given_up.action == "sqs:GetQueueUrl"
    assert count_unread(found) == 1
