"""One run: its plan in numbers, its steps in order, and how fast it may go."""

from __future__ import annotations

import itertools
import time
from collections import Counter
from dataclasses import dataclass
from datetime import timedelta
from typing import TYPE_CHECKING, Any, Final

from twobuckets.aws import ClientError, attempt, explain
from twobuckets.errors import AccessError, TwoBucketsError, UsageError
from twobuckets.parallel import map_unordered
from twobuckets.pipeline.waking import Waker, is_ours
from twobuckets.reprocess.items import Change, Item, Reprocessed, State, result_of
from twobuckets.reprocess.moving import Mover
from twobuckets.reprocess.plan import Action, Kind
from twobuckets.reprocess.waking import wake
from twobuckets.settings import function_name_of

if TYPE_CHECKING:
    from collections.abc import Callable, Generator, Iterable, Iterator, Mapping
    from datetime import datetime

    from mypy_boto3_cloudwatch import CloudWatchClient
    from mypy_boto3_s3.type_defs import RestoreRequestTypeDef

    from twobuckets.aws.clients import Aws
    from twobuckets.prices import Prices
    from twobuckets.reprocess.journal import Journal
    from twobuckets.s3.engine import Sender
    from twobuckets.settings import Pipeline

BATCH_OBJECTS: Final = 1_000_000
"""From about so many objects on, one machine should not do it (S3 Batch Operations should)."""
_UNFINISHED: Final = (State.PLANNED, State.BEGUN)
_RESTORE_DAYS: Final = 7
_BRAKE_SECONDS: Final = 30.0
_THROTTLE_WINDOW: Final = timedelta(minutes=3)


@dataclass(frozen=True, slots=True)
class PlanTotals:
    """A plan in numbers: what would be done, what is skipped and why, what it costs."""

    type_name = "plan"

    copies: int
    wakes: int
    restores: int
    skipped: dict[str, int]
    total_bytes: int
    requests: int
    cost_usd: float

    @property
    def objects(self) -> int:
        """How many objects something would be done with."""
        return self.copies + self.wakes + self.restores


def limited(actions: Iterable[Action], limit: int | None) -> Iterator[Action]:
    """Yield actions until `limit` of them do something; what is skipped does not count."""
    count = 0
    for action in actions:
        if action.kind is not Kind.SKIP:
            if count == limit:
                return
            count += 1
        yield action


def summarize(journal: Journal, prices: Prices) -> PlanTotals:
    """Return what is left to do of a run, in numbers."""
    objects: Counter[str] = Counter()
    skipped: Counter[str] = Counter()
    total_bytes = 0
    for count in journal.counts():
        if count.kind == Kind.SKIP:
            skipped[count.reason or ""] += count.objects
        elif count.state in _UNFINISHED:
            objects[count.kind] += count.objects
            total_bytes += count.bytes
    copies = objects[Kind.COPY]
    requests = copies + objects[Kind.RESTORE]
    return PlanTotals(
        copies=copies,
        wakes=objects[Kind.WAKE],
        restores=objects[Kind.RESTORE],
        skipped=dict(skipped),
        total_bytes=total_bytes,
        requests=requests,
        cost_usd=prices.requests_usd(writes=copies + objects[Kind.RESTORE]),
    )


class Rate:
    """Lets at most so many objects a second begin; None lets all."""

    def __init__(
        self,
        per_second: float | None,
        *,
        monotonic: Callable[[], float] = time.monotonic,
        sleep: Callable[[float], None] = time.sleep,
    ) -> None:
        self._interval = 0.0 if per_second is None else 1 / per_second
        self._monotonic = monotonic
        self._sleep = sleep
        self._next = monotonic()

    def __call__(self) -> None:
        """Wait for this object's turn."""
        if not self._interval:
            return
        now = self._monotonic()
        if now < self._next:
            self._sleep(self._next - now)
        self._next = max(now, self._next) + self._interval

    def halve(self, slowest: float = 1.0) -> float:
        """Let half as many begin, but at least `slowest` a second; return how many that is."""
        self._interval = min(1 / slowest, (self._interval or 0.005) * 2)
        return 1 / self._interval


class Brake:
    """A rate that is halved for as long as Lambda throttles the processor.

    `throttles` is asked every half minute; more files would only wait, or be given up, in Lambda's
    queue. `slowed` hears how many files a second are left.
    """

    def __init__(
        self,
        rate: Rate,
        throttles: Callable[[], bool],
        slowed: Callable[[float], None] = lambda _: None,
        *,
        monotonic: Callable[[], float] = time.monotonic,
    ) -> None:
        self._rate = rate
        self._throttles = throttles
        self._slowed = slowed
        self._monotonic = monotonic
        self._due_at = monotonic() + _BRAKE_SECONDS

    def __call__(self) -> None:
        """Wait for this object's turn."""
        if self._monotonic() >= self._due_at:
            if self._throttles():
                self._slowed(self._rate.halve())
            self._due_at = self._monotonic() + _BRAKE_SECONDS
        self._rate()


