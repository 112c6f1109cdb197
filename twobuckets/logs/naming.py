"""What the log says of a few keys, in few requests however long it is: CloudWatch Logs searches it.

First the lines are looked for that name a key, then those of the requests that these lines belong
to: an invocation that died names no file, and Lambda tries it again under the same request id.
"""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import TYPE_CHECKING, Final

from twobuckets.logs.events import iter_events
from twobuckets.logs.foreign import find_error, find_keys
from twobuckets.logs.lines import (
    OUTCOME_OR_FAILURE_PATTERN,
    EntryReader,
    FailedInvocation,
    InvocationReport,
    InvocationStart,
    LogLine,
    Outcome,
    parse_entry,
)
from twobuckets.logs.selection import LineSelection, iter_selected, term_of

if TYPE_CHECKING:
    from collections.abc import Collection, Iterator, Sequence

    from mypy_boto3_logs import CloudWatchLogsClient

    from twobuckets.logs.events import LogEvent
    from twobuckets.processor.contract import Failure

# A filter pattern has at most 1,024 characters (CloudWatch Logs API reference, FilterLogEvents).
_PATTERN_CHARACTERS: Final = 1_000
# Where no line of a request is known but the last: its tries before, with the pauses between them.
_TRIES_BEFORE: Final = timedelta(hours=1)
_SAID_LINES: Final = 2_000


@dataclass(frozen=True, slots=True)
class Invoked:
    """An invocation that wrote no outcome line of a key that it named: how it ended.

    `ended` is "success" or a reason as in FailedInvocation; `error` is also one that was only
    logged.
    """

    logged_at: datetime
    ended: str
    request_id: str | None
    duration: timedelta | None
    error: Failure | None


Said = Outcome | FailedInvocation | Invoked


def iter_said(
    logs: CloudWatchLogsClient,
    group: str,
    keys: Collection[str],
    *,
    bucket: str,
    is_ours: bool,
    start_at: datetime,
    end_at: datetime | None = None,
) -> Iterator[tuple[str, Said]]:
    """Yield what the log says of each of `keys` of a bucket, those of a key in time order.

    Of a processor that `is_ours` all is told by its outcome lines, and what Lambda says of requests
    that named a key. Others are told by what their invocations printed, which takes reading all of
    the log streams that name the key.
    Raises NotFoundError when the group does not exist, and AccessError.
    """
    if not is_ours:
        for key in keys:
            yield from ((key, said) for said in _iter_foreign(logs, group, key, start_at, end_at))
        return
    naming: dict[str, LogEvent] = {}
    of_request: dict[str, set[str]] = {}
    for pattern in _naming_patterns(keys):
        for event in iter_events(logs, group, start_at=start_at, end_at=end_at, pattern=pattern):
            entry = parse_entry(event)
            # Another bucket's file may have the name, and an emulator may not apply the pattern.
            if isinstance(entry, Outcome) and entry.key in keys and entry.bucket == bucket:
                naming[event.event_id] = event
                if entry.request_id is not None:
                    of_request.setdefault(entry.request_id, set()).add(entry.key)
    if not naming:
        return
    first_at = min(event.logged_at for event in naming.values()) - _TRIES_BEFORE
    for pattern in _patterns(sorted(of_request)):
        for event in iter_events(
            logs, group, start_at=max(start_at, first_at), end_at=end_at, pattern=pattern
        ):
            naming[event.event_id] = event
    reader = EntryReader()
    for event in sorted(naming.values(), key=lambda event: event.logged_at):
        match reader.read(event):
            case Outcome() as outcome if outcome.key in keys and outcome.bucket == bucket:
                yield outcome.key, outcome
            case FailedInvocation(request_id=str(request_id)) as failed:
                for key in sorted(of_request.get(request_id, ())):
                    yield key, failed


def _naming_patterns(keys: Collection[str]) -> Iterator[str]:
    """Yield patterns that select at least the outcome lines of these keys."""
    terms = [term_of(key) for key in keys]
    if None in terms:
        # Of a key that is written in several ways in the log nothing is left to search by.
        yield OUTCOME_OR_FAILURE_PATTERN
        return
    yield from _patterns(sorted({term for term in terms if term is not None}))


def _patterns(terms: Sequence[str]) -> Iterator[str]:
    """Yield patterns that select what has one of the terms, as few as hold them all."""
    if len(terms) == 1:
        yield f'"{terms[0]}"'
        return
    pattern = ""
    for term in terms:
        added = f'{pattern} ?"{term}"'.lstrip()
        if len(added) > _PATTERN_CHARACTERS and pattern:
            yield pattern
            added = f'?"{term}"'
        pattern = added
    if pattern:
        yield pattern


def _iter_foreign(
    logs: CloudWatchLogsClient,
    group: str,
    key: str,
    start_at: datetime,
    end_at: datetime | None,
) -> Iterator[Said]:
    """Yield how each invocation ended that named the key."""
    # By log stream, in which one invocation runs at a time: what it said since it started.
    texts: dict[str, deque[str]] = {}
    failed: set[str] = set()
    selection = LineSelection(key=key)
    for event, entry in iter_selected(logs, group, selection, start_at=start_at, end_at=end_at):
        stream = entry.log_stream
        said = texts.setdefault(stream, deque(maxlen=_SAID_LINES))
        match entry:
            case Outcome():
                # Somebody's own handler may write lines as ours does.
                if entry.key == key:
                    yield entry
            case InvocationStart():
                said.clear()
                failed.discard(stream)
            case LogLine():
                said.append(event.message)
            case FailedInvocation(error=error):
                failed.add(stream)
                if find_keys([*said, error.message, error.trace], {key}):
                    yield Invoked(entry.logged_at, entry.reason, entry.request_id, None, error)
            case InvocationReport():
                if stream not in failed and find_keys(said, {key}):
                    logged = find_error(list(said))
                    yield Invoked(
                        entry.logged_at, entry.status, entry.request_id, entry.duration, logged
                    )
