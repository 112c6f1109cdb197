"""Where AWS's console shows the parts of a pipeline.

The addresses are those that the console itself leads to; AWS documents none of them.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Final
from urllib.parse import quote

from twobuckets.settings import function_name_of

if TYPE_CHECKING:
    from twobuckets.settings import Pipeline

_DOMAINS: Final = (
    ("cn-", "console.amazonaws.cn"),
    ("us-gov-", "console.amazonaws-us-gov.com"),
    ("", "console.aws.amazon.com"),
)


@dataclass(frozen=True, slots=True)
class ConsoleLinks:
    """Where AWS's console shows a pipeline; null for what is not part of it, or not known."""

    staging: str
    archive: str
    stack: str | None
    function: str | None
    log: str | None


def links_of(pipeline: Pipeline, region: str) -> ConsoleLinks:
    """Return the links of a pipeline in AWS."""
    stack = pipeline.stack
    return ConsoleLinks(
        staging=bucket_link(pipeline.staging, region),
        archive=bucket_link(pipeline.archive, region),
        stack=_link("cloudformation/home", region, f"#/stacks?filteringText={quote(stack, '')}")
        if stack is not None
        else None,
        function=_link(
            "lambda/home", region, f"#/functions/{quote(function_name_of(pipeline.function), '')}"
        )
        if pipeline.function is not None
        else None,
        log=_link("cloudwatch/home", region, f"#logsV2:log-groups/log-group/{_twice(log_group)}")
        if (log_group := pipeline.log_group) is not None
        else None,
    )


def link_of_subject(subject: str, pipeline: Pipeline, region: str) -> str | None:
    """Return where the console shows what a finding is about, None where that is not known."""
    scheme, _, place = subject.partition("://")
    if scheme == "s3" and place:
        bucket, _, key = place.partition("/")
        return object_link(bucket, key, region) if key else bucket_link(bucket, region)
    links = links_of(pipeline, region)
    named = {
        pipeline.stack: links.stack,
        pipeline.function: links.function,
        pipeline.log_group: links.log,
    }
    if pipeline.function is not None:
        named[function_name_of(pipeline.function)] = links.function
    return named.get(subject)


def bucket_link(bucket: str, region: str) -> str:
    """Return where the console lists a bucket."""
    return _link(f"s3/buckets/{quote(bucket, '')}", region)


def object_link(bucket: str, key: str, region: str) -> str:
    """Return where the console shows an object."""
    return _link(f"s3/object/{quote(bucket, '')}", region, f"&prefix={quote(key, '')}")


def _link(path: str, region: str, rest: str = "") -> str:
    domain = next(domain for prefix, domain in _DOMAINS if region.startswith(prefix))
    return f"https://{region}.{domain}/{path}?region={region}{rest}"


def _twice(name: str) -> str:
    # CloudWatch's pages decode what is behind "#" twice, and have "$" where others have "%".
    return quote(quote(name, ""), "").replace("%", "$")
