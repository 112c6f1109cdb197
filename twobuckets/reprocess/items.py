"""One object of a reprocess run: what is to be done with it, how far it is, what came of it."""

from __future__ import annotations

import enum
from dataclasses import dataclass


class State(enum.StrEnum):
    """How far one object has come."""

    PLANNED = "planned"
    BEGUN = "begun"
    DONE = "done"
    FAILED = "failed"
    LEFT = "left"


@dataclass(frozen=True, slots=True)
class Item:
    """One row of the journal; `began_at` is in seconds since 1970 by S3's clock."""

    id: int
    key: str
    kind: str
    version_id: str | None
    etag: str | None
    size: int
    state: State
    reason: str | None
    staged_version_id: str | None
    began_at: float | None
    upload_id: str | None
    job: int
    is_chosen: bool


@dataclass(frozen=True, slots=True)
class Change:
    """A new state of one item."""

    id: int
    state: State
    reason: str | None = None
    staged_version_id: str | None = None


@dataclass(frozen=True, slots=True)
class Reprocessed:
    """What came of one object: `state` is done, failed or left; `kind` what was to be done."""

    key: str
    kind: str
    state: State
    reason: str | None
    version_id: str | None
    etag: str | None
    size: int
    staged_version_id: str | None


def result_of(item: Item, change: Change) -> Reprocessed:
    """Return what came of an item."""
    return Reprocessed(
        item.key,
        item.kind,
        change.state,
        change.reason,
        item.version_id,
        item.etag,
        item.size,
        change.staged_version_id or item.staged_version_id,
    )


@dataclass(frozen=True, slots=True)
class Count:
    """How many objects and bytes of one kind are in one state, and the reason they share."""

    kind: str
    state: State
    reason: str | None
    objects: int
    bytes: int
