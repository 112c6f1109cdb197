"""`twobuckets local`: run the embedded AWS on this machine."""

from __future__ import annotations

import os
import shutil
from typing import TYPE_CHECKING

import click

from twobuckets import local as local_
from twobuckets.cli import Group
from twobuckets.cli.options import yes_option
from twobuckets.errors import ExitStatus, NotFoundError

if TYPE_CHECKING:
    from twobuckets.cli.app import App


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
    _show_status(app)


@local.command()
@click.option("--reset", is_flag=True, help="Forget every bucket, object and stack; asks first.")
@yes_option
@click.pass_obj
def stop(app: App, reset: bool, yes: bool) -> None:
    """Stop it and remove its temporary files."""
    if reset:
        app.confirm(f"Forget every bucket, object and stack in {app.local_state}?", yes=yes)
    if local_.stop(app.local_state, reset=reset) is None:
        app.out.note("The embedded AWS was not running")
    _show_status(app)


@local.command()
@click.pass_obj
def status(app: App) -> None:
    """Show whether it runs, and where; exits 4 when it does not."""
    if not _show_status(app):
        click.get_current_context().exit(ExitStatus.NOT_FOUND)


def _show_status(app: App) -> bool:
    """Show whether it runs, and tell it."""
    found = local_.find_status(app.local_state)
    app.out.record(found)
    return found.running


# Options behind the program's name are the program's.
@local.command("exec", context_settings={"allow_interspersed_args": False})
@click.argument("command", nargs=-1, required=True, type=click.UNPROCESSED)
@click.pass_obj
def execute(app: App, command: tuple[str, ...]) -> None:
    """Run a program against the embedded AWS.

    `twobuckets local exec aws s3 ls` starts the embedded AWS when it does not run. Endpoint, region
    and credentials are in the program's environment, and none of your own.

    Any AWS CLI, s5cmd, rclone (`:s3:BUCKET`), boto3 and the SDKs that know `AWS_ENDPOINT_URL` work
    as they are. A program that knows none of it fails instead of reaching AWS: whatever leaves this
    machine has to pass a proxy that is closed. One that ignores proxies too gets as far as AWS's
    door, with a key that is valid only here.
    """
    program = shutil.which(command[0])
    if program is None:
        raise NotFoundError(
            f"Could not run {command[0]}: there is no such program on the PATH",
            hint="The AWS CLI is `aws`: `pip install awscli` installs it.",
        )
    server, _ = local_.ensure_running(app.local_state, environ=app.environ)
    call = local_.call_of(server, command, app.environ, closed_port=local_.reserve_closed_port())
    os.execve(program, call.arguments, call.environment)  # noqa: S606 - what it is for
