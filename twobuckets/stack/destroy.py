"""Taking a pipeline down: what its buckets hold, emptying them, deleting them and the stack.

The way through: `require_destroyable` and `count_contents` read; `remove_bucket` empties and
deletes one bucket; `delete_stack` deletes the rest and follows the events. The buckets go before
the stack, so that a run that was interrupted anywhere can be run again.
"""

from __future__ import annotations

import re
from collections import Counter
from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar, Final

from twobuckets.aws import ClientError, attempt, error_code
from twobuckets.errors import AccessError, TwoBucketsError
from twobuckets.parallel import map_unordered
from twobuckets.stack.events import (
    StackEvent,
    events_of_last_operation,
    failed,
    find_failure,
    follow,
    newest_event_id,
)
from twobuckets.stack.outputs import not_deployed
from twobuckets.stack.stacks import Stack, find_stack, require_idle, require_ours

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator

    from mypy_boto3_cloudformation import CloudFormationClient
    from mypy_boto3_s3 import S3Client
    from mypy_boto3_s3.type_defs import ObjectIdentifierTypeDef

_KEYS_A_CALL: Final = 1000
"""The most keys of one DeleteObjects request (S3 API reference, DeleteObjects)."""

_ROUNDS: Final = 20
"""Bounds a race against clients that go on uploading."""

# What XML 1.0 can't carry can't be named in the body of DeleteObjects, only in a URL.
_NOT_IN_XML: Final = re.compile("[^\t\n\r\x20-\ud7ff\ue000-\ufffd\U00010000-\U0010ffff]")


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
    """One step of emptying a bucket: versions and delete markers deleted, uploads aborted."""

    bucket: str
    versions: int = 0
    uploads: int = 0


@dataclass(frozen=True, slots=True)
class DestroySummary:
    """How it ended: `outcome` is destroyed, planned or declined, and what was removed."""

    type_name: ClassVar[str] = "summary"

    stack: str
    outcome: str
    versions: int
    uploads: int


@dataclass(frozen=True, slots=True)
class _Refused:
    key: str
    code: str
    message: str


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
    """Return the names of the buckets that the stack has, staging first."""
    with attempt(f"list the resources of the stack {stack.name}"):
        pages = cloudformation.get_paginator("list_stack_resources").paginate(
            StackName=stack.stack_id
        )
        found = {
            resource["LogicalResourceId"]: resource.get("PhysicalResourceId", "")
            for page in pages
            for resource in page["StackResourceSummaries"]
            if resource["ResourceType"] == "AWS::S3::Bucket"
            and resource["ResourceStatus"] not in ("DELETE_COMPLETE", "DELETE_SKIPPED")
        }
    # Without staging first, a file on its way would still reach an archive that was just emptied.
    return [found[name] for name in sorted(found, reverse=True) if found[name]]


def count_contents(
    s3: S3Client, bucket: str, *, report: Callable[[int], None] = lambda _: None
) -> Contents | None:
    """Return what a bucket holds, None when there is no such bucket.

    Reads every page of the listing and calls `report` with the number of versions so far.
    """
    counts: Counter[str] = Counter()
    with attempt(f"list the bucket {bucket}"):
        try:
            for page in s3.get_paginator("list_object_versions").paginate(Bucket=bucket):
                for version in page.get("Versions", []):
                    counts["objects" if version["IsLatest"] else "noncurrent"] += 1
                    counts["bytes"] += version["Size"]
                counts["markers"] += len(page.get("DeleteMarkers", []))
                report(counts["objects"] + counts["noncurrent"] + counts["markers"])
            for uploads in s3.get_paginator("list_multipart_uploads").paginate(Bucket=bucket):
                counts["uploads"] += len(uploads.get("Uploads", []))
        except ClientError as error:
            if error_code(error) == "NoSuchBucket":
                return None
            raise
    return Contents(
        bucket=bucket,
        objects=counts["objects"],
        noncurrent_versions=counts["noncurrent"],
        delete_markers=counts["markers"],
        incomplete_uploads=counts["uploads"],
        size_bytes=counts["bytes"],
    )


def empty(s3: S3Client, bucket: str) -> Iterator[Removed]:
    """Delete all versions and delete markers, abort all uploads, and look again until none is left.

    1,000 keys a call, calls in parallel; yields after each. Raises TwoBucketsError, or AccessError,
    with the first key that S3 refuses to delete; what was deleted before is gone.
    """
    for _ in range(_ROUNDS):
        found = removed = 0
        refused: list[_Refused] = []
        with attempt(f"empty the bucket {bucket}"):
            batches = _iter_batches(_iter_versions(s3, bucket))
            for versions, errors in map_unordered(lambda b: _delete(s3, bucket, b), batches):
                found += versions + len(errors)
                removed += versions
                refused += errors
                yield Removed(bucket, versions=versions)
            for _upload in map_unordered(
                lambda upload: _abort(s3, bucket, *upload), _iter_uploads(s3, bucket)
            ):
                # A part in flight can outlive the abort, so the next round looks again
                # (S3 API reference, AbortMultipartUpload).
                found += 1
                removed += 1
                yield Removed(bucket, uploads=1)
        if not found:
            return
        # SlowDown and InternalError mend themselves; a round that deletes nothing will not.
        lasting = [r for r in refused if r.code == "AccessDenied"] or refused
        if lasting and (not removed or lasting[0].code == "AccessDenied"):
            raise _refusal(bucket, lasting[0], len(refused))
    raise TwoBucketsError(
        f"Could not empty the bucket {bucket}: something keeps uploading to it",
        hint="Stop the clients that upload, then run the command again.",
    )


