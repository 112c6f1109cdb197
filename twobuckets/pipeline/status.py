"""The pipeline at a glance: each part is read by itself and says why when it could not be.

Nothing here changes anything, and it needs no stack: a pair made by hand is described as well.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, fields, is_dataclass
from datetime import datetime, timedelta
from functools import partial
from typing import TYPE_CHECKING, Any, ClassVar, Final, TypeVar

from twobuckets.parallel import map_unordered
from twobuckets.pipeline import policies
from twobuckets.pipeline.lifecycle import days_until
from twobuckets.pipeline.lookups import CouldNotLook, Gone, Unread
from twobuckets.pipeline.notifications import targets_of
from twobuckets.pipeline.policies import Permission
from twobuckets.pipeline.queues import dead_letter_queue_of, depth_of
from twobuckets.processor.contract import stands_for_folder

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    from twobuckets.pipeline.facts import Facts
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

_GLANCE_PAGES: Final = 100
"""Where counting a bucket stops: 100 pages of 1,000 are some seconds."""


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
    a rule for the whole bucket says, None without one; `runs_rules` is false of the embedded AWS,
    which keeps lifecycle rules and runs none. `is_existing` tells that the bucket was there before
    the stack.
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
    runs_rules: bool = True
    is_existing: bool | Unread = False


@dataclass(frozen=True, slots=True)
class StagedCount:
    """The current objects of the staging bucket, counted into the classes of `AGES`.

    `is_all` is false when counting stopped early: there are at least as many.
    """

    objects: int
    size_bytes: int
    oldest_at: datetime | None
    by_age: tuple[int, ...]
    is_all: bool


@dataclass(frozen=True, slots=True)
class UploadCount:
    """The incomplete multipart uploads of the staging bucket."""

    uploads: int
    oldest_at: datetime | None
    is_all: bool


@dataclass(frozen=True, slots=True)
class StagingStatus:
    """What is in the staging bucket now."""

    bucket: str
    staged: StagedCount | Unread
    uploads: UploadCount | Unread


@dataclass(frozen=True, slots=True)
class FunctionConfiguration:
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
    """The processor; `built_sha256` is of the artifact built here, None when there is none.

    `is_built_current` tells whether that artifact holds the processor as it is now.
    """

    function: str
    configuration: FunctionConfiguration | Unread
    reserved_concurrency: int | Unread | None
    built_sha256: str | None
    is_built_current: bool = True


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
class QueueStatus:
    """A queue that feeds the processor, as SQS counts it, which is approximately.

    `waiting` messages are visible, `taken` ones are being processed or come back later, `delayed`
    ones are not visible yet; `oldest` is the age of the oldest. `given_up` counts those in its
    dead-letter queue, None without one.
    """

    queue: str
    waiting: int | Unread
    taken: int
    delayed: int
    oldest: timedelta | Unread | None
    dead_letter_queue: str | None
    given_up: int | Unread | None


@dataclass(frozen=True, slots=True)
class QueuesStatus:
    """The queues that feed the processor."""

    queues: tuple[QueueStatus, ...] | Unread


@dataclass(frozen=True, slots=True)
class JobQueueStatus:
    """The queue of AWS Batch for files that are too much for the processor.

    `state` is ENABLED, DISABLED, or what AWS Batch says is wrong with it; None where there is no
    such queue. `jobs` counts those that have not ended, by their state.
    """

    job_queue: str
    state: str | Unread | None
    jobs: Mapping[str, int] | Unread


@dataclass(frozen=True, slots=True)
class FailureQueueStatus:
    """How many events the processor gave up on; `waiting` is visible, `taken` is being read."""

    queue_url: str
    waiting: int | Unread
    taken: int


@dataclass(frozen=True, slots=True)
class PartUnread:
    """A part of the pipeline of which nothing could be read."""

    part: str
    reason: str
    action: str | None


@dataclass(frozen=True, slots=True)
class PartMissing:
    """A part of the pipeline that does not exist; `part` is `staging`, `archive` or `function`."""

    part: str
    name: str


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
    """How much of the pipeline could not be read, and how many parts of it do not exist."""

    type_name: ClassVar[str] = "summary"

    unread: int
    missing: int = 0


def iter_parts(
    facts: Facts,
    settings: Settings,
    *,
    built_sha256: str | None,
    is_built_current: bool,
    describe_recent: Callable[[], object | None],
) -> Iterator[object]:
    """Yield the parts in the order they are shown, all of them read at the same time.

    `built_sha256` and `is_built_current` are of the artifact built here, see `FunctionStatus`;
    `describe_recent` tells what became of the last files, None where nothing can.
    """
    pipeline = facts.pipeline
    reads: list[Callable[[], object | None]] = [
        partial(describe_bucket, facts, "staging", pipeline.staging),
        partial(describe_staging, facts),
        partial(describe_bucket, facts, "archive", pipeline.archive),
    ]
    if pipeline.function is not None:
        reads += [
            partial(
                describe_function,
                facts,
                built_sha256=built_sha256,
                is_built_current=is_built_current,
            ),
            partial(describe_wiring, facts),
            partial(describe_queues, facts),
            partial(describe_job_queue, facts),
        ]
    reads.append(describe_recent)
    if pipeline.failure_queue_url is not None:
        reads.append(partial(describe_failure_queue, facts, pipeline.failure_queue_url))
    done = dict(map_unordered(lambda part: (part[0], part[1]()), enumerate(reads)))
    yield from (part for number in sorted(done) if (part := done[number]) is not None)
    yield describe_settings(settings, pipeline)


def glance(read: Callable[[], T]) -> T | Unread:
    """Return what `read` returns, or why it could not.

    Raises the error after which nothing else can be read either: no network, no credentials or
    wrong ones, a wrong clock.
    """
    try:
        return read()
    except CouldNotLook as reason:
        return reason.unread


def count_unread(record: object) -> int:
    """Return how many things a record says could not be read."""
    if isinstance(record, PartUnread | Unread):
        return 1
    if not is_dataclass(record):
        return 0
    values = [getattr(record, f.name) for f in fields(record)]
    listed = [item for value in values if isinstance(value, tuple) for item in value]
    return sum(map(count_unread, values + listed))


def describe_settings(settings: Settings, pipeline: Pipeline) -> SettingsStatus:
    """Return every setting that has a value, with where it came from.

    Of the processor's variables the names alone: a value may be a secret.
    """
    origins = {**settings.origins, **pipeline.origins}
    values = {
        f.name: getattr(source, f.name)
        for source in (settings, pipeline)
        for f in fields(source)
        if f.name in origins
    }
    if "environment" in values:
        values["environment"] = tuple(name for name, _ in settings.environment)
    return SettingsStatus(
        tuple(SettingStatus(name, values[name], origin) for name, origin in origins.items())
    )


def describe_bucket(facts: Facts, role: str, bucket: str) -> BucketStatus | PartMissing:
    """Return a bucket's protection. Raises UnreachableError when S3 does not answer."""
    read = facts.buckets
    if glance(lambda: read.exists(bucket)) is False:
        return PartMissing(role, bucket)
    rules = glance(lambda: read.lifecycle(bucket))
    return BucketStatus(
        role=role,
        bucket=bucket,
        is_private=glance(lambda: _is_private(read.public_access_block(bucket))),
        encryption=glance(lambda: _algorithm(read.encryption(bucket))),
        versioning=glance(lambda: read.versioning(bucket) or "Disabled"),
        is_tls_only=glance(lambda: any(map(policies.refuses_plain_http, read.policy(bucket)))),
        abort_uploads_days=rules
        if isinstance(rules, Unread)
        else days_until(rules, "AbortIncompleteMultipartUpload", "DaysAfterInitiation"),
        noncurrent_days=rules
        if isinstance(rules, Unread)
        else days_until(rules, "NoncurrentVersionExpiration", "NoncurrentDays"),
        cors_origins=glance(lambda: _origins(read.cors(bucket))),
        runs_rules=facts.runs_rules,
        is_existing=glance(lambda: bucket in facts.stack.existing_buckets()),
    )


