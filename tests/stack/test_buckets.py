"""The artifact bucket, and rules of others, on moto."""

from __future__ import annotations

import hashlib
import io
from dataclasses import replace
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

import pytest
from botocore.awsrequest import AWSResponse, HTTPHeaders
from botocore.exceptions import ClientError
from botocore.stub import Stubber
from moto import mock_aws

from twobuckets.aws.clients import Aws
from twobuckets.errors import AccessError, TwoBucketsError
from twobuckets.pipeline.facts import Facts
from twobuckets.pipeline.status import BucketStatus, describe_bucket
from twobuckets.settings import Pipeline
from twobuckets.stack import artifacts
from twobuckets.stack.foreign import find_foreign
from twobuckets.stack.template import Location

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from mypy_boto3_s3 import S3Client

PLACE = Location("123456789012", "eu-central-1", "aws", uses_tls=False)
BUCKET = "twobuckets-artifacts-123456789012-eu-central-1"
NOW = datetime(2026, 5, 4, 13, 30, tzinfo=UTC)


@pytest.fixture
def aws(fake_credentials: None) -> Iterator[Aws]:
    with mock_aws():
        yield Aws(region="eu-central-1")


@pytest.fixture
def s3(aws: Aws) -> S3Client:
    return aws.s3


@pytest.fixture
def bucket(s3: S3Client) -> str:
    """A versioned bucket."""
    s3.create_bucket(
        Bucket="pile", CreateBucketConfiguration={"LocationConstraint": "eu-central-1"}
    )
    s3.put_bucket_versioning(Bucket="pile", VersioningConfiguration={"Status": "Enabled"})
    return "pile"


def deny(client: Any, *operations: str):
    """Make operations fail as S3 does without the permission."""
    answer = b"<Error><Code>AccessDenied</Code><Message>Access Denied</Message></Error>"

    def refuse(**_: Any) -> AWSResponse:
        raw: Any = io.BytesIO(answer)
        raw.stream = lambda *_, **__: iter([answer])
        return AWSResponse("https://s3", 403, HTTPHeaders(), raw)

    for operation in operations:
        client.meta.events.register_first(f"before-send.s3.{operation}", refuse)


# --- artifacts -----------------------------------------------------------------------------------


def test_a_template_lies_where_cloudformation_is_told_to_read_it(s3: S3Client):
    text = "Description: 日本\n"
    url = artifacts.put_template(s3, PLACE, text)
    assert artifacts.put_template(s3, PLACE, text) == url
    bucket, _, key = url.removeprefix(f"{s3.meta.endpoint_url}/").partition("/")
    assert bucket == BUCKET
    assert s3.get_object(Bucket=bucket, Key=key)["Body"].read().decode() == text
    # Equal text is not sent again.
    assert len(s3.list_object_versions(Bucket=bucket)["Versions"]) == 1


@pytest.fixture
def artifact(tmp_path: Path) -> Path:
    path = tmp_path / "processor.zip"
    path.write_bytes(b"zip")
    return path


SHA256 = hashlib.sha256(b"zip").hexdigest()


def test_the_artifact_bucket_is_made_private_encrypted_versioned_and_tls_only(aws: Aws):
    s3 = aws.s3
    facts = Facts(aws, Pipeline(stack=None, staging=BUCKET, archive=BUCKET), NOW)
    # moto takes no notice of a policy's condition, so nothing can be put into it any more.
    artifacts._require_bucket(s3, BUCKET, replace(PLACE, uses_tls=True))
    found = describe_bucket(facts, "artifacts", BUCKET)
    assert isinstance(found, BucketStatus)
    assert (found.is_private, found.encryption, found.versioning, found.is_tls_only) == (
        True,
        "AES256",
        "Enabled",
        True,
    )


def test_an_artifact_that_is_there_is_not_sent_again(s3: S3Client, artifact: Path):
    assert artifacts.upload(s3, PLACE, artifact, SHA256)
    assert s3.get_object(Bucket=BUCKET, Key=f"{SHA256}.zip")["Body"].read() == b"zip"
    assert not artifacts.upload(s3, PLACE, artifact, SHA256)
    versions = s3.list_object_versions(Bucket=BUCKET)["Versions"]
    assert len(versions) == 1


