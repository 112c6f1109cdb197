"""Standard input: a length that nobody knows before the end, and no second look."""

from __future__ import annotations

from typing import TYPE_CHECKING, BinaryIO, Final

from twobuckets.pipeline.conversation import Meanwhile
from twobuckets.upload.checksum import Body, read_body
from twobuckets.upload.multipart import create, finish, send_part
from twobuckets.upload.parts import MOST_PARTS, stream_part_bytes
from twobuckets.upload.small import send_body
from twobuckets.upload.unfinished import Multipart

if TYPE_CHECKING:
    from collections.abc import Iterator

    from twobuckets.pipeline.conversation import LongTalk, Talk
    from twobuckets.upload.files import Failed, File
    from twobuckets.upload.run import Uploaded, UploadRun

STREAM_MEMORY_BYTES: Final = 48 * 1024 * 1024
"""How much of a stream is in memory at once, unless a single part is larger."""


def send_stream(run: UploadRun, file: File, stream: BinaryIO) -> LongTalk[Uploaded | Failed]:
    """Send what a stream holds: a short one in one request, any other in parts.

    Nobody can read it again, so nothing is kept of it when it does not get done.
    """
    first = _read_block(stream, run, 1)
    if len(first) < stream_part_bytes(1, part_bytes=run.options.part_bytes):
        return (yield from send_body(run, file, read_body(first)))
    upload = Multipart(file, drops=True)
    with run.watching(upload):
        failure = yield from create(run, upload)
        if failure is not None:
            return failure
        yield Meanwhile(_iter_parts(run, upload, stream, first))
        return (yield from finish(run, upload))


def _iter_parts(
    run: UploadRun, upload: Multipart, stream: BinaryIO, block: bytes
) -> Iterator[Talk[None] | None]:
    """Yield what sends each part, reading no further ahead than memory allows."""
    held = 0

    def send(number: int, body: Body) -> Talk[None]:
        nonlocal held
        yield from send_part(run, upload, number, body)
        held -= body.length

    number = 0
    while upload.failure is None:
        if not run.has_room_for_part or held >= STREAM_MEMORY_BYTES:
            yield None
            continue
        number += 1
        block = block or _read_block(stream, run, number)
        if not block:
            return
        if number > MOST_PARTS:
            upload.failure = upload.failed(
                f"it is longer than {MOST_PARTS:,} parts",
                "Give a larger --part-size, or leave it out.",
            )
            return
        held += len(block)
        body, block = Body(block), b""
        yield send(number, body)


def _read_block(stream: BinaryIO, run: UploadRun, number: int) -> bytes:
    """Return what a part of a stream holds; less than a part only at its end."""
    wanted = stream_part_bytes(number, part_bytes=run.options.part_bytes)
    blocks = []
    while wanted:
        block = stream.read(wanted)
        if not block:
            break
        blocks.append(block)
        wanted -= len(block)
    return blocks[0] if len(blocks) == 1 else b"".join(blocks)