def describe_staging(facts: Facts) -> StagingStatus | None:
    """Return what is in the staging bucket, counting no further than a glance takes.

    None where there is no such bucket.
    """
    bucket = facts.pipeline.staging
    if glance(lambda: facts.buckets.exists(bucket)) is False:
        return None
    return StagingStatus(
        bucket=bucket,
        staged=glance(lambda: _count_staged(facts)),
        uploads=glance(lambda: _count_uploads(facts)),
    )


def describe_function(
    facts: Facts, *, built_sha256: str | None, is_built_current: bool = True
) -> FunctionStatus | PartMissing:
    """Return the processor's state and configuration. Raises CouldNotLook where none is named."""
    named = facts.function.named
    try:
        configuration: FunctionConfiguration | Unread = _configuration(
            facts.function.configuration()
        )
    except Gone:
        return PartMissing("function", named)
    except CouldNotLook as reason:
        configuration = reason.unread
    return FunctionStatus(
        function=named,
        configuration=configuration,
        reserved_concurrency=glance(facts.function.reserved_concurrency),
        built_sha256=built_sha256,
        is_built_current=is_built_current,
    )


def describe_wiring(facts: Facts) -> WiringStatus | None:
    """Return how the staging bucket and the processor are joined; None where one is missing."""

    def glance_at_permission() -> bool | Unread:
        return glance(lambda: facts.permission_of_s3() is Permission.ALLOWED)

    if _is_gone(facts.function.configuration):
        return None
    try:
        notification = facts.buckets.notification(facts.pipeline.staging)
    except Gone:
        return None
    except CouldNotLook as reason:
        return WiringStatus(reason.unread, (), glance_at_permission())
    targets = tuple(targets_of(notification))
    routes = glance(facts.routes_to_function)
    if isinstance(routes, Unread):
        return WiringStatus(routes, targets, glance_at_permission())
    ours = {route.target_arn for route in routes}
    is_indirect = bool(routes) and not any(route.is_direct for route in routes)
    return WiringStatus(
        events=tuple(dict.fromkeys(event for route in routes for event in route.events)),
        others=tuple(target for target in targets if target not in ours),
        is_permitted=None if is_indirect else glance_at_permission(),
    )


