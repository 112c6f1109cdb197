"""Hands the copies of a run to S3 Batch Operations, which copies billions of objects without us.

Its copies have no condition: a job that begins hours after the plan puts its copy over a newer file
that waits in staging by then, and the copy of what is no longer current wakes the processor all the
same. So nothing that a job did is believed. After it, object by object, the mover looks at all
versions of the key in both buckets (`overtaken`): where something newer came in between, the job's
copy is taken back. Both buckets have to keep versions for that.

Its job is described by a manifest and read back from its completion report (S3 user guide,
"Performing object operations in bulk with Batch Operations").
"""

from __future__ import annotations

import csv
import io
import json
import tempfile
from dataclasses import dataclass
from email.utils import parsedate_to_datetime
from typing import TYPE_CHECKING, Any, Final
from urllib.parse import quote, unquote_plus

from twobuckets.aws import ClientError, Meaning, attempt, error_code, meaning
from twobuckets.errors import TwoBucketsError, UsageError
from twobuckets.reprocess.items import Change, State
from twobuckets.reprocess.journal import NOT_KNOWN
from twobuckets.reprocess.plan import Kind

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from datetime import datetime

    from mypy_boto3_s3 import S3Client
    from mypy_boto3_s3control import S3ControlClient

    from twobuckets.aws.clients import Aws
    from twobuckets.reprocess.journal import Journal

_PREFIX: Final = "reprocess/"
_PRIORITY: Final = 10
_ENDED: Final = frozenset({"Complete", "Failed", "Cancelled"})
_FORMAT: Final = "S3BatchOperations_CSV_20180820"
_REPORT_FORMAT: Final = "Report_CSV_20180820"
_NULL_VERSION: Final = "null"
_SERVER_ERRORS: Final = 500
_JOB_PAUSE: Final = 15.0
"""Seconds between two looks at a job."""
KINDS: Final = (Kind.COPY,)
"""What a job can do."""


@dataclass(frozen=True, slots=True)
class JobPlace:
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


@dataclass(frozen=True, slots=True)
class BatchPermissions:
    """What the role of a batch job needs, as two policy documents."""

    trust: dict[str, Any]
    permissions: dict[str, Any]


def permissions(place: JobPlace) -> BatchPermissions:
    """Return what the role of a job needs."""
    s3 = place.arn
    return BatchPermissions(
        trust=_document(
            {
                "Effect": "Allow",
                "Principal": {"Service": "batchoperations.s3.amazonaws.com"},
                "Action": "sts:AssumeRole",
                "Condition": {"StringEquals": {"aws:SourceAccount": place.account}},
            }
        ),
        permissions=_document(
            {
                "Effect": "Allow",
                "Action": [
                    "s3:GetObjectVersion",
                    "s3:GetObjectVersionTagging",
                    # CopyObject takes annotations along (S3 API reference, AnnotationDirective).
                    "s3:GetObjectAnnotation",
                    "s3:GetObjectVersionAnnotation",
                ],
                "Resource": s3(f"{place.archive}/*"),
            },
            {
                "Effect": "Allow",
                "Action": ["s3:PutObject", "s3:PutObjectTagging", "s3:PutObjectAnnotation"],
                "Resource": s3(f"{place.staging}/*"),
            },
            {
                "Effect": "Allow",
                "Action": ["s3:GetObject", "s3:GetObjectVersion", "s3:PutObject"],
                "Resource": s3(f"{place.bucket}/{_PREFIX}*"),
            },
        ),
    )


def _document(*statements: dict[str, Any]) -> dict[str, Any]:
    return {"Version": "2012-10-17", "Statement": list(statements)}


def require_versions(s3: S3Client, place: JobPlace) -> None:
    """Raise UsageError unless both buckets keep versions."""
    for bucket in (place.staging, place.archive):
        with attempt(f"read whether {bucket} keeps versions"):
            status = s3.get_bucket_versioning(Bucket=bucket).get("Status")
        if status != "Enabled":
            raise UsageError(
                f"Could not hand the run to S3 Batch Operations: the bucket {bucket} keeps no "
                "versions, so what a copy has replaced could not be brought back",
                hint="Leave --batch out: copies made from here are refused where a file waits.",
            )


