"""Threads for large bodies: TLS and file reads release the interpreter's lock, so cores add up."""

import queue
import selectors
import socket
import threading
from collections.abc import Callable, Iterator

from twobuckets.s3.engine.bodies import BLOCK_BYTES, FileChangedError
from twobuckets.s3.engine.flight import Try
from twobuckets.s3.engine.records import (
    Response,
    ServerAddress,
    SignedRequest,
    Signer,
)
from twobuckets.s3.engine.wire import Connection, Task, drive

BULK_BYTES = 512 * 1024
"""Bodies from this length on are carried by a thread of their own."""

Converse = Callable[[Connection, SignedRequest, Try, memoryview], Task[Response]]
"""Makes the task that sends a request over a connection, its body through a buffer."""


class Bulk:
    """Threads that carry requests with large bodies, each over connections of its own.

    When a request has come to its end, a socket with None as its data is readable in `selector`.
    """

    def __init__(
        self,
        most: int,
        signer: Signer,
        converse: Converse,
        *,
        selector: selectors.BaseSelector,
        timeout: float,
    ) -> None:
        self._most = most
        self._signer = signer
        self._converse = converse
        self._selector = selector
        self._timeout = timeout
        self._threads: list[threading.Thread] = []
        self._jobs: queue.SimpleQueue[Try | None] = queue.SimpleQueue()
        self._done: queue.SimpleQueue[tuple[Try, Response | Exception, bool]] = queue.SimpleQueue()
        self._stop = threading.Event()
        self._open = 0
        self._bell: tuple[socket.socket, socket.socket] | None = None

    @property
    def free(self) -> bool:
        """Say whether one more large request can start at once."""
        return self._open < self._most

    def start(self, trying: Try) -> None:
        """Give a request to a thread that has none, or to a new one."""
        if self._bell is None:
            self._bell = socket.socketpair()
            self._bell[0].setblocking(False)
            self._selector.register(self._bell[0], selectors.EVENT_READ, None)
        self._open += 1
        self._jobs.put(trying)
        if len(self._threads) < self._open:
            thread = threading.Thread(target=self._work, name="s3-bulk", daemon=True)
            self._threads.append(thread)
            thread.start()

    def iter_done(self) -> Iterator[tuple[Try, Response | Exception, bool]]:
        """Yield what came of requests, and whether their connection had been used before."""
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
            yield trying, outcome, reused

    def close(self) -> None:
        """Stop the threads wherever they are; what they carried may or may not have arrived."""
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
        connections: dict[ServerAddress, Connection] = {}
        while (trying := self._jobs.get()) is not None and not self._stop.is_set():
            reused = False
            outcome: Response | Exception
            try:
                signed = trying.sign(self._signer, buffer)
                connection = connections.setdefault(signed.origin, Connection(signed.origin))
                reused = connection.used
                task = self._converse(connection, signed, trying, buffer)
                try:
                    outcome = drive(task, connection, timeout=self._timeout, stop=self._stop)
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
