"""The pipeline under examination: its facts, and the ages from which they are findings."""

from __future__ import annotations

import json
import time
from dataclasses import dataclass, field
from datetime import timedelta
from math import inf
from typing import TYPE_CHECKING, Any, Final

from twobuckets.pipeline.buckets import BucketFacts
from twobuckets.pipeline.function import FunctionFacts
from twobuckets.pipeline.lookups import CouldNotLook, Lookups
from twobuckets.pipeline.queues import QueueFacts
from twobuckets.pipeline.stack import StackFacts

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping
    from datetime import datetime

    from twobuckets.aws.clients import Aws
    from twobuckets.doctor.stuck import Group
    from twobuckets.doctor.summary import Staged
    from twobuckets.s3.engine import Sender
    from twobuckets.settings import Pipeline, Settings

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


@dataclass(slots=True)
class Site:
    """A pipeline, the instant of the examination, and what was found of it so far.

    `connect` opens what lists buckets. `older_than` is the age from which a staged object counts
    as stuck, None for what follows from the function; `uploads_older_than` the age of an orphaned
    upload. `program` and `aws_cli` begin the commands of remedies, with the flags that lead to
    this pipeline. `sleep` waits between tries.
    `staged` is what the listing of staging added up to, None before it, and `stuck` what of it is
    stuck, by cause. Once `is_stopped`, nobody waits for findings any more: listings end.
    `buckets`, `function`, `queues` and `stack` tell what AWS says, to several threads at a time.
    """

    aws: Aws
    settings: Settings
    pipeline: Pipeline
    now: datetime
    connect: Callable[[], Sender]
    older_than: timedelta | None = None
    uploads_older_than: timedelta = ORPHANED_AFTER
    program: str = "twobuckets"
    aws_cli: str = "aws"
    sleep: Callable[[float], None] = time.sleep
    staged: Staged | None = field(default=None, init=False)
    stuck: list[Group] = field(default_factory=list, init=False)
    is_stopped: bool = field(default=False, init=False)
    buckets: BucketFacts = field(init=False)
    function: FunctionFacts = field(init=False)
    queues: QueueFacts = field(init=False)
    stack: StackFacts = field(init=False)
    _lookups: Lookups = field(default_factory=Lookups, init=False)

    def __post_init__(self) -> None:
        aws, pipeline, now, lookups = self.aws, self.pipeline, self.now, self._lookups
        self.buckets = BucketFacts(aws, lookups)
        self.function = FunctionFacts(aws, pipeline, now, lookups)
        self.queues = QueueFacts(aws, now, lookups)
        self.stack = StackFacts(aws, pipeline, lookups)

    @property
    def staging(self) -> str:
        """The staging bucket's name."""
        return self.pipeline.staging

    @property
    def archive(self) -> str:
        """The archive bucket's name."""
        return self.pipeline.archive

    @property
    def is_deployed_by_us(self) -> bool:
        """Tell whether a stack made the pipeline and its processor is made with ours."""
        try:
            return self.pipeline.stack is not None and self.function.is_ours
        except CouldNotLook:
            return False

    @property
    def partition(self) -> str:
        """The first part of ARNs in the region: "aws", "aws-cn", "aws-us-gov" and so on."""
        return self.aws.s3.meta.partition

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
            timeout = timedelta(seconds=self.function.configuration()["Timeout"])
            retries = (self.function.invoke_config() or {}).get("MaximumRetryAttempts", 2)
            sources = self.function.event_sources()
        except CouldNotLook:
            return timedelta(minutes=15) * 3 + sum(RETRY_PAUSES, DELIVERY)
        tries: timedelta = timeout * (1 + retries) + sum(RETRY_PAUSES[:retries], timedelta())
        waits = [self._redrive_time(source) for source in sources]
        return DELIVERY + max([tries, *waits])

    @property
    def readable_bytes(self) -> float:
        """What one request can read of an object within the function's time-out."""
        try:
            timeout: int = self.function.configuration()["Timeout"]
        except CouldNotLook:
            return inf
        return timeout * READ_BYTES_A_SECOND

    def _redrive_time(self, source: Mapping[str, Any]) -> timedelta:
        """The time in which a queue that feeds the function gives a message up."""
        arn = source.get("EventSourceArn", "")
        if ":sqs:" not in arn:
            return timedelta()
        try:
            queue = self.queues.attributes_at(arn)
        except CouldNotLook:
            return timedelta()
        if queue is None:
            return timedelta()
        tries = json.loads(queue.get("RedrivePolicy", "{}")).get("maxReceiveCount", 1)
        return timedelta(seconds=int(queue.get("VisibilityTimeout", 30))) * int(tries)

    def account(self) -> str:
        """Return the account of the credentials in use."""
        answer = self._lookups.read(
            "the account", "sts:GetCallerIdentity", lambda: self.aws.sts.get_caller_identity()
        )
        return str(answer["Account"])
