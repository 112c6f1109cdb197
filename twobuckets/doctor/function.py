"""The processor: its state, settings and role, and where its failures go.

Rules: Lambda developer guide, "Function states", "Runtimes", "Handling errors of asynchronous
invocation".
"""

from __future__ import annotations

import json
import re
from datetime import date, timedelta
from typing import TYPE_CHECKING, Any, Final

from twobuckets.doctor.findings import Check, Finding, Severity, finder
from twobuckets.logs.use import describe_use
from twobuckets.pipeline.function import LONGEST
from twobuckets.pipeline.lookups import CouldNotLook, Gone
from twobuckets.pipeline.redriving import count_dead_letters, find_dead_letters
from twobuckets.pipeline.status import PartUnread
from twobuckets.processor import contract
from twobuckets.text import shell_word
from twobuckets.units import format_duration

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from twobuckets.doctor.site import Site
    from twobuckets.pipeline.redriving import DeadLetters

# Lambda developer guide, "Lambda runtimes", deprecation dates; they can only be late here.
DEPRECATED_ON: Final = {
    "dotnet6": date(2024, 12, 20),
    "dotnet8": date(2026, 11, 10),
    "dotnetcore3.1": date(2023, 4, 3),
    "go1.x": date(2024, 1, 8),
    "java8": date(2024, 1, 8),
    "java11": date(2027, 6, 30),
    "java17": date(2027, 6, 30),
    "nodejs14.x": date(2023, 12, 4),
    "nodejs16.x": date(2024, 6, 12),
    "nodejs18.x": date(2025, 9, 1),
    "nodejs20.x": date(2026, 4, 30),
    "nodejs22.x": date(2027, 4, 30),
    "nodejs24.x": date(2028, 4, 30),
    "provided": date(2024, 1, 8),
    "provided.al2": date(2026, 7, 31),
    "python2.7": date(2021, 7, 15),
    "python3.6": date(2022, 7, 18),
    "python3.7": date(2023, 12, 4),
    "python3.8": date(2024, 10, 14),
    "python3.9": date(2025, 12, 15),
    "python3.10": date(2026, 10, 31),
    "python3.11": date(2027, 6, 30),
    "python3.12": date(2028, 10, 31),
    "python3.13": date(2029, 6, 30),
    "python3.14": date(2029, 6, 30),
    "ruby2.7": date(2023, 12, 7),
    "ruby3.2": date(2026, 3, 31),
    "ruby3.3": date(2027, 3, 31),
    "ruby3.4": date(2028, 3, 31),
}
# What any processor of the pattern needs, by the resource it needs it on.
_EVERY_PROCESSOR: Final = {
    "staging/*": ("s3:GetObject", "s3:DeleteObject"),
    "archive/*": ("s3:PutObject",),
    "log": ("logs:CreateLogStream", "logs:PutLogEvents"),
}
# What ours needs besides (see twobuckets.processor).
_OUR_PROCESSOR: Final = {
    "staging/*": (
        "s3:GetObject",
        "s3:GetObjectVersion",
        "s3:GetObjectTagging",
        "s3:GetObjectVersionTagging",
        "s3:GetObjectAnnotation",
        "s3:GetObjectVersionAnnotation",
        "s3:ListObjectAnnotations",
        "s3:ListObjectVersionAnnotations",
        "s3:DeleteObject",
        "s3:DeleteObjectVersion",
    ),
    "staging": ("s3:ListBucket", "s3:ListBucketVersions"),
    "archive/*": (
        "s3:PutObject",
        "s3:PutObjectTagging",
        "s3:PutObjectAnnotation",
        "s3:AbortMultipartUpload",
        "s3:GetObject",
        "s3:GetObjectVersion",
        "s3:GetObjectVersionTagging",
        "s3:GetObjectAnnotation",
        "s3:GetObjectVersionAnnotation",
        "s3:ListObjectAnnotations",
        "s3:ListObjectVersionAnnotations",
    ),
    "archive": ("s3:ListBucket", "s3:ListBucketVersions"),
    "log": ("logs:CreateLogStream", "logs:PutLogEvents"),
}
# What ours, and Lambda on its behalf, needs on the queue that wakes it.
_ITS_QUEUE: Final = (
    "sqs:ReceiveMessage",
    "sqs:DeleteMessage",
    "sqs:GetQueueAttributes",
    "sqs:ChangeMessageVisibility",
)
_ITS_ORDERING_QUEUE: Final = (*_ITS_QUEUE, "sqs:SendMessage")
_ITS_JOBS: Final = ("batch:SubmitJob",)
_FINDS_JOBS: Final = ("batch:ListJobs",)
"""On everything: IAM knows no resource for it."""
_CLOSE_TO_TIMEOUT: Final = 0.8
_CLOSE_TO_MEMORY: Final = 0.9
_LITTLE_MEMORY: Final = 0.25
_MUCH_MEMORY_MB: Final = 1024
"""Below that there is little to save."""


