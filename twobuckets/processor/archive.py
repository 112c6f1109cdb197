"""Moving one exact version from staging to the archive, whatever happens around it.

The order is the safety: look, process, look again, copy under conditions, verify, and only then
delete exactly what was copied. A crash between any two calls leaves the version in staging, in the
archive, or in both, and the next try recognises where it was.
"""

from __future__ import annotations

from itertools import islice
from typing import TYPE_CHECKING, Any, NamedTuple

from twobuckets.processor.annotations import require_no_annotations
from twobuckets.processor.comparing import Likeness, compare, content_of
from twobuckets.processor.contract import ORIGIN, Origin
from twobuckets.processor.copies import is_after, is_named
from twobuckets.processor.copying import (
    Destination,
    can_restate,
    copy_version,
    has_condition,
    is_of_parts,
)
from twobuckets.processor.looking import (
    Archived,
    NotHere,
    Place,
    Staged,
    archived_as,
    code_of,
    find_archived,
    find_place,
    find_staged,
    format_time,
    head_of,
    identity_of,
    is_archived,
    iter_versions,
    list_place,
    origin_of,
    require_wanted,
)
from twobuckets.processor.proving import is_equal
from twobuckets.processor.refusals import reason_of_error
from twobuckets.processor.stream import etag_of

if TYPE_CHECKING:
    from collections.abc import Mapping

    from mypy_boto3_s3 import S3Client

    from twobuckets.processor.events import Arrival

_TRIES = 8


class ArchiveMismatchError(Exception):
    """The archived copy is not equal to the staged version; the staged one is kept."""


class ContendedError(Exception):
    """Others kept changing the same key; the version is kept in staging."""


class Placed(NamedTuple):
    """The id of an archived version, and why the staged one stays nevertheless, None if it went."""

    version_id: str | None
    stays: str | None


def archive(
    s3: S3Client,
    arrival: Arrival,
    staged: Staged,
    destination: Destination,
    seen: Archived | None,
) -> Placed:
    """Copy the processed version to the archive, verify it and delete it from staging.

    Raise NotHere, with nothing archived and nothing
    deleted, if the version was replaced or deleted since it was found; ArchiveMismatchError or
    ContendedError, with nothing deleted, if the archive does not hold what it should.
    """
    for _ in range(_TRIES):
        place = find_place(s3, staged)
        if place.is_hidden:
            seen = find_archived(s3, destination.bucket, staged.key)
        if not (seen and is_archived(s3, arrival, staged, seen)):
            require_wanted(arrival, staged, place, seen)
        try:
            copy = _ensure_archived(s3, arrival, staged, destination, seen)
            break
        except Exception as error:
            if code_of(error) not in _LOST_RACE:
                raise
        # Source or destination has changed meanwhile: look at both again, and decide again.
        seen = find_archived(s3, destination.bucket, staged.key)
    else:
        raise ContendedError(
            f"the archive's object of this key changed {_TRIES} times while this one was copied"
        )
    # An upload of the same bytes that a marker covers is processed all the same where the archive's
    # copy has a note, and taken for deleted where it has none: there is no marker without need.
    stays = delete_staged(
        s3, staged, place, lists=not copy.is_noted, in_parts=is_of_parts(copy.etag)
    )
    return Placed(copy.version_id, stays)


def finish(
    s3: S3Client, arrival: Arrival, destination: Destination, seen: Archived, *, is_gone: bool
) -> bool:
    """Whether the version that arrived is archived; deletes what staging has left of it.

    `is_gone` says that this is nothing.
    """
    if seen.origin is None or not is_named(seen.origin, identity_of(arrival, None)):
        return False
    if is_gone:
        return True
    try:
        staged, _ = find_staged(s3, arrival)
    except NotHere:
        return True  # nothing is left of it
    if not is_archived(s3, arrival, staged, seen):
        return False
    try:
        archive(s3, arrival, staged, destination, seen)
    except NotHere:
        # Something newer took its place in the archive, where it lies under that.
        if staged.version_id is not None:
            in_parts = is_of_parts(seen.etag)
            delete_staged(s3, staged, Place(is_replaced=True), lists=False, in_parts=in_parts)
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


class _Copy(NamedTuple):
    """An archived copy; `is_noted` tells whether it has a note of what it was copied from."""

    version_id: str | None
    etag: str
    is_noted: bool


def _ensure_archived(
    s3: S3Client,
    arrival: Arrival,
    staged: Staged,
    destination: Destination,
    seen: Archived | None,
) -> _Copy:
    if seen and is_archived(s3, arrival, staged, seen):
        if seen.version_id is not None:
            _keep_newest_on_top(s3, destination, staged.key, above=None)
        return _Copy(seen.version_id, seen.etag, is_noted=True)
    origin = Origin(
        bucket=staged.bucket,
        version_id=staged.version_id,
        etag=staged.etag,
        sequencer=arrival.sequencer,
        staged_at=format_time(staged.last_modified_at),
    )
    is_noted = can_restate(staged)
    recorded = {**staged.metadata, ORIGIN: origin.note()} if is_noted else None
    try:
        copied = copy_version(s3, staged, destination, recorded, seen)
    except Exception as error:
        if code_of(error) != "MetadataTooLarge":
            raise
        # The uploader's own metadata leaves no room for the record; keeping theirs comes first.
        is_noted = False
        copied = copy_version(s3, staged, destination, staged.metadata, seen)
    version_id = copied.version_id
    # What S3 answers to a copy describes what it has stored; a HEAD would say the same once more.
    if compare(content_of(staged.head), copied.content) is not Likeness.EQUAL:
        _require_equal(s3, staged, destination, version_id)
    if version_id is not None and (seen or not has_condition(s3)):
        above = seen.version_id if seen else None
        _keep_newest_on_top(s3, destination, staged.key, above=above)
    return _Copy(version_id, copied.content.etag, is_noted)


