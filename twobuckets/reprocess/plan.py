"""What would be done for each wanted object: found by reading only.

One rule decides everywhere: a file that waits in staging is woken where it is, because nothing may
be put over it; any other is moved back from the archive.
"""

from __future__ import annotations

import contextlib
import enum
import fnmatch
import itertools
from dataclasses import dataclass, field
from datetime import datetime
from typing import TYPE_CHECKING

from twobuckets.pipeline.conversation import Talk, checked, find, hold, in_words
from twobuckets.pipeline.versions import (
    ClosedObjectError,
    Version,
    marker_found,
    require_found,
    require_versions,
    version_listed,
)
from twobuckets.s3 import refusals
from twobuckets.s3.engine import SendError
from twobuckets.s3.listing import ListingError, iter_versions
from twobuckets.s3.operations import (
    VERSIONS,
    get_bucket_versioning,
    head_object,
    read_versioning,
)

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from twobuckets.reprocess.selection import Wanted
    from twobuckets.s3.engine import Sender


class Kind(enum.StrEnum):
    """What is done with one object."""

    COPY = "copy"
    """Copied to staging; the archived version stays, under what the processor makes of the copy."""
    WAKE = "wake"
    """In staging already: the processor is woken for exactly this version."""
    RESTORE = "restore"
    """Asked back from a Glacier class; can be copied some hours later."""
    SKIP = "skip"
    """Nothing, for the reason given."""


@dataclass(frozen=True, slots=True)
class Action:
    """What is about to be done with one object, pinned to the version that was looked at.

    `is_chosen` says that somebody asked for this very version; any other is moved only as long as
    it is the archive's current one.
    """

    key: str
    kind: Kind
    version_id: str | None
    etag: str | None
    size: int
    reason: str | None = None
    is_chosen: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class Rules:
    """What was asked for beside the keys.

    `since` and `until` bound the time of archiving.
    """

    restores: bool = False
    since: datetime | None = None
    until: datetime | None = None
    as_of: datetime | None = None
    matches: tuple[str, ...] = field(default=())

    def selects_key(self, key: str) -> bool:
        """Tell whether a key matches one of the globs, where there are any."""
        return not self.matches or any(fnmatch.fnmatchcase(key, m) for m in self.matches)

    def selects_time(self, archived_at: datetime) -> bool:
        """Tell whether something archived at that instant is in the time asked for."""
        return (self.since is None or archived_at >= self.since) and (
            self.until is None or archived_at < self.until
        )

    @property
    def is_about_archive(self) -> bool:
        """Tell whether the question is about archived versions: staged ones don't count then."""
        return not (self.since is None and self.until is None and self.as_of is None)


def decide(
    key: str,
    archived: Version | None,
    staged: Version | None,
    rules: Rules,
    *,
    pinned: bool = False,
) -> Action | None:
    """Return what to do with a key, or None when the rules don't select it.

    `staged` may be the delete marker that is all that shows of the key in staging: then nothing
    waits there. `pinned` says that one archived version was asked for by its id.
    """
    if staged is not None and not staged.is_delete_marker:
        if pinned or (archived is not None and rules.is_about_archive):
            return Action(
                key, Kind.SKIP, staged.version_id, staged.etag, staged.size_bytes,
                "a file with this key waits in staging, and nothing may be put over it",
            )  # fmt: skip
        if rules.is_about_archive:
            return None
        return Action(key, Kind.WAKE, staged.version_id, staged.etag, staged.size_bytes)
    if archived is None:
        return Action(key, Kind.SKIP, None, None, 0, "neither in the archive nor in staging")
    if not pinned and not rules.selects_time(archived.modified_at):
        return None
    if archived.is_frozen and not rules.restores:
        kind, reason = Kind.SKIP, f"in {archived.storage_class}; --restore asks for it back"
    elif archived.is_frozen:
        kind, reason = Kind.RESTORE, f"in {archived.storage_class}"
    else:
        kind, reason = Kind.COPY, None
    return Action(
        key,
        kind,
        archived.version_id,
        archived.etag,
        archived.size_bytes,
        reason,
        is_chosen=pinned or rules.as_of is not None,
    )


def plan_listed(
    archived: Iterable[Version], staged: Iterable[Version], rules: Rules
) -> Iterator[Action]:
    """Yield the actions for two listings of one prefix: archived versions and staged objects.

    Both are in S3's order: by the key's UTF-8 bytes, the versions of a key newest first.
    """
    waiting = _Joined(staged)
    newest = (
        (key, _choose(versions, rules))
        for key, versions in itertools.groupby(archived, key=lambda found: found.key)
    )
    for key, version in newest:
        for earlier in waiting.before(key):
            yield from _selected(decide(earlier.key, None, earlier, rules), rules)
        if (there := waiting.at(key)) is not None or version is not None:
            yield from _selected(decide(key, version, there, rules), rules)
    for left in waiting.rest():
        yield from _selected(decide(left.key, None, left, rules), rules)