def count_throttles(cloudwatch: CloudWatchClient, function: str, now: datetime) -> int:
    """Return how often Lambda throttled a function in the last minutes; 0 where nobody may ask.

    CloudWatch shows a minute only some time after it (Lambda developer guide, "Types of metrics").
    """
    name = function_name_of(function)
    try:
        with attempt(f"read how often {name} was throttled"):
            points = cloudwatch.get_metric_statistics(
                Namespace="AWS/Lambda",
                MetricName="Throttles",
                Dimensions=[{"Name": "FunctionName", "Value": name}],
                StartTime=now - _THROTTLE_WINDOW,
                EndTime=now,
                Period=60,
                Statistics=["Sum"],
            )["Datapoints"]
    except TwoBucketsError:
        return 0
    newest = max(points, key=lambda point: point["Timestamp"], default=None)
    return int(newest["Sum"]) if newest is not None else 0


def apply(
    aws: Aws,
    sender: Sender,
    journal: Journal,
    pipeline: Pipeline,
    *,
    now: Callable[[], datetime],
    pace: Callable[[], None],
    workers: int,
    most: int | None = None,
) -> Generator[Reprocessed, None, None]:
    """Do what is left of a run, at most `most` objects of it, and yield what came of each.

    Raises AccessError when credentials expire or a permission that everything needs is missing;
    the journal then tells the next run where to go on.
    """
    # What an earlier run had begun comes first: it may have arrived.
    unfinished = itertools.islice(
        itertools.chain(
            journal.iter_items(State.BEGUN, kinds=(Kind.COPY,)),
            journal.iter_items(State.PLANNED, kinds=(Kind.COPY,)),
        ),
        most,
    )
    mover = Mover(
        sender,
        journal,
        staging=pipeline.staging,
        archive=pipeline.archive,
        now=now,
        pace=pace,
        restores=bool(journal.description.get("restores")),
    )
    done = 0
    for moved in mover.run(unfinished):
        done += 1
        yield moved
    left = None if most is None else most - done
    wakes = itertools.islice(journal.iter_items(*_UNFINISHED, kinds=(Kind.WAKE,)), left)
    first = next(wakes, None)
    if first is not None:
        function = require_function(pipeline)
        waker = Waker(
            functions=aws.functions,
            function=function,
            bucket=pipeline.staging,
            region=aws.region,
            ours=is_ours(aws.functions, function),
        )
        items = itertools.chain([first], wakes)
        yield from wake(waker, journal, items, workers=workers, now=now, pace=pace)
    if most is None:
        yield from _restore(aws, journal, pipeline.archive, workers)


def require_function(pipeline: Pipeline) -> str:
    """Return the processor's function. Raises UsageError when nobody named it."""
    if pipeline.function is None:
        raise UsageError(
            "Could not wake the processor for files that wait in staging: it is not named",
            hint='Name the Lambda function in twobuckets.toml: function = "…"',
        )
    return pipeline.function


def _restore(aws: Aws, journal: Journal, archive: str, workers: int) -> Iterator[Reprocessed]:
    """Ask Glacier for objects back; they can be moved once they are there."""

    def ask(item: Item) -> tuple[Item, Change]:
        version: dict[str, Any] = {} if item.version_id is None else {"VersionId": item.version_id}
        where: dict[str, Any] = {"Bucket": archive, "Key": item.key, **version}
        again = "run the same command again"
        try:
            head = aws.s3.head_object(**where)
            if (restored := _is_restored(head)) is not None:
                reason = f"restored; {again}" if restored else f"being restored; {again} later"
                return item, Change(item.id, State.LEFT, reason)
            aws.s3.restore_object(**where, RestoreRequest=_restore_request(head))
        except ClientError as error:
            if error.response["Error"].get("Code") != "RestoreAlreadyInProgress":
                explained = explain(error, f"restore {item.key}")
                if isinstance(explained, AccessError):
                    raise explained from error
                return item, Change(item.id, State.FAILED, explained.message)
        reason = f"asked back from where it was archived; {again} in some hours"
        return item, Change(item.id, State.LEFT, reason)

    wanted = journal.iter_items(State.PLANNED, kinds=(Kind.RESTORE,))
    for item, change in map_unordered(ask, wanted, workers=workers):
        journal.note([change])
        yield result_of(item, change)


def _is_restored(head: Mapping[str, Any]) -> bool | None:
    """Tell whether a restore has come to its end; None when nobody has asked for one."""
    if "Restore" not in head:
        return None
    return 'ongoing-request="false"' in head["Restore"]


def _restore_request(head: Mapping[str, Any]) -> RestoreRequestTypeDef:
    """Return what a restore is asked for with.

    From a tier of Intelligent-Tiering an object comes back for good: there must be no number of
    days (S3 API reference, RestoreObject).
    """
    request: RestoreRequestTypeDef = {"GlacierJobParameters": {"Tier": "Standard"}}
    if head.get("StorageClass") != "INTELLIGENT_TIERING":
        request["Days"] = _RESTORE_DAYS
    return request
