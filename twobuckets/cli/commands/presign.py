"""`twobuckets presign`: uploads for somebody else to make."""

from __future__ import annotations

import os
from dataclasses import replace
from datetime import timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Final

import click

from twobuckets.cli import command, completes
from twobuckets.cli.options import DURATION, SIZE
from twobuckets.cli.records import PresignSummary
from twobuckets.errors import TwoBucketsError, UsageError
from twobuckets.s3 import operations
from twobuckets.units import counted, format_bytes
from twobuckets.upload import presign as presign_
from twobuckets.upload.powershell import PowerShell

if TYPE_CHECKING:
    from twobuckets.aws.s3_access import S3Keys
    from twobuckets.cli.app import App
    from twobuckets.s3.engine import SigV4Signer
    from twobuckets.upload.page import UploadPage
    from twobuckets.upload.presign import Life, Terms
    from twobuckets.upload.shell import Shell


SHELLS: Final[dict[str, Shell]] = {"sh": presign_.CURL, "powershell": PowerShell()}

_STDOUT: Final = "-"


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
@click.option("--no-overwrite", is_flag=True, help="Refuse if the key is already in staging.")
@click.option(
    "--expires", "expires_in", type=DURATION, default="1h", show_default=True, help="At most 7d."
)
@click.option("--post", is_flag=True, help="Sign a form, which can have a size limit.")
@click.option("--max-size", "max_bytes", type=SIZE, help="The form's size limit.")
@click.option("--multipart", "parts", type=int, metavar="N", help="Sign an upload in N parts.")
@click.option("--page", "page_file", metavar="FILE", help="Write a web page that uploads.")
@click.option("--page-link", is_flag=True, help="Put that page into S3, and print its URL.")
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
    page_file: str | None,
    page_link: bool,
    shell_name: str,
) -> None:
    """Sign an upload of KEY to staging for somebody who has no credentials.

    Prints the command that makes it, with curl or for PowerShell. Whoever has its URL can upload,
    so treat it as a secret. Content type, size, SHA-256 and --no-overwrite become part of the
    signature: S3 refuses anything else. With --multipart the upload is created now, and stays
    incomplete until the last of the lines completes it: run them in order, as they are.

    With --page-link it prints a link instead: to a page that uploads a file in the browser, in
    parts, goes on after an interruption, and says when the file was processed. It needs no server.
    --page writes that page into a new FILE (- for standard output), to be opened from a disk.

    \b
      twobuckets presign in/rows.csv --file rows.csv --no-overwrite --expires 15m
      twobuckets presign in/photo.jpg --post --max-size 10MB
      twobuckets presign in/film.mov --page-link --expires 12h
    """
    if max_bytes is not None and not post:
        raise UsageError(
            "--max-size needs --post: S3 can limit the size of a form only",
            hint="A PUT can be bound to one exact size: --size or --file.",
        )
    if post and parts is not None:
        raise UsageError("--post and --multipart can't be combined: a form is one request")
    makes_page = page_link or page_file is not None
    if makes_page and (post or (page_link and page_file is not None)):
        raise UsageError("--page, --page-link and --post can't be combined")
    terms = presign_.terms_of(
        key,
        file=file,
        content_type=content_type,
        size_bytes=size_bytes,
        sha256=sha256,
        no_overwrite=no_overwrite,
        in_parts=makes_page or parts is not None,
    )
    bucket = app.pipeline.staging
    keys = app.aws.require_s3_keys()
    life = presign_.require_life(expires_in, keys_expire_at=keys.expire_at, now=app.now())
    signer = app.signer(keys, path_style=page_link)
    if makes_page:
        made = _make_page(app, signer, terms, life, parts=parts, file=page_file)
        notes = [*_limits(app, made, life), *_unknown_end(keys)]
        _finish(app, notes, requests=1, life=life)
        return
    shell = SHELLS[shell_name]
    if parts is not None:
        with app.connect() as sender:
            started, requests = presign_.presign_multipart(
                sender, signer, bucket, terms, life, parts=parts, shell=shell
            )
        app.out.record(started)
    elif post:
        requests = [
            presign_.presign_post(signer, bucket, terms, life, max_bytes=max_bytes, shell=shell)
        ]
    else:
        requests = [presign_.presign_put(signer, bucket, terms, life, shell=shell)]
    app.out.stream(requests)
    notes = [*_unbound(terms, post=post, parts=parts), *_unknown_end(keys)]
    _finish(app, notes, requests=len(requests), life=life)


