"""Objects that stay in staging, grouped by why.

The order of the questions: is it proven to be in the archive; what did the log say of it; did its
notification leave it out; can anything wake the processor at all; could its code be loaded at that
time; did an invocation die, or Lambda throttle, at that time, which makes it likely and no more;
may it still be under way. Only when all of that says nothing, the event was lost.
"""

from __future__ import annotations

import bisect
import heapq
import itertools
import math
from collections import deque
from dataclasses import dataclass, field
from datetime import timedelta
from typing import TYPE_CHECKING, Final, NamedTuple

from twobuckets.doctor import function, wiring
from twobuckets.doctor.causes import (
    MOST_EVENTS,
    Cause,
    Evidence,
    LastWord,
    Nameless,
    read_evidence,
)
from twobuckets.doctor.findings import Check, Finding, Severity
from twobuckets.doctor.site import DELIVERY, READ_BYTES_A_SECOND
from twobuckets.doctor.staging import is_archived, iter_staged, version_staged
from twobuckets.doctor.summary import StagedTotals
from twobuckets.logs.errors import matches, pattern_of
from twobuckets.logs.failures import in_turn
from twobuckets.parallel import map_ordered, map_unordered
from twobuckets.pipeline.lookups import CouldNotLook, Gone
from twobuckets.pipeline.retries import LONGEST_TIMEOUT
from twobuckets.text import shell_word
from twobuckets.units import format_bytes, format_duration

if TYPE_CHECKING:
    from collections.abc import Collection, Iterable, Iterator, Mapping
    from datetime import datetime

    from twobuckets.doctor.findings import Finder
    from twobuckets.doctor.site import Site
    from twobuckets.pipeline.notifications import Route
    from twobuckets.pipeline.retries import Retries
    from twobuckets.pipeline.versions import Version

MOST_EXPLAINED: Final = 200_000
"""How many stuck objects are looked into; more are only counted."""
_MOST_YOUNG: Final = 10_000
"""How many objects that are not stuck by their age are looked for in the log."""
# An event waits in Lambda's queue at most so long (Lambda developer guide,
# "Handling errors for an asynchronous invocation").
_LONGEST_HELD: Final = timedelta(hours=6)
# How long after an object's arrival Lambda first throttles its event, if it does.
_HELD_WITHIN: Final = timedelta(minutes=10)
_MINUTE: Final = timedelta(minutes=1)
_TOLERANCE: Final = timedelta(seconds=1)
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
    Check("stuck-unnamed", "Invocations died without naming a file, most likely on objects here."),
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

# Failures on record, which count before an object is old enough to be stuck by its age.
_FAILURES: Final = frozenset(
    {
        "stuck-failed",
        "stuck-timed-out",
        "stuck-out-of-memory",
        "stuck-rejected",
        "stuck-key",
        "stuck-left",
    }
)
# Of these, what Lambda or a queue tries again by itself.
_RETRIED: Final = frozenset({"stuck-failed", "stuck-timed-out", "stuck-out-of-memory", "stuck-key"})

# What an event of ours does not mend, and what does.
_NOT_WOKEN: Final = {
    "stuck-archived": "in the archive already; `doctor --fix` deletes the copy in staging",
    "stuck-superseded": "a newer version of its key was archived; delete it, or archive it by hand",
    "stuck-in-progress": "may still be under way",
}


# Waking is no remedy for what the processor, the file or a person has to change first, so these
# are woken only when they are asked for by name.
WOKEN_WHEN_ASKED: Final = frozenset(
    {
        "stuck-failed",
        "stuck-timed-out",
        "stuck-out-of-memory",
        "stuck-rejected",
        "stuck-filtered",
        "stuck-key",
        "stuck-left",
        "stuck-in-progress",
    }
)
# What nothing names is woken at once: if a guess at the cause is right, it only fails again.
WOKEN_UNASKED: Final = frozenset(
    {"stuck-never-invoked", "stuck-missed", "stuck-throttled", "stuck-unnamed"}
)
WOKEN: Final = WOKEN_UNASKED | WOKEN_WHEN_ASKED
"""Checks whose remedy is to wake the processor, which then takes its time."""


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
    causes are told by what else is known. `first` is what has to be mended before waking the
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
            and (not kinds or group.cause.check.removeprefix("stuck-") in kinds)
        ]
        yield from in_turn(
            zip(group.objects, itertools.repeat(_NOT_WOKEN.get(group.cause.check)), strict=False)
            for group in meant
        )


