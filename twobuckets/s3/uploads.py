"""Incomplete multipart uploads with what they hold so far: one ListParts each, many at a time."""

import re
from collections.abc import Callable, Iterator, Sequence
from datetime import datetime
from email.utils import parsedate_to_datetime
from itertools import islice
from typing import NamedTuple

from twobuckets.s3.answers import ListedUpload
from twobuckets.s3.engine import Request, Response, Sender, SendError
from twobuckets.s3.listing import ListingError, iter_uploads
from twobuckets.s3.xmltext import find_text

# So many uploads are asked for their parts together, and then told in order.
_BATCH = 500
_SIZES = re.compile(rb"<Size>(\d+)</Size>")
_TIMES = re.compile(rb"<LastModified>([^<]+)</LastModified>")


class IncompleteUpload(NamedTuple):
    """An incomplete multipart upload and its parts so far.

    `parts` and `stored_bytes` are None where reading them is not allowed. `abort_at` is when a
    lifecycle rule will abort it, and `abort_rule` the rule's id; None where no rule applies.
    `newest_part_at` is None where there is no part.
    """

    key: str
    upload_id: str
    initiated_at: datetime
    initiator: str
    storage_class: str
    parts: int | None
    stored_bytes: int | None
    abort_at: datetime | None
    abort_rule: str | None
    newest_part_at: datetime | None = None


def iter_incomplete_uploads(
    sender: Sender,
    bucket: str,
    *,
    prefix: str = "",
    wanted: Callable[[ListedUpload], bool] = lambda _: True,
) -> Iterator[IncompleteUpload]:
    """Yield the incomplete uploads by key, the oldest of a key first, each with its parts so far.

    Parts are asked for only of those that are `wanted`. An upload that is completed or aborted in
    the meantime is left out. Raises ListingError.
    """
    listed = (upload for upload in iter_uploads(sender, bucket, prefix=prefix) if wanted(upload))
    while batch := list(islice(listed, _BATCH)):
        yield from (one for one in read_parts(sender, bucket, batch) if one is not None)


def read_parts(
    sender: Sender, bucket: str, uploads: Sequence[ListedUpload]
) -> list[IncompleteUpload | None]:
    """Return each upload with its parts so far, None where it is gone. Raises ListingError."""
    held = _read_parts(sender, bucket, uploads)
    return [
        IncompleteUpload(*upload, *held[number]) if number in held else None
        for number, upload in enumerate(uploads)
    ]


class _Held(NamedTuple):
    parts: int | None
    stored_bytes: int | None
    abort_at: datetime | None
    abort_rule: str | None
    newest_part_at: datetime | None


def _read_parts(sender: Sender, bucket: str, uploads: Sequence[ListedUpload]) -> dict[int, _Held]:
    held: dict[int, _Held] = {}
    flight = sender.send_all(
        _list_parts(bucket, upload, number) for number, upload in enumerate(uploads)
    )
    for request, answer in flight:
        number = request.tag
        assert isinstance(number, int)
        if isinstance(answer, SendError):
            raise ListingError(bucket, answer)
        if answer.status == 404 and answer.code in ("NoSuchUpload", ""):
            held.pop(number, None)
            continue
        if answer.status == 403:
            held[number] = _Held(None, None, None, None, None)
            continue
        if not answer.ok:
            raise ListingError(bucket, answer)
        before = held.get(number)
        held[number] = now = _add_page(before, answer)
        marker = find_text(answer.body, b"NextPartNumberMarker")
        # No more parts are possible than 10,000 on ten pages; a page that adds none ends it.
        goes_on = b"<IsTruncated>true</IsTruncated>" in answer.body
        if goes_on and marker and now.parts != (before.parts if before else 0):
            flight.add(_list_parts(bucket, uploads[number], number, marker))
    return held


def _list_parts(bucket: str, upload: ListedUpload, number: int, after: str = "") -> Request:
    query = [("max-parts", "1000"), ("uploadId", upload.upload_id)]
    if after:
        query.append(("part-number-marker", after))
    return Request("GET", bucket, upload.key, query=tuple(query), tag=number)


def _add_page(before: _Held | None, answer: Response) -> _Held:
    sizes = [int(size) for size in _SIZES.findall(answer.body)]
    parts = len(sizes) + (before.parts or 0 if before else 0)
    stored_bytes = sum(sizes) + (before.stored_bytes or 0 if before else 0)
    times = [datetime.fromisoformat(time.decode()) for time in _TIMES.findall(answer.body)]
    if before is not None and before.newest_part_at is not None:
        times.append(before.newest_part_at)
    # S3 tells these in the headers (S3 API reference, ListParts).
    date = answer.headers.get("x-amz-abort-date")
    return _Held(
        parts,
        stored_bytes,
        _parse_date(date) if date else None,
        answer.headers.get("x-amz-abort-rule-id"),
        max(times, default=None),
    )


def _parse_date(text: str) -> datetime | None:
    try:
        parsed = parsedate_to_datetime(text)
    except ValueError:
        return None
    return parsed if parsed.tzinfo else None
