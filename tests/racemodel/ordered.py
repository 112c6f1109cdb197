"""Worlds that watch what `process` does of a key, and one where a FIFO queue wakes the function.

Three laws more, which a pipeline without order breaks: `overlap`, of one key at most one `process`
runs; `late`, none of an older upload begins once that of a newer one is done; `landed`, effects
land in the order of the uploads.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Collection, Iterator, Sequence
from concurrent.futures import Executor, Future
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from types import ModuleType, SimpleNamespace
from typing import TYPE_CHECKING, Any

from tests.racemodel.actors import Actor, SameThread, Scheduler
from tests.racemodel.world import LAMBDA_TRIES, STAGING, Scenario, World
from twobuckets import processor as real_processor
from twobuckets.processor import contract

if TYPE_CHECKING:
    from tests.racemodel.s3 import Client, Stored

ACCOUNT, NAME = "123456789012", "intake-ordered.fifo"
QUEUE_URL = f"https://sqs.us-east-1.amazonaws.com/{ACCOUNT}/{NAME}"
QUEUE_ARN = f"arn:aws:sqs:us-east-1:{ACCOUNT}:{NAME}"
ORDER = ("overlap", "late", "landed")
"""The laws of this module."""
RECEIPTS = 3
"""After which a message goes to the dead-letter queue."""


class WatchedWorld(World):
    """A world in which S3 invokes the function, with some of the laws over what `process` does."""

    def __init__(
        self,
        scenario: Scenario,
        processor: ModuleType = real_processor,
        *,
        order: Collection[str] = ORDER,
    ) -> None:
        super().__init__(scenario, processor)
        self._order = order
        self._running: dict[str, set[int]] = {}
        self._done: dict[str, set[int]] = {}

    def process(self, file: Any) -> None:
        """Read and watch as the world does, then let an effect land outside of S3."""
        number = int(file.version_id.removeprefix("v"))
        running = self._running.setdefault(file.key, set())
        done = self._done.setdefault(file.key, set())
        is_late = any(other > number for other in done)
        if running and "overlap" in self._order:
            raise self.laws.broken(f"overlap: process() of {number} began beside {sorted(running)}")
        if is_late and "late" in self._order:
            raise self.laws.broken(f"late: process() of {number} began after {max(done)} was done")
        running.add(number)
        try:
            super().process(file)
            # An instant to be interrupted at, or to die at, before the effect.
            self.client.list_objects_v2(Bucket=STAGING, Prefix="effects")
            if any(other > number for other in done) and "landed" in self._order:
                raise self.laws.broken(f"landed: effects of {number} after those of {max(done)}")
            done.add(number)
        finally:
            running.discard(number)


@dataclass(slots=True)
class _Message:
    """A message of the queue; `deaths` are of its receipts, one after the other."""

    id: str
    body: str
    deaths: list[int | None]
    receipts: int = 0


@dataclass(slots=True)
class _Group:
    """The messages of one group, and whether somebody has one of them out."""

    messages: list[_Message] = field(default_factory=list)
    is_polled: bool = False


class OrderedWorld(WatchedWorld):
    """A world whose function has a FIFO queue: it sends there what wakes it, and is fed from there.

    So many messages of a group as `batch` come at once. In the middle of the run staging is looked
    at so many times as there are `wakes`, and what is there is woken. Where the queue is `leaky`,
    its visibility time-out is shorter than a run: a group gives another message out meanwhile.
    """

    def __init__(
        self,
        scenario: Scenario,
        processor: ModuleType = real_processor,
        *,
        wakes: int = 1,
        batch: int = 1,
        leaky: bool = False,
    ) -> None:
        # A wake-up tells no sequencer: what it archives and what is uploaded in the same second
        # have no order that could be told, and the later one stays, as the manual says.
        super().__init__(replace(scenario, writes_per_second=1), processor)
        self.dead_letters: list[str] = []
        self._wakes, self._batch, self._leaky = wakes, batch, leaky
        self._groups: dict[str, _Group] = {}
        self._once: set[str] = set()
        self._requests = 0
        self._heard = 0

    def run(self, key: str = "key") -> None:
        """Do as the world does, with somebody who wakes what staging shows in between."""
        for number in range(self._wakes):
            self.spawn(f"waker {number}", lambda client: self._wake_staged(client, key))
        super().run(key)

    def _wake_staged(self, client: Client, key: str) -> None:
        client.list_objects_v2(Bucket=STAGING, Prefix=key)
        for stored in self.staging.visible():
            self._wake(stored)

    def _wake_what_is_left(self) -> None:
        self._heard = len(self.lines)
        super()._wake_what_is_left()

    def _upload_again(self, stored: Stored) -> None:
        """Do so only for a reason that the processor gave: a wake-up without a word is lost."""
        if all(line["version_id"] != stored.version_id for line in self.lines[self._heard :]):
            raise self.laws.broken(f"stuck: nothing came of waking staged version {stored.staged}")
        super()._upload_again(stored)

    @contextmanager
    def _installed(self) -> Iterator[None]:
        variables = {contract.QUEUE_URL: QUEUE_URL, contract.RECORD_CONCURRENCY: str(self._batch)}
        with super()._installed():
            self.processor.runtime._clients["sqs"] = self
            os.environ.update(variables)
            try:
                yield
            finally:
                for name in variables:
                    del os.environ[name]

    def deliver(
        self, event: dict[str, Any], deaths: Sequence[int | None] = (), name: str = "event"
    ) -> Actor:
        """Add an actor that invokes the function with this event, which only sends it on.

        Its process dies before its first call if it is to live for none; all other deaths strike
        those who process the message.
        """
        self._requests += 1
        context = SimpleNamespace(aws_request_id=f"{name}, request {self._requests}")
        later = list(deaths)

        def invoke() -> None:
            for number in range(LAMBDA_TRIES):
                death = later.pop(0) if number == 0 and later[:1] == [0] else None
                if self._ends_well(lambda: self.handler(event, context), death, deaths=later):
                    return
            self._actor().kill_after(None)

        return self.scheduler.spawn(name, invoke)

    # --- SQS, as far as the processor calls it ---

    def send_message(self, **asked: Any) -> None:
        """Take a message; one whose id was there before is swallowed with success."""
        self.scheduler.step("SendMessage")
        once, body = asked["MessageDeduplicationId"], asked["MessageBody"]
        if once in self._once:
            return
        self._once.add(once)
        group = self._groups.setdefault(asked["MessageGroupId"], _Group())
        deaths = self._actor().local["deaths"]
        group.messages.append(_Message(f"m{len(self._once)}", body, deaths))
        if self._leaky or not group.is_polled:
            group.is_polled = True
            self.scheduler.spawn("poller", lambda: self._poll(group))

    def change_message_visibility_batch(self, **_: Any) -> None:
        """Be told when to show messages again: here time passes as the schedule says."""
        self.scheduler.step("ChangeMessageVisibility")

    def _poll(self, group: _Group) -> None:
        """Feed the function from a group until it is empty, as an event source mapping does."""
        while group.messages:
            batch = group.messages[: self._batch]
            if self._leaky:
                del group.messages[: self._batch]
            self.scheduler.step("ReceiveMessage")
            failed = self._invoke(batch)
            for message in batch:
                if message.id not in failed:
                    gone = message
                elif message.receipts < RECEIPTS:
                    continue
                else:
                    self.dead_letters.append(message.body)
                    gone = message
                if not self._leaky:
                    group.messages.remove(gone)
            if self._leaky:
                group.messages += [m for m in batch if m.id in failed and m.receipts < RECEIPTS]
        group.is_polled = False

    def _invoke(self, batch: list[_Message]) -> set[str]:
        """Invoke the function with messages and return the ids of those that come back."""
        failed = {message.id for message in batch}
        deaths = batch[0].deaths
        for message in batch:
            message.receipts += 1
        event = {"Records": [self._record(message) for message in batch]}
        self._requests += 1
        context = SimpleNamespace(aws_request_id=f"poll, request {self._requests}")

        def run() -> None:
            answer: Any = self.handler(event, context)
            answers.append({item["itemIdentifier"] for item in answer["batchItemFailures"]})

        answers: list[set[str]] = []
        if self._ends_well(run, deaths.pop(0) if deaths else None):
            [failed] = answers
        self._actor().kill_after(None)
        return failed

    @staticmethod
    def _record(message: _Message) -> dict[str, Any]:
        return {
            "eventSource": "aws:sqs",
            "eventSourceARN": QUEUE_ARN,
            "messageId": message.id,
            "receiptHandle": f"{message.id} {message.receipts}",
            "body": message.body,
            "attributes": {"ApproximateReceiveCount": str(message.receipts)},
        }


def side_by_side(scheduler: Callable[[], Scheduler]) -> type[Executor]:
    """Return what stands in for ThreadPoolExecutor: records run as actors of their own."""

    class SideBySide(SameThread):
        def __init__(self, max_workers: int | None = None, thread_name_prefix: str = "") -> None:
            self._is_for_records = thread_name_prefix == "twobuckets-record"

        def submit(self, fn: Callable[..., Any], /, *args: Any, **kwargs: Any) -> Future[Any]:
            if not self._is_for_records:
                return super().submit(fn, *args, **kwargs)
            plan = scheduler()
            assert plan.current is not None
            local = dict(plan.current.local)
            future = _ActorFuture(plan)

            def run() -> None:
                assert plan.current is not None
                plan.current.local = local
                try:
                    future.set_result(fn(*args, **kwargs))
                except BaseException as error:
                    future.set_exception(error)

            future.actor = plan.spawn("record", run)
            return future

    return SideBySide


class _ActorFuture(Future[Any]):
    """What an actor will have done; whoever asks for it lets that one go on."""

    def __init__(self, plan: Scheduler) -> None:
        super().__init__()
        self._plan = plan
        self.actor: Actor | None = None

    def result(self, timeout: float | None = None) -> Any:
        """Return what came of it, once the actor is done."""
        while not self.done():
            assert self.actor is not None
            self._plan.current = self.actor
            self.actor.stack.switch()
        return super().result()
