"""Moving one exact version from staging to the archive, whatever happens around it.

The order is the safety: look, process, look again, copy under conditions, verify, and only then
delete exactly what was copied. A crash between any two calls leaves the version in staging, in the
archive, or in both, and the next try recognises where it was.

Where versions are ordered: S3's own version stack tells whether a staged version was replaced, and
an origin record in the archived object's metadata (`twobuckets-origin`) tells which version it came
from, so that an older one that comes late never becomes the archive's current one.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import TYPE_CHECKING, Any
from urllib.parse import urlencode

from twobuckets.processor.stream import etag_of, is_md5

if TYPE_CHECKING:
    from mypy_boto3_s3 import S3Client
    from mypy_boto3_s3.type_defs import CompletedPartTypeDef

    from twobuckets.processor.events import Arrival

ORIGIN = "twobuckets-origin"
LARGEST_COPY_BYTES = 5 * 1024**3  # CopyObject's limit; above it only UploadPartCopy works
_PART_BYTES = 256 * 1024**2
_LARGEST_PARTS = 10_000
_TRIES = 8
# What CopyObject and CreateMultipartUpload have to be told again once metadata is replaced.
_KEPT = (
    "CacheControl",
    "ContentDisposition",
    "ContentEncoding",
    "ContentLanguage",
    "ContentType",
    "Expires",
    "WebsiteRedirectLocation",
)


class NotHere(Exception):
    """The version is not there to be processed: `outcome` is missing or superseded."""

    def __init__(self, outcome: str, reason: str) -> None:
        super().__init__(reason)
        self.outcome = outcome
        self.reason = reason


class ArchiveMismatchError(Exception):
    """The archived copy is not equal to the staged version; the staged one is kept."""


class ArchiveContendedError(Exception):
    """Others kept writing the same key to the archive; the version is kept in staging."""


@dataclass(frozen=True, slots=True)
class Origin:
    """Which staged version an archived object was copied from."""

    bucket: str
    version_id: str | None
    etag: str
    sequencer: str | None
    staged_at: str

    def metadata_value(self) -> str:
        """Return the record as it stands in the archived object's metadata."""
        return json.dumps(
            {
                "bucket": self.bucket,
                "version_id": self.version_id,
                "etag": self.etag,
                "sequencer": self.sequencer,
                "staged_at": self.staged_at,
            },
            separators=(",", ":"),
        )


def parse_origin(metadata: Mapping[str, str]) -> Origin | None:
    """Return the origin record in an archived object's metadata, or None if there is none."""
    try:
        fields = json.loads(metadata[ORIGIN])
        return Origin(
            bucket=fields["bucket"],
            version_id=fields["version_id"],
            etag=fields["etag"],
            sequencer=fields["sequencer"],
            staged_at=fields["staged_at"],
        )
    except (KeyError, TypeError, ValueError):
        return None


@dataclass(frozen=True, slots=True)
class Place:
    """Where a version stands in its key's stack in staging."""

    is_replaced: bool = False
    is_hidden: bool = False  # under a delete marker, with no newer version
    has_older: bool = False


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
        pin: dict[str, Any] = {"Bucket": self.bucket, "Key": self.key, "IfMatch": f'"{self.etag}"'}
        if self.version_id is not None:
            pin["VersionId"] = self.version_id
        return pin

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

    version_id: str | None
    etag: str
    origin: Origin | None
    head: Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class Destination:
    """The archive bucket and how objects are stored there."""

    bucket: str
    storage_class: str | None = None
    part_concurrency: int = 8


# --- looking -------------------------------------------------------------------------------------


def find_staged(s3: S3Client, arrival: Arrival) -> tuple[Staged, Place]:
    """Return the version that arrived and where it stands; raise NotHere if it is gone."""
    where = {"Bucket": arrival.bucket, "Key": arrival.key}
    head = _head(s3, where)
    if arrival.version_id is None:
        if head is None:
            raise NotHere("missing", "there is no such object in staging")
        if arrival.etag is not None and etag_of(head) != arrival.etag:
            raise NotHere("superseded", _REPLACED)
        return _staged(arrival, head), Place()
    if head is not None and head.get("VersionId") == arrival.version_id:
        return _staged(arrival, head), Place()
    pinned = _head(s3, {**where, "VersionId": arrival.version_id})
    if pinned is None:
        raise NotHere("missing", "this version is no longer in staging")
    return _staged(arrival, pinned), Place(is_replaced=head is not None, is_hidden=head is None)


