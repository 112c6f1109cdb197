"""Follows what was uploaded through the pipeline, until each file is archived or has failed."""

from __future__ import annotations

from functools import cache
from typing import TYPE_CHECKING, Final

from twobuckets.logs.objects import AwaitedVersion
from twobuckets.processor.contract import stands_for_folder
from twobuckets.upload.files import Failed
from twobuckets.upload.run import Uploaded, Warned
from twobuckets.upload.sent import SentBefore

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator

    from twobuckets.logs.ends import Ends
    from twobuckets.logs.waiting import Fate

_FOLDER: Final = (
    "It is empty and its key ends in a slash, so it stands for a folder: the processor leaves it "
    "in staging (processor.folders), and nothing is waited for"
)


class Followed:
    """What an upload tells, and among it what is known by then of the files that S3 has.

    Iterate it as the upload itself; what has come to no end by then is waited for with `ends`.
    What stands for a folder is not, where the processor `skips_folders`: it has no end to come to.
    """

    def __init__(
        self,
        uploading: Iterable[Uploaded | Failed | Warned | SentBefore],
        ends: Ends,
        *,
        skips_folders: Callable[[], bool],
    ) -> None:
        self._uploading = uploading
        self._ends = ends
        self._skips_folders = cache(skips_folders)
        self._paths: dict[str, str] = {}

    def __iter__(self) -> Iterator[Uploaded | Failed | Warned | SentBefore | Fate]:
        for record in self._uploading:
            yield record
            if isinstance(record, Uploaded | SentBefore):
                if stands_for_folder(record.key, record.size_bytes) and self._skips_folders():
                    yield Warned(record.path, record.key, _FOLDER)
                    continue
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
