"""Rows of a listing as text, a batch at a time: a bucket can have millions.

A record each, and its view, would take longer than listing the bucket. Every function here returns
whole lines. Keys are made visible as everywhere; in JSON they are exact, and what a pipe
gets can be read back.
"""

from __future__ import annotations

import re
from datetime import UTC, datetime
from functools import lru_cache
from json.encoder import encode_basestring_ascii as quoted
from typing import TYPE_CHECKING

from twobuckets.pipeline.lifecycle import Clearing
from twobuckets.prices import format_usd
from twobuckets.text import escaped, visible
from twobuckets.units import counted, format_bytes, format_duration

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Sequence
    from typing import TypeAlias

    from twobuckets.pipeline.lifecycle import UploadEnd
    from twobuckets.prices import Prices
    from twobuckets.s3.answers import ListedObject
    from twobuckets.s3.uploads import IncompleteUpload

    Ends: TypeAlias = Callable[[IncompleteUpload], UploadEnd]

# Without a backslash, which is escaped as well.
_PLAIN_ROWS = re.compile(r"[\t\n -\[\]-~]*\Z")


class KeyWriter:
    """Writes keys as `--from-file` reads them back, whatever they hold.

    Alone on a line, a key must not look like the beginning of another form of list: JSON, or a
    manifest, whose rows begin with one of `buckets`. Its first character is an escape then.
    """

    def __init__(self, buckets: Iterable[str] = ()) -> None:
        names = "|".join(map(re.escape, ("bucket", *buckets)))
        self._begins_a_form = re.compile(rf' *(?:[{{"]|(?:{names}),)', re.IGNORECASE)
        self._any_does = re.compile(rf'\t *(?:[{{"]|(?:{names}),)', re.IGNORECASE)

    def write(self, key: str) -> str:
        """Return a key as one field of a line."""
        text = escaped(key)
        return f"\\x{ord(key[0]):02x}{text[1:]}" if self._begins_a_form.match(text) else text

    def are_plain(self, lines: str) -> bool:
        """Tell whether no key, each the last field of its line, needs an escape."""
        return bool(_PLAIN_ROWS.match(lines)) and not self._any_does.search(lines)


def null_keys(objects: Sequence[ListedObject | IncompleteUpload]) -> str:
    """Return the keys as they are, each ended by a NUL character."""
    return "".join([f"{o.key}\0" for o in objects])


def object_lines(objects: Sequence[ListedObject], keys: KeyWriter) -> str:
    """Return time, bytes and key of each object, separated by tabs."""
    lines = "".join([f"{_instant(o.modified_at)}\t{o.size_bytes}\t{o.key}\n" for o in objects])
    # One look at all of them: a key with a tab or line end of its own shows in the counts.
    if (
        keys.are_plain(lines)
        and lines.count("\n") == len(objects)
        and lines.count("\t") == 2 * len(objects)
    ):
        return lines
    return "".join(
        [f"{_instant(o.modified_at)}\t{o.size_bytes}\t{keys.write(o.key)}\n" for o in objects]
    )


def object_json(objects: Sequence[ListedObject], *, now: datetime | None = None) -> str:
    """Return each object as a line of JSON; with its age in seconds if `now` is given."""

    def age(o: ListedObject) -> str:
        return "" if now is None else f', "age": {(now - o.modified_at).total_seconds()}'

    return "".join(
        [
            f'{{"type": "object", "key": {quoted(o.key)}, "size_bytes": {o.size_bytes}, '
            f'"modified_at": "{_instant(o.modified_at)}", "etag": {quoted(o.etag)}, '
            f'"storage_class": {quoted(o.storage_class)}{age(o)}}}\n'
            for o in objects
        ]
    )


def object_table(objects: Sequence[ListedObject], *, now: datetime | None = None) -> str:
    """Return age (if `now` is given, else time), size and key of each object for a person."""

    def when(o: ListedObject) -> str:
        if now is None:
            return f"{o.modified_at.astimezone(UTC):%Y-%m-%d %H:%M:%SZ}"
        return f"{format_duration(now - o.modified_at):>8}"

    return "".join(
        [f"{when(o)}  {format_bytes(o.size_bytes):>10}  {visible(o.key)}\n" for o in objects]
    )


