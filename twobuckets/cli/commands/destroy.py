"""`twobuckets destroy`: shows what would go, asks for the stack's name, empties, deletes."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING

import click

from twobuckets.cli import command
from twobuckets.cli.options import dry_run_option, yes_option
from twobuckets.errors import TwoBucketsError, UsageError
from twobuckets.units import counted

if TYPE_CHECKING:
    from collections.abc import Sequence

    from rich.progress import Progress, TaskID

    from twobuckets.cli.app import App
    from twobuckets.stack.destroy import Contents
    from twobuckets.stack.stacks import Stack


@command("destroy")
@click.option(
    "--delete-data",
    is_flag=True,
    help="Also delete every object, version and incomplete upload in both buckets.",
)
@dry_run_option
@yes_option
@click.pass_obj
def destroy(app: App, delete_data: bool, dry_run: bool, yes: bool) -> None:
    """Delete the stack and the buckets that it made.

    Shows what the buckets hold, and refuses unless they are empty or --delete-data is given.
    Asks for the stack's name; a script gives --yes. Buckets that were there before the stack stay
    with all they hold, and lose what `deploy` added. The artifact bucket, which other stacks of
    the account use as well, stays.

    \b
      twobuckets --stack intake destroy --delete-data
    """
    stack_name = app.require_stack()
    from twobuckets.stack.destroy import delete_stack, find_buckets, require_destroyable
    from twobuckets.stack.existing import plan_release, settle

    stack = require_destroyable(app.aws.cloudformation, stack_name)
    released = plan_release(app.aws.s3, stack)
    contents = _count(app, find_buckets(app.aws.cloudformation, stack))
    app.out.stream(contents)
    app.out.stream(settlement.shown for settlement in released)
    holds_data = any(bucket.has_data for bucket in contents)
    if holds_data and not delete_data and not dry_run:
        raise TwoBucketsError(
            f"Could not destroy the stack {stack_name}: its buckets hold data",
            hint="--delete-data deletes the data as well, for good. Nothing was deleted.",
        )
    if dry_run:
        _finish(app, stack, "planned")
        return
    _require_name(app, stack_name, yes=yes)
    # What is told of files goes before the function that it tells.
    for settlement in released:
        if settlement.shown.changes:
            settle(app.aws.s3, settlement, sleep=app.sleep)
    _end_jobs(app, stack)
    versions = uploads = 0
    for bucket in contents:
        emptied = _remove(app, bucket, delete_data=delete_data)
        versions, uploads = versions + emptied[0], uploads + emptied[1]
    try:
        app.out.stream(delete_stack(app.aws.cloudformation, stack, sleep=app.sleep))
    except KeyboardInterrupt:
        app.out.warn(
            f"Stopped watching; the deletion of {stack_name} goes on in AWS. "
            f"`twobuckets --stack {stack_name} deploy --follow` comes back to it."
        )
        raise
    _finish(app, stack, "destroyed", versions, uploads)


def _count(app: App, buckets: Sequence[str]) -> list[Contents]:
    from twobuckets.stack.destroy import count_contents

    found = []
    with (
        app.out.progress("{task.description}", "{task.completed:,} versions") as progress,
        app.connect() as sender,
    ):
        for bucket in buckets:
            task = progress.add_task(f"Listing {bucket}", total=None)
            report = partial(_report, progress, task)
            contents = count_contents(sender, bucket, report=report)
            if contents is not None:
                found.append(contents)
    return found


def _end_jobs(app: App, stack: Stack) -> None:
    from twobuckets.stack.destroy import end_jobs, find_job_queue

    queue = find_job_queue(app.aws.cloudformation, stack)
    if queue is None:
        return
    with app.out.waiting("Ending jobs"):
        for left in end_jobs(app.aws.batch, queue, sleep=app.sleep):
            app.out.note(f"Ending {counted(left, 'job')} of AWS Batch; their files stay in staging")


def _report(progress: Progress, task: TaskID, versions: int) -> None:
    progress.update(task, completed=versions)


def _require_name(app: App, stack: str, *, yes: bool) -> None:
    """Ask for the stack's name: a y typed by habit is no consent to this."""
    if yes:
        return
    if not app.out.can_ask:
        raise UsageError(
            f"Destroying {stack} needs consent, and nobody is at a terminal to give it",
            hint="Give --yes to go on without being asked, or --dry-run to see what would go.",
        )
    if app.out.ask(f"Type the stack's name, {stack}, to destroy it: ").strip() != stack:
        app.decline()


def _remove(app: App, bucket: Contents, *, delete_data: bool) -> tuple[int, int]:
    """Remove a bucket, showing how far it is, and return the versions and uploads that it held."""
    from twobuckets.stack.destroy import remove_bucket

    versions = uploads = 0
    with (
        app.out.progress("{task.description}", "{task.completed:,}/{task.total:,}") as progress,
        app.connect() as sender,
    ):
        task = progress.add_task(f"Emptying {bucket.bucket}", total=bucket.steps)
        for step in remove_bucket(app.aws.s3, sender, bucket.bucket, delete_data=delete_data):
            versions, uploads = versions + step.versions, uploads + step.uploads
            progress.update(task, completed=versions + uploads)
    return versions, uploads


def _finish(app: App, stack: Stack, outcome: str, versions: int = 0, uploads: int = 0) -> None:
    from twobuckets.stack.destroy import DestroySummary

    app.finish(DestroySummary(stack.name, outcome, versions, uploads))
