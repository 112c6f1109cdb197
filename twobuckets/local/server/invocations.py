"""Runs asynchronous invocations, S3's and those of `Invoke` with `Event`: few at a time, from disk.

Gap: the emulator's `invoke_async_with_retry` starts a thread, and with it a process, per event,
counts a throttle as a failed attempt and forgets everything when the server ends. It notifies of an
object in a thread too, which dies with the server.
As on AWS, retries of an event keep its request id, throttles do not count as attempts, and after
the last attempt the event goes to the on-failure destination or the dead-letter queue.
"""

import heapq
import json
import logging
import sqlite3
import threading
import time
import uuid
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from enum import Enum, auto
from pathlib import Path
from typing import Any

logger = logging.getLogger(__name__)

# AWS waits 1 and then 2 minutes (Lambda guide, "Retry behavior"); nobody waits that long here.
RETRY_SECONDS = 1.0
THROTTLE_SECONDS = 0.05
THROTTLE_MAXIMUM_SECONDS = 2.0
# AWS: MaximumEventAgeInSeconds and MaximumRetryAttempts when a function does not set them.
EVENT_AGE_SECONDS = 21_600.0
RETRY_ATTEMPTS = 2


@dataclass(frozen=True, slots=True)
class QueuedInvocation:
    """One event on its way to a function; `failures` counts attempts that ended in an error."""

    id: int
    function_arn: str
    event: str
    request_id: str
    received_at: float
    failures: int = 0
    throttles: int = 0


class Ending(Enum):
    """How an attempt ended."""

    SUCCEEDED = auto()
    FAILED = auto()
    THROTTLED = auto()
    GONE = auto()


@dataclass(frozen=True, slots=True)
class Attempt:
    """What an attempt came to, and what the function's settings say about further ones."""

    ending: Ending
    retry_attempts: int = RETRY_ATTEMPTS
    event_age_seconds: float = EVENT_AGE_SECONDS
    give_up: Callable[[], None] | None = None


class InvocationQueue:
    """A queue of invocations that outlives the process; `invoke` runs one attempt.

    Delivery is at least once: an invocation leaves the disk only after it has ended.
    """

    def __init__(
        self,
        file: Path,
        invoke: Callable[[QueuedInvocation], Attempt],
        *,
        retry_seconds: float = RETRY_SECONDS,
        throttle_seconds: float = THROTTLE_SECONDS,
    ) -> None:
        self._invoke = invoke
        self._retry_seconds = retry_seconds
        self._throttle_seconds = throttle_seconds
        self._lock = threading.Lock()
        self._ready = threading.Condition(self._lock)
        self._due: list[tuple[float, int, QueuedInvocation]] = []
        self._closed = False
        self._running = 0
        # Every statement runs under the lock, whichever thread it is in.
        self._disk = sqlite3.connect(file, isolation_level=None, check_same_thread=False)
        self._disk.execute("PRAGMA journal_mode=WAL")
        # A killed process loses nothing that was written; only a power cut could.
        self._disk.execute("PRAGMA synchronous=OFF")
        self._disk.execute(
            "CREATE TABLE IF NOT EXISTS invocation (id INTEGER PRIMARY KEY, function_arn TEXT,"
            " event TEXT, request_id TEXT, received_at REAL, failures INTEGER)"
        )

    def start(self, concurrency: int) -> None:
        """Take up what an earlier process left, and run up to `concurrency` at a time."""
        rows = self._disk.execute(
            "SELECT id, function_arn, event, request_id, received_at, failures"
            " FROM invocation ORDER BY id"
        ).fetchall()
        with self._ready:
            for row in rows:
                self._schedule(QueuedInvocation(*row), time.time())
        for number in range(concurrency):
            threading.Thread(target=self._work, name=f"invocation-{number}", daemon=True).start()

    def submit(self, function_arn: str, event: Mapping[str, Any]) -> None:
        """Accept an event; it is on disk when this returns."""
        now = time.time()
        document = json.dumps(event)
        request_id = str(uuid.uuid4())
        with self._ready:
            cursor = self._disk.execute(
                "INSERT INTO invocation (function_arn, event, request_id, received_at, failures)"
                " VALUES (?, ?, ?, ?, 0)",
                (function_arn, document, request_id, now),
            )
            number = cursor.lastrowid
            assert number is not None
            self._schedule(QueuedInvocation(number, function_arn, document, request_id, now), now)

    def close(self) -> None:
        """Start no further invocation; what has not ended stays on disk for the next process."""
        with self._ready:
            self._closed = True
            self._ready.notify_all()

    def _schedule(self, invocation: QueuedInvocation, due: float) -> None:
        heapq.heappush(self._due, (due, invocation.id, invocation))
        self._ready.notify()

    def _next(self) -> QueuedInvocation | None:
        with self._ready:
            while not self._closed:
                wait = self._due[0][0] - time.time() if self._due else None
                if wait is not None and wait <= 0:
                    return heapq.heappop(self._due)[2]
                self._ready.wait(wait)
        return None

    def _work(self) -> None:
        while (invocation := self._next()) is not None:
            try:
                attempt = self._invoke(invocation)
            except Exception:
                logger.exception(
                    "Invocation %s of %s", invocation.request_id, invocation.function_arn
                )
                attempt = Attempt(Ending.FAILED)
            with self._lock:
                closed = self._closed
            if closed:
                # The children are being ended; what looks like a failure here is none.
                return
            self._settle(invocation, attempt)

    def _settle(self, invocation: QueuedInvocation, attempt: Attempt) -> None:
        now = time.time()
        age = now - invocation.received_at
        if attempt.ending is Ending.THROTTLED and age < attempt.event_age_seconds:
            wait = min(self._throttle_seconds * 2**invocation.throttles, THROTTLE_MAXIMUM_SECONDS)
            waiting = replace(invocation, throttles=min(invocation.throttles + 1, 16))
            with self._ready:
                self._schedule(waiting, now + wait)
            return
        wait = self._retry_seconds * 2**invocation.failures
        if (
            attempt.ending is Ending.FAILED
            and invocation.failures < attempt.retry_attempts
            and age + wait < attempt.event_age_seconds
        ):
            failed = replace(invocation, failures=invocation.failures + 1, throttles=0)
            with self._ready:
                self._disk.execute(
                    "UPDATE invocation SET failures = ? WHERE id = ?", (failed.failures, failed.id)
                )
                self._schedule(failed, now + wait)
            return
        if attempt.ending in (Ending.FAILED, Ending.THROTTLED) and attempt.give_up is not None:
            attempt.give_up()
        with self._lock:
            self._disk.execute("DELETE FROM invocation WHERE id = ?", (invocation.id,))


