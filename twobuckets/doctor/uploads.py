"""Orphaned uploads: multipart uploads that nobody completed, invisible in listings and paid for."""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Any, Final

from twobuckets.aws import ClientError, error_code
from twobuckets.doctor.buckets import aborts_uploads
from twobuckets.doctor.findings import Check, CouldNotLook, Finding, Severity, finder
from twobuckets.doctor.site import could_not_look, listing_stopped
from twobuckets.parallel import map_unordered
from twobuckets.prices import US_EAST_1
from twobuckets.s3.listing import ListingError, iter_uploads
from twobuckets.text import shell_word, visible
from twobuckets.units import format_bytes, format_duration, format_instant

if TYPE_CHECKING:
    from collections.abc import Iterator
    from datetime import datetime

    from twobuckets.doctor.site import Site
    from twobuckets.s3.answers import ListedUpload

_EACH: Final = 10
"""Up to so many orphaned uploads of a bucket each get a finding of their own."""
_SAMPLES: Final = 64
"""The parts of so many uploads are listed to tell what more of them weigh."""
_EXAMPLES: Final = 3
_GONE: Final = frozenset({"404", "NoSuchKey", "NoSuchUpload"})

CHECK: Final = Check("upload-orphaned", "Multipart uploads that nobody completed.", fixable=True)


@dataclass(frozen=True, slots=True)
class Weighed:
    """An orphaned upload with what its parts add up to."""

    upload: ListedUpload
    parts: int
    size_bytes: int
    newest_part_at: datetime | None
    aborted_at: datetime | None
    """When a lifecycle rule will abort it."""


def iter_orphaned(site: Site, bucket: str) -> Iterator[ListedUpload]:
    """Yield the incomplete uploads of a bucket that are older than the threshold, by key.

    Raises CouldNotLook.
    """
    try:
        with site.connect() as sender:
            for upload in iter_uploads(sender, bucket):
                if site.now - upload.initiated_at >= site.uploads_older_than:
                    yield upload
    except ListingError as error:
        permission = "s3:ListBucketMultipartUploads"
        raise listing_stopped(f"the uploads in {bucket}", error, permission) from error


def weigh(site: Site, bucket: str, upload: ListedUpload) -> Weighed | None:
    """Return what an upload's parts add up to; None when it is gone. Raises CouldNotLook."""
    request: dict[str, Any] = {"Bucket": bucket, "Key": upload.key, "UploadId": upload.upload_id}
    parts = size_bytes = 0
    newest_part_at = aborted_at = None
    try:
        for page in site.aws.s3.get_paginator("list_parts").paginate(**request):
            found = page.get("Parts", [])
            parts += len(found)
            size_bytes += sum(part["Size"] for part in found)
            for part in found:
                newest_part_at = max(part["LastModified"], newest_part_at or part["LastModified"])
            aborted_at = page.get("AbortDate", aborted_at)
    except ClientError as error:
        if error_code(error) in _GONE:
            return None
        what, permission = f"the parts of uploads in {bucket}", "s3:ListMultipartUploadParts"
        raise could_not_look(what, error, permission) from error
    return Weighed(upload, parts, size_bytes, newest_part_at, aborted_at)


@finder("uploads", CHECK)
def find_orphaned(site: Site) -> Iterator[Finding]:
    """Yield the orphaned uploads of both buckets: each one, or many as one finding."""
    for bucket in dict.fromkeys((site.staging, site.archive)):
        if not site.bucket_exists(bucket):
            continue
        uploads = list(iter_orphaned(site, bucket))
        if not uploads:
            continue
        step = max(1, len(uploads) // _SAMPLES)
        sample = uploads[::step][:_SAMPLES]
        weighed = list(map_unordered(partial(weigh, site, bucket), sample))
        known = sorted((w for w in weighed if w is not None), key=lambda w: w.upload.initiated_at)
        if len(uploads) <= _EACH:
            yield from (_one(site, bucket, one) for one in known)
        elif known:
            yield _many(site, bucket, uploads, known)


def _one(site: Site, bucket: str, weighed: Weighed) -> Finding:
    upload = weighed.upload
    came = _arrived_since(site, weighed)
    return Finding(
        check=CHECK.name,
        severity=Severity.NOTICE,
        subject=f"s3://{bucket}/{upload.key}",
        detail=f"{upload.initiator or 'Somebody'} began this upload "
        f"{format_duration(site.now - upload.initiated_at)} ago and did not complete it: "
        f"{weighed.parts:,} parts, {format_bytes(weighed.size_bytes)}. "
        + _end(site, bucket, weighed)
        + (f" An object of this key has come to {came} since." if came else ""),
        remedy=f"{site.aws_cli} s3api abort-multipart-upload --bucket {shell_word(bucket)} "
        f"--key {shell_word(upload.key)} --upload-id {shell_word(upload.upload_id)}",
        fixable=True,
        size_bytes=weighed.size_bytes,
        cost_month_usd=round(US_EAST_1.month_usd(weighed.size_bytes, upload.storage_class), 6),
        oldest_at=upload.initiated_at,
        examples=(upload.key,),
    )


def _many(site: Site, bucket: str, uploads: list[ListedUpload], known: list[Weighed]) -> Finding:
    sampled_bytes = sum(weighed.size_bytes for weighed in known)
    size_bytes = round(sampled_bytes * len(uploads) / len(known))
    about = "" if len(known) == len(uploads) else f"about, from {len(known)} of them, "
    who: dict[str, int] = {}
    for upload in uploads:
        who[upload.initiator] = who.get(upload.initiator, 0) + 1
    most = sorted(who.items(), key=lambda item: -item[1])[:3]
    oldest = sorted(uploads, key=lambda upload: upload.initiated_at)[:_EXAMPLES]
    came = sum(1 for weighed in known[:_EXAMPLES] if _arrived_since(site, weighed))
    return Finding(
        check=CHECK.name,
        severity=Severity.NOTICE,
        subject=f"s3://{bucket}",
        detail=f"{len(uploads):,} uploads were begun and not completed, {about}"
        f"{format_bytes(size_bytes)}; by "
        + ", ".join(f"{name or 'somebody'} ({count:,})" for name, count in most)
        + f". {_end(site, bucket, known[0])}"
        + (
            f" Of the oldest {min(len(known), _EXAMPLES)}, {came} came as an object since."
            if came
            else ""
        ),
        remedy=site.fix_command(CHECK.name),
        fixable=True,
        count=len(uploads),
        size_bytes=size_bytes,
        cost_month_usd=round(US_EAST_1.month_usd(size_bytes), 6),
        oldest_at=oldest[0].initiated_at,
        examples=tuple(visible(upload.key) for upload in oldest),
    )


def _end(site: Site, bucket: str, weighed: Weighed) -> str:
    if weighed.aborted_at is not None:
        return f"A lifecycle rule clears it at {format_instant(weighed.aborted_at)}."
    try:
        if aborts_uploads(site.lifecycle(bucket)):
            return "A lifecycle rule will clear it."
    except CouldNotLook:
        return "Whether a lifecycle rule will clear it could not be read."
    return "No lifecycle rule clears it."


def _arrived_since(site: Site, weighed: Weighed) -> str | None:
    """Return the bucket that has an object of the upload's key that is newer than the upload."""
    upload = weighed.upload
    for bucket in (site.staging, site.archive):
        try:
            head = site.aws.s3.head_object(Bucket=bucket, Key=upload.key)
        except ClientError:
            continue
        if head["LastModified"] >= upload.initiated_at:
            return bucket
    return None


FINDER: Final = find_orphaned
