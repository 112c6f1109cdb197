"""Lists a bucket lazily, several key ranges at a time, in key order and in bounded memory."""

import math
import re
import zlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from time import monotonic
from typing import Generic, NamedTuple, TypeVar

from twobuckets.s3.answers import (
    AnswerError,
    ListedObject,
    ListedUpload,
    ListedVersion,
    decode_key,
    parse_objects,
    parse_uploads,
    parse_versions,
)
from twobuckets.s3.engine import Request, Response, Sender, SendError
from twobuckets.s3.ranges import Gap, Marker, Page, Ranges, Slice
from twobuckets.s3.xmltext import find_text, unescape

PAGE_KEYS = 1000
"""S3 gives no more on a page (S3 API reference, ListObjectsV2, MaxKeys)."""

_KEYS = re.compile(rb"<Key>([^<]*)</Key>")
_FEWEST_OPEN = 4
_UNPACKED_PAGES = 96
"""Pages that wait as they are; a page more is packed to a twentieth, in less than a millisecond."""

Row = TypeVar("Row", ListedObject, ListedVersion, ListedUpload)


class ListingError(Exception):
    """A listing could not go on: S3's answer, or the error that took its place."""

    def __init__(self, bucket: str, reason: Response | Exception) -> None:
        super().__init__(bucket, reason)
        self.bucket = bucket
        self.reason = reason

    def __str__(self) -> str:
        if isinstance(self.reason, Response):
            said = self.reason.code or f"status {self.reason.status}"
            return f"{said}: {self.reason.message}" if self.reason.message else said
        return str(self.reason)


class _Packed(bytes):
    """A page that waits compressed."""


class _Asked(NamedTuple):
    """What was asked for, as a request's tag."""

    gap: Gap
    is_page: bool
    at: float


class _Names(NamedTuple):
    """How one listing operation calls its parameters and the parts of its answer."""

    query: tuple[tuple[str, str], ...]
    most: str
    after_key: str
    after_id: str
    next_id: bytes
    headers: tuple[tuple[str, str], ...] = ()


@dataclass(frozen=True, slots=True)
class _Kind(Generic[Row]):
    names: _Names
    parse: Callable[[bytes], list[Row]]
    order: Callable[[Row], tuple[str, bool]] | None = None


_OBJECTS = _Kind(_Names((("list-type", "2"),), "max-keys", "start-after", "", b""), parse_objects)
_VERSIONS = _Kind(
    _Names(
        (("versions", ""),), "max-keys", "key-marker", "version-id-marker", b"NextVersionIdMarker"
    ),
    parse_versions,
    # Some implementations list all delete markers after all versions.
    lambda row: (row.key, not row.is_latest),
)
_VERSIONS_AND_RESTORES = replace(
    _VERSIONS,
    names=_VERSIONS.names._replace(
        # (S3 API reference, ListObjectVersions)
        headers=(("x-amz-optional-object-attributes", "RestoreStatus"),)
    ),
)
_UPLOADS = _Kind(
    _Names(
        (("uploads", ""),), "max-uploads", "key-marker", "upload-id-marker", b"NextUploadIdMarker"
    ),
    parse_uploads,
    lambda row: (row.key, False),
)


def iter_objects(
    sender: Sender, bucket: str, *, prefix: str = "", start_after: str = "", most: int = 32
) -> Iterator[ListedObject]:
    """List the current objects in key order, as ListObjectsV2 does, many ranges at a time.

    An object that exists all the while is listed exactly once. `most` bounds the requests open at
    a time; 1 lists page after page. Raises ListingError.
    """
    return _list(sender, _OBJECTS, bucket, prefix, start_after, most)


def iter_versions(
    sender: Sender,
    bucket: str,
    *,
    prefix: str = "",
    start_after: str = "",
    most: int = 32,
    tells_restored: bool = False,
) -> Iterator[ListedVersion]:
    """List all versions and delete markers, by key, the newest of a key first.

    With `tells_restored`, S3 is asked what of it is restored. Otherwise like iter_objects.
    """
    kind = _VERSIONS_AND_RESTORES if tells_restored else _VERSIONS
    return _list(sender, kind, bucket, prefix, start_after, most)


def iter_uploads(
    sender: Sender, bucket: str, *, prefix: str = "", start_after: str = "", most: int = 32
) -> Iterator[ListedUpload]:
    """List the incomplete multipart uploads, by key, the oldest of a key first.

    Otherwise like iter_objects.
    """
    return _list(sender, _UPLOADS, bucket, prefix, start_after, most)


