"""Hands the copies of a run to S3 Batch Operations, which copies billions of objects without us.

Batch Operations has no condition on its copies' destination, so what makes the run safe stays
here: the plan names only keys of which nothing waits in staging, staging has to keep versions, so
that even a file uploaded in between stays, and nothing is deleted from the archive before the copy
of exactly that version was looked at, object by object, after the job.

Its job is described by a manifest and read back from its completion report (S3 user guide,
"Performing object operations in bulk with Batch Operations").
"""

from __future__ import annotations

import csv
import io
import json
import tempfile
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final
from urllib.parse import quote, unquote_plus

from twobuckets.aws import attempt
from twobuckets.errors import TwoBucketsError, UsageError
from twobuckets.reprocess.journal import Change, State
from twobuckets.reprocess.plan import Kind

if TYPE_CHECKING:
    from collections.abc import Iterator
    from datetime import datetime

    from mypy_boto3_s3 import S3Client
    from mypy_boto3_s3control import S3ControlClient

    from twobuckets.reprocess.journal import Journal

_PREFIX: Final = "reprocess/"
_PRIORITY: Final = 10
_ENDED: Final = frozenset({"Complete", "Failed", "Cancelled"})
_FORMAT: Final = "S3BatchOperations_CSV_20180820"
_REPORT_FORMAT: Final = "Report_CSV_20180820"


@dataclass(frozen=True, slots=True)
class Place:
    """Where a batch job runs: the account, and the bucket of its manifest and report."""

    account: str
    partition: str
    staging: str
    archive: str
    bucket: str

    def arn(self, name: str) -> str:
        """Return the ARN of a bucket, or of an object as `bucket/key`."""
        return f"arn:{self.partition}:s3:::{name}"


@dataclass(frozen=True, slots=True)
class BatchJob:
    """How far a job has come."""

    job_id: str
    status: str
    tasks: int
    succeeded: int
    failed: int
    reason: str | None

    @property
    def has_ended(self) -> bool:
        """Tell whether nothing more will happen."""
        return self.status in _ENDED


def permissions(place: Place) -> dict[str, Any]:
    """Return the trust and the permissions that the role of a job needs, as policy documents."""
    s3 = place.arn
    return {
        "trust": _document(
            {
                "Effect": "Allow",
                "Principal": {"Service": "batchoperations.s3.amazonaws.com"},
                "Action": "sts:AssumeRole",
                "Condition": {"StringEquals": {"aws:SourceAccount": place.account}},
            }
        ),
        "permissions": _document(
            {
                "Effect": "Allow",
                "Action": ["s3:GetObjectVersion", "s3:GetObjectVersionTagging"],
                "Resource": s3(f"{place.archive}/*"),
            },
            {
                "Effect": "Allow",
                "Action": ["s3:PutObject", "s3:PutObjectTagging"],
                "Resource": s3(f"{place.staging}/*"),
            },
            {
                "Effect": "Allow",
                "Action": ["s3:GetObject", "s3:GetObjectVersion", "s3:PutObject"],
                "Resource": s3(f"{place.bucket}/{_PREFIX}*"),
            },
        ),
    }


def _document(*statements: dict[str, Any]) -> dict[str, Any]:
    return {"Version": "2012-10-17", "Statement": list(statements)}


def require_versions(s3: S3Client, staging: str) -> None:
    """Raise UsageError unless staging keeps versions."""
    with attempt(f"read whether {staging} keeps versions"):
        status = s3.get_bucket_versioning(Bucket=staging).get("Status")
    if status != "Enabled":
        raise UsageError(
            f"Could not hand the run to S3 Batch Operations: the bucket {staging} keeps no "
            "versions, so a copy could replace a file that was uploaded in between for good",
            hint="Leave --batch out: copies made from here have that condition.",
        )