def plan_staged(staged: Iterable[tuple[Version, str | None]], rules: Rules) -> Iterator[Action]:
    """Yield the actions for versions in staging; with a reason, one is skipped for it.

    Nothing is looked up: the archive has no say in what is woken where it lies.
    """
    for found, reason in staged:
        if rules.selects_key(found.key) and rules.selects_time(found.modified_at):
            kind = Kind.WAKE if reason is None else Kind.SKIP
            yield Action(found.key, kind, found.version_id, found.etag, found.size_bytes, reason)


def _selected(action: Action | None, rules: Rules) -> Iterator[Action]:
    if action is not None and rules.selects_key(action.key):
        yield action


def _choose(versions: Iterable[Version], rules: Rules) -> Version | None:
    """Return the version that counts: the newest one, or that of the instant asked for."""
    for version in versions:
        if rules.as_of is None or version.modified_at <= rules.as_of:
            # Under a delete marker somebody removed the file from the archive on purpose.
            return None if version.is_delete_marker else version
    return None


class _Joined:
    """A listing read in step with another one."""

    def __init__(self, listing: Iterable[Version]) -> None:
        self._listing = iter(listing)
        self._next = next(self._listing, None)

    def before(self, key: str) -> Iterator[Version]:
        """Yield what comes before a key."""
        while self._next is not None and _order(self._next.key) < _order(key):
            yield self._take()

    def at(self, key: str) -> Version | None:
        """Return what is at a key."""
        return self._take() if self._next is not None and self._next.key == key else None

    def rest(self) -> Iterator[Version]:
        """Yield what is left."""
        while self._next is not None:
            yield self._take()

    def _take(self) -> Version:
        taken = self._next
        assert taken is not None
        self._next = next(self._listing, None)
        return taken


def _order(key: str) -> bytes:
    return key.encode("utf-8", "surrogatepass")


def plan_keys(
    sender: Sender, wanted: Iterable[Wanted], rules: Rules, *, staging: str, archive: str
) -> Iterator[Action]:
    """Yield the actions for single keys, each looked up in both buckets, in order of arrival.

    Raises AccessError when a bucket may not be read, UnreachableError when S3 does not answer.
    """
    talks = (
        in_words(_plan_key(want, rules, staging=staging, archive=archive))
        for want in wanted
        if rules.selects_key(want.key)
    )
    for action in hold(sender, talks):
        if action is not None:
            yield action


def _plan_key(want: Wanted, rules: Rules, *, staging: str, archive: str) -> Talk[Action | None]:
    key = want.key
    try:
        archived = yield from find(archive, key, want.version_id)
        # Only a look at staging that comes later shows what was there when it was archived.
        request = head_object(staging, key)
        (answer,) = yield [request]
        staged = require_found(request, checked(answer)) or marker_found(request, answer)
    except ClosedObjectError as closed:
        return Action(key, Kind.SKIP, want.version_id, None, 0, closed.reason)
    if staged is None and archived is not None:
        # For some minutes after versions were first enabled, S3 may not find what is there (S3 user
        # guide, "Enabling versioning on buckets"). Its listings do.
        page = VERSIONS.page(staging, prefix=key, most=1)
        (answer,) = yield [page]
        staged = next(iter(require_versions(key, page, checked(answer))), None)
    return decide(key, archived, staged, rules, pinned=want.version_id is not None)


def keeps_versions(sender: Sender, bucket: str) -> bool:
    """Tell whether a bucket gives every object a version id of its own.

    Raises AccessError when that may not be read, UnreachableError when S3 does not answer.
    """
    what = f"read whether {bucket} keeps versions"
    (answer,) = (a for _, a in sender.send_all([get_bucket_versioning(bucket)]))
    if isinstance(answer, SendError) or not answer.ok:
        raise refusals.explain(answer, "GetBucketVersioning", what)
    return read_versioning(answer)


def iter_archived(sender: Sender, bucket: str, prefix: str) -> Iterator[Version]:
    """Yield every version under a prefix of the archive, newest first for each key.

    Raises AccessError, NotFoundError or TwoBucketsError.
    """
    with _explained(f"list the versions in s3://{bucket}/{prefix}"):
        for row in iter_versions(sender, bucket, prefix=prefix, tells_restored=True):
            yield version_listed(row)


def iter_staged(sender: Sender, bucket: str, prefix: str) -> Iterator[Version]:
    """Yield the objects that wait in staging under a prefix. Raises as iter_archived does."""
    with _explained(f"list s3://{bucket}/{prefix}"):
        for row in iter_versions(sender, bucket, prefix=prefix):
            if row.is_latest and not row.is_delete_marker:
                yield version_listed(row)


@contextlib.contextmanager
def _explained(what: str) -> Iterator[None]:
    try:
        yield
    except ListingError as error:
        raise refusals.explain(error.reason, "ListObjectVersions", what) from error
