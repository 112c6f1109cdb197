"""What proves that S3 stored what was read: CRC64NVME, or MD5 where an endpoint knows no more."""

from __future__ import annotations

import base64
import hashlib
import re
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from twobuckets.s3.engine import CRC64NVME, FileSlice

if TYPE_CHECKING:
    from collections.abc import Iterable

ALGORITHM: Final = CRC64NVME
HEADER: Final = ALGORITHM.header
encode = ALGORITHM.encode

_BLOCK_BYTES: Final = 128 * 1024
_MD5_ETAG: Final = re.compile(r'"?([0-9a-f]{32})"?')


@dataclass(slots=True)
class Body:
    """What one request carries; `crc` is the CRC64NVME of what was read, once it is known."""

    content: bytes | FileSlice
    crc: int | None = None
    _md5: bytes | None = None

    @property
    def length(self) -> int:
        """The length in bytes."""
        content = self.content
        return content.length if isinstance(content, FileSlice) else len(content)

    @property
    def known_crc(self) -> int:
        """The CRC64NVME, for when the body was read: before it was sent, or while."""
        assert self.crc is not None
        return self.crc

    @property
    def md5(self) -> bytes:
        """The MD5, a proof of transport only. Raises FileChangedError, OSError."""
        if self._md5 is None:
            digest = hashlib.md5(usedforsecurity=False)
            if isinstance(self.content, bytes):
                digest.update(self.content)
            else:
                for block in self.content.iter_blocks(memoryview(bytearray(_BLOCK_BYTES))):
                    digest.update(block)
            self._md5 = digest.digest()
        return self._md5


def read_body(content: bytes | FileSlice) -> Body:
    """Return a body with its checksum taken. Raises FileChangedError, OSError."""
    return Body(content, ALGORITHM.compute(content))


def is_crc(text: str) -> bool:
    """Tell whether a header's value is a CRC64NVME; emulators show other checksums under its name.

    It is eight bytes in base64.
    """
    return len(text) == 12 and text.endswith("=")


def encode_md5(digest: bytes) -> str:
    """Return an MD5 as `content-md5` has it: in base64."""
    return base64.b64encode(digest).decode()


def find_md5(etag: str) -> str | None:
    """Return the hexadecimal MD5 that an ETag is; None for an ETag of another kind.

    The ETag of an object or part is its MD5 unless it is encrypted with a key of AWS KMS or of the
    customer (Amazon S3 API reference, Object).
    """
    match = _MD5_ETAG.fullmatch(etag)
    return match.group(1) if match else None


def multipart_etag(etags: Iterable[str]) -> str | None:
    """Return the ETag of a completed upload whose parts' ETags are MD5s; None if one is not."""
    digest = hashlib.md5(usedforsecurity=False)
    count = 0
    for etag in etags:
        md5 = find_md5(etag)
        if md5 is None:
            return None
        digest.update(bytes.fromhex(md5))
        count += 1
    return f"{digest.hexdigest()}-{count}"