def upload_lines(uploads: Sequence[IncompleteUpload], keys: KeyWriter, *, ends: Ends) -> str:
    """Return the fields of each upload, separated by tabs; `-` stands for what is not known.

    They are start, parts, bytes, when it is aborted, initiator, upload id and key.
    """
    return "".join(
        [
            "\t".join(
                (
                    _instant(u.initiated_at),
                    _or_dash(u.parts),
                    _or_dash(u.stored_bytes),
                    _or_dash(_at(ends(u))),
                    visible(u.initiator) or "-",
                    visible(u.upload_id),
                    keys.write(u.key),
                )
            )
            + "\n"
            for u in uploads
        ]
    )


def upload_json(
    uploads: Sequence[IncompleteUpload], *, now: datetime, prices: Prices, ends: Ends
) -> str:
    """Return each upload as a line of JSON, with its age in seconds and its cost a month."""

    def text(value: str | None) -> str:
        return "null" if value is None else quoted(value)

    def number(value: float | None) -> str:
        return "null" if value is None else repr(value)

    return "".join(
        [
            f'{{"type": "incomplete-upload", "key": {quoted(u.key)}, '
            f'"upload_id": {quoted(u.upload_id)}, "initiated_at": "{_instant(u.initiated_at)}", '
            f'"age": {(now - u.initiated_at).total_seconds()}, '
            f'"initiator": {quoted(u.initiator)}, "storage_class": {quoted(u.storage_class)}, '
            f'"parts": {number(u.parts)}, "stored_bytes": {number(u.stored_bytes)}, '
            f'"cost_month_usd": {number(_month_usd(u, prices))}, '
            f'"abort_at": {text(_at(ends(u)))}, "abort_rule": {text(u.abort_rule)}, '
            f'"clearing": {text(ends(u).clearing)}}}\n'
            for u in uploads
        ]
    )


def upload_table(
    uploads: Sequence[IncompleteUpload], *, now: datetime, prices: Prices, ends: Ends
) -> str:
    """Return each upload on two lines for a person."""

    def held(u: IncompleteUpload) -> str:
        if u.parts is None or u.stored_bytes is None:
            return f"{'parts unknown':>39}"
        cost = format_usd(_month_usd(u, prices) or 0)
        parts = counted(u.parts, "part", "parts")
        return f"{parts:>12} {format_bytes(u.stored_bytes):>10} {cost + ' a month':>15}"

    return "".join(
        [
            f"{format_duration(now - u.initiated_at):>8} {held(u)}  {visible(u.key)}\n"
            f"{'':>9}by {visible(u.initiator) or '(unknown)'}, {_how_it_ends(ends(u))}, "
            f"id {visible(u.upload_id)}\n"
            for u in uploads
        ]
    )


def _at(end: UploadEnd) -> str | None:
    return None if end.at is None else _instant(end.at)


def _how_it_ends(end: UploadEnd) -> str:
    match end.clearing:
        case Clearing.BY_RULE:
            assert end.at is not None
            return f"aborted by a rule on {end.at.astimezone(UTC):%Y-%m-%d}"
        case Clearing.NONE:
            return "no rule aborts it"
        case Clearing.UNKNOWN:
            return "whether a rule aborts it is unknown"
        case Clearing.NOT_HERE:
            return "nothing aborts it on the embedded AWS"


def _month_usd(upload: IncompleteUpload, prices: Prices) -> float | None:
    if upload.stored_bytes is None:
        return None
    return round(prices.month_usd(upload.stored_bytes, upload.storage_class), 6)


def _or_dash(value: int | str | None) -> str:
    return "-" if value is None else str(value)


# Objects that came together have their seconds in common; the format costs as much as the rest.
@lru_cache(maxsize=4096)
def _instant(at: datetime) -> str:
    return at.isoformat(timespec="milliseconds").replace("+00:00", "Z")
