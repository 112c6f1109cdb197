"""`twobuckets get`: a staged or archived file, into a file."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import click

from twobuckets.cli import command, completes
from twobuckets.cli.options import RANGE, place_option, version_option
from twobuckets.cli.records import ReadSummary
from twobuckets.lists import published_file

if TYPE_CHECKING:
    from twobuckets.cli.app import App
    from twobuckets.pipeline.reading import ByteRange


@command("get")
@click.argument("key", shell_complete=completes("staged_or_archived_keys"))
@click.argument("file", type=click.Path(path_type=Path), shell_complete=completes("files"))
@place_option
@version_option
@click.option("--range", "asked", type=RANGE, metavar="BYTES", help="0-999, 1MiB- or -500.")
@click.option("--overwrite", is_flag=True, help="Replace FILE if it is there.")
@click.pass_obj
def get(
    app: App,
    key: str,
    file: Path,
    place: str | None,
    version_id: str | None,
    asked: ByteRange | None,
    overwrite: bool,
) -> None:
    """Write a staged or archived file into FILE.

    Without --in it is the object in staging or, where there is none, the one in the archive. FILE
    is there whole or not at all; its name is
    yours: the key never becomes a path.

    \b
      twobuckets get in/report.csv report.csv
      twobuckets get in/report.csv before.csv --in archive --version-id ID
    """
    from twobuckets.pipeline.reading import find_object, iter_bytes

    with published_file(file, overwrite=overwrite) as stream:
        found = find_object(app.aws.s3, app.pipeline, key, place=place, version_id=version_id)
        read = 0
        with app.out.waiting(f"Reading {key} from {found.bucket}"):
            for block in iter_bytes(app.aws.s3, found, asked):
                stream.write(block)
                read += len(block)
    app.finish(ReadSummary.of(found, read_bytes=read, file=str(file)))
