"""Rules that somebody else put on a pipeline's bucket, which a deployment must not wipe.

CloudFormation writes a bucket's notification, lifecycle or CORS configuration as a whole when the
template's part of it changes, and S3 replaces whatever was there (S3 API reference,
PutBucketNotificationConfiguration and PutBucketLifecycleConfiguration).
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

from twobuckets.aws import ClientError, Meaning, attempt, meaning
from twobuckets.pipeline.lifecycle import OUR_RULES
from twobuckets.pipeline.notifications import targets_of
from twobuckets.settings import function_name_of

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Iterator

    from mypy_boto3_s3 import S3Client

_NOTIFICATION: Final = "NotificationConfiguration"
_LIFECYCLE: Final = "LifecycleConfiguration"
_CORS: Final = "CorsConfiguration"
WHOLE: Final = frozenset({_NOTIFICATION, _LIFECYCLE, _CORS})
"""The properties of AWS::S3::Bucket that are written as a whole."""


def find_foreign(
    s3: S3Client,
    bucket: str,
    properties: Collection[str],
    *,
    function: str | None,
    is_ours: Callable[[str], bool] = lambda _: False,
) -> Iterator[str]:
    """Yield what would be lost, in words, when CloudFormation writes these properties of a bucket.

    Ours are the notification to `function`, or to a queue whose ARN `is_ours`, and the rules whose
    id begins with `OUR_RULES`.
    """
    if _NOTIFICATION in properties:
        yield from _foreign_notifications(s3, bucket, function, is_ours)
    if _LIFECYCLE in properties:
        yield from _foreign_rules(
            _read(s3.get_bucket_lifecycle_configuration, bucket, "lifecycle rules"),
            "Rules",
            "lifecycle rule",
        )
    if _CORS in properties:
        yield from _foreign_rules(
            _read(s3.get_bucket_cors, bucket, "CORS rules"), "CORSRules", "CORS rule"
        )


def _foreign_notifications(
    s3: S3Client, bucket: str, function: str | None, is_ours: Callable[[str], bool]
) -> Iterator[str]:
    present = _read(s3.get_bucket_notification_configuration, bucket, "notifications")
    for target in targets_of(present):
        if ":sqs:" in target and is_ours(target):
            continue
        if function is None or ":lambda:" not in target or function_name_of(target) != function:
            yield f"the notification to {target}"


def _foreign_rules(present: dict[str, Any], kind: str, name: str) -> Iterator[str]:
    for rule in present.get(kind, []):
        rule_id = rule.get("ID") or ""
        if not rule_id.startswith(OUR_RULES):
            yield f"the {name} {rule_id or 'without an id'}"


def _read(call: Any, bucket: str, what: str) -> dict[str, Any]:
    with attempt(f"read the {what} of the bucket {bucket}"):
        try:
            answer: dict[str, Any] = call(Bucket=bucket)
        except ClientError as error:
            if meaning(error) is Meaning.NOT_CONFIGURED:
                return {}
            raise
    return answer
