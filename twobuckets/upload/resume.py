"""Which of the incomplete uploads that S3 keeps a file may go on with, and how they were cut."""

from __future__ import annotations

from typing import TYPE_CHECKING

from twobuckets.s3.answers import AnswerError
from twobuckets.s3.engine import SendError
from twobuckets.s3.operations import UPLOADS, list_parts, read_parts
from twobuckets.units import format_bytes
from twobuckets.upload.run import Warned

if TYPE_CHECKING:
    from collections.abc import Collection, Iterable, Mapping
    from datetime import datetime

    from twobuckets.pipeline.conversation import Answer, Talk
    from twobuckets.s3.answers import ListedPart, ListedUpload, Marker
    from twobuckets.upload.files import File
    from twobuckets.upload.run import UploadRun

Parts = dict[int, "ListedPart"]


def find_ours(run: UploadRun, file: File) -> Talk[list[ListedUpload]]:
    """Return the incomplete uploads of a file's key that the identity in use began, newest last.

    Without the permission to list there is nothing to go on with, and a new one is right. S3
    refuses parts with another checksum than the upload was begun with, so those are left out. What
    nobody can tell the owner of is told of.
    """
    key = file.key
    found: list[ListedUpload] = []
    after: Marker | None = None
    while True:
        answer = yield from run.ask(UPLOADS.page(run.options.bucket, prefix=key, after=after))
        if isinstance(answer, SendError) or not answer.ok:
            break
        try:
            rows = UPLOADS.parse(answer.body)
        except (AnswerError, KeyError, ValueError):
            break
        found += [row for row in rows if row.key == key]
        after = UPLOADS.following(answer.body)
        # Other keys that begin with the key come after it, so a page that shows one is the last.
        if after is None or any(row.key != key for row in rows):
            break
    ours = run.initiator() if found else frozenset()
    if not ours:
        yield from _tell_of(run, file, found)
    return [row for row in found if _is_ours(row, ours)]


def _tell_of(run: UploadRun, file: File, found: Iterable[ListedUpload]) -> Talk[None]:
    """Say what lies there of uploads that may be anybody's, and why none is gone on with."""
    for upload in found:
        kept = yield from read_kept(run, file.key, upload.upload_id)
        parts = kept[0].values() if isinstance(kept, tuple) else None
        size = (
            "of a size that S3 does not tell"
            if parts is None
            else f"with {format_bytes(sum(part.size_bytes for part in parts))}"
        )
        run.records.append(
            Warned(
                file.path,
                file.key,
                f"An incomplete upload of {file.key} {size} lies there since "
                f"{upload.initiated_at:%Y-%m-%d %H:%M}Z ({upload.upload_id}). It is not gone on "
                "with: STS does not tell who this is (sts:GetCallerIdentity), and it may be "
                "somebody else's",
            )
        )


def _is_ours(upload: ListedUpload, ours: Collection[str]) -> bool:
    return (
        upload.initiator_id in ours
        and upload.checksum_algorithm in ("", "CRC64NVME")
        and upload.checksum_type in ("", "FULL_OBJECT")
    )


def read_kept(
    run: UploadRun, key: str, upload_id: str
) -> Talk[tuple[Parts, datetime | None] | Answer]:
    """Return the parts that S3 has of an upload, and when a rule will abort it; or its refusal."""
    parts: Parts = {}
    after = ""
    while True:
        answer = yield from run.ask(list_parts(run.options.bucket, key, upload_id, after))
        if isinstance(answer, SendError) or not answer.ok:
            return answer
        try:
            page = read_parts(answer)
        except (AnswerError, KeyError, ValueError) as error:
            return SendError(error, answer.attempts)
        parts.update((part.number, part) for part in page.parts)
        if not page.next_number:
            return parts, page.abort_at
        after = page.next_number


def find_part_bytes(parts: Mapping[int, ListedPart], size_bytes: int) -> int | None:
    """Return the part size with which an upload of a file of that size was begun.

    None when no one size explains what was kept: then it is another file's.
    """
    largest = max((part.size_bytes for part in parts.values()), default=0)
    if not largest:
        return None
    candidates = [largest]
    # Only the last part may be there, and it is smaller than the others.
    if len(parts) == 1:
        (only,) = parts.values()
        rest = size_bytes - only.size_bytes
        if only.number > 1 and rest % (only.number - 1) == 0:
            candidates.append(rest // (only.number - 1))
    for part_bytes in candidates:
        if all(
            part.size_bytes == min(part_bytes, size_bytes - (number - 1) * part_bytes)
            for number, part in parts.items()
        ):
            return part_bytes
    return None
