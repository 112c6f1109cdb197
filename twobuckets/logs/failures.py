"""What failed and was not made good since, from the outcome lines of a time."""

from __future__ import annotations

from typing import TYPE_CHECKING

from twobuckets.logs.lines import ARCHIVED, FAILED, REJECTED, SUPERSEDED, parse_outcome

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from twobuckets.logs.events import LogEvent
    from twobuckets.logs.lines import Outcome


def find_failed(events: Iterable[LogEvent]) -> Iterator[Outcome]:
    """Yield for each key the last failed or rejected outcome, unless it was archived after that.

    `events` are in time order; what is held is one outcome for each key that failed.
    """
    failed: dict[str, Outcome] = {}
    for event in events:
        outcome = parse_outcome(event)
        if outcome is None:
            continue
        if outcome.outcome in (FAILED, REJECTED):
            failed[outcome.key] = outcome
        elif outcome.outcome in (ARCHIVED, SUPERSEDED):
            failed.pop(outcome.key, None)
    yield from failed.values()
