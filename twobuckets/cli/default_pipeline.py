"""The pipeline that `--stack local` deploys by itself when somebody wants to use it."""

from __future__ import annotations

from typing import TYPE_CHECKING

from twobuckets import settings as settings_
from twobuckets.aws import attempt

if TYPE_CHECKING:
    from collections.abc import Mapping

    from twobuckets.cli.app import App
    from twobuckets.settings import Settings


def require_outputs(app: App) -> Mapping[str, str]:
    """Return the outputs of the stack on the embedded AWS, deployed first when it is not there.

    A pair made there by hand, which the settings name, has no stack and needs none. Raises what
    building and deploying raise.
    """
    from twobuckets import local
    from twobuckets.stack.outputs import require_outputs as require_outputs_of
    from twobuckets.stack.plan import require_deployable

    cloudformation = app.aws.cloudformation
    # Two terminals that begin at once deploy once.
    with local.exclusively(app.local_state):
        if require_deployable(cloudformation, settings_.LOCAL) is None:
            if _finds_pair(app):
                return {}
            _deploy(app)
    return require_outputs_of(cloudformation, settings_.LOCAL)


def _finds_pair(app: App) -> bool:
    settings = app.settings
    if not settings.names_pair:
        return False
    with attempt("list the buckets of the embedded AWS"):
        buckets = {bucket["Name"] for bucket in app.aws.s3.list_buckets()["Buckets"]}
    return {settings.staging, settings.archive} <= buckets


def _deploy(app: App) -> None:
    from twobuckets.artifact import build_configured
    from twobuckets.stack import artifacts
    from twobuckets.stack.plan import apply
    from twobuckets.stack.project import find_place, plan_project

    aws = app.aws
    settings = _settings(app)
    with app.out.waiting("Deploying the pipeline"):
        artifact = build_configured(settings)
        place = find_place(aws)
        planned = plan_project(
            aws,
            settings,
            settings_.LOCAL,
            None,
            place=place,
            artifact_sha256=artifact.sha256,
            sleep=app.sleep,
        )
        artifacts.upload(aws.s3, place, artifact.path, artifact.sha256)
        for _ in apply(aws.cloudformation, planned, sleep=app.sleep):
            pass
    app.out.note(f"Deployed the stack local with {settings.directory / settings.source}")


def _settings(app: App) -> Settings:
    """Return the settings of the project around here, or of one like `init` writes."""
    from twobuckets.artifact import starter

    settings = app.settings
    named = "source" in settings.origins and settings.origins["source"] != settings_.DEFAULT
    if settings.file is not None and (named or (settings.directory / settings.source).exists()):
        return settings
    directory = app.local_state / "default"
    if not directory.exists():
        starter.start(directory)
    flags = {"stack": settings_.LOCAL, "config": str(directory / settings_.FILE_NAME)}
    return settings_.load(flags, {}, directory)
