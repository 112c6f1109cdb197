"""One version of a key in one of a pipeline's two buckets: its record, and every way to read it.

A listing tells least of a version and a HEAD all; both come with requests that are signed here or
through boto3. Whether an archived version is a copy of a staged one is judged by the processor's
own rule (`processor.copies`), whoever asks.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from typing import TYPE_CHECKING, Any, Final

from twobuckets.errors import TwoBucketsError, UnreachableError
from twobuckets.processor.comparing import (
    ContentFacts,
    Likeness,
    compare,
    content_in_headers,
    content_of,
)
from twobuckets.processor.contract import ORIGIN, Origin, read_origin
from twobuckets.processor.copies import Copy, StagedVersion, judge_copy
from twobuckets.processor.refusals import reason_of_one
from twobuckets.s3.answers import AnswerError
from twobuckets.s3.engine import Response, SendError
from twobuckets.s3.operations import VERSIONS, read_etag
from twobuckets.s3.refusals import explain

if TYPE_CHECKING:
    from collections.abc import Mapping

    from twobuckets.s3.answers import ListedObject, ListedVersion
    from twobuckets.s3.engine import Request

NO_VERSION: Final = (None, "null")
"""Version ids that pin nothing: what was written without versions has no id of its own."""
FROZEN_CLASSES: Final = frozenset({"GLACIER", "DEEP_ARCHIVE"})
"""Storage classes whose objects can't be read before they are restored (S3 user guide, "Working
with archived objects"). GLACIER_IR can; in INTELLIGENT_TIERING it depends on the tier, which only
a HEAD tells."""
ORIGIN_HEADER: Final = f"x-amz-meta-{ORIGIN}"
_DESCRIBING_HEADERS: Final = frozenset(
    {"content-type", "content-encoding", "content-language", "content-disposition", "cache-control"}
)


@dataclass(frozen=True, slots=True)
class Version:
    """One version of a key, or a delete marker, as a listing or HEAD shows it.

    `etag` has no quotes; `version_id` is None where nothing is said of versions. Only a HEAD knows
    the rest: all of `content`, `described`, the headers that a copy keeps, and `origin`, the
    processor's note of where an archived object came from.
    """

    key: str
    version_id: str | None
    etag: str
    size_bytes: int
    modified_at: datetime
    storage_class: str = "STANDARD"
    is_restored: bool = False
    is_in_archive_tier: bool = False
    is_delete_marker: bool = False
    content: ContentFacts | None = None
    described: tuple[tuple[str, str], ...] = ()
    origin: Origin | None = None

    @property
    def is_frozen(self) -> bool:
        """Tell whether it has to be restored before it can be read."""
        in_archive = self.storage_class in FROZEN_CLASSES or self.is_in_archive_tier
        return in_archive and not self.is_restored

    def is_like(self, other: Version) -> Likeness:
        """Tell whether both hold the same bytes, as far as S3 tells."""
        return compare(self._content, other._content)

    def has_same(self, other: Version) -> bool:
        """Tell whether both provably hold the same bytes and are described in the same words."""
        return self.described == other.described and self.is_like(other) is Likeness.EQUAL

    def came_from(self, archived: Version) -> bool:
        """Tell whether a copy in staging was surely made of the archived version.

        It is not if it may be the file that the archived version was made of. That one is older,
        as far as S3's whole seconds tell, and has no note that names itself.
        """
        has_its_note = archived.origin is not None and self.origin == archived.origin
        return self.modified_at > archived.modified_at or has_its_note

    def copy_of(self, staged: Version, staging: str) -> Copy:
        """Tell how surely this archived version is a copy of one staged in a bucket."""
        version_id = None if staged.version_id in NO_VERSION else staged.version_id
        staged_at = staged.modified_at.strftime("%Y-%m-%dT%H:%M:%SZ")
        identity = StagedVersion(staging, version_id, staged.etag, None, staged_at)
        return judge_copy(self.origin, identity, lambda: self.is_like(staged))

    @property
    def _content(self) -> ContentFacts:
        return self.content or ContentFacts(self.size_bytes, self.etag, {})


def version_listed(row: ListedVersion | ListedObject) -> Version:
    """Return what a row of a listing tells of a version or delete marker."""
    return Version(
        row.key,
        getattr(row, "version_id", None),
        row.etag,
        row.size_bytes or 0,
        row.modified_at,
        row.storage_class,
        getattr(row, "is_restored", False),
        is_delete_marker=getattr(row, "is_delete_marker", False),
    )


def version_described(key: str, head: Mapping[str, Any]) -> Version:
    """Return what boto3's answer to a HEAD, with its checksums, tells of a version."""
    return Version(
        key=key,
        version_id=head.get("VersionId"),
        etag=str(head.get("ETag", "")).strip('"'),
        size_bytes=int(head["ContentLength"]),
        modified_at=head["LastModified"],
        storage_class=head.get("StorageClass", "STANDARD"),
        is_restored='ongoing-request="false"' in head.get("Restore", ""),
        is_in_archive_tier="ArchiveStatus" in head,
        content=content_of(head),
        origin=read_origin(head.get("Metadata", {}).get(ORIGIN)),
    )


