"""`twobuckets link`: links that open the upload page."""

from __future__ import annotations

from datetime import timedelta
from typing import TYPE_CHECKING

import click

from twobuckets.aws import attempt
from twobuckets.cli import command
from twobuckets.cli.options import DURATION, SIZE
from twobuckets.cli.records import LinkSummary
from twobuckets.errors import UsageError
from twobuckets.units import format_duration

if TYPE_CHECKING:
    from twobuckets.cli.app import App


@command("link")
@click.argument("ids", nargs=-1, metavar="[ID]...")
@click.option("--prefix", metavar="TEXT", help="Where its files go; by default links/ID/.")
@click.option(
    "--expires", "expires_in", type=DURATION, default="7d", show_default=True, help="How long."
)
@click.option(
    "--max-size",
    "max_bytes",
    type=SIZE,
    default="5GiB",
    show_default=True,
    help="The largest file that it takes.",
)
@click.option("--max-files", type=int, metavar="N", help="How many files it takes; any number.")
@click.option("--types", metavar="LIST", default="", help="Extensions, such as csv,pdf; all.")
@click.option("--title", metavar="TEXT", default="", help="The page's title for it.")
@click.option("--revoke", "revokes", is_flag=True, help="End the links with these ids.")
@click.pass_obj
def link(
    app: App,
    ids: tuple[str, ...],
    prefix: str | None,
    expires_in: timedelta,
    max_bytes: int,
    max_files: int | None,
    types: str,
    title: str,
    revokes: bool,
) -> None:
    """Make a link to the stack's upload page, and print its URL.

    Whoever has the URL can add files under the prefix until it expires, and can't read, list or
    overwrite anything: treat it as a secret. Without --max-files they can send as many as they
    like, which you pay for. Nobody can show the URL again; `ls links` shows the links there are.

    \b
      twobuckets link --prefix acme/ --expires 14d --title "Files for Acme"
      twobuckets link --max-files 1 --max-size 2GiB --types mov,mp4
      twobuckets link --revoke 3f9a1c22d0b7
    """
    from twobuckets.broker.grants import CACHE_SECONDS
    from twobuckets.links.minting import mint, revoke

    if ids and not revokes:
        raise UsageError("Ids of links are for --revoke", hint="A new link needs none.")
    if revokes and not ids:
        raise UsageError(
            "--revoke needs the ids of links", hint="`twobuckets ls links` shows them."
        )
    page = app.upload_page()
    if revokes:
        ended = revoke(app.aws.s3, page, ids)
        app.out.stream(ended)
        life = format_duration(app.settings.page_signature_life)
        app.out.note(
            f"It ends within {CACHE_SECONDS} seconds; what was signed until then works for up to"
            f" {life}."
        )
        app.finish(LinkSummary(minted=0, revoked=len(ended)))
        return
    with attempt("find out whose credentials these are"):
        identity = app.aws.sts.get_caller_identity()["Arn"]
    minted = mint(
        app.aws.s3,
        page,
        prefix=prefix,
        expires_in=expires_in,
        longest=app.settings.page_longest_link,
        max_bytes=max_bytes,
        max_files=max_files,
        types=[kind for kind in types.split(",") if kind.strip()],
        title=title,
        made_by=identity,
        now=app.now(),
    )
    app.out.record(minted)
    if max_files is None:
        app.out.note("It takes any number of files until it expires; see --max-files.")
    app.finish(LinkSummary(minted=1, revoked=0))
