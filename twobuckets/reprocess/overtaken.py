"""Finds out whether something newer came while an archived version was brought back to staging.

S3 judges a copy's source when the copy begins and its destination when it ends, and a copy of S3
Batch Operations has no condition at all. So a file can be uploaded, even archived, before the copy
lands: then the copy must not take its place. It is taken back from staging by its own version id,
which touches nothing else; from the archive nothing is ever deleted.
"""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import TYPE_CHECKING, Final

from twobuckets.pipeline.conversation import (
    Answer,
    Talk,
    checked,
    list_stack,
    look,
)
from twobuckets.pipeline.versions import NO_VERSION, Version, require_found
from twobuckets.processor.comparing import Likeness
from twobuckets.s3.answers import Marker
from twobuckets.s3.engine import Response, SendError
from twobuckets.s3.operations import (
    LONGEST_COPY_BYTES,
    VERSIONS,
    ObjectVersion,
    copy_object,
    delete_object,
    head_object,
)

if TYPE_CHECKING:
    from collections.abc import Collection

    from twobuckets.reprocess.items import Item
    from twobuckets.s3.answers import ListedVersion

_FEWEST_A_PAGE: Final = 50
"""Items that a page of a listing has to tell of to be worth its price."""
_ROUNDS: Final = 5
"""How often a key is looked at while what it holds keeps changing."""
_MOST_LOOKS: Final = 20
"""Versions of a key that are looked at one by one; of any beyond, nothing is believed."""
# LastModified has whole seconds.
CLOCK_SLACK: Final = timedelta(seconds=2)

NO_LONGER_CURRENT: Final = "a newer version of this key was archived since the plan was made"
NEWER_WAITS: Final = "a newer file with this key waits in staging, and nothing may be put over it"

_NO_ID: Final = (
    "; the copy is in staging all the same, unless it was processed meanwhile: it has no version "
    "id to take it back by. The archived version stays"
)


@dataclass(frozen=True, slots=True)
class Arrived:
    """The copy is in staging, or was archived again, and nothing newer came in between."""

    staged_version_id: str | None


@dataclass(frozen=True, slots=True)
class NotCopied:
    """Nothing of a copy is to be found, and nothing newer came."""


@dataclass(frozen=True, slots=True)
class SourceGone:
    """The archived version is not there any more."""


@dataclass(frozen=True, slots=True)
class Overtaken:
    """Something newer came, and the copy is gone from staging; `failed` says that it is not."""

    reason: str
    failed: bool = False


@dataclass(frozen=True, slots=True)
class NewerWaiting:
    """A newer file shows in staging; its event may have met the copy, so it is to be woken."""

    staged: Version


Verdict = Arrived | NotCopied | SourceGone | Overtaken | NewerWaiting


def find_overtaken(
    item: Item, staged_version_id: str | None, *, staging: str, archive: str
) -> Talk[Overtaken | None]:
    """Tell whether an item's version was still the archive's current one when its copy had arrived.

    If it was not, the copy is taken back, unless the processor has archived it already.
    Buckets without versions give nothing to judge or to take back by.
    """
    if item.version_id in NO_VERSION:
        return None
    request = head_object(archive, item.key)
    (answer,) = yield [request]
    # Asked once for each object that is copied, and hardly ever anything else.
    if isinstance(answer, Response) and answer.headers.get("x-amz-version-id") == item.version_id:
        return None
    require_found(request, checked(answer))
    ours = [] if staged_version_id is None else [staged_version_id]
    above = yield from _look_above(item, archive, ours)
    if above is None or not above.others:
        return None
    if staged_version_id is None or staged_version_id in NO_VERSION:
        # By its key alone something newer could be deleted in its place.
        return Overtaken(_explain(above) + _NO_ID, failed=True)
    problem = yield from _take_back(item, [staged_version_id], staging)
    return Overtaken(NO_LONGER_CURRENT + problem, failed=bool(problem))


