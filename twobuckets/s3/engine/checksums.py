"""Checksums that S3 keeps with an object: of bytes, of a file's slice, of parts put together.

Both are whole-object checksums also of a multipart upload, because the checksum of a whole follows
from those of its parts (S3 user guide, "Checking object integrity", full object checksums).
CRC64NVME is what S3 itself prefers; CRC32 is for endpoints that do not know it.
"""

import base64
import zlib
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from functools import cache

from twobuckets.processor.crc import combine
from twobuckets.s3.engine.bodies import BLOCK_BYTES, FileSlice

Update = Callable[[bytes | memoryview, int], int]


@dataclass(frozen=True, slots=True)
class Algorithm:
    """A CRC in S3's terms; `name` is the value of `x-amz-checksum-algorithm`."""

    name: str
    header: str
    bits: int
    polynomial: int = field(repr=False)
    load: Callable[[], Update] = field(repr=False)

    def compute(self, body: bytes | FileSlice, buffer: memoryview | None = None) -> int:
        """Return the checksum of bytes, or of a slice that is read through a buffer once."""
        update = self.load()
        if isinstance(body, bytes):
            return update(body, 0)
        if buffer is None:
            buffer = memoryview(bytearray(min(BLOCK_BYTES, body.length)))
        checksum = 0
        for block in body.iter_blocks(buffer):
            checksum = update(block, checksum)
        return checksum

    def combine(self, parts: Iterable[tuple[int, int]]) -> int:
        """Return the checksum of the whole from the (checksum, length in bytes) of its parts."""
        return combine(parts, polynomial=self.polynomial, bits=self.bits)

    def encode(self, checksum: int) -> str:
        """Return a checksum as S3 writes it: base64 of the big-endian bytes."""
        return base64.b64encode(checksum.to_bytes(self.bits // 8, "big")).decode()


class Trailer:
    """A checksum that is taken of a body while it is sent, and follows it.

    The body, which must not be empty, goes as one chunk of the encoding `aws-chunked`, with the
    checksum behind it; S3 takes both off and refuses a body that the checksum does not fit (S3 user
    guide, "Checking object integrity", trailing checksums).
    """

    __slots__ = ("_algorithm", "_length", "_update", "checksum")

    def __init__(self, algorithm: Algorithm, length: int) -> None:
        self._algorithm = algorithm
        self._length = length
        self._update = algorithm.load()
        self.checksum = 0

    @property
    def headers(self) -> tuple[tuple[str, str], ...]:
        """The headers that announce it."""
        return (
            ("content-encoding", "aws-chunked"),
            ("x-amz-decoded-content-length", str(self._length)),
            ("x-amz-trailer", self._algorithm.header),
        )

    @property
    def opening(self) -> bytes:
        """What goes before the body."""
        return b"%x\r\n" % self._length

    @property
    def closing(self) -> bytes:
        """What goes behind the body, once all of it was noted."""
        said = f"{self._algorithm.header}:{self._algorithm.encode(self.checksum)}"
        # A chunk without bytes ends the chunks.
        return f"\r\n0\r\n{said}\r\n\r\n".encode()

    @property
    def encoded_length(self) -> int:
        """The length in bytes of all that is sent."""
        return len(self.opening) + self._length + len(self.closing)

    def note(self, block: memoryview) -> None:
        """Take note of the next bytes of the body."""
        self.checksum = self._update(block, self.checksum)


@cache
def _load_crc64nvme() -> Update:
    # Loaded on use: a command that sends nothing should not wait for it.
    import anycrc

    update: Update = anycrc.Model("CRC64-NVME").calc
    return update


CRC64NVME = Algorithm(
    "CRC64NVME", "x-amz-checksum-crc64nvme", 64, 0x9A6C9329AC4BC9B5, _load_crc64nvme
)
CRC32 = Algorithm("CRC32", "x-amz-checksum-crc32", 32, 0xEDB88320, lambda: zlib.crc32)
