"""Sends signed requests: many at once, each until S3 has answered it for good.

A flight is an iterator of answers driven by whoever asks for the next one: no thread runs in the
background for small requests, so Ctrl-C arrives where the caller stands, and memory is bounded by
what is in flight. Bodies of half a mebibyte and more are carried by threads.
"""

import random
import time
from collections.abc import Callable, Iterable
from datetime import timedelta
from types import TracebackType
from typing import Self

from twobuckets.s3.engine.dial import Dial
from twobuckets.s3.engine.flight import Flight
from twobuckets.s3.engine.limit import Pace
from twobuckets.s3.engine.loop import Loop
from twobuckets.s3.engine.records import Request, Response, SendError, Signer
from twobuckets.s3.engine.retry import RetryPolicy

_RETRY = RetryPolicy()


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
        retry: RetryPolicy = _RETRY,
        timeout: timedelta = timedelta(seconds=60),
        monotonic: Callable[[], float] = time.monotonic,
        jitter: Callable[[], float] = random.random,
    ) -> None:
        self._loop = Loop(
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
