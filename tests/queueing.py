"""A queue in front of a function, simulated: what waits, how old it gets, and when all is done.

Files arrive one after the other, so many at once are processed, each takes as long, and one that
fails comes back after a pause that doubles. Time is the simulation's own, so that hours take none.
The manual's tables are made with it; tests/embedded/test_queueing.py holds it against the embedded
AWS.
"""

from __future__ import annotations

import heapq
from collections import deque
from dataclasses import dataclass

_DONE = 0


@dataclass(frozen=True, slots=True)
class Load:
    """What comes and what takes it: `files`, so many `a_second`, each taking so many `seconds`.

    Up to `at_once` are processed side by side: `begins_with` so many, and `more_a_minute`. Every
    `fails_every`-th file, counted from 1, fails on each of its `tries`; none does with 0. It comes
    back after `pause` seconds, then after twice that, and so on.
    """

    files: int
    a_second: float
    seconds: float
    at_once: int
    fails_every: int = 0
    tries: int = 3
    pause: float = 60
    begins_with: int | None = None
    more_a_minute: int = 0

    def room(self, now: float) -> int:
        """Return how many may be processed at once by an instant."""
        if self.begins_with is None:
            return self.at_once
        return min(self.at_once, self.begins_with + int(now * self.more_a_minute / 60))


@dataclass(frozen=True, slots=True)
class Flow:
    """What becomes of a load: the most that waited, the longest wait, and when the last was done.

    `given_up` are the files that failed on every try, `runs` all tries of all files.
    """

    most_waiting: int
    longest_wait: float
    done_after: float
    given_up: int
    runs: int


def simulate(load: Load) -> Flow:
    """Return what becomes of a load."""
    # At an instant, a file that comes for one of its tries, or one that is done.
    happens = [(number / load.a_second, number, number, 1) for number in range(load.files)]
    order = load.files
    waiting: deque[tuple[float, int, int]] = deque()
    busy = most = given_up = runs = 0
    longest = now = 0.0
    while happens:
        now, _, number, attempt = heapq.heappop(happens)
        if attempt == _DONE:
            busy -= 1
        else:
            waiting.append((now, number, attempt))
        while waiting and busy < load.room(now):
            since, number, attempt = waiting.popleft()
            longest = max(longest, now - since)
            busy, runs, ends_at = busy + 1, runs + 1, now + load.seconds
            heapq.heappush(happens, (ends_at, order, number, _DONE))
            if load.fails_every and (number + 1) % load.fails_every == 0:
                again_at = ends_at + load.pause * 2 ** (attempt - 1)
                if attempt < load.tries:
                    heapq.heappush(happens, (again_at, order + 1, number, attempt + 1))
                given_up += attempt == load.tries
            order += 2
        most = max(most, len(waiting))
    return Flow(most, longest, now, given_up, runs)


@dataclass(frozen=True, slots=True)
class Plumbing:
    """What brings one file to `process`: requests of SQS and Lambda beside those for the file.

    `sent` are what the processor sends itself; `batch` files come in an invocation.
    """

    is_fifo: bool
    has_queue: bool
    sent: int
    invoked: int
    batch: int = 1

    def usd_a_million(self) -> float:
        """Return the cost at the list prices of us-east-1: SQS and Lambda pricing pages."""
        # Once sent, by S3 or the processor, and a batch at a time received and deleted.
        messages = (1 + 2 / self.batch) * self.has_queue
        return messages * (0.50 if self.is_fifo else 0.40) + self.invoked / self.batch * 0.20


PLUMBING = {
    "`notification`": Plumbing(is_fifo=False, has_queue=False, sent=0, invoked=1),
    "`queue`, 10 files an invocation": Plumbing(
        is_fifo=False, has_queue=True, sent=0, invoked=1, batch=10
    ),
    "`queue`, one file an invocation": Plumbing(is_fifo=False, has_queue=True, sent=0, invoked=1),
    "`ordered`": Plumbing(is_fifo=True, has_queue=True, sent=1, invoked=2),
}
