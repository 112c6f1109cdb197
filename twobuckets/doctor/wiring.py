"""From staging to the processor: notification, permission, event sources, and what they leave out.

Rules: S3 user guide, "Amazon S3 Event Notifications"; Lambda developer guide, "Process Amazon S3
event notifications with Lambda".
"""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Final

from twobuckets.doctor.findings import Check, Finding, Severity, finder
from twobuckets.pipeline.lookups import Gone
from twobuckets.pipeline.notifications import (
    EVENTBRIDGE,
    TARGETS,
    leads_to,
    missing_events,
    routes_of,
)
from twobuckets.pipeline.policies import Permission
from twobuckets.text import shell_word

if TYPE_CHECKING:
    from collections.abc import Iterator

    from twobuckets.doctor.site import Site


def _url(bucket: str) -> str:
    return f"s3://{bucket}"


@finder(
    "wiring",
    Check("notification-missing", "Staging sends no notification when a file arrives."),
    Check("notification-target", "S3 notifies others of new files, but not the processor."),
)
def find_missing_notification(site: Site) -> Iterator[Finding]:
    """Yield a finding when no route leads from staging to the processor."""
    if site.facts.routes_to_function():
        return
    routes = routes_of(site.buckets.notification(site.staging))
    if not routes:
        yield Finding(
            check="notification-missing",
            severity=Severity.PROBLEM,
            subject=_url(site.staging),
            detail="The bucket has no notification for new objects, so the processor "
            f"{site.function.name} is never told of a file.",
            remedy=site.fix_command("notification-missing"),
        )
        return
    others = ", ".join(sorted({route.target_arn for route in routes}))
    yield Finding(
        check="notification-target",
        severity=Severity.PROBLEM,
        subject=_url(site.staging),
        detail=f"The bucket notifies {others}, but not {site.function.arn}, nor a queue that "
        "feeds it.",
        # S3 refuses two routes for overlapping keys and events, so a person has to decide.
        remedy=f"{site.aws_cli} s3api get-bucket-notification-configuration "
        f"--bucket {shell_word(site.staging)}",
    )


@finder(
    "wiring",
    Check(
        "notification-events", "Files that arrive in some ways (Put, Post, Copy, multipart) "
        "cause no event.",
    ),
)  # fmt: skip
def find_missing_events(site: Site) -> Iterator[Finding]:
    """Yield a finding when the routes to the function leave kinds of arrival out."""
    routes = site.facts.routes_to_function()
    missing = missing_events(routes)
    if not routes or not missing:
        return
    names = ", ".join(event.rpartition(":")[2] for event in missing)
    yield Finding(
        check="notification-events",
        severity=Severity.PROBLEM,
        subject=_url(site.staging),
        detail=f"The notification leaves out {names}. Large files arrive by "
        "CompleteMultipartUpload, reprocessed ones by Copy; a route for s3:ObjectCreated:* "
        "covers all.",
        remedy=site.fix_command("notification-events"),
    )


@finder(
    "wiring",
    Check("permission-missing", "The function does not let S3 call it for this bucket."),
    Check("permission-denied", "The function's policy denies S3 the call for this bucket."),
)
def find_missing_permission(site: Site) -> Iterator[Finding]:
    """Yield a finding when the function's policy does not let S3 call it for staging."""
    direct = [route for route in site.facts.routes_to_function() if route.is_direct]
    if not direct and site.facts.routes_to_function():
        return
    permission = site.facts.permission_of_s3()
    if permission is Permission.ALLOWED:
        return
    denied = permission is Permission.DENIED
    why = {
        Permission.DENIED: "its policy denies S3 the call",
        Permission.ELSEWHERE: "its policy lets S3 call it for another bucket or account only",
        Permission.MISSING: "its policy does not let S3 call it",
    }[permission]
    yield Finding(
        check="permission-denied" if denied else "permission-missing",
        severity=Severity.PROBLEM,
        subject=site.function.name,
        detail=f"S3 can't wake the function for files in {_url(site.staging)}: {why}. S3 says "
        "nothing of an event that it could not deliver.",
        # A refusal is somebody's will.
        remedy=f"{site.aws_cli} lambda get-policy --function-name {shell_word(site.function.name)}"
        if denied
        else site.fix_command("permission-missing"),
    )


