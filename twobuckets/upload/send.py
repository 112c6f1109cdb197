"""One run over files: small ones in one request, large ones in parts, all over one sender.

One source gives the sender its next request, parts and small files mixed, so that a folder of
small files and one huge file both keep the connection full. What holds at every moment:

- What was read is what is sent: a body is in memory, or its checksum was taken first and S3
  refuses a body that does not have it.
- An object appears under its key only after the file was found unchanged: a small file is looked
  at again before its one request is sent, a large one before its upload is completed.
- What S3 says it stored is compared with what was read, the parts and the whole.
- An upload that this user did not begin is not continued; one that neither this run nor the
  journal knows is not aborted.
"""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass
from typing import TYPE_CHECKING, BinaryIO, Final, cast

from twobuckets.s3.engine import Request, Response
from twobuckets.upload.checksum import read_body
from twobuckets.upload.files import STDIN, Failed, File
from twobuckets.upload.journal import InUseError
from twobuckets.upload.large import IN_USE, IN_USE_HINT, LargeFile, open_large
from twobuckets.upload.parts import THRESHOLD_BYTES, stream_part_bytes
from twobuckets.upload.run import Uploaded
from twobuckets.upload.small import Small, prepare
from twobuckets.upload.stream import LargeStream, read_block

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Mapping
    from datetime import timedelta

    from twobuckets.s3.engine import Sender
    from twobuckets.upload.journal import Claim, Journal
    from twobuckets.upload.multipart import Multipart
    from twobuckets.upload.run import Kept, Outcome, Run, Warned

_MOST_WAITING: Final = 64
_MOST_UNSEEN: Final = 1000
_CHECKED_AT_ONCE_BYTES: Final = 128 * 1024 * 1024
"""Read between two looks at the network: a tenth of a second, which nobody notices."""


@dataclass(frozen=True, slots=True)
class UploadSummary:
    """How a run ended; `resumed_bytes` of `total_bytes` were in S3 from earlier runs.

    `outcomes` counts what became of the uploaded files, None when nobody waited for that.
    """

    type_name = "summary"

    uploaded: int
    failed: int
    total_bytes: int
    sent_bytes: int
    resumed_bytes: int
    duration: timedelta
    outcomes: Mapping[str, int] | None = None


class Upload:
    """Iterate it for Uploaded, Failed and Warned as they come.

    After an interruption `kept()` tells what is left in S3. Raises AccessError, NotFoundError or
    TwoBucketsError for what every other file would meet as well.
    """

    def __init__(
        self,
        sender: Sender,
        files: Iterable[File | Failed],
        run: Run,
        *,
        stdin: BinaryIO | None = None,
    ) -> None:
        self._sender = sender
        self._files = iter(files)
        self._run = run
        self._stdin = stdin
        self._walked = False
        self._waiting: deque[File] = deque()
        self._active: list[Multipart] = []
        self._open = 0
        self._uploaded = self._failed = self._total_bytes = self._resumed_bytes = 0

    def summary(self, duration: timedelta) -> UploadSummary:
        """Return how the run ended, or how far it is."""
        return UploadSummary(
            self._uploaded,
            self._failed,
            self._total_bytes,
            self._run.sent_bytes,
            self._resumed_bytes,
            duration,
        )

    def __iter__(self) -> Iterator[Uploaded | Failed | Warned]:
        records = self._run.records
        try:
            while not self._is_finished():
                for request, outcome in self._sender.send_all(self._source()):
                    self._open -= 1
                    self._run.has_contact |= isinstance(outcome, Response) and outcome.ok
                    cast("Callable[[Outcome], None]", request.tag)(outcome)
                    if records:
                        yield from self._take_records()
                yield from self._take_records()
        finally:
            for large in self._active:
                large.close()

    def _take_records(self) -> Iterator[Uploaded | Failed | Warned]:
        self._active = [large for large in self._active if not large.is_over]
        records = self._run.records
        while records:
            record = records.popleft()
            if isinstance(record, Uploaded):
                self._uploaded += 1
                self._total_bytes += record.size_bytes
                self._resumed_bytes += record.resumed_bytes
            elif isinstance(record, Failed):
                self._failed += 1
            yield record

    def kept(self) -> list[Kept]:
        """Return what is in S3 of uploads that did not get done and can be gone on with."""
        return [kept for large in self._active if (kept := large.kept) is not None]

    def dropped(self) -> list[tuple[str, str]]:
        """Return key and upload id of what an interruption left and nobody can go on with."""
        return [
            (large.file.key, large.upload_id)
            for large in self._active
            if large.upload_id and large.is_dropped
        ]

    def _is_finished(self) -> bool:
        return (
            self._walked
            and not self._open
            and not self._waiting
            and not self._run.next
            and not any(not large.is_over for large in self._active)
        )

    def _source(self) -> Iterator[Request | None]:
        while not self._is_finished():
            request = self._next_request()
            if request is not None:
                self._open += 1
            yield request

    def _next_request(self) -> Request | None:
        following, waiting, records = self._run.next, self._waiting, self._run.records
        if following:
            return following.popleft()
        if self._run.parts_in_flight < self._run.wishes.most_parts:
            for large in self._active:
                request = large.next_part()
                if request is not None or following:
                    return request or following.popleft()
            if self._begin_large():
                return following.popleft()
        while not self._walked and len(records) < _MOST_UNSEEN and len(waiting) < _MOST_WAITING:
            request = self._take_file()
            if request is not None or following or self._begin_large():
                return request or following.popleft()
        budget = _CHECKED_AT_ONCE_BYTES
        for large in self._active:
            if isinstance(large, LargeFile):
                budget = large.check(budget)
        return following.popleft() if following else None

    def _take_file(self) -> Request | None:
        found = next(self._files, None)
        if found is None:
            self._walked = True
        elif isinstance(found, Failed):
            self._run.records.append(found)
        elif found.path == STDIN and self._stdin is not None:
            return self._begin_stream(found, self._stdin)
        elif found.size_bytes >= THRESHOLD_BYTES:
            self._waiting.append(found)
        else:
            request = prepare(self._run, found)
            if not isinstance(request, File):
                return request
            self._waiting.append(request)
        return None

    def _begin_large(self) -> bool:
        """Begin a large file if one waits and there is room; True when it has a request."""
        while self._waiting and len(self._active) < self._run.wishes.most_parts:
            large = open_large(self._run, self._waiting.popleft())
            if large is not None:
                self._active.append(large)
                large.begin()
                return True
        return False

    def _begin_stream(self, file: File, stream: BinaryIO) -> Request | None:
        first = read_block(stream, self._run, 1)
        if len(first) < stream_part_bytes(1, part_bytes=self._run.wishes.part_bytes):
            small = Small(self._run, file, read_body(first))
            return small.request(only_if_new=self._run.only_if_new)
        large = LargeStream(self._run, file, stream, first)
        self._active.append(large)
        large.create()
        return None


