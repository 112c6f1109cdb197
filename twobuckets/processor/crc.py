"""The CRC of a whole from those of its parts, with no look at the bytes.

Arithmetic of polynomials over GF(2) with the bits reflected, as in all of S3's CRCs: appending n
zero bytes to a message multiplies its remainder by x to the power of 8n.
"""

from __future__ import annotations

from collections.abc import Iterable


def combine(parts: Iterable[tuple[int, int]], *, polynomial: int, bits: int) -> int:
    """Return the checksum of the whole from the (checksum, length in bytes) of its parts."""
    whole = 0
    # Nearly all parts have one length, and its shift is most of the work.
    shifts: dict[int, int] = {}
    for checksum, length in parts:
        shift = shifts.get(length)
        if shift is None:
            shift = shifts[length] = _shift(length, polynomial, bits)
        whole = _multiply(whole, shift, polynomial, bits) ^ checksum
    return whole


def _multiply(left: int, right: int, polynomial: int, bits: int) -> int:
    product = 0
    for bit in range(bits - 1, -1, -1):
        if left >> bit & 1:
            product ^= right
        right = right >> 1 ^ (polynomial if right & 1 else 0)
    return product


def _shift(length: int, polynomial: int, bits: int) -> int:
    power, square = 1 << (bits - 1), 1 << (bits - 9)
    while length:
        if length & 1:
            power = _multiply(power, square, polynomial, bits)
        square = _multiply(square, square, polynomial, bits)
        length >>= 1
    return power
