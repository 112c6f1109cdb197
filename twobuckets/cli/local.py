"""`twobuckets local`: run the embedded AWS on this machine."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

from twobuckets import local as local_
from twobuckets.cli import Group
from twobuckets.cli.options import yes_option
from twobuckets.cli.views import local as _views  # noqa: F401 - registers the views

if TYPE_CHECKING:
    from twobuckets.cli.app import App

NOT_RUNNING = 4


@click.group("local", cls=Group)
def local() -> None:
    """Run the embedded AWS on this machine.

    It listens on loopback only, and `--stack local` starts it when needed. Buckets, objects and
    stacks are kept from run to run.
    """


@local.command()
@click.option(
    "--port", type=click.IntRange(1, 65_535), help="Default: the last one, or a free one."
)
@click.pass_obj
def start(app: App, port: int | None) -> None:
    """Start it; does nothing when it runs already."""
    _, is_new = local_.ensure_running(app.local_state, port=port, environ=app.environ)
    if not is_new:
        app.out.note("The embedded AWS runs already")
    app.finish(local_.find_status(app.local_state))


@local.command()
@click.option("--reset", is_flag=True, help="Forget every bucket, object and stack; asks first.")
@yes_option
@click.pass_obj
def stop(app: App, reset: bool, yes: bool) -> None:
    """Stop it and remove its temporary files."""
    if reset and not app.confirm(
        f"Forget every bucket, object and stack in {app.local_state}?", yes=yes
    ):
        app.out.note("Nothing was stopped or forgotten")
        return
    if local_.stop(app.local_state, reset=reset) is None:
        app.out.note("The embedded AWS was not running")
    app.finish(local_.find_status(app.local_state))


@local.command()
@click.pass_obj
def status(app: App) -> None:
    """Show whether it runs, and where; exits 4 when it does not."""
    found = local_.find_status(app.local_state)
    app.finish(found)
    if not found.running:
        click.get_current_context().exit(NOT_RUNNING)
