"""What a compressed file holds, as a stream: gzip, bzip2, xz and zstd, by the standard library."""

from __future__ import annotations

import io
from importlib import import_module
from typing import BinaryIO, cast

_LONGEST_MAGIC = 6


def opened(stream: BinaryIO) -> BinaryIO:
    """Return a stream over what a compressed file holds, or the stream itself for any other file.

    Closing the one closes the other. Raises RuntimeError for zstd before Python 3.14.
    """
    start = stream.read(_LONGEST_MAGIC)
    stream.seek(0)
    # Imported for the one that is needed: each costs a cold start something.
    if start.startswith(b"\x1f\x8b"):
        import gzip

        return _owning(gzip.GzipFile(fileobj=stream, mode="rb"), stream)
    if start.startswith(b"BZh"):
        import bz2

        return _owning(bz2.BZ2File(stream), stream)
    if start.startswith(b"\xfd7zXZ\x00"):
        import lzma

        return _owning(lzma.LZMAFile(stream), stream)
    if start.startswith(b"\x28\xb5\x2f\xfd"):
        try:
            zstd = import_module("compression.zstd")
        except ImportError:
            stream.close()
            raise RuntimeError(
                "the file is compressed with zstd, which Python reads from 3.14 on: set "
                'processor.runtime to "python3.14", or read it with a package of your own'
            ) from None
        return _owning(zstd.ZstdFile(stream), stream)
    return stream


class _Owning(io.BufferedReader):
    """A stream over what a file holds, which closes the file as well."""

    def __init__(self, inner: io.RawIOBase, file: BinaryIO) -> None:
        super().__init__(inner)
        self._file = file

    def close(self) -> None:
        try:
            super().close()
        finally:
            self._file.close()


def _owning(inner: object, file: BinaryIO) -> BinaryIO:
    return _Owning(cast("io.RawIOBase", inner), file)
