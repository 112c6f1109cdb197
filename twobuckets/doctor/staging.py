"""What lies in staging and since when, and which of it is proven to be in the archive."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

from twobuckets.aws import ClientError, error_code
from twobuckets.pipeline.lookups import Gone, could_not_look, listing_stopped
from twobuckets.processor.comparing import Content, Likeness, compare, content_of
from twobuckets.processor.contract import ORIGIN, read_origin
from twobuckets.s3.answers import ListedVersion
from twobuckets.s3.listing import ListingError, iter_objects, iter_versions

if TYPE_CHECKING:
    from collections.abc import Iterator
    from datetime import datetime

    from twobuckets.doctor.site import Site
    from twobuckets.doctor.summary import StagedTotals
    from twobuckets.s3.answers import ListedObject
    from twobuckets.s3.engine import Sender

_ABSENT: Final = frozenset({"404", "NoSuchKey", "NoSuchVersion", "405", "MethodNotAllowed"})


@dataclass(frozen=True, slots=True)
class StagedObject:
    """A current object in staging; `etag` has no quotes, `version_id` is None without versions."""

    key: str
    version_id: str | None
    etag: str
    size_bytes: int
    arrived_at: datetime


def iter_stuck(site: Site, totals: StagedTotals) -> Iterator[StagedObject]:
    """Yield what is stuck in staging, in key order, and add all that is there up in `totals`.

    Raises CouldNotLook, and Gone when there is no staging bucket.
    """
    if not site.buckets.exists(site.staging):
        raise Gone(f"the bucket {site.staging}", "bucket-missing")
    is_versioned = site.buckets.versioning(site.staging) != ""
    now, stuck_after = site.now, site.stuck_after
    try:
        with site.connect() as sender:
            for row in _iter_current(sender, site.staging, is_versioned=is_versioned):
                if site.is_stopped:
                    return
                age, size_bytes = now - row.modified_at, row.size_bytes or 0
                is_stuck = age >= stuck_after
                totals.add(row.key, age, size_bytes, is_stuck=is_stuck)
                if is_stuck:
                    version_id = row.version_id if isinstance(row, ListedVersion) else None
                    yield StagedObject(
                        row.key,
                        # "null" names whatever was written without a version: it pins nothing.
                        None if version_id == "null" else version_id,
                        row.etag,
                        size_bytes,
                        row.modified_at,
                    )
    except ListingError as error:
        permission = "s3:ListBucketVersions" if is_versioned else "s3:ListBucket"
        raise listing_stopped(f"what is in {site.staging}", error, permission) from error


def _iter_current(
    sender: Sender, bucket: str, *, is_versioned: bool
) -> Iterator[ListedObject | ListedVersion]:
    if not is_versioned:
        yield from iter_objects(sender, bucket)
        return
    for row in iter_versions(sender, bucket):
        if row.is_latest and not row.is_delete_marker:
            yield row


def is_archived(site: Site, staged: StagedObject) -> bool:
    """Tell whether the archive provably holds exactly this staged version.

    It was archived after the arrival, what S3 tells of both proves equal bytes, and our processor's
    record of the origin, if there is one, names this version. Where S3 tells nothing to compare by,
    nothing is proven, whatever the record says. Raises CouldNotLook.
    """
    archived = _head(site, site.archive, staged.key)
    if archived is None:
        return False
    # Times of S3 are whole seconds.
    if archived["LastModified"] < staged.arrived_at.replace(microsecond=0):
        return False
    origin = read_origin(archived.get("Metadata", {}).get(ORIGIN))
    if origin is not None and (origin.bucket, origin.version_id, origin.etag) != (
        site.staging,
        staged.version_id,
        staged.etag,
    ):
        return False
    content = content_of(archived)
    likeness = compare(Content(staged.size_bytes, staged.etag, {}), content)
    if likeness is Likeness.UNKNOWN:
        head = _head(site, site.staging, staged.key, staged.version_id)
        if head is not None and str(head["ETag"]).strip('"') == staged.etag:
            likeness = compare(content_of(head), content)
    return likeness is Likeness.EQUAL


def _head(site: Site, bucket: str, key: str, version_id: str | None = None) -> Any | None:
    version: Any = {} if version_id is None else {"VersionId": version_id}
    try:
        return site.aws.s3.head_object(Bucket=bucket, Key=key, ChecksumMode="ENABLED", **version)
    except ClientError as error:
        code = error_code(error)
        if code in _ABSENT:
            return None
        # Without s3:ListBucket S3 answers 403 for what does not exist.
        what = f"whether s3://{site.archive} holds what is stuck"
        raise could_not_look(what, error, "s3:GetObject and s3:ListBucket") from error
