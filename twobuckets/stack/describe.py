"""The pipeline at a glance: each part is read by itself and says why when it could not be.

Nothing here changes anything, and it needs no stack: a pair made by hand is described as well.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, fields, is_dataclass
from datetime import datetime, timedelta
from typing import TYPE_CHECKING, Any, ClassVar, Final, TypeVar
from urllib.parse import unquote

from twobuckets.aws import ClientError, action_of, attempt, error_code
from twobuckets.errors import AccessError, TwoBucketsError, UnreachableError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from mypy_boto3_lambda import LambdaClient
    from mypy_boto3_s3 import S3Client
    from mypy_boto3_sqs import SQSClient

    from twobuckets.settings import Pipeline, Settings

T = TypeVar("T")

AGES: Final = (
    timedelta(minutes=1),
    timedelta(minutes=15),
    timedelta(hours=1),
    timedelta(hours=6),
    timedelta(days=1),
)
"""Upper ends of the age classes of staged objects; the last class is open."""

SLOTS: Final = 12
"""Into how many equal slots the outcomes of a period are counted."""

_GLANCE_PAGES: Final = 100
"""Where counting a bucket stops: 100 pages of 1,000 are some seconds."""

_GLANCE_OUTCOMES: Final = 50_000
"""Where counting outcomes stops."""


@dataclass(frozen=True, slots=True)
class Unread:
    """Something that could not be looked at, why, and the IAM action that was missing, if so."""

    reason: str
    action: str | None


@dataclass(frozen=True, slots=True)
class StackStatus:
    """The stack as CloudFormation has it."""

    stack: str
    status: str
    reason: str | None
    changed_at: datetime


@dataclass(frozen=True, slots=True)
class BucketStatus:
    """A bucket and its protection.

    `encryption` is S3's name of the algorithm; `abort_uploads_days` and `noncurrent_days` are what
    a rule for the whole bucket says, None without one.
    """

    role: str
    bucket: str
    is_private: bool | Unread
    encryption: str | Unread | None
    versioning: str | Unread
    is_tls_only: bool | Unread
    abort_uploads_days: int | Unread | None
    noncurrent_days: int | Unread | None
    cors_origins: tuple[str, ...] | Unread


@dataclass(frozen=True, slots=True)
class Staged:
    """The current objects of the staging bucket, counted into the classes of `AGES`.

    `is_all` is false when counting stopped early: there are at least as many.
    """

    objects: int
    size_bytes: int
    oldest_at: datetime | None
    by_age: tuple[int, ...]
    is_all: bool


@dataclass(frozen=True, slots=True)
class Uploads:
    """The incomplete multipart uploads of the staging bucket."""

    uploads: int
    oldest_at: datetime | None
    is_all: bool


@dataclass(frozen=True, slots=True)
class StagingStatus:
    """What is in the staging bucket now."""

    bucket: str
    staged: Staged | Unread
    uploads: Uploads | Unread


@dataclass(frozen=True, slots=True)
class Function:
    """A Lambda function's configuration; `code_sha256` is lower-case hex of its zip."""

    state: str
    state_reason: str | None
    runtime: str | None
    architecture: str
    memory_mb: int
    timeout: timedelta
    changed_at: str
    code_sha256: str
    last_update: str | None


@dataclass(frozen=True, slots=True)
class FunctionStatus:
    """The processor; `built_sha256` is of the artifact built here, None when there is none."""

    function: str
    configuration: Function | Unread
    reserved_concurrency: int | Unread | None
    built_sha256: str | None


@dataclass(frozen=True, slots=True)
class WiringStatus:
    """What wakes the processor: the events that the staging bucket sends it, and the permission.

    `others` are targets that the bucket notifies as well.
    """

    events: tuple[str, ...] | Unread
    others: tuple[str, ...]
    is_permitted: bool | Unread


@dataclass(frozen=True, slots=True)
class FailureQueueStatus:
    """How many events the processor gave up on; `waiting` is visible, `taken` is being read."""

    queue_url: str
    waiting: int | Unread
    taken: int


@dataclass(frozen=True, slots=True)
class OutcomesStatus:
    """Outcomes since `since`, by kind, and over time in `SLOTS` slots, the latest last.

    `is_all` is false when counting stopped early: there are at least as many.
    """

    log_group: str
    since: datetime
    counts: Mapping[str, int]
    over_time: tuple[int, ...]
    is_all: bool


