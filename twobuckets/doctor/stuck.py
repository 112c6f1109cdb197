"""What is stuck in staging, by cause: the checks, what a cause asks for, and the findings."""

from __future__ import annotations

import heapq
import itertools
import math
from dataclasses import dataclass, field
from datetime import timedelta
from typing import TYPE_CHECKING, Final

from twobuckets.doctor.findings import Check, Finding, Severity
from twobuckets.doctor.site import READ_BYTES_A_SECOND
from twobuckets.logs.errors import matches, pattern_of
from twobuckets.logs.failures import in_turn
from twobuckets.pipeline.retries import LONGEST_TIMEOUT
from twobuckets.processor.contract import FAILED, REJECTED
from twobuckets.text import shell_word
from twobuckets.units import format_bytes, format_duration

if TYPE_CHECKING:
    from collections.abc import Collection, Iterator

    from twobuckets.doctor.causes import Cause
    from twobuckets.doctor.site import Site
    from twobuckets.doctor.summary import StagedTotals
    from twobuckets.pipeline.lookups import CouldNotLook
    from twobuckets.pipeline.versions import Version

MOST_EXPLAINED: Final = 200_000
"""How many stuck objects are looked into; more are only counted."""
_EXAMPLES: Final = 3
MANY: Final = "many different errors"

JOB_RUNNING: Final = "job-running"

CHECKS: Final = (
    Check("stuck-failed", "The processor failed on objects; grouped by error."),
    Check("stuck-timed-out", "The function's time-out ended the processing of objects."),
    Check("stuck-out-of-memory", "The function ran out of memory on objects."),
    Check("stuck-rejected", "The processor refused objects for good."),
    Check("stuck-own-key", "Objects are encrypted with their uploader's own key (SSE-C)."),
    Check("stuck-kms", "The processor may not use the KMS key of objects."),
    Check("stuck-unnamed", "Invocations died without naming a file, most likely on objects here."),
    Check("stuck-never-invoked", "The processor was never told of objects."),
    Check("stuck-missed", "The processor did not find objects that are there now."),
    Check("stuck-throttled", "Lambda held the events of objects back."),
    Check("stuck-filtered", "The notification's filter leaves objects out."),
    Check("stuck-archived", "Objects are in the archive and were not deleted from staging."),
    Check("stuck-locked", "Objects are in the archive, and a lock keeps them in staging too."),
    Check("stuck-key", "The processor does not decode the keys of objects."),
    Check("stuck-left", "The processor reported no error and left objects in staging."),
    Check("stuck-superseded", "Older versions came back when newer ones were archived."),
    Check("stuck-in-progress", "Objects may still be under way."),
    Check("stuck-job", "The jobs that have objects failed, can't be placed or are gone."),
    Check("job-running", "Jobs work on objects, or wait for their turn."),
    Check("stuck-unexplained", "More objects are stuck than doctor looks into."),
    Check("timeout-size", "Staged files are too large to be read within the time-out."),
)
WHY: Final = {
    "stuck-failed": "The processor failed each time it tried. Fix the processor, or the files, "
    "then wake it",
    "stuck-timed-out": "The function's time-out ended the processing. Give the function more time "
    "or memory, then wake it",
    "stuck-out-of-memory": "The function ran out of memory. Give it more, then wake it",
    "stuck-rejected": "The processor refused for good, so nothing is tried again. Fix the "
    "processor, then wake it; or delete the files",
    "stuck-own-key": "S3 gives nothing of them without the key that their uploader encrypted them "
    "with (SSE-C), so nobody here can process them. Have them sent again without it, and delete "
    "these",
    "stuck-kms": "S3 gives them only to who may use their key of KMS, which the processor may not. "
    "Enable the key, let the function's role use it (kms:Decrypt, and kms:GenerateDataKey for the "
    "archive), then wake it",
    "stuck-locked": "The archive holds exactly these versions, so nothing is lost; what is in "
    "staging can't be deleted, for the reason told. It goes when that ends: a retention by itself, "
    "a legal hold and MFA Delete by whoever may end them. Then `doctor --fix` deletes it",
    "stuck-archived": "The archive holds exactly these versions: what is in staging was copied, "
    "and not deleted",
    "stuck-filtered": "The notification's filter leaves these keys out, so the processor was never "
    "told",
    "stuck-key": "S3 encodes keys in its events, and the processor looked for them as they were "
    "encoded. Decode them with urllib.parse.unquote_plus, then wake it",
    "stuck-left": "Invocations handled them, reported no error, and left them here. An exception "
    "that is caught and swallowed looks like this: fix the processor, then wake it",
    "stuck-missed": "When the processor looked, S3 said that they do not exist, and they are there "
    "now: the bucket's versions had been switched on minutes before, or a delete marker was taken "
    "away since. They were not processed",
    "stuck-job": "The processor handed them to jobs of AWS Batch, which ended without a word of "
    "their own. Fix what is in their way, then wake the processor",
    "job-running": "The processor handed them to jobs of AWS Batch, which work on them or wait for "
    "their turn",
    "stuck-superseded": "Newer versions of the keys were archived, and these older ones came back "
    "into sight. Delete them, or archive them by hand",
}