def remove_bucket(s3: S3Client, bucket: str, *, delete_data: bool) -> Iterator[Removed]:
    """Delete a bucket, with `delete_data` whatever is in it, else only delete markers.

    Yields each step. S3 itself refuses to delete a bucket that holds something, so what arrives
    after the last look is never lost: with `delete_data` it is removed like the rest, without it
    the bucket stays. Raises TwoBucketsError then.
    """
    for _ in range(_ROUNDS):
        yield from empty(s3, bucket) if delete_data else _remove_markers(s3, bucket)
        if _delete_bucket(s3, bucket):
            return
        if not delete_data:
            break
    raise TwoBucketsError(
        f"Could not delete the bucket {bucket}: something arrived in it meanwhile",
        hint="The stack is still there, and so is what arrived. Stop the clients that upload and "
        "run the command again.",
    )


def _remove_markers(s3: S3Client, bucket: str) -> Iterator[Removed]:
    with attempt(f"remove the delete markers of the bucket {bucket}"):
        batches = _iter_batches(_iter_markers(s3, bucket))
        for removed, refused in map_unordered(lambda b: _delete(s3, bucket, b), batches):
            if refused:
                raise _refusal(bucket, refused[0], len(refused))
            yield Removed(bucket, versions=removed)


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
            f"Mend that and run `twobuckets --stack {stack.name} destroy` again: it goes on where "
            "it stopped.",
        )


def _iter_versions(s3: S3Client, bucket: str) -> Iterator[ObjectIdentifierTypeDef]:
    for page in s3.get_paginator("list_object_versions").paginate(Bucket=bucket):
        for version in page.get("Versions", []):
            yield {"Key": version["Key"], "VersionId": version["VersionId"]}
        for marker in page.get("DeleteMarkers", []):
            yield {"Key": marker["Key"], "VersionId": marker["VersionId"]}


def _iter_markers(s3: S3Client, bucket: str) -> Iterator[ObjectIdentifierTypeDef]:
    for page in s3.get_paginator("list_object_versions").paginate(Bucket=bucket):
        for marker in page.get("DeleteMarkers", []):
            yield {"Key": marker["Key"], "VersionId": marker["VersionId"]}


def _iter_uploads(s3: S3Client, bucket: str) -> Iterator[tuple[str, str]]:
    for page in s3.get_paginator("list_multipart_uploads").paginate(Bucket=bucket):
        for upload in page.get("Uploads", []):
            yield upload["Key"], upload["UploadId"]


def _iter_batches(
    versions: Iterable[ObjectIdentifierTypeDef],
) -> Iterator[list[ObjectIdentifierTypeDef]]:
    """Yield batches of one DeleteObjects each; a key that XML can't carry is one of its own."""
    batch: list[ObjectIdentifierTypeDef] = []
    for version in versions:
        if _NOT_IN_XML.search(version["Key"]):
            yield [version]
            continue
        batch.append(version)
        if len(batch) == _KEYS_A_CALL:
            yield batch
            batch = []
    if batch:
        yield batch


def _delete(
    s3: S3Client, bucket: str, batch: list[ObjectIdentifierTypeDef]
) -> tuple[int, list[_Refused]]:
    """Delete a batch and return how many went and which S3 refused."""
    if len(batch) == 1:
        [version] = batch
        s3.delete_object(
            Bucket=bucket, Key=version["Key"], VersionId=version.get("VersionId", "null")
        )
        return 1, []
    answer = s3.delete_objects(Bucket=bucket, Delete={"Objects": batch, "Quiet": True})
    refused = [
        _Refused(e.get("Key", ""), e.get("Code", ""), e.get("Message", ""))
        for e in answer.get("Errors", [])
    ]
    return len(batch) - len(refused), refused


def _abort(s3: S3Client, bucket: str, key: str, upload_id: str) -> None:
    try:
        s3.abort_multipart_upload(Bucket=bucket, Key=key, UploadId=upload_id)
    except ClientError as error:
        # Completed or aborted by somebody else meanwhile; the next round finds what came of it.
        if error_code(error) != "NoSuchUpload":
            raise


def _refusal(bucket: str, first: _Refused, count: int) -> TwoBucketsError:
    others = f" and {count - 1:,} more" if count > 1 else ""
    message = (
        f"Could not empty the bucket {bucket}: S3 refused to delete {first.key!r}{others}: "
        f"{first.message or first.code}"
    )
    if first.code == "AccessDenied":
        return AccessError(
            message,
            hint="The identity in use needs s3:DeleteObject and s3:DeleteObjectVersion there, and "
            "no policy or object lock may forbid it. The stack is still there: run it again then.",
        )
    return TwoBucketsError(message, hint="Run the command again: it goes on where it stopped.")