@dataclass(frozen=True, slots=True)
class PartUnread:
    """A part of the pipeline of which nothing could be read."""

    part: str
    reason: str
    action: str | None


@dataclass(frozen=True, slots=True)
class SettingStatus:
    """A setting, its value, and where that came from."""

    setting: str
    value: object
    origin: str


@dataclass(frozen=True, slots=True)
class SettingsStatus:
    """Every setting that has a value."""

    settings: tuple[SettingStatus, ...]


@dataclass(frozen=True, slots=True)
class StatusSummary:
    """How much of the pipeline could not be read."""

    type_name: ClassVar[str] = "summary"

    unread: int


def glance(read: Callable[[], T], what: str, *, is_needed: bool = False) -> T | Unread:
    """Return what `read` returns, or why it could not.

    With `is_needed`, raises UnreachableError when nothing answers.
    """
    try:
        with attempt(f"read {what}"):
            return read()
    except UnreachableError as error:
        if is_needed:
            raise
        return unread(error, what)
    except TwoBucketsError as error:
        return unread(error, what)


def unread(error: TwoBucketsError, what: str) -> Unread:
    """Return why something could not be read as a part of the whole."""
    reason = error.message.removeprefix(f"Could not read {what}: ")
    if isinstance(error, AccessError) and isinstance(error.__cause__, ClientError):
        return Unread(reason, action_of(error.__cause__))
    return Unread(reason, None)


def count_unread(record: object) -> int:
    """Return how many things a record says could not be read."""
    if isinstance(record, PartUnread | Unread):
        return 1
    if not is_dataclass(record):
        return 0
    return sum(count_unread(getattr(record, f.name)) for f in fields(record))


def describe_settings(settings: Settings, pipeline: Pipeline) -> SettingsStatus:
    """Return every setting that has a value, with where it came from."""
    origins = {**settings.origins, **pipeline.origins}
    values = {
        f.name: getattr(source, f.name)
        for source in (settings, pipeline)
        for f in fields(source)
        if f.name in origins
    }
    return SettingsStatus(
        tuple(SettingStatus(name, values[name], origin) for name, origin in origins.items())
    )


def describe_bucket(s3: S3Client, role: str, bucket: str) -> BucketStatus:
    """Return a bucket's protection. Raises UnreachableError when S3 does not answer."""
    lifecycle = glance(
        lambda: _or_empty(lambda: s3.get_bucket_lifecycle_configuration(Bucket=bucket)),
        f"the lifecycle rules of {bucket}",
        # Without S3 there is nothing to show.
        is_needed=True,
    )
    return BucketStatus(
        role=role,
        bucket=bucket,
        is_private=glance(lambda: _is_private(s3, bucket), "whether it is private"),
        encryption=glance(lambda: _encryption(s3, bucket), "its encryption"),
        versioning=glance(
            lambda: s3.get_bucket_versioning(Bucket=bucket).get("Status", "Disabled"),
            "its versioning",
        ),
        is_tls_only=glance(lambda: _is_tls_only(s3, bucket), "its policy"),
        abort_uploads_days=lifecycle
        if isinstance(lifecycle, Unread)
        else _days(lifecycle, "AbortIncompleteMultipartUpload", "DaysAfterInitiation"),
        noncurrent_days=lifecycle
        if isinstance(lifecycle, Unread)
        else _days(lifecycle, "NoncurrentVersionExpiration", "NoncurrentDays"),
        cors_origins=glance(lambda: _cors_origins(s3, bucket), "its CORS rules"),
    )


def describe_staging(s3: S3Client, bucket: str, *, now: datetime) -> StagingStatus:
    """Return what is in the staging bucket, counting no further than a glance takes."""
    return StagingStatus(
        bucket=bucket,
        staged=glance(lambda: _count_staged(s3, bucket, now), "its objects"),
        uploads=glance(lambda: _count_uploads(s3, bucket), "its incomplete uploads"),
    )


def describe_function(
    functions: LambdaClient, function: str, *, built_sha256: str | None
) -> FunctionStatus:
    """Return the processor's state and configuration."""
    return FunctionStatus(
        function=function,
        configuration=glance(lambda: _configuration(functions, function), "its configuration"),
        reserved_concurrency=glance(
            lambda: functions.get_function_concurrency(FunctionName=function).get(
                "ReservedConcurrentExecutions"
            ),
            "its concurrency",
        ),
        built_sha256=built_sha256,
    )