# Failures on record, which count before an object is old enough to be stuck by its age.
FAILURES: Final = frozenset(
    {
        "stuck-failed",
        "stuck-timed-out",
        "stuck-out-of-memory",
        "stuck-rejected",
        "stuck-own-key",
        "stuck-kms",
        "stuck-key",
        "stuck-left",
        "stuck-job",
    }
)
# Of these, what Lambda or a queue tries again by itself.
RETRIED: Final = frozenset(
    {"stuck-failed", "stuck-timed-out", "stuck-out-of-memory", "stuck-kms", "stuck-key"}
)

# What an event of ours does not help, and what does.
_NOT_WOKEN: Final = {
    "stuck-archived": "in the archive already; `doctor --fix` deletes the copy in staging",
    "stuck-locked": "in the archive already; a lock keeps it in staging as well",
    "stuck-own-key": "encrypted with its uploader's own key (SSE-C): have it sent again without",
    "stuck-superseded": "a newer version of its key was archived; delete it, or archive it by hand",
    "stuck-in-progress": "may still be under way",
    "job-running": "a job of AWS Batch has it",
}


# Waking is no remedy for what the processor, the file or a person has to change first, so these
# are woken only when they are asked for by name.
WOKEN_WHEN_ASKED: Final = frozenset(
    {
        "stuck-failed",
        "stuck-timed-out",
        "stuck-out-of-memory",
        "stuck-rejected",
        "stuck-kms",
        "stuck-filtered",
        "stuck-key",
        "stuck-left",
        "stuck-job",
        "stuck-in-progress",
    }
)
# What nothing names is woken at once: if a guess at the cause is right, it only fails again.
WOKEN_UNASKED: Final = frozenset(
    {"stuck-never-invoked", "stuck-missed", "stuck-throttled", "stuck-unnamed"}
)
WOKEN: Final = WOKEN_UNASKED | WOKEN_WHEN_ASKED
"""Checks whose remedy is to wake the processor, which then takes its time."""

_SEVERITIES: Final = {
    "stuck-in-progress": Severity.NOTICE,
    "stuck-locked": Severity.NOTICE,
    "job-running": Severity.INFO,
}
# What newer versions covered once, what a lock keeps and what nobody can read is a person's to
# decide about; a job ends by itself.
_WITHOUT_REMEDY: Final = frozenset(
    {"stuck-superseded", "stuck-locked", "stuck-own-key", JOB_RUNNING}
)

# Findings that `--fix` fixes, so that one command can fix what is broken and then wake.
_FIXED_FIRST: Final = frozenset(
    {"notification-missing", "notification-events", "permission-missing", "concurrency-zero"}
)


@dataclass(slots=True)
class StuckGroup:
    """Stuck objects that share a cause."""

    cause: Cause
    why: str
    objects: list[Version] = field(default_factory=list)
    trying: int = 0
    """Of how many the failure is not the last: they are tried again by themselves."""


@dataclass(frozen=True, slots=True)
class Stuck:
    """What lies in staging, and what is stuck of it by cause, the cause of the most first.

    An object is stuck by its age, or once its failure for good is on record. `uncounted` more are
    stuck than were looked into. `unread` is why the log could not be read, None where it was: then
    causes are told by what else is known. `first` is what has to be fixed before waking the
    processor can do anything, None where nothing has.
    """

    totals: StagedTotals
    groups: tuple[StuckGroup, ...] = ()
    uncounted: int = 0
    unread: CouldNotLook | None = None
    first: Finding | None = None

    def iter_wakeable(
        self, *, kinds: Collection[str] = (), errors: Collection[str] = ()
    ) -> Iterator[tuple[Version, str | None]]:
        """Yield the objects, and why waking the processor for one is wrong, None if right.

        Only those that failed in one of these ways (see `logs.errors.KINDS`) and with an error that
        one of the patterns `errors` matches, if any are given. One of each cause comes first, then
        the second of each, and so on.
        """
        meant = [
            group
            for group in self.groups
            if matches(group.cause.error, errors)
            and (not kinds or _kind_of(group.cause.check) in kinds)
        ]
        yield from in_turn(
            zip(group.objects, itertools.repeat(_NOT_WOKEN.get(group.cause.check)), strict=False)
            for group in meant
        )


def _kind_of(check: str) -> str:
    """Return the kind of outcome that a check stands for, as `logs.errors.KINDS` has it."""
    return {"stuck-own-key": REJECTED, "stuck-kms": FAILED}.get(check, check.removeprefix("stuck-"))