_REPLACED = "it was replaced in staging by another upload"


def find_place(s3: S3Client, staged: Staged) -> Place:
    """Return where a version stands by now; raise NotHere if it is gone."""
    if staged.version_id is None:
        head = _head(s3, {"Bucket": staged.bucket, "Key": staged.key})
        if head is None:
            raise NotHere("missing", "it was deleted from staging while it was processed")
        if etag_of(head) != staged.etag:
            raise NotHere("superseded", _REPLACED)
        return Place()
    versions = _iter_versions(s3, staged.bucket, staged.key)
    is_replaced = False
    for version in versions:
        if version["VersionId"] == staged.version_id:
            return Place(
                is_replaced=is_replaced,
                is_hidden=not is_replaced and not version["IsLatest"],
                has_older=next(versions, None) is not None,
            )
        is_replaced = True
    head = _head(s3, {"Bucket": staged.bucket, "Key": staged.key})
    if head is not None and head.get("VersionId") == staged.version_id:
        return Place()  # a listing that garbles the key: some servers do, with control characters
    raise NotHere("missing", "this version was deleted from staging while it was processed")


def require_wanted(arrival: Arrival, staged: Staged, place: Place, seen: Archived | None) -> None:
    """Raise NotHere unless the version is the latest upload of its key."""
    if place.is_replaced:
        raise NotHere("superseded", _REPLACED)
    if seen and seen.origin and not _is_later(arrival, staged, seen, seen.origin):
        raise NotHere(
            "superseded",
            "the archive holds a later upload of this key, or one that cannot be told from a "
            "later one: to have this one processed nevertheless, upload it again",
        )
    if place.is_hidden and not (seen and seen.origin):
        # A marker of ours comes after archiving (see delete_staged) and its condition is an ETag:
        # an upload of the same bytes in that instant is covered by it, though nobody deleted it.
        # So where something of this key is archived, the marker does not count.
        raise NotHere("missing", "it was deleted: this version is under a delete marker")


def _is_later(arrival: Arrival, staged: Staged, seen: Archived, origin: Origin) -> bool:
    """Whether the version is a later upload than the archived one, as far as can be known.

    In doubt it is not, and it stays in staging where it can be seen.
    """
    if origin.bucket != arrival.bucket or is_same(arrival, origin, staged):
        return True
    if origin.sequencer is not None and arrival.sequencer is not None:
        return _is_after(arrival.sequencer, origin.sequencer)
    # A wake-up event has no sequencer. S3's time of a multipart upload is when it was begun, and
    # what came of it can be later: by the time it was archived at the latest.
    latest = _iso(seen.head["LastModified"]) if "-" in origin.etag else origin.staged_at
    return _iso(staged.last_modified_at) > latest


def _is_after(sequencer: str, other: str) -> bool:
    return _padded(sequencer, other) > _padded(other, sequencer)


def find_archived(s3: S3Client, bucket: str, key: str) -> Archived | None:
    """Return the archive's current object of the key, None if there is none."""
    head = _head(s3, {"Bucket": bucket, "Key": key})
    if head is None:
        return None
    return Archived(_version_id(head), etag_of(head), parse_origin(head["Metadata"]), head)


def is_same(arrival: Arrival, origin: Origin | None, staged: Staged | None) -> bool:
    """Whether the archived object is a copy of exactly the version that arrived.

    Without versions two uploads of the same bytes are told apart by sequencer, else by time.
    """
    if origin is None or origin.bucket != arrival.bucket:
        return False
    if arrival.version_id is not None or origin.version_id is not None:
        return origin.version_id == arrival.version_id
    if arrival.etag is not None and origin.etag != arrival.etag:
        return False
    if origin.sequencer is not None and arrival.sequencer is not None:
        return _padded(origin.sequencer, arrival.sequencer) == _padded(
            arrival.sequencer, origin.sequencer
        )
    return staged is not None and origin.staged_at == _iso(staged.last_modified_at)


