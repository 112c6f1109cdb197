"""Lists a bucket lazily, several key ranges at a time, in key order and in bounded memory."""

import math
import re
import zlib
from collections.abc import Iterator
from time import monotonic
from typing import NamedTuple

from twobuckets.s3.answers import (
    AnswerError,
    ListedObject,
    ListedUpload,
    ListedVersion,
    decode_key,
)
from twobuckets.s3.engine import Request, Response, Sender, SendError
from twobuckets.s3.operations import (
    OBJECTS,
    PAGE_KEYS,
    UPLOADS,
    VERSIONS,
    VERSIONS_AND_RESTORES,
    Listing,
    Row,
)
from twobuckets.s3.ranges import Gap, Page, Ranges, Slice
from twobuckets.s3.xmltext import unescape

_KEYS = re.compile(rb"<Key>([^<]*)</Key>")
_FEWEST_OPEN = 4
_UNPACKED_PAGES = 96
"""Pages that wait as they are; a page more is packed to a twentieth, in less than a millisecond."""


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
    """What a request asked for, and when (monotonic seconds)."""

    gap: Gap
    is_page: bool
    at: float


def iter_objects(
    sender: Sender, bucket: str, *, prefix: str = "", start_after: str = "", most: int = 32
) -> Iterator[ListedObject]:
    """List the current objects in key order, as ListObjectsV2 does, many ranges at a time.

    An object that exists all the while is listed exactly once. `most` bounds the requests open at
    a time; 1 lists page after page. Raises ListingError.
    """
    return _list(sender, OBJECTS, bucket, prefix, start_after, most)


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
    listing = VERSIONS_AND_RESTORES if tells_restored else VERSIONS
    return _list(sender, listing, bucket, prefix, start_after, most)


def iter_uploads(
    sender: Sender, bucket: str, *, prefix: str = "", start_after: str = "", most: int = 32
) -> Iterator[ListedUpload]:
    """List the incomplete multipart uploads, by key, the oldest of a key first.

    Otherwise like iter_objects.
    """
    return _list(sender, UPLOADS, bucket, prefix, start_after, most)


def _list(
    sender: Sender, listing: Listing[Row], bucket: str, prefix: str, start_after: str, most: int
) -> Iterator[Row]:
    ranges = Ranges(prefix=prefix, start_after=start_after, most=min(most, _FEWEST_OPEN))
    flight = sender.send_all()
    sent: dict[Request, _Asked] = {}

    def absorb(request: Request, answer: Response | SendError) -> float:
        return _absorb(ranges, listing, bucket, sent.pop(request), answer)

    quickest = math.inf
    used, pages = 0.0, 0
    while not ranges.finished:
        for gap, keys in ranges.wanted():
            request = listing.page(bucket, prefix=prefix, after=gap.marker, most=keys or PAGE_KEYS)
            sent[request] = _Asked(gap, keys is None, monotonic())
            flight.add(request)
        part = ranges.take()
        if part is None:
            if ranges.finished:
                return
            quickest = min(quickest, absorb(*next(flight)))
            continue
        started_at = monotonic()
        yield from _read_rows(listing, bucket, part)
        used += monotonic() - started_at
        pages += 1
        # What arrived while the rows were used makes room for the next requests.
        while (arrived := flight.poll()) is not None:
            quickest = min(quickest, absorb(*arrived))
        # More requests at a time than pages are used meanwhile only make each of them slower.
        enough = 2 * quickest * pages / max(used, 1e-6)
        ranges.most = int(min(most, max(_FEWEST_OPEN, enough)))


def _read_rows(listing: Listing[Row], bucket: str, part: Slice) -> list[Row]:
    content = part.page.content
    assert isinstance(content, bytes)
    try:
        rows = listing.rows(zlib.decompress(content) if isinstance(content, _Packed) else content)
    except (AnswerError, KeyError, ValueError) as error:
        raise ListingError(bucket, error) from error
    end = part.end
    if end is None or (part.page.last_key is not None and part.page.last_key <= end):
        return rows
    return [row for row in rows if row.key <= end]


def _absorb(
    ranges: Ranges,
    listing: Listing[Row],
    bucket: str,
    asked: _Asked,
    answer: Response | SendError,
) -> float:
    """Take note of an answer; returns how many seconds S3 took for a page of it."""
    if isinstance(answer, SendError) or not answer.ok:
        raise ListingError(bucket, answer)
    try:
        page = _read_page(listing, answer.body)
        if ranges.waiting >= _UNPACKED_PAGES:
            page = page._replace(content=_Packed(zlib.compress(answer.body, 1)))
        ranges.absorb(asked.gap, page)
    except ValueError as error:
        raise ListingError(bucket, error) from error
    return monotonic() - asked.at if asked.is_page else math.inf


def _read_page(listing: Listing[Row], body: bytes) -> Page:
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
    return Page(first_key, last_key, listing.following(body, last_key), body)


def _read_key(body: bytes, at: int, *, encoded: bool) -> str:
    text = body[at + 5 : body.index(b"</Key>", at)].decode("utf-8", "replace")
    return decode_key(unescape(text), encoded=encoded)