def examine(site: Site) -> Stuck:
    """Return what is stuck and why.

    Lists staging once and reads the log once, whatever is stuck. Raises CouldNotLook.
    """
    stuck: dict[str, Version] = {}
    young: dict[str, Version] = {}
    more = 0
    stuck_after = site.stuck_after
    totals = StagedTotals(readable_bytes=site.readable_bytes, stuck_after=stuck_after)
    for row in iter_staged(site):
        age = site.now - row.modified_at
        is_stuck = age >= stuck_after
        totals.add(row.key, age, row.size_bytes or 0, is_stuck=is_stuck)
        if is_stuck and len(stuck) < MOST_EXPLAINED:
            stuck[row.key] = version_staged(row)
        elif is_stuck:
            more += 1
        elif len(young) < _MOST_YOUNG:
            young[row.key] = version_staged(row)
    if not stuck and not young:
        return Stuck(totals)
    unread: CouldNotLook | None = None
    try:
        evidence = read_evidence(site, stuck | young)
    except Gone:
        evidence = Evidence()
    except CouldNotLook as reason:
        evidence, unread = Evidence(), reason
    groups = list(_groups(site, stuck, young, evidence, log_is_read=unread is None))
    for group in groups:
        for staged in group.objects:
            if staged.key in young:
                totals.call_stuck(staged.size_bytes)
    groups = _join_small(_split_archived(site, groups))
    groups.sort(key=lambda group: -len(group.objects))
    return Stuck(totals, tuple(groups), more, unread, _find_what_comes_first(site))


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


def _groups(
    site: Site,
    stuck: Mapping[str, Version],
    young: Mapping[str, Version],
    evidence: Evidence,
    *,
    log_is_read: bool,
) -> Iterable[StuckGroup]:
    groups: dict[tuple[str, str], StuckGroup] = {}

    def put(staged: Version, cause: Cause, why: str, *, is_last: bool = True) -> None:
        group = groups.setdefault((cause.check, cause.error), StuckGroup(cause, why))
        group.objects.append(staged)
        group.trying += not is_last

    retries = site.retries
    # Where a try before that was not the last, the next would have ended by now and said something.
    over_at = site.now - (retries.pause + site.timeout + DELIVERY)
    untold = []
    for key, staged in stuck.items():
        word = evidence.last_words.get(key)
        if word is None:
            untold.append(staged)
        else:
            is_last = word.cause.check not in _RETRIED or _is_last(word, retries, over_at)
            put(staged, word.cause, _WHY[word.cause.check], is_last=is_last)
    untold_young = []
    for key, staged in young.items():
        word = evidence.last_words.get(key)
        if word is None:
            untold_young.append(staged)
        elif word.cause.check in _FAILURES and _is_last(word, retries, over_at):
            put(staged, word.cause, _WHY[word.cause.check])
    died = _match_nameless(site, untold + untold_young, evidence)
    for staged in untold_young:
        match = died.get(staged.key)
        if match is not None and retries.is_last(match.deaths):
            put(staged, *_of_nameless(match))
    if untold:
        for staged, cause, why in _explain_untold(
            site, untold, evidence, died, log_is_read=log_is_read
        ):
            put(staged, cause, why)
    return groups.values()


def _is_last(word: LastWord, retries: Retries, over_at: datetime) -> bool:
    """Tell whether nothing more will come of an object by itself after what was said of it last."""
    is_counted_out = word.attempt is not None and retries.is_last(word.attempt)
    return word.ended_well or is_counted_out or word.at < over_at


def _explain_untold(
    site: Site,
    untold: list[Version],
    evidence: Evidence,
    died: Mapping[str, Nameless],
    *,
    log_is_read: bool,
) -> Iterator[tuple[Version, Cause, str]]:
    """Yield a cause for each object of which the log says nothing."""
    blocked = _find_block(site)
    routes = _routes(site)
    throttled_at = _throttled_at(site, untold)
    backlog = _backlog(site)
    may_take = site.may_take
    for staged in untold:
        age = site.now - staged.modified_at
        if routes and not any(route.tells_of(staged.key) for route in routes):
            yield staged, Cause("stuck-filtered", ""), _WHY["stuck-filtered"]
        elif match := died.get(staged.key):
            yield staged, *_of_nameless(match)
        elif blocked is not None and _was_blocked(staged, blocked[0], throttled_at):
            yield staged, blocked[0], blocked[1]
        elif _was_throttled(staged, throttled_at):
            yield staged, Cause("stuck-throttled", ""), _held_back(site, throttled_at)
        elif age < may_take:
            until = format_duration(may_take)
            why = f"They may still be under way: delivery and every try can take {until}"
            yield staged, Cause("stuck-in-progress", ""), why
        elif backlog and age < backlog.kept:
            why = f"Most likely they wait in {backlog.queue}, which holds {backlog.messages:,} "
            yield staged, Cause("stuck-in-progress", ""), why + "messages for the processor"
        else:
            why = "No invocation mentions them" if log_is_read else "The log could not be read"
            if not evidence.is_complete:
                why += f" in the newest {MOST_EVENTS:,} lines of the log"
            why += ", and what wakes the processor is in order now: the events were lost, or came "
            why += "while something was not in order"
            yield staged, Cause("stuck-never-invoked", ""), why