@finder(
    "wiring",
    Check("event-source-disabled", "The queue that brings S3's events to the function is off."),
)
def find_disabled_event_sources(site: Site) -> Iterator[Finding]:
    """Yield a finding for each event source mapping that is not enabled."""
    for source in site.function.event_sources():
        if source.get("State") in ("Enabled", "Enabling", "Creating", "Updating"):
            continue
        yield Finding(
            check="event-source-disabled",
            severity=Severity.PROBLEM,
            subject=str(source.get("EventSourceArn")),
            detail=f"The event source mapping to {site.function.name} is {source.get('State')}: "
            f"{source.get('StateTransitionReason', 'no reason given')}",
            remedy=f"{site.aws_cli} lambda update-event-source-mapping "
            f"--uuid {shell_word(source['UUID'])} --enabled",
        )


@finder(
    "wiring",
    Check("batch-failures-ignored", "A queue forgets the files that failed in a batch."),
)
def find_ignored_failures(site: Site) -> Iterator[Finding]:
    """Yield a finding for each queue of our processor that does not read which messages failed."""
    if not site.function.is_ours:
        return
    for source in site.function.event_sources():
        arn = str(source.get("EventSourceArn"))
        if ":sqs:" not in arn or "ReportBatchItemFailures" in source.get(
            "FunctionResponseTypes", []
        ):
            continue
        yield Finding(
            check="batch-failures-ignored",
            severity=Severity.PROBLEM,
            subject=arn,
            detail=f"{site.function.name} answers which messages failed, and the event source "
            "mapping does not ask: it deletes them with the others, so their files stay in "
            "staging and nothing tries them again.",
            remedy=f"{site.aws_cli} lambda update-event-source-mapping "
            f"--uuid {shell_word(source['UUID'])} "
            "--function-response-types ReportBatchItemFailures",
        )


@finder(
    "wiring",
    Check(
        "event-rewritten", "An EventBridge rule hands the processor something other than events."
    ),
)
def find_rewritten_events(site: Site) -> Iterator[Finding]:
    """Yield a finding for each rule whose input our processor could not read."""
    routes = site.facts.routes_to_function()
    if not site.function.is_ours or all(route.target_arn != EVENTBRIDGE for route in routes):
        return
    queues = (arn for arn in site.function.event_source_arns() if ":sqs:" in arn)
    for arn in (site.function.arn, *queues):
        for target in site.topics.rule_targets(arn):
            if target.rewrites is None:
                continue
            yield Finding(
                check="event-rewritten",
                severity=Severity.PROBLEM,
                subject=target.rule,
                detail=f"The rule has an {target.rewrites} for {arn}, and the processor reads "
                "S3's events as EventBridge has them. Take it out of the target.",
                remedy=f"{site.aws_cli} events list-targets-by-rule "
                f"--rule {shell_word(target.rule)}",
            )


@finder("wiring", Check("loop", "What the processor writes wakes it again."))
def find_loop(site: Site) -> Iterator[Finding]:
    """Yield a finding when archiving a file wakes the processor."""
    if site.staging == site.archive:
        yield Finding(
            check="loop",
            severity=Severity.PROBLEM,
            subject=_url(site.staging),
            detail="Staging and archive are one bucket, so every archived file wakes the "
            "processor again.",
        )
        return
    try:
        notification = site.buckets.notification(site.archive)
    except Gone:
        return
    if not any(
        leads_to(route.target_arn, site.function.named) for route in routes_of(notification)
    ):
        return
    kind, target = TARGETS[0]
    kept = [c for c in notification.get(kind, []) if not leads_to(c[target], site.function.named)]
    yield Finding(
        check="loop",
        severity=Severity.PROBLEM,
        subject=_url(site.archive),
        detail=f"The archive bucket notifies the processor {site.function.name}, so every "
        "archived file wakes it again. Lambda may stop the function for recursion.",
        remedy=f"{site.aws_cli} s3api put-bucket-notification-configuration "
        f"--bucket {shell_word(site.archive)} --notification-configuration "
        + shell_word(json.dumps(notification | {kind: kept})),
    )


FINDERS: Final = (
    find_missing_notification,
    find_missing_events,
    find_missing_permission,
    find_disabled_event_sources,
    find_ignored_failures,
    find_rewritten_events,
    find_loop,
)
