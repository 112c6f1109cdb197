"""`twobuckets init`: a new project."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import click

from twobuckets.artifact import starter
from twobuckets.cli import command
from twobuckets.cli.records import InitSummary
from twobuckets.text import shell_word

if TYPE_CHECKING:
    from twobuckets.cli.app import App


@command("init")
@click.argument("directory", default=".", type=click.Path(path_type=Path), metavar="[DIR]")
@click.option("--heavy", is_flag=True, help="Also a Dockerfile for jobs, for large files.")
@click.pass_obj
def init(app: App, directory: Path, heavy: bool) -> None:
    """Write twobuckets.toml and a processor.py to start from.

    DIR is created if it does not exist. Nothing is ever overwritten.

    \b
      twobuckets init demo
    """
    written = starter.start(directory, starter.HEAVY_FILES) if heavy else starter.start(directory)
    app.out.stream(written)
    for line in _next_steps(directory):
        app.out.note(line)
    app.finish(InitSummary(files=len(written)))


def _next_steps(directory: Path) -> list[str]:
    steps = (
        []
        if directory.resolve() == Path.cwd()
        else [f"cd {shell_word(str(directory), otherwise='DIR')}"]
    )
    steps += [
        "twobuckets --stack local deploy          # on this machine, without an AWS account",
        "twobuckets --stack local upload FILE --wait",
        "twobuckets deploy                        # on AWS",
    ]
    return ["Change processor.py to do what you need. Then:", *(f"  {step}" for step in steps)]
