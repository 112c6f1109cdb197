"""`twobuckets deploy`: builds, shows what would change, asks, applies, follows."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

from twobuckets.cli import command
from twobuckets.cli.options import dry_run_option, yes_option
from twobuckets.errors import NotFoundError
from twobuckets.units import counted

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence
    from datetime import datetime

    from twobuckets.artifact import Artifact, BrokerArtifact
    from twobuckets.cli.app import App
    from twobuckets.stack.events import StackEvent
    from twobuckets.stack.existing import Settlement
    from twobuckets.stack.stacks import Stack
    from twobuckets.stack.template import Location


@command("deploy")
@click.option(
    "--follow", is_flag=True, help="Watch the operation under way to its end; deploy nothing."
)
@dry_run_option
@yes_option
@click.pass_obj
def deploy(app: App, follow: bool, dry_run: bool, yes: bool) -> None:
    """Create or change the stack.

    Builds the artifact, shows what would be added, changed, replaced or deleted, asks, applies it
    and follows the stack's events. Without a change it touches nothing. Buckets that are there
    already, named in deploy.existing_buckets, get its notification and rules beside what they have.

    \b
      twobuckets --stack intake deploy
    """
    stack = app.require_stack()
    from twobuckets.stack.plan import apply, discard, require_deployable, require_harmless
    from twobuckets.stack.project import find_place, plan_project
    from twobuckets.stack.switching import switches

    cloudformation = app.aws.cloudformation
    if follow:
        _follow(app, stack)
        return
    present = require_deployable(cloudformation, stack)
    artifact, broker = _build(app)
    place = find_place(app.aws)
    planned_at = app.now()
    with app.out.waiting("Planning the deployment"):
        planned, settlements = plan_project(
            app.aws,
            app.settings,
            stack,
            present,
            place=place,
            artifact_sha256=artifact.sha256,
            broker_sha256=None if broker is None else broker.sha256,
            sleep=app.sleep,
        )
    app.out.record(planned)
    if not planned.steps:
        if not dry_run:
            _admit_page(app, stack, present)
        _finish(app, stack, "unchanged", 0, artifact)
        return
    if dry_run:
        if planned.changes:
            discard(cloudformation, planned)
        _finish(app, stack, "planned", planned.steps, artifact)
        return
    try:
        app.confirm(_question(stack, planned.endangers_data), yes=yes)
        _send(app, place, artifact, *(() if broker is None else (broker,)))
        # A question can stand for hours.
        aws = app.aws
        require_harmless(cloudformation, aws.s3, aws.sqs, stack, present, planned.changes)
    except BaseException:
        if planned.changes:
            discard(cloudformation, planned)
        raise
    _settle(app, stack, [settlement for settlement in settlements if settlement.comes_first])
    if planned.changes:
        _show(app, stack, apply(cloudformation, planned, sleep=app.sleep), len(planned.changes))
    _settle(app, stack, [settlement for settlement in settlements if not settlement.comes_first])
    _admit_page(app, stack, present)
    if switches(planned):
        _wake_arrivals(app, stack, planned_at)
    _finish(app, stack, "deployed", planned.steps, artifact)


def _build(app: App) -> tuple[Artifact, BrokerArtifact | None]:
    from twobuckets.artifact import build_broker, build_configured

    with app.out.waiting("Building the artifact"):
        built = build_configured(app.settings)
        broker = build_broker(app.settings) if app.settings.page_enabled else None
    for notice in built.notices():
        app.out.note(notice)
    return built, broker


def _admit_page(app: App, stack: str, before: Stack | None) -> None:
    """Let the upload page send to staging, which is known only once there is a page."""
    from twobuckets.links.page import admit_page
    from twobuckets.stack.outputs import require_outputs

    outputs = require_outputs(app.aws.cloudformation, stack)
    had_page = before is not None and "PageUrl" in before.outputs
    if not had_page and "PageUrl" not in outputs:
        return
    origins = app.page_origins(outputs)
    admit_page(app.aws.s3, outputs["StagingBucket"], stack, origins, sleep=app.sleep)


def _question(stack: str, endangers_data: bool) -> str:
    if endangers_data:
        return f"Something that holds data is replaced or left. Deploy {stack} all the same?"
    return f"Deploy {stack}?"


def _send(app: App, place: Location, *artifacts: Artifact | BrokerArtifact) -> None:
    from twobuckets.stack.artifacts import upload

    with app.out.waiting("Uploading the artifact"):
        for artifact in artifacts:
            upload(app.aws.s3, place, artifact.path, artifact.sha256)


def _show(app: App, stack: str, events: Iterable[StackEvent], expected: int) -> None:
    """Show events as they come, with how many of the expected resources are done."""
    done: set[str] = set()
    try:
        with app.out.progress("{task.description}", "{task.completed}/{task.total}") as progress:
            task = progress.add_task(f"Deploying {stack}", total=expected)
            for event in events:
                # The first failure becomes an error that names it.
                app.out.record(event, went_well=True)
                if event.status.endswith("_COMPLETE") and not event.is_of_stack:
                    done.add(event.resource)
                    progress.update(task, completed=min(len(done), expected))
    except KeyboardInterrupt:
        app.out.warn(
            f"Stopped watching; the operation on {stack} goes on in AWS. "
            f"`twobuckets --stack {stack} deploy --follow` comes back to it."
        )
        raise


def _settle(app: App, stack: str, settlements: Sequence[Settlement]) -> None:
    """Write what the stack needs into the buckets that it did not make."""
    from twobuckets.stack.existing import settle

    try:
        for settlement in settlements:
            if settlement.shown.changes:
                with app.out.waiting(f"Adding to the bucket {settlement.shown.bucket}"):
                    settle(app.aws.s3, settlement, sleep=app.sleep)
    except BaseException:
        app.out.warn(
            f"The buckets that {stack} is built around do not have all they need yet: deploy again."
        )
        raise


def _wake_arrivals(app: App, stack: str, planned_at: datetime) -> None:
    """Wake the processor for files whose event may have gone where nothing reads it any more."""
    from twobuckets.stack.stacks import find_stack
    from twobuckets.stack.switching import wake_arrivals

    present = find_stack(app.aws.cloudformation, stack)
    if present is None:
        return
    with app.out.waiting("Looking for files that came meanwhile"), app.connect() as sender:
        woken = wake_arrivals(
            app.aws,
            sender,
            staging=present.outputs["StagingBucket"],
            function=present.outputs["FunctionName"],
            planned_at=planned_at,
            now=app.now,
        )
    if woken:
        app.out.note(
            f"Woke the processor for {counted(woken, 'file')} that came while what wakes it changed"
        )


def _follow(app: App, stack: str) -> None:
    from twobuckets.stack.plan import watch
    from twobuckets.stack.stacks import find_stack

    present = find_stack(app.aws.cloudformation, stack)
    if present is None:
        raise NotFoundError(f"There is no stack {stack} to follow")
    if not present.is_busy:
        app.out.note(f"Nothing is under way on {stack}; this was its last operation.")
    _show(app, stack, watch(app.aws.cloudformation, present, sleep=app.sleep), 1)
    _finish(app, stack, "followed", None, None)


def _finish(
    app: App, stack: str, outcome: str, changes: int | None, artifact: Artifact | None
) -> None:
    from twobuckets.stack.plan import DeploySummary
    from twobuckets.stack.stacks import find_stack

    present = find_stack(app.aws.cloudformation, stack)
    outputs = dict(present.outputs) if present is not None else {}
    if app.settings.is_local and "PageUrl" in outputs:
        # No browser can resolve the host that the emulator gives its APIs.
        outputs["PageUrl"] = app.upload_page().url
    sha256 = artifact.sha256 if artifact is not None else None
    app.finish(DeploySummary(stack, outcome, changes, sha256, outputs))
