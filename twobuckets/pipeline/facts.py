"""All that AWS says of one pipeline, for whoever shows or judges it."""

from __future__ import annotations

import contextlib
from typing import TYPE_CHECKING, Any, Protocol

from twobuckets.pipeline.buckets import BucketFacts
from twobuckets.pipeline.function import FunctionFacts
from twobuckets.pipeline.jobs import JobFacts
from twobuckets.pipeline.lifecycle import UploadEnd, end_of_upload
from twobuckets.pipeline.lookups import CouldNotLook, Lookups
from twobuckets.pipeline.notifications import routes_to
from twobuckets.pipeline.policies import Permission, admits, permission_of_s3
from twobuckets.pipeline.queues import QueueFacts
from twobuckets.pipeline.stack import StackFacts
from twobuckets.pipeline.topics import TopicFacts

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from datetime import datetime

    from twobuckets.aws.clients import Aws
    from twobuckets.pipeline.notifications import Route
    from twobuckets.settings import Pipeline


class BegunUpload(Protocol):
    """What is told of an incomplete multipart upload; `abort_at` is what S3 says itself."""

    @property
    def key(self) -> str: ...
    @property
    def initiated_at(self) -> datetime: ...
    @property
    def abort_at(self) -> datetime | None: ...


class Facts:
    """A pipeline's buckets, function, queues, topics and stack, each fact read at most once.

    May be used from several threads at a time. What a fact raises, see `Lookups.read`.
    """

    def __init__(
        self, aws: Aws, pipeline: Pipeline, now: datetime, *, runs_rules: bool = True
    ) -> None:
        self.aws = aws
        self.pipeline = pipeline
        self.now = now
        self.runs_rules = runs_rules
        """Whether S3 does what lifecycle rules say: the embedded AWS only keeps them."""
        self.lookups = Lookups()
        self.buckets = BucketFacts(aws, self.lookups)
        self.function = FunctionFacts(aws, pipeline, now, self.lookups)
        self.queues = QueueFacts(aws, now, self.lookups)
        self.topics = TopicFacts(aws, self.lookups)
        self.jobs = JobFacts(aws, self.lookups)
        self.stack = StackFacts(aws, pipeline, self.lookups)

    @property
    def partition(self) -> str:
        """The first part of ARNs in the region: "aws", "aws-cn", "aws-us-gov" and so on."""
        return self.aws.s3.meta.partition

    def end_of_upload(self, bucket: str, upload: BegunUpload) -> UploadEnd:
        """Return how an incomplete multipart upload ends that nobody completes."""
        rules: Sequence[Mapping[str, Any]] | None = None
        if self.runs_rules and upload.abort_at is None:
            with contextlib.suppress(CouldNotLook):
                rules = self.buckets.lifecycle(bucket)
        return end_of_upload(
            upload.key,
            upload.initiated_at,
            told_at=upload.abort_at,
            rules=rules,
            runs_rules=self.runs_rules,
        )

    def account(self) -> str:
        """Return the account of the credentials in use."""
        answer = self.lookups.read(
            "the account", "sts:GetCallerIdentity", self.aws.sts.get_caller_identity
        )
        return str(answer["Account"])

    def routes_to_function(self) -> list[Route]:
        """Return staging's routes that end at the function, straight or through others."""
        return routes_to(
            self.function.named,
            self.buckets.notification(self.pipeline.staging),
            sources=self.function.event_source_arns,
            admits=lambda service: admits(self.function.policy(), service),
            subscribers=self.topics.subscribers,
        )

    def permission_of_s3(self) -> Permission:
        """Return what the function's policy says of S3's call for the staging bucket.

        The bucket may be in the account of whoever asks, and not in the function's.
        """
        bucket_arn = f"arn:{self.partition}:s3:::{self.pipeline.staging}"
        accounts = {self.function.home.account}
        policy = self.function.policy()
        found = permission_of_s3(policy, bucket_arn=bucket_arn, accounts=accounts)
        if found is Permission.ELSEWHERE:
            try:
                accounts.add(self.account())
            except CouldNotLook:
                return found
            found = permission_of_s3(policy, bucket_arn=bucket_arn, accounts=accounts)
        return found