def is_archived(arrival: Arrival, staged: Staged, seen: Archived) -> bool:
    """Whether the archive's current object is a whole copy of exactly the staged version."""
    return is_same(arrival, seen.origin, staged) and is_equal(staged.head, seen.head)


def _padded(sequencer: str, other: str) -> str:
    # AWS's rule: pad the shorter one with zeros on the right, then compare as text.
    return sequencer.upper().ljust(max(len(sequencer), len(other)), "0")


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


def _head(s3: S3Client, where: dict[str, Any]) -> Mapping[str, Any] | None:
    try:
        return s3.head_object(**where, ChecksumMode="ENABLED")
    except Exception as error:
        # 405: the version id names a delete marker. 400: it names nothing that S3 ever gave out.
        if code_of(error) in ("404", "NoSuchKey", "NoSuchVersion", "405", "MethodNotAllowed"):
            return None
        if code_of(error) in ("400", "InvalidArgument") and "VersionId" in where:
            return None
        if code_of(error) in ("403", "AccessDenied"):
            # S3 answers 403 instead of 404 to whoever may not list the bucket.
            raise PermissionError(
                f"S3 refuses to describe {where['Key']!r} in {where['Bucket']}: either the "
                "function's role lacks s3:GetObject or s3:GetObjectVersion there (or the key to "
                "decrypt it), or the object is gone and the role lacks s3:ListBucket"
            ) from error
        raise


def _version_id(response: Mapping[str, Any]) -> str | None:
    # "null" is what a bucket with suspended versioning says: there it pins nothing.
    version_id = response.get("VersionId")
    return None if version_id in (None, "null") else str(version_id)


def code_of(error: BaseException) -> str:
    """Return the error code of a failed AWS call, "" for any other exception."""
    response = getattr(error, "response", None)
    if not isinstance(response, dict):
        return ""
    return str(response.get("Error", {}).get("Code", ""))


def _iso(moment: datetime) -> str:
    return moment.strftime("%Y-%m-%dT%H:%M:%SZ")


# --- moving --------------------------------------------------------------------------------------


def archive(
    s3: S3Client,
    arrival: Arrival,
    staged: Staged,
    destination: Destination,
    seen: Archived | None,
) -> str | None:
    """Copy the processed version to the archive, verify it and delete it from staging.

    Return the archived object's version id. Raise NotHere, with nothing archived and nothing
    deleted, if the version was replaced or deleted since it was found; ArchiveMismatchError or
    ArchiveContendedError, with nothing deleted, if the archive does not hold what it should.
    """
    for _ in range(_TRIES):
        place = find_place(s3, staged)
        if place.is_hidden:
            seen = find_archived(s3, destination.bucket, staged.key)
        if not (seen and is_archived(arrival, staged, seen)):
            require_wanted(arrival, staged, place, seen)
        try:
            version_id = _ensure_archived(s3, arrival, staged, destination, seen)
            break
        except Exception as error:
            if code_of(error) not in _LOST_RACE:
                raise
        # Source or destination has changed meanwhile: look at both again, and decide again.
        seen = find_archived(s3, destination.bucket, staged.key)
    else:
        raise ArchiveContendedError(
            f"the archive's object of this key changed {_TRIES} times while this one was copied"
        )
    delete_staged(s3, staged, place)
    return version_id


def finish(s3: S3Client, arrival: Arrival, destination: Destination, seen: Archived) -> bool:
    """Whether the version that arrived is archived; deletes what staging has left of it."""
    if not is_same(arrival, seen.origin, None):
        return False
    try:
        staged, _ = find_staged(s3, arrival)
    except NotHere:
        return True  # nothing is left of it
    if not is_archived(arrival, staged, seen):
        return False
    try:
        archive(s3, arrival, staged, destination, seen)
    except NotHere:
        # Something newer took its place in the archive, where it lies under that.
        if staged.version_id is not None:
            delete_staged(s3, staged, Place(is_replaced=True))
    return True


