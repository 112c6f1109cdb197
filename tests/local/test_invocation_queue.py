"""The queue in front of Lambda loses nothing: to failures, throttles or the end of a process."""

from __future__ import annotations

import threading
import time
from collections import Counter
from typing import TYPE_CHECKING

import pytest

from twobuckets.local.server.invocations import Attempt, Ending, InvocationQueue, QueuedInvocation

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

ARN = "arn:aws:lambda:us-east-1:000000000000:function:f"


@pytest.fixture
def queue_on():
    """What opens a queue; its file, which a server keeps open to its end, is closed after."""
    queues = []

    def open_queue(
        directory: Path, invoke: Callable[[QueuedInvocation], Attempt]
    ) -> InvocationQueue:
        queue = InvocationQueue(
            directory / "queue", invoke, retry_seconds=0.01, throttle_seconds=0.001
        )
        queues.append(queue)
        return queue

    yield open_queue
    for queue in queues:
        queue._disk.close()


def wait_for(condition: Callable[[], bool]) -> None:
    deadline = time.monotonic() + 10
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.002)


def test_a_burst_runs_a_few_at_a_time_and_all_of_it(queue_on, tmp_path: Path):
    running = 0
    most = 0
    done: list[str] = []
    lock = threading.Lock()

    def invoke(invocation: QueuedInvocation) -> Attempt:
        nonlocal running, most
        with lock:
            running += 1
            most = max(most, running)
        time.sleep(0.001)
        with lock:
            running -= 1
            done.append(invocation.event)
        return Attempt(Ending.SUCCEEDED)

    queue = queue_on(tmp_path, invoke)
    queue.start(4)
    for number in range(200):
        queue.submit(ARN, {"n": number})
    wait_for(lambda: len(done) == 200)
    queue.close()
    assert len(set(done)) == 200
    assert most <= 4


def test_failures_are_tried_again_under_one_request_id_and_then_given_up(queue_on, tmp_path: Path):
    seen: list[QueuedInvocation] = []
    given_up: list[str] = []

    def invoke(invocation: QueuedInvocation) -> Attempt:
        seen.append(invocation)
        return Attempt(Ending.FAILED, give_up=lambda: given_up.append(invocation.event))

    queue = queue_on(tmp_path, invoke)
    queue.start(2)
    queue.submit(ARN, {"key": "a"})
    wait_for(lambda: bool(given_up))
    queue.close()
    assert [invocation.failures for invocation in seen] == [0, 1, 2]
    assert len({invocation.request_id for invocation in seen}) == 1
    assert given_up == ['{"key": "a"}']


def test_throttles_do_not_count_as_tries(queue_on, tmp_path: Path):
    endings = [Ending.THROTTLED] * 5 + [Ending.FAILED] + [Ending.THROTTLED] * 2 + [Ending.SUCCEEDED]
    failures: list[int] = []

    def invoke(invocation: QueuedInvocation) -> Attempt:
        failures.append(invocation.failures)
        return Attempt(endings[len(failures) - 1], retry_attempts=1)

    queue = queue_on(tmp_path, invoke)
    queue.start(1)
    queue.submit(ARN, {})
    wait_for(lambda: len(failures) == len(endings))
    queue.close()
    assert failures == [0] * 6 + [1] * 3


def test_an_event_that_is_too_old_is_given_up(queue_on, tmp_path: Path):
    given_up = threading.Event()
    queue = queue_on(
        tmp_path,
        lambda _: Attempt(Ending.THROTTLED, event_age_seconds=0.05, give_up=given_up.set),
    )
    queue.start(1)
    queue.submit(ARN, {})
    assert given_up.wait(5)
    queue.close()


def test_what_had_not_ended_goes_on_in_the_next_process(queue_on, tmp_path: Path):
    def never(_: QueuedInvocation) -> Attempt:
        raise AssertionError("not started")

    first = queue_on(tmp_path, never)
    for number in range(3):
        first.submit(ARN, {"n": number})
    first.close()

    seen: Counter[str] = Counter()

    def invoke(invocation: QueuedInvocation) -> Attempt:
        seen[invocation.event] += 1
        return Attempt(Ending.SUCCEEDED)

    second = queue_on(tmp_path, invoke)
    second.start(2)
    wait_for(lambda: len(seen) == 3)
    second.close()
    assert set(seen.values()) == {1}
    third = queue_on(tmp_path, never)
    third.start(1)
    third.close()


def test_an_invocation_under_way_when_the_server_ends_is_run_again(queue_on, tmp_path: Path):
    started, ended = threading.Event(), threading.Event()

    def interrupted(_: QueuedInvocation) -> Attempt:
        started.set()
        ended.wait(5)
        return Attempt(Ending.FAILED, retry_attempts=0)

    first = queue_on(tmp_path, interrupted)
    first.start(1)
    first.submit(ARN, {"key": "a"})
    assert started.wait(5)
    first.close()
    ended.set()

    again = threading.Event()

    def invoke(invocation: QueuedInvocation) -> Attempt:
        assert invocation.failures == 0
        again.set()
        return Attempt(Ending.SUCCEEDED)

    second = queue_on(tmp_path, invoke)
    second.start(1)
    assert again.wait(5)
    second.close()


def test_an_error_of_the_server_itself_is_a_failed_try_and_not_the_end_of_the_queue(
    queue_on,
    tmp_path: Path,
):
    seen: list[str] = []

    def invoke(invocation: QueuedInvocation) -> Attempt:
        seen.append(invocation.event)
        if "a" in invocation.event:
            raise RuntimeError("broken")
        return Attempt(Ending.SUCCEEDED)

    queue = queue_on(tmp_path, invoke)
    queue.start(1)
    queue.submit(ARN, {"key": "a"})
    queue.submit(ARN, {"key": "b"})
    wait_for(lambda: len(seen) == 4)
    queue.close()
    assert Counter(seen) == {'{"key": "a"}': 3, '{"key": "b"}': 1}
