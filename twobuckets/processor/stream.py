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

# A jump fetches what was asked for, because many readers want only a header, a directory or one
# column; a reader that goes on gets larger ranges, and from the third on several at once. One
# connection to S3 gives 85 to 90 MB/s (Amazon S3 user guide, "Performance design patterns").
_LARGEST_BYTES = 8 * 1024 * 1024
_SMALLEST_BYTES = 1024 * 1024
_MOST_AHEAD = 6
_LOADS_IN_SEQUENCE = 2
_BUFFER_BYTES = 128 * 1024
ROOM_BYTES = (1 + _MOST_AHEAD) * _LARGEST_BYTES
"""What a stream holds at most, unless it is given less room."""
_PIECE_BYTES = 1024 * 1024
_TRIES = 5


# In GB/s on one core: CRC64NVME of native code 13, CRC32 of zlib 4, SHA-1 and SHA-256 of OpenSSL
# 1.8, SHA-512 0.9, MD5 0.7.
_QUICKEST_FIRST = ("CRC64NVME", "CRC32C", "CRC32", "SHA1", "SHA256", "SHA512")


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

    Of several it is the quickest, and the MD5 of an ETag comes last. None where S3 keeps none over
    the whole content, or only one that can't be computed here: CRC32C and CRC64NVME need the
    optional package awscrt.
    """
    if head.get("ChecksumType") != "COMPOSITE":
        for algorithm in _QUICKEST_FIRST:
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
    if algorithm in ("MD5", "SHA1", "SHA256", "SHA512"):
        return hashlib.new(algorithm.lower(), usedforsecurity=False)
    try:
        from awscrt import checksums
    except ImportError:
        return None
    if algorithm == "CRC32C":
        return _Rolling(checksums.crc32c, 8)
    return _Rolling(checksums.crc64nvme, 16)


class Reader(Protocol):
    """What a stream reads from."""

    def fetch(self, start: int, stop: int) -> list[bytes]:
        """Return bytes [start, stop) in pieces."""


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

    def fetch(self, start: int, stop: int) -> list[bytes]:
        """Return bytes [start, stop) in pieces; raise ObjectGoneError or StreamBrokenError."""
        pieces: list[bytes] = []
        position, tries = start, 0
        while position < stop:
            before = len(pieces)
            try:
                self._read(pieces, position, stop)
                error: Exception = EOFError("the connection was closed in mid-body")
            except Exception as raised:
                if not _is_transient(raised):
                    raise self._explained(raised) from raised
                error = raised
            # What came before a break is kept: the next request asks for the rest only.
            fresh = sum(map(len, pieces[before:]))
            position += fresh
            if position == stop:
                break
            tries = 1 if fresh else tries + 1
            if tries >= _TRIES:
                raise StreamBrokenError(
                    f"reading s3 stopped at byte {position}: {error}"
                ) from error
            self._sleep(min(2.0, 0.05 * 2**tries))
        return pieces

    def _read(self, pieces: list[bytes], start: int, stop: int) -> None:
        response = self._s3.get_object(**self._pinned, Range=f"bytes={start}-{stop - 1}")
        body = response["Body"]
        try:
            left = stop - start
            if response["ContentLength"] != left:
                raise StreamBrokenError(
                    f"asked S3 for bytes {start} to {stop - 1}, got {response['ContentLength']} "
                    "bytes"
                )
            while left and (piece := body.read(min(_PIECE_BYTES, left))):
                pieces.append(piece)
                left -= len(piece)
        finally:
            body.close()

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
    """A raw, seekable stream over a Reader; `open_stream` puts a buffer on top."""

    def __init__(
        self,
        reader: Reader,
        size_bytes: int,
        expected: Expected | None,
        on_read: Callable[[int], None],
        room_bytes: int,
    ) -> None:
        self._reader = reader
        self._size = size_bytes
        self._position = 0
        self._wanted_to = 0
        self._pieces: list[bytes] = []
        """What one request brought; the piece at `_number` begins at byte `_piece_start`."""
        self._number = 0
        self._piece_start = 0
        self._range_bytes = max(_SMALLEST_BYTES, min(_LARGEST_BYTES, room_bytes // 4))
        self._most_ahead = max(1, min(_MOST_AHEAD, room_bytes // self._range_bytes - 1))
        self._next_bytes = _BUFFER_BYTES
        self._loads_in_sequence = 0
        self._ahead: deque[tuple[int, int, Future[list[bytes]]]] = deque()
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

    def want(self, stop: int | None) -> None:
        """Say up to which byte will be read next, None for all: so much may be fetched at once."""
        self._wanted_to = self._size if stop is None else min(stop, self._size)

    def readinto(self, buffer: WriteableBuffer) -> int:
        self._require_open()
        view = memoryview(buffer).cast("B")
        if self._position >= self._size or not view:
            return 0
        if not self._find_piece():
            self._load(len(view))
        offset = self._position - self._piece_start
        piece = memoryview(self._pieces[self._number])[offset : offset + len(view)]
        count = len(piece)
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
            self._pieces = []
        super().close()

    def _require_open(self) -> None:
        if self.closed:
            raise ValueError("I/O operation on closed file")

    def _find_piece(self) -> bool:
        """Go to the piece that holds the position, and tell whether there is one."""
        while self._number and self._position < self._piece_start:
            self._number -= 1
            self._piece_start -= len(self._pieces[self._number])
        while self._number < len(self._pieces):
            piece_end = self._piece_start + len(self._pieces[self._number])
            if self._position < piece_end:
                return self._position >= self._piece_start
            self._piece_start = piece_end
            self._number += 1
        return False

    def _load(self, asked_bytes: int) -> None:
        position = self._position
        # The search for the piece ended behind the last one.
        sequential = position == self._piece_start and position > 0
        while self._ahead and not self._ahead[0][0] <= position < self._ahead[0][1]:
            self._ahead.popleft()[2].cancel()
        self._pieces = []  # let go before the next ones are held
        if self._ahead:
            start, end, future = self._ahead.popleft()
            pieces = future.result()
        else:
            wanted = max(asked_bytes, self._wanted_to - position)
            if sequential:
                wanted = max(wanted, self._next_bytes)
            start, end = position, min(self._size, position + min(wanted, self._range_bytes))
            if self._wanted_to > end:
                self._read_ahead(end, self._wanted_to)
            pieces = self._reader.fetch(start, end)
        self._pieces, self._number, self._piece_start = pieces, 0, start
        self._find_piece()
        if not sequential:
            self._loads_in_sequence = 0
            self._next_bytes = max(asked_bytes, _BUFFER_BYTES)
        else:
            self._loads_in_sequence += 1
            self._next_bytes = min(self._range_bytes, self._next_bytes * 4)
        if self._loads_in_sequence >= _LOADS_IN_SEQUENCE:
            self._read_ahead(end, self._size)
        elif self._wanted_to > position:
            self._read_ahead(end, self._wanted_to)

    def _read_ahead(self, start: int, end: int) -> None:
        """Fetch from `start`, or from where is fetched already, towards `end` meanwhile."""
        if self._ahead:
            start = self._ahead[-1][1]
        while len(self._ahead) < self._most_ahead and start < end:
            stop = min(self._size, start + self._range_bytes)
            if self._pool is None:
                from concurrent.futures import ThreadPoolExecutor

                self._pool = ThreadPoolExecutor(
                    self._most_ahead, thread_name_prefix="twobuckets-read"
                )
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


class _Buffered(io.BufferedReader):
    """A buffer that tells its raw stream how much is about to be read."""

    def __init__(self, raw: ObjectStream) -> None:
        super().__init__(raw, _BUFFER_BYTES)
        self._want = raw.want

    def read(self, size: int | None = -1, /) -> bytes:
        self._want(None if size is None or size < 0 else self.tell() + size)
        return super().read(size)

    def readinto(self, buffer: WriteableBuffer, /) -> int:
        self._want(self.tell() + memoryview(buffer).nbytes)
        return super().readinto(buffer)


def open_stream(
    reader: Reader,
    size_bytes: int,
    expected: Expected | None,
    on_read: Callable[[int], None] = lambda _: None,
    *,
    room_bytes: int = ROOM_BYTES,
) -> BinaryIO:
    """Return a buffered, seekable binary stream over the whole object.

    It holds about `room_bytes` at most, 2 MiB at least.
    """
    return _Buffered(ObjectStream(reader, size_bytes, expected, on_read, room_bytes))
