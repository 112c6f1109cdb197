"""Rules that somebody else put on a pipeline's bucket, which a deployment must not wipe.

CloudFormation writes a bucket's notification, lifecycle or CORS configuration as a whole when the
template's part of it changes, and S3 replaces whatever was there (S3 API reference,
PutBucketNotificationConfiguration and PutBucketLifecycleConfiguration).
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

from twobuckets.aws import ClientError, Meaning, attempt, meaning
from twobuckets.pipeline.entries import Ids
from twobuckets.pipeline.notifications import targets_of
from twobuckets.settings import function_name_of

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Iterable, Iterator

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
    stack: str,
    function: str | None,
    is_ours: Callable[[str], bool] = lambda _: False,
) -> Iterator[str]:
    """Yield what would be lost, in words, when CloudFormation writes these properties of a bucket.

    Ours are the notification to `function`, or to a queue whose ARN `is_ours`, and the rules that
    the template, or this tool for the `stack`, puts there: another stack may be built around the
    bucket and have its own.
    """
    if _NOTIFICATION in properties:
        yield from _foreign_notifications(s3, bucket, function, is_ours)
    if _LIFECYCLE in properties:
        present = _read(s3.get_bucket_lifecycle_configuration, bucket, "lifecycle rules")
        yield from _foreign_rules(present.get("Rules", []), "lifecycle rule", stack)
    if _CORS in properties:
        present = _read(s3.get_bucket_cors, bucket, "CORS rules")
        yield from _foreign_rules(present.get("CORSRules", []), "CORS rule", stack)


def _foreign_notifications(
    s3: S3Client, bucket: str, function: str | None, is_ours: Callable[[str], bool]
) -> Iterator[str]:
    present = _read(s3.get_bucket_notification_configuration, bucket, "notifications")
    for target in targets_of(present):
        if ":sqs:" in target and is_ours(target):
            continue
        if function is None or ":lambda:" not in target or function_name_of(target) != function:
            yield f"the notification to {target}"


def _foreign_rules(rules: Iterable[dict[str, Any]], name: str, stack: str) -> Iterator[str]:
    ours = Ids().all | Ids(stack).all | {Ids(stack).page}
    for rule in rules:
        rule_id = rule.get("ID") or ""
        if rule_id not in ours:
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
