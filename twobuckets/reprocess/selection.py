"""Which objects are meant: lists of keys in the forms that people and tools write them.

One entry a line or row: keys as `ls` writes them into a pipe, with escapes or each ended by a NUL,
our own JSON lines (doctor's findings, outcomes, the failures
that `upload --failed-to` and `reprocess --failed-to` write), CSV manifests as S3 Batch Operations
takes them, and S3 Inventory reports, plain or gzip. The form is told from the content.
"""

from __future__ import annotations

import csv
import gzip
import io
import itertools
import json
from dataclasses import dataclass
from typing import TYPE_CHECKING, BinaryIO, Final
from urllib.parse import unquote_plus

from twobuckets.errors import UsageError
from twobuckets.s3.keys import LONGEST_KEY_BYTES, require_key
from twobuckets.text import unescaped

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from _typeshed import SupportsRead, WriteableBuffer

_GZIP_MAGIC: Final = b"\x1f\x8b"
# A first key and the NUL at its end.
_HEAD_BYTES: Final = LONGEST_KEY_BYTES + 1
_NULL_BLOCK_BYTES: Final = 64 * 1024


@dataclass(frozen=True, slots=True)
class Wanted:
    """A key that shall be processed again, and which of its archived versions if not the newest."""

    key: str
    version_id: str | None = None


def read_wanted(
    stream: SupportsRead[bytes], *, name: str, buckets: tuple[str, ...]
) -> Iterator[Wanted]:
    """Yield the keys that a list names, in its order, with what it says of their versions.

    `name` is what errors call the list. Rows of a manifest or report of another bucket than one of
    `buckets` are refused: they were made for another pipeline. Raises UsageError naming the line.
    """
    head, stream = _look_ahead(stream)
    if head.startswith(_GZIP_MAGIC):
        try:
            head, stream = _look_ahead(gzip.GzipFile(fileobj=stream))
        except (OSError, EOFError) as error:
            raise UsageError(f"Could not read {name}: not a whole gzip file: {error}") from None
    try:
        yield from _parse(stream, head, name, buckets)
    except UnicodeDecodeError as error:
        raise UsageError(f"Could not read {name}: not UTF-8 text: {error.reason}") from None
    except (OSError, EOFError) as error:
        raise UsageError(f"Could not read {name}: {error}") from None


class _Prepended(io.RawIOBase):
    """A stream with what was read of it in front again."""

    def __init__(self, head: bytes, rest: SupportsRead[bytes]) -> None:
        self._head = head
        self._rest = rest

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: WriteableBuffer) -> int:
        view = memoryview(buffer)
        data = self._head[: len(view)] or self._rest.read(len(view))
        self._head = self._head[len(view) :]
        view[: len(data)] = data
        return len(data)


def _look_ahead(stream: SupportsRead[bytes]) -> tuple[bytes, io.BufferedReader]:
    """Return what a list begins with, as much as tells its form, and the whole of it."""
    head = b""
    while len(head) < _HEAD_BYTES and (more := stream.read(_HEAD_BYTES - len(head))):
        head += more
    return head, io.BufferedReader(_Prepended(head, stream))


def _parse(stream: BinaryIO, head: bytes, name: str, buckets: tuple[str, ...]) -> Iterator[Wanted]:
    if b"\0" in head:
        return _parse_null(stream, name)
    first = head.lstrip(b"\xef\xbb\xbf").split(b"\n", 1)[0].strip()
    if first.startswith(b"{"):
        return _parse_json(stream, name)
    # utf-8-sig drops the mark that spreadsheets write; newline="" keeps what csv has to see.
    text = io.TextIOWrapper(stream, encoding="utf-8-sig", newline="")
    if _is_manifest(first, buckets):
        return _parse_manifest(text, name, buckets)
    return _parse_lines(text, name)


