"""The queues between staging and the processor: what waits there, and settings that hurt order.

Rules: Lambda developer guide, "Using Lambda with Amazon SQS"; SQS developer guide, "Amazon SQS
visibility timeout", "Using dead-letter queues in Amazon SQS"; S3 user guide, "Granting permissions
to publish event notification messages to a destination".
"""

from __future__ import annotations

import json
from datetime import timedelta
from typing import TYPE_CHECKING, Any, Final, NamedTuple

from twobuckets.doctor.findings import Check, Finding, Severity, finder
from twobuckets.pipeline.notifications import leads_to, routes_of
from twobuckets.pipeline.policies import Permission, permission_of_s3, statements_of
from twobuckets.pipeline.queues import depth_of, redrive_of
from twobuckets.processor.contract import orders
from twobuckets.text import shell_word
from twobuckets.units import counted, format_duration

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from twobuckets.doctor.site import Site

_BACKLOG_AFTER: Final = timedelta(minutes=15)
_TIME_OUTS: Final = 6
"""Of the function, for which a message is to be hidden at least."""
_TRIES: Final = 3
_MOST_AT_ONCE: Final = 1_000
"""Lambda API reference, ScalingConfig."""
_SEND: Final = "sqs:SendMessage"


class _Fed(NamedTuple):
    """An event source mapping from a queue to the function, and that queue."""

    arn: str
    mapping: Mapping[str, Any]
    attributes: Mapping[str, str]

    @property
    def name(self) -> str:
        return self.arn.rpartition(":")[2]

    @property
    def limit(self) -> int | None:
        limit: int | None = (self.mapping.get("ScalingConfig") or {}).get("MaximumConcurrency")
        return limit


def _fed(site: Site) -> Iterator[_Fed]:
    for mapping in site.function.event_sources():
        arn = str(mapping.get("EventSourceArn"))
        if ":sqs:" in arn and (attributes := site.queues.attributes_at(arn)) is not None:
            yield _Fed(arn, mapping, attributes)


def _set_queue(site: Site, arn: str, **attributes: str) -> str:
    url = site.queues.url_at(arn)
    return (
        f"{site.aws_cli} sqs set-queue-attributes --queue-url {shell_word(str(url))} "
        f"--attributes {shell_word(json.dumps(attributes))}"
    )


def _set_mapping(site: Site, fed: _Fed, *words: str) -> str:
    uuid = shell_word(fed.mapping["UUID"])
    return " ".join([f"{site.aws_cli} lambda update-event-source-mapping --uuid {uuid}", *words])


def _reserve(site: Site, count: int) -> str:
    return (
        f"{site.aws_cli} lambda put-function-concurrency --function-name "
        f"{shell_word(site.function.name)} --reserved-concurrent-executions {count}"
    )


@finder("queues", Check("queue-backlog", "Files wait in a queue for longer than they should."))
def find_backlog(site: Site) -> Iterator[Finding]:
    """Yield a finding for each queue whose oldest message has waited for long."""
    after = site.older_than if site.older_than is not None else _BACKLOG_AFTER
    for fed in _fed(site):
        depth = depth_of(fed.attributes)
        oldest = site.queues.oldest_message(fed.name) if depth.waiting else None
        if oldest is None or oldest < after:
            continue
        reserved = site.function.reserved_concurrency()
        why, remedy = "", None
        if fed.mapping.get("State") == "Disabled":
            why = " Its event source mapping is disabled."
            remedy = _set_mapping(site, fed, "--enabled")
        elif fed.limit is not None:
            why = f" It may cause {fed.limit:,} invocations at once."
            more = min(2 * fed.limit, _MOST_AT_ONCE)
            if more > fed.limit:
                most = f"MaximumConcurrency={more}"
                remedy = _set_mapping(site, fed, "--scaling-config", most)
        elif reserved:
            why = f" {reserved:,} invocations may run at once."
            remedy = _reserve(site, 2 * reserved)
        yield Finding(
            check="queue-backlog",
            severity=Severity.NOTICE,
            subject=fed.name,
            detail=f"It holds {counted(depth.waiting, 'message')} that nobody has taken, and "
            f"{depth.taken:,} that are being processed or come back later; the oldest is "
            f"{format_duration(oldest)} old.{why}",
            remedy=remedy,
            count=depth.waiting,
            oldest_at=site.now - oldest,
        )


@finder(
    "queues",
    Check("queue-visibility", "A queue shows a message again while it is still processed."),
)
def find_short_visibility(site: Site) -> Iterator[Finding]:
    """Yield a finding for each queue that hides a message for less than the time-out."""
    timeout = site.function.timeout()
    for fed in _fed(site):
        hidden = timedelta(seconds=int(fed.attributes["VisibilityTimeout"]))
        if hidden >= timeout:
            continue
        seconds = f"{_TIME_OUTS * timeout.total_seconds():.0f}"
        yield Finding(
            check="queue-visibility",
            severity=Severity.PROBLEM,
            subject=fed.name,
            detail=f"It hides a message for {format_duration(hidden)}, and the function may take "
            f"{format_duration(timeout)}: a file that takes longer is processed twice at once.",
            remedy=_set_queue(site, fed.arn, VisibilityTimeout=seconds),
        )


@finder(
    "queues",
    Check("queue-one-try", "A queue gives a file up that fails once, or that Lambda throttles."),
)
def find_single_tries(site: Site) -> Iterator[Finding]:
    """Yield a finding for each queue whose messages are received once."""
    for fed in _fed(site):
        redrive = redrive_of(fed.attributes)
        if int(redrive.get("maxReceiveCount", 0)) != 1:
            continue
        policy = json.dumps(redrive | {"maxReceiveCount": _TRIES})
        yield Finding(
            check="queue-one-try",
            severity=Severity.NOTICE,
            subject=fed.name,
            detail="Its maxReceiveCount is 1: one bad second, or a throttle, and the message goes "
            "to the dead-letter queue while its file stays in staging.",
            remedy=_set_queue(site, fed.arn, RedrivePolicy=policy),
        )


