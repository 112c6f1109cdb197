"""The file that the user's `process` gets, and the exception by which it refuses one for good."""

from __future__ import annotations

import csv
import io
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any, BinaryIO

from twobuckets.processor.compressed import opened


class Reject(Exception):
    """Says that this file will never work: it is not tried again and stays in staging."""


@dataclass(frozen=True, slots=True)
class File:
    """One object version in the staging bucket, readable while `process` runs.

    `version_id` is None where the bucket keeps no versions. `etag` has no quotes. `size` is in
    bytes. `metadata` is the user-defined metadata, names in lower case.

    `sequencer` orders uploads of one key: pad the shorter of two with zeros on the right and
    compare them as text (Amazon S3 user guide, "Event message structure"). It is None where the
    event has none, as that of a file that was woken. `attempt` counts the tries that are known of,
    from 1 on.
    """

    bucket: str
    key: str
    version_id: str | None
    etag: str
    size: int
    content_type: str
    metadata: Mapping[str, str] = field(repr=False)
    opener: Callable[[], BinaryIO] = field(repr=False, compare=False)
    sequencer: str | None = None
    attempt: int = 1

    def open(self, *, decompress: bool = False) -> BinaryIO:
        """Return a new buffered, seekable binary stream that reads from S3 as it goes.

        With `decompress` the content of gzip, bzip2, xz and zstd files is read, told by their first
        bytes; any other file is read as it is. Raises OSError when S3 cannot be read or a checksum
        does not hold; RuntimeError for zstd before Python 3.14.
        """
        stream = self.opener()
        return opened(stream) if decompress else stream

    def read(self, *, decompress: bool = False) -> bytes:
        """Return the whole content; it has to fit into memory."""
        with self.open(decompress=decompress) as stream:
            return stream.read()

    def text(
        self, encoding: str = "utf-8", errors: str = "strict", *, decompress: bool = False
    ) -> str:
        """Return the whole content as text, line ends as they are."""
        return self.read(decompress=decompress).decode(encoding, errors)

    def lines(
        self, encoding: str = "utf-8", errors: str = "strict", *, decompress: bool = False
    ) -> io.TextIOWrapper:
        """Return a text stream to iterate over line by line, in little memory."""
        return io.TextIOWrapper(
            self.open(decompress=decompress), encoding=encoding, errors=errors, newline=None
        )

    def csv(
        self,
        encoding: str = "utf-8-sig",
        errors: str = "strict",
        *,
        decompress: bool = False,
        **dialect: Any,
    ) -> Iterator[dict[str | Any, str | Any]]:
        """Yield the rows of a CSV file by the names in its first line, in little memory.

        `dialect` is what `csv.DictReader` takes, such as `delimiter=";"`, or `fieldnames` where the
        first line is a row. A byte order mark is passed over.
        """
        stream = self.open(decompress=decompress)
        with io.TextIOWrapper(stream, encoding=encoding, errors=errors, newline="") as lines:
            yield from csv.DictReader(lines, **dialect)
