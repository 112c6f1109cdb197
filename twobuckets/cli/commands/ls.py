"""`twobuckets ls`: what is in staging, in the archive, or uploaded in part."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime, timedelta
from functools import partial
from itertools import islice
from typing import TYPE_CHECKING, TypeVar

import click

from twobuckets.cli import command, completes
from twobuckets.cli.options import DURATION, SIZE
from twobuckets.cli.records import LinksSummary, LsSummary
from twobuckets.errors import UsageError
from twobuckets.units import counted

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator

    from twobuckets.cli.app import App
    from twobuckets.errors import TwoBucketsError
    from twobuckets.s3.answers import ListedObject, ListedUpload
    from twobuckets.s3.listing import ListingError
    from twobuckets.s3.uploads import IncompleteUpload

Row = TypeVar("Row")

# One page of S3's: the first rows are shown as soon as they are there.
_BATCH = 1000
# Of more uploads only who asks for it waits, and pays, for a request each.
_MOST_ASKED = 900


@dataclass(slots=True)
class _Sum:
    count: int = 0
    size_bytes: int = 0
    month_usd: float = 0.0
    unreadable: int = 0
    unasked: int = 0


@command("ls")
@click.argument("place", type=click.Choice(["staging", "archive", "uploads", "links"]))
@click.option(
    "--prefix",
    default="",
    metavar="TEXT",
    shell_complete=completes("listed_keys"),
    help="Only keys that begin with this.",
)
@click.option("--older-than", type=DURATION, help="Only what is older, such as 15m or 2d.")
@click.option("--newer-than", type=DURATION, help="Only what is newer.")
@click.option("--larger-than", type=SIZE, help="Only what is larger, such as 100MB.")
@click.option(
    "--parts", is_flag=True, help=f"Ask for the parts of more than {_MOST_ASKED} uploads, too."
)
@click.option("--null", "-0", is_flag=True, help="Keys only, each ended by a NUL; for a pipe.")
@click.pass_obj
def ls(
    app: App,
    place: str,
    prefix: str,
    older_than: timedelta | None,
    newer_than: timedelta | None,
    larger_than: int | None,
    parts: bool,
    null: bool,
) -> None:
    """List objects, or incomplete multipart uploads, in key order; or the upload page's links.

    `staging` shows the age of each object, `uploads` those of staging with their parts and bytes
    so far, what they cost a month, and when a lifecycle rule aborts them, `links` what each link
    allows and how many files are under its prefix. A pipe gets lines with tabs between the fields:
    time, bytes, key. Characters of a key that can't be seen are escaped there, such as \\n or
    \\u202e, and a backslash is doubled; --from-file reads both this and --null back.

    \b
      twobuckets ls staging --older-than 15m
      twobuckets ls archive --null --prefix scans/ | twobuckets reprocess --from-file -
    """
    from twobuckets.s3.keys import require_key
    from twobuckets.s3.listing import ListingError

    if null and (app.json or app.out.is_terminal):
        raise UsageError(
            "--null is for a pipe: keys go through it as they are",
            hint="Pipe it into `xargs -0` or `twobuckets reprocess --from-file -`.",
        )
    if prefix:
        require_key(prefix, where="--prefix: ")
    now = app.now()
    if place == "links":
        given = (prefix, older_than, newer_than, larger_than, null)
        _list_links(app, now, is_plain=not any(given))
        return
    chosen = _Chosen(
        before=now - older_than if older_than is not None else None,
        after=now - newer_than if newer_than is not None else None,
        larger_than=larger_than,
    )
    bucket = app.pipeline.archive if place == "archive" else app.pipeline.staging
    listing = "ListMultipartUploads" if place == "uploads" else "ListObjectsV2"
    try:
        if place == "uploads":
            most_asked = None if parts or larger_than is not None else _MOST_ASKED
            total = _list_uploads(app, bucket, prefix, chosen, now, most_asked, null=null)
        else:
            seen_at = now if place == "staging" else None
            total = _list_objects(app, bucket, prefix, chosen, seen_at, null=null)
    except ListingError as error:
        raise _explained(error, listing) from error
    if total.unreadable:
        app.out.warn(
            f"The parts of {counted(total.unreadable, 'upload')} could not be read: access denied. "
            "The identity in use needs s3:ListMultipartUploadParts."
        )
    if total.unasked and not null:
        app.out.note(
            f"The parts of {counted(total.unasked, 'more upload')} were not asked for, a request "
            "each; --parts does it"
        )
    _finish(app, bucket, place, total)


def _list_links(app: App, now: datetime, *, is_plain: bool) -> None:
    from twobuckets.links.listing import iter_links
    from twobuckets.s3.listing import ListingError

    if not is_plain:
        raise UsageError("ls links takes no option that chooses: it shows all of them")
    page, count = app.upload_page(), 0
    try:
        with app.connect() as sender:
            for link in iter_links(app.aws.s3, sender, page, app.pipeline, now=now):
                app.out.record(link)
                count += 1
    except ListingError as error:
        raise _explained(error, "ListObjectsV2") from error
    if app.json:
        app.finish(LinksSummary(count))
    else:
        app.out.note(f"{counted(count, 'link')} to {page.url}")


@dataclass(frozen=True, slots=True)
class _Chosen:
    """Which rows are asked for."""

    before: datetime | None
    after: datetime | None
    larger_than: int | None

    @property
    def is_all(self) -> bool:
        return self.before is None and self.after is None and self.larger_than is None

    def has(self, at: datetime, size_bytes: int | None) -> bool:
        """Tell whether something of this time and size is asked for; None is of any size."""
        return (
            (self.before is None or at <= self.before)
            and (self.after is None or at >= self.after)
            and (self.larger_than is None or size_bytes is None or size_bytes > self.larger_than)
        )


def _list_objects(
    app: App, bucket: str, prefix: str, chosen: _Chosen, now: datetime | None, *, null: bool
) -> _Sum:
    from twobuckets.cli import rows
    from twobuckets.s3.listing import iter_objects

    write: Callable[[list[ListedObject]], str]
    if app.json:
        write = lambda batch: rows.object_json(batch, now=now)  # noqa: E731
    elif app.out.is_terminal:
        write = lambda batch: rows.object_table(batch, now=now)  # noqa: E731
    else:
        keys = rows.KeyWriter((app.pipeline.staging, app.pipeline.archive))
        write = lambda batch: rows.object_lines(batch, keys)  # noqa: E731
    total, prices = _Sum(), app.prices
    by_class: dict[str, int] = {}
    with app.connect() as sender, app.out.bulk():
        for batch in _batches(iter_objects(sender, bucket, prefix=prefix)):
            if not chosen.is_all:
                batch = [o for o in batch if chosen.has(o.modified_at, o.size_bytes)]
            total.count += len(batch)
            for name in {o.storage_class for o in batch}:
                size = sum([o.size_bytes for o in batch if o.storage_class == name])
                by_class[name] = by_class.get(name, 0) + size
            if null:
                app.out.raw(rows.null_keys(batch))
            else:
                app.out.lines(write(batch))
    total.size_bytes = sum(by_class.values())
    total.month_usd = sum(prices.month_usd(size, name) for name, size in by_class.items())
    return total


def _list_uploads(
    app: App,
    bucket: str,
    prefix: str,
    chosen: _Chosen,
    now: datetime,
    most_asked: int | None,
    *,
    null: bool,
) -> _Sum:
    from twobuckets.cli import rows
    from twobuckets.pipeline.facts import Facts
    from twobuckets.s3.uploads import iter_incomplete_uploads

    total, prices = _Sum(), app.prices
    facts = Facts(app.aws, app.pipeline, now, runs_rules=not app.settings.is_local)
    ends = partial(facts.end_of_upload, bucket)

    keys = rows.KeyWriter((app.pipeline.staging, app.pipeline.archive))

    def wanted(upload: ListedUpload) -> bool:
        return chosen.has(upload.initiated_at, None)

    def write(batch: list[IncompleteUpload]) -> str:
        if app.json:
            return rows.upload_json(batch, now=now, prices=prices, ends=ends)
        if app.out.is_terminal:
            return rows.upload_table(batch, now=now, prices=prices, ends=ends)
        return rows.upload_lines(batch, keys, ends=ends)

    with app.connect() as sender, app.out.bulk():
        uploads = iter_incomplete_uploads(
            sender, bucket, prefix=prefix, wanted=wanted, most_asked=most_asked
        )
        for batch in _batches(uploads):
            batch = [u for u in batch if chosen.has(u.initiated_at, u.stored_bytes)]
            total.count += len(batch)
            for upload in batch:
                if upload.stored_bytes is None:
                    total.unreadable += upload.was_asked
                    total.unasked += not upload.was_asked
                    continue
                total.size_bytes += upload.stored_bytes
                total.month_usd += prices.month_usd(upload.stored_bytes, upload.storage_class)
            if null:
                app.out.raw(rows.null_keys(batch))
            else:
                app.out.lines(write(batch))
    return total


def _batches(rows: Iterable[Row]) -> Iterator[list[Row]]:
    iterator = iter(rows)
    while batch := list(islice(iterator, _BATCH)):
        yield batch


def _finish(app: App, bucket: str, place: str, total: _Sum) -> None:
    if app.json:
        summary = LsSummary(bucket, total.count, total.size_bytes, round(total.month_usd, 6))
        app.finish(summary)
        return
    from twobuckets.prices import format_usd
    from twobuckets.units import format_bytes

    things = counted(total.count, "incomplete upload" if place == "uploads" else "object")
    app.out.note(
        f"{things}, {format_bytes(total.size_bytes)} in {bucket}, "
        f"{format_usd(total.month_usd)} a month at list price"
    )


def _explained(error: ListingError, operation: str) -> TwoBucketsError:
    from twobuckets.s3.refusals import explain

    return explain(error.reason, operation, f"list the bucket {error.bucket}")
