"""Objects that stay in staging, grouped by why.

The order of the questions: is it proven to be in the archive; what did the log say of it; did its
notification leave it out; can anything wake the processor at all; did an invocation die at its
time; may it still be under way. Only when all of that says nothing, the event was lost.
"""

from __future__ import annotations

import heapq
import itertools
import math
from dataclasses import dataclass, field
from datetime import timedelta
from typing import TYPE_CHECKING, Final

from twobuckets.doctor import function, wiring
from twobuckets.doctor.causes import MOST_EVENTS, Cause, Told, read_causes
from twobuckets.doctor.findings import Check, Finding, Severity
from twobuckets.doctor.site import DELIVERY, READ_BYTES_A_SECOND
from twobuckets.doctor.staging import is_archived, iter_stuck
from twobuckets.doctor.summary import StagedTotals
from twobuckets.parallel import map_ordered, map_unordered
from twobuckets.pipeline.lookups import CouldNotLook, Gone
from twobuckets.pipeline.retries import LONGEST_TIMEOUT
from twobuckets.text import shell_word
from twobuckets.units import format_bytes, format_duration

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping

    from twobuckets.doctor.findings import Finder
    from twobuckets.doctor.site import Site
    from twobuckets.pipeline.notifications import Route
    from twobuckets.pipeline.versions import Version

MOST_EXPLAINED: Final = 200_000
"""How many stuck objects are looked into; more are only counted."""
_SAMPLES: Final = 16
"""How many objects of a group are looked for in the archive before all of them are."""
_MOST_LOOKED_FOR: Final = 2_000
_EXAMPLES: Final = 3
_MOST_GROUPS: Final = 40
_OTHERS: Final = "many different errors"

CHECKS: Final = (
    Check("stuck-failed", "The processor failed on objects; grouped by error."),
    Check("stuck-timed-out", "The function's time-out ended the processing of objects."),
    Check("stuck-out-of-memory", "The function ran out of memory on objects."),
    Check("stuck-rejected", "The processor refused objects for good."),
    Check("stuck-never-invoked", "The processor was never told of objects."),
    Check("stuck-missed", "The processor did not find objects that are there now."),
    Check("stuck-throttled", "Lambda held the events of objects back."),
    Check("stuck-filtered", "The notification's filter leaves objects out."),
    Check("stuck-archived", "Objects are in the archive and were not deleted from staging."),
    Check("stuck-key", "The processor does not decode the keys of objects."),
    Check("stuck-left", "The processor reported no error and left objects in staging."),
    Check("stuck-superseded", "Older versions came back when newer ones were archived."),
    Check("stuck-in-progress", "Objects may still be under way."),
    Check("stuck-unexplained", "More objects are stuck than doctor looks into."),
    Check("timeout-size", "Staged files are too large to be read within the time-out."),
)
_WHY: Final = {
    "stuck-failed": "The processor failed each time it tried. Fix the processor, or the files, "
    "then wake it",
    "stuck-timed-out": "The function's time-out ended the processing. Give the function more time "
    "or memory, then wake it",
    "stuck-out-of-memory": "The function ran out of memory. Give it more, then wake it",
    "stuck-rejected": "The processor refused for good, so nothing is tried again. Fix the "
    "processor, then wake it; or delete the files",
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
    "stuck-superseded": "Newer versions of the keys were archived, and these older ones came back "
    "into sight. Delete them, or archive them by hand",
}

# What an event of ours does not mend, and what does.
_NOT_WOKEN: Final = {
    "stuck-archived": "in the archive already; `doctor --fix` deletes the copy in staging",
    "stuck-superseded": "a newer version of its key was archived; delete it, or archive it by hand",
    "stuck-in-progress": "may still be under way",
}


@dataclass(slots=True)
class StuckGroup:
    """Stuck objects that share a cause."""

    cause: Cause
    why: str
    objects: list[Version] = field(default_factory=list)


@dataclass(frozen=True, slots=True)
class Stuck:
    """What lies in staging, and what is stuck of it by cause, the cause of the most first.

    `uncounted` more are stuck than were looked into. `unread` is why the log could not be read,
    None where it was: then causes are told by what else is known.
    """

    totals: StagedTotals
    groups: tuple[StuckGroup, ...] = ()
    uncounted: int = 0
    unread: CouldNotLook | None = None

    def iter_wakeable(self) -> Iterator[tuple[Version, str | None]]:
        """Yield the objects, and why waking the processor for one is wrong, None if right."""
        for group in self.groups:
            reason = _NOT_WOKEN.get(group.cause.check)
            for staged in group.objects:
                yield staged, reason


