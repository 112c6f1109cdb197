"""Which entries of a log are asked for: by key, by request, failures, or all that people wrote."""

from __future__ import annotations

import json
import re
from collections import OrderedDict, deque
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import TYPE_CHECKING, Final, NamedTuple
from urllib.parse import quote, quote_plus

from twobuckets.logs.events import LogEvent, iter_events
from twobuckets.logs.lines import (
    FAILURE_PATTERN,
    Entry,
    EntryReader,
    FailedInvocation,
    InvocationReport,
    InvocationStart,
    LogLine,
    Outcome,
    PlatformLine,
)
from twobuckets.processor.contract import UNSUCCESSFUL

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from mypy_boto3_logs import CloudWatchLogsClient

# An invocation lasts at most so long (Lambda quotas, "Function timeout").
_LONGEST_INVOCATION: Final = timedelta(minutes=15)
# What one invocation said before it named the key is kept up to so many lines.
_KEPT_LINES: Final = 20_000
_KEPT_STREAMS: Final = 10_000
# FilterLogEvents takes no more names of streams (CloudWatch Logs API reference).
_MOST_STREAMS: Final = 100
_SHORTEST_TERM: Final = 3
_TRACE_HEAD: Final = "Traceback (most recent call last):"


@dataclass(frozen=True, slots=True, kw_only=True)
class LineSelection:
    """What to show: everything by default, without Lambda's notes on the course of things.

    `key` asks for all lines of the invocations that touched it, `request_id` for all of one
    request with its retries, `failed` for failures only.
    """

    key: str | None = None
    request_id: str | None = None
    failed: bool = False

    @property
    def pattern(self) -> str:
        """A filter pattern that selects at least what is asked for."""
        return FAILURE_PATTERN if self.failed and self.key is None else ""


class Selected(NamedTuple):
    """An event and what it says."""

    event: LogEvent
    entry: Entry


class Selector:
    """Picks what a selection asks for out of events in time order."""

    def __init__(self, selection: LineSelection) -> None:
        self._selection = selection
        self._reader = EntryReader()
        key = selection.key
        self._by_key = _InvocationsOfKey(key) if key is not None else None
        self.pattern = selection.pattern
        """A filter pattern that selects at least what is asked for: none once traces were seen that
        come line by line, which no pattern selects."""
        self._tracing: set[str] = set()

    def pick(self, event: LogEvent) -> Iterable[Selected]:
        """Return what is to be shown now that this event was read."""
        entry = self._reader.read(event)
        if entry is None:
            return ()
        selected = Selected(event, entry)
        if self._selection.failed and self._goes_on(entry):
            return (selected,)
        found = (selected,) if self._by_key is None else self._by_key.add(selected)
        return [one for one in found if self._is_asked_for(one.entry)]

    def _goes_on(self, entry: Entry) -> bool:
        """Tell whether a line belongs to the trace that its stream shows line by line.

        Of what a processor prints CloudWatch Logs makes an event a line.
        """
        stream = entry.log_stream
        is_in_trace = stream in self._tracing and isinstance(entry, LogLine)
        if isinstance(entry, LogLine) and entry.message.rstrip().endswith(_TRACE_HEAD):
            self._tracing.add(stream)
            self.pattern = ""
        elif not (isinstance(entry, LogLine) and entry.message[:1] in ("", " ", "\t")):
            # The line that names the error is the trace's last, and the first not indented.
            self._tracing.discard(stream)
        return is_in_trace

    def _is_asked_for(self, entry: Entry) -> bool:
        selection = self._selection
        if selection.request_id is not None and entry.request_id != selection.request_id:
            return False
        if selection.failed:
            return is_failure(entry)
        if selection.request_id is not None or selection.key is not None:
            return True
        return not isinstance(entry, InvocationStart | InvocationReport | PlatformLine)


def is_failure(entry: Entry) -> bool:
    """Tell whether an entry says that something failed; text does if it holds a traceback."""
    match entry:
        case Outcome():
            return entry.outcome in UNSUCCESSFUL
        case FailedInvocation():
            return True
        case LogLine():
            return _TRACE_HEAD in entry.message
        case _:
            return False


@dataclass(slots=True)
class _Invocation:
    request_id: str | None
    is_touched: bool = False
    lines: deque[Selected] = field(default_factory=lambda: deque(maxlen=_KEPT_LINES))


