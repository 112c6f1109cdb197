"""What woke the function: every shape of event that leads to an object, as one list of arrivals.

Understood are S3's own notification, the same inside SQS messages, S3 through EventBridge, that
inside SQS messages, S3's test event, and the wake-up event that `twobuckets reprocess` sends.
Shapes: S3 user guide, "Event message structure" and "EventBridge event message structure".
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping
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
    the arrivals of one key and is None in wake-up events. `message_id` and `attempt` come from SQS.
    """

    bucket: str
    key: str
    version_id: str | None
    etag: str | None
    size_bytes: int | None
    sequencer: str | None = None
    message_id: str | None = None
    attempt: int | None = None


@dataclass(frozen=True, slots=True)
class Unreadable:
    """One record or message that is not an object's arrival, with the reason."""

    reason: str
    message_id: str | None = None


@dataclass(frozen=True, slots=True)
class Batch:
    """All that one invocation brought; `from_sqs` says how failures are to be reported."""

    records: tuple[Arrival | Unreadable, ...]
    from_sqs: bool = False


def parse_event(event: object) -> Batch:
    """Return what the event asks for, in its order; raise UnknownEventError for anything else."""
    if not isinstance(event, dict):
        raise UnknownEventError(f"expected an S3 event, got {_described(event)}")
    records = event.get("Records")
    if isinstance(records, list) and any(_source_of(record) == "aws:sqs" for record in records):
        found = [found for record in records for found in _from_message(record)]
        return Batch(tuple(found), from_sqs=True)
    return Batch(tuple(_from_body(event)))


def _from_message(record: object) -> Iterator[Arrival | Unreadable]:
    if not isinstance(record, dict) or _source_of(record) != "aws:sqs":
        yield Unreadable(f"expected an SQS message, got {_described(record)}")
        return
    message_id = str(record.get("messageId"))
    try:
        body = json.loads(record["body"])
        found = list(_from_body(body))
        received = (record.get("attributes") or {}).get("ApproximateReceiveCount")
        attempt = int(received) if received is not None else None
    except (KeyError, TypeError, ValueError) as error:
        reason = (
            str(error) if isinstance(error, UnknownEventError) else f"its body is not JSON: {error}"
        )
        yield Unreadable(f"SQS message {message_id}: {reason}", message_id)
        return
    for item in found:
        if isinstance(item, Arrival):
            yield replace(item, message_id=message_id, attempt=attempt)
        else:
            yield replace(item, message_id=message_id)


def _from_body(body: object) -> Iterator[Arrival | Unreadable]:
    if not isinstance(body, dict):
        raise UnknownEventError(f"expected an S3 event, got {_described(body)}")
    if body.get("Event") == "s3:TestEvent":
        return
    if (wanted := wanted_by(body)) is not None:
        yield from (_readable(_from_wake, item) for item in wanted)
    elif body.get("source") == "aws.s3" and "detail-type" in body:
        yield _readable(_from_eventbridge, body)
    elif isinstance(body.get("Records"), list):
        yield from (_readable(_from_notification, record) for record in body["Records"])
    else:
        raise UnknownEventError(f"expected an S3 event, got {_described(body)}")


def _readable(
    parse: Callable[[Mapping[str, Any]], Arrival], record: Mapping[str, Any]
) -> Arrival | Unreadable:
    try:
        return parse(record)
    except UnknownEventError as error:
        return Unreadable(str(error))
    except (KeyError, TypeError, AttributeError, ValueError) as error:
        return Unreadable(
            f"{_described(record)} lacks what an S3 record has: {type(error).__name__}: {error}"
        )


def _from_notification(record: Mapping[str, Any]) -> Arrival:
    if _source_of(record) != "aws:s3":
        raise UnknownEventError(f"expected a record of S3, got {_described(record)}")
    version, name = str(record["eventVersion"]), str(record["eventName"])
    # AWS's rule for consumers: the same major version, any later minor one.
    if version.split(".")[0] != "2":
        raise UnknownEventError(f"S3 event version {version} is not one of 2.x")
    if not name.startswith("ObjectCreated:"):
        raise UnknownEventError(
            f"S3 sent {name}, expected ObjectCreated: fix the bucket notification"
        )
    item = record["s3"]["object"]
    return Arrival(
        bucket=_text(record["s3"]["bucket"]["name"]),
        key=unquote_plus(_text(item["key"]), errors="surrogateescape"),
        version_id=_version_id(item.get("versionId")),
        etag=_etag(item.get("eTag")),
        size_bytes=item.get("size"),
        sequencer=item.get("sequencer"),
    )


def _from_eventbridge(event: Mapping[str, Any]) -> Arrival:
    if event["detail-type"] != "Object Created":
        raise UnknownEventError(
            f"EventBridge sent {event['detail-type']!r}, expected 'Object Created': fix the rule"
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


def _from_wake(item: Mapping[str, Any]) -> Arrival:
    return Arrival(
        bucket=_text(item["bucket"]),
        key=_text(item["key"]),
        version_id=_version_id(item.get("version_id")),
        etag=_etag(item.get("etag")),
        size_bytes=item.get("size"),
        sequencer=item.get("sequencer"),
    )


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
