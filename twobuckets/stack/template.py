"""The template as text, and how the settings fill its parameters."""

from __future__ import annotations

import json
import re
from dataclasses import dataclass
from datetime import timedelta
from importlib import resources
from typing import TYPE_CHECKING, Final

from twobuckets.errors import UsageError
from twobuckets.pipeline.retries import asynchronous
from twobuckets.pipeline.stack import MADE_BY_STACK
from twobuckets.settings import DEFAULT, FILE_NAME

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from twobuckets.settings import Settings

LOG_RETENTION_DAYS: Final = (
    *(1, 3, 5, 7, 14, 30, 60, 90, 120, 150, 180, 365, 400, 545, 731, 1096, 1827),
    *(2192, 2557, 2922, 3288, 3653),
)
"""What CloudWatch Logs allows (API reference, PutRetentionPolicy, retentionInDays)."""

# Where the function and a job have their variables, and how one is written there.
_ENVIRONMENT_MARKS: Final = {
    "# processor.environment of the settings comes here.": "{}: {}",
    "# processor.environment of the settings comes here, for jobs.": "- Name: {}\n  Value: {}",
}
_LARGEST_BODY_BYTES: Final = 51_200
_LONGEST_BUCKET_NAME: Final = 63
_GLOBAL, _ACCOUNT_REGIONAL, _OWN_SUFFIX = "global", "account-regional", "-an"
# Amazon S3 user guide, "Namespaces for general purpose buckets": all regions but these.
_WITHOUT_NAMESPACE: Final = frozenset({"me-central-1", "me-south-1"})
_LONGEST_FUNCTION_NAME: Final = 64
_FUNCTION_SUFFIX: Final = "-processor"
_ARRIVALS_SUFFIX: Final = "-arrivals"
_VISIBILITY_TIMEOUTS: Final = 6
"""Time-outs of the function for which a message is hidden (Lambda developer guide, "Using Lambda
with Amazon SQS": at least six)."""
_LONGEST_VISIBILITY: Final = timedelta(hours=12)


@dataclass(frozen=True, slots=True)
class Location:
    """An account and region of AWS that a stack is deployed to."""

    account: str
    region: str
    partition: str
    uses_tls: bool


def processor_name(stack: str) -> str:
    """Return the name of the function that the template gives a stack."""
    return stack + _FUNCTION_SUFFIX


def arrivals_name(stack: str) -> str:
    """Return the name of the queue that S3 tells of new files where `Trigger` is `queue`."""
    return stack + _ARRIVALS_SUFFIX


def template_text(environment: Iterable[tuple[str, str]] = (), *, page: bool = False) -> str:
    """Return the CloudFormation template, with more variables for the processor's `environment`.

    With `page` it has the upload page's resources as well.

    A parameter can't hold a table, so these stand in the text; a value may be a dynamic reference
    such as `{{resolve:ssm:/intake/table}}`.
    """
    text = _read("template.yaml")
    if page:
        text = _with_page(text)
    # Every JSON text is a YAML scalar, except where it escapes surrogate pairs.
    given = [(name, json.dumps(value, ensure_ascii=False)) for name, value in environment]
    if not given:
        return text
    for mark, form in _ENVIRONMENT_MARKS.items():
        place = text[: text.index(mark)].rpartition("\n")[2]
        lines = [line for name, value in given for line in form.format(name, value).split("\n")]
        text = text.replace(mark, f"\n{place}".join(lines))
    return text


def without_comments(template: str) -> str:
    """Return the template as short as it is for CloudFormation, which reads no comments."""
    lines = (line for line in template.splitlines() if not re.match(r"\s*(#|$)", line))
    return "\n".join(lines) + "\n"


def is_large(template: str) -> bool:
    """Tell whether a template is too large for a request and has to lie in S3.

    CloudFormation API reference, CreateChangeSet, TemplateBody.
    """
    return len(template.encode()) > _LARGEST_BODY_BYTES


def _read(name: str) -> str:
    return resources.files("twobuckets.stack").joinpath(name).read_text("utf-8")


def _with_page(text: str) -> str:
    """Return the template with each section of page.yaml at the end of its own."""
    _, *sections = re.split(r"^(\w+):\n", _read("page.yaml"), flags=re.MULTILINE)
    for name, lines in zip(sections[::2], sections[1::2], strict=True):
        end = re.search(rf"^{name}:\n(?:(?: .*|#.*)?\n)*", text, re.MULTILINE)
        assert end is not None
        before = text[: end.end()].rstrip("\n")
        text = f"{before}\n\n{lines.rstrip()}\n\n{text[end.end() :]}".rstrip("\n") + "\n"
    return text


def names_of_parameters(template: str) -> set[str]:
    """Return the parameters that a template of ours has."""
    section = template.partition("\nParameters:\n")[2].partition("\nConditions:\n")[0]
    return set(re.findall(r"^  (\w+):$", section, re.MULTILINE))


