"""What failed and was not made good since, from the outcome lines of a time."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final, TypeVar

from twobuckets.logs.errors import KINDS, error_line, kind_of, matches, pattern_of
from twobuckets.logs.lines import EntryReader, FailedInvocation, Outcome
from twobuckets.processor import contract
from twobuckets.processor.contract import REJECTED

if TYPE_CHECKING:
    from collections.abc import Collection, Iterable, Iterator

    from twobuckets.logs.events import LogEvent

T = TypeVar("T")

UNREJECTED: Final = tuple(kind for kind in KINDS if kind != REJECTED)
"""What may go well the next time: what was rejected is not, unless the processor has changed."""


def find_failed(
    events: Iterable[LogEvent],
    unnamed: set[str] | None = None,
    *,
    kinds: Collection[str] = UNREJECTED,
    errors: Collection[str] = (),
) -> Iterator[Outcome]:
    """Yield for each key the last failed or rejected outcome, unless it was archived after that.

    Only failures of these `kinds` (see `errors.kind_of`) whose error matches one of the patterns
    `errors`, if there are any; one of each error comes first, then the second of each, and so on.
    `events` are in time order; what is held is one outcome for each key that failed. `unnamed` gets
    the request ids of invocations that failed without an outcome line: killed, out of memory, or of
    a processor that is not ours.
    """
    failed: dict[str, Outcome] = {}
    silent: set[str] = set()
    reader = EntryReader()
    for event in events:
        entry = reader.read(event)
        match entry:
            case Outcome(outcome=contract.FAILED | contract.REJECTED):
                failed[entry.key] = entry
                silent.discard(entry.request_id or "")
            case Outcome(outcome=contract.ARCHIVED | contract.SUPERSEDED):
                failed.pop(entry.key, None)
                # Lambda tries again under the same request id.
                silent.discard(entry.request_id or "")
            case FailedInvocation():
                silent.add(entry.request_id or entry.log_stream)
    if unnamed is not None:
        unnamed |= silent
    meant: dict[str, list[Outcome]] = {}
    for outcome in failed.values():
        line = error_line(outcome)
        if kind_of(outcome) in kinds and matches(line, errors):
            meant.setdefault(pattern_of(line), []).append(outcome)
    yield from in_turn(meant.values())


def in_turn(groups: Iterable[Iterable[T]]) -> Iterator[T]:
    """Yield the first of each group, then the second of each, until all are through."""
    left = [iter(group) for group in groups]
    while left:
        still = []
        for group in left:
            for item in group:
                yield item
                still.append(group)
                break
        left = still
