"""Standard input: a length that nobody knows before the end, and no second look."""

from __future__ import annotations

from typing import TYPE_CHECKING, BinaryIO, Final

from twobuckets.upload.checksum import Body
from twobuckets.upload.multipart import Multipart
from twobuckets.upload.parts import MOST_PARTS, stream_part_bytes

if TYPE_CHECKING:
    from twobuckets.upload.files import File
    from twobuckets.upload.run import Outcome, Run

STREAM_MEMORY_BYTES: Final = 48 * 1024 * 1024
"""How much of a stream is in memory at once, unless a single part is larger."""


class LargeStream(Multipart):
    """A stream that turned out to be large; nobody can read it again, so nothing is kept of it."""

    def __init__(self, run: Run, file: File, stream: BinaryIO, first: bytes) -> None:
        super().__init__(run, file)
        self._stream = stream
        self._block = first
        self._number = 0
        self._held_bytes = 0
        self._is_at_end = False
        self._drops = True

    def _next_body(self) -> tuple[int, Body] | None:
        if self._is_at_end or (self._in_flight and self._held_bytes >= STREAM_MEMORY_BYTES):
            return None
        block, self._block = self._block, b""
        if not block:
            block = read_block(self._stream, self.run, self._number + 1)
        if not block:
            self._is_at_end = True
            self._complete_if_done()
            return None
        self._number += 1
        if self._number > MOST_PARTS:
            self._end(
                self._failed(
                    f"it is longer than {MOST_PARTS:,} parts",
                    "Give a larger --part-size, or leave it out.",
                )
            )
            return None
        self._held_bytes += len(block)
        return self._number, Body(block)

    def _part_sent(self, number: int, body: Body, trailed: bool, outcome: Outcome) -> None:
        self._held_bytes -= body.length
        super()._part_sent(number, body, trailed, outcome)

    def _is_all_sent(self) -> bool:
        return self._is_at_end

    def _has_changed(self) -> bool:
        return False


def read_block(stream: BinaryIO, run: Run, number: int) -> bytes:
    """Return what a part of a stream holds; less than a part only at its end."""
    wanted = stream_part_bytes(number, part_bytes=run.wishes.part_bytes)
    blocks = []
    while wanted:
        block = stream.read(wanted)
        if not block:
            break
        blocks.append(block)
        wanted -= len(block)
    return blocks[0] if len(blocks) == 1 else b"".join(blocks)
