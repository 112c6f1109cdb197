"""Taking a pipeline down: what its buckets hold, emptying them, deleting them and the stack.

The way through: `require_destroyable` and `count_contents` read; `end_jobs` ends what would go on
archiving; `remove_bucket` empties and
deletes one bucket; `delete_stack` deletes the rest and follows the events. The buckets go before
the stack, so that a run that was interrupted anywhere can be run again.
"""

from __future__ import annotations

import contextlib
from collections import Counter
from dataclasses import dataclass
from itertools import chain
from typing import TYPE_CHECKING, Any, ClassVar, Final

from twobuckets.aws import ClientError, Meaning, attempt, error_code, meaning_of
from twobuckets.aws.codes import CREDENTIALS_OVER
from twobuckets.errors import AccessError, NotFoundError, TwoBucketsError
from twobuckets.pipeline.jobs import UNFINISHED
from twobuckets.pipeline.stack import existing_buckets
from twobuckets.s3.deletes import MOST_DELETES, iter_deletes
from twobuckets.s3.engine import Response
from twobuckets.s3.listing import ListingError, iter_uploads, iter_versions
from twobuckets.s3.operations import ObjectVersion, abort_multipart_upload
from twobuckets.s3.refusals import explain
from twobuckets.stack.events import (
    StackEvent,
    events_of_last_operation,
    failed,
    find_failure,
    follow,
    newest_event_id,
)
from twobuckets.stack.outputs import not_deployed
from twobuckets.stack.stacks import (
    Stack,
    find_resources,
    find_stack,
    require_idle,
    require_ours,
)

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator

    from mypy_boto3_cloudformation import CloudFormationClient
    from mypy_boto3_s3 import S3Client

    from twobuckets.s3.answers import DeleteResult, ListedVersion
    from twobuckets.s3.engine import Sender

_JOB_PAUSE: Final = 3.0
_JOB_LOOKS: Final = 200
"""Ten minutes: a container has 30 s to end once it is asked to."""
_ROUNDS: Final = 20
"""Bounds a race against clients that go on uploading."""


@dataclass(frozen=True, slots=True)
class Contents:
    """What a bucket holds; `size_bytes` is of all versions, without the parts of uploads."""

    bucket: str
    objects: int
    noncurrent_versions: int
    delete_markers: int
    incomplete_uploads: int
    size_bytes: int

    @property
    def has_data(self) -> bool:
        """Tell whether deleting all of it would lose something."""
        return bool(self.objects or self.noncurrent_versions or self.incomplete_uploads)

    @property
    def steps(self) -> int:
        """Return how many things are to be removed."""
        versions = self.objects + self.noncurrent_versions + self.delete_markers
        return versions + self.incomplete_uploads


@dataclass(frozen=True, slots=True)
class Removed:
    """One step of emptying a bucket: a version or delete marker deleted, or an upload aborted."""

    bucket: str
    versions: int = 0
    uploads: int = 0


@dataclass(frozen=True, slots=True)
class DestroySummary:
    """How it ended: `outcome` is destroyed or planned, and what was removed."""

    type_name: ClassVar[str] = "summary"

    stack: str
    outcome: str
    versions: int
    uploads: int


def require_destroyable(cloudformation: CloudFormationClient, name: str) -> Stack:
    """Return the stack. Raises when there is none, or one that may not be deleted now."""
    stack = find_stack(cloudformation, name)
    if stack is None:
        raise not_deployed(name)
    require_ours(stack)
    require_idle(stack, "destroy")
    if stack.is_protected:
        raise TwoBucketsError(
            f"Could not destroy the stack {name}: its termination protection is on",
            hint="Whoever turned it on had a reason. To turn it off: aws cloudformation "
            f"update-termination-protection --no-enable-termination-protection --stack-name {name}",
        )
    return stack


def find_buckets(cloudformation: CloudFormationClient, stack: Stack) -> list[str]:
    """Return the names of the buckets that the stack made, staging first.

    What its parameters say was there before it is none of them, whatever CloudFormation lists.
    """
    kept = set(existing_buckets(stack.parameters).values())
    found = find_resources(cloudformation, stack, "AWS::S3::Bucket")
    # Without staging first, a file on its way would still reach an archive that was just emptied.
    return [found[name] for name in sorted(found, reverse=True) if found[name] not in kept]