def parameters(
    settings: Settings,
    stack: str,
    place: Location,
    *,
    deployed: Mapping[str, str],
    artifact_bucket: str,
    artifact_key: str,
    broker_key: str | None = None,
) -> dict[str, str]:
    """Return the template's parameters that the settings decide on.

    Buckets that nobody names keep the names of the `deployed` parameters, and get names made of
    the stack, account and region at the first deployment. What no setting covers is left out: it
    keeps its value, or the template's default. With a `broker_key` there is a page. Raises
    UsageError for what AWS would not accept.
    """
    if len(processor_name(stack)) > _LONGEST_FUNCTION_NAME:
        raise UsageError(
            f"The stack's name {stack} is too long for the function {processor_name(stack)}: "
            f"Lambda allows {_LONGEST_FUNCTION_NAME} characters",
            hint=f"Use at most {_LONGEST_FUNCTION_NAME - len(_FUNCTION_SUFFIX)} characters.",
        )
    if settings.log_retention_days not in LOG_RETENTION_DAYS:
        raise UsageError(
            f"CloudWatch Logs does not keep a log for {settings.log_retention_days} days",
            hint="deploy.log_retention_days is one of "
            + ", ".join(str(days) for days in LOG_RETENTION_DAYS),
        )
    reserved, most = settings.reserved_concurrency, settings.maximum_concurrency
    if most is not None and settings.trigger == "notification":
        raise UsageError(
            "deploy.maximum_concurrency limits what a queue causes, and there is none",
            hint="Set deploy.trigger to queue or ordered, or reserve concurrency instead: "
            "processor.reserved_concurrency.",
        )
    if most is not None and reserved is not None and reserved < most:
        raise UsageError(
            f"deploy.maximum_concurrency is {most} and processor.reserved_concurrency {reserved}: "
            "the queue would be throttled",
            hint="Reserve more than the queue may cause at once"
            + (
                ", for the processor routes files beside it."
                if settings.trigger == "ordered"
                else "."
            ),
        )
    _require_heavy(settings, place)
    # Lambda counts in whole seconds; half a second more is better than one too few.
    timeout_seconds = -(-settings.timeout // timedelta(seconds=1))
    visible_after = min(
        timedelta(seconds=timeout_seconds) * _VISIBILITY_TIMEOUTS, _LONGEST_VISIBILITY
    )
    page = {} if broker_key is None else _page_parameters(settings, broker_key)
    return {
        **page,
        **_bucket_parameters(settings, stack, place, deployed),
        "ArtifactBucket": artifact_bucket,
        "ArtifactKey": artifact_key,
        "Process": settings.process,
        "Runtime": settings.runtime,
        "Architecture": settings.architecture,
        "MemorySize": str(settings.memory_mb),
        "EphemeralStorage": str(settings.ephemeral_storage_mb),
        "Timeout": str(timeout_seconds),
        "ReservedConcurrency": str(-1 if reserved is None else reserved),
        "RecordConcurrency": str(settings.record_concurrency),
        "Folders": settings.folders,
        "Trigger": settings.trigger,
        "VisibilityTimeout": f"{visible_after.total_seconds():.0f}",
        "MaximumConcurrency": str(most or 0),
        # The embedded AWS, the only one without TLS, doesn't let anybody wait for minutes.
        "RetrySeconds": "60" if place.uses_tls else "1",
        "HeavyImage": settings.heavy_image or "",
        "HeavyLargerThan": str(settings.heavy_larger_than or 0),
        "HeavyMatch": ",".join(settings.heavy_match),
        "HeavySubnets": ",".join(settings.heavy_subnets),
        "HeavySecurityGroups": ",".join(settings.heavy_security_groups),
        "HeavyVcpus": settings.heavy_vcpus,
        "HeavyMemory": str(settings.heavy_memory_mb),
        "HeavyStorage": str(settings.heavy_storage_gb),
        "HeavyTimeout": f"{settings.heavy_timeout.total_seconds():.0f}",
        "HeavyMaxVcpus": str(settings.heavy_max_vcpus),
        "ProcessorPolicies": ",".join(settings.policies),
        "Layers": ",".join(settings.layers),
        "StorageClass": settings.storage_class,
        "AbortIncompleteUploadDays": str(settings.abort_incomplete_uploads_days),
        "NoncurrentVersionDays": str(settings.noncurrent_version_days),
        "CorsOrigins": ",".join(settings.cors_origins),
        "LogRetentionDays": str(settings.log_retention_days),
        "LogLevel": settings.log_level,
        "AlarmTopicArn": settings.alarm_topic_arn or "",
        **_watcher_parameters(settings, place),
        "RequireTls": "true" if place.uses_tls else "false",
    }


def _watcher_parameters(settings: Settings, place: Location) -> dict[str, str]:
    every = settings.watch_every
    if not place.uses_tls and settings.origins.get("watch_every", DEFAULT) == DEFAULT:
        # The embedded AWS watches only where somebody wants to see it do so.
        every = timedelta()
    minutes = every // timedelta(minutes=1)
    stuck_after = asynchronous(settings.timeout).stuck_after
    return {
        "WatchSchedule": f"rate({minutes} minute{'s' * (minutes != 1)})" if minutes else "",
        # A look that comes a little late leaves no gap, and an alarm is about two in a row.
        "WatchPeriod": str(max(minutes, 1) * 120),
        "StuckSeconds": f"{stuck_after.total_seconds():.0f}",
    }


def _bucket_parameters(
    settings: Settings, stack: str, place: Location, deployed: Mapping[str, str]
) -> dict[str, str]:
    filled: dict[str, str] = {}
    for role, (is_made, parameter) in MADE_BY_STACK.items():
        exists = role in settings.existing_buckets
        named: str | None = getattr(settings, role) or deployed.get(parameter)
        if exists and named is None:
            raise UsageError(
                f"deploy.existing_buckets says that the {role} bucket exists, and nothing names it",
                hint=f"Name it: {role} in {FILE_NAME}.",
            )
        filled[parameter] = named or _bucket_name(stack, role, place)
        filled[is_made] = "false" if exists else "true"
        namespace = f"{role.capitalize()}BucketNamespace"
        # It can't be changed without replacing the bucket: one that is there keeps its own.
        is_there = filled[parameter] == deployed.get(parameter)
        filled[namespace] = (
            deployed.get(namespace, _GLOBAL)
            if is_there
            else _namespace_of(filled[parameter], place)
        )
    staging, archive = (filled[parameter] for _, parameter in MADE_BY_STACK.values())
    if staging == archive:
        raise UsageError(
            f"Staging and archive are one bucket, {staging}: what is archived there would be a new "
            "file that waits",
            hint="Name two buckets.",
        )
    return filled


def _page_parameters(settings: Settings, broker_key: str) -> dict[str, str]:
    return {
        "BrokerKey": broker_key,
        "PageThrottleRate": str(settings.page_throttle_rate),
        "PageThrottleBurst": str(settings.page_throttle_burst),
        "PageSignatureSeconds": f"{settings.page_signature_life.total_seconds():.0f}",
        "PageTitle": settings.page_title or "",
        "PageSentence": settings.page_sentence or "",
        "PageAccent": settings.page_accent or "",
    }


def _require_heavy(settings: Settings, place: Location) -> None:
    """Raise UsageError for jobs that could not run, or that nothing would go to."""
    is_chosen = bool(settings.heavy_larger_than or settings.heavy_match)
    if settings.heavy_image is None:
        if is_chosen:
            raise UsageError(
                "heavy.larger_than and heavy.match choose files for jobs, and there is no image "
                "for them to run in",
                hint="Name it: heavy.image. `twobuckets help heavy` says how to make one.",
            )
        return
    if not is_chosen:
        raise UsageError(
            "heavy.image is for jobs, and nothing says which files go to them",
            hint="Set heavy.larger_than, heavy.match or both.",
        )
    if settings.trigger == "ordered":
        raise UsageError(
            'deploy.trigger = "ordered" can\'t go with [heavy]: a message is done once its job is '
            "submitted, so that the key's next file would be processed beside the job",
            hint='Use deploy.trigger = "queue", or leave [heavy] out.',
        )
    if float(settings.heavy_vcpus) > settings.heavy_max_vcpus:
        raise UsageError(
            f"A job has {settings.heavy_vcpus} processors and all jobs together "
            f"{settings.heavy_max_vcpus}: none would ever start",
            hint="Raise heavy.max_vcpus, or lower heavy.vcpus.",
        )
    missing = [
        name
        for name, ids in (
            ("heavy.subnets", settings.heavy_subnets),
            ("heavy.security_groups", settings.heavy_security_groups),
        )
        if not ids
    ]
    # The embedded AWS, the only one without TLS, has no networks.
    if missing and place.uses_tls:
        raise UsageError(
            f"Jobs need a network to run in: {' and '.join(missing)} must be set",
            hint="`aws ec2 describe-subnets` and `aws ec2 describe-security-groups` show what "
            "there is; those of the default VPC will do.",
        )


def _bucket_name(stack: str, role: str, place: Location) -> str:
    """Return a name that nobody else can have, or is likely to have where regions don't know that.

    Names of the account's own namespace end with its account, its region and `-an` (Amazon S3 user
    guide, "Namespaces for general purpose buckets").
    """
    name = f"{stack.lower()}-{role}-{place.account}-{place.region}"
    own = name + _OWN_SUFFIX
    if _namespace_of(own, place) == _ACCOUNT_REGIONAL and len(own) <= _LONGEST_BUCKET_NAME:
        return own
    if len(name) > _LONGEST_BUCKET_NAME:
        raise UsageError(
            f"The {role} bucket's name {name} would be longer than {_LONGEST_BUCKET_NAME} "
            "characters",
            hint="Name the buckets yourself: staging and archive in twobuckets.toml.",
        )
    return name


def _namespace_of(name: str, place: Location) -> str:
    """Return the namespace in which a bucket of this name is to be made."""
    # The embedded AWS has one namespace.
    has_own = place.uses_tls and place.region not in _WITHOUT_NAMESPACE
    is_own = name.endswith(f"-{place.account}-{place.region}{_OWN_SUFFIX}")
    return _ACCOUNT_REGIONAL if has_own and is_own else _GLOBAL
