"""What must hold at every instant, whatever is interleaved, and what must hold at the end."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Container

    from tests.racemodel.s3 import Bucket, Stored


class LawBroken(AssertionError):
    """A law of the pipeline was broken; the message says which."""


@dataclass(slots=True)
class Laws:
    """Watches both buckets. `processed` holds the staged numbers that `process` was done with."""

    staging: Bucket
    archive: Bucket
    breaches: list[BaseException]
    uploads: list[Stored] = field(default_factory=list)
    processed: set[int] = field(default_factory=set)
    processed_bodies: set[tuple[str, bytes]] = field(default_factory=set)
    newest_archived: dict[str, Stored] = field(default_factory=dict)
    latest_archived: dict[str, Stored] = field(default_factory=dict)

    def broken(self, message: str) -> LawBroken:
        """Return the breach to raise, and keep it."""
        breach = LawBroken(message)
        self.breaches.append(breach)
        return breach

    def check_nothing_lost(self) -> None:
        """Every upload is archived, or is what staging shows, or was followed by one that is."""
        followed: set[str] = set()
        for upload in reversed(self.uploads):
            if upload.key in followed:
                continue
            if not self._is_kept(upload):
                raise self.broken(
                    f"lost: upload {upload.upload} of {upload.key!r} is neither in the archive "
                    "nor visible in staging"
                )
            followed.add(upload.key)

    def _is_kept(self, upload: Stored) -> bool:
        visible = self.staging.current(upload.key)
        if visible is not None and visible.upload == upload.upload:
            return True
        archived = self.archive.stacks.get(upload.key, ())
        return any(item.body == upload.body and not item.is_marker for item in archived)

    def check_archived(self, stored: Stored) -> None:
        """Only what was processed is archived, and never under the copy of a later upload."""
        if not self._is_processed(stored):
            raise self.broken(f"archived unprocessed: staged version {stored.staged}")
        latest = self.latest_archived.get(stored.key)
        if latest is None or stored.upload >= latest.upload:
            self.latest_archived[stored.key] = stored
        newest = self.newest_archived.get(stored.key)
        if newest is None or stored.staged >= newest.staged:
            self.newest_archived[stored.key] = stored

    def check_archived_is_kept(self, *, on_top: bool) -> None:
        """What was archived stays so, or is what staging shows, until what replaced it is archived.

        `on_top` says that it has to be the archive's current object: any other one expires.
        """
        for key, latest in self.latest_archived.items():
            shown = self.staging.current(key)
            if shown is not None and shown.upload == latest.upload:
                continue
            stack = self.archive.stacks.get(key, [])
            held = stack[:1] if on_top else stack
            if not any(item.body == latest.body and not item.is_marker for item in held):
                raise self.broken(
                    f"not kept: upload {latest.upload} of {key!r} was archived, and "
                    f"{'only a noncurrent version is' if len(stack) > len(held) else 'nothing is'} "
                    "left of it"
                )

    def _is_processed(self, stored: Stored) -> bool:
        if self.staging.versioned:
            return stored.staged in self.processed
        # Without versions nothing tells two uploads of the same bytes apart.
        return (stored.key, stored.body) in self.processed_bodies

    def check_not_regressed(self) -> None:
        """The archive's current object is the latest upload that was archived."""
        for key, newest in self.newest_archived.items():
            current = self.archive.current(key)
            if current is not None and current.body != newest.body:
                raise self.broken(
                    f"regressed: the archive's current {key!r} is staged version {current.staged}, "
                    f"and {newest.staged} was archived"
                )

    def check_nothing_stuck(self, rejected: Container[bytes] = ()) -> None:
        """Once all was delivered and woken, staging shows only what was rejected for good."""
        for stored in self.staging.visible():
            if stored.body in rejected:
                continue
            raise self.broken(
                f"stuck: staged version {stored.staged} of {stored.key!r} came to light"
            )
