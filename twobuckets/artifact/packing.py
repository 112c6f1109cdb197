"""Entries to a zip whose bytes depend on nothing but the entries' paths, bytes and x bits."""

from __future__ import annotations

import errno
import hashlib
import os
import shutil
import stat
import zipfile
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, BinaryIO

from twobuckets.artifact.scratch import draft_beside
from twobuckets.errors import TwoBucketsError

if TYPE_CHECKING:
    from twobuckets.artifact.contents import Entry

_EPOCH = (1980, 1, 1, 0, 0, 0)
_UNIX = 3


def write_zip(entries: Iterable[Entry], file: Path) -> None:
    """Write entries to a zip in the order given.

    Entries are stored, not deflated: the output of deflate differs between versions of zlib and
    between zlib and zlib-ng, and equal sources are to give equal bytes on any machine. Lambda
    counts the unzipped size for code that comes from S3, so nothing but transfer is lost.
    Raises TwoBucketsError for an entry that can't be read.
    """
    with file.open("wb") as raw, zipfile.ZipFile(raw, "w", zipfile.ZIP_STORED) as packed:
        for entry in entries:
            header = zipfile.ZipInfo(entry.path, _EPOCH)
            header.create_system = _UNIX
            header.external_attr = (stat.S_IFREG | (0o755 if entry.executable else 0o644)) << 16
            header.file_size = entry.size_bytes
            with _opened(entry.file) as content, packed.open(header, "w") as member:
                shutil.copyfileobj(content, member, 1 << 20)
    # Renamed later: the bytes have to be on disk before the name is.
    with file.open("rb+") as written:
        os.fsync(written.fileno())


@contextmanager
def published(out: Path) -> Iterator[Path]:
    """Give a path beside `out` to write to, and rename it to `out` when the block succeeds.

    When the block fails nothing is left, and whatever `out` was before stays. What runs left that
    were killed goes.
    Raises TwoBucketsError when the disk is full or the folder can't be written.
    """
    draft = out
    try:
        with draft_beside(out) as draft:
            yield draft
            draft.replace(out)
    except OSError as error:
        if error.errno in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG):
            hint = "Make room on the disk; nothing was left behind."
        elif error.filename in (str(out), str(draft), str(out.parent)):
            hint = "Choose another place with --out."
        else:
            raise
        raise TwoBucketsError(
            f"Could not write the artifact {out}: {error.strerror}", hint=hint
        ) from error


def sha256_of(file: Path) -> str:
    """Return the SHA-256 of a file as lower-case hex."""
    with file.open("rb") as raw:
        return hashlib.file_digest(raw, "sha256").hexdigest()


@contextmanager
def _opened(file: Path) -> Iterator[BinaryIO]:
    try:
        raw = file.open("rb")
    except OSError as error:
        raise TwoBucketsError(
            f"Could not pack the processor: {file} can't be read ({error.strerror})",
            hint="Change its permissions.",
        ) from error
    with raw:
        yield raw
