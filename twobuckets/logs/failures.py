"""What failed and was not made good since, from the outcome lines of a time."""

from __future__ import annotations

from typing import TYPE_CHECKING

from twobuckets.logs.lines import EntryReader, FailedInvocation, Outcome

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from twobuckets.logs.events import LogEvent


def find_failed(events: Iterable[LogEvent], unnamed: set[str] | None = None) -> Iterator[Outcome]:
    """Yield for each key the last failed or rejected outcome, unless it was archived after that.

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
            case Outcome(outcome="failed" | "rejected"):
                failed[entry.key] = entry
                silent.discard(entry.request_id or "")
            case Outcome(outcome="archived" | "superseded"):
                failed.pop(entry.key, None)
                # Lambda tries again under the same request id.
                silent.discard(entry.request_id or "")
            case FailedInvocation():
                silent.add(entry.request_id or entry.log_stream)
    if unnamed is not None:
        unnamed |= silent
    yield from failed.values()
