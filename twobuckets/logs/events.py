"""Log events across all streams of a group: a range of time, or what is still to come.

FilterLogEvents sorts by timestamp (Amazon CloudWatch Logs API reference), but pages that jump back
have been seen (aws/aws-sdk-js#3994), pages may be empty and go on, and events arrive late. So
order is restored within a window, tokens are followed to the end, and a follower looks back.
"""

from __future__ import annotations

import itertools
from datetime import UTC, datetime, timedelta
from email.utils import parsedate_to_datetime
from operator import attrgetter
from typing import TYPE_CHECKING, Final, NamedTuple

from twobuckets.aws import attempt
from twobuckets.errors import NotFoundError
from twobuckets.parallel import map_ordered

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Sequence

    from mypy_boto3_logs import CloudWatchLogsClient
    from mypy_boto3_logs.type_defs import (
        FilteredLogEventTypeDef,
        FilterLogEventsRequestTypeDef,
        FilterLogEventsResponseTypeDef,
    )

WINDOW: Final = 10_000
"""How many events are held back to restore their order: one full page."""
OVERLAP: Final = timedelta(minutes=5)
"""How late an event may become readable and still be followed."""

# CloudWatch Logs throttles FilterLogEvents after a few requests a second of an account.
_READERS: Final = 4
_SHALLOW: Final = timedelta(seconds=20)
_DEEP_EVERY: Final = timedelta(seconds=30)
_SHORTEST_PAUSE: Final = timedelta(seconds=1)
_LONGEST_PAUSE: Final = timedelta(seconds=5)


class LogEvent(NamedTuple):
    """One event of the log as CloudWatch Logs keeps it; `event_id` is unique in the group."""

    logged_at: datetime
    ingested_at: datetime
    message: str
    log_stream: str
    event_id: str


def iter_events(
    logs: CloudWatchLogsClient,
    group: str,
    *,
    start_at: datetime | None = None,
    end_at: datetime | None = None,
    pattern: str = "",
    streams: Sequence[str] = (),
    window: int = WINDOW,
    cuts: Sequence[datetime] = (),
) -> Iterator[LogEvent]:
    """Yield the events from `start_at` to `end_at`, both included, in time order.

    `cuts` are ascending instants at which the range is divided: pages of the parts are then read
    side by side, eight ahead. Cuts where many events are make it fast, anywhere they are right.

    `pattern` is a CloudWatch Logs filter pattern that the service applies; an emulator may not.
    At most `window` events and one page are held: an event that AWS returns more than `window`
    places too late stays out of order. `streams` are at most 100 log stream names.
    Raises NotFoundError when the group does not exist, and AccessError.
    """
    parts = (
        _iter_pages(logs, group, start_at=begin, end_at=end, pattern=pattern, streams=streams)
        for begin, end in _divide(start_at, end_at, cuts)
    )
    pages = _read_ahead(parts) if cuts else itertools.chain.from_iterable(parts)
    return in_time_order((_event_of(e) for page in pages for e in page["events"]), window=window)


def _divide(
    start_at: datetime | None, end_at: datetime | None, cuts: Iterable[datetime]
) -> Iterator[tuple[datetime | None, datetime | None]]:
    """Yield ranges that join up without a gap or an overlap: the service counts milliseconds."""
    for cut_at in cuts:
        # A cut outside the range, or in its first millisecond, divides nothing.
        if (start_at is None or cut_at > start_at) and (end_at is None or cut_at <= end_at):
            last_at = _instant(_milliseconds(cut_at) - 1)
            if start_at is None or last_at >= start_at:
                yield start_at, last_at
                start_at = _instant(_milliseconds(cut_at))
    yield start_at, end_at


def _read_ahead(
    parts: Iterable[Iterator[FilterLogEventsResponseTypeDef]],
) -> Iterator[FilterLogEventsResponseTypeDef]:
    """Yield the pages of each part in turn; the first pages of the next parts are read meanwhile.

    Only those: what is held stays bounded also when a part is long.
    """
    for first, rest in map_ordered(lambda pages: (next(pages), pages), parts, workers=_READERS):
        yield first
        yield from rest


def _iter_pages(
    logs: CloudWatchLogsClient,
    group: str,
    *,
    start_at: datetime | None,
    end_at: datetime | None = None,
    pattern: str = "",
    streams: Sequence[str] = (),
) -> Iterator[FilterLogEventsResponseTypeDef]:
    request: FilterLogEventsRequestTypeDef = {"logGroupName": group}
    if start_at is not None:
        request["startTime"] = max(0, _milliseconds(start_at))
    if end_at is not None:
        request["endTime"] = max(0, _milliseconds(end_at))
    if pattern:
        request["filterPattern"] = pattern
    if streams:
        request["logStreamNames"] = streams
    while True:
        try:
            with attempt(f"read the log group {group}"):
                page = logs.filter_log_events(**request)
        except NotFoundError as error:
            error.hint = (
                "Lambda makes it when the function runs for the first time. If the function logs "
                "elsewhere, name log_group in twobuckets.toml."
            )
            raise
        yield page
        # Only a missing token ends the list: a page may be empty and have one.
        token = page.get("nextToken")
        if not token:
            return
        request["nextToken"] = token