def find_job_queue(cloudformation: CloudFormationClient, stack: Stack) -> str | None:
    """Return the queue of AWS Batch that the stack has, None where it has none."""
    return next(iter(find_resources(cloudformation, stack, "AWS::Batch::JobQueue").values()), None)


def end_jobs(batch: Any, queue: str, *, sleep: Callable[[float], None]) -> Iterator[int]:
    """End every job of a queue that may still process a file; yield how many are left, until none.

    A job would go on archiving into a bucket that was just emptied. Its file stays in staging.
    Raises TwoBucketsError when jobs do not end in time.
    """
    for _ in range(_JOB_LOOKS):
        left = 0
        for status in UNFINISHED:
            with attempt(f"end the jobs of {queue}"):
                pages = batch.get_paginator("list_jobs").paginate(jobQueue=queue, jobStatus=status)
                for page in pages:
                    for job in page["jobSummaryList"]:
                        left += 1
                        # Asked again it does nothing (AWS Batch API reference, TerminateJob).
                        batch.terminate_job(jobId=job["jobId"], reason="twobuckets destroy")
        if not left:
            return
        yield left
        sleep(_JOB_PAUSE)
    raise TwoBucketsError(
        f"Could not end the jobs of {queue}: AWS Batch has {left:,} of them still",
        hint="Run the command again in some minutes. No file was deleted.",
    )


def count_contents(
    sender: Sender, bucket: str, *, report: Callable[[int], None] = lambda _: None
) -> Contents | None:
    """Return what a bucket holds, None when there is no such bucket.

    Reads the whole listing and calls `report` with the number of versions so far now and then.
    """
    counts: Counter[str] = Counter()
    try:
        with _listing("ListObjectVersions", bucket):
            for number, version in enumerate(iter_versions(sender, bucket), 1):
                kind = "objects" if version.is_latest else "noncurrent"
                counts["markers" if version.is_delete_marker else kind] += 1
                counts["bytes"] += version.size_bytes or 0
                if number % MOST_DELETES == 0:
                    report(number)
        with _listing("ListMultipartUploads", bucket):
            counts["uploads"] = sum(1 for _ in iter_uploads(sender, bucket))
    except NotFoundError:
        return None
    return Contents(
        bucket=bucket,
        objects=counts["objects"],
        noncurrent_versions=counts["noncurrent"],
        delete_markers=counts["markers"],
        incomplete_uploads=counts["uploads"],
        size_bytes=counts["bytes"],
    )


def remove_bucket(
    s3: S3Client, sender: Sender, bucket: str, *, delete_data: bool
) -> Iterator[Removed]:
    """Delete a bucket, with `delete_data` whatever is in it, else only delete markers.

    Yields each step. S3 itself refuses to delete a bucket that holds something, so what arrives
    after the last look is never lost: with `delete_data` it is removed like the rest, without it
    the bucket stays. Raises TwoBucketsError then.
    """
    for _ in range(_ROUNDS):
        yield from empty(sender, bucket) if delete_data else _delete_markers(sender, bucket)
        if _delete_bucket(s3, bucket):
            return
        if not delete_data:
            break
    raise TwoBucketsError(
        f"Could not delete the bucket {bucket}: something arrived in it meanwhile",
        hint="The stack is still there, and so is what arrived. Stop the clients that upload and "
        "run the command again.",
    )


def empty(sender: Sender, bucket: str) -> Iterator[Removed]:
    """Delete all versions and delete markers, abort all uploads, and look again until none is left.

    1,000 keys a call, many calls at a time. Raises TwoBucketsError, or AccessError, with the first
    key that S3 refuses to delete; what was deleted before is gone.
    """
    for _ in range(_ROUNDS):
        steps = chain(_delete_versions(sender, bucket), _abort_uploads(sender, bucket))
        found = False
        for step in steps:
            found = True
            yield step
        # A part in flight can outlive the abort of its upload (S3 API reference,
        # AbortMultipartUpload), and a client can have gone on.
        if not found:
            return
    raise TwoBucketsError(
        f"Could not empty the bucket {bucket}: something keeps uploading to it",
        hint="Stop the clients that upload, then run the command again.",
    )