def install(file: Path) -> InvocationQueue:
    """Put a queue in the place of the emulator's own way; `start` it when the state is loaded."""
    from ministack.services import lambda_svc, s3

    queue = InvocationQueue(file, _attempt)

    def submit(func: dict[str, Any], event: dict[str, Any]) -> None:
        config = func.get("config") or func
        queue.submit(config["FunctionArn"], event)

    def fire_at_once(
        bucket_name: str, key: str, event_name: str, *args: Any, **kwargs: Any
    ) -> None:
        # The emulator does this in a thread of its own: a server killed in between would have
        # stored an object that nobody is told about.
        if bucket_name in s3._bucket_notifications:
            sequencer = s3._next_event_sequencer(event_name)
            s3._fire_s3_event(bucket_name, key, event_name, *args, sequencer=sequencer, **kwargs)

    lambda_svc.invoke_async_with_retry = submit
    s3._fire_s3_event_async = fire_at_once
    return queue


def _attempt(invocation: QueuedInvocation) -> Attempt:
    """Run one attempt in the scope of the function's account and region."""
    from ministack.services import lambda_svc

    scope = {"FunctionArn": invocation.function_arn}
    attempt: Attempt = lambda_svc._run_with_function_config_scope(
        scope, _attempt_in_scope, invocation
    )
    return attempt


def _attempt_in_scope(invocation: QueuedInvocation) -> Attempt:
    from ministack.services import lambda_svc

    record, config, name = lambda_svc._get_func_record_for_ref(invocation.function_arn)
    if not record or not config:
        logger.warning("Function %s is gone; its event is dropped", name)
        return Attempt(Ending.GONE)
    function = lambda_svc._execution_record_for_config(
        record, {**config, "FunctionArn": invocation.function_arn}
    )
    limits = (
        record.get("event_invoke_config")
        or (record.get("event_invoke_configs") or {}).get("$LATEST")
        or {}
    )
    slot, _ = lambda_svc._acquire_execution_slot(function, config)
    started = time.time()
    if slot is None:
        result: dict[str, Any] = {"throttle": True, "error": True}
    else:
        try:
            result = lambda_svc._execute_function_dispatch(
                function, config, json.loads(invocation.event), invocation.request_id, started
            )
        finally:
            lambda_svc._release_execution_slot(slot)
    lambda_svc._emit_lambda_metrics(
        name,
        duration_ms=(time.time() - started) * 1000.0,
        error=bool(result.get("error")) and not result.get("throttle"),
        throttle=bool(result.get("throttle")),
    )
    ending = Ending.SUCCEEDED
    if result.get("throttle"):
        ending = Ending.THROTTLED
    elif result.get("error"):
        ending = Ending.FAILED
        logger.info("Invocation %s of %s failed", invocation.request_id, name)
    destination = ((limits.get("DestinationConfig") or {}).get("OnFailure") or {}).get(
        "Destination"
    ) or (config.get("DeadLetterConfig") or {}).get("TargetArn")

    def give_up() -> None:
        if destination:
            event = json.loads(invocation.event)
            lambda_svc._run_with_function_config_scope(
                config, lambda_svc._route_async_failure, destination, name, event, result
            )

    attempts = limits.get("MaximumRetryAttempts")
    return Attempt(
        ending,
        retry_attempts=RETRY_ATTEMPTS if attempts is None else int(attempts),
        event_age_seconds=float(limits.get("MaximumEventAgeInSeconds") or EVENT_AGE_SECONDS),
        give_up=give_up,
    )
