"""What both buckets hold of a key: the staged version, its place, and what is archived already.

Where versions are ordered: S3's own version stack tells whether a staged version was replaced, and
an origin record in the archived object's metadata (`twobuckets-origin`) tells which version it came
from, so that an older one that comes late never becomes the archive's current one.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import TYPE_CHECKING, Any

from twobuckets.processor.comparing import Likeness, compare, content_of
from twobuckets.processor.contract import MISSING, ORIGIN, SUPERSEDED, Origin, read_origin
from twobuckets.processor.copies import Copy, StagedVersion, is_after, is_named, judge_copy
from twobuckets.processor.proving import Described, is_equal
from twobuckets.processor.refusals import ClosedError, ask_why, reason_of_error
from twobuckets.processor.stream import etag_of

if TYPE_CHECKING:
    from mypy_boto3_s3 import S3Client

    from twobuckets.processor.events import Arrival


class NotHere(Exception):
    """The version is not there to be processed: `outcome` is missing or superseded.

    `is_for_good` says that it never comes back, as no version does whose id is no longer listed.
    """

    def __init__(self, outcome: str, reason: str, *, is_for_good: bool = False) -> None:
        super().__init__(reason)
        self.outcome = outcome
        self.reason = reason
        self.is_for_good = is_for_good


class NotReadableYetError(Exception):
    """S3 lists the version in staging and answers 404 for it: it is to be tried again.

    That can happen in the minutes after versioning was first enabled on a bucket (Amazon S3 user
    guide, "How S3 Versioning works").
    """


@dataclass(frozen=True, slots=True)
class Place:
    """Where a version stands in its key's stack in staging."""

    is_replaced: bool = False
    is_hidden: bool = False  # under a delete marker, with no newer version
    has_older: bool | None = None  # None: nobody has looked


@dataclass(frozen=True, slots=True)
class Staged:
    """One version in staging as a pinned HEAD saw it."""

    bucket: str
    key: str
    version_id: str | None
    etag: str
    size_bytes: int
    last_modified_at: datetime
    head: Mapping[str, Any]

    @property
    def pinned(self) -> dict[str, Any]:
        """The arguments with which GetObject and HeadObject can meet this version only."""
        return pin(self.bucket, self.key, self.version_id, self.etag)

    @property
    def described(self) -> Described:
        """What proves what it holds."""
        return Described(self.pinned, self.head)

    @property
    def copy_source(self) -> dict[str, Any]:
        """The arguments with which CopyObject and UploadPartCopy can copy this version only."""
        source = {"Bucket": self.bucket, "Key": self.key}
        if self.version_id is not None:
            source["VersionId"] = self.version_id
        return {"CopySource": source, "CopySourceIfMatch": f'"{self.etag}"'}

    @property
    def metadata(self) -> dict[str, str]:
        """The uploader's metadata; an origin record in it is not the uploader's to write."""
        return {name: text for name, text in self.head["Metadata"].items() if name != ORIGIN}


@dataclass(frozen=True, slots=True)
class Archived:
    """What the archive holds as the current object of a key."""

    bucket: str
    key: str
    version_id: str | None
    etag: str
    origin: Origin | None
    head: Mapping[str, Any]

    @property
    def described(self) -> Described:
        """What proves what it holds."""
        return Described(pin(self.bucket, self.key, self.version_id, self.etag), self.head)


def pin(bucket: str, key: str, version_id: str | None, etag: str) -> dict[str, Any]:
    """Return the arguments with which S3 can meet one version only."""
    where = {"Bucket": bucket, "Key": key, "IfMatch": f'"{etag}"'}
    return where if version_id is None else {**where, "VersionId": version_id}


def find_staged(s3: S3Client, arrival: Arrival) -> tuple[Staged, Place]:
    """Return the version that arrived and where it stands.

    Raises NotHere if it is gone, NotReadableYetError if S3 only does not find it yet.
    """
    where = {"Bucket": arrival.bucket, "Key": arrival.key}
    head = head_of(s3, where)
    if arrival.version_id is None:
        if head is None:
            _require_unlisted(s3, arrival.bucket, arrival.key)
            raise NotHere(MISSING, "there is no such object in staging")
        if arrival.etag is not None and etag_of(head) != arrival.etag:
            raise NotHere(SUPERSEDED, _REPLACED)
        return _staged(arrival, head), Place()
    if head is not None and head.get("VersionId") == arrival.version_id:
        return _staged(arrival, head), Place()
    pinned = head_of(s3, {**where, "VersionId": arrival.version_id})
    if head is not None and pinned is not None:
        return _staged(arrival, pinned), Place(is_replaced=True)
    # Neither 404 is a proof that it is gone or hidden. The listing is.
    place = _listed_place(s3, arrival.bucket, arrival.key, arrival.version_id)
    if place is None:
        raise NotHere(MISSING, "this version is no longer in staging", is_for_good=True)
    if pinned is None:
        raise NotReadableYetError(_UNREADABLE)
    return _staged(arrival, pinned), place


