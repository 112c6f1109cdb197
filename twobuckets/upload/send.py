"""One run over files: small ones in one request, large ones in parts, all over one sender.

Each file is a conversation with S3, and one driver keeps many of them going, parts and small files
mixed, so that a folder of small files and one huge file both keep the connection full. What holds
at every moment:

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
from pathlib import Path
from typing import TYPE_CHECKING, BinaryIO, Final

from twobuckets.database import explain_os_error
from twobuckets.pipeline.conversation import hold
from twobuckets.s3.engine import SendError
from twobuckets.s3.operations import abort_multipart_upload
from twobuckets.upload.files import STDIN, Failed, File
from twobuckets.upload.journal import InUseError
from twobuckets.upload.large import IN_USE, IN_USE_HINT, send_large
from twobuckets.upload.parts import THRESHOLD_BYTES
from twobuckets.upload.run import Uploaded
from twobuckets.upload.sent import SentBefore
from twobuckets.upload.small import send_small
from twobuckets.upload.stream import send_stream

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping
    from datetime import timedelta

    from twobuckets.pipeline.conversation import LongTalk
    from twobuckets.s3.engine import Sender
    from twobuckets.upload.journal import Claim, UploadJournal
    from twobuckets.upload.run import UploadRun, Warned
    from twobuckets.upload.unfinished import Kept

_MOST_WAITING: Final = 64
_MOST_UNSEEN: Final = 1000


@dataclass(frozen=True, slots=True)
class UploadSummary:
    """How a run ended; `resumed_bytes` of `total_bytes` were in S3 from earlier runs.

    `sent_before` counts what earlier runs of the same command had sent, and this one did not send.
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
    sent_before: int = 0


class Upload:
    """Iterate it for Uploaded, Failed, Warned and SentBefore as they come.

    After an interruption `kept()` tells what is left in S3. Raises AccessError, NotFoundError or
    TwoBucketsError for what every other file would meet as well.
    """

    def __init__(
        self,
        sender: Sender,
        files: Iterable[File | Failed],
        run: UploadRun,
        *,
        stdin: BinaryIO | None = None,
    ) -> None:
        self._sender = sender
        self._files = files
        self._run = run
        self._stdin = stdin
        self._large = 0
        self._uploaded = self._failed = self._total_bytes = self._resumed_bytes = 0
        self._sent_before = 0

    def summary(self, duration: timedelta) -> UploadSummary:
        """Return how the run ended, or how far it is."""
        return UploadSummary(
            self._uploaded,
            self._failed,
            self._total_bytes,
            self._run.sent_bytes,
            self._resumed_bytes,
            duration,
            sent_before=self._sent_before,
        )

    def __iter__(self) -> Iterator[Uploaded | Failed | Warned | SentBefore]:
        for record in hold(self._sender, self._iter_talks(), self._run.records):
            if isinstance(record, Uploaded):
                self._uploaded += 1
                self._total_bytes += record.size_bytes
                self._resumed_bytes += record.resumed_bytes
            elif isinstance(record, Failed):
                self._failed += 1
            elif isinstance(record, SentBefore):
                self._sent_before += 1
            yield record

    def kept(self) -> list[Kept]:
        """Return what is in S3 of uploads that did not get done and can be gone on with."""
        return [
            kept
            for upload in self._run.unfinished
            if (kept := upload.kept(self._run.options.prices))
        ]

    def dropped(self) -> list[tuple[str, str]]:
        """Return key and upload id of what an interruption left and nobody can go on with."""
        return [
            (upload.file.key, upload.upload_id)
            for upload in self._run.unfinished
            if upload.upload_id and upload.drops
        ]

    def _iter_talks(self) -> Iterator[LongTalk[Uploaded | Failed | Warned | SentBefore] | None]:
        """Yield how each file is sent; None while there is no room for the next one."""
        run = self._run
        waiting: deque[File] = deque()
        files = iter(self._files)
        is_walked = False
        while not is_walked or waiting:
            if waiting and self._large < run.options.most_parts and run.has_room_for_part:
                yield self._count_large(send_large(run, waiting.popleft()))
            elif is_walked or len(waiting) >= _MOST_WAITING or len(run.records) >= _MOST_UNSEEN:
                yield None
            elif (found := next(files, None)) is None:
                is_walked = True
            elif isinstance(found, Failed):
                run.records.append(found)
            elif found.path == STDIN and self._stdin is not None:
                yield send_stream(run, found, self._stdin)
            elif run.sent is not None and (before := run.sent.before(found)) is not None:
                run.records.append(before)
            elif found.size_bytes >= THRESHOLD_BYTES:
                waiting.append(found)
            else:
                yield send_small(run, found)

    def _count_large(
        self, talk: LongTalk[Uploaded | Failed]
    ) -> LongTalk[Uploaded | Failed | Warned | SentBefore]:
        self._large += 1
        try:
            return (yield from talk)
        finally:
            self._large -= 1


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


def find_kept(files: Iterable[File | Failed], journal: UploadJournal) -> Iterator[Begun | Failed]:
    """Yield what the journal says earlier runs left of these files.

    Raises JournalError when the journal can't be read.
    """
    for found in _iter_claims(files, journal):
        if isinstance(found, Failed):
            yield found
        else:
            file, _, upload_id = found
            yield Begun(file.path, file.key, upload_id)


def discard_kept(
    sender: Sender, files: Iterable[File | Failed], bucket: str, journal: UploadJournal
) -> Iterator[Discarded | Failed]:
    """Drop what the journal says earlier runs left of these files; yield what was dropped.

    Raises JournalError when the journal can't be read.
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
    files: Iterable[File | Failed], journal: UploadJournal
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
        except OSError as error:
            raise explain_os_error(journal.directory or Path(), error) from error
        with claim:
            if claim.begun is not None:
                yield file, claim, claim.begun.upload_id
            elif isinstance(file, Failed):
                yield file


def drop(
    sender: Sender, bucket: str, uploads: Iterable[tuple[str, str]]
) -> Iterator[tuple[str, str]]:
    """Abort incomplete uploads, each a key and an upload id; yield those that could not be."""
    asked = {abort_multipart_upload(bucket, *upload): upload for upload in uploads}
    for request, answer in sender.send_all(asked):
        if isinstance(answer, SendError) or not (answer.ok or answer.status == 404):
            yield asked[request]
