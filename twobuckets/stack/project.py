"""Deploying the project of the settings: where it goes, with which parameters and artifact."""

from __future__ import annotations

from typing import TYPE_CHECKING

from twobuckets.stack.artifacts import artifact_bucket, artifact_key, find_account
from twobuckets.stack.plan import plan
from twobuckets.stack.template import Location, parameters, template_text

if TYPE_CHECKING:
    from collections.abc import Callable

    from twobuckets.aws.clients import Aws
    from twobuckets.settings import Settings
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
    sleep: Callable[[float], None],
) -> Plan:
    """Return what deploying the settings with an artifact would do to the stack `name`.

    `present` is the stack as it stands. Raises what `parameters` and `plan` raise.
    """
    wanted = parameters(
        settings,
        name,
        place,
        deployed=present.parameters if present is not None else {},
        artifact_bucket=artifact_bucket(place),
        artifact_key=artifact_key(artifact_sha256),
    )
    template = template_text(settings.environment)
    return plan(aws.cloudformation, aws.s3, name, present, wanted, template=template, sleep=sleep)
