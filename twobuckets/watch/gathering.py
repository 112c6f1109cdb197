"""One look after another, each in few requests, whatever can't be reached."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import TYPE_CHECKING, ClassVar, Final

from twobuckets.aws import ClientError, is_hopeless
from twobuckets.errors import AccessError, TwoBucketsError
from twobuckets.logs.events import Follower
from twobuckets.pipeline.facts import Facts
from twobuckets.pipeline.lookups import Unread
from twobuckets.pipeline.status import (
    FailureQueueStatus,
    QueuesStatus,
    StagingStatus,
    describe_failure_queue,
    describe_queues,
    describe_staging,
    glance,
)
from twobuckets.watch.expense import Expense
from twobuckets.watch.minutes import PATTERN, SHOWN, Minutes, WatchedError

if TYPE_CHECKING:
    from collections.abc import Callable

    from twobuckets.aws.clients import Aws
    from twobuckets.prices import Prices
    from twobuckets.settings import Pipeline

MOST_ERRORS: Final = 5
_QUEUES_EVERY: Final = timedelta(seconds=30)
_METRICS_EVERY: Final = timedelta(minutes=5)
_SHORTEST_STAGING_EVERY: Final = timedelta(seconds=10)
_STAGING_USD_AN_HOUR: Final = 0.005
"""What listing staging may cost an hour: with many files in it, it is listed less often."""
_HOUR: Final = timedelta(hours=1)


@dataclass(frozen=True, slots=True, kw_only=True)
class WatchPicture:
    """The pipeline as one look shows it.

    `begun` are files that the processor turned to for the first time, `outcomes` tries by what came
    of them, each by the minute over the last half an hour, oldest first. `staging`, `queues` and
    `failures` are null before the first look at them, and where there is none. `throttled_minutes`
    are those of the last half an hour in which Lambda held the function back. `problem` is what the
    last look failed at; the rest is of the one before. `hour_usd` is what looking costs at list
    prices.
    """

    type_name: ClassVar[str] = "watch"

    at: datetime
    staging: StagingStatus | None
    queues: QueuesStatus | None
    failures: FailureQueueStatus | None
    in_flight: int | None
    begun: tuple[int, ...]
    outcomes: Mapping[str, tuple[int, ...]]
    errors: tuple[WatchedError, ...]
    throttled_minutes: int | Unread | None
    log: Unread | None
    problem: str | None
    requests: int
    hour_usd: float


class Watcher:
    """Looks at a pipeline whenever it is asked to, at each part as often as it is worth."""

    def __init__(self, aws: Aws, pipeline: Pipeline, prices: Prices, *, now: datetime) -> None:
        self.minutes = Minutes()
        self.expense = Expense(aws, prices)
        self._aws = aws
        self._pipeline = pipeline
        self._began_at = now
        self._due: dict[str, datetime] = {}
        self._follower = (
            Follower(
                aws.logs,
                pipeline.log_group,
                start_at=now - timedelta(minutes=SHOWN),
                pattern=PATTERN,
            )
            if pipeline.log_group is not None
            else None
        )
        self._staging: StagingStatus | None = None
        self._queues: QueuesStatus | None = None
        self._failures: FailureQueueStatus | None = None
        self._throttled: int | Unread | None = None
        self._log: Unread | None = None

    def look(self, now: datetime) -> WatchPicture:
        """Look once. Raises AccessError when the credentials are over; of all else it tells."""
        problem: str | None = None
        try:
            self._read_log(now)
            self._read_parts(now)
        except AccessError:
            raise
        except TwoBucketsError as error:
            # The network comes back; what was seen before stays until then.
            problem = error.message
        self.minutes.forget(now)
        has_log = self._follower is not None and self._log is None
        return WatchPicture(
            at=now,
            staging=self._staging,
            queues=self._queues,
            failures=self._failures,
            in_flight=self.minutes.in_flight if has_log else None,
            begun=self.minutes.begun(now),
            outcomes=self.minutes.outcomes(now),
            errors=self.minutes.errors(MOST_ERRORS),
            throttled_minutes=self._throttled,
            log=self._log,
            problem=problem,
            requests=self.expense.requests,
            hour_usd=self.expense.an_hour(now - self._began_at),
        )

    def _read_log(self, now: datetime) -> None:
        if self._follower is None or self._log is not None:
            return
        try:
            for event in self._follower.poll(now):
                self.minutes.add(event)
        except AccessError as error:
            cause = error.__cause__
            if not isinstance(cause, ClientError) or is_hopeless(cause):
                raise
            self._log = Unread("access denied", "logs:FilterLogEvents")

    def _read_parts(self, now: datetime) -> None:
        facts = Facts(self._aws, self._pipeline, now)

        def read_staging() -> None:
            spent = self.expense.usd
            self._staging = describe_staging(facts)
            # As far apart as keeps it under its share of an hour.
            look_usd = self.expense.usd - spent
            apart = _HOUR * (look_usd / _STAGING_USD_AN_HOUR)
            self._due["staging"] = now + max(_SHORTEST_STAGING_EVERY, apart)

        self._when_due("staging", now, _SHORTEST_STAGING_EVERY, read_staging)

        def read_queues() -> None:
            if self._pipeline.function is not None:
                self._queues = describe_queues(facts)
            if self._pipeline.failure_queue_url is not None:
                self._failures = describe_failure_queue(facts, self._pipeline.failure_queue_url)

        self._when_due("queues", now, _QUEUES_EVERY, read_queues)

        def read_metrics() -> None:
            if self._pipeline.function is not None:
                since = now - timedelta(minutes=SHOWN)
                read = glance(lambda: facts.function.throttled_minutes(since))
                self._throttled = read if isinstance(read, Unread) else len(read)

        self._when_due("metrics", now, _METRICS_EVERY, read_metrics)

    def _when_due(
        self, what: str, now: datetime, every: timedelta, read: Callable[[], None]
    ) -> None:
        if now >= self._due.get(what, now):
            # Also after a failure not before its time: what does not answer is not asked harder.
            self._due[what] = now + every
            read()
