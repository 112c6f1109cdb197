"""The file that the user's `process` gets, and the exception by which it refuses one for good."""

from __future__ import annotations

import io
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import BinaryIO


class Reject(Exception):
    """Says that this file will never work: it is not tried again and stays in staging."""


@dataclass(frozen=True, slots=True)
class File:
    """One object version in the staging bucket, readable while `process` runs.

    `version_id` is None where the bucket keeps no versions. `etag` has no quotes. `size` is in
    bytes. `metadata` is the user-defined metadata, names in lower case.
    """

    bucket: str
    key: str
    version_id: str | None
    etag: str
    size: int
    content_type: str
    metadata: Mapping[str, str] = field(repr=False)
    opener: Callable[[], BinaryIO] = field(repr=False, compare=False)

    def open(self) -> BinaryIO:
        """Return a new buffered, seekable binary stream that reads from S3 as it goes.

        Raises OSError when S3 cannot be read or a checksum does not hold.
        """
        return self.opener()

    def read(self) -> bytes:
        """Return the whole content; it has to fit into memory."""
        with self.open() as stream:
            return stream.read()

    def text(self, encoding: str = "utf-8", errors: str = "strict") -> str:
        """Return the whole content as text, line ends as they are."""
        return self.read().decode(encoding, errors)

    def lines(self, encoding: str = "utf-8", errors: str = "strict") -> io.TextIOWrapper:
        """Return a text stream to iterate over line by line, in little memory."""
        return io.TextIOWrapper(self.open(), encoding=encoding, errors=errors, newline=None)
