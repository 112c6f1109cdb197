"""Sends signed requests: many at once, each until S3 has answered it for good.

A flight is an iterator of answers driven by whoever asks for the next one: no thread runs in the
background for small requests, so Ctrl-C arrives where the caller stands, and memory is bounded by
what is in flight. Bodies of half a mebibyte and more are carried by threads.
"""

import heapq
import queue
import random
import selectors
import socket
import ssl
import threading
import time
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from datetime import timedelta
from types import TracebackType
from typing import Self

from twobuckets.s3.checksums import Trailer
from twobuckets.s3.limit import Limit, Pace
from twobuckets.s3.records import (
    BLOCK_BYTES,
    FileChangedError,
    Origin,
    Request,
    Response,
    SendError,
    SignedRequest,
    Signer,
)
from twobuckets.s3.wire import READ, Address, Connection, Task, drive, find_addresses

BULK_BYTES = 512 * 1024
"""Bodies from this length on are carried by a thread of their own."""

# Answers that say "not now" rather than "no" (S3 API reference, Error responses).
_PASSING_STATUS = frozenset({429, 500, 502, 503, 504})
_PASSING_CODES = frozenset(
    {
        "ConditionalRequestConflict",
        "IncompleteBody",
        "InternalError",
        "OperationAborted",
        "RequestTimeout",
        "ServiceUnavailable",
        "SlowDown",
        "Throttling",
    }
)
# A body was damaged on its way, or is wrong in itself: then it is refused again and again.
_DAMAGE_CODES = frozenset(
    {
        "BadDigest",
        "InvalidChunkSizeError",
        "MalformedTrailerError",
        "MalformedXML",
        "XAmzContentChecksumMismatch",
    }
)
_DAMAGED_ATTEMPTS = 4
_ADDRESSES_LIVE = 30.0
"""Seconds for which a host's addresses are used before they are looked up again."""
_BUSY_CODES = frozenset({"SlowDown", "ServiceUnavailable", "Throttling", "ThrottlingException"})


@dataclass(frozen=True, slots=True)
class RetryPolicy:
    """How often a request is sent, and the bounds of the random pause in between (full jitter)."""

    attempts: int = 8
    first_pause: timedelta = timedelta(milliseconds=200)
    longest_pause: timedelta = timedelta(seconds=20)

    def pause(self, attempts: int, jitter: float) -> float:
        """Return the seconds to wait after that many attempts; `jitter` is between 0 and 1."""
        ceiling: float = self.first_pause.total_seconds() * 2.0 ** min(attempts - 1, 30)
        return jitter * min(ceiling, self.longest_pause.total_seconds())


@dataclass(slots=True, eq=False)
class _Try:
    """A request on its way, with what its attempts so far have shown."""

    request: Request
    flight: "Flight"
    attempts: int = 0
    renewals: int = 0
    stale: int = 0
    sent_bytes: int = 0
    checksum: int | None = None
    trailer: Trailer | None = None
    signed: SignedRequest | None = None

    def sign(self, signer: Signer, buffer: memoryview | None) -> SignedRequest:
        """Sign the request, with the checksum that all attempts have in common or that follows."""
        request, algorithm = self.request, self.request.checksum
        if algorithm is None:
            pass
        elif request.trails and not signer.signs_payload:
            self.trailer = Trailer(algorithm, request.length)
            request = request.with_headers(*self.trailer.headers)
        else:
            if self.checksum is None:
                self.checksum = algorithm.compute(request.body, buffer)
            request = request.with_headers((algorithm.header, algorithm.encode(self.checksum)))
        self.signed = signer.sign(request)
        return self.signed


@dataclass(slots=True, eq=False)
class _Lane:
    """A connection of the loop, the task that has it, and what the selector watches it for."""

    connection: Connection
    fd: int = -1
    watched: int = 0
    task: Task[Response] | None = None
    trying: _Try | None = None
    moved_at: float = 0.0


