"""The queue that wakes the function: what is sent there first, and what comes back when."""

from __future__ import annotations

import json
import re
import threading
from collections import Counter
from collections.abc import Iterator
from types import SimpleNamespace
from typing import Any

import pytest

from tests.processor.conftest import STAGING, Pipeline
from tests.processor.test_handler import AWKWARD_KEYS
from tests.queueing import PLUMBING
from twobuckets.processor import File, Reject, contract, handler, runtime
from twobuckets.processor.ordering import group_of
from twobuckets.processor.runtime import RecordsFailedError

pytestmark = pytest.mark.parametrize("pair", ["versioned"], indirect=True)

ORDERED = "intake-ordered.fifo"


class Queue:
    """A queue on moto, which hands its messages over as an event source mapping does."""

    def __init__(self, sqs: Any, name: str) -> None:
        self.sqs = sqs
        attributes = {"FifoQueue": "true"} if name.endswith(".fifo") else {}
        self.url = sqs.create_queue(QueueName=name, Attributes=attributes)["QueueUrl"]
        answer = sqs.get_queue_attributes(QueueUrl=self.url, AttributeNames=["QueueArn"])
        self.arn = answer["Attributes"]["QueueArn"]
        self.shown_again: list[int] = []
        self.calls: Counter[str] = Counter()
        sqs.meta.events.register("before-call.sqs", self._count, unique_id=f"count {name}")
        sqs.meta.events.register(
            "provide-client-params.sqs.ChangeMessageVisibilityBatch", self._note, unique_id=name
        )

    def _note(self, params: dict[str, Any], **_: Any) -> None:
        self.shown_again += [entry["VisibilityTimeout"] for entry in params["Entries"]]

    def _count(self, model: Any, **_: Any) -> None:
        self.calls[model.name] += 1

    def messages(self) -> list[dict[str, Any]]:
        return [
            message
            for _ in range(10)
            for message in self.sqs.receive_message(
                QueueUrl=self.url, MaxNumberOfMessages=10, AttributeNames=["All"]
            ).get("Messages", [])
        ]

    def event(self, *messages: dict[str, Any], attempt: int = 1) -> dict[str, Any]:
        """Return what Lambda gets of messages (Lambda developer guide, "Using Lambda with SQS")."""
        records = [
            {
                "messageId": message["MessageId"],
                "receiptHandle": message["ReceiptHandle"],
                "body": message["Body"],
                "attributes": {"ApproximateReceiveCount": str(attempt)},
                "eventSource": "aws:sqs",
                "eventSourceARN": self.arn,
            }
            for message in messages
        ]
        return {"Records": records}

    def event_of(self, *bodies: dict[str, Any], attempt: int = 1) -> dict[str, Any]:
        """Return the event of messages that were sent with these bodies."""
        for body in bodies:
            self.sqs.send_message(QueueUrl=self.url, MessageBody=json.dumps(body))
        return self.event(*self.messages(), attempt=attempt)


@pytest.fixture
def ordered(pipeline: Pipeline, lambda_environment: pytest.MonkeyPatch) -> Iterator[Queue]:
    yield from _queue(lambda_environment, ORDERED)


@pytest.fixture
def arrivals(pipeline: Pipeline, lambda_environment: pytest.MonkeyPatch) -> Iterator[Queue]:
    yield from _queue(lambda_environment, "intake-arrivals")


def _queue(environment: pytest.MonkeyPatch, name: str) -> Iterator[Queue]:
    runtime._clients.pop("sqs", None)
    queue = Queue(runtime._client_of("sqs"), name)
    environment.setenv(contract.QUEUE_URL, queue.url)
    yield queue
    runtime._clients.pop("sqs", None)


def test_an_event_is_put_into_order_and_processed_when_its_message_comes(
    pipeline: Pipeline, ordered: Queue
) -> None:
    seen: list[tuple[str | None, int]] = []
    pipeline.process_with(lambda file: seen.append((file.sequencer, file.attempt)))
    record = pipeline.upload("a")
    assert pipeline.invoke(record) == []
    # As Lambda does when the answer was lost: nothing is sent twice.
    assert pipeline.invoke(record) == []
    assert (seen, set(pipeline.staged())) == ([], {"a"})
    # What the manual's costs are made of; the retry's is none of every file's.
    assert ordered.calls["SendMessage"] == 2 * PLUMBING["`ordered`"].sent
    [message] = ordered.messages()
    ordered.calls.clear()
    event = ordered.event(message, attempt=2)
    assert handler(event, pipeline.context) == {"batchItemFailures": []}
    [line] = pipeline.outcomes()
    assert (line["outcome"], line["attempt"]) == ("archived", 2)
    assert ordered.calls == Counter()
    assert seen == [(record["s3"]["object"]["sequencer"], 2)]
    assert set(pipeline.archived()) == {"a"}