@dataclass(frozen=True, slots=True)
class Discarded:
    """An incomplete upload that was dropped because somebody asked for it."""

    path: str
    key: str
    upload_id: str


@dataclass(frozen=True, slots=True)
class Begun:
    """An incomplete upload that an earlier run left and that can be dropped."""

    path: str
    key: str
    upload_id: str


@dataclass(frozen=True, slots=True)
class DiscardSummary:
    """How many incomplete uploads the journal knows of the files, and how many were dropped."""

    type_name = "summary"

    found: int
    dropped: int
    failed: int


def find_kept(files: Iterable[File | Failed], journal: Journal) -> Iterator[Begun | Failed]:
    """Yield what the journal says earlier runs left of these files.

    Raises OSError when the journal can't be read.
    """
    for found in _iter_claims(files, journal):
        if isinstance(found, Failed):
            yield found
        else:
            file, _, upload_id = found
            yield Begun(file.path, file.key, upload_id)


def discard_kept(
    sender: Sender, files: Iterable[File | Failed], bucket: str, journal: Journal
) -> Iterator[Discarded | Failed]:
    """Drop what the journal says earlier runs left of these files; yield what was dropped.

    Raises OSError when the journal can't be read.
    """
    for found in _iter_claims(files, journal):
        if isinstance(found, Failed):
            yield found
            continue
        file, claim, upload_id = found
        if list(drop(sender, bucket, [(file.key, upload_id)])):
            yield Failed(file.path, file.key, f"its upload {upload_id} could not be dropped")
        else:
            claim.forget()
            yield Discarded(file.path, file.key, upload_id)


def _iter_claims(
    files: Iterable[File | Failed], journal: Journal
) -> Iterator[tuple[File | Failed, Claim, str] | Failed]:
    """Yield each file that has a begun upload, with its claim, held meanwhile, and upload id.

    A file that is gone, or can't be read any more, may have one as well.
    """
    for file in files:
        try:
            claim = journal.claim(file.path, file.key)
        except InUseError:
            yield Failed(file.path, file.key, IN_USE, IN_USE_HINT)
            continue
        with claim:
            if claim.begun is not None:
                yield file, claim, claim.begun.upload_id
            elif isinstance(file, Failed):
                yield file


def drop(
    sender: Sender, bucket: str, uploads: Iterable[tuple[str, str]]
) -> Iterator[tuple[str, str]]:
    """Abort incomplete uploads, each a key and an upload id; yield those that could not be."""
    requests = [
        Request("DELETE", bucket, key, query=(("uploadId", upload_id),), tag=(key, upload_id))
        for key, upload_id in uploads
    ]
    for request, outcome in sender.send_all(requests):
        if not isinstance(outcome, Response) or not (outcome.ok or outcome.status == 404):
            yield cast("tuple[str, str]", request.tag)
