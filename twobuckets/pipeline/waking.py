"""Asks the processor for exactly one version that waits in staging; nothing in S3 is rewritten.

Our own processor gets an event of ours; anybody else's gets one shaped like S3's notification.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from datetime import datetime
from typing import TYPE_CHECKING, Any
from urllib.parse import quote_plus

from twobuckets.aws import attempt
from twobuckets.processor import contract
from twobuckets.units import format_instant

if TYPE_CHECKING:
    from mypy_boto3_lambda import LambdaClient


def is_ours(functions: LambdaClient, function: str) -> bool:
    """Tell whether a function runs this project's processor.

    Raises AccessError, NotFoundError for a function that is not there, and TwoBucketsError.
    """
    with attempt(f"read the configuration of {function}"):
        configuration = functions.get_function_configuration(FunctionName=function)
    return configuration.get("Handler") == contract.HANDLER


@dataclass(frozen=True, slots=True, kw_only=True)
class Waker:
    """Wakes one function for versions in one staging bucket, in the form that it understands."""

    functions: LambdaClient
    function: str
    bucket: str
    region: str
    ours: bool

    def ask(
        self, key: str, *, version_id: str | None, etag: str | None, size_bytes: int, now: datetime
    ) -> None:
        """Ask, asynchronously, for exactly this version.

        Raises AccessError, NotFoundError for a function that is not there, and TwoBucketsError.
        """
        event = self.event(key, version_id=version_id, etag=etag, size_bytes=size_bytes, now=now)
        with attempt(f"wake {self.function} for {key}"):
            self.functions.invoke(
                FunctionName=self.function,
                InvocationType="Event",
                Payload=json.dumps(event).encode(),
            )

    def event(
        self, key: str, *, version_id: str | None, etag: str | None, size_bytes: int, now: datetime
    ) -> dict[str, Any]:
        """Return the event that asks for exactly this version.

        The foreign form is that of S3's notification: keys form-encoded, `eventName` without `s3:`
        (S3 user guide, "Event message structure").
        """
        if self.ours:
            return contract.wake_event(
                self.bucket, key, version_id=version_id, etag=etag, size_bytes=size_bytes
            )
        staged = {"key": quote_plus(key, safe="/"), "size": size_bytes, "eTag": etag}
        if version_id is not None:
            staged["versionId"] = version_id
        arn = f"arn:{self.functions.meta.partition}:s3:::{self.bucket}"
        record = {
            "eventVersion": "2.1",
            "eventSource": "aws:s3",
            "awsRegion": self.region,
            "eventTime": format_instant(now),
            "eventName": "ObjectCreated:Put",
            "s3": {
                "s3SchemaVersion": "1.0",
                "configurationId": "twobuckets-reprocess",
                "bucket": {"name": self.bucket, "arn": arn},
                "object": staged,
            },
        }
        return {"Records": [record]}