def _delete_versions(sender: Sender, bucket: str) -> Iterator[Removed]:
    with _listing("ListObjectVersions", bucket):
        yield from _delete(sender, bucket, iter_versions(sender, bucket))


def _delete_markers(sender: Sender, bucket: str) -> Iterator[Removed]:
    with _listing("ListObjectVersions", bucket):
        listed = iter_versions(sender, bucket)
        yield from _delete(sender, bucket, (v for v in listed if v.is_delete_marker))


def _delete(sender: Sender, bucket: str, versions: Iterable[ListedVersion]) -> Iterator[Removed]:
    pinned = (ObjectVersion(version.key, version.version_id) for version in versions)
    for result in iter_deletes(sender, bucket, pinned):
        if result.code:
            raise _refusal(bucket, result)
        yield Removed(bucket, versions=1)


def _abort_uploads(sender: Sender, bucket: str) -> Iterator[Removed]:
    with _listing("ListMultipartUploads", bucket):
        aborts = (
            abort_multipart_upload(bucket, u.key, u.upload_id) for u in iter_uploads(sender, bucket)
        )
        for request, answer in sender.send_all(aborts):
            # A 404: completed or aborted by somebody else; the next look finds what came of it.
            if isinstance(answer, Response) and (answer.ok or answer.status == 404):
                yield Removed(bucket, uploads=1)
                continue
            what = f"abort the upload of {request.key!r} to the bucket {bucket}"
            raise explain(answer, "AbortMultipartUpload", what)


def _delete_bucket(s3: S3Client, bucket: str) -> bool:
    """Delete an empty bucket; one that is gone already is fine. False when it is not empty."""
    with attempt(f"delete the bucket {bucket}"):
        try:
            s3.delete_bucket(Bucket=bucket)
        except ClientError as error:
            if error_code(error) == "BucketNotEmpty":
                return False
            if error_code(error) != "NoSuchBucket":
                raise
    return True


def delete_stack(
    cloudformation: CloudFormationClient, stack: Stack, *, sleep: Callable[[float], None]
) -> Iterator[StackEvent]:
    """Delete the stack and yield its events until it is gone.

    Raises TwoBucketsError with the first resource that could not be deleted and AWS's reason.
    """
    before = newest_event_id(cloudformation, stack.stack_id)
    with attempt(f"delete the stack {stack.name}"):
        cloudformation.delete_stack(StackName=stack.stack_id)
    status = yield from follow(cloudformation, stack.stack_id, after=before, sleep=sleep)
    if status != "DELETE_COMPLETE":
        events = events_of_last_operation(cloudformation, stack.stack_id)
        raise failed(
            f"delete the stack {stack.name}",
            find_failure(cloudformation, stack.stack_id, events),
            status,
            f"Fix that and run `twobuckets --stack {stack.name} destroy` again: it goes on where "
            "it stopped.",
        )


@contextlib.contextmanager
def _listing(operation: str, bucket: str) -> Iterator[None]:
    """Raise a listing's error as ours."""
    try:
        yield
    except ListingError as error:
        raise explain(error.reason, operation, f"list the bucket {bucket}") from error


def _refusal(bucket: str, refused: DeleteResult) -> TwoBucketsError:
    message = (
        f"Could not empty the bucket {bucket}: S3 refused to delete {refused.key!r}: "
        f"{refused.message or refused.code}"
    )
    if meaning_of(refused.code) in CREDENTIALS_OVER:
        return AccessError(
            message, hint="Sign in again and run the command again: it goes on where it stopped."
        )
    if meaning_of(refused.code) is Meaning.DENIED:
        return AccessError(
            message,
            hint="The identity in use needs s3:DeleteObject and s3:DeleteObjectVersion there, and "
            "no policy or object lock may forbid it. The stack is still there: run it again then.",
        )
    return TwoBucketsError(message, hint="Run the command again: it goes on where it stopped.")