def describe_wiring(
    s3: S3Client, functions: LambdaClient, staging: str, function: str
) -> WiringStatus:
    """Return how the staging bucket and the processor are joined."""
    present = glance(
        lambda: s3.get_bucket_notification_configuration(Bucket=staging), "its notifications"
    )
    is_permitted = glance(
        lambda: _is_permitted(functions, function, staging), "who may invoke the function"
    )
    if isinstance(present, Unread):
        return WiringStatus(present, (), is_permitted)
    events: list[str] = []
    others = []
    for configuration in present.get("LambdaFunctionConfigurations", []):
        if _names(configuration["LambdaFunctionArn"], function):
            events += configuration["Events"]
        else:
            others.append(configuration["LambdaFunctionArn"])
    others += [queue["QueueArn"] for queue in present.get("QueueConfigurations", [])]
    others += [topic["TopicArn"] for topic in present.get("TopicConfigurations", [])]
    others += ["EventBridge"] if "EventBridgeConfiguration" in present else []
    return WiringStatus(tuple(events), tuple(others), is_permitted)


def describe_failure_queue(sqs: SQSClient, queue_url: str) -> FailureQueueStatus:
    """Return how many events the processor gave up on (SQS counts approximately)."""
    names: Final = ("ApproximateNumberOfMessages", "ApproximateNumberOfMessagesNotVisible")
    read = glance(
        lambda: sqs.get_queue_attributes(QueueUrl=queue_url, AttributeNames=list(names)),
        "its depth",
    )
    if isinstance(read, Unread):
        return FailureQueueStatus(queue_url, read, 0)
    waiting, taken = (int(read["Attributes"].get(name, 0)) for name in names)
    return FailureQueueStatus(queue_url, waiting, taken)


def count_outcomes(
    log_group: str,
    outcomes: Iterable[tuple[datetime, str]],
    *,
    since: datetime,
    now: datetime,
) -> OutcomesStatus | PartUnread:
    """Return outcomes, each with its instant, counted by kind and over time.

    Counts no further than a glance takes.
    """
    counts: Counter[str] = Counter()
    over_time = [0] * SLOTS
    try:
        for happened_at, outcome in outcomes:
            counts[outcome] += 1
            slot = int(SLOTS * ((happened_at - since) / (now - since)))
            over_time[min(max(slot, 0), SLOTS - 1)] += 1
            if counts.total() == _GLANCE_OUTCOMES:
                break
    except TwoBucketsError as error:
        why = unread(error, f"the log group {log_group}")
        return PartUnread("Last hour", why.reason, why.action)
    is_all = counts.total() < _GLANCE_OUTCOMES
    return OutcomesStatus(log_group, since, dict(counts), tuple(over_time), is_all)


def _or_empty(read: Callable[[], Any]) -> Mapping[str, Any]:
    """Return what S3 answers, empty when it says that nothing is configured."""
    try:
        answer: Mapping[str, Any] = read()
    except ClientError as error:
        if error_code(error) in (
            "NoSuchLifecycleConfiguration",
            "NoSuchCORSConfiguration",
            "NoSuchPublicAccessBlockConfiguration",
            "NoSuchBucketPolicy",
            "ServerSideEncryptionConfigurationNotFoundError",
        ):
            return {}
        raise
    return answer


def _is_private(s3: S3Client, bucket: str) -> bool:
    block = _or_empty(lambda: s3.get_public_access_block(Bucket=bucket))
    settings = block.get("PublicAccessBlockConfiguration", {})
    return len(settings) == 4 and all(settings.values())


def _encryption(s3: S3Client, bucket: str) -> str | None:
    answer = _or_empty(lambda: s3.get_bucket_encryption(Bucket=bucket))
    rules = answer.get("ServerSideEncryptionConfiguration", {}).get("Rules", [])
    for rule in rules:
        algorithm = rule.get("ApplyServerSideEncryptionByDefault", {}).get("SSEAlgorithm")
        if algorithm:
            return str(algorithm)
    return None


def _is_tls_only(s3: S3Client, bucket: str) -> bool:
    policy = _or_empty(lambda: s3.get_bucket_policy(Bucket=bucket)).get("Policy")
    return any(_denies_plain_http(statement) for statement in _statements(policy))


def _denies_plain_http(statement: Mapping[str, Any]) -> bool:
    condition = statement.get("Condition", {}).get("Bool", {}).get("aws:SecureTransport")
    actions = statement.get("Action", [])
    return (
        statement.get("Effect") == "Deny"
        and str(condition).lower() == "false"
        and bool({"s3:*", "*"} & set([actions] if isinstance(actions, str) else actions))
    )


