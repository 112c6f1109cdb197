"""What woke the function: every shape of event that leads to an object, as one list of records.

Understood are S3's notification, S3 through EventBridge, the wake-up event that `twobuckets
reprocess` sends and S3's test event; each of them direct, in messages of SNS, of SQS, or of SQS
that SNS sent; bare arrays of these, as EventBridge Pipes sends them; and tasks of S3 Batch
Operations. Shapes: S3 user guide, "Event message structure", "EventBridge event message structure"
and "Invoke AWS Lambda function"; SNS developer guide, "HTTP/HTTPS notification JSON format"; Lambda
developer guide, "Using Lambda with Amazon SNS"; EventBridge user guide, "Pipes batching".
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, replace
from typing import Any
from urllib.parse import unquote_plus

from twobuckets.processor.contract import wanted_by


class UnknownEventError(ValueError):
    """An event, or a record in one, that no object can be read from."""


@dataclass(frozen=True, slots=True)
class Arrival:
    """One object version that is to be processed, as the event names it.

    `key` is decoded. `version_id` is None where the bucket keeps no versions. `sequencer` orders
    the arrivals of one key and is None in wake-up events and tasks. `attempt` comes from SQS, and
    `item_id` names the message of SQS or the task of Batch Operations that it came in.
    `is_asked_for` where somebody named it, as wake-up events and tasks do.
    """

    bucket: str
    key: str
    version_id: str | None
    etag: str | None
    size_bytes: int | None
    sequencer: str | None = None
    item_id: str | None = None
    attempt: int | None = None
    is_asked_for: bool = False


@dataclass(frozen=True, slots=True)
class Ignored:
    """What is no file's arrival, by its name: an event such as `ObjectRemoved:Delete`."""

    name: str
    item_id: str | None = None


@dataclass(frozen=True, slots=True)
class Unreadable:
    """One record or message that no object can be read from, with the reason."""

    reason: str
    item_id: str | None = None


Record = Arrival | Ignored | Unreadable


@dataclass(frozen=True, slots=True)
class BatchInvocation:
    """An invocation by S3 Batch Operations: what its answer has to repeat."""

    schema_version: str
    invocation_id: str


@dataclass(frozen=True, slots=True)
class Message:
    """A message of SQS: `receipt` names this receipt of it, `queue_arn` where it came from."""

    id: str
    queue_arn: str | None = None
    receipt: str | None = None
    attempt: int | None = None


@dataclass(frozen=True, slots=True)
class Batch:
    """All that one invocation brought.

    `messages` of SQS, and `job`, say how failures are to be reported.
    """

    records: tuple[Record, ...]
    messages: tuple[Message, ...] = ()
    job: BatchInvocation | None = None

    @property
    def from_sqs(self) -> bool:
        """Tell whether the records came in messages of SQS."""
        return bool(self.messages)


def parse_event(event: object) -> Batch:
    """Return what the event asks for, in its order; raise UnknownEventError for anything else."""
    if isinstance(event, list) and event:
        return _from_items(event)
    if not isinstance(event, dict):
        raise UnknownEventError(f"expected an S3 event, got {_described(event)}")
    if isinstance(event.get("tasks"), list) and "invocationSchemaVersion" in event:
        job = BatchInvocation(str(event["invocationSchemaVersion"]), str(event.get("invocationId")))
        return Batch(tuple(_from_task(task) for task in event["tasks"]), job=job)
    records = event.get("Records")
    if isinstance(records, list) and any(_source_of(record) == "aws:sqs" for record in records):
        return _from_items(records)
    return Batch(tuple(_from_body(event)))


def _from_items(items: list[object]) -> Batch:
    """Read messages of SQS, or what a pipe makes of them: a failed one fails alone."""
    messages = tuple(
        _message(item) for item in items if isinstance(item, dict) and _source_of(item) == "aws:sqs"
    )
    read = _from_message if messages else _from_element
    return Batch(tuple(record for item in items for record in read(item)), messages)


def _message(item: Mapping[str, Any]) -> Message:
    attributes = item.get("attributes")
    counts = attributes if isinstance(attributes, dict) else {}
    received = str(counts.get("ApproximateReceiveCount"))
    return Message(
        id=str(item.get("messageId")),
        queue_arn=item.get("eventSourceARN"),
        receipt=item.get("receiptHandle"),
        attempt=int(received) if received.isdecimal() else None,
    )


def _from_message(item: object) -> Iterator[Record]:
    if not isinstance(item, dict) or _source_of(item) != "aws:sqs":
        yield Unreadable(f"expected an SQS message, got {_described(item)}")
        return
    message = _message(item)
    for record in _guarded(f"SQS message {message.id}", item.get("body")):
        if isinstance(record, Arrival):
            yield replace(record, item_id=message.id, attempt=message.attempt)
        else:
            yield replace(record, item_id=message.id)


def _from_element(item: object) -> Iterator[Record]:
    return _guarded("an element of the array", item)


def _guarded(place: str, body: object) -> Iterator[Record]:
    """Read a body, JSON text or what it stands for; one that can't be read is one record."""
    try:
        found = list(_from_body(_loaded(body)))
    except UnknownEventError as error:
        found = [Unreadable(f"{place}: {error}")]
    yield from found


def _loaded(body: object) -> object:
    # A pipe that rewrites its input hands the JSON inside a message over as what it stands for.
    if not isinstance(body, str):
        return body
    try:
        return json.loads(body)
    except (ValueError, RecursionError) as error:
        raise UnknownEventError(f"its body is not JSON: {error}") from error


