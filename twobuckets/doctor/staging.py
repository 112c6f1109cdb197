"""What lies in staging and since when, and which of it is proven to be in the archive."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any, Final

from twobuckets.aws import ClientError, Meaning, meaning
from twobuckets.pipeline.lookups import Gone, could_not_look, listing_stopped
from twobuckets.pipeline.versions import NO_VERSION, Version, version_described, version_listed
from twobuckets.processor.contract import stands_for_folder
from twobuckets.processor.copies import Copy
from twobuckets.processor.refusals import ask_why, reason_of_error
from twobuckets.s3.listing import ListingError, iter_objects, iter_versions

if TYPE_CHECKING:
    from collections.abc import Iterator

    from twobuckets.doctor.site import Site
    from twobuckets.s3.answers import ListedObject, ListedVersion
    from twobuckets.s3.engine import Sender

# HEAD of a delete marker by its version id is no method that S3 allows.
_ABSENT: Final = (Meaning.MISSING, Meaning.UNKNOWN_HERE)


def iter_staged(site: Site) -> Iterator[ListedObject | ListedVersion]:
    """Yield the files that are in staging, in key order, without what only stands for a folder.

    Raises CouldNotLook, and Gone when there is no staging bucket.
    """
    if not site.buckets.exists(site.staging):
        raise Gone(f"the bucket {site.staging}", "bucket-missing")
    is_versioned = site.buckets.versioning(site.staging) != ""
    skips_folders = site.function.skips_folders
    try:
        with site.connect() as sender:
            for row in _iter_current(sender, site.staging, is_versioned=is_versioned):
                if site.is_stopped:
                    return
                if skips_folders and stands_for_folder(row.key, row.size_bytes):
                    continue
                yield row
    except ListingError as error:
        permission = "s3:ListBucketVersions" if is_versioned else "s3:ListBucket"
        raise listing_stopped(f"what is in {site.staging}", error, permission) from error


def version_staged(row: ListedObject | ListedVersion) -> Version:
    """Return a listed object as the version that it is."""
    staged = version_listed(row)
    # "null" names whatever was written without a version: it pins nothing.
    return replace(staged, version_id=None) if staged.version_id in NO_VERSION else staged


def _iter_current(
    sender: Sender, bucket: str, *, is_versioned: bool
) -> Iterator[ListedObject | ListedVersion]:
    if not is_versioned:
        yield from iter_objects(sender, bucket)
        return
    for row in iter_versions(sender, bucket):
        if row.is_latest and not row.is_delete_marker:
            yield row


def is_archived(site: Site, staged: Version) -> bool:
    """Tell whether the archive provably holds exactly this staged version.

    It was archived after the arrival, what S3 tells of both proves equal bytes, and our processor's
    note of the origin, if there is one, names this version. Where S3 tells nothing to compare by,
    nothing is proven, whatever the note says. Raises CouldNotLook.
    """
    archived = _look(site, site.archive, staged.key)
    # Times of S3 are whole seconds.
    if archived is None or archived.modified_at < staged.modified_at.replace(microsecond=0):
        return False
    proof = archived.copy_of(staged, site.staging)
    if proof in (Copy.NAMED, Copy.UNKNOWN):
        # A listing tells no checksums.
        now = _look(site, site.staging, staged.key, staged.version_id)
        if now is not None and now.etag == staged.etag:
            proof = archived.copy_of(now, site.staging)
    return proof in (Copy.PROVEN, Copy.ALIKE)


def lock_of(site: Site, staged: Version) -> str | None:
    """Return what keeps a staged version from being deleted, None if nothing does, or nobody says.

    S3 tells a retention only to who may read it (s3:GetObjectRetention), and a legal hold likewise.
    """
    if site.buckets.has_mfa_delete(site.staging):
        return "MFA Delete: a version goes only with the root user's MFA device"
    if not site.buckets.has_object_lock(site.staging):
        return None
    version: Any = {} if staged.version_id is None else {"VersionId": staged.version_id}
    try:
        head = site.aws.s3.head_object(Bucket=site.staging, Key=staged.key, **version)
    except ClientError:
        return None
    if head.get("ObjectLockLegalHoldStatus") == "ON":
        return "a legal hold"
    mode, until = head.get("ObjectLockMode"), head.get("ObjectLockRetainUntilDate")
    if mode is None or until is None or until <= site.now:
        return None
    return f"Object Lock, in {mode.lower()} mode"


def _look(site: Site, bucket: str, key: str, version_id: str | None = None) -> Version | None:
    version: Any = {} if version_id in NO_VERSION else {"VersionId": version_id}
    try:
        head = site.aws.s3.head_object(Bucket=bucket, Key=key, ChecksumMode="ENABLED", **version)
        return version_described(key, head)
    except ClientError as error:
        if meaning(error) in _ABSENT:
            return None
        if _is_closed(site, {"Bucket": bucket, "Key": key, **version}):
            # What S3 refuses of one object proves nothing of it, and says nothing of the others.
            return None
        # Without s3:ListBucket S3 answers 403 for what does not exist.
        what = f"whether s3://{site.archive} holds what is stuck"
        raise could_not_look(what, error, "s3:GetObject and s3:ListBucket") from error


def _is_closed(site: Site, where: dict[str, Any]) -> bool:
    refusal = ask_why(site.aws.s3, where)
    return refusal is not None and reason_of_error(refusal) is not None
