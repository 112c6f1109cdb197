"""The loop in which small requests are sent: kept connections, and one selector that watches them.

A request with a large body is handed to the threads for those, and its answer comes back here.
"""

import heapq
import selectors
import socket
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial

from twobuckets.s3.engine.bodies import FileChangedError
from twobuckets.s3.engine.bulk import BULK_BYTES, Bulk
from twobuckets.s3.engine.dial import Dial
from twobuckets.s3.engine.flight import Flight, Try
from twobuckets.s3.engine.limit import Limit, Pace
from twobuckets.s3.engine.records import (
    HollowAnswerError,
    Response,
    SendError,
    ServerAddress,
    SignedRequest,
    Signer,
)
from twobuckets.s3.engine.retry import RetryPolicy, asks_for_less, find_pause
from twobuckets.s3.engine.wire import READ, Connection, Task


@dataclass(slots=True, eq=False)
class _Lane:
    """A connection of the loop, the task that has it, and what the selector watches it for."""

    connection: Connection
    sock: socket.socket | None = None
    fd: int = -1
    watched: int = 0
    task: Task[Response] | None = None
    trying: Try | None = None
    moved_at: float = 0.0


class Loop:
    """Drives the tasks of all flights of a sender in the thread that asks for answers."""

    def __init__(
        self,
        signer: Signer,
        *,
        dial: Dial,
        most: int,
        most_bulk: int,
        pace: Pace | None,
        retry: RetryPolicy,
        timeout: float,
        monotonic: Callable[[], float],
        jitter: Callable[[], float],
    ) -> None:
        self._signer = signer
        self._selector = selectors.DefaultSelector()
        self._timeout = timeout
        self._dial = dial
        self._pace = pace
        self._retry = retry
        self._monotonic = monotonic
        self._jitter = jitter
        self._idle: dict[ServerAddress, list[_Lane]] = {}
        self._busy = 0
        self._answers = 0
        self._limit = Limit(most, monotonic())
        self._later: list[tuple[float, int, Try | _Lane]] = []
        self._count = 0
        self._swept_at = monotonic()
        self._bulk = Bulk(
            most_bulk, signer, self._converse, selector=self._selector, timeout=timeout
        )

    def close(self) -> None:
        """Close all connections, whatever is under way on them."""
        self._bulk.close()
        for key in list(self._selector.get_map().values()):
            if isinstance(key.data, _Lane):
                key.data.connection.close()
        self._selector.close()
        self._idle.clear()

    def fill(self, flight: Flight) -> None:
        """Start as many of a flight's requests as may be on their way now."""
        while self._busy < self._limit.now and self._bulk.free:
            trying = flight.take()
            if trying is None:
                break
            if trying.request.length >= BULK_BYTES:
                self._bulk.start(trying)
            else:
                self._start(trying)

    def _start(self, trying: Try) -> None:
        try:
            signed = trying.sign(self._signer, None)
        except (OSError, FileChangedError) as error:
            trying.flight.land(trying, SendError(error, trying.attempts))
            return
        if not self._busy:
            # What a server closed while nothing was sent would pass for an answer that got lost.
            for key, _ in self._selector.select(0):
                if isinstance(key.data, _Lane):
                    self._advance(key.data)
        idle = self._idle.setdefault(signed.origin, [])
        lane = idle.pop() if idle else _Lane(Connection(signed.origin))
        lane.trying = trying
        lane.task = self._converse(lane.connection, signed, trying, None)
        self._busy += 1
        self._advance(lane)

    def _converse(
        self, connection: Connection, signed: SignedRequest, trying: Try, buffer: memoryview | None
    ) -> Task[Response]:
        if connection.sock is None:
            yield from self._dial.open(connection)
        on_sent = trying.request.on_sent
        return (
            yield from connection.exchange(
                signed,
                trying.request.body,
                buffer,
                None if on_sent is None else partial(_note_sent, trying, on_sent),
                self._dial.proxy,
                trying.trailer,
                None if self._pace is None else self._pace.take,
            )
        )

    def turn(self, *, wait: bool = True) -> None:
        """Wait until something can go on, and let it."""
        full = self._busy >= self._limit.now
        started_at = self._monotonic()
        timeout = 1.0
        if self._later:
            timeout = min(timeout, max(0.0, self._later[0][0] - started_at))
        if full:
            timeout = min(timeout, self._limit.period)
        events = self._selector.select(timeout if wait else 0)
        now = self._monotonic()
        for key, _ in events:
            lane = key.data
            if isinstance(lane, _Lane):
                lane.moved_at = now
                self._advance(lane)
            else:
                for trying, outcome, reused in self._bulk.iter_done():
                    self._judge(trying, outcome, reused=reused)
        while self._later and self._later[0][0] <= now:
            _, _, due = heapq.heappop(self._later)
            if isinstance(due, _Lane):
                self._advance(due)
            else:
                due.flight.waiting.append(due)
        self._limit.note(started_at, now, self._answers, full=full)
        self._answers = 0
        if now - self._swept_at > 1.0:
            self._swept_at = now
            self._sweep(now)

    def _advance(self, lane: _Lane) -> None:
        if lane.task is None:
            # An idle connection becomes readable when the server hangs up.
            self._idle[lane.connection.origin].remove(lane)
            self._drop(lane)
            return
        try:
            wanted = next(lane.task)
        except StopIteration as done:
            self._finish(lane, done.value)
        except (OSError, FileChangedError) as error:
            self._finish(lane, error)
        else:
            if wanted != lane.watched or lane.connection.sock is not lane.sock:
                self._watch(lane, wanted)

    def _watch(self, lane: _Lane, wanted: float) -> None:
        sock = lane.connection.sock
        assert sock is not None
        if sock is not lane.sock:
            # The one to the host's next address may have got the number of the one that failed.
            self._unwatch(lane)
            lane.sock = sock
        if wanted < 0:
            self._unwatch(lane)
            self.put_off(-wanted, lane)
            return
        events = int(wanted)
        if lane.watched:
            self._selector.modify(lane.fd, _as_events(events), lane)
        else:
            lane.fd = sock.fileno()
            self._selector.register(lane.fd, _as_events(events), lane)
            lane.moved_at = self._monotonic()
        lane.watched = events

    def put_off(self, seconds: float, what: Try | _Lane) -> None:
        """Go on with a request or a connection after that many seconds."""
        self._count += 1
        heapq.heappush(self._later, (self._monotonic() + seconds, self._count, what))

    def _finish(self, lane: _Lane, outcome: Response | Exception) -> None:
        trying = lane.trying
        assert trying is not None
        lane.task = lane.trying = None
        self._busy -= 1
        self._answers += 1
        reused = lane.connection.used
        if isinstance(outcome, Response) and lane.connection.sock is not None:
            if lane.watched != READ:
                self._watch(lane, READ)
            self._idle[lane.connection.origin].append(lane)
        else:
            self._drop(lane)
        self._judge(trying, outcome, reused=reused)

    def _drop(self, lane: _Lane) -> None:
        self._unwatch(lane)
        lane.connection.close()

    def _unwatch(self, lane: _Lane) -> None:
        if lane.watched:
            self._selector.unregister(lane.fd)
            lane.watched = 0

    def _sweep(self, now: float) -> None:
        """Give up on connections that have not moved for too long."""
        for key in list(self._selector.get_map().values()):
            lane = key.data
            if not isinstance(lane, _Lane) or lane.task is None:
                continue
            if now - lane.moved_at > lane.connection.patience(self._timeout):
                lane.task.close()
                host = lane.connection.origin.host
                self._finish(lane, TimeoutError(f"{host} does not answer"))

    def _judge(self, trying: Try, outcome: Response | Exception, *, reused: bool) -> None:
        """Hand over the answer if that was one for good; else let the request be sent again."""
        trying.attempts += 1
        if isinstance(outcome, Response):
            outcome.attempts = trying.attempts + trying.stale
            outcome.checksum = trying.trailer.checksum if trying.trailer else trying.checksum
            if 200 <= outcome.status < 300 and outcome.ok:
                if outcome.says(trying.request.expects):
                    trying.flight.land(trying, outcome)
                    return
                outcome = HollowAnswerError(f"HTTP {outcome.status} came back and nothing with it")
            elif trying.request.retries and asks_for_less(outcome):
                self._limit.slow_down(self._monotonic())
        pause = find_pause(
            trying,
            outcome,
            reused=reused,
            policy=self._retry,
            signer=self._signer,
            jitter=self._jitter(),
        )
        if pause is None:
            answer = (
                outcome
                if isinstance(outcome, Response)
                else SendError(outcome, trying.attempts + trying.stale)
            )
            trying.flight.land(trying, answer)
            return
        if trying.sent_bytes and trying.request.on_sent is not None:
            trying.request.on_sent(-trying.sent_bytes)
        trying.sent_bytes = 0
        self.put_off(pause, trying)


def _note_sent(trying: Try, on_sent: Callable[[int], None], count: int) -> None:
    trying.sent_bytes += count
    on_sent(count)


def _as_events(wanted: int) -> int:
    return (selectors.EVENT_READ if wanted & READ else 0) | (
        selectors.EVENT_WRITE if wanted & ~READ else 0
    )