_UNREADABLE = (
    "S3 lists this version in staging and answers 404 for it, as it can for some minutes after "
    "versioning was first enabled on a bucket. The file is kept, and tried again."
)
_REPLACED = "it was replaced in staging by another upload"


def find_place(s3: S3Client, staged: Staged) -> Place:
    """Return where a version stands by now; raise NotHere if it is gone."""
    if staged.version_id is None:
        head = head_of(s3, {"Bucket": staged.bucket, "Key": staged.key})
        if head is None:
            _require_unlisted(s3, staged.bucket, staged.key)
            raise NotHere(MISSING, "it was deleted from staging while it was processed")
        if etag_of(head) != staged.etag:
            raise NotHere(SUPERSEDED, _REPLACED)
        return Place()
    head = head_of(s3, {"Bucket": staged.bucket, "Key": staged.key})
    if head is not None and head.get("VersionId") == staged.version_id:
        return Place()
    return list_place(s3, staged)


def list_place(s3: S3Client, staged: Staged) -> Place:
    """Return where a version stands by now, and what is under it; raise NotHere if it is gone."""
    assert staged.version_id is not None
    place = _listed_place(s3, staged.bucket, staged.key, staged.version_id)
    if place is not None:
        return place
    head = head_of(s3, {"Bucket": staged.bucket, "Key": staged.key})
    if head is not None and head.get("VersionId") == staged.version_id:
        return Place()  # a listing that garbles the key: some servers do, with control characters
    raise NotHere(MISSING, "this version was deleted from staging while it was processed")


def _listed_place(s3: S3Client, bucket: str, key: str, version_id: str) -> Place | None:
    versions = iter_versions(s3, bucket, key)
    is_replaced = False
    for version in versions:
        if version["VersionId"] == version_id:
            return Place(
                is_replaced=is_replaced,
                is_hidden=not is_replaced and not version["IsLatest"],
                has_older=next(versions, None) is not None,
            )
        is_replaced = True
    return None


def _require_unlisted(s3: S3Client, bucket: str, key: str) -> None:
    newest = next(iter_versions(s3, bucket, key), None)
    if newest is not None and newest["IsLatest"]:
        raise NotReadableYetError(_UNREADABLE)


def require_wanted(arrival: Arrival, staged: Staged, place: Place, seen: Archived | None) -> None:
    """Raise NotHere unless the version is the latest upload of its key."""
    if place.is_replaced:
        raise NotHere(SUPERSEDED, _REPLACED)
    if seen and seen.origin and _is_damaged(staged, seen):
        raise NotHere(
            SUPERSEDED,
            "it was brought back from the archive and has other bytes than what the archive holds "
            "of the same upload: one of the two was damaged when S3 copied it; compare both with "
            "the file that was uploaded",
        )
    if seen and seen.origin and not _is_later(arrival, staged, seen, seen.origin):
        raise NotHere(
            SUPERSEDED,
            "the archive holds a later upload of this key, or one that cannot be told from a "
            "later one: to have this one processed nevertheless, upload it again",
        )
    if place.is_hidden and not (seen and seen.origin):
        # A marker of ours comes after archiving (see delete_staged) and its condition is an ETag:
        # an upload of the same bytes in that instant is covered by it, though nobody deleted it.
        # So where something of this key is archived, the marker does not count.
        raise NotHere(MISSING, "it was deleted: this version is under a delete marker")


def _is_later(arrival: Arrival, staged: Staged, seen: Archived, origin: Origin) -> bool:
    """Whether the version is a later upload than the archived one, as far as can be known.

    In doubt it is not, and it stays in staging where it can be seen.
    """
    if origin.bucket != arrival.bucket or is_named(origin, identity_of(arrival, staged)):
        return True
    brought = origin_of(staged.head)
    if brought is not None and brought.bucket == origin.bucket:
        # A copy that was brought back from the archive is as old as what it was made of: what was
        # uploaded meanwhile, and archived before the copy arrived, is newer than its bytes.
        if brought == origin:
            return True
        if not _came_after(brought, origin):
            return False
    if origin.sequencer is not None and arrival.sequencer is not None:
        return is_after(arrival.sequencer, origin.sequencer)
    # A wake-up event has no sequencer. S3's time of a multipart upload is when it was begun, and
    # what came of it can be later: by the time it was archived at the latest.
    latest = format_time(seen.head["LastModified"]) if "-" in origin.etag else origin.staged_at
    return format_time(staged.last_modified_at) > latest


def _is_damaged(staged: Staged, seen: Archived) -> bool:
    """Whether a copy that was brought back differs from what is archived of the same upload.

    It was made of an archived object that was not proven yet, and was made good meanwhile.
    """
    return (
        origin_of(staged.head) == seen.origin
        and compare(content_of(staged.head), content_of(seen.head)) is Likeness.DIFFERENT
    )


def _came_after(one: Origin, other: Origin) -> bool:
    if one.sequencer is not None and other.sequencer is not None:
        return is_after(one.sequencer, other.sequencer)
    return one.staged_at > other.staged_at


