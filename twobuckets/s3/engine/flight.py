"""Requests on their way and their answers, in the hands of whoever asks for the next answer."""

from collections import deque
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from datetime import timedelta
from typing import Protocol

from twobuckets.s3.engine.checksums import Trailer
from twobuckets.s3.engine.records import Request, Response, SendError, SignedRequest, Signer


@dataclass(slots=True, eq=False)
class Try:
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


class Carrier(Protocol):
    """Moves the requests of all flights on while somebody asks one of them for an answer."""

    def fill(self, flight: "Flight") -> None:
        """Start as many of a flight's requests as may be on their way now."""

    def turn(self, *, wait: bool = True) -> None:
        """Wait until something can go on, and let it."""

    def put_off(self, seconds: float, what: Try) -> None:
        """Let a request wait in its flight after that many seconds."""


class Flight(Iterator[tuple[Request, Response | SendError]]):
    """The answers to a stream of requests, in the order in which they arrive.

    Requests are taken from the source only as fast as they can be sent. A source that has nothing
    before the next answer yields None; with nothing in flight, that ends this iteration of the
    answers, and the next one goes on with the source.
    """

    def __init__(self, carrier: Carrier, source: Iterable[Request | None]) -> None:
        self._carrier = carrier
        self._source = iter(source)
        self._ended = False
        self.waiting: deque[Try] = deque()
        self._ready: deque[tuple[Request, Response | SendError]] = deque()
        self._open = 0

    def add(self, request: Request, *, after: timedelta = timedelta()) -> None:
        """Send a follow-up, now or after a while, before anything more is taken from the source."""
        self._open += 1
        trying = Try(request, self)
        if after:
            self._carrier.put_off(after.total_seconds(), trying)
        else:
            self.waiting.append(trying)

    def __next__(self) -> tuple[Request, Response | SendError]:
        ready = self._ready
        while not ready:
            self._carrier.fill(self)
            if ready:
                break
            if not self._open:
                raise StopIteration
            self._carrier.turn()
            self._carrier.fill(self)
        return ready.popleft()

    def poll(self) -> tuple[Request, Response | SendError] | None:
        """Return an answer that has arrived, and let others go on; None if there is none yet."""
        if not self._ready:
            self._carrier.turn(wait=False)
            self._carrier.fill(self)
        return self._ready.popleft() if self._ready else None

    def take(self) -> Try | None:
        """Return the request to start next; None if there is none now."""
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
        return Try(request, self)

    def land(self, trying: Try, outcome: Response | SendError) -> None:
        """Give back a request of this flight with its final answer."""
        self._open -= 1
        self._ready.append((trying.request, outcome))
