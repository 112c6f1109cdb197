"""How much there is to upload, counted beside the upload itself."""

from __future__ import annotations

import threading
from typing import TYPE_CHECKING, Self

from twobuckets.errors import TwoBucketsError
from twobuckets.upload.files import STDIN, File

if TYPE_CHECKING:
    from collections.abc import Iterable

    from twobuckets.upload.files import Failed


class Census:
    """Counts files and bytes in a thread of its own, from the moment it is entered.

    `is_complete` once it has seen all there is: before that the sums are no totals. It never is
    when something has no size, as standard input, or when the walk fails: the upload, which walks
    as well, says why.
    """

    def __init__(self, files: Iterable[File | Failed]) -> None:
        self.files = 0
        self.size_bytes = 0
        self.is_complete = False
        self._source = files
        self._stopped = threading.Event()
        self._thread = threading.Thread(target=self._count, name="census", daemon=True)

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stopped.set()
        self._thread.join()

    def _count(self) -> None:
        has_sizes = True
        try:
            for file in self._source:
                if self._stopped.is_set():
                    return
                self.files += 1
                if isinstance(file, File):
                    self.size_bytes += file.size_bytes
                    has_sizes &= file.path != STDIN
        except (TwoBucketsError, OSError):
            return
        self.is_complete = has_sizes