def find_undisturbed(items: list[Item], archive: str) -> Talk[set[int]]:
    """Return the ids of items over whose versions nothing lies in the archive, or only copies.

    What lies close together is listed, a thousand versions a request; of what does not, and of what
    a listing can't tell, the ids are left out.
    """
    undisturbed: set[int] = set()
    waiting = deque(sorted(items, key=lambda item: _in_bytes(item.key)))
    # A page costs as much as a dozen looks at single objects.
    for _ in range(len(items) // _FEWEST_A_PAGE):
        if not waiting:
            break
        after = Marker(waiting[0].key[:-1])
        (answer,) = yield [VERSIONS.page(archive, after=after)]
        answer = checked(answer)
        if not isinstance(answer, Response) or not answer.ok:
            break
        stacks: dict[str, list[ListedVersion]] = {}
        for row in VERSIONS.rows(answer.body):
            stacks.setdefault(row.key, []).append(row)
        following = VERSIONS.following(answer.body)
        last_key = following.key if following is not None else None
        while waiting and (last_key is None or _in_bytes(waiting[0].key) <= _in_bytes(last_key)):
            item = waiting.popleft()
            if _is_undisturbed(item, stacks.get(item.key, [])):
                undisturbed.add(item.id)
    return undisturbed


def _is_undisturbed(item: Item, stack: list[ListedVersion]) -> bool:
    for row in stack:
        if row.version_id == item.version_id:
            return True
        # The processor may have archived the copy already.
        if row.is_delete_marker or row.etag != item.etag:
            return False
    return False


def _in_bytes(key: str) -> bytes:
    return key.encode("utf-8", "surrogatepass")


def settle_job(
    item: Item, since: datetime, planned_at: datetime, *, staging: str, archive: str
) -> Talk[Verdict]:
    """Judge what a batch job did with an item that fell to it at `since`, both by S3's clock."""
    taken_back: list[str] = []
    for _ in range(_ROUNDS):
        above = yield from _look_above(item, archive, taken_back)
        if above is None:
            return SourceGone()
        stack = yield from list_stack(staging, item.key)
        recent = [
            version
            for version in stack
            if not version.is_delete_marker and version.modified_at >= planned_at - CLOCK_SLACK
        ]
        if len(recent) > _MOST_LOOKS:
            return Overtaken(f"{NEWER_WAITS}: {len(recent)} versions since the plan", failed=True)
        looked = yield from look(staging, item.key, _ids(recent))
        if len(looked) < len(recent):
            continue  # one has gone just now
        copies = [
            version.version_id
            for version in looked
            if _is_made_of(version, above.source) and version.modified_at >= since - CLOCK_SLACK
        ]
        newer = [version for version in looked if version.version_id not in copies]
        others = [] if item.is_chosen else above.others
        if not newer and not others:
            return _judge_undisturbed(above, stack, copies)
        taken_back += [version_id for version_id in copies if version_id is not None]
        if copies:
            problem = yield from _take_back(item, taken_back, staging)
            if problem:
                return Overtaken((NEWER_WAITS if newer else NO_LONGER_CURRENT) + problem, True)
            continue
        if not newer:
            return Overtaken(_explain(above))
        if not stack[0].is_delete_marker:
            return NewerWaiting(stack[0])
        verdict = yield from _bring_to_light(newer[0], stack, above, staging)
        if verdict is not None:
            return verdict
    return Overtaken("what both buckets hold of it keeps changing", failed=True)


def _judge_undisturbed(above: _Above, stack: list[Version], copies: list[str | None]) -> Verdict:
    if copies:
        return Arrived(copies[0])
    if stack and not stack[0].is_delete_marker:
        return Overtaken(NEWER_WAITS)  # an older one that somebody brought back to light
    if above.copies:
        return Arrived(None)
    return NotCopied()


def _bring_to_light(
    newer: Version, stack: list[Version], above: _Above, staging: str
) -> Talk[Overtaken | None]:
    """Put a file that was covered by the copy, and then by its delete marker, on top again.

    Copied onto itself it is the latest upload once more, and S3 tells the processor of it.
    """
    place = [version.version_id for version in stack].index(newer.version_id)
    marker = stack[place - 1]
    hidden = (
        f"a newer file with this key lies under a delete marker in staging, version "
        f"{newer.version_id}"
    )
    # A marker that is older than what was archived of the copy is somebody else's wish.
    is_ours = (
        marker.is_delete_marker
        and bool(above.copies)
        and not above.others
        and marker.modified_at >= above.copies[0].modified_at - CLOCK_SLACK
    )
    if not is_ours or newer.size_bytes > LONGEST_COPY_BYTES:
        return Overtaken(hidden + "; look whether it is to be processed")
    version = ObjectVersion(newer.key, newer.version_id or "", newer.etag)
    (answer,) = yield [copy_object(staging, version, staging, newer.key, if_absent=True)]
    answer = checked(answer)
    if isinstance(answer, SendError) or answer.status == 412:
        return None  # look again
    if not answer.ok:
        return Overtaken(f"{hidden}: {answer.code or answer.status}: {answer.message}", failed=True)
    return Overtaken(
        "a newer file with this key was covered by the job's copy; it is on top in staging again, "
        "and the processor was told"
    )


@dataclass(frozen=True, slots=True)
class _Above:
    """What was archived over a version since: copies of it, and others; the newest first."""

    source: Version
    copies: list[Version]
    others: list[Version]
    is_covered: bool
    """Whether one of the others lies under a copy."""


def _is_made_of(staged: Version, source: Version) -> bool:
    """Tell whether a staged version is a copy of an archived one.

    A copy of a multipart object has another ETag, and often nothing else to compare; but it has
    the processor's note of the archived one, which no upload has.
    """
    has_its_note = source.origin is not None and staged.origin == source.origin
    is_noted = has_its_note and staged.is_like(source) is not Likeness.DIFFERENT
    is_copy = staged.has_same(source) or is_noted
    return is_copy and staged.came_from(source)


def _look_above(item: Item, archive: str, ours: Collection[str]) -> Talk[_Above | None]:
    """Return what lies over an item's version in the archive; None when that version is gone.

    What the processor archived of the staged versions `ours` are copies, whatever their ETags.
    """
    stack = yield from list_stack(archive, item.key)
    ids = [version.version_id for version in stack]
    if item.version_id not in ids:
        return None
    rows = stack[: ids.index(item.version_id)]
    assert item.version_id is not None
    versions = _ids([row for row in rows if not row.is_delete_marker])[:_MOST_LOOKS]
    looked = yield from look(archive, item.key, [item.version_id, *versions])
    by_id = {version.version_id: version for version in looked}
    source = by_id.pop(item.version_id, None)
    if source is None:
        return None
    copies = [
        version
        for version in by_id.values()
        if version.has_same(source) or _origin_of(version) in ours
    ]
    copied = {version.version_id for version in copies}
    others = [row for row in rows if row.version_id not in copied]
    return _Above(source, copies, others, bool(others) and rows[0].version_id in copied)


def _take_back(item: Item, ids: list[str], staging: str) -> Talk[str]:
    """Delete copies from staging by their version ids: the archived version that they hold stays.

    Returns what went wrong, "" for nothing.
    """
    answers = yield [delete_object(staging, ObjectVersion(item.key, id_)) for id_ in ids]
    if problem := _first_problem(answers):
        return f"; the copy in staging could not be taken back: {problem}"
    return ""


def _first_problem(answers: list[Answer]) -> str:
    for answer in map(checked, answers):
        if isinstance(answer, SendError):
            return f"no answer from S3: {answer.cause}"
        if not answer.ok and answer.status != 404:
            return f"{answer.code or answer.status}: {answer.message}"
    return ""


def _origin_of(archived: Version) -> str | None:
    """Return the staged version that an archived object was made of, as the processor notes it."""
    return None if archived.origin is None else archived.origin.version_id


def _explain(above: _Above) -> str:
    if not above.is_covered:
        return NO_LONGER_CURRENT
    newest = next(
        (other.version_id for other in above.others if not other.is_delete_marker),
        "a delete marker",
    )
    return f"{NO_LONGER_CURRENT}, and now lies under what was archived of the copy: {newest}"


def _ids(versions: list[Version]) -> list[str]:
    return [version.version_id for version in versions if version.version_id is not None]
