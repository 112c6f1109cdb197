"""Reads one version of an object in one of the two buckets, all of it or a range of its bytes."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from typing import TYPE_CHECKING, Any, Final, NamedTuple

from twobuckets.aws import ClientError, attempt, error_code, is_broken_read
from twobuckets.errors import NotFoundError, TwoBucketsError, UsageError
from twobuckets.units import format_bytes, parse_bytes

if TYPE_CHECKING:
    from collections.abc import Iterator

    from botocore.response import StreamingBody
    from mypy_boto3_s3 import S3Client

    from twobuckets.settings import Pipeline

PLACES: Final = ("staging", "archive")
_BLOCK_BYTES: Final = 1024 * 1024
# Tries in a row that bring not one byte.
_MOST_TRIES: Final = 5
_REPLACED: Final = frozenset({"PreconditionFailed", "412", "NoSuchKey", "NoSuchVersion"})
# HEAD has no body, so that S3's answers to it are told by their status alone. A version id of the
# other bucket may be one that no version can have.
_NOT_HERE: Final = frozenset({"404", "NoSuchKey", "NoSuchVersion", "400"})


class ByteRange(NamedTuple):
    """Bytes from `first` to `last`, both of them included; None for `last` means to the end.

    A negative `first`, without `last`, means that many from the end.
    """

    first: int
    last: int | None


@dataclass(frozen=True, slots=True)
class StoredObject:
    """A version of an object that is there; `place` is staging or archive."""

    place: str
    bucket: str
    key: str
    version_id: str | None
    etag: str
    size_bytes: int
    content_type: str | None
    modified_at: datetime


def parse_range(text: str) -> ByteRange:
    """Return the bytes that `0-999`, `1KiB-` or `-500`, the last 500, name.

    Raises ValueError for anything else.
    """
    first, dash, last = text.strip().partition("-")
    try:
        if not dash or not (first or last):
            raise ValueError
        if not first:
            return ByteRange(-parse_bytes(last), None)
        found = ByteRange(parse_bytes(first), parse_bytes(last) if last else None)
    except ValueError:
        raise ValueError(
            f"{text!r} is not a range of bytes; write for example 0-999, 1MiB- or -500"
        ) from None
    if found.last is not None and found.last < found.first:
        raise ValueError(f"the range {text!r} ends before it begins")
    return found


def find_object(
    s3: S3Client, pipeline: Pipeline, key: str, *, place: str | None, version_id: str | None
) -> StoredObject:
    """Return the version that is meant: in the place that is named, or in staging, or the archive.

    Raises NotFoundError when it is in none of them, and AccessError.
    """
    buckets = {"staging": pipeline.staging, "archive": pipeline.archive}
    places = (place,) if place is not None else PLACES
    for one in places:
        found = _look(s3, one, buckets[one], key, version_id)
        if found is not None:
            return found
    version = f" in the version {version_id}" if version_id is not None else ""
    raise NotFoundError(
        f"Could not find {key}{version}: it is in "
        + " or ".join(f"no object of {buckets[one]}" for one in places),
        hint="`twobuckets ls staging` and `twobuckets ls archive` show what is there.",
    )


def _look(
    s3: S3Client, place: str, bucket: str, key: str, version_id: str | None
) -> StoredObject | None:
    version: Any = {"VersionId": version_id} if version_id is not None else {}
    with attempt(f"look for {key} in {bucket}"):
        try:
            head = s3.head_object(Bucket=bucket, Key=key, **version)
        except ClientError as error:
            if error_code(error) in _NOT_HERE:
                return None
            raise
    return StoredObject(
        place=place,
        bucket=bucket,
        key=key,
        # "null" names the version that was made while the bucket kept none.
        version_id=head.get("VersionId"),
        etag=head["ETag"],
        size_bytes=head["ContentLength"],
        content_type=head.get("ContentType"),
        modified_at=head["LastModified"],
    )


def iter_bytes(s3: S3Client, found: StoredObject, asked: ByteRange | None) -> Iterator[bytes]:
    """Yield the bytes of exactly that version, in blocks; after a broken connection, the rest.

    Raises UsageError for a range that begins behind the end, and TwoBucketsError when the version
    was replaced or S3 stops sending.
    """
    first, end = _bounds(found, asked)
    if first == end:
        return
    tries = 0
    at = first
    while at < end:
        began_at = at
        problem: BaseException | None = None
        body = _open(s3, found, at, end)
        try:
            with attempt(f"read {found.key} in {found.bucket}"):
                while at < end and (block := body.read(min(_BLOCK_BYTES, end - at))):
                    at += len(block)
                    yield block
                # Only the end of the stream tells whether its checksum was right.
                body.read(1)
        except TwoBucketsError as error:
            problem = error.__cause__
            if problem is None or not is_broken_read(problem):
                raise
        tries = tries + 1 if at == began_at else 0
        if tries >= _MOST_TRIES:
            raise TwoBucketsError(
                f"Could not read {found.key} in {found.bucket}: S3 stopped {tries} times without "
                "sending a byte"
            ) from problem


def _open(s3: S3Client, found: StoredObject, at: int, end: int) -> StreamingBody:
    which: Any = {"VersionId": found.version_id} if found.version_id is not None else {}
    if (at, end) == (0, found.size_bytes):
        # Of a whole object S3 tells the checksum, which botocore compares.
        which["ChecksumMode"] = "ENABLED"
    else:
        which["Range"] = f"bytes={at}-{end - 1}"
    with attempt(f"read {found.key} in {found.bucket}"):
        try:
            return s3.get_object(Bucket=found.bucket, Key=found.key, IfMatch=found.etag, **which)[
                "Body"
            ]
        except ClientError as error:
            if error_code(error) in _REPLACED:
                raise TwoBucketsError(
                    f"Could not read {found.key}: it was replaced or deleted in {found.bucket} "
                    "meanwhile"
                ) from error
            raise


def _bounds(found: StoredObject, asked: ByteRange | None) -> tuple[int, int]:
    """Return where to begin, and where to end before."""
    size = found.size_bytes
    if asked is None:
        return 0, size
    if asked.first < 0:
        return max(0, size + asked.first), size
    if asked.first >= size:
        raise UsageError(
            f"Could not read from byte {asked.first:,} on: {found.key} has {format_bytes(size)}"
        )
    return asked.first, size if asked.last is None else min(asked.last + 1, size)
