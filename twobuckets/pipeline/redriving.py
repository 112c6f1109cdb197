"""Dead letters, and their way back to where they came from.

Two kinds lie in a queue for failures: messages that a queue in front of the function gave up on,
and events that Lambda itself gave up on, with what it notes about them or in their own form. Each
goes back to its queue, or to the function as Lambda would send it.

SQS can move messages by itself (SQS API reference, StartMessageMoveTask), but not a number of them,
and not by kind: what Lambda notes would end in the function's queue, where nothing can read it.

Rules: SQS developer guide, "Using dead-letter queues in Amazon SQS"; Lambda developer guide,
"Capturing records of Lambda asynchronous invocations".
"""

from __future__ import annotations

import hashlib
import json
from contextlib import suppress
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar, Final

from twobuckets.aws import ClientError, attempt
from twobuckets.errors import TwoBucketsError
from twobuckets.pipeline.jobs import wake_of_job
from twobuckets.pipeline.notifications import leads_to
from twobuckets.pipeline.queues import dead_letter_queue_of, depth_of
from twobuckets.processor.contract import orders

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence

    from mypy_boto3_sqs.type_defs import SendMessageBatchRequestEntryTypeDef

    from twobuckets.aws.clients import Aws
    from twobuckets.pipeline.facts import Facts

_BATCH: Final = 10
_BATCH_BYTES: Final = 200_000
"""Less than what SQS takes in a batch (API reference, SendMessageBatch: 256 KiB at first)."""
_NO_EVENT: Final = "it is none of the function's events"
_HIDDEN_SECONDS: Final = 120
_WAIT_SECONDS: Final = 1
"""Any wait makes SQS ask all of its servers (developer guide, "Short and long polling")."""


@dataclass(frozen=True, slots=True)
class DeadLetters:
    """A queue of dead letters, as SQS counts them, which is approximately.

    `waiting` are visible, `taken` are with somebody. `sources` are the queues that give messages up
    to it, by name, and the function where Lambda does.
    """

    queue: str
    queue_url: str
    waiting: int
    taken: int
    sources: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Redriven:
    """What became of a queue's dead letters: `moved` back, `left` where they are, with reasons."""

    queue: str
    moved: int
    left: int
    reasons: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class RedriveSummary:
    """How it ended: `outcome` is redriven or planned."""

    type_name: ClassVar[str] = "summary"

    outcome: str
    moved: int
    left: int


def find_dead_letters(facts: Facts) -> list[DeadLetters]:
    """Return the queues that take what the function's queues, or Lambda, give up on.

    The one that the settings name, or the stack, is among them. Raises CouldNotLook.
    """
    sources: dict[str, list[str]] = {}
    for arn, attributes in _feeding(facts).items():
        dead = dead_letter_queue_of(attributes)
        if dead is not None:
            sources.setdefault(dead, []).append(arn.rpartition(":")[2])
    destination = _destination(facts)
    if destination is not None and ":sqs:" in destination:
        sources.setdefault(destination, []).append(facts.function.name)
    urls = {arn: url for arn in sources if (url := facts.queues.url_at(arn)) is not None}
    named = facts.pipeline.failure_queue_url
    if named is not None and (own := facts.queues.attributes(named)) is not None:
        urls.setdefault(own["QueueArn"], named)
    return [count_dead_letters(facts, url, sources.get(arn, ())) for arn, url in urls.items()]


def count_dead_letters(facts: Facts, queue_url: str, sources: Iterable[str] = ()) -> DeadLetters:
    """Return how many dead letters a queue holds, none where it does not exist.

    Raises CouldNotLook.
    """
    depth = depth_of(facts.queues.attributes(queue_url) or {})
    name = queue_url.rpartition("/")[2]
    return DeadLetters(name, queue_url, depth.waiting, depth.taken, tuple(sources))


def _feeding(facts: Facts) -> dict[str, Mapping[str, str]]:
    """Return the attributes of the queues that feed the function, by ARN."""
    read: dict[str, Mapping[str, str] | None] = {
        arn: facts.queues.attributes_at(arn)
        for arn in facts.function.event_source_arns()
        if ":sqs:" in arn
    }
    return {arn: attributes for arn, attributes in read.items() if attributes is not None}


