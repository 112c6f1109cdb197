"""Takes away what a probe left in both buckets: exactly its versions, which nobody else made."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from twobuckets.pipeline.conversation import checked, hold, list_stack
from twobuckets.pipeline.versions import require_found
from twobuckets.processor.contract import PROBE_MARK, PROBE_PREFIX
from twobuckets.s3.engine import Response
from twobuckets.s3.listing import ListingError, iter_versions
from twobuckets.s3.operations import ObjectVersion, delete_object, head_object
from twobuckets.s3.refusals import explain

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator
    from datetime import datetime

    from twobuckets.errors import TwoBucketsError
    from twobuckets.pipeline.conversation import Talk
    from twobuckets.s3.engine import Sender

_MARK_HEADER: Final = f"x-amz-meta-{PROBE_MARK}"
_MOST_LEFT: Final = 100
"""So many leftovers of earlier probes are taken away in one run."""


def remove_probe(sender: Sender, buckets: Iterable[str], key: str) -> int:
    """Delete every version and delete marker of a probe's key; return how many there were.

    The key was made up for this probe alone. Raises AccessError or TwoBucketsError.
    """
    return sum(hold(sender, (_remove(bucket, key) for bucket in buckets)))


def find_leftovers(sender: Sender, bucket: str, *, before: datetime) -> Iterator[str]:
    """Yield the keys of earlier probes in a bucket that are surely probes: their mark says so.

    Raises AccessError or TwoBucketsError.
    """
    try:
        rows = list(iter_versions(sender, bucket, prefix=PROBE_PREFIX, most=1))
    except ListingError as error:
        what = f"list what earlier probes left in {bucket}"
        raise explain(error.reason, "ListObjectVersions", what) from error
    newest: dict[str, str] = {}
    for row in rows:
        if not row.is_delete_marker and row.modified_at < before:
            newest.setdefault(row.key, row.version_id)
    talks = (_find_mark(bucket, key, newest[key]) for key in list(newest)[:_MOST_LEFT])
    yield from (key for key in hold(sender, talks) if key is not None)


def _find_mark(bucket: str, key: str, version_id: str) -> Talk[str | None]:
    """Return the key if the version is a probe's."""
    request = head_object(bucket, key, version_id if version_id != "null" else None)
    (answer,) = yield [request]
    if require_found(request, checked(answer)) is None or not isinstance(answer, Response):
        return None
    return key if answer.headers.get(_MARK_HEADER) == key.removeprefix(PROBE_PREFIX) else None


def _remove(bucket: str, key: str) -> Talk[int]:
    stack = yield from list_stack(bucket, key)
    requests = [
        # In a bucket without versions "null" is the one that is there.
        delete_object(bucket, ObjectVersion(key, version.version_id or "null"))
        for version in stack
    ]
    answers = (yield requests) if requests else []
    for answer in answers:
        if not isinstance(answer, Response) or not answer.ok:
            raise _kept(bucket, key, answer)
    return len(requests)


def _kept(bucket: str, key: str, answer: Response | Exception) -> TwoBucketsError:
    error = explain(answer, "DeleteObjectVersion", f"delete the probe s3://{bucket}/{key}")
    error.hint = f"It is still there, and small; the next probe tries again. {error.hint or ''}"
    return error
