"""Whether an archived object is a copy of one exact staged version: the one rule for it.

The processor asks it before it deletes a staged version or runs `process` again, doctor before it
deletes what it finds stuck, and whoever waits for a file before it is called archived. Each says
how much proof it wants.
"""

from __future__ import annotations

import enum
from collections.abc import Callable
from typing import TYPE_CHECKING, NamedTuple

from twobuckets.processor.comparing import Likeness

if TYPE_CHECKING:
    from twobuckets.processor.contract import Origin


class Copy(enum.Enum):
    """What is known of an archived object and a staged version."""

    PROVEN = "proven"
    """The origin note names this version, and both hold the same bytes."""
    NAMED = "named"
    """The origin note names this version; S3 tells nothing to compare the bytes by."""
    ALIKE = "alike"
    """There is no note, and both hold the same bytes: an earlier upload of these did, too."""
    UNKNOWN = "unknown"
    """There is no note, and nothing to compare the bytes by."""
    NONE = "none"
    """The note names another version, or the bytes differ."""


class StagedVersion(NamedTuple):
    """What tells one upload of a key from another, as far as it is known.

    `staged_at` is S3's time of it, as origin notes have it.
    """

    bucket: str
    version_id: str | None
    etag: str | None
    sequencer: str | None
    staged_at: str | None


def judge_copy(
    origin: Origin | None, staged: StagedVersion, likeness: Callable[[], Likeness]
) -> Copy:
    """Return what an archived object's note, and the likeness of the bytes, prove.

    The bytes are compared only where the note does not say already that it is no copy.
    """
    if origin is not None and not is_named(origin, staged):
        return Copy.NONE
    match likeness():
        case Likeness.DIFFERENT:
            return Copy.NONE
        case Likeness.UNKNOWN:
            return Copy.UNKNOWN if origin is None else Copy.NAMED
        case Likeness.EQUAL:
            return Copy.ALIKE if origin is None else Copy.PROVEN


def is_named(origin: Origin, staged: StagedVersion) -> bool:
    """Whether an origin note names exactly this version.

    Without versions two uploads of the same bytes are told apart by sequencer, else by time.
    """
    if origin.bucket != staged.bucket:
        return False
    if staged.version_id is not None or origin.version_id is not None:
        return origin.version_id == staged.version_id
    if staged.etag is not None and origin.etag != staged.etag:
        return False
    if origin.sequencer is not None and staged.sequencer is not None:
        return not is_after(origin.sequencer, staged.sequencer) and not is_after(
            staged.sequencer, origin.sequencer
        )
    return origin.staged_at == staged.staged_at


def is_after(sequencer: str, other: str) -> bool:
    """Whether the first of two sequencers of one key is the later one."""
    return _padded(sequencer, other) > _padded(other, sequencer)


def _padded(sequencer: str, other: str) -> str:
    # AWS's rule: pad the shorter one with zeros on the right, then compare as text.
    return sequencer.upper().ljust(max(len(sequencer), len(other)), "0")
