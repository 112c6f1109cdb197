"""The queue that wakes the function: one file of a key at a time, and failed ones again soon.

S3 can't send to a FIFO queue, and a message group has 128 characters of ASCII where a key has 1,024
bytes of anything (S3 user guide, "Amazon S3 Event Notifications"; SQS API reference, SendMessage).
So the function itself sends what else wakes it to its FIFO queue, a group for each key: S3's
events, the wake-ups of `twobuckets reprocess` and `doctor`, tasks, and messages of other queues.

A group has one message out at a time, so that what looks at versions and processes runs alone for
its key. Events may come out of order still: an older version is found superseded then.
"""

from __future__ import annotations

import hashlib
import json
import uuid
from contextlib import suppress
from math import ceil
from typing import TYPE_CHECKING

from twobuckets.processor import contract

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Sequence

    from mypy_boto3_sqs import SQSClient

    from twobuckets.processor.events import Arrival, Message

# SQS API reference, ChangeMessageVisibility and ChangeMessageVisibilityBatch.
_LONGEST_WAIT_SECONDS = 43_200
_MOST_ENTRIES = 10


class Queue:
    """The queue in front of the function; `client` makes the client when it is first needed."""

    def __init__(self, client: Callable[[], SQSClient], url: str, retry_seconds: int) -> None:
        self._client = client
        self._url = url
        self._retry_seconds = retry_seconds

    def wants(self, messages: Sequence[Message]) -> bool:
        """Tell whether what brought these messages, or none, is to go through this queue first."""
        return contract.orders(self._url) and not self.sent(messages)

    def sent(self, messages: Sequence[Message]) -> bool:
        """Tell whether these messages, which came together, are of this queue.

        A queue's URL ends with its account and name, as its ARN does; both are of one region
        (Lambda API reference, CreateEventSourceMapping).
        """
        place = self._url.split("/")[-2:]
        return any((message.queue_arn or "").split(":")[-2:] == place for message in messages)

    def put(self, arrival: Arrival, once: str) -> None:
        """Send an arrival to the end of its key's group. Raises what boto3 raises.

        SQS swallows a second message with the same `once` for five minutes, and says that all is
        well: no version may stand for it, or a wake-up soon after an event would vanish.
        """
        wanted = contract.wake_event(
            arrival.bucket,
            arrival.key,
            version_id=arrival.version_id,
            etag=arrival.etag,
            size_bytes=arrival.size_bytes,
            sequencer=arrival.sequencer,
        )
        self._client().send_message(
            QueueUrl=self._url,
            MessageBody=json.dumps(wanted),
            MessageGroupId=group_of(arrival.bucket, arrival.key),
            MessageDeduplicationId=hashlib.sha256(once.encode()).hexdigest(),
        )

    def show_again(self, messages: Iterable[Message], *, not_before: float = 0) -> None:
        """Let messages that failed be seen again soon; without it they come back as well, later.

        The pause doubles with every try. `not_before` is the number of seconds for which the
        function may go on with them.
        """
        known = [message for message in messages if message.receipt is not None]
        for start in range(0, len(known), _MOST_ENTRIES):
            # Whatever goes wrong here, the answer that names what failed has to be given.
            with suppress(Exception):
                self._client().change_message_visibility_batch(
                    QueueUrl=self._url,
                    Entries=[
                        {
                            "Id": str(number),
                            "ReceiptHandle": str(message.receipt),
                            "VisibilityTimeout": self._pause(message, not_before),
                        }
                        for number, message in enumerate(known[start : start + _MOST_ENTRIES])
                    ],
                )

    def _pause(self, message: Message, not_before: float) -> int:
        pause: int = self._retry_seconds * 2 ** min((message.attempt or 1) - 1, 16)
        return min(max(pause, ceil(not_before)), _LONGEST_WAIT_SECONDS)


def group_of(bucket: str, key: str) -> str:
    """Return the message group of a key, in 64 of the 128 characters that SQS allows."""
    return hashlib.sha256(f"{bucket}/{key}".encode(errors="surrogatepass")).hexdigest()


def once_of(request_id: str | None, number: int) -> str:
    """Return what tells one record of an invocation from all others, the same in its retries."""
    return f"{request_id or uuid.uuid4()}/{number}"
