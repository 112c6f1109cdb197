"""Several pipelines, a line each, the worst first."""

from __future__ import annotations

import enum
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import TYPE_CHECKING, Final

from twobuckets.errors import TwoBucketsError
from twobuckets.pipeline.lookups import CouldNotLook, Unread
from twobuckets.pipeline.retries import DEFAULT, retries_of_arrivals
from twobuckets.pipeline.status import describe_failure_queue, describe_staging
from twobuckets.processor.contract import UNSUCCESSFUL

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from twobuckets.pipeline.facts import Facts


class Condition(enum.StrEnum):
    """How a pipeline does at a glance, the worst first."""

    GONE = "gone"
    """Its stack is there, and a bucket of it is not."""
    UNREAD = "unread"
    """Something that this is about could not be read."""
    STUCK = "stuck"
    """A file is in staging for longer than every try can take."""
    FAILING = "failing"
    """Files failed in the last hour, or were given up."""
    WAITING = "waiting"
    """Files wait, none of them for long."""
    QUIET = "quiet"
    """Staging is empty."""


_ORDER: Final = tuple(Condition)


@dataclass(frozen=True, slots=True, kw_only=True)
class FleetStatus:
    """One pipeline of several.

    `staged` and `oldest_at` are of staging, `failed` counts the last hour's files that failed or
    were rejected last, `given_up` is what waits in the failure queue; each is null where it is not
    known. `problem` says what could not be read.
    """

    stack: str
    region: str
    condition: Condition
    staged: int | None = None
    oldest_at: datetime | None = None
    failed: int | None = None
    given_up: int | None = None
    problem: str | None = None

    @property
    def rank(self) -> int:
        """What orders pipelines, the worst first."""
        return _ORDER.index(self.condition)


def describe_in_brief(
    facts: Facts, stack: str, region: str, count_recent: Callable[[], Mapping[str, int] | None]
) -> FleetStatus:
    """Return how a pipeline does. `count_recent` returns the last hour's files by what they became.

    Raises nothing: what could not be read is told.
    """
    try:
        return _describe(facts, stack, region, count_recent)
    except CouldNotLook as reason:
        problem = str(reason)
    except TwoBucketsError as error:
        problem = error.message
    return FleetStatus(stack=stack, region=region, condition=Condition.UNREAD, problem=problem)


def _describe(
    facts: Facts, stack: str, region: str, count_recent: Callable[[], Mapping[str, int] | None]
) -> FleetStatus:
    staging = describe_staging(facts)
    if staging is None:
        problem = f"the bucket {facts.pipeline.staging} does not exist"
        return FleetStatus(stack=stack, region=region, condition=Condition.GONE, problem=problem)
    unread: list[Unread] = []
    staged = staging.staged
    objects, oldest_at = None, None
    if isinstance(staged, Unread):
        unread.append(staged)
    else:
        objects, oldest_at = staged.objects, staged.oldest_at
    given_up = None
    if (url := facts.pipeline.failure_queue_url) is not None:
        queue = describe_failure_queue(facts, url)
        if isinstance(queue.waiting, Unread):
            unread.append(queue.waiting)
        else:
            given_up = queue.waiting + queue.taken
    counts = count_recent()
    failed = None if counts is None else sum(counts.get(kind, 0) for kind in UNSUCCESSFUL)
    return FleetStatus(
        stack=stack,
        region=region,
        condition=_condition(facts, objects, oldest_at, failed, given_up, is_read=not unread),
        staged=objects,
        oldest_at=oldest_at,
        failed=failed,
        given_up=given_up,
        problem=", ".join(u.reason + (f", needs {u.action}" if u.action else "") for u in unread)
        or None,
    )


def _condition(
    facts: Facts,
    objects: int | None,
    oldest_at: datetime | None,
    failed: int | None,
    given_up: int | None,
    *,
    is_read: bool,
) -> Condition:
    if not is_read:
        return Condition.UNREAD
    if oldest_at is not None and facts.now - oldest_at >= _stuck_after(facts):
        return Condition.STUCK
    if failed or given_up:
        return Condition.FAILING
    return Condition.WAITING if objects else Condition.QUIET


def _stuck_after(facts: Facts) -> timedelta:
    try:
        return retries_of_arrivals(facts).stuck_after
    except CouldNotLook:
        return DEFAULT.stuck_after