def describe_queues(facts: Facts) -> QueuesStatus | None:
    """Return the queues that feed the processor; None where there is none, or no processor."""
    if _is_gone(facts.function.configuration):
        return None
    arns = glance(facts.function.event_source_arns)
    if isinstance(arns, Unread):
        return QueuesStatus(arns)
    queues = tuple(_describe_queue(facts, arn) for arn in arns if ":sqs:" in arn)
    return QueuesStatus(queues) if queues else None


def _describe_queue(facts: Facts, arn: str) -> QueueStatus:
    name = arn.rpartition(":")[2]
    read = glance(lambda: facts.queues.attributes_at(arn))
    if read is None:
        read = Unread("it does not exist", None)
    if isinstance(read, Unread):
        return QueueStatus(name, read, 0, 0, None, None, None)
    depth = depth_of(read)
    dead = dead_letter_queue_of(read)

    def count_given_up() -> int | None:
        found = facts.queues.attributes_at(dead) if dead is not None else None
        return None if found is None else depth_of(found).total

    return QueueStatus(
        queue=name,
        waiting=depth.waiting,
        taken=depth.taken,
        delayed=depth.delayed,
        oldest=glance(lambda: facts.queues.oldest_message(name)) if depth.total else None,
        dead_letter_queue=dead.rpartition(":")[2] if dead is not None else None,
        given_up=glance(count_given_up),
    )


