"""Slices of files as bodies of requests: read block by block, and only as they are sent."""

import os
from collections.abc import Iterator
from typing import NamedTuple

BLOCK_BYTES = 128 * 1024
"""How much of a file is read at a time: it still fits a core's own cache when it is sent."""


class FileSlice(NamedTuple):
    """Bytes of an open file, read only as they are sent; the caller keeps the file open.

    Sending raises FileChangedError when the file has become shorter than the slice.
    """

    fd: int
    offset: int
    length: int

    def iter_blocks(self, buffer: memoryview) -> Iterator[memoryview]:
        """Read the slice block by block into one buffer, and yield what it holds each time."""
        position, end = self.offset, self.offset + self.length
        while position < end:
            block = buffer[: min(len(buffer), end - position)]
            count = os.preadv(self.fd, [block], position)
            if not count:
                raise FileChangedError(f"the file ends at byte {position}, not at byte {end}")
            position += count
            yield block[:count]


class FileChangedError(Exception):
    """A file became shorter while it was being sent."""
