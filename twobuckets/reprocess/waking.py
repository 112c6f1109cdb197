"""Wakes the processor for the files of a run that wait in staging: age and version stay."""

from __future__ import annotations

from typing import TYPE_CHECKING

from twobuckets.aws import ClientError
from twobuckets.errors import AccessError, NotFoundError, TwoBucketsError
from twobuckets.parallel import map_unordered
from twobuckets.reprocess.items import Change, Item, Reprocessed, State, result_of

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator
    from datetime import datetime

    from twobuckets.pipeline.waking import Waker
    from twobuckets.reprocess.journal import Journal


def wake(
    waker: Waker,
    journal: Journal,
    items: Iterable[Item],
    *,
    workers: int,
    now: Callable[[], datetime],
    pace: Callable[[], None] = lambda: None,
) -> Iterator[Reprocessed]:
    """Invoke the processor asynchronously for each item and yield what came of it.

    Raises AccessError when the function may not be invoked at all, and NotFoundError when it is
    not there.
    """

    def invoke(item: Item) -> Change:
        try:
            waker.ask(
                item.key,
                version_id=item.version_id,
                etag=item.etag,
                size_bytes=item.size,
                now=now(),
            )
        except (AccessError, NotFoundError):
            raise
        except TwoBucketsError as error:
            # Without an answer nobody knows whether Lambda took it: it is begun, and stays so.
            if not isinstance(error.__cause__, ClientError):
                raise
            return Change(item.id, State.FAILED, error.message)
        return Change(item.id, State.DONE, None, item.version_id)

    def begun() -> Iterator[Item]:
        for item in items:
            pace()
            journal.begin([item], now().timestamp())
            seen[item.id] = item
            yield item

    seen: dict[int, Item] = {}
    for change in map_unordered(invoke, begun(), workers=workers):
        journal.note([change])
        yield result_of(seen.pop(change.id), change)
