"""`twobuckets doctor`: what is stuck, orphaned or broken, why, and what mends it."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

from twobuckets.cli import command
from twobuckets.cli.options import DURATION
from twobuckets.text import shell_word

if TYPE_CHECKING:
    from datetime import timedelta

    from twobuckets.cli.app import App


@command("doctor")
@click.option(
    "--older-than",
    type=DURATION,
    help="Age from which an object in staging is stuck.  [default: what the function's time-out "
    "and retries can take]",
)
@click.option(
    "--uploads-older-than",
    type=DURATION,
    default="1d",
    show_default=True,
    help="Age from which an incomplete upload is orphaned.",
)
@click.option("--check", "checks", multiple=True, metavar="NAME", help="Only this check or family.")
@click.option("--list-checks", is_flag=True, help="Show the checks and run none.")
@click.option(
    "--fail-on",
    type=click.Choice(["problem", "notice", "info"]),
    default="notice",
    show_default=True,
    help="Least severity that ends with status 3.",
)
@click.pass_obj
def doctor(
    app: App,
    older_than: timedelta | None,
    uploads_older_than: timedelta,
    checks: tuple[str, ...],
    list_checks: bool,
    fail_on: str,
) -> None:
    """Find what is stuck, orphaned or broken, and why.

    Changes nothing without --fix. Ends with status 0 when there is nothing to report, 3 when there
    is, 5 when something could not be looked at and nothing else was found.
    """
    import twobuckets.cli.views.doctor  # noqa: F401 - registers how findings look
    from twobuckets import doctor as room
    from twobuckets.doctor.findings import Severity
    from twobuckets.doctor.site import Site
    from twobuckets.doctor.summary import Tally

    if list_checks:
        app.out.stream(room.list_checks())
        return
    selected = room.select_checks(checks)
    site = Site(
        aws=app.aws,
        pipeline=app.pipeline,
        now=app.now(),
        older_than=older_than,
        uploads_older_than=uploads_older_than,
        program=_program(app),
        aws_cli=_aws_cli(app),
        cors_origins=app.settings.cors_origins,
    )
    tally = Tally(Severity(fail_on))
    for finding in room.diagnose(site, selected):
        tally.add(finding)
        app.out.record(finding)
    app.out.record(tally.summary(site.staged))
    click.get_current_context().exit(tally.exit_code)


def _program(app: App) -> str:
    """The beginning of a command of ours that means the same pipeline."""
    return _with_flags("twobuckets", app, ("stack", "config", "profile", "region", "endpoint_url"))


def _aws_cli(app: App) -> str:
    """The beginning of an AWS CLI command that means the same account and region."""
    return _with_flags("aws", app, ("profile", "region", "endpoint_url"))


def _with_flags(program: str, app: App, names: tuple[str, ...]) -> str:
    words = [program]
    for name in names:
        value = app.flags.get(name)
        if value is None and program == "aws":
            value = getattr(app.settings, name)
        if value is not None:
            words += [f"--{name.replace('_', '-')}", shell_word(value)]
    return " ".join(words)