_LOST_RACE = (
    "PreconditionFailed",
    "412",
    "ConditionalRequestConflict",
    "OperationAborted",
    "409",
    "NoSuchKey",
    "NoSuchVersion",
    "404",
)


def _iter_versions(s3: S3Client, bucket: str, key: str) -> Iterator[Mapping[str, Any]]:
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


def _ensure_archived(
    s3: S3Client,
    arrival: Arrival,
    staged: Staged,
    destination: Destination,
    seen: Archived | None,
) -> str | None:
    if seen and is_archived(arrival, staged, seen):
        if seen.version_id is not None:
            _keep_newest_on_top(s3, destination, staged.key, above=None)
        return seen.version_id
    origin = Origin(
        bucket=staged.bucket,
        version_id=staged.version_id,
        etag=staged.etag,
        sequencer=arrival.sequencer,
        staged_at=_iso(staged.last_modified_at),
    )
    recorded = {**staged.metadata, ORIGIN: origin.metadata_value()}
    try:
        if _can_be_said_again(staged):
            version_id = _copy(s3, staged, destination, recorded, seen)
        else:
            version_id = _copy(s3, staged, destination, None, seen)
    except Exception as error:
        if code_of(error) != "MetadataTooLarge":
            raise
        # The uploader's own metadata leaves no room for the record; keeping theirs comes first.
        version_id = _copy(s3, staged, destination, staged.metadata, seen)
    _require_equal(s3, staged, destination, version_id)
    if version_id is not None and (seen or not _has_condition(s3)):
        above = seen.version_id if seen else None
        _keep_newest_on_top(s3, destination, staged.key, above=above)
    return version_id


def _can_be_said_again(staged: Staged) -> bool:
    """Whether the object's headers can be given to CopyObject anew, with the record among them.

    What is not ASCII cannot be signed as it came, and S3 only counts metadata that no header can
    carry (`MissingMeta`): such an object is copied with what it has, and gets no record. An origin
    record that came with it must not pass for ours, and is worth dropping the rest.
    """
    if ORIGIN in staged.head["Metadata"]:
        return True
    kept = (staged.head.get(name, "") for name in _KEPT)
    texts = [*staged.metadata.values(), *(text for text in kept if isinstance(text, str))]
    return all(text.isascii() for text in texts) and not staged.head.get("MissingMeta")


def _copy(
    s3: S3Client,
    source: Staged,
    destination: Destination,
    metadata: Mapping[str, str] | None,
    seen: Archived | None,
) -> str | None:
    """Copy under both conditions: the source is the pinned version, the destination is as seen.

    Without metadata the source's headers and metadata are copied by S3 itself.
    """
    written = _headers(source, metadata)
    if destination.storage_class:
        written["StorageClass"] = destination.storage_class
    unchanged: dict[str, Any] = {"IfMatch": f'"{seen.etag}"'} if seen else {"IfNoneMatch": "*"}
    where: dict[str, Any] = {"Bucket": destination.bucket, "Key": source.key}
    if source.size_bytes > LARGEST_COPY_BYTES:
        return _copy_in_parts(s3, source, destination, where, written, unchanged)
    if not _has_condition(s3):
        unchanged = {}
    if metadata is None:
        written = {"StorageClass": written["StorageClass"]} if "StorageClass" in written else {}
        written["MetadataDirective"] = "COPY"
    else:
        written["MetadataDirective"] = "REPLACE"
    copied = s3.copy_object(**where, **source.copy_source, **written, **unchanged)
    return _version_id(copied)


def _headers(source: Staged, metadata: Mapping[str, str] | None) -> dict[str, Any]:
    # What is not ASCII is left out where S3 cannot copy it itself: above the limit of CopyObject.
    headers: dict[str, Any] = {name: source.head[name] for name in _KEPT if source.head.get(name)}
    texts = source.metadata if metadata is None else metadata
    headers["Metadata"] = {name: text for name, text in texts.items() if text.isascii()}
    return {
        name: value
        for name, value in headers.items()
        if not isinstance(value, str) or value.isascii()
    }