def _of_nameless(died: Nameless) -> tuple[Cause, str]:
    """Return what invocations that died without naming an object make of one that came then."""
    if died.never_ran:
        why = "The function's code could not be loaded, so no invocation got as far as the handler"
        return Cause("stuck-failed", died.cause.error), f"{why}. Fix it and deploy, then wake it"
    why = "Most likely invocations that died without naming a file were for these, which came at "
    return Cause("stuck-unnamed", died.cause.error), why + "that time"


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
# What keeps it from doing anything once it is woken.
_FIRST: Final = (
    function.find_missing_function,
    function.find_switched_off,
    function.find_bad_state,
)

# Findings that `--fix` mends, so that one command can mend what is broken and then wake.
_MENDED_FIRST: Final = frozenset(
    {"notification-missing", "notification-events", "permission-missing", "concurrency-zero"}
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
    return None


def _find_what_comes_first(site: Site) -> Finding | None:
    """Return the finding that has to be mended before waking the processor can do anything."""
    for find in _FIRST:
        try:
            finding = next(find(site), None)
        except CouldNotLook:
            continue
        if finding is not None and finding.severity is Severity.PROBLEM:
            return finding
    return None


def _throttled_at(site: Site, untold: list[Version]) -> list[datetime]:
    """Return the minutes in which Lambda throttled the function since the first of these came."""
    since = min(staged.modified_at for staged in untold) - _MINUTE
    try:
        return site.function.throttled_minutes(since)
    except CouldNotLook:
        return []


def _was_throttled(staged: Version, throttled_at: list[datetime]) -> bool:
    """Tell whether Lambda throttled when the object's event came to it."""
    first = bisect.bisect_left(throttled_at, staged.modified_at - _MINUTE)
    return first < len(throttled_at) and throttled_at[first] <= staged.modified_at + _HELD_WITHIN


def _was_blocked(staged: Version, block: Cause, throttled_at: list[datetime]) -> bool:
    """Tell whether what keeps the processor from being told now did so when an object came.

    Lambda counts what it holds back of a function that is switched off.
    """
    if block.error != "concurrency-zero" or not throttled_at:
        return True
    return _was_throttled(staged, throttled_at)


def _held_back(site: Site, throttled_at: list[datetime]) -> str:
    said = (
        "Lambda throttled the function when these came, so most likely it holds their events back"
    )
    if site.now - throttled_at[-1] < _LONGEST_HELD:
        return f"{said}, for 6 hours at most"
    return f"{said}, and has given them up: it tries for 6 hours at most"


class _Backlog(NamedTuple):
    """What waits in the queues that feed the function: how much, where, and how long it is kept."""

    messages: int
    queue: str
    kept: timedelta


def _backlog(site: Site) -> _Backlog | None:
    try:
        for arn in site.function.event_source_arns():
            queue = site.queues.attributes_at(arn) if ":sqs:" in arn else None
            if queue is None:
                continue
            names = ("ApproximateNumberOfMessages", "ApproximateNumberOfMessagesNotVisible")
            messages = sum(int(queue.get(name, 0)) for name in names)
            if messages:
                kept = timedelta(seconds=int(queue.get("MessageRetentionPeriod", 345_600)))
                return _Backlog(messages, arn.rpartition(":")[2], kept)
    except CouldNotLook:
        pass
    return None


def _match_nameless(site: Site, untold: list[Version], evidence: Evidence) -> dict[str, Nameless]:
    """Return for objects the request that died at the time of their arrival, each request once.

    Of code that could not be loaded one request tells of all that came then.
    """
    before = DELIVERY + site.timeout
    matched: dict[str, Nameless] = {}
    died = sorted(evidence.nameless, key=lambda one: one.first_at)
    never_ran = [one for one in died if one.never_ran]
    began_at = [one.first_at for one in never_ran]
    for staged in untold:
        first = bisect.bisect_left(began_at, staged.modified_at - _TOLERANCE)
        if first < len(began_at) and began_at[first] <= staged.modified_at + before:
            matched[staged.key] = never_ran[first]
    waiting = [staged for staged in untold if staged.key not in matched]
    waiting.sort(key=lambda staged: staged.modified_at)
    left = deque(one for one in died if not one.never_ran)
    for staged in waiting:
        while left and left[0].first_at < staged.modified_at - _TOLERANCE:
            left.popleft()
        if left and left[0].first_at <= staged.modified_at + before:
            matched[staged.key] = left.popleft()
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


def _finding(site: Site, group: StuckGroup, first: Finding | None) -> Finding:
    check, error = group.cause.check, group.cause.error
    size_bytes = sum(staged.size_bytes for staged in group.objects)
    oldest = heapq.nsmallest(_EXAMPLES, group.objects, key=lambda staged: staged.modified_at)
    return Finding(
        check=check,
        severity=Severity.NOTICE if check == "stuck-in-progress" else Severity.PROBLEM,
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
    if check == "stuck-superseded":
        # What newer versions covered once is for a person to decide about.
        return None
    if first is not None and check in WOKEN:
        if first.check not in _MENDED_FIRST:
            return first.remedy
        return site.fix_command(first.check, check)
    if check in _FAILURES and error and error != _OTHERS:
        return _reprocess_command(site, error)
    return site.fix_command(*([error, check] if error in _MENDED_FIRST else [check]))


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
