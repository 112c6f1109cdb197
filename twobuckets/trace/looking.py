"""Asks S3 and the log about a few keys, in few requests."""

from __future__ import annotations

import contextlib
import heapq
import itertools
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from typing import TYPE_CHECKING, Final

from twobuckets.errors import AccessError, NotFoundError, TwoBucketsError
from twobuckets.logs.naming import iter_said
from twobuckets.pipeline.conversation import checked, hold, in_words, list_stack
from twobuckets.pipeline.lookups import CouldNotLook, listing_stopped
from twobuckets.pipeline.versions import NO_VERSION, ClosedObjectError, require_found
from twobuckets.s3.listing import ListingError, iter_uploads, iter_versions
from twobuckets.s3.operations import head_object
from twobuckets.s3.refusals import explain
from twobuckets.s3.uploads import iter_incomplete_uploads
from twobuckets.trace.events import KeyHistory

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence

    from twobuckets.logs.naming import Said
    from twobuckets.pipeline.conversation import Talk
    from twobuckets.pipeline.facts import Facts
    from twobuckets.pipeline.versions import Version
    from twobuckets.s3.answers import ListedUpload
    from twobuckets.s3.engine import Sender

MOST_VERSIONS: Final = 10
"""So many versions of a key in each bucket are looked at one by one, the newest."""
_TOLERANCE: Final = timedelta(minutes=1)
UNKNOWN_SINCE: Final = timedelta(days=1)
"""How far back the log is searched for a key that S3 knows nothing of."""


@dataclass(frozen=True, slots=True)
class Histories:
    """What is known of some keys, and from when on the log was searched for them.

    `log_start_at` is None where there is no log, of a processor that never ran for instance.
    `unread` is what could not be looked at.
    """

    lives: Sequence[KeyHistory]
    log_start_at: datetime | None
    unread: Sequence[CouldNotLook]


def find_keys_below(
    sender: Sender, buckets: Iterable[str], prefix: str, most: int
) -> tuple[list[str], bool]:
    """Return the first keys with a prefix in any of the buckets, and whether there are more.

    Keys of which only versions or incomplete uploads are there count as well.
    Raises TwoBucketsError when a bucket can't be listed.
    """
    listings: list[Iterator[str]] = []
    for bucket in buckets:
        listings.append(row.key for row in iter_versions(sender, bucket, prefix=prefix, most=1))
        listings.append(row.key for row in iter_uploads(sender, bucket, prefix=prefix, most=1))
    merged = heapq.merge(*listings, key=lambda key: key.encode("utf-8", "surrogateescape"))
    try:
        found = list(itertools.islice((key for key, _ in itertools.groupby(merged)), most + 1))
    except ListingError as error:
        what = f"list the keys of {error.bucket} that begin with {prefix}"
        raise explain(error.reason, "ListObjectVersions", what) from error
    return found[:most], len(found) > most


def look_into(
    facts: Facts,
    sender: Sender,
    keys: Sequence[str],
    *,
    since: datetime | None = None,
) -> Histories:
    """Return what S3 and the log know of each key.

    Without `since` the log is searched from the first that S3 knows of any of them.
    Raises AccessError or TwoBucketsError when S3 can't be asked; of the log it is noted.
    """
    staging, archive = facts.pipeline.staging, facts.pipeline.archive
    talks = (in_words(_look_at(key, staging, archive)) for key in keys)
    by_key = {life.key: life for life in hold(sender, talks)}
    lives = [by_key[key] for key in keys]
    unread: list[CouldNotLook] = []
    try:
        lives = [_with_uploads(sender, staging, life) for life in lives]
    except CouldNotLook as reason:
        unread.append(reason)
    start_at = since or _start_of(lives, facts.now)
    said: dict[str, list[Said]] = {}
    has_log = True
    try:
        for key, one in _iter_log(facts, keys, start_at):
            said.setdefault(key, []).append(one)
    except NotFoundError:
        has_log = False
    except CouldNotLook as reason:
        unread.append(reason)
    return Histories(
        [replace(life, said=said.get(life.key, ())) for life in lives],
        start_at if has_log and facts.pipeline.log_group is not None else None,
        unread,
    )


def _start_of(lives: Sequence[KeyHistory], now: datetime) -> datetime:
    first = [life.first_at for life in lives]
    known = [at for at in first if at is not None]
    return min(known, default=now - UNKNOWN_SINCE) - _TOLERANCE


def _look_at(key: str, staging: str, archive: str) -> Talk[KeyHistory]:
    staged = yield from list_stack(staging, key)
    archived = yield from list_stack(archive, key)
    return KeyHistory(
        key,
        (yield from _described(staging, staged)),
        (yield from _described(archive, archived)),
    )


def _described(bucket: str, versions: list[Version]) -> Talk[list[Version]]:
    """Return versions with all that HEAD says of the newest of them."""
    asked = [v for v in versions if not v.is_delete_marker][:MOST_VERSIONS]
    # What no version id pins is asked for as what is there now.
    ids = [v.version_id if v.version_id not in NO_VERSION else None for v in asked]
    requests = [head_object(bucket, v.key, pinned) for v, pinned in zip(asked, ids, strict=True)]
    answers = (yield requests) if requests else []
    described = {}
    for listed, request, answer in zip(asked, requests, answers, strict=True):
        try:
            found = require_found(request, checked(answer))
        except ClosedObjectError:
            # Such as one encrypted with somebody's own key: the listing's words are all there is.
            continue
        if found is not None and found.etag == listed.etag:
            # An unversioned bucket tells no id in a HEAD.
            described[listed.version_id] = replace(found, version_id=listed.version_id)
    return [described.get(v.version_id, v) if v in asked else v for v in versions]


def _with_uploads(sender: Sender, staging: str, life: KeyHistory) -> KeyHistory:
    """Return a life with the key's incomplete uploads. Raises CouldNotLook."""

    def is_of_key(upload: ListedUpload) -> bool:
        return upload.key == life.key

    try:
        listed = iter_incomplete_uploads(sender, staging, prefix=life.key, wanted=is_of_key)
        return replace(life, uploads=list(listed))
    except ListingError as error:
        what = f"the incomplete uploads in {staging}"
        raise listing_stopped(what, error, "s3:ListBucketMultipartUploads") from error


def _iter_log(facts: Facts, keys: Sequence[str], start_at: datetime) -> Iterator[tuple[str, Said]]:
    """Yield what the log says of each key. Raises CouldNotLook, and NotFoundError for no log."""
    group = facts.pipeline.log_group
    if group is None:
        return
    is_ours = True
    # Where that can't be read, outcome lines are looked for.
    with contextlib.suppress(CouldNotLook):
        is_ours = facts.pipeline.function is None or facts.function.is_ours
    try:
        yield from iter_said(
            facts.aws.logs,
            group,
            set(keys),
            bucket=facts.pipeline.staging,
            is_ours=is_ours,
            start_at=start_at,
        )
    except NotFoundError:
        raise
    except AccessError as error:
        what, permission = f"the log {group}", "logs:FilterLogEvents"
        raise CouldNotLook(what, "access denied", permission) from error
    except TwoBucketsError as error:
        raise CouldNotLook(f"the log {group}", error.message, None) from error
