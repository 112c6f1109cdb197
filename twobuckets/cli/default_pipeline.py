"""The pipeline that `--stack local` deploys by itself when somebody wants to use it."""

from __future__ import annotations

from typing import TYPE_CHECKING

from twobuckets import settings as settings_
from twobuckets.aws import attempt

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping
    from pathlib import Path

    from twobuckets.aws.clients import Aws
    from twobuckets.cli.output import Output
    from twobuckets.settings import Settings


def require_outputs(
    aws: Aws, settings: Settings, state: Path, out: Output, *, sleep: Callable[[float], None]
) -> Mapping[str, str]:
    """Return the outputs of the stack on the embedded AWS, deployed first when it is not there.

    `state` is where the embedded AWS keeps what it holds. A pair made there by hand, which the
    settings name, has no stack and needs none. Raises what building and deploying raise.
    """
    from twobuckets import local
    from twobuckets.artifact.starter import project_or_new
    from twobuckets.stack.outputs import require_outputs as require_outputs_of
    from twobuckets.stack.plan import require_deployable

    # Two terminals that begin at once deploy once.
    with local.exclusively(state):
        if require_deployable(aws.cloudformation, settings_.LOCAL) is None:
            if _has_named_pair(aws, settings):
                return {}
            project = project_or_new(settings, state / "default")
            with out.waiting("Deploying the pipeline"):
                _deploy(aws, project, sleep=sleep)
                _admit_page(aws, state, sleep=sleep)
            out.note(f"Deployed the stack local with {project.directory / project.source}")
    return require_outputs_of(aws.cloudformation, settings_.LOCAL)


def _admit_page(aws: Aws, state: Path, *, sleep: Callable[[float], None]) -> None:
    from twobuckets import local
    from twobuckets.links.page import admit_page
    from twobuckets.stack.outputs import require_outputs as require_outputs_of

    outputs = require_outputs_of(aws.cloudformation, settings_.LOCAL)
    server = local.find_running(state)
    if "PageUrl" in outputs and server is not None:
        bucket = outputs["StagingBucket"]
        admit_page(aws.s3, bucket, settings_.LOCAL, server.page_origins, sleep=sleep)


def _has_named_pair(aws: Aws, settings: Settings) -> bool:
    if not settings.names_pair or settings.existing_buckets:
        return False
    with attempt("list the buckets of the embedded AWS"):
        buckets = {bucket["Name"] for bucket in aws.s3.list_buckets()["Buckets"]}
    return {settings.staging, settings.archive} <= buckets


def _deploy(aws: Aws, project: Settings, *, sleep: Callable[[float], None]) -> None:
    from twobuckets.artifact import build_broker, build_configured
    from twobuckets.stack import artifacts
    from twobuckets.stack.existing import settle
    from twobuckets.stack.plan import apply
    from twobuckets.stack.project import find_place, plan_project

    artifact = build_configured(project)
    broker = build_broker(project) if project.page_enabled else None
    place = find_place(aws)
    planned, settlements = plan_project(
        aws,
        project,
        settings_.LOCAL,
        None,
        place=place,
        artifact_sha256=artifact.sha256,
        broker_sha256=None if broker is None else broker.sha256,
        sleep=sleep,
    )
    for built in (artifact, broker):
        if built is not None:
            artifacts.upload(aws.s3, place, built.path, built.sha256)
    for _ in apply(aws.cloudformation, planned, sleep=sleep):
        pass
    for settlement in settlements:
        settle(aws.s3, settlement, sleep=sleep)
