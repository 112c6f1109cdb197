"""Bounded concurrency over threads, for calls that wait on AWS."""

from __future__ import annotations

from collections import deque
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from typing import TYPE_CHECKING, TypeVar

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator

T = TypeVar("T")
R = TypeVar("R")

# Enough to hide a 50 ms link behind botocore's own work on a call.
DEFAULT_WORKERS = 16


def begin(function: Callable[[], R]) -> Callable[[], R]:
    """Start `function` in a thread of its own and return what waits for its result.

    An exception of `function` is raised where its result is asked for.
    """
    pool = ThreadPoolExecutor(1)
    begun = pool.submit(function)
    pool.shutdown(wait=False)
    return begun.result


def map_unordered(
    function: Callable[[T], R], items: Iterable[T], *, workers: int = DEFAULT_WORKERS
) -> Iterator[R]:
    """Yield `function(item)` for each item as it is done, with at most `workers` at a time.

    `items` is read no further than two items a worker ahead, so it may be endless. The first
    exception of `function` is raised here; closing the iterator, or an exception, starts nothing
    more and waits for what is under way.
    """
    pool = ThreadPoolExecutor(workers)
    pending: set[Future[R]] = set()
    try:
        for item in items:
            pending.add(pool.submit(function, item))
            if len(pending) >= 2 * workers:
                done, pending = wait(pending, return_when=FIRST_COMPLETED)
                for future in done:
                    yield future.result()
        while pending:
            done, pending = wait(pending, return_when=FIRST_COMPLETED)
            for future in done:
                yield future.result()
    finally:
        pool.shutdown(wait=True, cancel_futures=True)


def map_ordered(
    function: Callable[[T], R], items: Iterable[T], *, workers: int = DEFAULT_WORKERS
) -> Iterator[R]:
    """Yield `function(item)` for each item in the order of the items, `workers` at a time.

    `items` is read, and results are held, no further than two a worker ahead. An exception of
    `function` is raised in its place; closing the iterator, or an exception, starts nothing more
    and waits for what is under way.
    """
    pool = ThreadPoolExecutor(workers)
    pending: deque[Future[R]] = deque()
    try:
        for item in items:
            pending.append(pool.submit(function, item))
            if len(pending) >= 2 * workers:
                yield pending.popleft().result()
        while pending:
            yield pending.popleft().result()
    finally:
        pool.shutdown(wait=True, cancel_futures=True)
