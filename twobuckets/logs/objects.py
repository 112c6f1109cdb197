"""Where many objects are, as S3 shows it, asked in few requests."""

from __future__ import annotations

import enum
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from typing import TYPE_CHECKING, Final

from twobuckets.aws import ClientError, Meaning, attempt, explain, meaning
from twobuckets.parallel import map_unordered
from twobuckets.pipeline.versions import Version, version_described
from twobuckets.processor.copies import Copy

if TYPE_CHECKING:
    from collections.abc import Sequence

    from mypy_boto3_s3 import S3Client

# Up to so many objects are asked for one by one; more are listed.
_FEW: Final = 32
CLOCK_TOLERANCE: Final = timedelta(seconds=5)
"""How far the clock that gave `uploaded_at` may be from the log's and S3's."""


@dataclass(frozen=True, slots=True)
class AwaitedVersion:
    """One object version that was put into staging, or whose processor was woken, at `uploaded_at`.

    Give S3's own time (the answer's Date) where there is one. `etag` may have its quotes;
    `version_id` is None where the bucket keeps no versions.
    """

    key: str
    version_id: str | None
    etag: str
    uploaded_at: datetime
    size_bytes: int | None = None


class Whereabouts(enum.Enum):
    """Where a version that was put into staging is now."""

    STAGING = enum.auto()
    ARCHIVE = enum.auto()
    REPLACED = enum.auto()
    """Not in the archive, and another version of its key is in staging."""
    NOWHERE = enum.auto()


def find_whereabouts(
    s3: S3Client, staging: str, archive: str, versions: Sequence[AwaitedVersion]
) -> list[Whereabouts]:
    """Return where each version is.

    In the archive it is known by the processor's note of it; without one by its bytes, or at least
    its size, and by having come there since. Raises AccessError, and NotFoundError when a bucket
    does not exist.
    """
    staged = find_objects(s3, staging, {version.key for version in versions})
    left = {version.key for version in versions if not _is_still(staged.get(version.key), version)}
    archived = find_objects(s3, archive, left)

    def place_of(version: AwaitedVersion) -> Whereabouts:
        if _is_still(staged.get(version.key), version):
            return Whereabouts.STAGING
        if _is_copy(archived.get(version.key), version, staging):
            return Whereabouts.ARCHIVE
        return Whereabouts.REPLACED if version.key in staged else Whereabouts.NOWHERE

    return [place_of(version) for version in versions]


def _is_still(seen: Version | None, version: AwaitedVersion) -> bool:
    return seen is not None and seen.etag == version.etag.strip('"')


def _is_copy(seen: Version | None, version: AwaitedVersion, staging: str) -> bool:
    if seen is None:
        return False
    etag = version.etag.strip('"')
    size_bytes = seen.size_bytes if version.size_bytes is None else version.size_bytes
    put = Version(version.key, version.version_id, etag, size_bytes, version.uploaded_at)
    if version.version_id is None:
        # Then notes tell uploads of the same bytes apart by S3's own times, which nobody has here.
        seen = replace(seen, origin=None)
    match seen.copy_of(put, staging):
        case Copy.PROVEN | Copy.NAMED:
            return True
        case Copy.ALIKE | Copy.UNKNOWN:
            # What was there before may hold the same bytes, or by chance as many.
            return seen.modified_at >= version.uploaded_at - CLOCK_TOLERANCE
        case Copy.NONE:
            return False


def find_objects(s3: S3Client, bucket: str, keys: set[str]) -> dict[str, Version]:
    """Return the current objects among `keys`, in few requests however many there are.

    Raises AccessError, and NotFoundError when the bucket does not exist.
    """
    if len(keys) <= _FEW:
        found = map_unordered(lambda key: (key, _head(s3, bucket, key)), sorted(keys))
        return {key: seen for key, seen in found if seen is not None}
    return _list_among(s3, bucket, sorted(keys, key=_in_bytes))


def _head(s3: S3Client, bucket: str, key: str) -> Version | None:
    try:
        head = s3.head_object(Bucket=bucket, Key=key, ChecksumMode="ENABLED")
    except ClientError as error:
        if meaning(error) is Meaning.MISSING:
            return None
        raise explain(error, f"look at s3://{bucket}/{key}") from error
    return version_described(key, head)


def _list_among(s3: S3Client, bucket: str, keys: Sequence[str]) -> dict[str, Version]:
    """List only the ranges in which a key that is asked for can lie; `keys` are in S3's order."""
    wanted = set(keys)
    prefix = _common_start(keys[0], keys[-1])
    found: dict[str, Version] = {}
    position, start_after = 0, _before(keys[0])
    while position < len(keys):
        with attempt(f"list s3://{bucket}/{prefix}"):
            page = s3.list_objects_v2(Bucket=bucket, Prefix=prefix, StartAfter=start_after)
        contents = page.get("Contents", [])
        for item in contents:
            if item["Key"] in wanted:
                etag = item["ETag"].strip('"')
                found[item["Key"]] = Version(
                    item["Key"], None, etag, item["Size"], item["LastModified"]
                )
        if not page["IsTruncated"] or not contents:
            break
        last = contents[-1]["Key"]
        while position < len(keys) and _in_bytes(keys[position]) <= _in_bytes(last):
            position += 1
        if position < len(keys):
            start_after = max(last, _before(keys[position]), key=_in_bytes)
    return found


def _common_start(first: str, last: str) -> str:
    length = 0
    for one, other in zip(first, last, strict=False):
        if one != other:
            break
        length += 1
    return first[:length]


def _before(key: str) -> str:
    """Return a text that sorts before `key`, and with luck nothing lies between the two."""
    code = ord(key[-1])
    return key[:-1] if code <= 0x21 or code > 0x7F else f"{key[:-1]}{chr(code - 1)}~"


def _in_bytes(key: str) -> bytes:
    return key.encode("utf-8", "surrogateescape")