def _is_manifest(first: bytes, buckets: tuple[str, ...]) -> bool:
    """Tell a manifest by its first field: a bucket of ours, or a quoted bucket name."""
    try:
        row = next(csv.reader([first.decode("utf-8")]), [])
    except (UnicodeDecodeError, csv.Error):
        return False
    if len(row) < 2:
        return False
    return row[0] in buckets or row[0].lower() == "bucket" or first.startswith(b'"')


def _parse_lines(lines: Iterable[str], name: str) -> Iterator[Wanted]:
    for number, line in enumerate(lines, 1):
        # Only the line's end goes: blanks at a key's ends are part of the key.
        written = line.removesuffix("\n").removesuffix("\r")
        try:
            key = unescaped(written)
        except ValueError as error:
            raise UsageError(f"{name}, line {number}: {error}") from None
        if key:
            yield _checked(Wanted(key), name, number)


def _parse_null(stream: BinaryIO, name: str) -> Iterator[Wanted]:
    """Entries end with NUL and are keys to the letter."""
    rest = b""
    numbers = itertools.count(1)
    while block := stream.read(_NULL_BLOCK_BYTES):
        *whole, rest = (rest + block).split(b"\0")
        for key in filter(None, whole):
            yield _checked(Wanted(key.decode("utf-8")), name, next(numbers))
    if rest:
        yield _checked(Wanted(rest.decode("utf-8")), name, next(numbers))


def _parse_json(stream: BinaryIO, name: str) -> Iterator[Wanted]:
    for number, line in enumerate(stream, 1):
        if not line.strip():
            continue
        try:
            row = json.loads(line)
        except ValueError as error:
            raise UsageError(f"{name}, line {number}: not JSON: {error}") from None
        if not isinstance(row, dict):
            raise UsageError(f"{name}, line {number}: not a JSON object")
        if row.get("type") == "summary":
            continue
        # A finding that stands for many objects names them; one that concerns no object has none.
        objects = row.get("objects")
        for entry in objects if isinstance(objects, list) else [row]:
            if isinstance(entry, str):
                yield _checked(Wanted(entry), name, number)
            elif isinstance(entry, dict) and isinstance(entry.get("key"), str):
                yield _checked(Wanted(entry["key"]), name, number)


def _parse_manifest(text: Iterable[str], name: str, buckets: tuple[str, ...]) -> Iterator[Wanted]:
    """Rows are bucket, key, and perhaps a version id; keys are URL-encoded.

    Rule: S3 user guide, "Specifying a manifest", and "Amazon S3 Inventory": keys are URL-encoded
    in CSV.
    """
    rows = csv.reader(text)
    first = next(rows, None)
    if first is None:
        return
    columns = {"bucket": 0, "key": 1, "versionid": 2}
    if first[0].lower() == "bucket":
        columns = {title.lower().replace("_", ""): i for i, title in enumerate(first)}
        if "key" not in columns:
            raise UsageError(f"{name}: its first row has no column named Key")
    else:
        rows = itertools.chain([first], rows)  # type: ignore[assignment]
    version = columns.get("versionid")
    for number, row in enumerate(rows, 1):
        if not row:
            continue
        if len(row) <= columns["key"]:
            raise UsageError(f"{name}, row {number}: has no key")
        if row[columns["bucket"]] not in buckets:
            raise UsageError(
                f"{name}, row {number}: is about the bucket {row[columns['bucket']]}, but this "
                f"pipeline's are {' and '.join(buckets)}"
            )
        # In an inventory of all versions the third column is the version; in one of current
        # versions it is the size, which is never the form of a version id.
        version_id = row[version] if version is not None and len(row) > version else ""
        if version_id.isdecimal() or not version_id:
            version_id = ""
        yield _checked(Wanted(unquote_plus(row[columns["key"]]), version_id or None), name, number)


def _checked(wanted: Wanted, name: str, number: int) -> Wanted:
    require_key(wanted.key, where=f"{name}, line {number}: ")
    return wanted