def _has_condition(s3: S3Client) -> bool:
    """Whether this boto3 knows CopyObject's conditions on the destination (since October 2025)."""
    shape = s3.meta.service_model.operation_model("CopyObject").input_shape
    return "IfNoneMatch" in getattr(shape, "members", ())


def _copy_in_parts(
    s3: S3Client,
    source: Staged,
    destination: Destination,
    where: dict[str, Any],
    written: dict[str, Any],
    unchanged: dict[str, Any],
) -> str | None:
    pinned: dict[str, Any] = {"Bucket": source.bucket, "Key": source.key}
    if source.version_id is not None:
        pinned["VersionId"] = source.version_id
    tags = s3.get_object_tagging(**pinned)["TagSet"]
    if tags:
        written = {**written, "Tagging": urlencode([(tag["Key"], tag["Value"]) for tag in tags])}
    algorithm, checksum = _whole_checksum(source.head)
    upload = s3.create_multipart_upload(
        **where, **written, ChecksumAlgorithm=algorithm, ChecksumType="FULL_OBJECT"
    )
    where = {**where, "UploadId": upload["UploadId"]}
    try:
        parts = _copy_parts(s3, source, where, destination.part_concurrency)
        given: dict[str, Any] = {f"Checksum{algorithm}": checksum} if checksum else {}
        completed = s3.complete_multipart_upload(
            **where,
            **given,
            **unchanged,
            MultipartUpload={"Parts": parts},
            ChecksumType="FULL_OBJECT",
            MpuObjectSize=source.size_bytes,
        )
    except BaseException:
        s3.abort_multipart_upload(**where)
        raise
    return _version_id(completed)


