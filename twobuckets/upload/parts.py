"""Part plans: S3's limits as arithmetic. Pure.

Limits: Amazon S3 user guide, "Amazon S3 multipart upload limits".
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from twobuckets.errors import UsageError
from twobuckets.units import format_bytes

if TYPE_CHECKING:
    from collections.abc import Iterator

MIB: Final = 1024 * 1024
GIB: Final = 1024 * MIB

LEAST_PART_BYTES: Final = 5 * MIB
MOST_PART_BYTES: Final = 5 * GIB
MOST_PARTS: Final = 10_000
MOST_OBJECT_BYTES: Final = MOST_PARTS * MOST_PART_BYTES
"""48.8 TiB: 10,000 parts of 5 GiB."""

PREFERRED_PART_BYTES: Final = 8 * MIB
"""Small enough that an interruption costs little, large enough that a round trip hardly shows."""
THRESHOLD_BYTES: Final = 16 * MIB
"""Files from this size on are sent in parts."""
_DOUBLING: Final = 1_000

_PARTS_IN_FLIGHT: Final = 15
_MOST_PARTS_IN_FLIGHT: Final = 63


@dataclass(frozen=True, slots=True)
class Part:
    """One part of a file: `number` counts from 1, `offset` and `length` are bytes."""

    number: int
    offset: int
    length: int


@dataclass(frozen=True, slots=True)
class PartPlan:
    """How a file of `size_bytes` is cut: parts of `part_bytes`, the last one with the rest."""

    size_bytes: int
    part_bytes: int

    @property
    def count(self) -> int:
        """The number of parts; an empty file has one empty part."""
        return max(1, -(-self.size_bytes // self.part_bytes))

    def part(self, number: int) -> Part:
        """Return one part. Raises IndexError for a number outside the plan."""
        if not 1 <= number <= self.count:
            raise IndexError(f"there is no part {number} in a plan of {self.count}")
        offset = (number - 1) * self.part_bytes
        return Part(number, offset, min(self.part_bytes, self.size_bytes - offset))

    def __iter__(self) -> Iterator[Part]:
        return map(self.part, range(1, self.count + 1))


def count_parts_in_flight(
    wish: int | None, *, bytes_per_second: int | None, part_bytes: int | None
) -> int:
    """Return how many parts of large files go at once: `wish`, or what suits the bandwidth limit.

    An interruption loses what is in flight, and parts that share a narrow limit all end late: one
    more than a second fills is enough.
    """
    if wish is not None:
        return min(wish, _MOST_PARTS_IN_FLIGHT)
    if bytes_per_second is None:
        return _PARTS_IN_FLIGHT
    filled = -(-bytes_per_second // (part_bytes or PREFERRED_PART_BYTES))
    return min(1 + filled, _PARTS_IN_FLIGHT)


def plan_parts(size_bytes: int, *, part_bytes: int | None = None) -> PartPlan:
    """Return the plan for a file, with parts of `part_bytes` or of a size that suits the file.

    Raises UsageError for what S3 would refuse: parts outside 5 MiB to 5 GiB, more than 10,000
    parts, objects above 48.8 TiB.
    """
    if size_bytes > MOST_OBJECT_BYTES:
        raise UsageError(
            f"{format_bytes(size_bytes)} is more than the {format_bytes(MOST_OBJECT_BYTES)} that "
            "an S3 object can have",
            hint="Split the file.",
        )
    least = _least_part_bytes(size_bytes)
    if part_bytes is None:
        return PartPlan(size_bytes, max(PREFERRED_PART_BYTES, least))
    require_part_bytes(part_bytes)
    plan = PartPlan(size_bytes, part_bytes)
    if plan.count > MOST_PARTS:
        raise UsageError(
            f"{format_bytes(size_bytes)} in parts of {format_bytes(part_bytes)} would be "
            f"{plan.count:,} parts, and S3 allows {MOST_PARTS:,}",
            hint=f"Give --part-size {least // MIB}MiB or more, or leave it out.",
        )
    return plan


def require_part_bytes(part_bytes: int) -> None:
    """Return if S3 accepts parts of that size. Raises UsageError."""
    if not LEAST_PART_BYTES <= part_bytes <= MOST_PART_BYTES:
        raise UsageError(
            f"S3 does not accept parts of {format_bytes(part_bytes)}: they have from 5 MiB to "
            "5 GiB (the last one may be smaller)",
            hint="Give --part-size 8MiB, or leave it out.",
        )


def _least_part_bytes(size_bytes: int) -> int:
    """Return the smallest part size in whole MiB with which the file fits into 10,000 parts."""
    per_part = -(-size_bytes // MOST_PARTS)
    return max(LEAST_PART_BYTES, -(-per_part // MIB) * MIB)


def stream_part_bytes(number: int, *, part_bytes: int | None = None) -> int:
    """Return the size of a part of a stream whose length nobody knows.

    Parts begin at 8 MiB and double every 1,000, so that the first gigabytes need little memory and
    10,000 parts still reach terabytes. A size that was asked for stays as it is.
    """
    if part_bytes is not None:
        return part_bytes
    return min(MOST_PART_BYTES, PREFERRED_PART_BYTES << ((number - 1) // _DOUBLING))
