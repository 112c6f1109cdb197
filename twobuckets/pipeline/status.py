"""The pipeline at a glance: each part is read by itself and says why when it could not be.

Nothing here changes anything, and it needs no stack: a pair made by hand is described as well.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, fields, is_dataclass
from datetime import datetime, timedelta
from functools import cache
from typing import TYPE_CHECKING, Any, ClassVar, Final, TypeVar

from twobuckets.aws import ClientError, action_of, attempt, error_code, is_hopeless
from twobuckets.errors import AccessError, TwoBucketsError, UnreachableError
from twobuckets.pipeline import policies
from twobuckets.pipeline.lifecycle import covers_everything
from twobuckets.pipeline.notifications import routes_to, targets_of
from twobuckets.pipeline.policies import Permission
from twobuckets.settings import function_name_of

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from mypy_boto3_lambda import LambdaClient
    from mypy_boto3_s3 import S3Client
    from mypy_boto3_sqs import SQSClient
    from mypy_boto3_sts import STSClient

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

    `others` are targets that the bucket notifies as well. `is_permitted` is None where S3 does not
    invoke the processor itself: a queue, a topic or EventBridge brings it the events.
    """

    events: tuple[str, ...] | Unread
    others: tuple[str, ...]
    is_permitted: bool | Unread | None


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

    With `is_needed`, raises the error after which nothing else can be read either: no network, no
    credentials or wrong ones, a wrong clock.
    """
    try:
        with attempt(f"read {what}"):
            return read()
    except TwoBucketsError as error:
        if is_needed and _ends_all(error):
            raise
        return unread(error, what)


def _ends_all(error: TwoBucketsError) -> bool:
    cause = error.__cause__
    if isinstance(cause, ClientError):
        return is_hopeless(cause)
    return isinstance(error, AccessError | UnreachableError)


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
            # Lambda takes no qualifier there: what is reserved is the function's.
            lambda: functions.get_function_concurrency(FunctionName=function_name_of(function)).get(
                "ReservedConcurrentExecutions"
            ),
            "its concurrency",
        ),
        built_sha256=built_sha256,
    )


def describe_wiring(
    s3: S3Client, functions: LambdaClient, sts: STSClient, staging: str, function: str
) -> WiringStatus:
    """Return how the staging bucket and the processor are joined."""
    read_policy = cache(lambda: _function_policy(functions, function))

    def glance_at_permission() -> bool | Unread:
        return glance(
            lambda: _is_permitted(functions, sts, read_policy(), staging, function),
            "who may invoke the function",
        )

    notification = glance(
        lambda: s3.get_bucket_notification_configuration(Bucket=staging), "its notifications"
    )
    if isinstance(notification, Unread):
        return WiringStatus(notification, (), glance_at_permission())
    targets = tuple(targets_of(notification))
    routes = glance(
        lambda: routes_to(
            function,
            notification,
            sources=lambda: _event_sources(functions, function),
            admits=lambda service: policies.admits(read_policy(), service),
        ),
        "what brings events to the function",
    )
    if isinstance(routes, Unread):
        return WiringStatus(routes, targets, glance_at_permission())
    ours = {route.target_arn for route in routes}
    is_indirect = bool(routes) and not any(route.is_direct for route in routes)
    return WiringStatus(
        events=tuple(dict.fromkeys(event for route in routes for event in route.events)),
        others=tuple(target for target in targets if target not in ours),
        is_permitted=None if is_indirect else glance_at_permission(),
    )


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
    """Return what AWS answers, empty when it says that nothing is configured."""
    try:
        answer: Mapping[str, Any] = read()
    except ClientError as error:
        if error_code(error) in (
            "NoSuchLifecycleConfiguration",
            "NoSuchCORSConfiguration",
            "NoSuchPublicAccessBlockConfiguration",
            "NoSuchBucketPolicy",
            "ServerSideEncryptionConfigurationNotFoundError",
            # Lambda's word for a function without a policy, and for no function at all.
            "ResourceNotFoundException",
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
    return any(map(policies.refuses_plain_http, policies.statements_of(policy)))


def _days(lifecycle: Mapping[str, Any], action: str, unit: str) -> int | None:
    """Return the fewest days after which a rule for the whole bucket does something."""
    found = [
        int(rule[action][unit])
        for rule in lifecycle.get("Rules", [])
        if covers_everything(rule) and unit in rule.get(action, {})
    ]
    return min(found, default=None)


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
    # Encoded, for a key may hold what no XML parser takes.
    pages = s3.get_paginator("list_multipart_uploads").paginate(Bucket=bucket, EncodingType="url")
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


def _function_policy(functions: LambdaClient, function: str) -> list[Mapping[str, Any]]:
    return policies.statements_of(
        _or_empty(lambda: functions.get_policy(FunctionName=function)).get("Policy")
    )


def _event_sources(functions: LambdaClient, function: str) -> list[str]:
    pages = functions.get_paginator("list_event_source_mappings").paginate(FunctionName=function)
    return [str(m.get("EventSourceArn")) for page in pages for m in page["EventSourceMappings"]]


def _is_permitted(
    functions: LambdaClient,
    sts: STSClient,
    policy: list[Mapping[str, Any]],
    staging: str,
    function: str,
) -> bool:
    """Tell whether the function's policy lets S3 invoke it for the bucket."""
    if not policy:
        return False
    arn = functions.get_function_configuration(FunctionName=function)["FunctionArn"].split(":")
    bucket_arn, accounts = f"arn:{arn[1]}:s3:::{staging}", {arn[4]}
    found = policies.permission_of_s3(policy, bucket_arn=bucket_arn, accounts=accounts)
    if found is Permission.ELSEWHERE:
        # The bucket may be in the account of whoever asks, and not in the function's.
        accounts.add(sts.get_caller_identity()["Account"])
        found = policies.permission_of_s3(policy, bucket_arn=bucket_arn, accounts=accounts)
    return found is Permission.ALLOWED