@finder("function", Check("function-missing", "The processor does not exist."))
def find_missing_function(site: Site) -> Iterator[Finding]:
    """Yield a finding when there is no such function."""
    try:
        site.function.configuration()
    except Gone:
        yield Finding(
            check="function-missing",
            severity=Severity.PROBLEM,
            subject=str(site.pipeline.function),
            detail=f"There is no function {site.pipeline.function} in this account and region, so "
            "nothing is processed.",
            remedy=f"{site.program} deploy" if site.pipeline.stack else None,
        )


@finder(
    "function",
    Check("function-state", "The function can't run, or its last update failed."),
)
def find_bad_state(site: Site) -> Iterator[Finding]:
    """Yield a finding when the function is not active or its last update failed."""
    function = site.function.configuration()
    state, update = function.get("State", "Active"), function.get("LastUpdateStatus", "Successful")
    severity = Severity.PROBLEM
    if state == "Inactive":
        # Idle for weeks; the next event makes it active again.
        return
    if state == "Pending":
        # A minute or so after it was made or changed; events wait meanwhile.
        severity, what, reason = Severity.INFO, "is being made ready", "Lambda says Pending"
    elif state != "Active":
        what, reason = f"is {state}", function.get("StateReason", "no reason given")
    elif update == "Failed":
        what = "kept its old code and settings because the last update failed"
        reason = function.get("LastUpdateStatusReason", "no reason given")
    else:
        return
    yield Finding(
        check="function-state",
        severity=severity,
        subject=site.function.name,
        detail=f"The function {what}: {reason}",
        remedy=f"{site.program} deploy"
        if site.pipeline.stack
        else f"{site.aws_cli} lambda get-function-configuration "
        f"--function-name {shell_word(site.function.name)}",
    )


@finder(
    "function", Check("concurrency-zero", "The function is switched off by a reservation of 0.")
)
def find_switched_off(site: Site) -> Iterator[Finding]:
    """Yield a finding when the function may never run."""
    site.function.configuration()
    if site.function.reserved_concurrency() == 0:
        yield Finding(
            check="concurrency-zero",
            severity=Severity.PROBLEM,
            subject=site.function.name,
            detail="The function's reserved concurrency is 0: every event is throttled, and given "
            "up after at most 6 hours.",
            remedy=f"{site.aws_cli} lambda delete-function-concurrency "
            f"--function-name {shell_word(site.function.name)}",
        )


@finder("function", Check("runtime-deprecated", "Lambda no longer patches the function's runtime."))
def find_deprecated_runtime(site: Site) -> Iterator[Finding]:
    """Yield a finding when the runtime's deprecation date has come."""
    runtime = str(site.function.configuration().get("Runtime", ""))
    deprecated_on = DEPRECATED_ON.get(runtime)
    if deprecated_on is None or deprecated_on > site.now.date():
        return
    newer = "python3.13" if runtime.startswith("python") else None
    yield Finding(
        check="runtime-deprecated",
        severity=Severity.NOTICE,
        subject=site.function.name,
        detail=f"The runtime {runtime} is deprecated since {deprecated_on}: no security patches, "
        "and one day no updates of the function.",
        remedy=f"{site.aws_cli} lambda update-function-configuration "
        f"--function-name {shell_word(site.function.name)} --runtime {newer}"
        if newer
        else None,
    )