def _finish(app: App, notes: list[str], *, requests: int, life: Life) -> None:
    for line in notes:
        app.out.note(line)
    app.finish(PresignSummary(requests=requests, expires_at=life.expires_at))


def _make_page(
    app: App, signer: SigV4Signer, terms: Terms, life: Life, *, parts: int | None, file: str | None
) -> UploadPage:
    """Make a page and put it where it was asked for."""
    from twobuckets.stack.artifacts import put_page
    from twobuckets.stack.project import find_place
    from twobuckets.upload.page import make_page

    def publish(page: UploadPage) -> UploadPage:
        assert page.html is not None
        if file == _STDOUT:
            return page
        if file is not None:
            _write_private(Path(file), page.html)
            return replace(page, html=None, file=file)
        bucket, key = put_page(app.aws.s3, find_place(app.aws), page.html)
        url = signer.presign(operations.get_object(bucket, key), expires_in=life.expires_in)
        return replace(page, html=None, url=url)

    made = make_page(
        app.aws.s3, signer, app.pipeline.staging, terms, life, parts=parts, publish=publish
    )
    if made.html is not None and not app.json:
        app.out.raw(made.html)
    else:
        app.out.record(made)
    return made


def _write_private(path: Path, html: str) -> None:
    """Write a page for its owner's eyes: what is signed in it is a secret.

    Never over a file, which may be the one that was meant to be sent, or one that others can read.
    """
    try:
        descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
        with os.fdopen(descriptor, "w", encoding="utf-8", newline="\n") as file:
            file.write(html)
    except OSError as error:
        raise TwoBucketsError(
            f"Could not write the page to {path}: {error.strerror}",
            hint="Give --page another FILE; the file to bind is for --file.",
        ) from error


def _limits(app: App, page: UploadPage, life: Life) -> list[str]:
    """Return what a page can't do, and what whoever has it can."""
    notes = [
        "Whoever has the page can upload one file with it, under this key: treat it as a secret.",
        "It works for as long as the credentials that signed it, and until its upload is complete.",
    ]
    if page.size_bytes is None:
        notes.append("The size is not bound: the file can have up to 5 TB; see --size, --file.")
    days = app.settings.abort_incomplete_uploads_days
    if life.expires_in > timedelta(days=days):
        notes.append(
            f"A stack's rule aborts incomplete uploads after {counted(days, 'day')}, and the page"
            " ends with its upload: see deploy.abort_incomplete_uploads_days."
        )
    if page.url is None:
        notes += _of_file(app)
    return notes


def _of_file(app: App) -> list[str]:
    """Return what a page that is opened from a disk needs of staging, where that is lacking."""
    from twobuckets.pipeline import cors
    from twobuckets.pipeline.buckets import BucketFacts
    from twobuckets.pipeline.lookups import CouldNotLook, Lookups
    from twobuckets.upload.page import ORIGIN_OF_FILES

    try:
        rules = BucketFacts(app.aws, Lookups()).cors(app.pipeline.staging)
    except CouldNotLook:
        return []
    if not cors.missing_methods(rules, ORIGIN_OF_FILES):
        return []
    # On a laptop * would be every page that is open there, and the embedded AWS refuses it.
    origin = ORIGIN_OF_FILES if app.settings.is_local else "*"
    return [
        (
            "Opened from a disk it can't upload yet: browsers give such a page the origin"
            f" {ORIGIN_OF_FILES}, which the CORS rules of {app.pipeline.staging} don't admit. Put"
            f' cors_origins = ["{origin}"] under [deploy] in twobuckets.toml and deploy, or use'
            " --page-link, which needs no rule."
        )
    ]


def _unbound(terms: Terms, *, post: bool, parts: int | None) -> list[str]:
    """Return what whoever has the URL is still free to do."""
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
    return notes


def _unknown_end(keys: S3Keys) -> list[str]:
    if keys.expire_at is not None or keys.current()[2] is None:
        return []
    return [
        "The credentials that signed it are temporary and don't say until when; it ends with them."
    ]
