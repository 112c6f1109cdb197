"""`twobuckets cat`: the bytes of a staged or archived file."""

from __future__ import annotations

import base64
import codecs
from typing import TYPE_CHECKING

import click

from twobuckets.cli import command, completes
from twobuckets.cli.options import RANGE, place_option, version_option
from twobuckets.cli.records import ContentBlock, ReadSummary

if TYPE_CHECKING:
    from twobuckets.cli.app import App
    from twobuckets.pipeline.reading import ByteRange


@command("cat")
@click.argument("key", shell_complete=completes("staged_or_archived_keys"))
@place_option
@version_option
@click.option("--range", "asked", type=RANGE, metavar="BYTES", help="0-999, 1MiB- or -500.")
@click.pass_obj
def cat(
    app: App, key: str, place: str | None, version_id: str | None, asked: ByteRange | None
) -> None:
    """Write the bytes of a staged or archived file to standard output.

    Without --in it is the object in staging or, where there is none, the one in the archive. A pipe
    gets the bytes as they are; on a terminal, whatever is not text or would
    act on it is shown as a mark.

    \b
      twobuckets cat in/report.csv | head
      twobuckets cat in/big.log --range -10KiB
    """
    from twobuckets.pipeline.reading import find_object, iter_bytes

    found = find_object(app.aws.s3, app.pipeline, key, place=place, version_id=version_id)
    blocks = iter_bytes(app.aws.s3, found, asked)
    read = 0
    decoder = codecs.getincrementaldecoder("utf-8")("replace")
    for block in blocks:
        if app.json:
            app.out.record(ContentBlock(read, base64.b64encode(block).decode("ascii")))
        elif app.out.is_terminal:
            app.out.lines(decoder.decode(block))
        else:
            app.out.raw_bytes(block)
        read += len(block)
    app.finish(ReadSummary.of(found, read_bytes=read, file=None))