def iter_findings(site: Site, stuck: Stuck) -> Iterator[Finding]:
    """Yield a finding for each cause. Raises CouldNotLook at the end for an unread log."""
    if stuck.totals.too_large:
        yield _too_large(site, stuck.totals)
    for group in stuck.groups:
        yield _finding(site, group, stuck.first)
    if stuck.uncounted:
        yield _uncounted(site, stuck.uncounted)
    if stuck.unread is not None:
        raise stuck.unread


def _finding(site: Site, group: StuckGroup, first: Finding | None) -> Finding:
    check, error = group.cause.check, group.cause.error
    size_bytes = sum(staged.size_bytes for staged in group.objects)
    oldest = heapq.nsmallest(_EXAMPLES, group.objects, key=lambda staged: staged.modified_at)
    return Finding(
        check=check,
        severity=_SEVERITIES.get(check, Severity.PROBLEM),
        subject=f"s3://{site.staging}",
        detail=_detail(site, group, first),
        remedy=_remedy(site, group, first),
        count=len(group.objects),
        size_bytes=size_bytes,
        cost_month_usd=round(site.settings.prices.month_usd(size_bytes), 6),
        oldest_at=oldest[0].modified_at,
        examples=tuple(staged.key for staged in oldest),
        objects=tuple(staged.key for staged in group.objects),
        error=error or None,
    )


def _detail(site: Site, group: StuckGroup, first: Finding | None) -> str:
    why = group.why
    if group.trying:
        retries = site.retries
        tries = f", {retries.attempts} times in all" if retries.attempts is not None else ""
        so_far, _, advice = why.partition(". ")
        so_far = so_far.replace("failed each time it tried", "failed so far")
        some = "these" if group.trying == len(group.objects) else f"{group.trying:,} of these"
        why = f"{so_far}, and {retries.by} tries {some} again by itself{tries}. {advice}"
    waits = first is not None and group.cause.check in WOKEN and group.cause.error != first.check
    return f"{why.removesuffix('. ')}." + (
        f" First: {first.detail}" if first is not None and waits else ""
    )


def _remedy(site: Site, group: StuckGroup, first: Finding | None) -> str | None:
    check, error = group.cause.check, group.cause.error
    if check in _WITHOUT_REMEDY:
        return None
    if first is not None and check in WOKEN:
        if first.check not in _FIXED_FIRST:
            return first.remedy
        return site.fix_command(first.check, check)
    if check in FAILURES and error and error != MANY:
        return _reprocess_command(site, error)
    return site.fix_command(*([error, check] if error in _FIXED_FIRST else [check]))


def _reprocess_command(site: Site, error: str) -> str:
    """Return the command that wakes the processor for what failed with one error."""
    words = [site.program, "reprocess", "--stuck"]
    if site.older_than is not None:
        words.append(f"--older-than {site.older_than.total_seconds():g}s")
    words.append(f"--error {shell_word(pattern_of(error), otherwise='PATTERN')}")
    return " ".join(words)


def _too_large(site: Site, staged: StagedTotals) -> Finding:
    takes = timedelta(seconds=staged.largest_bytes / READ_BYTES_A_SECOND)
    # Twice what reading takes: something is to be done with what was read.
    needed = math.ceil(takes * 2 / timedelta(minutes=1)) * timedelta(minutes=1)
    name = shell_word(site.function.name)
    return Finding(
        check="timeout-size",
        # Nothing says that the processor reads the whole file, as long as none of them stays.
        severity=Severity.NOTICE if staged.too_large_stuck else Severity.INFO,
        subject=f"s3://{site.staging}",
        detail="Staged files too large to be read from end to end within the function's time-out "
        f"of {format_duration(site.timeout)}: {staged.too_large:,}, of which "
        f"{staged.too_large_stuck:,} stuck. The largest has "
        f"{format_bytes(staged.largest_bytes)}: one request takes "
        f"{format_duration(takes)} at 90 MB/s."
        + (
            ""
            if needed <= LONGEST_TIMEOUT
            else f" Lambda allows {format_duration(LONGEST_TIMEOUT)}: read such files in several "
            "requests at a time, or process them elsewhere."
        ),
        remedy=f"{site.aws_cli} lambda update-function-configuration --function-name {name} "
        f"--timeout {needed.total_seconds():.0f}"
        if needed <= LONGEST_TIMEOUT
        else None,
        count=staged.too_large,
        examples=(staged.largest,),
    )


def _uncounted(site: Site, more: int) -> Finding:
    return Finding(
        check="stuck-unexplained",
        severity=Severity.PROBLEM,
        subject=f"s3://{site.staging}",
        detail=f"{more:,} more objects are stuck; doctor looks into {MOST_EXPLAINED:,} at a time. "
        "Fix those first.",
        count=more,
    )