def _require_equal(
    s3: S3Client, staged: Staged, destination: Destination, version_id: str | None
) -> None:
    where = {"Bucket": destination.bucket, "Key": staged.key}
    if version_id is not None:
        where["VersionId"] = version_id
    head = head_of(s3, where)
    copy = head and archived_as(destination.bucket, staged.key, head)
    if head is None or not copy or not is_equal(s3, staged.described, copy.described):
        found = "the copy is gone" if head is None else f"it has {_shown(head)}"
        raise ArchiveMismatchError(
            "the copy in the archive is not equal to the staged version, which is kept: "
            f"{_shown(staged.head)} expected, {found}"
        )


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
        listed = [
            version["VersionId"]
            for version in islice(iter_versions(s3, destination.bucket, key), _DEEPEST_LOOK)
        ]
        if above in listed:
            listed = listed[: listed.index(above)]
        if len(listed) < 2:
            return
        for version_id in listed:
            found = _archived_version(s3, destination.bucket, key, version_id)
            top = top or found
            if found and (newest is None or _came_after(found, newest)):
                newest = found
        if top is None or newest is None or newest is top:
            return
        covering = Archived(top.bucket, key, top.version_id, top.etag, None, top.head)
        try:
            copy_version(s3, newest, destination, newest.head["Metadata"], covering)
        except Exception as error:
            if code_of(error) not in _LOST_RACE:
                raise
    raise ContendedError("the archive's object of this key kept changing")


_DEEPEST_LOOK = 10


def _archived_version(s3: S3Client, bucket: str, key: str, version_id: str) -> Staged | None:
    head = head_of(s3, {"Bucket": bucket, "Key": key, "VersionId": version_id})
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
    a, b = origin_of(one.head), origin_of(other.head)
    if a is None or b is None or a.bucket != b.bucket:
        return False
    if a.sequencer is None or b.sequencer is None:
        return False
    return is_after(a.sequencer, b.sequencer)


def delete_staged(
    s3: S3Client, staged: Staged, place: Place, *, lists: bool, in_parts: bool
) -> str | None:
    """Delete exactly the archived version from staging; what was uploaded since stays.

    `in_parts` says that it was copied in parts, which takes long and leaves annotations behind.

    Return why S3 keeps this version although it is archived: a lock protects it, or MFA Delete.

    An older version under it was superseded by it and must not come to light again as if it were
    new: a delete marker goes on top first, and the bucket's rule for noncurrent versions clears up.
    A marker costs nothing, and a listing that tells whether there is an older version as much as
    a copy: only with `lists` is it asked for, and a marker put where it is needed.

    Raises ContendedError, with nothing deleted, if S3 puts no marker there, and AnnotatedError.
    """
    if in_parts:
        require_no_annotations(s3, staged)  # somebody may have annotated it while it was copied
    where = {"Bucket": staged.bucket, "Key": staged.key}
    is_pinned = staged.version_id is not None
    for number in range(_TRIES):
        # A marker's condition is an ETag, which a copy that was put back has as well: what was
        # seen before a copy that took minutes is too old to put one by.
        try:
            if is_pinned and lists:
                place = list_place(s3, staged)
            elif number > 0 or (is_pinned and in_parts):
                place = find_place(s3, staged)
        except NotHere:
            break
        # Something newer on top by now covers the older version as well, and gets no marker.
        if place.is_replaced or place.is_hidden or (lists and is_pinned and not place.has_older):
            break
        if _delete_if_current(s3, where, staged.etag):
            break
    else:
        raise ContendedError(
            f"the staged object of this key changed {_TRIES} times while it was to be deleted"
        )
    if staged.version_id is not None:
        # S3 holds conditions against the current version only; a version id is exact by itself.
        try:
            s3.delete_object(Bucket=staged.bucket, Key=staged.key, VersionId=staged.version_id)
        except Exception as error:
            # No try of Lambda's would change that.
            reason = reason_of_error(error)
            if reason is None:
                raise
            return f"archived, and kept in staging as well: {reason}"
    return None


def _delete_if_current(s3: S3Client, where: dict[str, Any], etag: str) -> bool:
    """Delete the key's current object if it has this ETag, and say whether it was done."""
    try:
        s3.delete_object(**where, IfMatch=f'"{etag}"')
    except Exception as error:
        if code_of(error) not in _LOST_RACE:
            raise
        return False
    return True