def examine(site: Site) -> Stuck:
    """Return what is stuck and why.

    Lists staging once and reads the log once, whatever is stuck. Raises CouldNotLook.
    """
    totals = StagedTotals(readable_bytes=site.readable_bytes, stuck_after=site.stuck_after)
    stuck: dict[str, Version] = {}
    more = 0
    for staged in iter_stuck(site, totals):
        if len(stuck) < MOST_EXPLAINED:
            stuck[staged.key] = staged
        else:
            more += 1
    if not stuck:
        return Stuck(totals)
    unread: CouldNotLook | None = None
    try:
        told = read_causes(site, stuck)
    except Gone:
        told = Told()
    except CouldNotLook as reason:
        told, unread = Told(), reason
    groups = list(_groups(site, stuck, told, log_is_read=unread is None))
    groups = _join_small(_split_archived(site, groups))
    groups.sort(key=lambda group: -len(group.objects))
    return Stuck(totals, tuple(groups), more, unread)


def iter_findings(site: Site, stuck: Stuck) -> Iterator[Finding]:
    """Yield a finding for each cause. Raises CouldNotLook at the end for an unread log."""
    if stuck.totals.too_large:
        yield _too_large(site, stuck.totals)
    for group in stuck.groups:
        yield _finding(site, group)
    if stuck.uncounted:
        yield _uncounted(site, stuck.uncounted)
    if stuck.unread is not None:
        raise stuck.unread


def _groups(
    site: Site, stuck: Mapping[str, Version], told: Told, *, log_is_read: bool
) -> Iterable[StuckGroup]:
    groups: dict[tuple[str, str], StuckGroup] = {}

    def put(staged: Version, cause: Cause, why: str) -> None:
        group = groups.setdefault((cause.check, cause.error), StuckGroup(cause, why))
        group.objects.append(staged)

    untold = []
    for key, staged in stuck.items():
        found = told.causes.get(key)
        if found is None:
            untold.append(staged)
        else:
            put(staged, found[1], _WHY[found[1].check])
    if untold:
        for staged, cause, why in _explain_untold(site, untold, told, log_is_read=log_is_read):
            put(staged, cause, why)
    return groups.values()


def _explain_untold(
    site: Site, untold: list[Version], told: Told, *, log_is_read: bool
) -> Iterator[tuple[Version, Cause, str]]:
    """Yield a cause for each object of which the log says nothing."""
    blocked = _find_block(site)
    routes = _routes(site)
    deaths = _match_deaths(site, untold, told)
    for staged in untold:
        age = site.now - staged.modified_at
        if routes and not any(route.tells_of(staged.key) for route in routes):
            yield staged, Cause("stuck-filtered", ""), _WHY["stuck-filtered"]
        elif death := deaths.get(staged.key):
            why = f"{_WHY[death.check].partition('. ')[0]}: invocations that began when these came "
            yield staged, death, why + "died without naming a file"
        elif blocked is not None:
            yield staged, blocked[0], blocked[1]
        elif age < site.may_take:
            until = format_duration(site.may_take)
            why = f"They may still be under way: delivery and every try can take {until}"
            yield staged, Cause("stuck-in-progress", ""), why
        else:
            why = "No invocation mentions them" if log_is_read else "The log could not be read"
            if not told.is_complete:
                why += f" in the newest {MOST_EVENTS:,} lines of the log"
            why += ", and what wakes the processor is in order now: the events were lost, or came "
            why += "while something was not in order"
            yield staged, Cause("stuck-never-invoked", ""), why


def _routes(site: Site) -> list[Route]:
    try:
        return site.facts.routes_to_function()
    except CouldNotLook:
        return []


# What keeps the processor from being told, by the check that finds it.
_BLOCKS: Final[tuple[tuple[Finder, str], ...]] = (
    (function.find_missing_function, "stuck-never-invoked"),
    (wiring.find_missing_notification, "stuck-never-invoked"),
    (wiring.find_missing_permission, "stuck-never-invoked"),
    (wiring.find_disabled_event_sources, "stuck-never-invoked"),
    (function.find_switched_off, "stuck-throttled"),
)


# Findings that `--fix` mends, so that one command can mend what is broken and then wake.
_MENDED_FIRST: Final = frozenset(
    {"notification-missing", "notification-events", "permission-missing"}
)


