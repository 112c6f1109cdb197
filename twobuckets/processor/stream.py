"""An object version as a binary stream: ranged reads ahead of the reader, in bounded memory.

Every read carries the pin, so a stream never mixes two versions. Reading from start to end checks
the checksum that S3 keeps.
"""

from __future__ import annotations

import base64
import binascii
import hashlib
import io
import time
import zlib
from collections import deque
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, BinaryIO, Protocol

from twobuckets.processor.comparing import is_md5

if TYPE_CHECKING:
    from concurrent.futures import Future, ThreadPoolExecutor

    from _typeshed import WriteableBuffer
    from mypy_boto3_s3 import S3Client

# A first read is small because many readers want only a header or a directory; a reader that goes
# on gets larger ranges, several at once. At most (1 + _AHEAD) * _LARGEST_BYTES are held.
_FIRST_BYTES = 256 * 1024
_LARGEST_BYTES = 4 * 1024 * 1024
_AHEAD = 3
_BUFFER_BYTES = 128 * 1024
_PIECE_BYTES = 256 * 1024
_TRIES = 5


class ObjectGoneError(OSError):
    """The pinned version was deleted or replaced while it was read."""


class StreamBrokenError(OSError):
    """S3 could not be read in spite of retries."""


class ChecksumMismatchError(OSError):
    """What was read is not what S3 says it stores."""


@dataclass(frozen=True, slots=True)
class Expected:
    """A checksum over the whole content: algorithm as S3 names it, or MD5 from an ETag; in hex."""

    algorithm: str
    hex: str


class _Digest(Protocol):
    def update(self, piece: memoryview, /) -> None: ...
    def hexdigest(self) -> str: ...


class _Rolling:
    """A hashlib-like digest over a function such as zlib.crc32."""

    def __init__(self, function: Callable[[memoryview, int], int], hex_digits: int) -> None:
        self._function = function
        self._hex_digits = hex_digits
        self._value = 0

    def update(self, piece: memoryview, /) -> None:
        self._value = self._function(piece, self._value)

    def hexdigest(self) -> str:
        return f"{self._value:0{self._hex_digits}x}"


def find_expected(head: Mapping[str, Any]) -> Expected | None:
    """Return the checksum to hold a full read against, from a HEAD with ChecksumMode enabled.

    None where S3 keeps none over the whole content, or only one that cannot be computed fast here:
    CRC32C and CRC64NVME need the optional package awscrt.
    """
    if head.get("ChecksumType") != "COMPOSITE":
        for algorithm in ("SHA256", "SHA1", "CRC32", "CRC64NVME", "CRC32C"):
            value = head.get(f"Checksum{algorithm}")
            # A multipart upload's checksum of checksums is marked by its number of parts.
            if value and "-" not in value and _digest_of(algorithm) is not None:
                try:
                    return Expected(algorithm, base64.b64decode(value, validate=True).hex())
                except binascii.Error:
                    continue
    etag = etag_of(head)
    # Only a single-part object without KMS or customer keys has its MD5 as ETag (S3 API, Object).
    if is_md5(head):
        return Expected("MD5", etag)
    return None


def etag_of(head: Mapping[str, Any]) -> str:
    """Return a response's ETag without its quotes."""
    return str(head.get("ETag", "")).strip('"')


def _digest_of(algorithm: str) -> _Digest | None:
    if algorithm == "CRC32":
        return _Rolling(zlib.crc32, 8)
    if algorithm in ("MD5", "SHA1", "SHA256"):
        return hashlib.new(algorithm.lower(), usedforsecurity=False)
    try:
        from awscrt import checksums
    except ImportError:
        return None
    if algorithm == "CRC32C":
        return _Rolling(checksums.crc32c, 8)
    return _Rolling(checksums.crc64nvme, 16)


class RangeReader:
    """Reads byte ranges of one pinned version, going on where a connection broke."""

    def __init__(
        self,
        s3: S3Client,
        pinned: Mapping[str, Any],
        *,
        sleep: Callable[[float], None] = time.sleep,
        on_gone: Callable[[], None] = lambda: None,
    ) -> None:
        self._s3 = s3
        self._pinned = pinned
        self._sleep = sleep
        self._on_gone = on_gone

    def fetch(self, start: int, stop: int) -> bytearray:
        """Return bytes [start, stop); raise ObjectGoneError or StreamBrokenError."""
        buffer = bytearray(stop - start)
        filled = tries = 0
        while filled < len(buffer):
            before = filled
            try:
                filled = self._fill(buffer, filled, start)
                error: Exception = EOFError("the connection was closed in mid-body")
            except Exception as raised:
                if not _is_transient(raised):
                    raise self._explained(raised) from raised
                error = raised
                filled = max(filled, getattr(raised, "filled", filled))
            if filled == len(buffer):
                break
            tries = 1 if filled > before else tries + 1
            if tries >= _TRIES:
                raise StreamBrokenError(
                    f"reading s3 stopped at byte {start + filled}: {error}"
                ) from error
            self._sleep(min(2.0, 0.05 * 2**tries))
        return buffer

    def _fill(self, buffer: bytearray, filled: int, start: int) -> int:
        first, last = start + filled, start + len(buffer) - 1
        response = self._s3.get_object(**self._pinned, Range=f"bytes={first}-{last}")
        body = response["Body"]
        try:
            if response["ContentLength"] != last - first + 1:
                raise StreamBrokenError(
                    f"asked S3 for bytes {first} to {last}, got {response['ContentLength']} bytes"
                )
            view = memoryview(buffer)
            while filled < len(buffer):
                try:
                    piece = body.read(min(_PIECE_BYTES, len(buffer) - filled))
                except Exception as error:
                    # What came before the break is kept: the next request asks for the rest only.
                    error.filled = filled  # type: ignore[attr-defined]
                    raise
                if not piece:
                    break
                view[filled : filled + len(piece)] = piece
                filled += len(piece)
        finally:
            body.close()
        return filled

    def _explained(self, error: Exception) -> Exception:
        code = str(getattr(error, "response", {}).get("Error", {}).get("Code", ""))
        if code in ("412", "PreconditionFailed", "404", "NoSuchKey", "NoSuchVersion"):
            self._on_gone()
            return ObjectGoneError("the object was deleted or replaced while it was read")
        if isinstance(error, OSError):
            return error
        return StreamBrokenError(f"reading from S3 failed: {error}")