class Flight(Iterator[tuple[Request, Response | SendError]]):
    """The answers to a stream of requests, in the order in which they arrive.

    Requests are taken from the source only as fast as they can be sent. A source that has nothing
    before the next answer yields None; with nothing in flight, that ends this iteration of the
    answers, and the next one goes on with the source.
    """

    def __init__(self, loop: "_Loop", source: Iterable[Request | None]) -> None:
        self._loop = loop
        self._source = iter(source)
        self._ended = False
        self.waiting: deque[_Try] = deque()
        self._ready: deque[tuple[Request, Response | SendError]] = deque()
        self._open = 0

    def add(self, request: Request, *, after: timedelta = timedelta()) -> None:
        """Send a follow-up, now or after a while, before anything more is taken from the source."""
        self._open += 1
        trying = _Try(request, self)
        if after:
            self._loop.put_off(after.total_seconds(), trying)
        else:
            self.waiting.append(trying)

    def __next__(self) -> tuple[Request, Response | SendError]:
        ready = self._ready
        while not ready:
            self._loop.fill(self)
            if ready:
                break
            if not self._open:
                raise StopIteration
            self._loop.turn()
            self._loop.fill(self)
        return ready.popleft()

    def poll(self) -> tuple[Request, Response | SendError] | None:
        """Return an answer that has arrived, and let others go on; None if there is none yet."""
        if not self._ready:
            self._loop.turn(wait=False)
            self._loop.fill(self)
        return self._ready.popleft() if self._ready else None

    def take(self) -> _Try | None:
        if self.waiting:
            return self.waiting.popleft()
        if self._ended:
            return None
        try:
            request = next(self._source)
        except StopIteration:
            self._ended = True
            return None
        if request is None:
            return None
        self._open += 1
        return _Try(request, self)

    def land(self, trying: _Try, outcome: Response | SendError) -> None:
        self._open -= 1
        self._ready.append((trying.request, outcome))


class Sender:
    """Sends requests over kept connections; belongs to one thread, and is closed after use.

    `most` bounds the requests in flight, of which `most_bulk` may have large bodies; within these
    bounds the number adapts to what is measured. `timeout` is how long a connection may make no
    progress. `bytes_per_second` limits the bodies sent, all together.
    """

    def __init__(
        self,
        signer: Signer,
        *,
        ca_bundle: str | None = None,
        proxy: str | None = None,
        most: int = 256,
        most_bulk: int = 16,
        bytes_per_second: int | None = None,
        retry: RetryPolicy = RetryPolicy(),
        timeout: timedelta = timedelta(seconds=60),
        monotonic: Callable[[], float] = time.monotonic,
        jitter: Callable[[], float] = random.random,
    ) -> None:
        self._loop = _Loop(
            signer,
            dial=Dial(ca_bundle, proxy, monotonic),
            most=most,
            most_bulk=most_bulk,
            pace=Pace(bytes_per_second, monotonic) if bytes_per_second else None,
            retry=retry,
            timeout=timeout.total_seconds(),
            monotonic=monotonic,
            jitter=jitter,
        )

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()

    def close(self) -> None:
        """Close all connections at once; what is in flight may or may not have reached S3."""
        self._loop.close()

    def send_all(self, requests: Iterable[Request | None] = ()) -> Flight:
        """Send requests as fast as S3 takes them and give each its final answer.

        An answer is a Response of any status, or a SendError when there was none. Connection
        errors, timeouts and answers that mean "not now" are tried again; a refused signature is
        signed again after the clock was set or the keys were renewed.
        """
        return Flight(self._loop, requests)

    def send(self, request: Request) -> Response:
        """Send one request; raises SendError when no answer could be had."""
        [(_, outcome)] = self.send_all([request])
        if isinstance(outcome, SendError):
            raise outcome
        return outcome


class Dial:
    """Opens connections: knows whom to trust, which proxy to go through and where hosts are."""

    def __init__(
        self, ca_bundle: str | None, proxy: str | None, monotonic: Callable[[], float]
    ) -> None:
        self.proxy = proxy
        self._ca_bundle = ca_bundle
        self._monotonic = monotonic
        self._context: ssl.SSLContext | None = None
        self._addresses: dict[Origin, tuple[float, deque[Address]]] = {}

    def open(self, connection: Connection) -> Task[None]:
        """Open a connection to the next of its host's addresses that answers: S3 has many."""
        origin = connection.origin
        known = self._addresses.get(origin)
        if known is None or self._monotonic() - known[0] > _ADDRESSES_LIVE:
            known = self._monotonic(), deque(find_addresses(origin, self.proxy))
            self._addresses[origin] = known
        if origin.tls and self._context is None:
            self._context = ssl.create_default_context(cafile=self._ca_bundle)
        addresses = known[1]
        for left in reversed(range(len(addresses))):
            addresses.rotate(-1)
            try:
                yield from connection.open(addresses[-1], self._context, self.proxy)
            except ssl.SSLError:
                raise
            except OSError:
                # `localhost` has an IPv6 address where nobody may listen.
                connection.close()
                if not left:
                    raise
            else:
                return