def _find_block(site: Site) -> tuple[Cause, str] | None:
    """Return why nothing can wake the processor now, None when something can."""
    for find, check in _BLOCKS:
        try:
            finding = next(find(site), None)
        except CouldNotLook:
            continue
        if finding is not None:
            return Cause(check, finding.check), finding.detail.rstrip(".")
    try:
        throttled = site.function.metrics()["Throttles"]
    except CouldNotLook:
        return None
    if throttled:
        why = f"Lambda throttled the function {int(throttled):,} times in the last day, and gives "
        return Cause("stuck-throttled", ""), why + "an event up after at most 6 hours"
    return None


def _match_deaths(site: Site, untold: list[Version], told: Told) -> dict[str, Cause]:
    """Return for objects the death of an invocation that fits their arrival, each death once."""
    if not told.deaths:
        return {}
    reach = DELIVERY + site.timeout
    matched: dict[str, Cause] = {}
    waiting = sorted(untold, key=lambda staged: staged.modified_at)
    deaths = iter(told.deaths)
    death = next(deaths, None)
    for staged in waiting:
        while death is not None and death.died_at < staged.modified_at - timedelta(seconds=1):
            death = next(deaths, None)
        if death is None:
            break
        if death.died_at <= staged.modified_at + reach:
            matched[staged.key] = death.cause
            death = next(deaths, None)
    return matched


def _split_archived(site: Site, groups: list[StuckGroup]) -> Iterator[StuckGroup]:
    """Yield the groups, and what is proven to be archived as a group of its own."""
    archived: list[Version] = []
    looked = map_ordered(lambda group: (group, _archived_among(site, group)), groups, workers=4)
    for group, found in looked:
        archived += found
        if found:
            gone = {staged.key for staged in found}
            group.objects = [staged for staged in group.objects if staged.key not in gone]
        if group.objects:
            yield group
    if archived:
        yield StuckGroup(Cause("stuck-archived", ""), _WHY["stuck-archived"], archived)


def _archived_among(site: Site, group: StuckGroup) -> list[Version]:
    """Return what is in the archive: a sample is looked for first, and all if one of it is there.

    What was rejected, or can't be looked for, stays what it is.
    """
    if group.cause.check == "stuck-rejected":
        return []
    objects = group.objects
    step = max(1, len(objects) // _SAMPLES)
    sample = objects[::step][:_SAMPLES]
    try:
        found = _look_for(site, sample)
        if not found or len(sample) == len(objects):
            return found
        asked = {staged.key for staged in sample}
        rest = (staged for staged in objects if staged.key not in asked)
        return found + _look_for(site, itertools.islice(rest, _MOST_LOOKED_FOR))
    except CouldNotLook:
        return []


def _look_for(site: Site, objects: Iterable[Version]) -> list[Version]:
    looked = map_unordered(lambda staged: (staged, is_archived(site, staged)), objects)
    return [staged for staged, is_there in looked if is_there]


def _join_small(groups: Iterable[StuckGroup]) -> list[StuckGroup]:
    """Return at most so many groups as a person reads; the smallest become one for each check."""
    ordered = sorted(groups, key=lambda group: -len(group.objects))
    joined: dict[str, StuckGroup] = {}
    for group in ordered[_MOST_GROUPS:]:
        check = group.cause.check
        others = joined.setdefault(check, StuckGroup(Cause(check, _OTHERS), group.why))
        others.objects += group.objects
    return ordered[:_MOST_GROUPS] + list(joined.values())


def _finding(site: Site, group: StuckGroup) -> Finding:
    check, error = group.cause.check, group.cause.error
    size_bytes = sum(staged.size_bytes for staged in group.objects)
    checks = [error, check] if error in _MENDED_FIRST else [check]
    oldest = heapq.nsmallest(_EXAMPLES, group.objects, key=lambda staged: staged.modified_at)
    return Finding(
        check=check,
        severity=Severity.NOTICE if check == "stuck-in-progress" else Severity.PROBLEM,
        subject=f"s3://{site.staging}",
        detail=f"{group.why}.",
        # What newer versions covered once is for a person to decide about.
        remedy=None if check == "stuck-superseded" else site.fix_command(*checks),
        count=len(group.objects),
        size_bytes=size_bytes,
        cost_month_usd=round(site.settings.prices.month_usd(size_bytes), 6),
        oldest_at=oldest[0].modified_at,
        examples=tuple(staged.key for staged in oldest),
        objects=tuple(staged.key for staged in group.objects),
        error=error or None,
    )


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
