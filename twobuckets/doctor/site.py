"""The pipeline under examination: its clients, and every fact of it read at most once."""

from __future__ import annotations

import json
import threading
from dataclasses import dataclass, field
from datetime import timedelta
from math import inf
from typing import TYPE_CHECKING, Any, Final

from twobuckets.aws import (
    BAD_KEY_CODES,
    DENIED_CODES,
    EXPIRED_CODES,
    ClientError,
    attempt,
    error_code,
    explain,
)
from twobuckets.doctor.findings import CouldNotLook, Gone

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Mapping, Sequence
    from datetime import datetime

    from twobuckets.aws.clients import Aws
    from twobuckets.doctor.stuck import Group
    from twobuckets.doctor.summary import Staged
    from twobuckets.s3 import Sender
    from twobuckets.s3.listing import ListingError
    from twobuckets.settings import Pipeline

OUR_HANDLER: Final = "twobuckets.processor.handler"
_LATEST: Final = "$LATEST"
_NO_FUNCTION: Final = "nothing names the processor: set function in twobuckets.toml"
FORBIDDEN: Final = 403
ORPHANED_AFTER: Final = timedelta(days=1)
# What S3 may need to tell Lambda, and Lambda to start: S3 user guide, NotificationHowTo,
# "typically seconds, but can sometimes take a minute or longer".
DELIVERY: Final = timedelta(minutes=2)
# Lambda waits a minute before the first retry of an asynchronous invocation and two before the
# second (Lambda developer guide, invocation-async-error-handling).
RETRY_PAUSES: Final = (timedelta(minutes=1), timedelta(minutes=2))
# What one request gets out of S3 (S3 user guide, "Performance design patterns": "one concurrent
# request for each 85-90 MB/s of desired network throughput").
READ_BYTES_A_SECOND: Final = 90_000_000
LONGEST: Final = "Duration"
_METRICS: Final = (
    "Invocations",
    "Errors",
    "Throttles",
    "AsyncEventsDropped",
    "DestinationDeliveryFailures",
    LONGEST,
)


