"""How often an event of the function is tried before it is given up, and how long that can take.

Rules: Lambda developer guide, "Handling errors for an asynchronous invocation" and "Using Lambda
with Amazon SQS"; SQS developer guide, "Amazon SQS dead-letter queues" and "visibility timeout".
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import timedelta
from typing import TYPE_CHECKING, Final

from twobuckets.pipeline.notifications import leads_to, routes_of
from twobuckets.pipeline.queues import redrive_of
from twobuckets.processor.contract import JOB_TRIES, orders

if TYPE_CHECKING:
    from collections.abc import Mapping

    from twobuckets.pipeline.facts import Facts

# Lambda waits a minute before the first retry of an asynchronous invocation and two before the
# second.
_PAUSES: Final = (timedelta(minutes=1), timedelta(minutes=2))
_LAMBDA_ATTEMPTS: Final = 1 + len(_PAUSES)
_QUEUE_VISIBILITY: Final = timedelta(seconds=30)
_QUEUE_RETENTION: Final = timedelta(days=4)
# A message that a queue brings back without end is called stuck after so many receipts.
_RECEIPTS: Final = 3
DELIVERY: Final = timedelta(minutes=2)
"""What S3 may need to tell Lambda, and Lambda to start (S3 user guide, NotificationHowTo:
"typically seconds, but can sometimes take a minute or longer")."""
LONGEST_TIMEOUT: Final = timedelta(minutes=30)
"""What Lambda allows a function at most (Lambda API reference, CreateFunction, Timeout), except on
Managed Instances."""


@dataclass(frozen=True, slots=True)
class Retries:
    """When an event that fails is tried again.

    `attempts` is the number of tries, the first included; None where a queue without a dead-letter
    queue brings a message back until its retention is over. `lasts` is the longest time from the
    first try to the end of the last, `pause` the longest from the end of a failed try to the next.
    `by` is the service that tries again, as a sentence names it.
    """

    attempts: int | None
    lasts: timedelta
    pause: timedelta
    by: str

    def is_last(self, attempt: int) -> bool:
        """Tell whether no other try follows this one, the first being 1."""
        return self.attempts is not None and attempt >= self.attempts

    def pause_after(self, attempt: int) -> timedelta:
        """Return the longest time from the end of this try, the first being 1, to the next."""
        is_lambda = self.by == "Lambda" and 0 < attempt <= len(_PAUSES)
        return _PAUSES[attempt - 1] if is_lambda else self.pause

    @property
    def may_take(self) -> timedelta:
        """The longest time from an object's arrival to the end of its last try."""
        return DELIVERY + self.lasts

    @property
    def stuck_after(self) -> timedelta:
        """The age from which a staged object counts as stuck, unless somebody says otherwise."""
        return DELIVERY + self.pause * _RECEIPTS if self.attempts is None else self.may_take


def asynchronous(timeout: timedelta, retries: int = _LAMBDA_ATTEMPTS - 1) -> Retries:
    """Return how Lambda retries events that it queues itself, as of S3, SNS and EventBridge."""
    pauses = _PAUSES[:retries]
    return Retries(
        attempts=1 + retries,
        lasts=timeout * (1 + retries) + sum(pauses, timedelta()),
        pause=max(pauses, default=timedelta()),
        by="Lambda",
    )


DEFAULT: Final = asynchronous(LONGEST_TIMEOUT)
"""What Lambda does unless somebody told it otherwise, of a function that is not known."""


def of_job(timeout: timedelta) -> Retries:
    """Return how AWS Batch tries a job again: at once, and as often as our definition says."""
    return Retries(JOB_TRIES, timeout * JOB_TRIES, timedelta(), by="AWS Batch")


def of_queue(attributes: Mapping[str, str]) -> Retries:
    """Return how a queue that feeds the function brings back a message that failed.

    A failed message is seen again when its visibility time-out is over, and is given up after
    `maxReceiveCount` receipts.
    """
    visible_after = timedelta(
        seconds=int(attributes.get("VisibilityTimeout", _QUEUE_VISIBILITY.total_seconds()))
    )
    redrive = redrive_of(attributes)
    attempts = int(redrive["maxReceiveCount"]) if "maxReceiveCount" in redrive else None
    kept = timedelta(
        seconds=int(attributes.get("MessageRetentionPeriod", _QUEUE_RETENTION.total_seconds()))
    )
    lasts = kept if attempts is None else min(kept, visible_after * attempts)
    return Retries(attempts, lasts, visible_after, by="SQS")


def retries_of_wakes(facts: Facts) -> Retries:
    """Return how an asynchronous invocation of the function is retried. Raises CouldNotLook.

    A processor that puts files into order only sends them to its queue then.
    """
    config = facts.function.invoke_config() or {}
    wakes = asynchronous(
        facts.function.timeout(), config.get("MaximumRetryAttempts", _LAMBDA_ATTEMPTS - 1)
    )
    url = facts.function.queue_url
    if url is not None and orders(url) and (attributes := facts.queues.attributes(url)):
        return most_patient(wakes, of_queue(attributes))
    return wakes


def retries_of_arrivals(facts: Facts) -> Retries:
    """Return how the event of a new staged object is retried: of several ways the most patient.

    With a queue in front, its settings rule and not the function's asynchronous ones.
    Raises CouldNotLook.
    """
    queues = [
        found
        for arn in facts.function.event_source_arns()
        if ":sqs:" in arn and (found := facts.queues.attributes_at(arn)) is not None
    ]
    if not queues:
        return retries_of_wakes(facts)
    ways = [of_queue(attributes) for attributes in queues]
    routes = routes_of(facts.buckets.notification(facts.pipeline.staging))
    if any(leads_to(route.target_arn, facts.function.named) for route in routes):
        ways.append(retries_of_wakes(facts))
    return most_patient(*ways)


def most_patient(*ways: Retries) -> Retries:
    """Return of several ways to try again the one that tries most often, then longest."""
    return max(ways, key=lambda way: (way.attempts is None, way.attempts or 0, way.lasts))