def _destination(facts: Facts) -> str | None:
    """Return where Lambda sends what it gives up on."""
    config = facts.function.invoke_config() or {}
    on_failure = config.get("DestinationConfig", {}).get("OnFailure", {})
    destination: str | None = on_failure.get("Destination")
    if destination is None:
        configuration = facts.function.configuration()
        destination = configuration.get("DeadLetterConfig", {}).get("TargetArn")
    return destination


@dataclass(frozen=True, slots=True)
class _Way:
    """Where one dead letter goes: to a queue by its URL, else to the function, with this body."""

    body: str
    queue_url: str | None = None


class Redriver:
    """Moves dead letters back. Raises CouldNotLook when it is made."""

    def __init__(self, facts: Facts, sleep: Callable[[float], None]) -> None:
        self._aws: Aws = facts.aws
        self._sleep = sleep
        self._function = facts.function.named
        self._is_ours = facts.function.is_ours
        self._staging = facts.pipeline.staging
        self._queues = {arn: facts.queues.url_at(arn) for arn in _feeding(facts)}

    def redrive(
        self, letters: DeadLetters, *, most: int | None = None, rate: float | None = None
    ) -> Iterator[Redriven]:
        """Move `most` messages of a queue back, all by default, and yield what became of a few.

        Each is sent before it is deleted: a run that ends in between leaves it in both places, and
        what it asks for is done already when it comes again. No more than `rate` a second go.
        Raises AccessError and TwoBucketsError.
        """
        size = _BATCH if rate is None else max(1, min(_BATCH, int(rate)))
        taken = 0
        stay: dict[str, Any] = {}
        try:
            while most is None or taken < most:
                asked = size if most is None else min(size, most - taken)
                messages = self._receive(letters, asked)
                # What stays is seen again when the run takes longer than it is hidden.
                new = [message for message in messages if message["MessageId"] not in stay]
                if not new:
                    return
                taken += len(new)
                ways = [(message, self._way_of(message)) for message in new]
                moved = self._send(letters, [(m, w) for m, w in ways if isinstance(w, _Way)])
                reasons = [why for _, why in ways if isinstance(why, str)]
                stay |= {m["MessageId"]: m for m, why in ways if isinstance(why, str)}
                told = tuple(dict.fromkeys(reasons))
                yield Redriven(letters.queue, moved, len(reasons), told)
                if rate is not None:
                    self._sleep(len(new) / rate)
        finally:
            self._show_again(letters, list(stay.values()))

    def _receive(self, letters: DeadLetters, count: int) -> Sequence[Any]:
        with attempt(f"read the dead letters in {letters.queue}"):
            answer = self._aws.sqs.receive_message(
                QueueUrl=letters.queue_url,
                MaxNumberOfMessages=count,
                VisibilityTimeout=_HIDDEN_SECONDS,
                WaitTimeSeconds=_WAIT_SECONDS,
                MessageSystemAttributeNames=["All"],
                MessageAttributeNames=["All"],
            )
        return answer.get("Messages", [])

    def _way_of(self, message: Mapping[str, Any]) -> _Way | str:
        """Return where a message came from, or why it stays."""
        body, attributes = message["Body"], message.get("Attributes", {})
        source = attributes.get("DeadLetterQueueSourceArn")
        if source in self._queues:
            return _Way(body, self._queues[source])
        try:
            event = json.loads(body)
        except (ValueError, RecursionError):
            return _NO_EVENT
        if not isinstance(event, dict):
            return _NO_EVENT
        if "requestPayload" in event and isinstance(event.get("requestContext"), dict):
            function = str(event["requestContext"].get("functionArn"))
            if not leads_to(function, self._function):
                return f"it is of another function, {function}"
            return _Way(json.dumps(event["requestPayload"]))
        if (wake := wake_of_job(event)) is not None:
            body = wake
        # Others may give up to the same queue. Every form of event has the bucket's name in it.
        if self._staging not in body:
            return f"it tells of no file in {self._staging}"
        if wake is not None:
            return _Way(wake)
        if "ErrorCode" in message.get("MessageAttributes", {}) or self._is_ours:
            # An event as Lambda got it; or of a queue that is gone, which ours reads as well.
            return _Way(body)
        return f"the queue that it came from feeds {self._function} no more"

    def _send(self, letters: DeadLetters, ways: Sequence[tuple[Any, _Way]]) -> int:
        """Send messages where they came from, delete those that were sent, and return how many."""
        sent: list[Any] = []
        for message, way in ways:
            if way.queue_url is None:
                with attempt(f"wake {self._function} for a dead letter"):
                    self._aws.functions.invoke(
                        FunctionName=self._function,
                        InvocationType="Event",
                        Payload=way.body.encode(),
                    )
                self._delete(letters, [message])
                sent.append(message)
        by_queue: dict[str, list[Any]] = {}
        for message, way in ways:
            if way.queue_url is not None:
                by_queue.setdefault(way.queue_url, []).append(message)
        for url, messages in by_queue.items():
            for some in _in_batches(messages):
                gone = self._send_to_queue(url, some)
                self._delete(letters, gone)
                sent += gone
        return len(sent)

    def _send_to_queue(self, url: str, messages: Sequence[Any]) -> list[Any]:
        """Send messages to a queue and return those that it took. Raises if it took none."""
        name = url.rpartition("/")[2]
        with attempt(f"send dead letters back to {name}"):
            answer = self._aws.sqs.send_message_batch(
                QueueUrl=url,
                Entries=[_again(message, str(n), url) for n, message in enumerate(messages)],
            )
        gone = [messages[int(item["Id"])] for item in answer.get("Successful", [])]
        if not gone:
            refused = answer["Failed"][0]
            raise TwoBucketsError(
                f"Could not send dead letters back to {name}: {refused['Code']}: "
                f"{refused.get('Message', '')}",
                hint="They are where they were.",
            )
        # What was not taken comes again when it is no longer hidden.
        return gone

    def _delete(self, letters: DeadLetters, messages: Sequence[Any]) -> None:
        if not messages:
            return
        with attempt(f"delete what was sent back from {letters.queue}"):
            answer = self._aws.sqs.delete_message_batch(
                QueueUrl=letters.queue_url,
                Entries=[
                    {"Id": str(number), "ReceiptHandle": message["ReceiptHandle"]}
                    for number, message in enumerate(messages)
                ],
            )
        if failed := answer.get("Failed"):
            raise TwoBucketsError(
                f"Could not delete what was sent back from {letters.queue}: {failed[0]['Code']}: "
                f"{failed[0].get('Message', '')}",
                hint="It is in both places. When it is moved again, a file that is archived by "
                "then is not archived again.",
            )

    def _show_again(self, letters: DeadLetters, messages: Sequence[Any]) -> None:
        """Let messages that stay be seen at once; without it they are after a while."""
        for some in _in_batches(messages):
            with suppress(ClientError):
                self._aws.sqs.change_message_visibility_batch(
                    QueueUrl=letters.queue_url,
                    Entries=[
                        {
                            "Id": str(number),
                            "ReceiptHandle": message["ReceiptHandle"],
                            "VisibilityTimeout": 0,
                        }
                        for number, message in enumerate(some)
                    ],
                )