@dataclass(slots=True)
class Site:
    """A pipeline, the instant of the examination, and what was read of it so far.

    `connect` opens what lists buckets. `older_than` is the age from which a staged object counts
    as stuck, None for what follows from the function; `uploads_older_than` the age of an orphaned
    upload. `program` and `aws_cli` begin the commands of remedies, with the flags that lead to
    this pipeline. `cors_origins` are the origins that the settings want browsers to upload from.
    `staged` is what the listing of staging added up to, None before it, and `stuck` what of it is
    stuck, by cause. Once `is_stopped`, nobody waits for findings any more: listings end. Reads are
    safe from several threads.
    """

    aws: Aws
    pipeline: Pipeline
    now: datetime
    connect: Callable[[], Sender]
    older_than: timedelta | None = None
    uploads_older_than: timedelta = ORPHANED_AFTER
    program: str = "twobuckets"
    aws_cli: str = "aws"
    cors_origins: tuple[str, ...] = ()
    staged: Staged | None = field(default=None, init=False)
    stuck: list[Group] = field(default_factory=list, init=False)
    is_stopped: bool = field(default=False, init=False)
    _reads: dict[str, Any] = field(default_factory=dict, init=False)
    _locks: dict[str, threading.Lock] = field(default_factory=dict, init=False)
    _lock: threading.Lock = field(default_factory=threading.Lock, init=False)

    @property
    def staging(self) -> str:
        """The staging bucket's name."""
        return self.pipeline.staging

    @property
    def archive(self) -> str:
        """The archive bucket's name."""
        return self.pipeline.archive

    @property
    def function_name(self) -> str:
        """The function's name without qualifier. Raises CouldNotLook when none is named."""
        if self.pipeline.function is None:
            raise CouldNotLook("the processor", _NO_FUNCTION, None)
        return function_name_of(self.pipeline.function)

    @property
    def qualifier(self) -> str | None:
        """The version or alias that the settings name."""
        return qualifier_of(self.pipeline.function or "")

    @property
    def is_ours(self) -> bool:
        """Tell whether the processor is made with `twobuckets.processor`."""
        return self.function().get("Handler") == OUR_HANDLER

    @property
    def has_tls(self) -> bool:
        """Tell whether S3 is reached over TLS, which emulators on loopback don't speak."""
        return not self.aws.s3.meta.endpoint_url.startswith("http://")

    def fix_command(self, *checks: str) -> str:
        """Return the command that applies the remedies of these checks, and of no others."""
        words = [self.program, "doctor", "--fix", *(f"--check {check}" for check in checks)]
        if self.older_than is not None:
            words.append(f"--older-than {self.older_than.total_seconds():g}s")
        if self.uploads_older_than != ORPHANED_AFTER:
            words.append(f"--uploads-older-than {self.uploads_older_than.total_seconds():g}s")
        return " ".join(words)

    @property
    def stuck_after(self) -> timedelta:
        """The age from which a staged object counts as stuck.

        By default the time that delivery, every try and the pauses between them can take.
        """
        if self.older_than is not None:
            return self.older_than
        return self.may_take

    @property
    def may_take(self) -> timedelta:
        """The longest time from an object's arrival to the end of its last try."""
        try:
            timeout = timedelta(seconds=self.function()["Timeout"])
            retries = (self.invoke_config() or {}).get("MaximumRetryAttempts", 2)
            sources = self.event_sources()
        except (CouldNotLook, Gone):
            return timedelta(minutes=15) * 3 + sum(RETRY_PAUSES, DELIVERY)
        tries: timedelta = timeout * (1 + retries) + sum(RETRY_PAUSES[:retries], timedelta())
        waits = [self._redrive_time(source) for source in sources]
        return DELIVERY + max([tries, *waits])

    @property
    def readable_bytes(self) -> float:
        """What one request can read of an object within the function's time-out."""
        try:
            timeout: int = self.function()["Timeout"]
        except (CouldNotLook, Gone):
            return inf
        return timeout * READ_BYTES_A_SECOND

    def _redrive_time(self, source: Mapping[str, Any]) -> timedelta:
        """The time in which a queue that feeds the function gives a message up."""
        arn = source.get("EventSourceArn", "")
        if ":sqs:" not in arn:
            return timedelta()
        try:
            queue = self.queue_at(arn)
        except (CouldNotLook, Gone):
            return timedelta()
        if queue is None:
            return timedelta()
        tries = json.loads(queue.get("RedrivePolicy", "{}")).get("maxReceiveCount", 1)
        return timedelta(seconds=int(queue.get("VisibilityTimeout", 30))) * int(tries)

    # Buckets

    def bucket_exists(self, bucket: str) -> bool:
        """Tell whether there is such a bucket. Raises CouldNotLook."""
        found = self._read(
            f"bucket {bucket}",
            "s3:ListBucket",
            lambda: self.aws.s3.head_bucket(Bucket=bucket),
            absent=("404", "NoSuchBucket"),
        )
        return found is not None

    def versioning(self, bucket: str) -> str:
        """Return "Enabled", "Suspended" or, for a bucket that never had versions, ""."""
        answer = self._of_bucket(bucket, "versioning", "s3:GetBucketVersioning")
        return str(answer.get("Status", ""))

    def encryption(self, bucket: str) -> Sequence[Mapping[str, Any]]:
        """Return the rules of the bucket's default encryption."""
        answer = self._of_bucket(
            bucket,
            "encryption",
            "s3:GetEncryptionConfiguration",
            absent="ServerSideEncryptionConfigurationNotFoundError",
        )
        return answer.get("ServerSideEncryptionConfiguration", {}).get("Rules", [])  # type: ignore[no-any-return]

    def public_access_block(self, bucket: str) -> Mapping[str, bool]:
        """Return the four switches of the bucket's public access block; empty where it has none."""
        name, permission = "public_access_block", "s3:GetBucketPublicAccessBlock"
        absent = "NoSuchPublicAccessBlockConfiguration"
        answer = self._of_bucket(bucket, name, permission, absent=absent, prefix="get_")
        return answer.get("PublicAccessBlockConfiguration", {})  # type: ignore[no-any-return]

    def bucket_policy(self, bucket: str) -> list[Mapping[str, Any]]:
        """Return the statements of the bucket's policy."""
        answer = self._of_bucket(
            bucket, "policy", "s3:GetBucketPolicy", absent="NoSuchBucketPolicy"
        )
        return statements_of(answer.get("Policy"))

    def policy_is_public(self, bucket: str) -> bool | None:
        """Return S3's own judgement of the bucket's policy; None where it gives none."""
        name, permission = "policy_status", "s3:GetBucketPolicyStatus"
        answer = self._of_bucket(bucket, name, permission, absent="NoSuchBucketPolicy")
        return answer.get("PolicyStatus", {}).get("IsPublic")  # type: ignore[no-any-return]

    def grants(self, bucket: str) -> Sequence[Mapping[str, Any]]:
        """Return the grants of the bucket's access control list."""
        return self._of_bucket(bucket, "acl", "s3:GetBucketAcl").get("Grants", [])  # type: ignore[no-any-return]

    def lifecycle(self, bucket: str) -> list[dict[str, Any]]:
        """Return the bucket's lifecycle rules."""
        name, permission = "lifecycle_configuration", "s3:GetLifecycleConfiguration"
        answer = self._of_bucket(bucket, name, permission, absent="NoSuchLifecycleConfiguration")
        return answer.get("Rules", [])  # type: ignore[no-any-return]

    def cors(self, bucket: str) -> list[dict[str, Any]]:
        """Return the bucket's CORS rules."""
        answer = self._of_bucket(
            bucket, "cors", "s3:GetBucketCORS", absent="NoSuchCORSConfiguration"
        )
        return answer.get("CORSRules", [])  # type: ignore[no-any-return]

    def notification(self, bucket: str) -> dict[str, Any]:
        """Return the bucket's notification configuration."""
        name = "notification_configuration"
        answer = dict(self._of_bucket(bucket, name, "s3:GetBucketNotification"))
        answer.pop("ResponseMetadata", None)
        return answer

    def _of_bucket(
        self,
        bucket: str,
        name: str,
        permission: str,
        *,
        absent: str = "",
        prefix: str = "get_bucket_",
    ) -> dict[str, Any]:
        def call() -> Any:
            return getattr(self.aws.s3, prefix + name)(Bucket=bucket)

        what = f"the {name.replace('_', ' ')} of bucket {bucket}"
        return self._read(what, permission, call, absent=(absent,)) or {}

    # The function

    def function(self) -> dict[str, Any]:
        """Return the function's configuration. Raises Gone when there is no such function."""
        if self.pipeline.function is None:
            raise CouldNotLook("the processor", _NO_FUNCTION, None)
        found = self._of_function("get_function_configuration", "lambda:GetFunctionConfiguration")
        if found is None:
            raise Gone(f"There is no function {self.pipeline.function}")
        return found

    def function_policy(self) -> list[Mapping[str, Any]]:
        """Return the statements of the function's resource policy."""
        answer = self._of_function("get_policy", "lambda:GetPolicy") or {}
        return statements_of(answer.get("Policy"))

    def reserved_concurrency(self) -> int | None:
        """Return the concurrency reserved for the function; None where nothing is."""
        answer = self._read(
            "the function's reserved concurrency",
            "lambda:GetFunctionConcurrency",
            lambda: self.aws.functions.get_function_concurrency(FunctionName=self.function_name),
            absent=("ResourceNotFoundException",),
        )
        return (answer or {}).get("ReservedConcurrentExecutions")

    def invoke_config(self) -> dict[str, Any] | None:
        """Return how asynchronous invocations are retried; None for Lambda's defaults."""

        def call() -> Any:
            pages = self.aws.functions.get_paginator("list_function_event_invoke_configs").paginate(
                FunctionName=self.function_name
            )
            return [config for page in pages for config in page["FunctionEventInvokeConfigs"]]

        what, permission = "the function's retries", "lambda:ListFunctionEventInvokeConfigs"
        configs = self._read(what, permission, call, absent=("ResourceNotFoundException",)) or []
        wanted = self.qualifier or _LATEST
        return next(
            (c for c in configs if (qualifier_of(c["FunctionArn"]) or _LATEST) == wanted), None
        )

    def event_sources(self) -> list[dict[str, Any]]:
        """Return the function's event source mappings."""

        def call() -> Any:
            pages = self.aws.functions.get_paginator("list_event_source_mappings").paginate(
                FunctionName=str(self.pipeline.function)
            )
            return [source for page in pages for source in page["EventSourceMappings"]]

        what, permission = "the function's event sources", "lambda:ListEventSourceMappings"
        return self._read(what, permission, call, absent=("ResourceNotFoundException",)) or []

    def _of_function(self, operation: str, permission: str) -> dict[str, Any] | None:
        if self.pipeline.function is None:
            raise CouldNotLook("the processor", _NO_FUNCTION, None)
        words = operation.removeprefix("get_function_").removeprefix("get_").replace("_", " ")

        def call() -> Any:
            return getattr(self.aws.functions, operation)(FunctionName=self.pipeline.function)

        missing = ("ResourceNotFoundException",)
        found: dict[str, Any] | None = self._read(
            f"the function's {words}", permission, call, absent=missing
        )
        return found

    def allowed(self, role_arn: str, actions: Sequence[str], resource: str) -> dict[str, str]:
        """Return IAM's decision by action, such as "allowed" or "implicitDeny", by simulation."""

        def call() -> Any:
            pages = self.aws.iam.get_paginator("simulate_principal_policy").paginate(
                PolicySourceArn=role_arn, ActionNames=actions, ResourceArns=[resource]
            )
            return {
                result["EvalActionName"]: result["EvalDecision"]
                for page in pages
                for result in page["EvaluationResults"]
            }

        what = f"what {role_arn} may do on {resource} ({', '.join(actions)})"
        decisions: dict[str, str] = self._read(what, "iam:SimulatePrincipalPolicy", call)
        return decisions

    def metrics(self) -> dict[str, float]:
        """Return the function's metrics of the last day by their name.

        Sums of counts; of `Duration` the longest, in milliseconds.
        """

        def call() -> Any:
            answer = self.aws.cloudwatch.get_metric_data(
                StartTime=self.now - timedelta(days=1),
                EndTime=self.now,
                MetricDataQueries=[
                    {
                        "Id": name.lower(),
                        "MetricStat": {
                            "Metric": {
                                "Namespace": "AWS/Lambda",
                                "MetricName": name,
                                "Dimensions": [
                                    {"Name": "FunctionName", "Value": self.function_name}
                                ],
                            },
                            "Period": 3600,
                            "Stat": "Maximum" if name == LONGEST else "Sum",
                        },
                    }
                    for name in _METRICS
                ],
            )
            values = {r["Id"]: r.get("Values", []) for r in answer["MetricDataResults"]}
            return {
                name: (max if name == LONGEST else sum)(values.get(name.lower()) or [0.0])
                for name in _METRICS
            }

        name = self.function_name
        sums: dict[str, float] = self._read(
            f"the metrics of {name}", "cloudwatch:GetMetricData", call
        )
        return sums

    # Log, queue and stack

    @property
    def log_group(self) -> str:
        """The log group that the function writes to. Raises CouldNotLook when nothing tells."""
        try:
            group = self.function().get("LoggingConfig", {}).get("LogGroup")
        except (CouldNotLook, Gone):
            group = None
        group = group or self.pipeline.log_group
        if group is None:
            raise CouldNotLook("the processor's log", _NO_FUNCTION, None)
        return str(group)

    def log_settings(self) -> dict[str, Any] | None:
        """Return the log group's description; None when there is no such group."""
        name = self.log_group

        def call() -> Any:
            pages = self.aws.logs.get_paginator("describe_log_groups").paginate(
                logGroupNamePrefix=name
            )
            groups = (group for page in pages for group in page["logGroups"])
            return next((dict(g) for g in groups if g.get("logGroupName") == name), None)

        found: dict[str, Any] | None = self._read(
            f"the log group {name}", "logs:DescribeLogGroups", call
        )
        return found

    def queue(self, url: str) -> dict[str, str] | None:
        """Return a queue's attributes; None when there is no such queue."""

        def call() -> Any:
            answer = self.aws.sqs.get_queue_attributes(QueueUrl=url, AttributeNames=["All"])
            return answer.get("Attributes", {})

        missing = ("AWS.SimpleQueueService.NonExistentQueue", "QueueDoesNotExist")
        found: dict[str, str] | None = self._read(
            f"the queue {url}", "sqs:GetQueueAttributes", call, absent=missing
        )
        return found

    def queue_at(self, arn: str) -> dict[str, str] | None:
        """Return the attributes of the queue with an ARN; None when there is no such queue."""
        _, _, _, _, account, name = arn.split(":", 5)

        def call() -> Any:
            return self.aws.sqs.get_queue_url(QueueName=name, QueueOwnerAWSAccountId=account)

        missing = ("AWS.SimpleQueueService.NonExistentQueue", "QueueDoesNotExist")
        found = self._read(f"the queue {name}", "sqs:GetQueueUrl", call, absent=missing)
        return None if found is None else self.queue(found["QueueUrl"])

    def oldest_message(self, queue_name: str) -> timedelta | None:
        """Return the age of the oldest message as CloudWatch last measured it."""

        def call() -> Any:
            return self.aws.cloudwatch.get_metric_statistics(
                Namespace="AWS/SQS",
                MetricName="ApproximateAgeOfOldestMessage",
                Dimensions=[{"Name": "QueueName", "Value": queue_name}],
                StartTime=self.now - timedelta(minutes=15),
                EndTime=self.now,
                Period=60,
                Statistics=["Maximum"],
            )

        what = f"the age of the oldest message in {queue_name}"
        answer = self._read(what, "cloudwatch:GetMetricStatistics", call)
        points = sorted(answer.get("Datapoints", []), key=lambda point: point["Timestamp"])
        return timedelta(seconds=points[-1]["Maximum"]) if points else None

    def stack(self) -> dict[str, Any] | None:
        """Return the stack's description; None for a pair that no stack is named for."""
        name = self.pipeline.stack
        if name is None:
            return None
        answer = self._read(
            f"the stack {name}",
            "cloudformation:DescribeStacks",
            lambda: self.aws.cloudformation.describe_stacks(StackName=name),
            # CloudFormation has no code of its own for a missing stack.
            absent=("ValidationError",),
        )
        return answer["Stacks"][0] if answer else None

    def drifted_resources(self) -> list[dict[str, Any]]:
        """Return what CloudFormation found changed or deleted when it last compared."""

        def call() -> Any:
            request: dict[str, Any] = {
                "StackName": str(self.pipeline.stack),
                "StackResourceDriftStatusFilters": ["MODIFIED", "DELETED"],
            }
            drifts = []
            # botocore has no paginator for this one.
            while True:
                page = self.aws.cloudformation.describe_stack_resource_drifts(**request)
                drifts += page["StackResourceDrifts"]
                if not page.get("NextToken"):
                    return drifts
                request["NextToken"] = page["NextToken"]

        what, permission = "the stack's drift", "cloudformation:DescribeStackResourceDrifts"
        drifts: list[dict[str, Any]] = self._read(what, permission, call)
        return drifts

    def account(self) -> str:
        """Return the account of the credentials in use."""
        answer = self._read(
            "the account", "sts:GetCallerIdentity", lambda: self.aws.sts.get_caller_identity()
        )
        return str(answer["Account"])

    def _read(
        self,
        what: str,
        permission: str,
        call: Callable[[], Any],
        *,
        absent: Collection[str] = (),
    ) -> Any:
        """Return what `call` returned the first time, None for an error code in `absent`."""
        with self._lock:
            lock = self._locks.setdefault(what, threading.Lock())
        with lock:
            if what not in self._reads:
                self._reads[what] = _answer(what, permission, call, absent)
            answer = self._reads[what]
        if isinstance(answer, CouldNotLook | Gone):
            raise answer
        return answer


