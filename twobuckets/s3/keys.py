"""Which keys objects can have."""

from typing import Final

from twobuckets.errors import UsageError

LONGEST_KEY_BYTES: Final = 1024
"""Amazon S3 user guide, "Naming Amazon S3 objects"."""
_SHOWN_CHARACTERS = 60


def find_fault(key: str) -> str | None:
    """Return in words why no object can have a key; None if one can."""
    try:
        size_bytes = len(key.encode("utf-8"))
    except UnicodeEncodeError:
        return "it is not UTF-8"
    if not size_bytes:
        return "it is empty"
    if size_bytes > LONGEST_KEY_BYTES:
        return f"it has {size_bytes:,} bytes, and S3 allows {LONGEST_KEY_BYTES:,}"
    return None


def require_key(key: str, *, where: str = "") -> str:
    """Return a key as it is.

    Raises UsageError when no object can have it; the message begins with `where` the key stands.
    """
    fault = find_fault(key)
    if fault is not None:
        shown = key if len(key) <= _SHOWN_CHARACTERS else key[:_SHOWN_CHARACTERS] + "…"
        raise UsageError(f"{where}no object can have the key {shown!r}: {fault}")
    return key
