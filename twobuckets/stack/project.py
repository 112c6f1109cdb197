"""Deploying the project of the settings: where it goes, with which parameters and artifact."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

from twobuckets.pipeline.buckets import BucketFacts
from twobuckets.pipeline.lookups import Lookups
from twobuckets.settings import DEFAULT
from twobuckets.stack.artifacts import (
    artifact_bucket,
    artifact_key,
    find_account,
    put_template,
)
from twobuckets.stack.existing import plan_existing
from twobuckets.stack.plan import plan
from twobuckets.stack.template import (
    Location,
    is_large,
    parameters,
    template_text,
    without_comments,
)

if TYPE_CHECKING:
    from collections.abc import Callable

    from twobuckets.aws.clients import Aws
    from twobuckets.settings import Settings
    from twobuckets.stack.existing import Settlement
    from twobuckets.stack.plan import Plan
    from twobuckets.stack.stacks import Stack


def find_place(aws: Aws) -> Location:
    """Return where the credentials in use deploy to."""
    account, partition = find_account(aws.sts)
    uses_tls = aws.s3.meta.endpoint_url.startswith("https://")
    return Location(account, aws.region, partition, uses_tls)


def plan_project(
    aws: Aws,
    settings: Settings,
    name: str,
    present: Stack | None,
    *,
    place: Location,
    artifact_sha256: str,
    broker_sha256: str | None = None,
    sleep: Callable[[float], None],
) -> tuple[Plan, tuple[Settlement, ...]]:
    """Return what deploying the settings with an artifact would do to the stack `name`.

    And to each bucket that it is built around, or no longer. `present` is the stack as it stands;
    with a broker there is a page. Raises what `parameters`, `plan_existing` and `plan` raise.
    """
    wanted = parameters(
        settings,
        name,
        place,
        deployed=present.parameters if present is not None else {},
        artifact_bucket=artifact_bucket(place),
        artifact_key=artifact_key(artifact_sha256),
        broker_key=None if broker_sha256 is None else artifact_key(broker_sha256),
    )
    settlements = plan_existing(
        aws.s3,
        BucketFacts(aws, Lookups()),
        present,
        name,
        wanted,
        place,
        # Others' versions would go with ours, so nobody's default decides on it.
        expires_versions=settings.origins.get("noncurrent_version_days") != DEFAULT,
    )
    template = template_text(settings.environment, page=broker_sha256 is not None)
    if is_large(template):
        # Only what is still too large has to be put somewhere before anybody has agreed to it.
        template = without_comments(template)
    template_url = put_template(aws.s3, place, template) if is_large(template) else None
    planned = plan(
        aws.cloudformation,
        aws.s3,
        aws.sqs,
        name,
        present,
        wanted,
        template=template,
        template_url=template_url,
        sleep=sleep,
    )
    return replace(planned, existing_buckets=tuple(s.shown for s in settlements)), settlements
