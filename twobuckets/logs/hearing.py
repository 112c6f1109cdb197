"""What a processor's log says of the keys that are waited for, as it comes.

Processors of ours write an outcome line for each file. Of others it is known which invocation said
what: when it ends badly, or logs an error and ends well, the keys that it named are those it was
about.
"""

from __future__ import annotations

from collections import OrderedDict
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from twobuckets.logs.foreign import find_error, find_keys
from twobuckets.logs.lines import (
    OUTCOME_OR_FAILURE_PATTERN,
    EntryReader,
    FailedInvocation,
    InvocationReport,
    InvocationStart,
    LogLine,
    Outcome,
)

if TYPE_CHECKING:
    from collections.abc import Container, Iterator
    from datetime import datetime

    from twobuckets.logs.events import Follower
    from twobuckets.processor.contract import Failure

_SAID_INVOCATIONS: Final = 2_000
_SAID_CHARACTERS: Final = 64_000


@dataclass(frozen=True, slots=True)
class FailedOn:
    """An invocation that failed, and the keys that it named, which may be none."""

    invocation: FailedInvocation
    keys: set[str]


@dataclass(frozen=True, slots=True)
class EndedWell:
    """An invocation that Lambda takes for a success, and the keys that it named.

    `error` is one that it logged all the same, `last_words` the last line that it wrote.
    """

    request_id: str
    keys: set[str]
    error: Failure | None
    last_words: str


class Listener:
    """Follows a log and tells what it says of `keys`, which may change between two turns."""

    def __init__(self, follower: Follower, keys: Container[str]) -> None:
        self.has_outcome_lines = False
        """Whether outcome lines were seen: from then on they tell of every file."""
        self._follower = follower
        self._keys = keys
        self._reader = EntryReader()
        self._said: OrderedDict[str, list[str]] = OrderedDict()

    def poll(self, now: datetime) -> Iterator[Outcome | FailedOn | EndedWell]:
        """Yield what the log says by now. Raises what `Follower.poll` raises."""
        for event in self._follower.poll(now):
            entry = self._reader.read(event)
            match entry:
                case Outcome():
                    self._expect_outcome_lines()
                    yield entry
                case FailedInvocation():
                    yield self._end_badly(entry)
                case LogLine(request_id=str(request_id)):
                    self._remember(request_id, event.message)
                case InvocationStart():
                    self._said.pop(entry.request_id, None)
                case InvocationReport():
                    yield from self._end(entry)

    def _expect_outcome_lines(self) -> None:
        """Ask for little else of the log from now on."""
        if not self.has_outcome_lines:
            self.has_outcome_lines = True
            self._follower.pattern = OUTCOME_OR_FAILURE_PATTERN
            self._said.clear()

    def _remember(self, request_id: str, text: str) -> None:
        if self.has_outcome_lines:
            return
        said = self._said.setdefault(request_id, [])
        if sum(map(len, said)) < _SAID_CHARACTERS:
            said.append(text[:_SAID_CHARACTERS])
        self._said.move_to_end(request_id)
        if len(self._said) > _SAID_INVOCATIONS:
            self._said.popitem(last=False)

    def _end_badly(self, failed: FailedInvocation) -> FailedOn:
        said = self._said.pop(failed.request_id, []) if failed.request_id else []
        texts = [*said, failed.error.message, failed.error.trace]
        return FailedOn(failed, find_keys(texts, self._keys))

    def _end(self, report: InvocationReport) -> Iterator[EndedWell]:
        said = self._said.pop(report.request_id, [])
        if report.status == "success" and (keys := find_keys(said, self._keys)):
            yield EndedWell(report.request_id, keys, find_error(said), said[-1].strip())
