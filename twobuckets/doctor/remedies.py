"""What `--fix` does: plans actions from findings, and applies them. The only caller of writers.

Rules that every action keeps: a configuration is merged, so that a foreign rule stays; a staged
object is deleted only when the archive is proven, at that moment, to hold exactly its version, and
only that version of it, and nothing older comes to light under it; an upload is aborted only when
its parts are what they were when the plan was made.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from functools import partial
from itertools import islice
from typing import TYPE_CHECKING, ClassVar, Final, NamedTuple, NoReturn

from twobuckets.doctor import buckets, uploads
from twobuckets.doctor.configuration import CHANGES
from twobuckets.doctor.staging import is_archived
from twobuckets.doctor.stuck import WOKEN, WOKEN_UNASKED, WOKEN_WHEN_ASKED
from twobuckets.errors import CredentialsError, TwoBucketsError
from twobuckets.parallel import map_unordered
from twobuckets.pipeline.conversation import hold
from twobuckets.pipeline.deleting import delete_archived
from twobuckets.pipeline.lookups import CouldNotLook
from twobuckets.s3.answers import AnswerError
from twobuckets.s3.engine import Response, SendError
from twobuckets.s3.operations import abort_multipart_upload, list_parts, read_parts
from twobuckets.s3.refusals import explain

if TYPE_CHECKING:
    from twobuckets.doctor.findings import Finding
    from twobuckets.doctor.site import Site
    from twobuckets.doctor.stuck import Stuck, StuckGroup
    from twobuckets.pipeline.conversation import Talk
    from twobuckets.pipeline.versions import Version
    from twobuckets.s3.answers import ListedUpload
    from twobuckets.s3.uploads import IncompleteUpload

Wake = Callable[["Version"], None]
"""Asks the processor, asynchronously, for exactly one staged version. Raises TwoBucketsError."""

_ABORT_TRIES: Final = 5
_LOOKED_AT: Final = 32
_ENDED: Final = "it was completed or aborted meanwhile"
_ARCHIVED: Final = "stuck-archived"
CHANGED_WHEN_ASKED: Final = frozenset({"concurrency-zero", "failure-queue"})
FIXABLE: Final = frozenset(CHANGES) | WOKEN | {_ARCHIVED, uploads.CHECK.name}
"""Checks whose findings `--fix` fixes."""


class _Step(NamedTuple):
    """One thing to do: what it is about, and the function that does it and says what came of it."""

    subject: str
    run: Callable[[], str | None]


@dataclass(frozen=True, slots=True)
class FixAction:
    """Something that `--fix` would change, with the finding's check that it is the remedy of.

    `says` is what it does in words, `count` the number of objects or uploads that it is about.
    """

    type_name: ClassVar[str] = "action"

    check: str
    subject: str
    says: str
    count: int = 1


@dataclass(frozen=True, slots=True)
class Applied:
    """What came of an action: how many steps were done, left because things changed, or failed.

    `left` and `failed` tell a few subjects with the reason.
    """

    check: str
    subject: str
    says: str
    done: int
    left: tuple[str, ...]
    left_count: int
    failed: tuple[str, ...]
    failed_count: int


@dataclass(frozen=True, slots=True)
class PlannedFix:
    """An action and how it is applied."""

    action: FixAction
    steps: Callable[[], Iterable[_Step]]


_TOLD: Final = 5


def plan(
    site: Site,
    findings: Iterable[Finding],
    stuck: Stuck | None,
    asked: frozenset[str],
    wake: Wake,
) -> Iterator[PlannedFix]:
    """Yield what fixes the findings, wiring first and waking last. Reads only.

    `stuck` is what the findings about staging were made from, None where it was not listed;
    `asked` are the checks that were asked for by name.
    """
    subjects: dict[str, list[str]] = {}
    for finding in findings:
        if finding.fixable and (finding.check in asked or not needs_asking(site, finding.check)):
            subjects.setdefault(finding.check, []).append(finding.subject)
    for check, change_for in CHANGES.items():
        for subject in dict.fromkeys(subjects.get(check, ())):
            change = change_for(site, subject)
            step = _Step(subject, change.run)
            yield PlannedFix(FixAction(check, subject, change.says), partial(iter, [step]))
    if uploads.CHECK.name in subjects:
        yield from _plan_aborts(site)
    if stuck is not None:
        can_wake = stuck.first is None or stuck.first.check in subjects
        yield from _plan_objects(site, stuck.groups, asked, wake, can_wake=can_wake)


def apply(planned: PlannedFix) -> Iterator[Applied]:
    """Apply one action and yield what came of it; a step that fails does not stop the others.

    Raises CredentialsError, after that, when AWS takes the credentials no longer: no more steps are
    begun then.
    """
    over: CredentialsError | None = None
    done, left, failed = 0, [], []

    def iter_steps() -> Iterator[_Step]:
        nonlocal over
        try:
            yield from itertools.takewhile(lambda _: over is None, planned.steps())
        except CredentialsError as error:
            over = error

    for subject, reason, error in map_unordered(_run, iter_steps()):
        if isinstance(error, CredentialsError):
            over = error
        if error is not None:
            failed.append(f"{subject}: {error}")
        elif reason is not None:
            left.append(f"{subject}: {reason}")
        else:
            done += 1
    action = planned.action
    yield Applied(
        check=action.check,
        subject=action.subject,
        says=action.says,
        done=done,
        left=tuple(left[:_TOLD]),
        left_count=len(left),
        failed=tuple(failed[:_TOLD]),
        failed_count=len(failed),
    )
    if over is not None:
        raise over


def _run(step: _Step) -> tuple[str, str | None, TwoBucketsError | CouldNotLook | None]:
    try:
        return step.subject, step.run(), None
    except (TwoBucketsError, CouldNotLook) as error:
        return step.subject, None, error


# Objects and uploads


def _plan_objects(
    site: Site,
    groups: Iterable[StuckGroup],
    asked: frozenset[str],
    wake: Wake,
    *,
    can_wake: bool,
) -> Iterator[PlannedFix]:
    for group in groups:
        check, objects = group.cause.check, group.objects
        subject = f"s3://{site.staging}"
        if check == _ARCHIVED:
            action = FixAction(
                check, subject, "delete from staging what the archive holds", len(objects)
            )
            yield PlannedFix(action, partial(_delete_steps, site, objects))
        elif can_wake and (
            check in WOKEN_UNASKED or (check in WOKEN_WHEN_ASKED and check in asked)
        ):
            words = f"wake the processor for each ({group.cause.error or check})"
            action = FixAction(check, subject, words, len(objects))
            yield PlannedFix(action, partial(_wake_steps, objects, wake))


def needs_asking(site: Site, check: str) -> bool:
    """Tell whether the remedy of a check is applied only when the check was asked for by name.

    Noncurrent versions may be the only copies where somebody else's processor does not archive
    files under their own keys, or deletes them without their version ids; and somebody else's in a
    bucket that was there before the stack. A function may have been
    switched off for a reason, and what was given up on fails again until that is mended.
    """
    return check in WOKEN_WHEN_ASKED | CHANGED_WHEN_ASKED or (
        check == buckets.VERSIONS_CHECK and not site.owns_staging
    )


def _wake_steps(objects: Iterable[Version], wake: Wake) -> Iterator[_Step]:
    for staged in objects:
        yield _Step(staged.key, partial(wake, staged))


def _delete_steps(site: Site, objects: Iterable[Version]) -> Iterator[_Step]:
    for staged in objects:
        yield _Step(staged.key, partial(_delete_archived, site, staged))


def _delete_archived(site: Site, staged: Version) -> str | None:
    """Delete one staged version that the archive provably holds now; else say why not."""
    if not is_archived(site, staged):
        return "the archive no longer holds this version, so it stays"
    return delete_archived(site.aws.s3, site.staging, staged)


def _plan_aborts(site: Site) -> Iterator[PlannedFix]:
    for bucket in dict.fromkeys((site.staging, site.archive)):
        if not site.buckets.exists(bucket):
            continue
        orphaned = list(uploads.iter_orphaned(site, bucket))
        if orphaned:
            says = "abort incomplete uploads whose parts do not change meanwhile"
            action = FixAction(uploads.CHECK.name, f"s3://{bucket}", says, len(orphaned))
            yield PlannedFix(action, partial(_abort_steps, site, bucket, orphaned))


def _abort_steps(site: Site, bucket: str, orphaned: Iterable[ListedUpload]) -> Iterator[_Step]:
    """Yield an abort for each upload, looking at the parts of a few at a time just before it."""
    rest = iter(orphaned)
    with site.connect() as sender:
        while batch := list(islice(rest, _LOOKED_AT)):
            try:
                held = uploads.read_held(sender, bucket, batch)
            except CouldNotLook as reason:
                yield from (_Step(upload.key, partial(_raise, reason)) for upload in batch)
                continue
            talks = (
                _abort(site, bucket, upload, now) for upload, now in zip(batch, held, strict=True)
            )
            yield from hold(sender, talks)


def _raise(reason: CouldNotLook | TwoBucketsError) -> NoReturn:
    raise reason


def _abort(
    site: Site, bucket: str, listed: ListedUpload, now: IncompleteUpload | None
) -> Talk[_Step]:
    """Abort one upload unless somebody still sends parts, and return what that came to."""

    def came_to(reason: str | None) -> _Step:
        return _Step(listed.key, lambda: reason)

    def failed(answer: Response | Exception, operation: str) -> _Step:
        error = explain(answer, operation, f"abort the upload of s3://{bucket}/{listed.key}")
        return _Step(listed.key, partial(_raise, error))

    if now is None:
        return came_to(_ENDED)
    if now.newest_part_at is not None and (site.now - now.newest_part_at < site.uploads_older_than):
        return came_to("a part came lately, so somebody still uploads it")
    upload = bucket, now.key, now.upload_id
    for number in range(_ABORT_TRIES):
        (aborted,) = yield [abort_multipart_upload(*upload)]
        if isinstance(aborted, Response) and aborted.status == 404:
            return came_to(None if number else _ENDED)
        if isinstance(aborted, SendError) or not aborted.ok:
            return failed(aborted, "AbortMultipartUpload")
        # A part that was under way may land after the abort (S3 API, AbortMultipartUpload).
        (left,) = yield [list_parts(*upload)]
        if isinstance(left, Response) and left.status == 404:
            return came_to(None)
        if isinstance(left, SendError) or not left.ok:
            return failed(left, "ListParts")
        try:
            if not read_parts(left).parts:
                return came_to(None)
        except (AnswerError, KeyError, ValueError) as error:
            return failed(error, "ListParts")
    return came_to("parts kept coming after the abort")
