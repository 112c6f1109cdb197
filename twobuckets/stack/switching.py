"""What arrives while a deployment leads files to the processor by another way.

S3's events may still be in a queue that goes away, or on their way there, whatever it held when the
deployment was planned. The files are in staging, so the processor is woken for them; one that was
processed meanwhile is not archived again.
"""

from __future__ import annotations

from datetime import timedelta
from typing import TYPE_CHECKING, Final

from twobuckets.pipeline.waking import Waker
from twobuckets.processor.contract import stands_for_folder
from twobuckets.s3.listing import ListingError, iter_versions
from twobuckets.s3.refusals import explain

if TYPE_CHECKING:
    from collections.abc import Callable
    from datetime import datetime

    from twobuckets.aws.clients import Aws
    from twobuckets.s3.engine import Sender
    from twobuckets.stack.plan import Plan

_TRIGGER: Final = "Trigger"
_FIRST: Final = "notification"
# SQS's counts settle within a minute (API reference, GetQueueAttributes), and S3 delivers within
# seconds, or "a minute or longer" (user guide, "Amazon S3 Event Notifications").
_LATE: Final = timedelta(minutes=5)


def switches(planned: Plan) -> bool:
    """Tell whether a deployment changes what wakes the processor of a stack that is there.

    A stack that was deployed before there was a choice has no parameter for it.
    """
    return any(
        change.parameter == _TRIGGER and change.after != (change.before or _FIRST)
        for change in planned.parameters
    )


def wake_arrivals(
    aws: Aws,
    sender: Sender,
    *,
    staging: str,
    function: str,
    planned_at: datetime,
    now: Callable[[], datetime],
) -> int:
    """Wake the processor for what came to staging since shortly before, and return how many.

    Raises AccessError and TwoBucketsError.
    """
    waker = Waker(
        functions=aws.functions, function=function, bucket=staging, region=aws.region, ours=True
    )
    woken = 0
    try:
        for version in iter_versions(sender, staging):
            is_new = version.is_latest and version.modified_at >= planned_at - _LATE
            if not is_new or version.is_delete_marker or version.size_bytes is None:
                continue
            if stands_for_folder(version.key, version.size_bytes):
                continue
            waker.ask(
                version.key,
                version_id=version.version_id,
                etag=version.etag,
                size_bytes=version.size_bytes,
                now=now(),
            )
            woken += 1
    except ListingError as error:
        # The deployment is done; doctor finds files whose event was lost, once they are late.
        what = f"list {staging} for files that came while what wakes the processor changed"
        raise explain(error.reason, "ListObjectVersions", what) from error
    return woken
