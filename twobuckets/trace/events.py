"""One thing that happened to a key, and how each source tells it."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from datetime import datetime, timedelta
from typing import TYPE_CHECKING, Final

from twobuckets.logs.lines import FailedInvocation, Outcome
from twobuckets.pipeline.versions import NO_VERSION
from twobuckets.processor.contract import ARCHIVED, Failure
from twobuckets.units import counted, format_bytes

if TYPE_CHECKING:
    from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence

    from twobuckets.logs.naming import Said
    from twobuckets.pipeline.versions import Version
    from twobuckets.s3.uploads import IncompleteUpload

PUT: Final = "put"
UPLOAD_BEGUN: Final = "upload-begun"
DELETED: Final = "deleted"
INVOKED: Final = "invoked"
REPROCESS: Final = "reprocess"

STAGING: Final = "staging"
ARCHIVE: Final = "archive"
PROCESSOR: Final = "processor"
HERE: Final = "here"


@dataclass(frozen=True, slots=True, kw_only=True)
class TraceEvent:
    """One thing that happened to a key.

    `event` is `put`, `upload-begun` or `deleted` in a bucket, an outcome such as `archived` or a
    reason such as `timed-out` of the processor, `invoked` of one that is not ours, or `reprocess`.
    `place` is `staging`, `archive`, `processor` or `here`, which is this machine. `version_id` is
    the staged version, except of what happened in the archive. Everything else is null where the
    source does not tell it.
    """

    key: str
    at: datetime
    event: str
    place: str
    version_id: str | None = None
    archive_version_id: str | None = None
    etag: str | None = None
    size_bytes: int | None = None
    checksums: Mapping[str, str] = field(default_factory=dict)
    attempt: int | None = None
    duration: timedelta | None = None
    request_id: str | None = None
    error: Failure | None = None
    detail: str | None = None

    @property
    def identity(self) -> tuple[object, ...]:
        """What tells it from other events of the key, whichever source told it first."""
        if self.event == ARCHIVED and self.archive_version_id not in NO_VERSION:
            return self.event, self.archive_version_id
        version = self.version_id or self.archive_version_id
        return self.event, self.at, version, self.request_id, self.detail


@dataclass(frozen=True, slots=True)
class KeyHistory:
    """What the sources tell of one key: its versions in both buckets, uploads, and the log.

    Versions are in S3's order, the newest first; those of the archive that were looked at one by
    one have their notes of where they came from.
    """

    key: str
    staged: Sequence[Version]
    archived: Sequence[Version]
    uploads: Sequence[IncompleteUpload] = ()
    said: Sequence[Said] = ()

    @property
    def is_unknown(self) -> bool:
        """Tell whether nobody knows anything of the key."""
        return not (self.staged or self.archived or self.uploads or self.said)

    @property
    def first_at(self) -> datetime | None:
        """The earliest instant at which something happened to it, as far as S3 knows."""
        return min((event.at for event in events_of(self, staging=None)), default=None)


def events_of(
    life: KeyHistory,
    *,
    staging: str | None,
    known: Iterable[TraceEvent] = (),
    begun_here: Mapping[str, str] = {},
) -> list[TraceEvent]:
    """Return what happened to a key, in time order.

    `known` are events from elsewhere, such as this machine's journals; what they say of a staged
    version is said of its arrival as well. `begun_here` are the files of uploads begun from here,
    by upload id. Without `staging`, notes that name any bucket count.
    """
    journal = list(known)
    events = [*_of_log(life), *journal]
    events += _of_archive(life, {e.archive_version_id for e in events if e.event == ARCHIVED})
    archived_at = [e.at for e in events if e.event == ARCHIVED]
    events += _of_staging(life, staging, _moved(journal), archived_at)
    events += (_of_upload(upload, begun_here) for upload in life.uploads)
    # At the same instant, as S3's whole seconds have it, what comes first comes first.
    events.sort(key=lambda e: (e.at, _ORDER.get(e.event, len(_ORDER))))
    return events


def of_version(events: Iterable[TraceEvent], version_id: str) -> list[TraceEvent]:
    """Return what happened to one version: to the staged one and to its archived copy alike."""
    events = list(events)
    same = {version_id}
    for event in events:
        ids = {event.version_id, event.archive_version_id} - {None}
        if event.event == ARCHIVED and ids & same:
            same |= {i for i in ids if i is not None}
    requests = {e.request_id for e in events if e.version_id in same} - {None}
    return [
        event
        for event in events
        if same & {event.version_id, event.archive_version_id} or event.request_id in requests
    ]


# The processor puts its marker right after it archived a version; S3's times are whole seconds.
_COVERED_WITHIN: Final = timedelta(seconds=5)
_ORDER: Final = {UPLOAD_BEGUN: 0, REPROCESS: 1, PUT: 2}


def _of_log(life: KeyHistory) -> Iterator[TraceEvent]:
    for said in life.said:
        match said:
            case Outcome():
                yield TraceEvent(
                    key=life.key,
                    at=said.logged_at,
                    event=said.outcome,
                    place=PROCESSOR,
                    version_id=said.version_id,
                    archive_version_id=said.archive_version_id,
                    etag=said.etag,
                    size_bytes=said.size_bytes,
                    attempt=said.attempt,
                    duration=said.duration,
                    request_id=said.request_id,
                    error=said.error,
                    detail="; ".join(filter(None, (said.reason, *said.notes))) or None,
                )
            case FailedInvocation():
                yield TraceEvent(
                    key=life.key,
                    at=said.logged_at,
                    event=said.reason,
                    place=PROCESSOR,
                    request_id=said.request_id,
                    error=said.error,
                )
            case _:
                yield TraceEvent(
                    key=life.key,
                    at=said.logged_at,
                    event=INVOKED if said.ended == "success" else said.ended,
                    place=PROCESSOR,
                    duration=said.duration,
                    request_id=said.request_id,
                    error=said.error,
                    detail="it logged the error and ended well: Lambda does not try again"
                    if said.ended == "success" and said.error is not None
                    else None,
                )


def _of_staging(
    life: KeyHistory,
    staging: str | None,
    moved: Collection[str | None],
    archived_at: Collection[datetime],
) -> Iterator[TraceEvent]:
    """Yield what came to staging and was deleted there; what left it, as the archive notes it."""
    seen: set[tuple[str | None, str]] = set()
    for version in life.staged:
        if version.is_delete_marker:
            yield TraceEvent(
                key=life.key,
                at=version.modified_at,
                event=DELETED,
                place=STAGING,
                version_id=version.version_id,
                detail="a delete marker, as the processor leaves one where it archived a file"
                if any(abs(at - version.modified_at) < _COVERED_WITHIN for at in archived_at)
                else "somebody put a delete marker on its versions",
            )
            continue
        seen.add(_arrival(version.version_id, version.etag))
        yield _put(life.key, version, moved)
    for copy in life.archived:
        origin = copy.origin
        if origin is None or (staging is not None and origin.bucket != staging):
            continue
        arrival = _arrival(origin.version_id, f"{origin.etag} {origin.staged_at}")
        if arrival in seen:
            continue
        seen.add(arrival)
        try:
            at = datetime.fromisoformat(origin.staged_at)
        except ValueError:
            continue
        if at.tzinfo is None:
            continue
        # The same bytes, so what S3 tells of the copy's is true of what was copied.
        gone = replace(copy, version_id=origin.version_id, etag=origin.etag, modified_at=at)
        yield _put(life.key, gone, moved)


def _moved(journal: Iterable[TraceEvent]) -> set[str | None]:
    """Return the staged versions that a run of `reprocess` copied from the archive."""
    return {
        event.version_id
        for event in journal
        if event.version_id is not None and event.archive_version_id is not None
    }


def _arrival(version_id: str | None, otherwise: str) -> tuple[str | None, str]:
    return (version_id, "") if version_id not in NO_VERSION else (None, otherwise)


def _put(key: str, version: Version, moved: Collection[str | None]) -> TraceEvent:
    is_moved = version.version_id in moved
    return TraceEvent(
        key=key,
        at=version.modified_at,
        event=PUT,
        place=STAGING,
        version_id=version.version_id,
        etag=version.etag,
        size_bytes=version.size_bytes,
        checksums=version.content.checksums if version.content is not None else {},
        detail="a copy of an archived version, by reprocess" if is_moved else None,
    )


def _of_archive(life: KeyHistory, told: set[str | None]) -> Iterator[TraceEvent]:
    """Yield what S3 shows of the archive and no line of the log told."""
    for version in life.archived:
        if version.is_delete_marker:
            yield TraceEvent(
                key=life.key,
                at=version.modified_at,
                event=DELETED,
                place=ARCHIVE,
                archive_version_id=version.version_id,
                detail="somebody put a delete marker on its versions",
            )
        elif version.version_id in NO_VERSION or version.version_id not in told:
            origin = version.origin
            if version.version_id in NO_VERSION and _is_told(life, version):
                continue
            yield TraceEvent(
                key=life.key,
                at=version.modified_at,
                event=ARCHIVED,
                place=ARCHIVE,
                version_id=origin.version_id if origin is not None else None,
                archive_version_id=version.version_id,
                etag=version.etag,
                size_bytes=version.size_bytes,
                checksums=version.content.checksums if version.content is not None else {},
                detail="as S3 shows it; no line of the log tells of it"
                if origin is not None
                else "as S3 shows it; it has no note of where it came from",
            )


def _is_told(life: KeyHistory, version: Version) -> bool:
    """Tell whether a line tells of what is in an archive that keeps no versions."""
    return any(
        isinstance(said, Outcome) and said.outcome == ARCHIVED and said.etag == version.etag
        for said in life.said
    )


def _of_upload(upload: IncompleteUpload, begun_here: Mapping[str, str]) -> TraceEvent:
    path = begun_here.get(upload.upload_id)
    held = (
        f"{counted(upload.parts, 'part')}, {format_bytes(upload.stored_bytes or 0)} so far"
        if upload.parts is not None
        else "its parts could not be read"
    )
    by = f", by {upload.initiator}" if upload.initiator else ""
    return TraceEvent(
        key=upload.key,
        at=upload.initiated_at,
        event=UPLOAD_BEGUN,
        place=STAGING,
        size_bytes=upload.stored_bytes,
        detail=f"{held}; not completed{by}" + (f", from {path} on this machine" if path else ""),
    )
