"""Looks at the staging bucket on a schedule, and writes down what it found as metrics.

The handler is `twobuckets.processor.watcher.handler`. It runs in a function of its own, made of the
same zip as the processor, and imports nothing of the user's. One line in CloudWatch's embedded
metric format tells all (CloudWatch user guide, "Embedded metric format specification"); whoever
wants to be told sets alarms on it, also on its absence.
"""

from __future__ import annotations

import json
import os
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any, Final
from urllib.parse import unquote_plus

from twobuckets.processor import contract, heavy
from twobuckets.processor.outcome import write_line

if TYPE_CHECKING:
    from collections.abc import Mapping

    from mypy_boto3_s3 import S3Client

NAMESPACE: Final = "twobuckets"
"""The namespace of the metrics; their dimension is Stack, the stack's name."""
STAGING_BUCKET: Final = "STAGING_BUCKET"
"""The staging bucket. Required."""
STACK: Final = "TWOBUCKETS_STACK"
"""The stack's name. Required."""
STUCK_SECONDS: Final = "TWOBUCKETS_STUCK_SECONDS"
"""The age in seconds from which a staged object counts as stuck. Required.

One that is a job's, by the processor's own variables, may be so much older as a job may take."""

_UNITS: Final = {
    "StagedFiles": "Count",
    "StagedBytes": "Bytes",
    "OldestStagedAge": "Seconds",
    "StuckFiles": "Count",
    "IncompleteUploads": "Count",
    "OldestUploadAge": "Seconds",
}
# What is left of the function's time when it stops to list, and tells what it saw until then.
_MARGIN_MS: Final = 15_000


@dataclass(slots=True)
class Seen:
    """What was counted; `is_all` is false where time ran out, so that there is at least as much."""

    files: int = 0
    size_bytes: int = 0
    stuck: int = 0
    oldest_at: datetime | None = None
    uploads: int = 0
    oldest_upload_at: datetime | None = None
    is_all: bool = True

    def line(self, stack: str, now: datetime) -> str:
        """Return the metrics as one line of JSON."""
        values = {
            "StagedFiles": self.files,
            "StagedBytes": self.size_bytes,
            "OldestStagedAge": _age(self.oldest_at, now),
            "StuckFiles": self.stuck,
            "IncompleteUploads": self.uploads,
            "OldestUploadAge": _age(self.oldest_upload_at, now),
        }
        metrics = [{"Name": name, "Unit": unit} for name, unit in _UNITS.items()]
        directive = {"Namespace": NAMESPACE, "Dimensions": [["Stack"]], "Metrics": metrics}
        head = {"Timestamp": round(now.timestamp() * 1000), "CloudWatchMetrics": [directive]}
        return json.dumps({"_aws": head, "Stack": stack, **values, "is_all": self.is_all})


def handler(_event: object, context: Any) -> dict[str, int]:
    """Look once and write the line; what fails is the function's error, and no line at all.

    Needs s3:ListBucket and s3:ListBucketMultipartUploads on the staging bucket.
    """
    seen = look(_client(), os.environ, datetime.now(UTC), context)
    write_line(seen.line(os.environ[STACK], datetime.now(UTC)))
    return {"staged": seen.files, "stuck": seen.stuck, "uploads": seen.uploads}


def look(s3: S3Client, environ: Mapping[str, str], now: datetime, context: Any) -> Seen:
    """Return what is in staging, without what only stands for a folder where these are left out."""
    bucket, stuck_after = environ[STAGING_BUCKET], float(environ[STUCK_SECONDS])
    skips_folders = environ.get(contract.FOLDERS) != contract.PROCESS_FOLDERS
    # It only tells which files are for jobs.
    jobs = heavy.find_jobs(environ, _client)
    seen = Seen()
    # Encoded, for a key may hold what no XML parser takes.
    for page in s3.get_paginator("list_objects_v2").paginate(Bucket=bucket, EncodingType="url"):
        for item in page.get("Contents", []):
            if skips_folders and contract.stands_for_folder(item["Key"], item["Size"]):
                continue
            came_at = item["LastModified"]
            seen.files += 1
            seen.size_bytes += item["Size"]
            patience = stuck_after
            if jobs is not None and jobs.take(unquote_plus(item["Key"]), item["Size"]):
                patience += jobs.longest_seconds
            seen.stuck += (now - came_at).total_seconds() >= patience
            seen.oldest_at = came_at if seen.oldest_at is None else min(seen.oldest_at, came_at)
        if _is_time_up(context):
            seen.is_all = False
            return seen
    uploads = s3.get_paginator("list_multipart_uploads")
    for listed in uploads.paginate(Bucket=bucket, EncodingType="url"):
        for upload in listed.get("Uploads", []):
            begun_at = upload["Initiated"]
            seen.uploads += 1
            oldest_at = seen.oldest_upload_at
            seen.oldest_upload_at = begun_at if oldest_at is None else min(oldest_at, begun_at)
        if _is_time_up(context):
            seen.is_all = False
            return seen
    return seen


def _is_time_up(context: Any) -> bool:
    remaining = getattr(context, "get_remaining_time_in_millis", None)
    return remaining is not None and remaining() < _MARGIN_MS


def _age(instant: datetime | None, now: datetime) -> float:
    return 0.0 if instant is None else max(0.0, (now - instant).total_seconds())


def _client() -> S3Client:
    import boto3

    return boto3.client("s3")
