"""What lies in staging and since when, and which of it is proven to be in the archive."""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

from twobuckets.aws import ClientError, error_code
from twobuckets.doctor.findings import Gone
from twobuckets.doctor.site import could_not_look
from twobuckets.doctor.summary import Staged

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping
    from datetime import datetime

    from twobuckets.doctor.site import Site

ORIGIN: Final = "twobuckets-origin"
"""Where our processor writes down which staged version it archived (twobuckets.processor)."""
_ABSENT: Final = frozenset({"404", "NoSuchKey", "NoSuchVersion", "405", "MethodNotAllowed"})


@dataclass(frozen=True, slots=True)
class StagedObject:
    """A current object in staging; `etag` has no quotes, `version_id` is None without versions."""

    key: str
    version_id: str | None
    etag: str
    size_bytes: int
    arrived_at: datetime


def iter_staged(site: Site) -> Iterator[StagedObject]:
    """Yield what is in staging now, in key order, and add it up in `site.staged`.

    Raises CouldNotLook, and Gone when there is no staging bucket.
    """
    if not site.bucket_exists(site.staging):
        raise Gone(f"There is no bucket {site.staging}")
    site.staged = Staged()
    is_versioned = site.versioning(site.staging) != ""
    listing = _iter_versions(site) if is_versioned else _iter_objects(site)
    try:
        for staged in listing:
            age = site.now - staged.arrived_at
            site.staged.add(age, staged.size_bytes, is_stuck=age >= site.stuck_after)
            yield staged
    except ClientError as error:
        permission = "s3:ListBucketVersions" if is_versioned else "s3:ListBucket"
        raise could_not_look(f"what is in {site.staging}", error, permission) from error


def _iter_versions(site: Site) -> Iterator[StagedObject]:
    for page in site.aws.s3.get_paginator("list_object_versions").paginate(Bucket=site.staging):
        for row in page.get("Versions", []):
            if row["IsLatest"]:
                version_id = None if row["VersionId"] == "null" else row["VersionId"]
                etag = row["ETag"].strip('"')
                yield StagedObject(row["Key"], version_id, etag, row["Size"], row["LastModified"])


def _iter_objects(site: Site) -> Iterator[StagedObject]:
    for page in site.aws.s3.get_paginator("list_objects_v2").paginate(Bucket=site.staging):
        for row in page.get("Contents", []):
            etag = row["ETag"].strip('"')
            yield StagedObject(row["Key"], None, etag, row["Size"], row["LastModified"])


def is_archived(site: Site, staged: StagedObject) -> bool:
    """Tell whether the archive provably holds exactly this staged version.

    Proven by our processor's record of the origin, else by an equal ETag and size of an object
    archived after the arrival. Under KMS equal content has unequal ETags: then nothing is proven.
    Raises CouldNotLook.
    """
    head = _head(site, staged.key)
    if head is None or head["ContentLength"] != staged.size_bytes:
        return False
    # Times of S3 are whole seconds.
    if head["LastModified"] < staged.arrived_at.replace(microsecond=0):
        return False
    origin = _origin_of(head.get("Metadata", {}))
    if origin is None:
        return str(head["ETag"]).strip('"') == staged.etag
    return (
        origin.get("bucket") == site.staging
        and origin.get("etag") == staged.etag
        and (origin.get("version_id") or None) == staged.version_id
    )


def _origin_of(metadata: Mapping[str, str]) -> dict[str, Any] | None:
    try:
        origin = json.loads(metadata[ORIGIN])
    except (KeyError, ValueError):
        return None
    return origin if isinstance(origin, dict) else None


def _head(site: Site, key: str) -> Any | None:
    try:
        return site.aws.s3.head_object(Bucket=site.archive, Key=key)
    except ClientError as error:
        code = error_code(error)
        if code in _ABSENT:
            return None
        # Without s3:ListBucket S3 answers 403 for what does not exist.
        what = f"whether s3://{site.archive} holds what is stuck"
        raise could_not_look(what, error, "s3:GetObject and s3:ListBucket") from error