def _again(
    message: Mapping[str, Any], entry_id: str, queue_url: str
) -> SendMessageBatchRequestEntryTypeDef:
    """Return a message as SendMessageBatch takes it, in the group that it was in."""
    again: SendMessageBatchRequestEntryTypeDef = {"Id": entry_id, "MessageBody": message["Body"]}
    if attributes := message.get("MessageAttributes"):
        again["MessageAttributes"] = attributes
    if (group := message.get("Attributes", {}).get("MessageGroupId")) is not None:
        again["MessageGroupId"] = group
    # Standard queues know groups as well, and refuse the other id (API reference, SendMessage).
    if orders(queue_url):
        # Its own id: under the one that it was sent with, SQS would swallow it for five minutes.
        once = hashlib.sha256(message["MessageId"].encode()).hexdigest()
        again["MessageDeduplicationId"] = once
    return again


def _in_batches(messages: Sequence[Any]) -> Iterator[list[Any]]:
    """Yield messages a few at a time, so that each request has room for them."""
    batch: list[Any] = []
    size = 0
    for message in messages:
        if batch and (len(batch) == _BATCH or size + len(message["Body"].encode()) > _BATCH_BYTES):
            yield batch
            batch, size = [], 0
        batch.append(message)
        size += len(message["Body"].encode())
    if batch:
        yield batch