def _is_transient(error: Exception) -> bool:
    from botocore.exceptions import (
        ClientError,
        HTTPClientError,
        IncompleteReadError,
        ResponseStreamingError,
    )
    from urllib3.exceptions import HTTPError

    if isinstance(error, ClientError):
        status = error.response.get("ResponseMetadata", {}).get("HTTPStatusCode", 0)
        return status >= 500 or status == 429
    broken = (HTTPClientError, IncompleteReadError, ResponseStreamingError, HTTPError)
    return isinstance(error, (*broken, ConnectionError, TimeoutError))


class ObjectStream(io.RawIOBase):
    """A raw, seekable stream over a RangeReader; `open_stream` puts a buffer on top."""

    def __init__(
        self,
        reader: RangeReader,
        size_bytes: int,
        expected: Expected | None,
        on_read: Callable[[int], None],
    ) -> None:
        self._reader = reader
        self._size = size_bytes
        self._position = 0
        self._chunk: bytearray = bytearray()
        self._chunk_start = 0
        self._next_bytes = _FIRST_BYTES
        self._ahead: deque[tuple[int, int, Future[bytearray]]] = deque()
        self._pool: ThreadPoolExecutor | None = None
        self._expected = expected
        self._digest = _digest_of(expected.algorithm) if expected else None
        self._digested = 0
        self._on_read = on_read

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def tell(self) -> int:
        self._require_open()
        return self._position

    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        self._require_open()
        origins = {io.SEEK_SET: 0, io.SEEK_CUR: self._position, io.SEEK_END: self._size}
        if whence not in origins:
            raise ValueError(f"whence is {whence}, expected 0, 1 or 2")
        position = origins[whence] + offset
        if position < 0:
            raise ValueError(f"cannot seek to byte {position}")
        self._position = position
        return position

    def readinto(self, buffer: WriteableBuffer) -> int:
        self._require_open()
        view = memoryview(buffer).cast("B")
        if self._position >= self._size or not view:
            return 0
        if not self._chunk_start <= self._position < self._chunk_start + len(self._chunk):
            self._load()
        offset = self._position - self._chunk_start
        count = min(len(view), len(self._chunk) - offset)
        piece = memoryview(self._chunk)[offset : offset + count]
        view[:count] = piece
        self._check(piece)
        self._position += count
        self._on_read(count)
        return count

    def close(self) -> None:
        if not self.closed:
            self._drop_ahead()
            if self._pool is not None:
                self._pool.shutdown(wait=False, cancel_futures=True)
            self._chunk = bytearray()
        super().close()

    def _require_open(self) -> None:
        if self.closed:
            raise ValueError("I/O operation on closed file")

    def _load(self) -> None:
        position = self._position
        sequential = position == self._chunk_start + len(self._chunk) and position > 0
        while self._ahead and not self._ahead[0][0] <= position < self._ahead[0][1]:
            self._ahead.popleft()[2].cancel()
        if self._ahead:
            start, _, future = self._ahead.popleft()
            self._chunk = bytearray()  # let go before the next one is held
            self._chunk, self._chunk_start = future.result(), start
        else:
            if not sequential:
                self._next_bytes = _FIRST_BYTES
            stop = min(self._size, position + self._next_bytes)
            self._chunk = bytearray()
            self._chunk, self._chunk_start = self._reader.fetch(position, stop), position
        if sequential:
            self._next_bytes = min(_LARGEST_BYTES, self._next_bytes * 4)
            self._read_ahead()

    def _read_ahead(self) -> None:
        start = self._ahead[-1][1] if self._ahead else self._chunk_start + len(self._chunk)
        while len(self._ahead) < _AHEAD and start < self._size:
            stop = min(self._size, start + self._next_bytes)
            if self._pool is None:
                from concurrent.futures import ThreadPoolExecutor

                self._pool = ThreadPoolExecutor(_AHEAD, thread_name_prefix="twobuckets-read")
            self._ahead.append((start, stop, self._pool.submit(self._reader.fetch, start, stop)))
            start = stop

    def _drop_ahead(self) -> None:
        while self._ahead:
            self._ahead.popleft()[2].cancel()

    def _check(self, piece: memoryview) -> None:
        """Digest what follows on what was digested, and compare once that is everything."""
        if self._digest is None or self._expected is None or self._position > self._digested:
            return
        fresh = piece[self._digested - self._position :]
        if not fresh:
            return
        self._digest.update(fresh)
        self._digested += len(fresh)
        if self._digested == self._size and self._digest.hexdigest() != self._expected.hex:
            raise ChecksumMismatchError(
                f"the content read has {self._expected.algorithm} {self._digest.hexdigest()}, "
                f"S3 stores {self._expected.hex}"
            )


def open_stream(
    reader: RangeReader,
    size_bytes: int,
    expected: Expected | None,
    on_read: Callable[[int], None] = lambda _: None,
) -> BinaryIO:
    """Return a buffered, seekable binary stream over the whole object."""
    raw = ObjectStream(reader, size_bytes, expected, on_read)
    return io.BufferedReader(raw, _BUFFER_BYTES)