@finder(
    "function",
    Check("environment-archive", "The function archives to a different bucket."),
)
def find_wrong_environment(site: Site) -> Iterator[Finding]:
    """Yield a finding when the environment names another archive, or ours names none."""
    variables = site.function.variables()
    names = archive_variables(variables, is_ours=site.function.is_ours)
    wrong = [name for name in names if variables.get(name) != site.archive]
    for name in wrong:
        value = variables.get(name)
        yield Finding(
            check="environment-archive",
            severity=Severity.PROBLEM,
            subject=site.function.name,
            detail=f"The function's variable {name} "
            + (f"is {value}" if value else "is not set")
            + f", but the archive bucket is {site.archive}.",
            remedy=site.fix_command("environment-archive"),
        )


def archive_variables(variables: Mapping[str, str], *, is_ours: bool) -> list[str]:
    """Return the names of the variables that tell the processor its archive bucket."""
    if is_ours:
        return [contract.ARCHIVE_BUCKET]
    return [name for name in variables if "ARCHIVE" in name.upper() and "BUCKET" in name.upper()]


@finder("function", Check("role-permission", "The processor's role lacks an action it needs."))
def find_missing_actions(site: Site) -> Iterator[Finding]:
    """Yield a finding for each resource on which IAM's simulation denies the role an action."""
    role_arn = site.function.configuration()["Role"]
    needs = dict(_OUR_PROCESSOR if site.function.is_ours else _EVERY_PROCESSOR)
    if site.function.is_ours and (url := site.function.queue_url):
        needs["queue"] = _ITS_ORDERING_QUEUE if contract.orders(url) else _ITS_QUEUE
    if site.function.job_queue:
        needs |= {"job queue": _ITS_JOBS, "jobs": _FINDS_JOBS}
    for place, actions in needs.items():
        resource = _resource(site, place)
        decisions = site.function.allowed(role_arn, actions, resource)
        denied = [action for action in actions if decisions.get(action, "allowed") != "allowed"]
        if denied:
            role = role_arn.rpartition("/")[2]
            # All that is needed there: the command replaces what it wrote of this name before.
            statement = {"Effect": "Allow", "Action": list(actions), "Resource": resource}
            policy = json.dumps({"Version": "2012-10-17", "Statement": [statement]})
            name = f"twobuckets-{place.replace('/*', '-objects').replace(' ', '-')}"
            yield Finding(
                check="role-permission",
                severity=Severity.PROBLEM,
                subject=role_arn,
                detail=f"The processor's role may not {', '.join(denied)} on {resource}: IAM "
                f"says {', '.join(sorted({decisions[action] for action in denied}))}.",
                remedy=f"{site.aws_cli} iam put-role-policy --role-name {shell_word(role)} "
                f"--policy-name {name} --policy-document {shell_word(policy)}",
            )


def _resource(site: Site, place: str) -> str:
    partition, region, account = site.function.home
    if place == "log":
        return f"arn:{partition}:logs:{region}:{account}:log-group:{site.function.log_group}:*"
    if place == "queue":
        owner, name = str(site.function.queue_url).split("/")[-2:]
        return f"arn:{partition}:sqs:{region}:{owner}:{name}"
    if place == "jobs":
        return "*"
    if place == "job queue":
        return f"arn:{partition}:batch:{region}:{account}:job-queue/{site.function.job_queue}"
    which, _, objects = place.partition("/")
    bucket = site.staging if which == "staging" else site.archive
    return f"arn:{partition}:s3:::{bucket}" + (f"/{objects}" if objects else "")


@finder(
    "function",
    Check("retries-off", "A file that fails once is never tried again."),
    Check("failures-vanish", "What the processor gives up on is recorded nowhere."),
    Check("failure-queue-missing", "The queue for failures does not exist."),
)
def find_lost_failures(site: Site) -> Iterator[Finding]:
    """Yield findings about what becomes of an event whose processing fails."""
    function = site.function.configuration()
    if any(":sqs:" in arn for arn in site.function.event_source_arns()):
        # The queue's own redrive policy rules there.
        return
    config = site.function.invoke_config() or {}
    if config.get("MaximumRetryAttempts") == 0:
        yield Finding(
            check="retries-off",
            severity=Severity.NOTICE,
            subject=site.function.name,
            detail="Lambda does not retry failed events of this function (MaximumRetryAttempts "
            "is 0): one bad second leaves a file stuck.",
            remedy=_put_invoke_config(site, config | {"MaximumRetryAttempts": 2}),
        )
    destination = config.get("DestinationConfig", {}).get("OnFailure", {}).get("Destination")
    destination = destination or function.get("DeadLetterConfig", {}).get("TargetArn")
    if destination is None:
        yield _failures_vanish(site, config)
    elif ":sqs:" in destination and site.queues.attributes_at(destination) is None:
        queue_name = destination.rpartition(":")[2]
        yield Finding(
            check="failure-queue-missing",
            severity=Severity.PROBLEM,
            subject=destination,
            detail="Failed events are to be sent to this queue, and it does not exist.",
            remedy=f"{site.aws_cli} sqs create-queue --queue-name {shell_word(queue_name)}",
        )


