"""`twobuckets presign`: uploads for somebody else to make."""

from __future__ import annotations

from datetime import timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Final

import click

from twobuckets.cli import command, completes
from twobuckets.cli.options import DURATION, SIZE
from twobuckets.cli.records import PresignSummary
from twobuckets.errors import UsageError
from twobuckets.units import format_bytes
from twobuckets.upload import presign as presign_
from twobuckets.upload.powershell import PowerShell

if TYPE_CHECKING:
    from twobuckets.aws.s3_access import S3Keys
    from twobuckets.cli.app import App
    from twobuckets.upload.presign import Terms
    from twobuckets.upload.shell import Shell


SHELLS: Final[dict[str, Shell]] = {"sh": presign_.CURL, "powershell": PowerShell()}


class _Sha256(click.ParamType[str]):
    name = "sha256"

    def convert(self, value: str, param: click.Parameter | None, ctx: click.Context | None) -> str:
        try:
            return presign_.parse_sha256(value)
        except ValueError as error:
            self.fail(str(error), param, ctx)


@command("presign")
@click.argument("key", shell_complete=completes("listed_keys"))
@click.option("--file", type=click.Path(path_type=Path), help="Bind this file's size and SHA-256.")
@click.option("--content-type", metavar="TYPE", help="Bind this instead of what the name suggests.")
@click.option("--size", "size_bytes", type=SIZE, help="Bind this exact size.")
@click.option("--sha256", type=_Sha256(), metavar="HEX", help="Bind this SHA-256.")
@click.option("--no-overwrite", is_flag=True, help="Refuse if the key waits in staging.")
@click.option(
    "--expires", "expires_in", type=DURATION, default="1h", show_default=True, help="At most 7d."
)
@click.option("--post", is_flag=True, help="Sign a form, which can have a size limit.")
@click.option("--max-size", "max_bytes", type=SIZE, help="The form's size limit.")
@click.option("--multipart", "parts", type=int, metavar="N", help="Sign an upload in N parts.")
@click.option(
    "--shell",
    "shell_name",
    type=click.Choice(list(SHELLS)),
    default="sh",
    show_default=True,
    help="Whose command lines to print.",
)
@click.pass_obj
def presign(
    app: App,
    key: str,
    file: Path | None,
    content_type: str | None,
    size_bytes: int | None,
    sha256: str | None,
    no_overwrite: bool,
    expires_in: timedelta,
    post: bool,
    max_bytes: int | None,
    parts: int | None,
    shell_name: str,
) -> None:
    """Sign an upload of KEY to staging for somebody who has no credentials.

    Prints the command that makes it, with curl or for PowerShell. Whoever has its URL can upload,
    so treat it as a secret. Content type, size, SHA-256 and --no-overwrite become part of the
    signature: S3 refuses anything else. With --multipart the upload is created now, and stays
    incomplete until the last of the lines completes it: run them in order, as they are.

    \b
      twobuckets presign in/rows.csv --file rows.csv --no-overwrite --expires 15m
      twobuckets presign in/photo.jpg --post --max-size 10MB
    """
    if max_bytes is not None and not post:
        raise UsageError(
            "--max-size needs --post: S3 can limit the size of a form only",
            hint="A PUT can be bound to one exact size: --size or --file.",
        )
    if post and parts is not None:
        raise UsageError("--post and --multipart can't be combined: a form is one request")
    terms = presign_.terms_of(
        key,
        file=file,
        content_type=content_type,
        size_bytes=size_bytes,
        sha256=sha256,
        no_overwrite=no_overwrite,
        in_parts=parts is not None,
    )
    bucket = app.pipeline.staging
    keys = app.aws.require_s3_keys()
    life = presign_.require_life(expires_in, keys_expire_at=keys.expire_at, now=app.now())
    signer = app.signer(keys)
    shell = SHELLS[shell_name]
    if parts is not None:
        started, requests = presign_.presign_multipart(
            app.aws.s3, signer, bucket, terms, life, parts=parts, shell=shell
        )
        app.out.record(started)
    elif post:
        requests = [
            presign_.presign_post(signer, bucket, terms, life, max_bytes=max_bytes, shell=shell)
        ]
    else:
        requests = [presign_.presign_put(signer, bucket, terms, life, shell=shell)]
    app.out.stream(requests)
    for line in _unbound(terms, keys, post=post, parts=parts):
        app.out.note(line)
    app.finish(PresignSummary(requests=len(requests), expires_at=life.expires_at))


def _unbound(terms: Terms, keys: S3Keys, *, post: bool, parts: int | None) -> list[str]:
    """Return what whoever has the URL is still free to do, and what else there is to know."""
    notes = []
    if parts is not None:
        notes.append(
            "The upload is incomplete, and its parts cost money, until it is completed or aborted."
        )
    if terms.size_bytes is None and not post:
        most = format_bytes(presign_.MOST_PUT_BYTES)
        what = "each part" if parts is not None else "the upload"
        notes.append(f"The size is not bound: {what} can have up to {most}; see --size, --file.")
    if not terms.no_overwrite:
        notes.append(
            "It can be used again until it expires, and replaces what is there"
            + ("." if post else "; see --no-overwrite.")
        )
    if keys.expire_at is None and keys.current()[2] is not None:
        notes.append(
            "The credentials that signed it are temporary and don't say until when; it ends with"
            " them."
        )
    return notes