def needs_role(journal: Journal) -> bool:
    """Tell whether a job has yet to be created for a run, as the role that is to copy."""
    return journal.job_id == NOT_KNOWN or (journal.job_id is None and journal.has_planned(KINDS))


def hand_over(
    aws: Aws,
    journal: Journal,
    place: JobPlace,
    *,
    role_arn: str | None,
    wait: bool,
    now: Callable[[], datetime],
    sleep: Callable[[float], None],
) -> Iterator[BatchJob]:
    """Let a job make a run's copies and yield how far it is, until it has ended if `wait`.

    A job that has ended is read back once that was told. Yields nothing where there is nothing to
    copy. `role_arn` may be None where `needs_role` says so. Raises what `submit` and `collect` do.
    """
    if needs_role(journal):
        assert role_arn is not None
        require_versions(aws.s3, place)
        submit(aws.s3, aws.s3control, journal, place, role_arn=role_arn, now=now())
    job_id = journal.job_id
    if job_id is None:
        return
    while True:
        job = describe(aws.s3control, place.account, job_id)
        yield job
        if job.has_ended:
            collect(aws.s3, journal, place, job)
        if job.has_ended or not wait:
            return
        sleep(_JOB_PAUSE)


def submit(
    s3: S3Client,
    s3control: S3ControlClient,
    journal: Journal,
    place: JobPlace,
    *,
    role_arn: str,
    now: datetime,
) -> str:
    """Start a job for the planned moves and copies of a run and return its id.

    Calling it again before S3's answer is known gives the same job. What a refused job would have
    copied is planned as before. Raises AccessError, TwoBucketsError, and UsageError for versions
    that somebody chose: what is copied by a job can't go without its origin note.
    """
    first = next(journal.iter_items(State.PLANNED, kinds=KINDS), None)
    if first is not None and first.is_chosen:
        raise UsageError(
            "Could not hand the run to S3 Batch Operations: its copies carry the processor's note "
            "of where a version came from, and an older version than the archive's current one "
            "would be superseded",
            hint="Leave --batch out: what is chosen by --version-id or --as-of is copied from here "
            "without the note.",
        )
    number = journal.begin_job(_clock(s3, place.staging, now).timestamp(), kinds=KINDS)
    # S3 takes the same token for the same job, so each round needs one of its own.
    token = f"{journal.path.stem}-{number}"
    key = f"{_PREFIX}{token}/manifest.csv"
    try:
        etag = _write_manifest(s3, journal, place, key, number)
        with attempt("create the S3 Batch Operations job"):
            job_id = s3control.create_job(
                AccountId=place.account,
                ConfirmationRequired=False,
                ClientRequestToken=token,
                Description=f"twobuckets reprocess {token}",
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
                    "Prefix": f"{_PREFIX}{token}",
                    "ReportScope": "AllTasks",
                    "ExpectedBucketOwner": place.account,
                },
            )["JobId"]
    except TwoBucketsError as error:
        if _is_refusal(error.__cause__):
            journal.withdraw_job()
        raise
    journal.note_job(job_id)
    return job_id


def _clock(s3: S3Client, bucket: str, now: datetime) -> datetime:
    """Return the present instant by S3's clock, which dates the copies."""
    with attempt(f"look at the bucket {bucket}"):
        headers = s3.head_bucket(Bucket=bucket)["ResponseMetadata"].get("HTTPHeaders", {})
    return parsedate_to_datetime(headers["date"]) if "date" in headers else now