class _InvocationsOfKey:
    """Lets through the lines of the invocations that touch a key.

    What an invocation says before it names the key is held back until it does, or until the next
    one starts in its stream.
    """

    def __init__(self, key: str) -> None:
        self._key = key
        self._named = _naming(key)
        self._open: OrderedDict[str, _Invocation] = OrderedDict()

    def add(self, selected: Selected) -> Iterable[Selected]:
        """Return the lines to let through, now that this one was read."""
        event, entry = selected
        invocation = self._open.get(entry.log_stream)
        starts = isinstance(entry, InvocationStart)
        if invocation is None or starts or self._is_of_another(entry, invocation):
            invocation = self._open[entry.log_stream] = _Invocation(entry.request_id)
            if len(self._open) > _KEPT_STREAMS:
                self._open.popitem(last=False)
        self._open.move_to_end(entry.log_stream)
        if invocation.is_touched:
            return (selected,)
        invocation.lines.append(selected)
        if not self._touches(event, entry):
            return ()
        invocation.is_touched = True
        lines = tuple(invocation.lines)
        invocation.lines.clear()
        return lines

    def _is_of_another(self, entry: Entry, invocation: _Invocation) -> bool:
        return (
            entry.request_id is not None
            and invocation.request_id is not None
            and entry.request_id != invocation.request_id
        )

    def _touches(self, event: LogEvent, entry: Entry) -> bool:
        if isinstance(entry, Outcome):
            return entry.key == self._key
        return self._named.search(event.message) is not None


def _naming(key: str) -> re.Pattern[str]:
    """Return what finds the key in text: as it is, form-encoded as in S3's events, or in JSON."""
    plain = key.encode("utf-8", "surrogateescape").decode("utf-8", "replace")
    forms = {
        plain,
        quote_plus(plain),
        quote_plus(plain, safe="/"),
        quote(plain),
        json.dumps(plain)[1:-1],
        repr(plain)[1:-1],
    }
    return re.compile(rf"(?<![\w.-])(?:{'|'.join(map(re.escape, sorted(forms)))})(?![\w-]|\.\w)")


def iter_selected(
    logs: CloudWatchLogsClient,
    group: str,
    selection: LineSelection,
    *,
    start_at: datetime,
    end_at: datetime | None = None,
) -> Iterator[Selected]:
    """Yield what is asked for from a range of time, in time order.

    Of a key or a request, the service first finds the streams that name it, and only these are
    read. Raises NotFoundError when the group does not exist, and AccessError.
    """
    streams: tuple[str, ...] = ()
    term = selection.request_id or (term_of(selection.key) if selection.key is not None else None)
    if term is not None:
        found = _find_streams(logs, group, term, start_at=start_at, end_at=end_at)
        if found is None:
            return
        start_at = max(start_at, found.first_at - _LONGEST_INVOCATION)
        last_at = found.last_at + _LONGEST_INVOCATION
        end_at = last_at if end_at is None else min(end_at, last_at)
        streams = found.streams
    selector = Selector(selection)
    read: set[str] = set()
    while True:
        pattern = selector.pattern
        for event in iter_events(
            logs, group, start_at=start_at, end_at=end_at, pattern=pattern, streams=streams
        ):
            if event.logged_at != start_at:
                start_at, read = event.logged_at, set()
            if event.event_id not in read:
                read.add(event.event_id)
                yield from selector.pick(event)
            if selector.pattern != pattern:
                break
        else:
            return


class _Streams(NamedTuple):
    """Where a term was said; no streams means too many to name."""

    streams: tuple[str, ...]
    first_at: datetime
    last_at: datetime


def _find_streams(
    logs: CloudWatchLogsClient,
    group: str,
    term: str,
    *,
    start_at: datetime,
    end_at: datetime | None,
) -> _Streams | None:
    names: set[str] = set()
    first_at = last_at = None
    for event in iter_events(
        logs, group, start_at=start_at, end_at=end_at, pattern=f'"{term}"', window=1
    ):
        # An emulator may not apply the pattern.
        if term not in event.message:
            continue
        names.add(event.log_stream)
        first_at = min(first_at or event.logged_at, event.logged_at)
        last_at = max(last_at or event.logged_at, event.logged_at)
    if first_at is None or last_at is None:
        return None
    streams = tuple(sorted(names)) if len(names) <= _MOST_STREAMS else ()
    return _Streams(streams, first_at, last_at)


def term_of(key: str) -> str | None:
    """Return the longest part of the key that looks the same in every encoding, if it says much."""
    runs = re.findall(r"[A-Za-z0-9._-]+", key)
    longest = max(runs, key=len, default="")
    return longest if len(longest) >= _SHORTEST_TERM else None
