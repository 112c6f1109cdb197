"""Why objects are stuck of which the log says nothing, as far as anything else tells."""

from __future__ import annotations

import bisect
from collections import deque
from datetime import timedelta
from typing import TYPE_CHECKING, Final, NamedTuple

from twobuckets.doctor import function, wiring
from twobuckets.doctor.causes import MOST_EVENTS, Cause, Evidence, Nameless
from twobuckets.doctor.stuck import WHY
from twobuckets.pipeline.lookups import CouldNotLook
from twobuckets.pipeline.retries import DELIVERY
from twobuckets.units import format_duration

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping
    from datetime import datetime

    from twobuckets.doctor.findings import Finder
    from twobuckets.doctor.site import Site
    from twobuckets.pipeline.notifications import Route
    from twobuckets.pipeline.versions import Version

# An event waits in Lambda's queue at most so long (Lambda developer guide,
# "Handling errors for an asynchronous invocation").
_LONGEST_HELD: Final = timedelta(hours=6)
# How long after an object's arrival Lambda first throttles its event, if it does.
_HELD_WITHIN: Final = timedelta(minutes=10)
_MINUTE: Final = timedelta(minutes=1)
_TOLERANCE: Final = timedelta(seconds=1)

# What keeps the processor from being told, by the check that finds it.
_BLOCKS: Final[tuple[tuple[Finder, str], ...]] = (
    (function.find_missing_function, "stuck-never-invoked"),
    (wiring.find_missing_notification, "stuck-never-invoked"),
    (wiring.find_missing_permission, "stuck-never-invoked"),
    (wiring.find_disabled_event_sources, "stuck-never-invoked"),
    (function.find_switched_off, "stuck-throttled"),
)


def explain_unlogged(
    site: Site,
    unlogged: list[Version],
    evidence: Evidence,
    died: Mapping[str, Nameless],
    *,
    log_is_read: bool,
) -> Iterator[tuple[Version, Cause, str]]:
    """Yield a cause for each object of which the log says nothing."""
    blocked = _find_block(site)
    routes = _routes(site)
    throttled_at = _throttled_at(site, unlogged)
    backlog = _backlog(site)
    may_take = site.may_take
    for staged in unlogged:
        age = site.now - staged.modified_at
        if routes and not any(route.tells_of(staged.key) for route in routes):
            yield staged, Cause("stuck-filtered", ""), WHY["stuck-filtered"]
        elif match := died.get(staged.key):
            yield staged, *explain_nameless(match)
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


def explain_nameless(died: Nameless) -> tuple[Cause, str]:
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


def _throttled_at(site: Site, unlogged: list[Version]) -> list[datetime]:
    """Return the minutes in which Lambda throttled the function since the first of these came."""
    since = min(staged.modified_at for staged in unlogged) - _MINUTE
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


def match_nameless(site: Site, unlogged: list[Version], evidence: Evidence) -> dict[str, Nameless]:
    """Return for objects the request that died at the time of their arrival, each request once.

    Of code that could not be loaded one request tells of all that came then.
    """
    before = DELIVERY + site.timeout
    matched: dict[str, Nameless] = {}
    died = sorted(evidence.nameless, key=lambda one: one.first_at)
    never_ran = [one for one in died if one.never_ran]
    began_at = [one.first_at for one in never_ran]
    for staged in unlogged:
        first = bisect.bisect_left(began_at, staged.modified_at - _TOLERANCE)
        if first < len(began_at) and began_at[first] <= staged.modified_at + before:
            matched[staged.key] = never_ran[first]
    waiting = [staged for staged in unlogged if staged.key not in matched]
    waiting.sort(key=lambda staged: staged.modified_at)
    left = deque(one for one in died if not one.never_ran)
    for staged in waiting:
        while left and left[0].first_at < staged.modified_at - _TOLERANCE:
            left.popleft()
        if left and left[0].first_at <= staged.modified_at + before:
            matched[staged.key] = left.popleft()
    return matched