def _list(
    sender: Sender, kind: _Kind[Row], bucket: str, prefix: str, start_after: str, most: int
) -> Iterator[Row]:
    ranges = Ranges(prefix=prefix, start_after=start_after, most=min(most, _FEWEST_OPEN))
    flight = sender.send_all()
    quickest = math.inf
    used, pages = 0.0, 0
    while not ranges.finished:
        for gap, keys in ranges.wanted():
            flight.add(_ask(kind.names, bucket, prefix, gap, keys))
        part = ranges.take()
        if part is None:
            if ranges.finished:
                return
            quickest = min(quickest, _absorb(ranges, kind.names, *next(flight)))
            continue
        started_at = monotonic()
        yield from _read_rows(kind, bucket, part)
        used += monotonic() - started_at
        pages += 1
        # What arrived while the rows were used makes room for the next requests.
        while (arrived := flight.poll()) is not None:
            quickest = min(quickest, _absorb(ranges, kind.names, *arrived))
        # More requests at a time than pages are used meanwhile only make each of them slower.
        enough = 2 * quickest * pages / max(used, 1e-6)
        ranges.most = int(min(most, max(_FEWEST_OPEN, enough)))


def _read_rows(kind: _Kind[Row], bucket: str, part: Slice) -> list[Row]:
    content = part.page.content
    assert isinstance(content, bytes)
    try:
        rows = kind.parse(zlib.decompress(content) if isinstance(content, _Packed) else content)
    except (AnswerError, KeyError, ValueError) as error:
        raise ListingError(bucket, error) from error
    if kind.order is not None:
        rows.sort(key=kind.order)
    end = part.end
    if end is None or (part.page.last_key is not None and part.page.last_key <= end):
        return rows
    return [row for row in rows if row.key <= end]


def _ask(names: _Names, bucket: str, prefix: str, gap: Gap, keys: int | None) -> Request:
    query = [
        *names.query,
        ("encoding-type", "url"),
        (names.most, str(keys or PAGE_KEYS)),
    ]
    if prefix:
        query.append(("prefix", prefix))
    if gap.marker.key:
        query.append((names.after_key, gap.marker.key))
    if gap.marker.id:
        query.append((names.after_id, gap.marker.id))
    return Request(
        "GET",
        bucket,
        query=tuple(query),
        headers=names.headers,
        tag=_Asked(gap, keys is None, monotonic()),
    )


def _absorb(ranges: Ranges, names: _Names, request: Request, answer: Response | SendError) -> float:
    """Take note of an answer; returns how many seconds S3 took for a page of it."""
    asked = request.tag
    assert isinstance(asked, _Asked)
    if isinstance(answer, SendError) or not answer.ok:
        raise ListingError(request.bucket, answer)
    try:
        page = _read_page(names, answer.body)
        if ranges.waiting >= _UNPACKED_PAGES:
            page = page._replace(content=_Packed(zlib.compress(answer.body, 1)))
        ranges.absorb(asked.gap, page)
    except ValueError as error:
        raise ListingError(request.bucket, error) from error
    return monotonic() - asked.at if asked.is_page else math.inf


def _read_page(names: _Names, body: bytes) -> Page:
    """Read of a page what is needed to go on; its rows are parsed when it is their turn."""
    encoded = b"<EncodingType>url</EncodingType>" in body
    first = body.find(b"<Key>")
    if first < 0:
        return Page(None, None, None, body)
    if b"<DeleteMarker>" in body or b"<Upload>" in body:
        # Some implementations list delete markers after all versions, or uploads as they come.
        keys = [decode_key(unescape(key.decode()), encoded=encoded) for key in _KEYS.findall(body)]
        first_key, last_key = min(keys), max(keys)
    else:
        first_key = _read_key(body, first, encoded=encoded)
        last_key = _read_key(body, body.rfind(b"<Key>"), encoded=encoded)
    following = None
    if b"<IsTruncated>true</IsTruncated>" in body:
        following = Marker(last_key)
        if names.next_id:
            following = Marker(
                decode_key(find_text(body, b"NextKeyMarker"), encoded=encoded) or last_key,
                find_text(body, names.next_id),
            )
    return Page(first_key, last_key, following, body)


def _read_key(body: bytes, at: int, *, encoded: bool) -> str:
    text = body[at + 5 : body.index(b"</Key>", at)].decode("utf-8", "replace")
    return decode_key(unescape(text), encoded=encoded)