def test_a_wake_up_soon_after_the_event_is_a_message_of_its_own(
    pipeline: Pipeline, ordered: Queue
) -> None:
    record = pipeline.upload("a")
    pipeline.invoke(record)
    item = record["s3"]["object"]
    wake = contract.wake_event(
        STAGING, "a", version_id=item.get("versionId"), etag=item["eTag"], size_bytes=7
    )
    for request_id in ("request-2", None, None):
        assert handler(wake, SimpleNamespace(aws_request_id=request_id)) == {"ordered": 1}
    messages = ordered.messages()
    assert len(messages) == 4
    assert len({message["Attributes"]["MessageGroupId"] for message in messages}) == 1


def test_the_group_of_any_key_is_one_that_sqs_takes(pipeline: Pipeline, ordered: Queue) -> None:
    keys = {*AWKWARD_KEYS, "x" * 1024, "x" * 1023, "lone \udc80 \ud800"}
    for key in (*keys, *keys):
        wake = contract.wake_event(STAGING, key, version_id="v", etag="e", size_bytes=1)
        handler(wake, SimpleNamespace(aws_request_id=None))
    groups = []
    while messages := ordered.messages():
        for message in messages:
            groups.append(message["Attributes"]["MessageGroupId"])
            # A group whose message is out gives no other one.
            ordered.sqs.delete_message(QueueUrl=ordered.url, ReceiptHandle=message["ReceiptHandle"])
    # SQS API reference, SendMessage, MessageGroupId.
    assert all(re.fullmatch(r"[!-~]{1,128}", group) for group in groups)
    assert Counter(groups).keys() == {group_of(STAGING, key) for key in keys}
    assert set(Counter(groups).values()) == {2}


def test_an_older_version_that_comes_later_is_superseded_and_not_processed(
    pipeline: Pipeline, ordered: Queue
) -> None:
    seen: list[bytes] = []
    pipeline.process_with(lambda file: seen.append(file.read()))
    older = pipeline.upload("a", b"v1")
    pipeline.invoke(pipeline.upload("a", b"v2"))
    pipeline.context = SimpleNamespace(aws_request_id="request-2")
    pipeline.invoke(older)
    first, second = ordered.messages()
    for message in (first, second):
        assert handler(ordered.event(message), pipeline.context) == {"batchItemFailures": []}
    assert [line["outcome"] for line in pipeline.outcomes()] == ["archived", "superseded"]
    assert (seen, pipeline.archived()) == ([b"v2"], {"a": b"v2"})


def test_messages_of_another_queue_are_put_into_order_as_well(
    pipeline: Pipeline, ordered: Queue
) -> None:
    other = Queue(ordered.sqs, "by-hand")
    event = other.event_of(*({"Records": [pipeline.upload(key)]} for key in "ab"), {"no": "event"})
    answer = handler(event, pipeline.context)
    assert [item["itemIdentifier"] for item in answer["batchItemFailures"]] == [
        event["Records"][2]["messageId"]
    ]
    assert (len(ordered.messages()), set(pipeline.staged())) == (2, {"a", "b"})
    # The pause is for what the function's own queue brings.
    assert other.shown_again == []


def test_what_cannot_be_put_into_order_failed_and_is_tried_again(
    pipeline: Pipeline, ordered: Queue
) -> None:
    other = Queue(ordered.sqs, "by-hand")
    event = other.event_of({"Records": [pipeline.upload("a")]})
    ordered.sqs.delete_queue(QueueUrl=ordered.url)
    with pytest.raises(RecordsFailedError, match="'a': "):
        pipeline.invoke(pipeline.upload("a"))
    [line] = pipeline.lines
    assert (line["outcome"], line["key"]) == ("failed", "a")
    assert "SendMessage" in line["error"]["message"]
    assert len(handler(event, pipeline.context)["batchItemFailures"]) == 1
    task = {"taskId": "t", "s3Key": "a", "s3BucketArn": f"arn:aws:s3:::{STAGING}"}
    job = {"invocationSchemaVersion": "1.0", "invocationId": "i", "tasks": [task]}
    [result] = handler(job, pipeline.context)["results"]
    assert result["resultCode"] == "TemporaryFailure"


