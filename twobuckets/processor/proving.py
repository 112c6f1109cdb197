"""Proof that a copy holds what the processed version holds, before that is deleted.

What S3 tells of both is compared first. It keeps no checksum of the whole of what boto3 uploads in
parts, but CRCs of the parts, and those add up. Where nothing adds up, both are read.
"""

from __future__ import annotations

import base64
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, Literal

from twobuckets.processor.comparing import ContentFacts, Likeness, compare, content_of
from twobuckets.processor.crc import combine
from twobuckets.processor.stream import RangeReader, open_stream

if TYPE_CHECKING:
    from mypy_boto3_s3 import S3Client

_BLOCK_BYTES = 1024 * 1024
# What each of two streams may hold: a function of 128 MB has an eighth of that for both.
_ROOM_BYTES = 8 * 1024 * 1024
_LARGEST_PARTS = 10_000
_CONCURRENCY = 8
# The reflected polynomials of the checksums that can be composite and can be added up.
_CRCS: Mapping[Literal["CRC32", "CRC32C"], int] = {"CRC32": 0xEDB88320, "CRC32C": 0x82F63B78}


@dataclass(frozen=True, slots=True)
class Described:
    """A version and what a HEAD said of it; `pinned` makes S3 read that version only."""

    pinned: Mapping[str, Any]
    head: Mapping[str, Any]


def is_equal(s3: S3Client, source: Described, copy: Described) -> bool:
    """Whether two versions provably hold the same bytes; reads both where S3 tells too little.

    Raises what S3 raises when either is gone or can't be read.
    """
    told = content_of(source.head)
    likeness = compare(told, content_of(copy.head))
    if likeness is Likeness.UNKNOWN:
        likeness = compare(find_whole(s3, source.pinned, told) or told, content_of(copy.head))
    if likeness is Likeness.UNKNOWN:
        return _reads_equal(s3, source, copy)
    return likeness is Likeness.EQUAL


def composite_crc(told: ContentFacts) -> Literal["CRC32", "CRC32C"] | None:
    """Return the algorithm in which parts' checksums add up to one of the whole, None for none."""
    return next((name for name in _CRCS if "-" in told.checksums.get(name, "")), None)


def find_whole(s3: S3Client, pinned: Mapping[str, Any], told: ContentFacts) -> ContentFacts | None:
    """Return an object's description with the checksum that those of its parts add up to.

    None where S3 does not tell them. A HEAD of a part has that part's size and checksum (Amazon S3
    user guide, "Checking object integrity", part-level checksums).
    """
    name = composite_crc(told)
    if name is None:
        return None
    count = told.checksums[name].rpartition("-")[2]
    if not count.isdigit() or not 1 <= int(count) <= _LARGEST_PARTS:
        return None
    parts = _parts(s3, pinned, name, int(count))
    if parts is None or sum(size for _, size in parts) != told.size_bytes:
        return None
    whole = combine(parts, polynomial=_CRCS[name], bits=32).to_bytes(4, "big")
    checksums = {**told.checksums, name: base64.b64encode(whole).decode()}
    return replace(told, checksums=checksums, is_composite=False)


def _parts(
    s3: S3Client, pinned: Mapping[str, Any], name: str, count: int
) -> list[tuple[int, int]] | None:
    from concurrent.futures import ThreadPoolExecutor

    def look(number: int) -> tuple[int, int] | None:
        head: Any = s3.head_object(**pinned, PartNumber=number, ChecksumMode="ENABLED")
        value = content_of(head).checksums.get(name, "")
        if not value or "-" in value:
            return None
        return int.from_bytes(base64.b64decode(value), "big"), int(head["ContentLength"])

    first = look(1)
    if first is None:
        return None
    with ThreadPoolExecutor(
        min(_CONCURRENCY, count), thread_name_prefix="twobuckets-parts"
    ) as pool:
        rest = list(pool.map(look, range(2, count + 1)))
    found = [part for part in (first, *rest) if part is not None]
    return found if len(found) == count else None


def _reads_equal(s3: S3Client, source: Described, copy: Described) -> bool:
    size_bytes = int(source.head["ContentLength"])
    with (
        open_stream(
            RangeReader(s3, source.pinned), size_bytes, None, room_bytes=_ROOM_BYTES
        ) as one,
        open_stream(
            RangeReader(s3, copy.pinned), size_bytes, None, room_bytes=_ROOM_BYTES
        ) as other,
    ):
        while block := one.read(_BLOCK_BYTES):
            if block != other.read(_BLOCK_BYTES):
                return False
    return True