@finder(
    "queues",
    Check("queue-batch", "A FIFO queue holds several keys up for the slowest of them."),
)
def find_fifo_batches(site: Site) -> Iterator[Finding]:
    """Yield a finding for each FIFO queue whose batches hold more than one message."""
    for fed in _fed(site):
        size = int(fed.mapping.get("BatchSize") or 1)
        if orders(fed.name) and size > 1:
            yield Finding(
                check="queue-batch",
                severity=Severity.NOTICE,
                subject=fed.name,
                detail=f"Batches of up to {size:,} messages come from several groups, and none of "
                "these goes on before the whole batch is done.",
                remedy=_set_mapping(site, fed, "--batch-size 1"),
            )


@finder(
    "queues", Check("queue-bypassed", "Files reach the processor past the queue that orders them.")
)
def find_bypasses(site: Site) -> Iterator[Finding]:
    """Yield a finding for each other way to a function that a FIFO queue feeds.

    A processor of ours that knows its queue sends there what comes by another way.
    """
    url = site.function.queue_url
    fed = list(_fed(site))
    ordered = [one for one in fed if orders(one.name)]
    if not ordered or (url is not None and orders(url)):
        return
    routes = routes_of(site.buckets.notification(site.staging))
    if any(leads_to(route.target_arn, site.function.named) for route in routes):
        yield Finding(
            check="queue-bypassed",
            severity=Severity.PROBLEM,
            subject=f"s3://{site.staging}",
            detail=f"{ordered[0].name} gives {site.function.name} the files of a key in order, and "
            "S3 invokes it for them as well: two of a key can be processed at once.",
            remedy=f"{site.aws_cli} s3api get-bucket-notification-configuration "
            f"--bucket {shell_word(site.staging)}",
        )
    for other in fed:
        if not orders(other.name) and other.mapping.get("State") != "Disabled":
            yield Finding(
                check="queue-bypassed",
                severity=Severity.PROBLEM,
                subject=other.name,
                detail=f"{ordered[0].name} gives {site.function.name} the files of a key in order, "
                f"and {other.name} feeds it as well: two of a key can be processed at once.",
                remedy=_set_mapping(site, other, "--no-enabled"),
            )


@finder(
    "queues",
    Check("queue-starves", "What is processed leaves the processor no room to put into order."),
)
def find_starved_routing(site: Site) -> Iterator[Finding]:
    """Yield a finding when the ordering queue can take all of the reserved concurrency."""
    url = site.function.queue_url
    reserved = site.function.reserved_concurrency()
    if url is None or not orders(url) or not reserved:
        return
    for fed in _fed(site):
        if fed.name != url.rpartition("/")[2] or (fed.limit is not None and fed.limit < reserved):
            continue
        if fed.limit is None and reserved > 2:
            most = f"MaximumConcurrency={reserved - 1}"
            remedy = _set_mapping(site, fed, "--scaling-config", most)
        else:
            remedy = _reserve(site, (fed.limit or 2) + 1)
        yield Finding(
            check="queue-starves",
            severity=Severity.NOTICE,
            subject=site.function.name,
            detail=f"{reserved:,} invocations are reserved, and {fed.name} may take them all: "
            "while they process, none is left that puts new files into order, and Lambda keeps "
            "those for six hours only.",
            remedy=remedy,
        )


@finder("queues", Check("queue-policy", "A queue does not let S3 send to it."))
def find_closed_queues(site: Site) -> Iterator[Finding]:
    """Yield a finding for each queue in staging's notification that S3 may not send to."""
    bucket_arn = f"arn:{site.facts.partition}:s3:::{site.staging}"
    for route in routes_of(site.buckets.notification(site.staging)):
        arn = route.target_arn
        if ":sqs:" not in arn or (attributes := site.queues.attributes_at(arn)) is None:
            continue
        account = arn.split(":")[4]
        statements = statements_of(attributes.get("Policy"))
        permission = permission_of_s3(
            statements, bucket_arn=bucket_arn, accounts={account}, action=_SEND
        )
        if permission is Permission.ALLOWED:
            continue
        needed = {
            "Effect": "Allow",
            "Principal": {"Service": "s3.amazonaws.com"},
            "Action": _SEND,
            "Resource": arn,
            "Condition": {
                "StringEquals": {"aws:SourceAccount": account},
                "ArnEquals": {"aws:SourceArn": bucket_arn},
            },
        }
        # Whatever is there stays: another bucket may send by a statement like it.
        policy = json.dumps({"Version": "2012-10-17", "Statement": [*statements, needed]})
        is_denied = permission is Permission.DENIED
        why = "denies S3 the call" if is_denied else "does not let S3 send"
        yield Finding(
            check="queue-policy",
            severity=Severity.PROBLEM,
            subject=arn.rpartition(":")[2],
            detail=f"Staging notifies it, and its policy {why} for s3://{site.staging}. S3 says "
            "nothing of an event that it could not deliver.",
            # A refusal is somebody's will.
            remedy=None if is_denied else _set_queue(site, arn, Policy=policy),
        )


FINDERS: Final = (
    find_closed_queues,
    find_short_visibility,
    find_single_tries,
    find_fifo_batches,
    find_bypasses,
    find_starved_routing,
    find_backlog,
)