def _failures_vanish(site: Site, config: dict[str, Any]) -> Finding:
    url = site.pipeline.failure_queue_url
    queue = site.queues.attributes(url) if url else None
    destination = {"OnFailure": {"Destination": (queue or {}).get("QueueArn")}}
    return Finding(
        check="failures-vanish",
        severity=Severity.NOTICE,
        subject=site.function.name,
        detail="The function has no on-failure destination and no dead-letter queue: what Lambda "
        "gives up on leaves no trace but the log.",
        remedy=_put_invoke_config(site, config | {"DestinationConfig": destination})
        if queue
        else None,
    )


def _put_invoke_config(site: Site, config: dict[str, Any]) -> str:
    """Return the command that writes the whole configuration: what it leaves out is forgotten."""
    words = [f"{site.aws_cli} lambda put-function-event-invoke-config"]
    words.append(f"--function-name {shell_word(site.function.name)}")
    words.append(f"--qualifier {shell_word(site.function.qualifier or '$LATEST')}")
    for option in ("MaximumRetryAttempts", "MaximumEventAgeInSeconds", "DestinationConfig"):
        value = config.get(option)
        if value is None:
            continue
        name = re.sub("(?<!^)(?=[A-Z])", "-", option).lower()
        words.append(f"--{name} {shell_word(json.dumps(value))}")
    return " ".join(words)


@finder(
    "function",
    Check("failure-queue", "The failure queue holds events that the processor gave up on."),
    Check("failure-queue-missing", "The queue for failures does not exist."),
)
def find_queued_failures(site: Site) -> Iterator[Finding]:
    """Yield what waits in queues for failures; the files themselves are the business of `stuck`."""
    url = site.pipeline.failure_queue_url
    if url is not None and site.queues.attributes(url) is None:
        yield Finding(
            check="failure-queue-missing",
            severity=Severity.PROBLEM,
            subject=url,
            detail="The pipeline's failure queue does not exist.",
            remedy=f"{site.aws_cli} sqs create-queue "
            f"--queue-name {shell_word(url.rpartition('/')[2])}",
        )
        raise Gone(f"the queue {url}", "failure-queue-missing")
    named = [] if url is None else [count_dead_letters(site.facts, url)]
    yield from (_noted(site, letters) for letters in named if letters.waiting)
    for letters in find_dead_letters(site.facts):
        if letters.waiting and letters.queue_url != url:
            yield _noted(site, letters)


def _noted(site: Site, letters: DeadLetters) -> Finding:
    queue = site.queues.attributes(letters.queue_url) or {}
    oldest = site.queues.oldest_message(letters.queue)
    kept = timedelta(seconds=int(queue.get("MessageRetentionPeriod", 345600)))
    age = f"; the oldest is {format_duration(oldest)} old" if oldest else ""
    return Finding(
        check="failure-queue",
        severity=Severity.INFO,
        subject=letters.queue_url,
        detail=f"{letters.waiting:,} failed events are noted here{age}, each for "
        f"{format_duration(kept)}. They are notes: the files that are still to be processed are in "
        "staging. Once what was wrong is mended, they can be moved back.",
        remedy=f"{site.program} redrive",
        count=letters.waiting,
        oldest_at=site.now - oldest if oldest else None,
    )


