"""What the log said, minute by minute, in as much memory after a day as after a minute."""

from __future__ import annotations

from collections import Counter, OrderedDict
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import TYPE_CHECKING, Final

from twobuckets.logs.errors import error_line, without_varying
from twobuckets.logs.lines import (
    FAILURE_PATTERN,
    EntryReader,
    FailedInvocation,
    InvocationReport,
    InvocationStart,
    Outcome,
)
from twobuckets.processor.contract import FAILED, UNSUCCESSFUL

if TYPE_CHECKING:
    from twobuckets.logs.events import LogEvent

SHOWN: Final = 30
"""So many minutes are told, the one that runs among them."""
PATTERN: Final = f'{FAILURE_PATTERN} ?"REPORT RequestId"'
"""A filter pattern that selects at least outcomes, failures, and each invocation's two ends."""
_MINUTE: Final = timedelta(minutes=1)
# An invocation lasts at most so long, except on Managed Instances.
_LONGEST_INVOCATION: Final = timedelta(minutes=15)
_MOST_OPEN: Final = 20_000
_MOST_ERRORS: Final = 200


@dataclass(frozen=True, slots=True)
class WatchedError:
    """Tries that failed with the same error but for keys, numbers and ids, and the last of them."""

    error: str
    tries: int
    last_at: datetime
    last_key: str


@dataclass(slots=True)
class _Error:
    line: str
    by_minute: Counter[datetime]
    last_at: datetime
    last_key: str


class Minutes:
    """Counts what the log tells by the minute, and forgets what is older than it shows."""

    def __init__(self) -> None:
        self._reader = EntryReader()
        self._outcomes: dict[datetime, Counter[str]] = {}
        self._begun: Counter[datetime] = Counter()
        self._errors: OrderedDict[str, _Error] = OrderedDict()
        self._open: OrderedDict[str, datetime] = OrderedDict()
        self.told = 0
        """How many outcomes were told since the beginning."""

    def add(self, event: LogEvent) -> None:
        """Take note of what an event says."""
        entry = self._reader.read(event)
        match entry:
            case Outcome():
                self._count(entry.outcome, entry.logged_at)
                self.told += 1
                if entry.attempt in (None, 1):
                    began_at = entry.logged_at - (entry.duration or timedelta())
                    self._begun[_minute_of(began_at)] += 1
                if entry.outcome in UNSUCCESSFUL:
                    self._note_error(error_line(entry), entry.logged_at, entry.key)
            case FailedInvocation():
                self._count(FAILED, entry.logged_at)
                self._open.pop(entry.request_id or "", None)
                line = f"{entry.error.type}: {entry.error.message.partition(chr(10))[0]}"
                self._note_error(line.strip(": "), entry.logged_at, "")
            case InvocationStart():
                self._open[entry.request_id] = entry.logged_at
                if len(self._open) > _MOST_OPEN:
                    self._open.popitem(last=False)
            case InvocationReport():
                self._open.pop(entry.request_id, None)

    def forget(self, now: datetime) -> None:
        """Forget what is older than what is shown."""
        oldest = _minute_of(now) - SHOWN * _MINUTE
        for minute in [m for m in self._outcomes if m < oldest]:
            del self._outcomes[minute]
        for minute in [m for m in self._begun if m < oldest]:
            del self._begun[minute]
        for shared in [s for s, e in self._errors.items() if e.last_at < oldest]:
            del self._errors[shared]
        for error in self._errors.values():
            for minute in [m for m in error.by_minute if m < oldest]:
                del error.by_minute[minute]
        for request in [r for r, at in self._open.items() if now - at > _LONGEST_INVOCATION]:
            del self._open[request]

    @property
    def in_flight(self) -> int:
        """How many invocations began and were not heard to end."""
        return len(self._open)

    def begun(self, now: datetime) -> tuple[int, ...]:
        """Return how many files were turned to for the first time, by the minute, oldest first."""
        return tuple(self._begun[minute] for minute in _minutes_until(now))

    def outcomes(self, now: datetime) -> dict[str, tuple[int, ...]]:
        """Return how many tries had each outcome, by the minute, oldest first."""
        minutes = list(_minutes_until(now))
        kinds = sorted({kind for counts in self._outcomes.values() for kind in counts})
        nothing: Counter[str] = Counter()
        return {
            kind: tuple(self._outcomes.get(minute, nothing)[kind] for minute in minutes)
            for kind in kinds
        }

    def errors(self, most: int) -> tuple[WatchedError, ...]:
        """Return the errors of the minutes that are shown, the most frequent first."""
        told = [
            WatchedError(e.line, e.by_minute.total(), e.last_at, e.last_key)
            for e in self._errors.values()
        ]
        return tuple(sorted(told, key=lambda error: -error.tries)[:most])

    def _count(self, outcome: str, at: datetime) -> None:
        self._outcomes.setdefault(_minute_of(at), Counter())[outcome] += 1

    def _note_error(self, line: str, at: datetime, key: str) -> None:
        shared = without_varying(line)
        error = self._errors.get(shared)
        if error is None:
            error = self._errors[shared] = _Error(line, Counter(), at, key)
            if len(self._errors) > _MOST_ERRORS:
                self._errors.popitem(last=False)
        error.by_minute[_minute_of(at)] += 1
        if at >= error.last_at:
            error.line, error.last_at = line, at
            error.last_key = key or error.last_key


def _minute_of(instant: datetime) -> datetime:
    return instant.replace(second=0, microsecond=0)


def _minutes_until(now: datetime) -> list[datetime]:
    newest = _minute_of(now)
    return [newest - number * _MINUTE for number in reversed(range(SHOWN))]