class ClosedObjectError(TwoBucketsError):
    """S3 refuses this one object; `reason` says why, and the others may go on."""

    def __init__(self, where: str, reason: str) -> None:
        super().__init__(f"Could not look at {where}: {reason}")
        self.reason = reason


def require_found(request: Request, answer: Response | SendError) -> Version | None:
    """Return what a HEAD found, None for nothing.

    Raises ClosedObjectError for what is about this object alone, AccessError or TwoBucketsError for
    the rest; which it is, only an answer in words can tell (`conversation.in_words`).
    """
    where = f"s3://{request.bucket}/{request.key}"
    if isinstance(answer, SendError):
        raise UnreachableError(f"Could not look at {where}: {answer.cause}")
    # 405 is S3's answer to the HEAD of a delete marker by its version id, InvalidArgument to an id
    # that can be none.
    if answer.status in (404, 405) or (answer.code == "InvalidArgument" and request.query):
        return None
    if answer.status in (400, 401, 403):
        if reason := reason_of_one(answer.code, answer.message):
            raise ClosedObjectError(where, reason)
        raise explain(answer, "HeadObject", f"look at {where}")
    if not answer.ok:
        raise TwoBucketsError(f"Could not look at {where}: HTTP {answer.status}")
    headers = answer.headers
    return Version(
        key=request.key,
        version_id=headers.get("x-amz-version-id"),
        etag=read_etag(answer),
        size_bytes=int(headers.get("content-length", "0")),
        modified_at=parsedate_to_datetime(headers["last-modified"]),
        storage_class=headers.get("x-amz-storage-class", "STANDARD"),
        is_restored='ongoing-request="false"' in headers.get("x-amz-restore", ""),
        is_in_archive_tier="x-amz-archive-status" in headers,
        content=content_in_headers(headers),
        described=tuple(sorted((n, v) for n, v in headers.items() if _describes(n))),
        origin=read_origin(headers.get(ORIGIN_HEADER)),
    )


def marker_found(request: Request, answer: Response | SendError) -> Version | None:
    """Return the delete marker that a HEAD without a version id met, None if it met nothing."""
    if isinstance(answer, SendError) or answer.headers.get("x-amz-delete-marker") != "true":
        return None
    long_ago = datetime.min.replace(tzinfo=UTC)
    return Version(request.key, None, "", 0, long_ago, is_delete_marker=True)


def require_versions(key: str, request: Request, answer: Response | SendError) -> list[Version]:
    """Return what a page lists of a key, the newest first.

    Raises AccessError or TwoBucketsError when S3 does not list it.
    """
    what = f"list the versions of {key} in {request.bucket}"
    if isinstance(answer, SendError) or not answer.ok:
        raise explain(answer, "ListObjectVersions", what)
    try:
        rows = [row for row in VERSIONS.rows(answer.body) if row.key == key]
    except (AnswerError, KeyError, ValueError) as error:
        raise TwoBucketsError(f"Could not {what}: {error}") from error
    return [version_listed(row) for row in rows]


def _describes(header: str) -> bool:
    if header == ORIGIN_HEADER:
        return False
    return header in _DESCRIBING_HEADERS or header.startswith("x-amz-meta-")
