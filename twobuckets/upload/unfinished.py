"""An upload in parts that is under way, and what is known of it wherever it is interrupted."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, NamedTuple

from twobuckets.upload import checksum
from twobuckets.upload.files import Failed, File, changed

if TYPE_CHECKING:
    from collections.abc import Callable
    from datetime import datetime

    from twobuckets.prices import Prices
    from twobuckets.upload.sent import Stamp


@dataclass(frozen=True, slots=True)
class Kept:
    """What an interrupted upload leaves in S3: the same command goes on from there.

    `abort_at` is when a lifecycle rule removes it, None if S3 named no such rule;
    `cost_month_usd` is what it costs until then, at the price of S3 Standard; `remedy` is the
    command that drops it, which the command line fills in.
    """

    path: str
    key: str
    upload_id: str
    kept_bytes: int
    size_bytes: int
    abort_at: datetime | None
    cost_month_usd: float
    remedy: str = ""


class StoredPart(NamedTuple):
    """A part that S3 has and was proven to have; `length` is in bytes."""

    etag: str
    crc: int
    length: int


@dataclass(slots=True, eq=False)
class Multipart:
    """A multipart upload of a file, and what S3 is known to have of it.

    It has no id before it is created and after it is gone. With `drops`, nothing of it is to stay
    in S3 if it does not get done. `forgets` is called when it is complete or aborted;
    `has_changed` tells whether what was read is no longer what the file is. `was_taken` is whether
    its key showed an object before, `resumed_bytes` how much S3 had from earlier runs, `stamp` the
    file as it was when it was opened.
    """

    file: File
    drops: bool = False
    forgets: Callable[[], None] = lambda: None
    has_changed: Callable[[], bool] = lambda: False
    upload_id: str = ""
    abort_at: datetime | None = None
    parts: dict[int, StoredPart] = field(default_factory=dict)
    failure: Failed | None = None
    was_taken: bool = False
    resumed_bytes: int = 0
    stamp: Stamp | None = None

    @property
    def done_bytes(self) -> int:
        """How many bytes of it S3 has."""
        return sum(part.length for part in self.parts.values())

    @property
    def whole_crc(self) -> int:
        """The CRC64NVME of all its parts in their order."""
        parts = [part for _, part in sorted(self.parts.items())]
        return checksum.ALGORITHM.combine((part.crc, part.length) for part in parts)

    def is_whole(self, said: str | None, etag: str) -> bool:
        """Tell whether what S3 says of an object proves that it is all the parts, in their order.

        That is their combined checksum, or the ETag that their MD5s add up to.
        """
        if said == checksum.encode(self.whole_crc):
            return True
        expected = checksum.multipart_etag(part.etag for _, part in sorted(self.parts.items()))
        return expected is not None and etag == expected

    def kept(self, prices: Prices) -> Kept | None:
        """Return what S3 has of it and a resume can use; None if nothing."""
        if not self.upload_id or self.drops:
            return None
        done_bytes = self.done_bytes
        return Kept(
            self.file.path,
            self.file.key,
            self.upload_id,
            done_bytes,
            self.file.size_bytes,
            self.abort_at,
            prices.month_usd(done_bytes),
        )

    def forget(self) -> None:
        """Note that S3 has it no longer: it is complete, aborted or expired."""
        self.forgets()
        self.upload_id = ""

    def failed(self, reason: str, hint: str | None = None) -> Failed:
        """Return that its file was not uploaded, and why."""
        return Failed(self.file.path, self.file.key, reason, hint)

    def changed(self) -> Failed:
        """Return that its file was written to meanwhile: no part of it is worth keeping."""
        self.drops = True
        return changed(self.file)