def _write_manifest(s3: S3Client, journal: Journal, place: JobPlace, key: str, number: int) -> str:
    """Write what a job is to copy, once, and return the ETag."""
    where: dict[str, Any] = {
        "Bucket": place.bucket,
        "Key": key,
        "ExpectedBucketOwner": place.account,
    }
    with tempfile.TemporaryFile() as manifest:
        text = io.TextIOWrapper(manifest, encoding="utf-8", newline="", write_through=True)
        writer = csv.writer(text)
        for item in journal.iter_items(kinds=KINDS, job=number):
            # An empty version id fails every task; "null" is the id of what has none (S3 user
            # guide, "Configuring Amazon S3 Inventory for Batch Operations").
            writer.writerow(
                [place.archive, quote(item.key, safe=""), item.version_id or _NULL_VERSION]
            )
        text.flush()
        manifest.seek(0)
        with attempt(f"write the manifest s3://{place.bucket}/{key}"):
            try:
                return s3.put_object(
                    **where, Body=manifest, ContentType="text/csv", IfNoneMatch="*"
                )["ETag"]
            except ClientError as error:
                if meaning(error) is not Meaning.LOST_RACE:
                    raise
            # Written by an earlier call: encrypted with a key of KMS, its ETag is not of its bytes.
            return s3.head_object(**where)["ETag"]


def _is_refusal(cause: BaseException | None) -> bool:
    """Tell whether AWS surely did nothing."""
    if not isinstance(cause, ClientError) or error_code(cause) == "IdempotencyException":
        return False
    return cause.response["ResponseMetadata"].get("HTTPStatusCode", 500) < _SERVER_ERRORS


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


def collect(s3: S3Client, journal: Journal, place: JobPlace, job: BatchJob) -> int:
    """Note what a job's completion report says and return how many copies it made.

    What was copied stays begun, for the mover to look at. A job that ended before its first task
    has no report and has copied nothing: then all is planned as before, and TwoBucketsError raised.
    """
    prefix = f"{_PREFIX}{journal.path.stem}-{journal.jobs}/job-{job.job_id}"
    with attempt(f"read the report of job {job.job_id}"):
        listed = s3.list_objects_v2(Bucket=place.bucket, Prefix=prefix, MaxKeys=1)
        if not listed.get("Contents"):
            if job.succeeded or job.failed:
                # There will be one, or somebody took it away: what was copied is looked for.
                journal.note_job(None)
            else:
                journal.withdraw_job()
            raise TwoBucketsError(
                f"The S3 Batch Operations job {job.job_id} ended as {job.status} without a report"
                + (f": {job.reason}" if job.reason else ""),
                hint="The same command goes on: with --batch by a new job, without it from here.",
            )
        body = s3.get_object(Bucket=place.bucket, Key=f"{prefix}/manifest.json")["Body"].read()
    copied = 0
    for result in json.loads(body).get("Results", []):
        failed, refused = [], []
        for task in _tasks(s3, place.bucket, result["Key"]):
            if task.status == "succeeded":
                copied += 1
                continue
            item = journal.find(task.key, task.version_id) or journal.find(task.key, None)
            if item is not None:
                failed.append(Change(item.id, State.FAILED, f"{task.code}: {task.message}"))
                if task.is_refusal:
                    refused.append(item)
        journal.never_began(refused)
        journal.note(failed)
    journal.note_job(None)
    return copied


@dataclass(frozen=True, slots=True)
class _Task:
    """A row of a completion report."""

    key: str
    version_id: str
    status: str
    code: str
    http_status: str
    message: str

    @property
    def is_refusal(self) -> bool:
        """Tell whether S3 surely copied nothing."""
        return self.http_status.startswith("4")


def _tasks(s3: S3Client, bucket: str, key: str) -> Iterator[_Task]:
    """Yield the tasks that a report tells of."""
    with attempt(f"read the report s3://{bucket}/{key}"):
        body = s3.get_object(Bucket=bucket, Key=key)["Body"]
        lines = (line.decode("utf-8") for line in body.iter_lines())
        for row in csv.reader(lines):
            _, name, version_id, status, code, http_status, message = (*row, *[""] * 7)[:7]
            yield _Task(
                unquote_plus(name), version_id or _NULL_VERSION, status, code, http_status, message
            )
