"""Orphaned uploads: multipart uploads that nobody completed, invisible in listings and paid for."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from twobuckets.aws import ClientError
from twobuckets.doctor.findings import Check, Finding, Severity, finder
from twobuckets.pipeline.lifecycle import Clearing
from twobuckets.pipeline.lookups import CouldNotLook, listing_stopped
from twobuckets.s3.listing import ListingError, iter_uploads
from twobuckets.s3.uploads import read_parts
from twobuckets.text import UnquotableError, shell_word, visible
from twobuckets.units import format_bytes, format_duration, format_instant

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from twobuckets.doctor.site import Site
    from twobuckets.s3.answers import ListedUpload
    from twobuckets.s3.engine import Sender
    from twobuckets.s3.uploads import IncompleteUpload

_EACH: Final = 10
"""Up to so many orphaned uploads of a bucket each get a finding of their own."""
_SAMPLES: Final = 64
"""The parts of so many uploads are listed to tell what more of them weigh."""
_EXAMPLES: Final = 3

CHECK: Final = Check("upload-orphaned", "Multipart uploads that nobody completed.")


def iter_orphaned(site: Site, bucket: str) -> Iterator[ListedUpload]:
    """Yield the incomplete uploads of a bucket that are older than the threshold, by key.

    Raises CouldNotLook.
    """
    try:
        with site.connect() as sender:
            for upload in iter_uploads(sender, bucket):
                if site.is_stopped:
                    return
                if site.now - upload.initiated_at >= site.uploads_older_than:
                    yield upload
    except ListingError as error:
        permission = "s3:ListBucketMultipartUploads"
        raise listing_stopped(f"the uploads in {bucket}", error, permission) from error


def read_held(
    sender: Sender, bucket: str, uploads: Sequence[ListedUpload]
) -> list[IncompleteUpload | None]:
    """Return what uploads hold so far, None where one is gone. Raises CouldNotLook."""
    what, permission = f"the parts of uploads in {bucket}", "s3:ListMultipartUploadParts"
    try:
        held = read_parts(sender, bucket, uploads)
    except ListingError as error:
        raise listing_stopped(what, error, permission) from error
    if any(upload is not None and upload.parts is None for upload in held):
        raise CouldNotLook(what, "access denied", permission)
    return held


@finder("uploads", CHECK)
def find_orphaned(site: Site) -> Iterator[Finding]:
    """Yield the orphaned uploads of both buckets: each one, or many as one finding."""
    for bucket in dict.fromkeys((site.staging, site.archive)):
        if not site.buckets.exists(bucket):
            continue
        uploads = list(iter_orphaned(site, bucket))
        if not uploads:
            continue
        step = max(1, len(uploads) // _SAMPLES)
        sample = uploads[::step][:_SAMPLES]
        with site.connect() as sender:
            held = read_held(sender, bucket, sample)
        known = sorted((u for u in held if u is not None), key=lambda u: u.initiated_at)
        if len(uploads) <= _EACH:
            yield from (_one(site, bucket, one) for one in known)
        elif known:
            yield _many(site, bucket, uploads, known)


def _one(site: Site, bucket: str, upload: IncompleteUpload) -> Finding:
    came = _arrived_since(site, upload)
    size_bytes = upload.stored_bytes or 0
    return Finding(
        check=CHECK.name,
        severity=Severity.NOTICE,
        subject=f"s3://{bucket}/{upload.key}",
        detail=f"{upload.initiator or 'Somebody'} began this upload "
        f"{format_duration(site.now - upload.initiated_at)} ago and did not complete it: "
        f"{upload.parts:,} parts, {format_bytes(size_bytes)}. "
        + _end(site, bucket, upload)
        + (f" An object of this key has come to {came} since." if came else ""),
        remedy=_abort_command(site, bucket, upload),
        size_bytes=size_bytes,
        cost_month_usd=round(site.settings.prices.month_usd(size_bytes, upload.storage_class), 6),
        oldest_at=upload.initiated_at,
        examples=(upload.key,),
    )


def _abort_command(site: Site, bucket: str, upload: IncompleteUpload) -> str:
    try:
        key = shell_word(upload.key)
    except UnquotableError:
        return site.fix_command(CHECK.name)
    return (
        f"{site.aws_cli} s3api abort-multipart-upload --bucket {shell_word(bucket)} --key {key} "
        f"--upload-id {shell_word(upload.upload_id)}"
    )


def _many(
    site: Site, bucket: str, uploads: list[ListedUpload], known: list[IncompleteUpload]
) -> Finding:
    sampled_bytes = sum(upload.stored_bytes or 0 for upload in known)
    size_bytes = round(sampled_bytes * len(uploads) / len(known))
    about = "" if len(known) == len(uploads) else f"about, from {len(known)} of them, "
    who: dict[str, int] = {}
    for upload in uploads:
        who[upload.initiator] = who.get(upload.initiator, 0) + 1
    most = sorted(who.items(), key=lambda item: -item[1])[:3]
    oldest = sorted(uploads, key=lambda upload: upload.initiated_at)[:_EXAMPLES]
    came = sum(1 for upload in known[:_EXAMPLES] if _arrived_since(site, upload))
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
        count=len(uploads),
        size_bytes=size_bytes,
        cost_month_usd=round(site.settings.prices.month_usd(size_bytes), 6),
        oldest_at=oldest[0].initiated_at,
        examples=tuple(visible(upload.key) for upload in oldest),
    )


def _end(site: Site, bucket: str, upload: IncompleteUpload) -> str:
    end = site.facts.end_of_upload(bucket, upload)
    match end.clearing:
        case Clearing.BY_RULE:
            assert end.at is not None
            return f"A lifecycle rule clears it at {format_instant(end.at)}."
        case Clearing.NONE:
            return "No lifecycle rule clears it."
        case Clearing.UNKNOWN:
            return "Whether a lifecycle rule will clear it could not be read."
        case Clearing.NOT_HERE:
            return "The embedded AWS runs no lifecycle rules, so nothing clears it."


def _arrived_since(site: Site, upload: IncompleteUpload) -> str | None:
    """Return the bucket that has an object of the upload's key that is newer than the upload."""
    for bucket in (site.staging, site.archive):
        try:
            head = site.aws.s3.head_object(Bucket=bucket, Key=upload.key)
        except ClientError:
            continue
        if head["LastModified"] >= upload.initiated_at:
            return bucket
    return None


FINDER: Final = find_orphaned