def submit(
    s3: S3Client,
    s3control: S3ControlClient,
    journal: Journal,
    place: Place,
    *,
    role_arn: str,
    now: datetime,
) -> str:
    """Start a job for the planned moves and copies of a run and return its id.

    Calling it again for the same run gives the same job. Raises AccessError, TwoBucketsError.
    """
    name = journal.path.stem
    key = f"{_PREFIX}{name}/manifest.csv"
    journal.begin_all(now.timestamp(), kinds=(Kind.MOVE, Kind.COPY))
    with tempfile.TemporaryFile() as manifest:
        text = io.TextIOWrapper(manifest, encoding="utf-8", newline="", write_through=True)
        writer = csv.writer(text)
        for item in journal.iter_items(State.BEGUN, kinds=(Kind.MOVE, Kind.COPY)):
            writer.writerow([place.archive, quote(item.key, safe=""), item.version_id or ""])
        text.flush()
        manifest.seek(0)
        with attempt(f"write the manifest s3://{place.bucket}/{key}"):
            etag = s3.put_object(
                Bucket=place.bucket,
                Key=key,
                Body=manifest,
                ContentType="text/csv",
                ExpectedBucketOwner=place.account,
            )["ETag"]
    with attempt("create the S3 Batch Operations job"):
        job_id = s3control.create_job(
            AccountId=place.account,
            ConfirmationRequired=False,
            ClientRequestToken=name,
            Description=f"twobuckets reprocess {name}",
            Priority=_PRIORITY,
            RoleArn=role_arn,
            Operation={
                "S3PutObjectCopy": {
                    "TargetResource": place.arn(place.staging),
                    "MetadataDirective": "COPY",
                }
            },
            Manifest={
                "Spec": {"Format": _FORMAT, "Fields": ["Bucket", "Key", "VersionId"]},
                "Location": {"ObjectArn": place.arn(f"{place.bucket}/{key}"), "ETag": etag},
            },
            Report={
                "Bucket": place.arn(place.bucket),
                "Format": _REPORT_FORMAT,
                "Enabled": True,
                "Prefix": f"{_PREFIX}{name}",
                "ReportScope": "AllTasks",
                "ExpectedBucketOwner": place.account,
            },
        )["JobId"]
    journal.note_job(job_id)
    return job_id


def describe(s3control: S3ControlClient, account: str, job_id: str) -> BatchJob:
    """Return how far a job has come."""
    with attempt(f"read the S3 Batch Operations job {job_id}"):
        job = s3control.describe_job(AccountId=account, JobId=job_id)["Job"]
    progress = job.get("ProgressSummary", {})
    reasons = [reason.get("FailureReason", "") for reason in job.get("FailureReasons", [])]
    return BatchJob(
        job_id,
        job.get("Status", ""),
        progress.get("TotalNumberOfTasks", 0),
        progress.get("NumberOfTasksSucceeded", 0),
        progress.get("NumberOfTasksFailed", 0),
        "; ".join(filter(None, reasons)) or job.get("StatusUpdateReason"),
    )


def collect(s3: S3Client, journal: Journal, place: Place, job: BatchJob) -> int:
    """Note what a job's completion report says and return how many copies it made.

    What was copied stays begun: the mover compares each copy before it deletes anything, and makes
    the ones that the job did not. Raises TwoBucketsError when the job has no report.
    """
    prefix = f"{_PREFIX}{journal.path.stem}/job-{job.job_id}"
    with attempt(f"read the report of job {job.job_id}"):
        listed = s3.list_objects_v2(Bucket=place.bucket, Prefix=prefix, MaxKeys=1)
        if not listed.get("Contents"):
            raise TwoBucketsError(
                f"The S3 Batch Operations job {job.job_id} ended as {job.status} without a report"
                + (f": {job.reason}" if job.reason else ""),
                hint="The same command without --batch does the rest from here.",
            )
        body = s3.get_object(Bucket=place.bucket, Key=f"{prefix}/manifest.json")["Body"].read()
    copied = 0
    for result in json.loads(body).get("Results", []):
        failed = []
        for row in _rows(s3, place.bucket, result["Key"]):
            key, version_id, status, code, message = row
            if status == "succeeded":
                copied += 1
                continue
            item = journal.find(key, version_id or None)
            if item is not None:
                failed.append(Change(item.id, State.FAILED, f"{code}: {message}"))
        journal.note(failed)
    journal.note_job(None)
    return copied


def _rows(s3: S3Client, bucket: str, key: str) -> Iterator[tuple[str, str, str, str, str]]:
    """Yield key, version id, status, error code and message of each task."""
    with attempt(f"read the report s3://{bucket}/{key}"):
        body = s3.get_object(Bucket=bucket, Key=key)["Body"]
        lines = (line.decode("utf-8") for line in body.iter_lines())
        for row in csv.reader(lines):
            _, name, version_id, status, code, _, message = (*row, "", "", "", "", "", "")[:7]
            yield unquote_plus(name), version_id, status, code, message
