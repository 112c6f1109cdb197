"""Wakes the processor for files that wait in staging: no object is rewritten, age and version stay.

Our own processor gets an event of ours; anybody else's gets one shaped like S3's notification.
"""

from __future__ import annotations

import json
from datetime import datetime
from typing import TYPE_CHECKING, Any
from urllib.parse import quote_plus

from twobuckets.aws import ClientError, attempt
from twobuckets.errors import AccessError, NotFoundError, TwoBucketsError
from twobuckets.parallel import map_unordered
from twobuckets.processor import contract
from twobuckets.reprocess.journal import Change, Item, Reprocessed, State, result_of
from twobuckets.units import format_instant

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator

    from mypy_boto3_lambda import LambdaClient

    from twobuckets.reprocess.journal import Journal
    from twobuckets.reprocess.plan import Found


def is_ours(functions: LambdaClient, function: str) -> bool:
    """Tell whether a function runs this project's processor."""
    return (
        functions.get_function_configuration(FunctionName=function).get("Handler")
        == contract.HANDLER
    )


def wake_event(
    item: Item | Found, *, bucket: str, ours: bool, region: str, partition: str, now: datetime
) -> dict[str, Any]:
    """Return the event that asks the processor for exactly the staged version of an item.

    The foreign form is that of S3's notification: keys form-encoded, `eventName` without `s3:`
    (S3 user guide, "Event message structure").
    """
    if ours:
        return contract.wake_event(
            bucket, item.key, version_id=item.version_id, etag=item.etag, size_bytes=item.size
        )
    staged = {"key": quote_plus(item.key, safe="/"), "size": item.size, "eTag": item.etag}
    if item.version_id is not None:
        staged["versionId"] = item.version_id
    record = {
        "eventVersion": "2.1",
        "eventSource": "aws:s3",
        "awsRegion": region,
        "eventTime": format_instant(now),
        "eventName": "ObjectCreated:Put",
        "s3": {
            "s3SchemaVersion": "1.0",
            "configurationId": "twobuckets-reprocess",
            "bucket": {"name": bucket, "arn": f"arn:{partition}:s3:::{bucket}"},
            "object": staged,
        },
    }
    return {"Records": [record]}


def ask(
    functions: LambdaClient,
    item: Item | Found,
    *,
    function: str,
    bucket: str,
    region: str,
    ours: bool,
    now: datetime,
) -> None:
    """Ask the processor, asynchronously, for exactly the staged version of an item.

    Raises AccessError, NotFoundError for a function that is not there, and TwoBucketsError.
    """
    event = wake_event(
        item,
        bucket=bucket,
        ours=ours,
        region=region,
        partition=functions.meta.partition,
        now=now,
    )
    with attempt(f"wake {function} for {item.key}"):
        functions.invoke(
            FunctionName=function, InvocationType="Event", Payload=json.dumps(event).encode()
        )


def wake(
    functions: LambdaClient,
    journal: Journal,
    items: Iterable[Item],
    *,
    function: str,
    bucket: str,
    region: str,
    ours: bool,
    workers: int,
    now: Callable[[], datetime],
    pace: Callable[[], None] = lambda: None,
) -> Iterator[Reprocessed]:
    """Invoke the processor asynchronously for each item and yield what came of it.

    Raises AccessError when the function may not be invoked at all, and NotFoundError when it is
    not there.
    """

    def invoke(item: Item) -> Change:
        try:
            ask(
                functions,
                item,
                function=function,
                bucket=bucket,
                region=region,
                ours=ours,
                now=now(),
            )
        except (AccessError, NotFoundError):
            raise
        except TwoBucketsError as error:
            # Without an answer nobody knows whether Lambda took it: it is begun, and stays so.
            if not isinstance(error.__cause__, ClientError):
                raise
            return Change(item.id, State.FAILED, error.message)
        return Change(item.id, State.DONE, None, item.version_id)

    def begun() -> Iterator[Item]:
        for item in items:
            pace()
            journal.begin([item], now().timestamp())
            seen[item.id] = item
            yield item

    seen: dict[int, Item] = {}
    for change in map_unordered(invoke, begun(), workers=workers):
        journal.note([change])
        yield result_of(seen.pop(change.id), change)