def _event_of(event: FilteredLogEventTypeDef) -> LogEvent:
    timestamp = event["timestamp"]
    return LogEvent(
        _instant(timestamp),
        _instant(event.get("ingestionTime", timestamp)),
        event["message"],
        event.get("logStreamName", ""),
        event["eventId"],
    )


def in_time_order(events: Iterable[LogEvent], *, window: int = WINDOW) -> Iterator[LogEvent]:
    """Yield events that are at most `window` places out of order in order, holding twice that."""
    key = attrgetter("logged_at")
    held: list[LogEvent] = []
    for event in events:
        held.append(event)
        if len(held) >= 2 * window:
            # Stable, and linear on what is already sorted.
            held.sort(key=key)
            yield from held[:-window]
            del held[:-window]
    held.sort(key=key)
    yield from held


class Follower:
    """Reads what comes into a log group, nothing lost and nothing twice.

    An event is yielded once, provided that it becomes readable within `overlap` of its timestamp:
    most turns look back a little, and every half a minute one looks back by `overlap`. The window
    moves with the service's clock, so a wrong clock here loses nothing. A group that does not
    exist yet is empty. Holds a number for each event in the window.

    It polls: StartLiveTail shows a sample once there are more than 500 events a second
    (CloudWatch Logs user guide, "Live Tail"), which is when nothing may be lost.
    """

    def __init__(
        self,
        logs: CloudWatchLogsClient,
        group: str,
        *,
        start_at: datetime,
        pattern: str = "",
        overlap: timedelta = OVERLAP,
    ) -> None:
        self.pattern = pattern
        self.exists = True
        """Whether the group was there at the last turn."""
        self._logs = logs
        self._group = group
        self._start_at = start_at
        self._overlap = overlap
        self._shallow = min(_SHALLOW, overlap)
        # The service's time when the last complete turn began, and the last deep one.
        self._turn_at = start_at
        self._deep_turn_at = start_at
        self._deep_due_at: datetime | None = None
        self._ingested_at = start_at
        # Event ids as hashes: an id is a text of 56 digits, and a window can hold 100,000s.
        self._seen: dict[int, datetime] = {}

    def poll(self, now: datetime) -> Iterator[LogEvent]:
        """Yield the events that became readable since the last turn, in time order.

        A turn that is not read to its end, or fails, is taken again, without what it yielded.
        Raises AccessError, and TwoBucketsError when the service can't be reached.
        """
        deep = self._deep_due_at is None or now >= self._deep_due_at
        start_at = self._deep_turn_at - self._overlap if deep else self._turn_at - self._shallow
        # Without the service's clock, the newest time of ingestion is the best lower bound of it.
        turn_at = [self._ingested_at]
        for event in in_time_order(self._iter_turn(max(start_at, self._start_at), turn_at)):
            identity = hash(event.event_id)
            # Noted as it is handed out: what a broken turn held back comes again.
            if identity not in self._seen:
                self._seen[identity] = event.logged_at
                yield event
        self._turn_at = max(turn_at[0], self._turn_at)
        if deep:
            self._deep_turn_at = self._turn_at
            self._deep_due_at = now + _DEEP_EVERY
            kept_from = self._deep_turn_at - self._overlap
            self._seen = {i: at for i, at in self._seen.items() if at >= kept_from}

    def _iter_turn(self, start_at: datetime, turn_at: list[datetime]) -> Iterator[LogEvent]:
        pages = _iter_pages(self._logs, self._group, start_at=start_at, pattern=self.pattern)
        try:
            for number, page in enumerate(pages):
                self.exists = True
                if number == 0:
                    turn_at[0] = _served_at(page) or turn_at[0]
                for raw in page["events"]:
                    event = _event_of(raw)
                    self._ingested_at = max(self._ingested_at, event.ingested_at)
                    yield event
        except NotFoundError:
            self.exists = False


def _served_at(page: FilterLogEventsResponseTypeDef) -> datetime | None:
    """Return the service's time as it answered, rounded down to the second."""
    date = page.get("ResponseMetadata", {}).get("HTTPHeaders", {}).get("date")
    try:
        served_at = parsedate_to_datetime(date) if date else None
    except ValueError:
        return None
    return served_at if served_at is None or served_at.tzinfo else None


def follow(
    follower: Follower,
    *,
    now: Callable[[], datetime],
    sleep: Callable[[float], None],
) -> Iterator[LogEvent | None]:
    """Yield events as they come, forever, and None at the end of each turn.

    A group that stays silent is asked less and less often, at last every five seconds.
    """
    pause = _SHORTEST_PAUSE
    while True:
        silent = True
        for event in follower.poll(now()):
            silent = False
            yield event
        yield None
        pause = min(pause * 1.5, _LONGEST_PAUSE) if silent else _SHORTEST_PAUSE
        sleep(pause.total_seconds())


def _milliseconds(instant: datetime) -> int:
    return (instant - _EPOCH) // _MILLISECOND


def _instant(milliseconds: int) -> datetime:
    return datetime.fromtimestamp(milliseconds / 1000, UTC)


_EPOCH: Final = datetime(1970, 1, 1, tzinfo=UTC)
_MILLISECOND: Final = timedelta(milliseconds=1)