@finder(
    "function",
    Check("log-group-missing", "The processor's log group does not exist."),
    Check(
        "log-retention", "The processor's log has no retention: it is stored and billed forever."
    ),
)
def find_log_settings(site: Site) -> Iterator[Finding]:
    """Yield findings about the log group that the function writes to."""
    site.function.configuration()
    group = site.function.log_settings()
    name = shell_word(site.function.log_group)
    if group is None:
        # Lambda makes the group at the first invocation, so an idle function may have none yet.
        if site.function.metrics()["Invocations"] or site.pipeline.stack is not None:
            yield Finding(
                check="log-group-missing",
                severity=Severity.PROBLEM,
                subject=site.function.log_group,
                detail="The processor's log group does not exist, so nothing says what became of "
                "a file.",
                remedy=f"{site.aws_cli} logs create-log-group --log-group-name {name}",
            )
    elif not group.get("retentionInDays"):
        yield Finding(
            check="log-retention",
            severity=Severity.NOTICE,
            subject=site.function.log_group,
            detail="The processor's log has no retention: it grows, and is paid for, forever.",
            remedy=f"{site.aws_cli} logs put-retention-policy --log-group-name {name} "
            "--retention-in-days 30",
        )


@finder(
    "function",
    Check("last-day", "Errors, throttles, lost events and near time-outs of the last day."),
)
def find_recent_trouble(site: Site) -> Iterator[Finding]:
    """Yield what Lambda counted against the function in the last day."""
    timeout = timedelta(seconds=site.function.configuration()["Timeout"])
    sums = site.function.metrics()
    longest = timedelta(milliseconds=sums[LONGEST])
    words = {
        "Errors": "failed",
        "Throttles": "were throttled",
        "AsyncEventsDropped": "were dropped for good",
        "DestinationDeliveryFailures": "could not be sent to the on-failure destination",
    }
    told = [f"{int(sums[name]):,} {said}" for name, said in words.items() if sums[name]]
    if longest >= timeout:
        told.append(f"the longest ran into the time-out of {format_duration(timeout)}")
    elif longest > timeout * _CLOSE_TO_TIMEOUT:
        told.append(
            f"the longest took {format_duration(longest)} of the {format_duration(timeout)} that "
            "it may"
        )
    if told:
        yield Finding(
            check="last-day",
            severity=Severity.INFO,
            subject=site.function.name,
            detail=f"Of {int(sums['Invocations']):,} invocations and their events in the last "
            f"day, {', '.join(told)}.",
            remedy=f"{site.program} logs --failed --since 1d",
        )


@finder(
    "function",
    Check(
        "memory", "The last hour's invocations used nearly all of their memory, or little of it."
    ),
)
def find_wrong_memory(site: Site) -> Iterator[Finding]:
    """Yield a finding when invocations come close to their memory, or use next to none of it."""
    use = describe_use(site.facts)
    if isinstance(use, PartUnread):
        if use.action is None:
            return  # there is no log, of which another check tells
        raise CouldNotLook("how much memory the processor uses", use.reason, use.action)
    if use is None or use.memory_mb is None or use.max_memory_used_mb is None:
        return
    used, given = use.max_memory_used_mb, use.memory_mb
    subject, name = site.function.name, shell_word(site.function.name)
    said = f"The last hour's invocations used at most {used:,} of {given:,} MB"
    if used >= given * _CLOSE_TO_MEMORY:
        more = -(-used * 3 // 2 // 64) * 64
        yield Finding(
            check="memory",
            severity=Severity.NOTICE,
            subject=subject,
            detail=f"{said}: a larger file ends one of them half-way."
            + (f" Set processor.memory_mb to {more}." if site.is_deployed_by_us else ""),
            remedy=f"{site.program} deploy"
            if site.is_deployed_by_us
            else f"{site.aws_cli} lambda update-function-configuration --function-name {name} "
            f"--memory-size {more}",
        )
    elif given >= _MUCH_MEMORY_MB and used <= given * _LITTLE_MEMORY:
        yield Finding(
            check="memory",
            severity=Severity.INFO,
            subject=subject,
            detail=f"{said}. What is not used is paid for, unless it is there for the processor's "
            "speed: Lambda gives one vCPU for 1,769 MB. `status -v` shows the times to compare.",
        )


FINDERS: Final = (
    find_missing_function,
    find_bad_state,
    find_switched_off,
    find_wrong_environment,
    find_missing_actions,
    find_lost_failures,
    find_queued_failures,
    find_log_settings,
    find_deprecated_runtime,
    find_recent_trouble,
    find_wrong_memory,
)
