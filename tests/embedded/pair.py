"""A pipeline by hand, for tests of the embedded AWS that need no deployment of ours."""

from __future__ import annotations

import io
import json
import time
import zipfile
from contextlib import suppress
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from twobuckets.aws.clients import Aws

STAGING = "hand-staging"
ARCHIVE = "hand-archive"
FUNCTION = "hand-processor"

# Moves a file, and logs and fails as its name asks.
MOVE = """
import json, logging, os, sys, time, urllib.parse
import boto3

s3 = boto3.client("s3")
logging.getLogger().setLevel(logging.INFO)
logger = logging.getLogger("hand")

def handler(event, context):
    for record in event["Records"]:
        bucket = record["s3"]["bucket"]["name"]
        key = urllib.parse.unquote_plus(record["s3"]["object"]["key"])
        logger.info("moving %s", key)
        print(json.dumps({"saw": key, "request_id": context.aws_request_id}))
        if "fail" in key:
            raise ValueError(f"no luck with {key}")
        if "sleep" in key:
            time.sleep(30)
        if "die" in key:
            os._exit(3)
        s3.copy_object(Bucket=os.environ["ARCHIVE"], Key=key,
                       CopySource={"Bucket": bucket, "Key": key})
        s3.delete_object(Bucket=bucket, Key=key)
"""


@dataclass(frozen=True, slots=True)
class Pair:
    """Two buckets and the function between them."""

    aws: Aws

    def put(self, *keys: str, body: bytes = b"content") -> None:
        """Put objects into staging."""
        for key in keys:
            self.aws.s3.put_object(Bucket=STAGING, Key=key, Body=body)

    def staged(self) -> set[str]:
        """Return the keys in staging."""
        return keys_of(self.aws, STAGING)

    def archived(self) -> set[str]:
        """Return the keys in the archive."""
        return keys_of(self.aws, ARCHIVE)

    def wait_for_archived(self, keys: set[str], *, seconds: float = 60) -> None:
        """Wait until these keys, and no others, are in the archive and staging is empty."""
        waited_until = time.monotonic() + seconds
        while self.archived() != keys or self.staged():
            assert time.monotonic() < waited_until, f"{len(self.archived())} of {len(keys)}"
            time.sleep(0.05)

    def lines(self) -> Iterator[str]:
        """Yield what the function logged, oldest first."""
        pages = self.aws.logs.get_paginator("filter_log_events").paginate(
            logGroupName=f"/aws/lambda/{FUNCTION}"
        )
        # The log group comes with the first invocation.
        with suppress(self.aws.logs.exceptions.ResourceNotFoundException):
            for page in pages:
                yield from (event["message"] for event in page["events"])

    def wait_for_lines(self, text: str, count: int, *, seconds: float = 20) -> list[str]:
        """Wait until the function has logged this text that often; return those lines."""
        waited_until = time.monotonic() + seconds
        while True:
            lines = [line for line in self.lines() if text in line]
            if len(lines) >= count:
                return lines
            assert time.monotonic() < waited_until, (text, list(self.lines()))
            time.sleep(0.05)


def keys_of(aws: Aws, bucket: str) -> set[str]:
    """Return the keys of a bucket."""
    pages = aws.s3.get_paginator("list_objects_v2").paginate(Bucket=bucket)
    return {item["Key"] for page in pages for item in page.get("Contents", [])}


def zip_of(files: Mapping[str, str]) -> bytes:
    """Return an artifact that holds these files."""
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        for name, text in files.items():
            archive.writestr(name, text)
    return buffer.getvalue()


def make_pair(
    aws: Aws, *, source: str = MOVE, log_format: str = "Text", timeout_seconds: int = 20
) -> Pair:
    """Make the two buckets, the function and the notification that wakes it."""
    for bucket in (STAGING, ARCHIVE):
        aws.s3.create_bucket(Bucket=bucket)
    trust = {
        "Version": "2012-10-17",
        "Statement": [
            {
                "Effect": "Allow",
                "Principal": {"Service": "lambda.amazonaws.com"},
                "Action": "sts:AssumeRole",
            }
        ],
    }
    role = aws.iam.create_role(RoleName=FUNCTION, AssumeRolePolicyDocument=json.dumps(trust))
    allowed = {"Effect": "Allow", "Action": "s3:*", "Resource": "*"}
    aws.iam.put_role_policy(
        RoleName=FUNCTION,
        PolicyName="buckets",
        PolicyDocument=json.dumps({"Version": "2012-10-17", "Statement": [allowed]}),
    )
    function = aws.functions.create_function(
        FunctionName=FUNCTION,
        Role=role["Role"]["Arn"],
        Runtime="python3.13",
        Handler="processor.handler",
        Code={"ZipFile": zip_of({"processor.py": source})},
        Environment={"Variables": {"ARCHIVE": ARCHIVE, "AWS_ENDPOINT_URL": "http://192.0.2.1"}},
        LoggingConfig={"LogFormat": log_format},  # type: ignore[typeddict-item]
        Timeout=timeout_seconds,
    )
    aws.functions.add_permission(
        FunctionName=FUNCTION,
        StatementId="staging",
        Action="lambda:InvokeFunction",
        Principal="s3.amazonaws.com",
        SourceArn=f"arn:aws:s3:::{STAGING}",
    )
    aws.s3.put_bucket_notification_configuration(
        Bucket=STAGING,
        NotificationConfiguration={
            "LambdaFunctionConfigurations": [
                {
                    "LambdaFunctionArn": function["FunctionArn"],
                    "Events": ["s3:ObjectCreated:*"],
                }
            ]
        },
    )
    return Pair(aws)
