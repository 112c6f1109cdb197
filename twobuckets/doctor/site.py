"""The pipeline under examination: its facts, and the ages from which they are findings."""

from __future__ import annotations

import time
from dataclasses import dataclass, field
from datetime import timedelta
from math import inf
from typing import TYPE_CHECKING, Final

from twobuckets.pipeline import retries
from twobuckets.pipeline.facts import Facts
from twobuckets.pipeline.lookups import CouldNotLook

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence
    from datetime import datetime

    from twobuckets.aws.clients import Aws
    from twobuckets.pipeline.buckets import BucketFacts
    from twobuckets.pipeline.function import FunctionFacts
    from twobuckets.pipeline.queues import QueueFacts
    from twobuckets.pipeline.retries import Retries
    from twobuckets.pipeline.stack import StackFacts
    from twobuckets.pipeline.topics import TopicFacts
    from twobuckets.s3.engine import Sender
    from twobuckets.settings import Pipeline, Settings

ORPHANED_AFTER: Final = timedelta(days=1)
# What one request gets out of S3 (S3 user guide, "Performance design patterns": "one concurrent
# request for each 85-90 MB/s of desired network throughput").
READ_BYTES_A_SECOND: Final = 90_000_000


def _no_page(_outputs: Mapping[str, str]) -> Sequence[str]:
    return ()


@dataclass(slots=True)
class Site:
    """A pipeline and the instant of the examination.

    `connect` opens what lists buckets. `older_than` is the age from which a staged object counts
    as stuck, None for what follows from the function; `uploads_older_than` the age of an orphaned
    upload. `program` and `aws_cli` begin the commands of remedies, with the flags that lead to
    this pipeline. `sleep` waits between tries. `page_origins` tells from the stack's outputs where
    browsers find its upload page.
    Once `is_stopped`, nobody waits for findings any more: listings end.
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
    page_origins: Callable[[Mapping[str, str]], Sequence[str]] = _no_page
    is_stopped: bool = field(default=False, init=False)
    facts: Facts = field(init=False)

    def __post_init__(self) -> None:
        runs_rules = not self.settings.is_local
        self.facts = Facts(self.aws, self.pipeline, self.now, runs_rules=runs_rules)

    @property
    def buckets(self) -> BucketFacts:
        """What S3 says of the buckets' settings."""
        return self.facts.buckets

    @property
    def function(self) -> FunctionFacts:
        """What AWS says of the function and its log."""
        return self.facts.function

    @property
    def queues(self) -> QueueFacts:
        """What SQS says of queues."""
        return self.facts.queues

    @property
    def topics(self) -> TopicFacts:
        """What SNS and EventBridge say of the ways on from S3."""
        return self.facts.topics

    @property
    def stack(self) -> StackFacts:
        """What CloudFormation says of the stack."""
        return self.facts.stack

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
    def owns_staging(self) -> bool:
        """Tell whether the stack made the staging bucket for nothing but its own processor."""
        try:
            return self.is_deployed_by_us and self.staging not in self.stack.existing_buckets()
        except CouldNotLook:
            return False

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
    def retries(self) -> Retries:
        """How the event of a staged object is retried, as far as that can be read."""
        try:
            return retries.retries_of_arrivals(self.facts)
        except CouldNotLook:
            return retries.DEFAULT

    @property
    def timeout(self) -> timedelta:
        """How long an invocation may take; Lambda's limit where that can't be read."""
        try:
            return self.function.timeout()
        except CouldNotLook:
            return retries.LONGEST_TIMEOUT

    @property
    def stuck_after(self) -> timedelta:
        """The age from which a staged object counts as stuck.

        By default the time that delivery, every try and the pauses between them can take.
        """
        return self.retries.stuck_after if self.older_than is None else self.older_than

    @property
    def may_take(self) -> timedelta:
        """The longest time from an object's arrival to the end of its last try."""
        return self.retries.may_take

    @property
    def readable_bytes(self) -> float:
        """What one request can read of an object within the function's time-out."""
        try:
            return self.function.timeout().total_seconds() * READ_BYTES_A_SECOND
        except CouldNotLook:
            return inf