def test_a_task_of_batch_operations_is_put_into_order(pipeline: Pipeline, ordered: Queue) -> None:
    pipeline.upload("a")
    task = {"taskId": "t", "s3Key": "a", "s3BucketArn": f"arn:aws:s3:::{STAGING}"}
    job = {"invocationSchemaVersion": "1.0", "invocationId": "i", "tasks": [task]}
    [result] = handler(job, pipeline.context)["results"]
    assert (result["resultCode"], result["resultString"][:14]) == ("Succeeded", "put into order")
    assert len(ordered.messages()) == 1


def test_only_the_failed_messages_come_back_and_do_so_before_long(
    pipeline: Pipeline, arrivals: Queue
) -> None:
    def process(file: File) -> None:
        if file.key == "refused":
            raise Reject("not ours")
        if file.key == "bad":
            raise ValueError("no")

    pipeline.process_with(process)
    records = [pipeline.upload(key) for key in ("good", "bad", "refused")]
    event = arrivals.event_of(*({"Records": [record]} for record in records), attempt=3)
    answer = handler(event, pipeline.context)
    assert answer == {"batchItemFailures": [{"itemIdentifier": event["Records"][1]["messageId"]}]}
    assert arrivals.shown_again == [60 * 2**2]


def test_the_pause_doubles_up_to_what_sqs_allows(pipeline: Pipeline, arrivals: Queue) -> None:
    pipeline.process_with(lambda file: 1 / 0)
    for attempt in (1, 2, 8, 11, 900):
        event = arrivals.event_of({"Records": [pipeline.upload("a")]}, attempt=attempt)
        assert len(handler(event, pipeline.context)["batchItemFailures"]) == 1
    assert arrivals.shown_again == [60, 120, 7_680, 43_200, 43_200]


def test_a_pause_that_is_refused_changes_no_outcome(pipeline: Pipeline, arrivals: Queue) -> None:
    pipeline.process_with(lambda file: 1 / 0 if file.key == "bad" else None)
    records = [pipeline.upload(key) for key in ("good", "bad")]
    event = arrivals.event_of(*({"Records": [record]} for record in records))
    arrivals.sqs.delete_queue(QueueUrl=arrivals.url)
    answer = handler(event, pipeline.context)
    assert answer == {"batchItemFailures": [{"itemIdentifier": event["Records"][1]["messageId"]}]}
    assert [line["outcome"] for line in pipeline.outcomes()] == ["archived", "failed"]
    assert arrivals.shown_again == [60]


def test_a_file_that_runs_out_of_time_is_seen_again_once_the_function_is_over(
    pipeline: Pipeline, arrivals: Queue, lambda_environment: pytest.MonkeyPatch
) -> None:
    lambda_environment.setenv(contract.RETRY_SECONDS, "1")
    foretold = threading.Event()

    def process(file: File) -> None:
        while not arrivals.shown_again:
            foretold.wait(0.01)

    pipeline.process_with(process)
    event = arrivals.event_of({"Records": [pipeline.upload("slow")]})
    context = SimpleNamespace(aws_request_id="r", get_remaining_time_in_millis=lambda: 200)
    assert handler(event, context) == {"batchItemFailures": []}
    assert [line["outcome"] for line in pipeline.outcomes()] == ["failed", "archived"]
    # Not after the 1 s that is set: the function may still run then.
    assert arrivals.shown_again == [2]


def test_records_of_one_key_run_one_after_the_other_and_those_of_others_beside_them(
    pipeline: Pipeline, lambda_environment: pytest.MonkeyPatch
) -> None:
    lambda_environment.setenv(contract.RECORD_CONCURRENCY, "8")
    runs: list[str] = []
    both = threading.Barrier(2, timeout=10)
    again = threading.Event()

    def process(file: File) -> None:
        runs.append(file.key)
        if runs.count("a") > 1:
            again.set()
            return
        both.wait()  # until the other key's file runs as well
        again.wait(0.3)

    pipeline.process_with(process)
    record = pipeline.upload("a")
    lines = pipeline.invoke(record, pipeline.upload("b"), record)
    assert sorted(runs) == ["a", "b"]
    assert {line["outcome"] for line in lines} == {"archived"}
    assert [line["key"] for line in lines if line.get("duplicate")] == ["a"]
