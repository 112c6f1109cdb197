"""Incomplete multipart uploads with what they hold so far: one ListParts each, many at a time."""

from collections.abc import Callable, Iterator, Sequence
from datetime import datetime
from itertools import islice
from typing import NamedTuple

from twobuckets.s3 import operations
from twobuckets.s3.answers import AnswerError, ListedUpload
from twobuckets.s3.engine import Request, Sender, SendError
from twobuckets.s3.listing import ListingError, iter_uploads
from twobuckets.s3.operations import PartsPage
from twobuckets.s3.refusals import are_credentials_over

# So many uploads are asked for their parts together, and then told in order.
_BATCH = 500


class IncompleteUpload(NamedTuple):
    """An incomplete multipart upload and its parts so far.

    `parts` and `stored_bytes` are None where reading them is not allowed, or where S3 `was_asked`
    for none. `abort_at` is when a lifecycle rule will abort it, and `abort_rule` the rule's id;
    None where no rule applies. `newest_part_at` is None where there is no part.
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
    was_asked: bool = True


def iter_incomplete_uploads(
    sender: Sender,
    bucket: str,
    *,
    prefix: str = "",
    wanted: Callable[[ListedUpload], bool] = lambda _: True,
    most_asked: int | None = None,
) -> Iterator[IncompleteUpload]:
    """Yield the incomplete uploads by key, the oldest of a key first, each with its parts so far.

    Parts are asked for only of those that are `wanted`, and of the first `most_asked` of them: each
    costs a request. An upload that is completed or aborted in the meantime is left out. Raises
    ListingError.
    """
    listed = (upload for upload in iter_uploads(sender, bucket, prefix=prefix) if wanted(upload))
    asked = islice(listed, most_asked)
    while batch := list(islice(asked, _BATCH)):
        yield from (one for one in read_parts(sender, bucket, batch) if one is not None)
    for upload in listed:
        yield _with_parts(upload, _NOT_ASKED)._replace(was_asked=False)


def read_parts(
    sender: Sender, bucket: str, uploads: Sequence[ListedUpload]
) -> list[IncompleteUpload | None]:
    """Return each upload with its parts so far, None where it is gone. Raises ListingError."""
    held = _read_parts(sender, bucket, uploads)
    return [
        _with_parts(upload, held[number]) if number in held else None
        for number, upload in enumerate(uploads)
    ]


class _Held(NamedTuple):
    parts: int | None
    stored_bytes: int | None
    abort_at: datetime | None
    abort_rule: str | None
    newest_part_at: datetime | None


_NOT_ASKED = _Held(None, None, None, None, None)


def _with_parts(upload: ListedUpload, held: _Held) -> IncompleteUpload:
    return IncompleteUpload(
        upload.key,
        upload.upload_id,
        upload.initiated_at,
        upload.initiator,
        upload.storage_class,
        *held,
    )


def _read_parts(sender: Sender, bucket: str, uploads: Sequence[ListedUpload]) -> dict[int, _Held]:
    held: dict[int, _Held] = {}
    sent: dict[Request, int] = {}

    def ask(number: int, after: str = "") -> Request:
        upload = uploads[number]
        request = operations.list_parts(bucket, upload.key, upload.upload_id, after)
        sent[request] = number
        return request

    flight = sender.send_all(map(ask, range(len(uploads))))
    for request, answer in flight:
        number = sent.pop(request)
        if isinstance(answer, SendError):
            raise ListingError(bucket, answer)
        if answer.status == 404 and answer.code in ("NoSuchUpload", ""):
            held.pop(number, None)
            continue
        if answer.status == 403 and not are_credentials_over(answer):
            held[number] = _Held(None, None, None, None, None)
            continue
        if not answer.ok:
            raise ListingError(bucket, answer)
        try:
            page = operations.read_parts(answer)
        except (AnswerError, KeyError, ValueError) as error:
            raise ListingError(bucket, error) from error
        held[number] = _add_page(held.get(number), page)
        if page.next_number:
            flight.add(ask(number, page.next_number))
    return held


def _add_page(before: _Held | None, page: PartsPage) -> _Held:
    times = [part.modified_at for part in page.parts if part.modified_at is not None]
    parts, stored_bytes = len(page.parts), sum(part.size_bytes for part in page.parts)
    if before is not None:
        parts += before.parts or 0
        stored_bytes += before.stored_bytes or 0
        if before.newest_part_at is not None:
            times.append(before.newest_part_at)
    newest_part_at = max(times, default=None)
    return _Held(parts, stored_bytes, page.abort_at, page.abort_rule, newest_part_at)