def _answer(
    what: str, permission: str, call: Callable[[], Any], absent: Collection[str]
) -> Any | CouldNotLook | Gone:
    with attempt(f"read {what}"):
        try:
            return call()
        except ClientError as error:
            code = error_code(error)
            if code in absent:
                return None
            if code in EXPIRED_CODES | BAD_KEY_CODES:
                # No other check would get an answer either.
                raise explain(error, f"read {what}") from error
            if code == "NoSuchBucket":
                return Gone(f"There is no bucket to read {what} from")
            return could_not_look(what, error, permission)


def could_not_look(what: str, error: ClientError, permission: str) -> CouldNotLook:
    """Return what a failed read means for checks; only a denial is about the permission."""
    if error_code(error) in DENIED_CODES:
        return CouldNotLook(what, "access denied", permission)
    return CouldNotLook(what, str(error), None)


def listing_stopped(what: str, error: ListingError, permission: str) -> CouldNotLook:
    """Return what a listing that failed means for checks."""
    if getattr(error.reason, "status", None) == FORBIDDEN:
        return CouldNotLook(what, "access denied", permission)
    return CouldNotLook(what, str(error), None)


def statements_of(policy: str | None) -> list[Mapping[str, Any]]:
    """Return a policy document's statements, which JSON may give as one object or a list."""
    statements = json.loads(policy or "{}").get("Statement", [])
    return statements if isinstance(statements, list) else [statements]


def function_name_of(function: str) -> str:
    """Return the name in a function's name, `name:qualifier` or ARN."""
    parts = function.split(":")
    if "function" in parts:
        return parts[parts.index("function") + 1]
    return parts[0]


def qualifier_of(function: str) -> str | None:
    """Return the version or alias in `name:qualifier` or an ARN."""
    parts = function.split(":")
    after = parts[parts.index("function") + 2 :] if "function" in parts else parts[1:]
    return after[0] if after else None