class _Loop:
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
        self.signer = signer
        self.selector = selectors.DefaultSelector()
        self.timeout = timeout
        self._dial = dial
        self._pace = pace
        self._retry = retry
        self._monotonic = monotonic
        self._jitter = jitter
        self._idle: dict[Origin, list[_Lane]] = {}
        self._busy = 0
        self._answers = 0
        self._limit = Limit(most, monotonic())
        self._later: list[tuple[float, int, _Try | _Lane]] = []
        self._count = 0
        self._swept_at = monotonic()
        self._bulk = _Bulk(self, most_bulk)

    def close(self) -> None:
        self._bulk.close()
        for key in list(self.selector.get_map().values()):
            if isinstance(key.data, _Lane):
                key.data.connection.close()
        self.selector.close()
        self._idle.clear()

    def fill(self, flight: Flight) -> None:
        while self._busy < self._limit.now and self._bulk.free:
            trying = flight.take()
            if trying is None:
                break
            if trying.request.length >= BULK_BYTES:
                self._bulk.start(trying)
            else:
                self._start(trying)

    def _start(self, trying: _Try) -> None:
        try:
            signed = trying.sign(self.signer, None)
        except (OSError, FileChangedError) as error:
            trying.flight.land(trying, SendError(error, trying.attempts))
            return
        if not self._busy:
            # What a server closed while nothing was sent would pass for an answer that got lost.
            for key, _ in self.selector.select(0):
                if isinstance(key.data, _Lane):
                    self._advance(key.data)
        idle = self._idle.setdefault(signed.origin, [])
        lane = idle.pop() if idle else _Lane(Connection(signed.origin))
        lane.trying = trying
        lane.task = self.converse(lane.connection, signed, trying, None)
        self._busy += 1
        self._advance(lane)

    def converse(
        self, connection: Connection, signed: SignedRequest, trying: _Try, buffer: memoryview | None
    ) -> Task[Response]:
        if connection.sock is None:
            yield from self._dial.open(connection)
        hears = self._pace is not None or trying.request.on_sent is not None
        return (
            yield from connection.exchange(
                signed,
                trying.request.body,
                buffer,
                (lambda count: self._note_sent(trying, count)) if hears else None,
                self._dial.proxy,
                trying.trailer,
            )
        )

    def _note_sent(self, trying: _Try, count: int) -> float:
        trying.sent_bytes += count
        if trying.request.on_sent is not None:
            trying.request.on_sent(count)
        return self._pace.take(count) if self._pace is not None else 0.0

    def turn(self, *, wait: bool = True) -> None:
        """Wait until something can go on, and let it."""
        full = self._busy >= self._limit.now
        started_at = self._monotonic()
        timeout = 1.0
        if self._later:
            timeout = min(timeout, max(0.0, self._later[0][0] - started_at))
        if full:
            timeout = min(timeout, self._limit.period)
        events = self.selector.select(timeout if wait else 0)
        now = self._monotonic()
        for key, _ in events:
            lane = key.data
            if isinstance(lane, _Lane):
                lane.moved_at = now
                self._advance(lane)
            else:
                self._bulk.collect()
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
            if wanted != lane.watched:
                self._watch(lane, wanted)

    def _watch(self, lane: _Lane, wanted: float) -> None:
        sock = lane.connection.sock
        assert sock is not None
        if wanted < 0:
            self.selector.unregister(lane.fd)
            lane.watched = 0
            self.put_off(-wanted, lane)
            return
        events = int(wanted)
        if lane.watched:
            self.selector.modify(lane.fd, _as_events(events), lane)
        else:
            lane.fd = sock.fileno()
            self.selector.register(lane.fd, _as_events(events), lane)
            lane.moved_at = self._monotonic()
        lane.watched = events

    def put_off(self, seconds: float, what: "_Try | _Lane") -> None:
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
        self.judge(trying, outcome, reused=reused)

    def _drop(self, lane: _Lane) -> None:
        if lane.watched:
            self.selector.unregister(lane.fd)
            lane.watched = 0
        lane.connection.close()

    def _sweep(self, now: float) -> None:
        """Give up on connections that have not moved for too long."""
        for key in list(self.selector.get_map().values()):
            lane = key.data
            if not isinstance(lane, _Lane) or lane.task is None:
                continue
            if now - lane.moved_at > lane.connection.patience(self.timeout):
                lane.task.close()
                host = lane.connection.origin.host
                self._finish(lane, TimeoutError(f"{host} does not answer"))

    def judge(self, trying: _Try, outcome: Response | Exception, *, reused: bool) -> None:
        """Decide whether that was the answer, or whether the request is sent again."""
        trying.attempts += 1
        if isinstance(outcome, Response):
            outcome.attempts = trying.attempts + trying.stale
            outcome.checksum = trying.trailer.checksum if trying.trailer else trying.checksum
            if 200 <= outcome.status < 300 and outcome.ok:
                trying.flight.land(trying, outcome)
                return
            pause = self._find_pause(trying, outcome)
        elif not isinstance(outcome, OSError) or isinstance(outcome, ssl.CertificateError):
            # A changed file or a wrong certificate is the same the next time.
            pause = None
        elif reused and trying.request.retries and trying.stale < 3:
            # The server may close a kept connection just as it is used again. Nothing tells this
            # from an answer that got lost, so it counts in what the caller hears.
            trying.attempts -= 1
            trying.stale += 1
            pause = 0.0
        else:
            pause = self._retry.pause(trying.attempts, self._jitter())
            if trying.attempts >= self._retry.attempts or not trying.request.retries:
                pause = None
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

    def _find_pause(self, trying: _Try, answer: Response) -> float | None:
        """Return the seconds until a refused request is sent again; None if it is not."""
        if not trying.request.retries:
            return None
        code = answer.code
        if code in _BUSY_CODES or answer.status in {429, 503}:
            self._limit.slow_down(self._monotonic())
        passing = (
            answer.status in _PASSING_STATUS
            or code in _PASSING_CODES
            or (
                code in _DAMAGE_CODES
                and trying.request.length > 0
                and trying.attempts < _DAMAGED_ATTEMPTS
            )
        )
        if passing and trying.attempts < self._retry.attempts:
            pause = self._retry.pause(trying.attempts, self._jitter())
            return max(pause, _parse_retry_after(answer))
        if passing or trying.signed is None or trying.renewals >= 2:
            return None
        if self.signer.learn(trying.request, trying.signed, answer):
            trying.renewals += 1
            return 0.0
        return None


