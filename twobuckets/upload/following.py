"""Follows what was uploaded through the pipeline, until each file is archived or has failed."""

from __future__ import annotations

from typing import TYPE_CHECKING

from twobuckets.logs.objects import AwaitedVersion
from twobuckets.upload.files import Failed
from twobuckets.upload.run import Uploaded
from twobuckets.upload.sent import SentBefore

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from twobuckets.logs.ends import Ends
    from twobuckets.logs.waiting import Fate
    from twobuckets.upload.run import Warned


class Followed:
    """What an upload tells, and among it what is known by then of the files that S3 has.

    Iterate it as the upload itself; what has come to no end by then is waited for with `ends`.
    """

    def __init__(
        self, uploading: Iterable[Uploaded | Failed | Warned | SentBefore], ends: Ends
    ) -> None:
        self._uploading = uploading
        self._ends = ends
        self._paths: dict[str, str] = {}

    def __iter__(self) -> Iterator[Uploaded | Failed | Warned | SentBefore | Fate]:
        for record in self._uploading:
            yield record
            if isinstance(record, Uploaded | SentBefore):
                self._paths[record.key] = record.path
                yield from self._ends.add(
                    AwaitedVersion(
                        record.key,
                        record.version_id,
                        record.etag,
                        record.uploaded_at,
                        record.size_bytes,
                    )
                )

    def end(self, fate: Fate) -> Failed | None:
        """Take the end of a file, and return it as a failure to list, None if it ended well."""
        path = self._paths.pop(fate.key, "")
        if self._ends.is_good(fate):
            return None
        reason = fate.error.message if fate.error is not None else fate.detail or fate.fate
        return Failed(path, fate.key, f"{fate.fate}: {reason}")