def find_archived(s3: S3Client, bucket: str, key: str) -> Archived | None:
    """Return the archive's current object of the key, None if there is none."""
    head = head_of(s3, {"Bucket": bucket, "Key": key})
    if head is None:
        return None
    return archived_as(bucket, key, head)


def archived_as(bucket: str, key: str, head: Mapping[str, Any]) -> Archived:
    """Return an archived version from what a HEAD said of it."""
    return Archived(bucket, key, version_id_of(head), etag_of(head), origin_of(head), head)


def origin_of(head: Mapping[str, Any]) -> Origin | None:
    """Return what the note in an object's metadata says, None without one."""
    return read_origin(head["Metadata"].get(ORIGIN))


def identity_of(arrival: Arrival, staged: Staged | None) -> StagedVersion:
    """Return what tells the version that arrived from other uploads of its key."""
    return StagedVersion(
        arrival.bucket,
        arrival.version_id,
        arrival.etag,
        arrival.sequencer,
        None if staged is None else format_time(staged.last_modified_at),
    )


def is_archived(s3: S3Client, arrival: Arrival, staged: Staged, seen: Archived) -> bool:
    """Whether the archive's current object is a whole copy of exactly the staged version."""

    def likeness() -> Likeness:
        is_like = is_equal(s3, staged.described, seen.described)
        return Likeness.EQUAL if is_like else Likeness.DIFFERENT

    # Without a note nothing can be proven, whatever comparing the bytes would cost.
    if seen.origin is None:
        return False
    return judge_copy(seen.origin, identity_of(arrival, staged), likeness) is Copy.PROVEN


def _staged(arrival: Arrival, head: Mapping[str, Any]) -> Staged:
    return Staged(
        bucket=arrival.bucket,
        key=arrival.key,
        version_id=arrival.version_id,
        etag=etag_of(head),
        size_bytes=int(head["ContentLength"]),
        last_modified_at=head["LastModified"],
        head=head,
    )


def head_of(s3: S3Client, where: dict[str, Any]) -> Mapping[str, Any] | None:
    """Return what S3 says of an object or version, None if there is none.

    Raises ClosedError when S3 refuses this one object, PermissionError when it does not say why.
    """
    try:
        return s3.head_object(**where, ChecksumMode="ENABLED")
    except Exception as error:
        if code_of(error) in _ABSENT:
            return None
        if code_of(error) not in _REFUSED:
            raise
        refusal = ask_why(s3, where)
        if refusal is None:
            raise
        # Of an id that S3 never gave out it says so.
        if code_of(refusal) in _ABSENT or code_of(refusal) == "InvalidArgument":
            return None
        reason = reason_of_error(refusal)
        if reason is not None:
            raise ClosedError(where["Bucket"], where["Key"], reason) from refusal
        if code_of(refusal) in ("403", "AccessDenied"):
            # S3 answers 403 instead of 404 to whoever may not list the bucket.
            raise PermissionError(
                f"S3 refuses to describe {where['Key']!r} in {where['Bucket']}: either the "
                "function's role lacks s3:GetObject or s3:GetObjectVersion there (or the bucket is "
                "Requester Pays, and another account's), or the object is gone and the role lacks "
                f"s3:ListBucket. S3 says: {refusal}"
            ) from refusal
        raise refusal from error


# 405: the version id names a delete marker.
_ABSENT = ("404", "NoSuchKey", "NoSuchVersion", "405", "MethodNotAllowed")
_REFUSED = ("400", "403", "AccessDenied", "InvalidArgument")


def version_id_of(response: Mapping[str, Any]) -> str | None:
    """Return the version id in an answer, None where the bucket keeps no versions."""
    # "null" is what a bucket with suspended versioning says: there it pins nothing.
    version_id = response.get("VersionId")
    return None if version_id in (None, "null") else str(version_id)


def iter_versions(s3: S3Client, bucket: str, key: str) -> Iterator[Mapping[str, Any]]:
    """Yield the versions of exactly this key, newest first, delete markers left out."""
    where: dict[str, Any] = {"Bucket": bucket, "Prefix": key}
    while True:
        page = s3.list_object_versions(**where)
        for version in page.get("Versions", ()):
            if version["Key"] != key:
                return
            yield version
        if not page.get("IsTruncated") or page.get("NextKeyMarker") != key:
            return
        where["KeyMarker"] = page["NextKeyMarker"]
        where["VersionIdMarker"] = page["NextVersionIdMarker"]


def code_of(error: BaseException) -> str:
    """Return the error code of a failed AWS call, "" for any other exception."""
    response = getattr(error, "response", None)
    if not isinstance(response, dict):
        return ""
    return str(response.get("Error", {}).get("Code", ""))


def format_time(moment: datetime) -> str:
    """Return S3's time of an object, which has whole seconds, as records have it."""
    return moment.strftime("%Y-%m-%dT%H:%M:%SZ")