def _copy_parts(
    s3: S3Client, source: Staged, where: dict[str, Any], concurrency: int
) -> list[CompletedPartTypeDef]:
    from concurrent.futures import ThreadPoolExecutor

    part_bytes = max(_PART_BYTES, -(-source.size_bytes // _LARGEST_PARTS))

    def copy_part(number: int) -> CompletedPartTypeDef:
        first = (number - 1) * part_bytes
        last = min(source.size_bytes, first + part_bytes) - 1
        copied: Any = s3.upload_part_copy(
            **where,
            **source.copy_source,
            PartNumber=number,
            CopySourceRange=f"bytes={first}-{last}",
        )["CopyPartResult"]
        part: Any = {name: text for name, text in copied.items() if name.startswith("Checksum")}
        part |= {"PartNumber": number, "ETag": copied["ETag"]}
        return part  # type: ignore[no-any-return]

    count = -(-source.size_bytes // part_bytes)
    # Leaving the block waits for parts in flight, so that none lands after an abort.
    with ThreadPoolExecutor(min(concurrency, count), thread_name_prefix="twobuckets-copy") as pool:
        futures = [pool.submit(copy_part, number) for number in range(1, count + 1)]
        try:
            return [future.result() for future in futures]
        except BaseException:
            pool.shutdown(wait=False, cancel_futures=True)
            raise


def _whole_checksum(head: Mapping[str, Any]) -> tuple[Any, str | None]:
    """Return the algorithm for a multipart copy and, if S3 keeps it of the source, its value."""
    if head.get("ChecksumType") == "FULL_OBJECT":
        for algorithm in ("CRC64NVME", "CRC32", "CRC32C"):
            if head.get(f"Checksum{algorithm}"):
                return algorithm, str(head[f"Checksum{algorithm}"])
    return "CRC64NVME", None


def _require_equal(
    s3: S3Client, staged: Staged, destination: Destination, version_id: str | None
) -> None:
    where = {"Bucket": destination.bucket, "Key": staged.key}
    if version_id is not None:
        where["VersionId"] = version_id
    head = _head(s3, where)
    if head is None or not is_equal(staged.head, head):
        found = "the copy is gone" if head is None else f"it has {_shown(head)}"
        raise ArchiveMismatchError(
            "the copy in the archive is not equal to the staged version, which is kept: "
            f"{_shown(staged.head)} expected, {found}"
        )


def is_equal(staged: Mapping[str, Any], archived: Mapping[str, Any]) -> bool:
    """Whether two HEADs describe the same content: size, and a checksum or MD5 that both have."""
    if staged["ContentLength"] != archived["ContentLength"]:
        return False
    if staged.get("ChecksumType") == archived.get("ChecksumType") == "FULL_OBJECT":
        for name in ("ChecksumCRC64NVME", "ChecksumCRC32", "ChecksumCRC32C", "ChecksumSHA256"):
            if staged.get(name) and archived.get(name):
                return bool(staged[name] == archived[name])
    if is_md5(staged) and is_md5(archived):
        return etag_of(staged) == etag_of(archived)
    return True


def _shown(head: Mapping[str, Any]) -> str:
    sums = [f"{name[8:]} {head[name]}" for name in sorted(head) if name.startswith("Checksum")]
    return ", ".join([f"{head['ContentLength']} bytes", f"ETag {etag_of(head)}", *sums])


def _keep_newest_on_top(
    s3: S3Client, destination: Destination, key: str, *, above: str | None
) -> None:
    """Put the latest upload back on top if an older one was copied over it in the archive.

    The destination's condition compares ETags, so it cannot tell a later upload of the same bytes
    from the object that was seen. Looks at the archived versions down to `above`, which was seen.
    """
    for _ in range(_TRIES):
        top: Staged | None = None
        newest: Staged | None = None
        for number, version in enumerate(_iter_versions(s3, destination.bucket, key)):
            if version["VersionId"] == above or number == _DEEPEST_LOOK:
                break
            found = _archived_version(s3, destination.bucket, key, version["VersionId"])
            top = top or found
            if found and (newest is None or _came_after(found, newest)):
                newest = found
        if top is None or newest is None or newest is top:
            return
        covering = Archived(top.version_id, top.etag, None, top.head)
        try:
            _copy(s3, newest, destination, newest.head["Metadata"], covering)
        except Exception as error:
            if code_of(error) not in _LOST_RACE:
                raise
    raise ArchiveContendedError("the archive's object of this key kept changing")


_DEEPEST_LOOK = 10


def _archived_version(s3: S3Client, bucket: str, key: str, version_id: str) -> Staged | None:
    head = _head(s3, {"Bucket": bucket, "Key": key, "VersionId": version_id})
    if head is None:
        return None
    return Staged(
        bucket=bucket,
        key=key,
        version_id=version_id,
        etag=etag_of(head),
        size_bytes=int(head["ContentLength"]),
        last_modified_at=head["LastModified"],
        head=head,
    )


def _came_after(one: Staged, other: Staged) -> bool:
    """Whether the first archived version surely came from a later upload than the second."""
    a, b = parse_origin(one.head["Metadata"]), parse_origin(other.head["Metadata"])
    if a is None or b is None or a.bucket != b.bucket:
        return False
    if a.sequencer is None or b.sequencer is None:
        return False
    return _is_after(a.sequencer, b.sequencer)


def delete_staged(s3: S3Client, staged: Staged, place: Place) -> None:
    """Delete exactly the archived version from staging; what was uploaded since stays.

    An older version under it was superseded by it and must not come to light again as if it were
    new: a delete marker goes on top first, and the bucket's rule for noncurrent versions clears up.
    """
    where = {"Bucket": staged.bucket, "Key": staged.key}
    if staged.version_id is None:
        _delete_if_current(s3, where, staged.etag)
        return
    if place.has_older and not place.is_replaced and not place.is_hidden:
        # Something newer on top by now covers the older version as well, and gets no marker.
        _delete_if_current(s3, where, staged.etag)
    # S3 holds conditions against the current version only; a version id is exact by itself.
    s3.delete_object(Bucket=staged.bucket, Key=staged.key, VersionId=staged.version_id)


def _delete_if_current(s3: S3Client, where: dict[str, Any], etag: str) -> None:
    try:
        s3.delete_object(**where, IfMatch=f'"{etag}"')
    except Exception as error:
        if code_of(error) not in _LOST_RACE:
            raise