def describe_job_queue(facts: Facts) -> JobQueueStatus | None:
    """Return the queue that the processor hands large files to; None where it has none."""
    try:
        name = facts.function.job_queue
    except CouldNotLook:
        # What describes the function says why.
        return None
    if name is None:
        return None
    state = glance(lambda: facts.jobs.queue_state(name))
    if state is None:
        return JobQueueStatus(name, None, {})
    return JobQueueStatus(name, state, glance(lambda: facts.jobs.counts(name)))


def describe_failure_queue(facts: Facts, queue_url: str) -> FailureQueueStatus:
    """Return how many events the processor gave up on (SQS counts approximately)."""
    read = glance(lambda: facts.queues.attributes(queue_url))
    if isinstance(read, Unread):
        return FailureQueueStatus(queue_url, read, 0)
    if read is None:
        return FailureQueueStatus(queue_url, Unread("it does not exist", None), 0)
    depth = depth_of(read)
    return FailureQueueStatus(queue_url, depth.waiting, depth.taken)


def _is_gone(read: Callable[[], object]) -> bool:
    try:
        read()
    except CouldNotLook as reason:
        return isinstance(reason, Gone)
    return False


def _is_private(block: Mapping[str, bool]) -> bool:
    return len(block) == 4 and all(block.values())


def _algorithm(rules: Sequence[Mapping[str, Any]]) -> str | None:
    for rule in rules:
        algorithm = rule.get("ApplyServerSideEncryptionByDefault", {}).get("SSEAlgorithm")
        if algorithm:
            return str(algorithm)
    return None


def _origins(rules: Sequence[Mapping[str, Any]]) -> tuple[str, ...]:
    return tuple(dict.fromkeys(origin for rule in rules for origin in rule["AllowedOrigins"]))


def _count_staged(facts: Facts) -> StagedCount:
    bucket, now = facts.pipeline.staging, facts.now
    skips_folders = facts.function.skips_folders

    def call() -> StagedCount:
        by_age = [0] * (len(AGES) + 1)
        size_bytes = 0
        oldest_at: datetime | None = None
        is_all = True
        pages = facts.aws.s3.get_paginator("list_objects_v2").paginate(Bucket=bucket)
        for number, page in enumerate(pages, 1):
            for item in page.get("Contents", []):
                if skips_folders and stands_for_folder(item["Key"], item["Size"]):
                    continue
                modified_at = item["LastModified"]
                age = now - modified_at
                by_age[sum(age >= limit for limit in AGES)] += 1
                size_bytes += item["Size"]
                oldest_at = modified_at if oldest_at is None else min(oldest_at, modified_at)
            if number == _GLANCE_PAGES:
                is_all = not page.get("IsTruncated", False)
                break
        return StagedCount(sum(by_age), size_bytes, oldest_at, tuple(by_age), is_all)

    what = f"the objects in {bucket}"
    counted: StagedCount = facts.lookups.read(what, "s3:ListBucket", call)
    return counted


def _count_uploads(facts: Facts) -> UploadCount:
    bucket = facts.pipeline.staging

    def call() -> UploadCount:
        count = 0
        oldest_at: datetime | None = None
        is_all = True
        # Encoded, for a key may hold what no XML parser takes.
        paginator = facts.aws.s3.get_paginator("list_multipart_uploads")
        pages = paginator.paginate(Bucket=bucket, EncodingType="url")
        for number, page in enumerate(pages, 1):
            for upload in page.get("Uploads", []):
                count += 1
                initiated_at = upload["Initiated"]
                oldest_at = initiated_at if oldest_at is None else min(oldest_at, initiated_at)
            if number == _GLANCE_PAGES:
                is_all = not page.get("IsTruncated", False)
                break
        return UploadCount(count, oldest_at, is_all)

    what = f"the incomplete uploads in {bucket}"
    counted: UploadCount = facts.lookups.read(what, "s3:ListBucketMultipartUploads", call)
    return counted


def _configuration(found: Mapping[str, Any]) -> FunctionConfiguration:
    import base64

    return FunctionConfiguration(
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