def _statements(policy: str | None) -> list[dict[str, Any]]:
    statements = json.loads(policy)["Statement"] if policy else []
    return [statements] if isinstance(statements, dict) else statements


def _days(lifecycle: Mapping[str, Any], action: str, unit: str) -> int | None:
    """Return the fewest days after which a rule for the whole bucket does something."""
    found = [
        int(rule[action][unit])
        for rule in lifecycle.get("Rules", [])
        if rule["Status"] == "Enabled" and unit in rule.get(action, {}) and _is_for_all(rule)
    ]
    return min(found, default=None)


def _is_for_all(rule: Mapping[str, Any]) -> bool:
    return not rule.get("Prefix") and not any(rule.get("Filter", {}).values())


def _cors_origins(s3: S3Client, bucket: str) -> tuple[str, ...]:
    rules = _or_empty(lambda: s3.get_bucket_cors(Bucket=bucket)).get("CORSRules", [])
    return tuple(dict.fromkeys(origin for rule in rules for origin in rule["AllowedOrigins"]))


def _count_staged(s3: S3Client, bucket: str, now: datetime) -> Staged:
    by_age = [0] * (len(AGES) + 1)
    size_bytes = 0
    oldest_at: datetime | None = None
    is_all = True
    pages = s3.get_paginator("list_objects_v2").paginate(Bucket=bucket)
    for number, page in enumerate(pages, 1):
        for item in page.get("Contents", []):
            modified_at = item["LastModified"]
            age = now - modified_at
            by_age[sum(age >= limit for limit in AGES)] += 1
            size_bytes += item["Size"]
            oldest_at = modified_at if oldest_at is None else min(oldest_at, modified_at)
        if number == _GLANCE_PAGES:
            is_all = not page.get("IsTruncated", False)
            break
    return Staged(sum(by_age), size_bytes, oldest_at, tuple(by_age), is_all)


def _count_uploads(s3: S3Client, bucket: str) -> Uploads:
    count = 0
    oldest_at: datetime | None = None
    is_all = True
    pages = s3.get_paginator("list_multipart_uploads").paginate(Bucket=bucket)
    for number, page in enumerate(pages, 1):
        for upload in page.get("Uploads", []):
            count += 1
            initiated_at = upload["Initiated"]
            oldest_at = initiated_at if oldest_at is None else min(oldest_at, initiated_at)
        if number == _GLANCE_PAGES:
            is_all = not page.get("IsTruncated", False)
            break
    return Uploads(count, oldest_at, is_all)


def _configuration(functions: LambdaClient, function: str) -> Function:
    import base64

    found = functions.get_function_configuration(FunctionName=function)
    return Function(
        state=found.get("State", "Active"),
        state_reason=found.get("StateReason") or None,
        runtime=found.get("Runtime"),
        architecture=found.get("Architectures", ["x86_64"])[0],
        memory_mb=found["MemorySize"],
        timeout=timedelta(seconds=found["Timeout"]),
        changed_at=found["LastModified"],
        code_sha256=base64.b64decode(found["CodeSha256"]).hex(),
        last_update=found.get("LastUpdateStatus"),
    )


def _is_permitted(functions: LambdaClient, function: str, staging: str) -> bool:
    """Tell whether the function's policy lets S3 invoke it for the bucket."""
    try:
        policy = functions.get_policy(FunctionName=function)["Policy"]
    except ClientError as error:
        if error_code(error) == "ResourceNotFoundException":
            return False
        raise
    return any(_lets_s3_invoke(statement, staging) for statement in _statements(policy))


def _lets_s3_invoke(statement: Mapping[str, Any], bucket: str) -> bool:
    principal = statement.get("Principal", {})
    service = principal.get("Service") if isinstance(principal, dict) else principal
    condition = statement.get("Condition", {})
    arns = [
        str(value)
        for operator in ("ArnLike", "ArnEquals", "StringEquals", "StringLike")
        for name, value in condition.get(operator, {}).items()
        if name.lower() == "aws:sourcearn"
    ]
    return (
        statement.get("Effect") == "Allow"
        and service in ("s3.amazonaws.com", "*")
        and all(unquote(arn).endswith((f":::{bucket}", ":::*")) for arn in arns)
    )


def _names(arn: str, function: str) -> bool:
    """Tell whether an ARN is of the function, which is a name or an ARN itself."""
    return arn == function or arn.split(":")[6:7] == [function.rpartition(":")[2]]
