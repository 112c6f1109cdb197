"""What SQS and CloudWatch say of the queues that feed the function or take its failures."""

from __future__ import annotations

import json
from datetime import timedelta
from typing import TYPE_CHECKING, Any, Final, NamedTuple

if TYPE_CHECKING:
    from collections.abc import Mapping
    from datetime import datetime

    from twobuckets.aws.clients import Aws
    from twobuckets.pipeline.lookups import Lookups

_MISSING: Final = ("AWS.SimpleQueueService.NonExistentQueue", "QueueDoesNotExist")


class Depth(NamedTuple):
    """How many messages a queue holds, as SQS counts them, which is approximately.

    `waiting` are visible, `taken` are with somebody, `delayed` are not visible yet.
    """

    waiting: int
    taken: int
    delayed: int

    @property
    def total(self) -> int:
        """All of them."""
        return sum(self)


def depth_of(attributes: Mapping[str, str]) -> Depth:
    """Return how many messages a queue with these attributes holds."""
    name = "ApproximateNumberOfMessages"
    kinds = (name, f"{name}NotVisible", f"{name}Delayed")
    return Depth(*(int(attributes.get(kind, 0)) for kind in kinds))


def redrive_of(attributes: Mapping[str, str]) -> dict[str, Any]:
    """Return a queue's redrive policy; empty without one."""
    redrive: dict[str, Any] = json.loads(attributes.get("RedrivePolicy") or "{}")
    return redrive


def dead_letter_queue_of(attributes: Mapping[str, str]) -> str | None:
    """Return the ARN of the queue that gets what this one gives up on."""
    return redrive_of(attributes).get("deadLetterTargetArn")


class QueueFacts:
    """Queues by their URL, ARN or name. Raises CouldNotLook."""

    def __init__(self, aws: Aws, now: datetime, lookups: Lookups) -> None:
        self._aws = aws
        self._now = now
        self._lookups = lookups

    def attributes(self, url: str) -> dict[str, str] | None:
        """Return a queue's attributes; None when there is no such queue."""

        def call() -> Any:
            answer = self._aws.sqs.get_queue_attributes(QueueUrl=url, AttributeNames=["All"])
            return answer.get("Attributes", {})

        found: dict[str, str] | None = self._lookups.read(
            f"the queue {url}", "sqs:GetQueueAttributes", call, absent=_MISSING
        )
        return found

    def attributes_at(self, arn: str) -> dict[str, str] | None:
        """Return the attributes of the queue with an ARN; None when there is no such queue."""
        url = self.url_at(arn)
        return None if url is None else self.attributes(url)

    def url_at(self, arn: str) -> str | None:
        """Return the URL of the queue with an ARN; None when there is no such queue."""
        _, _, _, _, account, name = arn.split(":", 5)

        def call() -> Any:
            return self._aws.sqs.get_queue_url(QueueName=name, QueueOwnerAWSAccountId=account)

        found = self._lookups.read(f"the queue {name}", "sqs:GetQueueUrl", call, absent=_MISSING)
        return None if found is None else str(found["QueueUrl"])

    def oldest_message(self, queue_name: str) -> timedelta | None:
        """Return the age of the oldest message as CloudWatch last measured it."""

        def call() -> Any:
            return self._aws.cloudwatch.get_metric_statistics(
                Namespace="AWS/SQS",
                MetricName="ApproximateAgeOfOldestMessage",
                Dimensions=[{"Name": "QueueName", "Value": queue_name}],
                StartTime=self._now - timedelta(minutes=15),
                EndTime=self._now,
                Period=60,
                Statistics=["Maximum"],
            )

        what = f"the age of the oldest message in {queue_name}"
        answer = self._lookups.read(what, "cloudwatch:GetMetricStatistics", call)
        points = sorted(answer.get("Datapoints", []), key=lambda point: point["Timestamp"])
        return timedelta(seconds=points[-1]["Maximum"]) if points else None