def _from_body(body: object) -> Iterable[Record]:
    if not isinstance(body, dict):
        raise UnknownEventError(f"expected an S3 event, got {_described(body)}")
    if body.get("Event") == "s3:TestEvent":
        return []
    if (wanted := wanted_by(body)) is not None:
        return [_readable(_from_wake, item) for item in wanted]
    if body.get("source") == "aws.s3" and "detail-type" in body:
        return [_readable(_from_eventbridge, body)]
    if body.get("Type") == "Notification" and "Message" in body:
        return list(_guarded(f"SNS message {body.get('MessageId')}", body["Message"]))
    if isinstance(body.get("Records"), list):
        return [found for record in body["Records"] for found in _from_record(record)]
    raise UnknownEventError(f"expected an S3 event, got {_described(body)}")


def _from_record(record: object) -> Iterator[Record]:
    if isinstance(record, dict) and record.get("EventSource") == "aws:sns":
        sent = record.get("Sns")
        if isinstance(sent, dict):
            return _guarded(f"SNS message {sent.get('MessageId')}", sent.get("Message"))
    return iter([_readable(_from_notification, record)])


def _readable(parse: Callable[[Any], Arrival | Ignored], record: object) -> Record:
    try:
        return parse(record)
    except UnknownEventError as error:
        return Unreadable(str(error))
    except (KeyError, TypeError, AttributeError, ValueError) as error:
        return Unreadable(
            f"{_described(record)} lacks what an S3 record has: {type(error).__name__}: {error}"
        )


def _from_notification(record: Mapping[str, Any]) -> Arrival | Ignored:
    if _source_of(record) != "aws:s3":
        raise UnknownEventError(f"expected a record of S3, got {_described(record)}")
    version, name = str(record["eventVersion"]), str(record["eventName"]).removeprefix("s3:")
    # AWS's rule for consumers: the same major version, any later minor one.
    if version.split(".")[0] != "2":
        raise UnknownEventError(f"S3 event version {version} is not one of 2.x")
    if not name.startswith("ObjectCreated:"):
        return Ignored(name)
    item = record["s3"]["object"]
    return Arrival(
        bucket=_text(record["s3"]["bucket"]["name"]),
        key=_decoded(item["key"]),
        version_id=_version_id(item.get("versionId")),
        etag=_etag(item.get("eTag")),
        size_bytes=item.get("size"),
        sequencer=item.get("sequencer"),
    )


def _from_eventbridge(event: Mapping[str, Any]) -> Arrival | Ignored:
    name = str(event["detail-type"])
    if name != "Object Created":
        if name.startswith("Object "):
            return Ignored(name)
        # CloudTrail tells of uploads too, in a form of its own: to ignore it would lose files.
        raise UnknownEventError(
            f"EventBridge sent {name!r}, expected 'Object Created': fix the rule"
        )
    item = event["detail"]["object"]
    # Unlike the notification's, EventBridge's keys are not encoded.
    return Arrival(
        bucket=_text(event["detail"]["bucket"]["name"]),
        key=_text(item["key"]),
        version_id=_version_id(item.get("version-id")),
        etag=_etag(item.get("etag")),
        size_bytes=item.get("size"),
        sequencer=item.get("sequencer"),
    )


def _from_task(task: object) -> Record:
    record = _readable(_from_manifest, task)
    return replace(record, item_id=str(task.get("taskId")) if isinstance(task, dict) else None)


def _from_manifest(task: Mapping[str, Any]) -> Arrival:
    """Read a task of S3 Batch Operations; schema 1.0 names the bucket's ARN, 2.0 the bucket."""
    bucket = task.get("s3Bucket") or _text(task["s3BucketArn"]).rpartition(":")[2]
    return Arrival(
        bucket=_text(bucket),
        # As the manifest has it, encoded like the key in an inventory.
        key=_decoded(task["s3Key"]),
        version_id=_version_id(task.get("s3VersionId")),
        etag=None,
        size_bytes=None,
        is_asked_for=True,
    )


def _from_wake(item: Mapping[str, Any]) -> Arrival:
    return Arrival(
        bucket=_text(item["bucket"]),
        key=_text(item["key"]),
        version_id=_version_id(item.get("version_id")),
        etag=_etag(item.get("etag")),
        size_bytes=item.get("size"),
        sequencer=item.get("sequencer"),
        is_asked_for=True,
    )


def _decoded(key: object) -> str:
    return unquote_plus(_text(key), errors="surrogateescape")


def _text(value: object) -> str:
    if not isinstance(value, str) or not value:
        raise UnknownEventError(f"expected a name, got {value!r:.80}")
    return value


def _version_id(value: object) -> str | None:
    # "null" names whatever was written last without a version, so it pins nothing: the ETag does.
    return None if value in (None, "", "null") else str(value)


def _etag(value: object) -> str | None:
    return str(value).strip('"') if value else None


def _source_of(record: object) -> object:
    return record.get("eventSource") if isinstance(record, dict) else None


def _described(value: object) -> str:
    """What arrived, by its outer names only: values may be private."""
    if isinstance(value, dict):
        names = ", ".join(sorted(str(name)[:40] for name in value)[:12]) or "nothing"
        source = value.get("eventSource") or value.get("EventSource") or value.get("source")
        return f"an object with {names}" + (f" from {str(source)[:60]}" if source else "")
    return f"a {type(value).__name__}"