class _Bulk:
    """Threads that carry requests with large bodies, each over connections of its own."""

    def __init__(self, loop: _Loop, most: int) -> None:
        self._loop = loop
        self._most = most
        self._threads: list[threading.Thread] = []
        self._jobs: queue.SimpleQueue[_Try | None] = queue.SimpleQueue()
        self._done: queue.SimpleQueue[tuple[_Try, Response | Exception, bool]] = queue.SimpleQueue()
        self._stop = threading.Event()
        self._open = 0
        self._bell: tuple[socket.socket, socket.socket] | None = None

    @property
    def free(self) -> bool:
        """Say whether one more large request can start at once."""
        return self._open < self._most

    def start(self, trying: _Try) -> None:
        if self._bell is None:
            self._bell = socket.socketpair()
            self._bell[0].setblocking(False)
            self._loop.selector.register(self._bell[0], selectors.EVENT_READ, None)
        self._open += 1
        self._jobs.put(trying)
        if len(self._threads) < self._open:
            thread = threading.Thread(target=self._work, name="s3-bulk", daemon=True)
            self._threads.append(thread)
            thread.start()

    def collect(self) -> None:
        """Pass on the answers that the threads have brought."""
        assert self._bell is not None
        self._bell[0].recv(4096)
        while True:
            try:
                trying, outcome, reused = self._done.get_nowait()
            except queue.Empty:
                return
            self._open -= 1
            if not isinstance(outcome, (Response, OSError, FileChangedError)):
                raise outcome
            self._loop.judge(trying, outcome, reused=reused)

    def close(self) -> None:
        self._stop.set()
        for _ in self._threads:
            self._jobs.put(None)
        for thread in self._threads:
            thread.join(timeout=2)
        if self._bell is not None:
            for end in self._bell:
                end.close()

    def _work(self) -> None:
        buffer = memoryview(bytearray(BLOCK_BYTES))
        connections: dict[Origin, Connection] = {}
        while (trying := self._jobs.get()) is not None and not self._stop.is_set():
            reused = False
            outcome: Response | Exception
            try:
                signed = trying.sign(self._loop.signer, buffer)
                connection = connections.setdefault(signed.origin, Connection(signed.origin))
                reused = connection.used
                task = self._loop.converse(connection, signed, trying, buffer)
                try:
                    outcome = drive(task, connection, timeout=self._loop.timeout, stop=self._stop)
                except BaseException:
                    connection.close()
                    raise
            except Exception as error:  # noqa: BLE001 (the loop raises what it does not expect)
                outcome = error
            self._done.put((trying, outcome, reused))
            assert self._bell is not None
            self._bell[1].send(b"\0")
        for connection in connections.values():
            connection.close()


def _as_events(wanted: int) -> int:
    return (selectors.EVENT_READ if wanted & READ else 0) | (
        selectors.EVENT_WRITE if wanted & ~READ else 0
    )


def _parse_retry_after(answer: Response) -> float:
    text = answer.headers.get("retry-after", "")
    return min(60.0, float(text)) if text.isdigit() else 0.0