def test_other_bytes_of_the_same_size_under_the_name_are_replaced(s3: S3Client, artifact: Path):
    artifacts.upload(s3, PLACE, artifact, SHA256)
    s3.put_object(Bucket=BUCKET, Key=f"{SHA256}.zip", Body=b"ZIP", ChecksumAlgorithm="SHA256")
    assert artifacts.upload(s3, PLACE, artifact, SHA256)
    assert s3.get_object(Bucket=BUCKET, Key=f"{SHA256}.zip")["Body"].read() == b"zip"


def test_an_artifact_bucket_of_another_account_is_not_used(s3: S3Client, artifact: Path):
    with Stubber(s3) as stub:
        stub.add_client_error(
            "head_bucket",
            "403",
            http_status_code=403,
            expected_params={"Bucket": BUCKET, "ExpectedBucketOwner": "123456789012"},
        )
        with pytest.raises(AccessError, match="access denied") as refused:
            artifacts.upload(s3, PLACE, artifact, SHA256)
    assert "s3:ListBucket" in (refused.value.hint or "")


def test_an_artifact_bucket_name_that_somebody_took_says_so(s3: S3Client, artifact: Path):
    with Stubber(s3) as stub:
        stub.add_client_error("head_bucket", "404", http_status_code=404)
        stub.add_client_error("create_bucket", "BucketAlreadyExists", http_status_code=409)
        with pytest.raises(TwoBucketsError, match="another account owns"):
            artifacts.upload(s3, PLACE, artifact, SHA256)


# --- foreign rules -------------------------------------------------------------------------------


def test_only_what_the_deployment_writes_is_looked_at_and_ours_is_not_foreign(
    s3: S3Client, bucket: str
):
    rules: Any = [
        {"ID": name, "Status": "Enabled", "Filter": {"Prefix": ""}, "Expiration": {"Days": 9}}
        for name in (
            "twobuckets-abort-incomplete-uploads",
            "twobuckets-intake-expire-noncurrent-versions",
            "twobuckets-other-expire-noncurrent-versions",
            "theirs",
        )
    ]
    s3.put_bucket_lifecycle_configuration(Bucket=bucket, LifecycleConfiguration={"Rules": rules})
    lifecycle, notification = "LifecycleConfiguration", "NotificationConfiguration"
    assert list(find_foreign(s3, bucket, {lifecycle}, stack="intake", function="f")) == [
        "the lifecycle rule twobuckets-other-expire-noncurrent-versions",
        "the lifecycle rule theirs",
    ]
    assert list(find_foreign(s3, bucket, {notification}, stack="intake", function="f")) == []
    assert list(find_foreign(s3, bucket, {"CorsConfiguration"}, stack="intake", function="f")) == []


def test_notifications_of_others_are_foreign_whatever_they_go_to(s3: S3Client):
    def arn(function: str) -> str:
        return f"arn:aws:lambda:eu-central-1:123456789012:function:{function}"

    with Stubber(s3) as stub:
        stub.add_response(
            "get_bucket_notification_configuration",
            {
                "LambdaFunctionConfigurations": [
                    {"LambdaFunctionArn": arn("f"), "Events": ["s3:ObjectCreated:*"]},
                    {"LambdaFunctionArn": arn("g"), "Events": ["s3:ObjectCreated:*"]},
                ],
                "QueueConfigurations": [{"QueueArn": "arn:q", "Events": ["s3:ObjectCreated:*"]}],
                "TopicConfigurations": [{"TopicArn": "arn:t", "Events": ["s3:ObjectCreated:*"]}],
                "EventBridgeConfiguration": {},
            },
        )
        found = list(
            find_foreign(s3, "pile", {"NotificationConfiguration"}, stack="intake", function="f")
        )
    assert found == [
        f"the notification to {arn('g')}",
        "the notification to arn:q",
        "the notification to arn:t",
        "the notification to EventBridge",
    ]


def test_a_denied_look_at_foreign_rules_stops_the_deployment(s3: S3Client, bucket: str):
    deny(s3, "GetBucketLifecycleConfiguration")
    with pytest.raises(AccessError) as refused:
        list(find_foreign(s3, bucket, {"LifecycleConfiguration"}, stack="intake", function="f"))
    assert "s3:GetLifecycleConfiguration" in (refused.value.hint or "")
    with pytest.raises(ClientError):
        s3.get_bucket_lifecycle_configuration(Bucket=bucket)
