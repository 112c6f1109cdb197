"""What an upload would do, without doing it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from twobuckets.errors import UsageError
from twobuckets.upload.content_type import content_type_of
from twobuckets.upload.files import Failed, File
from twobuckets.upload.parts import THRESHOLD_BYTES, plan_parts

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable


@dataclass(frozen=True, slots=True)
class Planned:
    """A file that would be uploaded; `parts` is 1 for a file that goes in one request."""

    path: str
    key: str
    size_bytes: int
    parts: int
    content_type: str


@dataclass(frozen=True, slots=True)
class PlanSummary:
    """What an upload would send, all together."""

    type_name = "summary"

    planned: int
    failed: int
    total_bytes: int


def plan(
    files: Iterable[File | Failed],
    *,
    part_bytes: int | None,
    content_type: str | None,
    records: Callable[[Planned | Failed], None],
) -> PlanSummary:
    """Hand each file as it would be uploaded to `records`, and return the sums.

    `part_bytes` and `content_type` are what was asked for, None for what suits each file.
    """
    planned = failed = total_bytes = 0
    for file in files:
        found = file if isinstance(file, Failed) else _plan_one(file, part_bytes, content_type)
        records(found)
        if isinstance(found, Failed):
            failed += 1
        else:
            planned += 1
            total_bytes += found.size_bytes
    return PlanSummary(planned, failed, total_bytes)


def _plan_one(file: File, part_bytes: int | None, content_type: str | None) -> Planned | Failed:
    parts = 1
    if file.size_bytes >= THRESHOLD_BYTES:
        try:
            parts = plan_parts(file.size_bytes, part_bytes=part_bytes).count
        except UsageError as error:
            return Failed(file.path, file.key, error.message, error.hint)
    stored_as = content_type_of(file.path, file.key, content_type)
    return Planned(file.path, file.key, file.size_bytes, parts, stored_as)
