"""How much is sent at once: requests in flight, as measured, and bytes a second, as asked for."""

import math
import threading
from collections.abc import Callable

_FIRST_OPEN = 32
_HOLD_SECONDS = 1.0


class Limit:
    """How many small requests are in flight: as many as keep this process busy.

    While the loop waits for a fifth of its time or more, more requests in flight bring more answers
    a second. The number grows by as much as would leave no time to wait, up to twice at once, and
    up to four times at the start, as long as that brings more answers. Once the loop hardly waits,
    or more requests brought no more answers, it stays: a loaded server should not be loaded more,
    and each further connection has to be opened. `SlowDown` halves it.
    """

    period = 0.025

    def __init__(self, most: int, now: float) -> None:
        self.now = min(_FIRST_OPEN, most)
        self._most = most
        self._since = now
        self._waited = 0.0
        self._answers = 0
        self._rate = 0.0
        self._starting = True
        self._grown = False
        self._before = self.now
        self._held_until = now

    def note(self, started_at: float, now: float, answers: int, *, full: bool) -> None:
        """Take note of one turn of the loop: it waited that long and then got so many answers.

        `full` says whether as many requests as allowed were in flight meanwhile.
        """
        self._waited += now - started_at
        self._answers += answers
        elapsed = now - self._since
        # Answers come in waves, and how many of one came by now is chance.
        part_of_wave = 0 < self._answers < self.now
        if elapsed < (4 * self.period if part_of_wave else self.period):
            return
        rate = self._answers / elapsed
        waiting = self._waited > elapsed / 5
        busy = 1 - self._waited / elapsed
        most_growth = 4 if self._starting else 2
        self._since, self._waited, self._answers = now, 0.0, 0
        # While this process is busy, with the handshakes of new connections for one, fewer answers
        # say nothing of the server.
        if self._grown and waiting and self._rate and rate < 1.1 * self._rate:
            if rate < 1.02 * self._rate:
                self.now = self._before
            self._hold(now)
        elif full and waiting and now >= self._held_until and self.now < self._most:
            self._before = self.now
            growth = min(most_growth, 1 / max(busy, 0.01))
            self.now = min(self._most, math.ceil(self.now * growth))
            self._grown = True
        else:
            self._grown = False
        self._rate = rate

    def slow_down(self, now: float) -> None:
        """Halve the number, once for all the refusals of one moment, and let it rest."""
        if now >= self._held_until:
            self.now = max(4, self.now // 2)
            self._hold(now)

    def _hold(self, now: float) -> None:
        self._held_until = now + _HOLD_SECONDS
        self._starting = self._grown = False


class Pace:
    """Shares a number of bytes a second among all who send."""

    def __init__(self, bytes_per_second: int, monotonic: Callable[[], float]) -> None:
        self._rate = bytes_per_second
        self._monotonic = monotonic
        self._lock = threading.Lock()
        self._free_at = monotonic()

    def take(self, count: int) -> float:
        """Return the seconds to wait after so many bytes."""
        with self._lock:
            now = self._monotonic()
            self._free_at = max(self._free_at, now) + count / self._rate
            return self._free_at - now
