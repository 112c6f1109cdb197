"""Large files and streams: created, sent in parts, found unchanged, completed, and proven.

Each step is called with the answer of the one before:

    (looked →) uploads or parts listed → created → parts sent → completed (→ result looked at)

and any of them may end in `end`, which keeps what S3 has for a resume, or drops it.
"""

from __future__ import annotations

import os
import stat
from collections import deque
from dataclasses import replace
from functools import partial
from typing import TYPE_CHECKING, BinaryIO, Final
from xml.sax.saxutils import escape

from twobuckets.errors import UsageError
from twobuckets.s3 import FileChangedError, FileSlice, Request, Response, SendError
from twobuckets.upload import checksum
from twobuckets.upload.checksum import Body, read_body
from twobuckets.upload.files import Failed, File, why_unreadable
from twobuckets.upload.journal import Begun, Claim, InUseError
from twobuckets.upload.parts import MOST_PARTS, PartPlan, plan_parts, stream_part_bytes
from twobuckets.upload.resume import (
    find_abort_at,
    find_element,
    find_part_bytes,
    list_parts,
    list_uploads,
    parse_parts,
    parse_uploads,
)
from twobuckets.upload.run import (
    CHANGED,
    CHANGED_HINT,
    NOT_WHAT_WAS_SENT,
    NOT_WHAT_WAS_SENT_HINT,
    Kept,
    Outcome,
    Resume,
    Run,
    Uploaded,
    existing,
    is_change,
    is_same_file,
    lacks_condition,
)
from twobuckets.upload.small import open_file

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from datetime import datetime

    from twobuckets.upload.resume import Incomplete, KeptPart

STREAM_MEMORY_BYTES: Final = 48 * 1024 * 1024
"""How much of a stream is in memory at once, unless a single part is larger."""

IN_USE: Final = "another process is uploading it to the same key right now"
IN_USE_HINT: Final = "Wait for that one, or end it."

_MOST_ABORTS: Final = 5
_STANDARD_DOLLARS_PER_GIB_MONTH: Final = 0.023
"""S3 Standard in us-east-1; other regions differ by less than a factor of two."""


class Large:
    """What large files and streams have in common: one multipart upload.

    `done` has the ETag, CRC and length of each part that S3 has and was proven to have. Once
    `is_over` the run has the record of how it ended.
    """

    def __init__(self, run: Run, file: File) -> None:
        self.run = run
        self.file = file
        self.upload_id = ""
        self.done: dict[int, tuple[str, int, int]] = {}
        self.is_over = False
        self._abort_at: datetime | None = None
        self._in_flight = 0
        self._may_send = False
        self._failure: Failed | None = None
        self._drops = False
        self._aborts = 0
        self._replaced = False
        self._was_taken = False

    @property
    def done_bytes(self) -> int:
        """How many bytes of it S3 has."""
        return sum(length for _, _, length in self.done.values())

    @property
    def kept(self) -> Kept | None:
        """What S3 has of it and a resume can use; None if nothing."""
        if not self.upload_id or self.is_dropped:
            return None
        return Kept(
            self.file.path,
            self.file.key,
            self.upload_id,
            self.done_bytes,
            self.file.size_bytes,
            self._abort_at,
            self.done_bytes / 1024**3 * _STANDARD_DOLLARS_PER_GIB_MONTH,
        )

    @property
    def is_dropped(self) -> bool:
        """Whether nothing of it is to stay in S3 when it does not get done."""
        return self._drops

    # What differs between files and streams.

    def _next_body(self) -> tuple[int, Body] | None:
        """Return the number and body of a part to send; None if there is none now."""
        raise NotImplementedError

    def _is_all_sent(self) -> bool:
        raise NotImplementedError

    def _has_changed(self) -> bool:
        raise NotImplementedError

    def _note_created(self) -> None:
        """Remember the upload, now that it has an id."""

    def _note_gone(self) -> None:
        """Forget the upload: it is complete or aborted."""

    def _resumed_bytes(self) -> int:
        return 0

    def close(self) -> None:
        """Let go of what it holds on this machine."""

    # Create.

    def create(self) -> None:
        """Begin a new upload."""
        self.upload_id = ""
        self.run.next.append(
            Request(
                "POST",
                self.run.wishes.bucket,
                self.file.key,
                query=(("uploads", ""),),
                headers=(
                    ("content-type", self.run.content_type(self.file)),
                    ("x-amz-checksum-algorithm", "CRC64NVME"),
                    ("x-amz-checksum-type", "FULL_OBJECT"),
                ),
                tag=self._created,
            )
        )

    def _created(self, outcome: Outcome) -> None:
        if isinstance(outcome, SendError) or not outcome.ok:
            self._end(self.run.explain(self.file, outcome, "CreateMultipartUpload"))
            return
        self.upload_id = find_element(outcome, "UploadId")
        self._abort_at = find_abort_at(outcome)
        if outcome.headers.get("x-amz-checksum-algorithm") == "CRC64NVME":
            self.run.tells_crc = True
        if outcome.attempts > 1:
            # Nothing that S3 lists tells an upload without parts from somebody else's.
            self.run.warn_once(
                self.file,
                f"Beginning the upload to {self.file.key} took {outcome.attempts} tries; one whose "
                "answer was lost may stay as an incomplete upload without parts, which costs "
                "nothing",
            )
        self._note_created()
        self._may_send = True

    # Parts.

    def next_part(self) -> Request | None:
        """Return the request for a part that can be sent now."""
        if not self._may_send or self._failure is not None:
            return None
        try:
            found = self._next_body()
            if found is None:
                return None
            number, body = found
            headers = self.run.checksum_headers(body, is_part=True)
        except (OSError, FileChangedError):
            self._end_changed()
            return None
        self._in_flight += 1
        self.run.parts_in_flight += 1
        return Request(
            "PUT",
            self.run.wishes.bucket,
            self.file.key,
            query=(("partNumber", str(number)), ("uploadId", self.upload_id)),
            headers=tuple(headers),
            body=body.content,
            checksum=checksum.ALGORITHM if body.crc is None else None,
            tag=partial(self._part_sent, number, body),
            on_sent=self.run.hears(self.file),
        )

    def _part_sent(self, number: int, body: Body, outcome: Outcome) -> None:
        self._in_flight -= 1
        self.run.parts_in_flight -= 1
        is_stored = isinstance(outcome, Response) and outcome.ok
        if isinstance(outcome, Response) and is_stored and self.run.is_proven(outcome, body):
            self.run.sent_bytes += body.length
            self.done[number] = (outcome.headers.get("etag", ""), body.crc or 0, body.length)
            self._complete_if_done()
        elif self._failure is not None:
            self._end(self._failure)
        elif is_stored:
            self._end(self._failed(NOT_WHAT_WAS_SENT, NOT_WHAT_WAS_SENT_HINT))
        elif is_change(outcome) or self._has_changed():
            self._end_changed()
        else:
            if isinstance(outcome, Response) and outcome.code == "NoSuchUpload":
                self._note_gone()
                self.upload_id = ""
            self._end(self.run.explain(self.file, outcome, "UploadPart"))

    # Complete.

    @property
    def _whole_crc(self) -> int:
        parts = sorted(self.done.items())
        return checksum.ALGORITHM.combine((crc, length) for _, (_, crc, length) in parts)

    def _is_expected_etag(self, etag: str) -> bool:
        """Tell whether an ETag is what the parts' MD5s add up to."""
        expected = checksum.multipart_etag(etag for _, (etag, _, _) in sorted(self.done.items()))
        return expected is not None and etag.strip('"') == expected

    def _complete_if_done(self) -> None:
        if self._failure is not None:
            self._end(self._failure)
            return
        if self._in_flight or not self._may_send or not self._is_all_sent():
            return
        self._may_send = False
        # The object must not appear if what was read is no longer what the file is.
        if self._has_changed():
            self._end_changed()
        else:
            self._complete(only_if_new=self.run.only_if_new)

    def _complete(self, *, only_if_new: bool) -> None:
        tells_crc = self.run.tells_crc is True
        lines = [
            f"<Part><PartNumber>{number}</PartNumber><ETag>{escape(etag)}</ETag>"
            + (f"<ChecksumCRC64NVME>{checksum.encode(crc)}</ChecksumCRC64NVME>" * tells_crc)
            + "</Part>"
            for number, (etag, crc, _) in sorted(self.done.items())
        ]
        headers = [
            ("content-type", "application/xml"),
            (checksum.HEADER, checksum.encode(self._whole_crc)),
            ("x-amz-checksum-type", "FULL_OBJECT"),
            ("x-amz-mp-object-size", str(self.done_bytes)),
        ]
        if only_if_new:
            headers.append(("if-none-match", "*"))
        self.run.next.append(
            Request(
                "POST",
                self.run.wishes.bucket,
                self.file.key,
                query=(("uploadId", self.upload_id),),
                headers=tuple(headers),
                body=(
                    '<CompleteMultipartUpload xmlns="http://s3.amazonaws.com/doc/2006-03-01/">'
                    f"{''.join(lines)}</CompleteMultipartUpload>"
                ).encode(),
                tag=partial(self._completed, only_if_new),
            )
        )

    def _completed(self, only_if_new: bool, outcome: Outcome) -> None:
        if isinstance(outcome, Response) and outcome.ok:
            said = find_element(outcome, "ChecksumCRC64NVME")
            etag = find_element(outcome, "ETag")
            if said == checksum.encode(self._whole_crc) or self._is_expected_etag(etag):
                self._finish(etag, outcome)
            else:
                self._look_at_result(outcome)
        elif isinstance(outcome, SendError) or (
            outcome.attempts > 1 and (outcome.status == 412 or outcome.code == "NoSuchUpload")
        ):
            # One of the tries may have completed it, and its answer got lost.
            self._look_at_result(outcome)
        elif only_if_new and outcome.status == 412:
            self._exists()
        elif only_if_new and self.run.wishes.overwrite and lacks_condition(outcome):
            self.run.has_conditions = False
            self._complete(only_if_new=False)
        else:
            self._end_refused(outcome)

    def _exists(self) -> None:
        if self.run.wishes.overwrite:
            self._replaced = True
            self._complete(only_if_new=False)
        else:
            self._drops = True
            self._end(existing(self.file))

    def _look_at_result(self, because: Outcome) -> None:
        self.run.head(self.file, partial(self._result_looked, because))

    def _result_looked(self, because: Outcome, outcome: Outcome) -> None:
        if isinstance(outcome, Response) and outcome.ok:
            etag = outcome.headers.get("etag", "")
            said = outcome.headers.get(checksum.HEADER)
            is_right_size = outcome.headers.get("content-length") == str(self.done_bytes)
            if is_right_size and (
                said == checksum.encode(self._whole_crc) or self._is_expected_etag(etag)
            ):
                self._finish(etag, outcome)
                return
        if isinstance(because, Response) and because.ok:
            self._note_gone()
            self.upload_id = ""
            self._end(self._failed(NOT_WHAT_WAS_SENT, NOT_WHAT_WAS_SENT_HINT))
        elif isinstance(because, Response) and because.status == 412:
            self._exists()
        else:
            self._end_refused(because)

    def _finish(self, etag: str, answer: Response) -> None:
        self._note_gone()
        self.close()
        self.is_over = True
        self.run.store(
            Uploaded(
                self.file.path,
                self.file.key,
                self.done_bytes,
                etag.strip('"'),
                answer.headers.get("x-amz-version-id"),
                checksum.encode(self._whole_crc),
                self.run.answered_at(answer),
                resumed_bytes=self._resumed_bytes(),
                replaced=self._replaced or (self._was_taken and self.run.tells_crc is False),
            )
        )

    # The other ends.

    def _failed(self, reason: str, hint: str | None = None) -> Failed:
        return Failed(self.file.path, self.file.key, reason, hint)

    def _end_changed(self) -> None:
        self._drops = True
        self._end(self._failed(CHANGED, CHANGED_HINT))

    def _end_refused(self, outcome: Outcome) -> None:
        if isinstance(outcome, Response):
            if outcome.code == "NoSuchUpload":
                self._note_gone()
                self.upload_id = ""
            # What S3 has does not add up: it would not the next time either.
            self._drops |= outcome.code in {"InvalidPart", "InvalidPartOrder", "BadDigest"}
        self._end(self.run.explain(self.file, outcome, "CompleteMultipartUpload"))

    def _end(self, failure: Failed) -> None:
        """End with a failure once nothing is in flight; keep what a resume can use."""
        self._failure = failure
        self._may_send = False
        if self._in_flight or self.is_over:
            return
        if self.upload_id and self._drops:
            self.abort(partial(self._record, failure))
            return
        self._record(failure)

    def _record(self, failure: Failed) -> None:
        if self.is_over:
            return
        self.is_over = True
        self.close()
        kept = self.kept
        if kept is not None:
            failure = replace(failure, kept_bytes=kept.kept_bytes, upload_id=kept.upload_id)
        self.run.records.append(failure)

    def abort(self, then: Callable[[], None]) -> None:
        """Abort the upload, and look whether a part that was on its way landed after that.

        S3 asks for that (Amazon S3 API reference, AbortMultipartUpload).
        """
        self._aborts += 1
        self.run.next.append(
            Request(
                "DELETE",
                self.run.wishes.bucket,
                self.file.key,
                query=(("uploadId", self.upload_id),),
                tag=partial(self._aborted, then),
            )
        )

    def _aborted(self, then: Callable[[], None], outcome: Outcome) -> None:
        if isinstance(outcome, SendError) or not (outcome.ok or outcome.status == 404):
            self._give_up_aborting(then)
            return
        self.run.next.append(
            list_parts(
                self.run.wishes.bucket,
                self.file.key,
                self.upload_id,
                tag=partial(self._abort_looked, then),
            )
        )

    def _abort_looked(self, then: Callable[[], None], outcome: Outcome) -> None:
        is_listed = isinstance(outcome, Response) and outcome.ok
        if is_listed and self._aborts < _MOST_ABORTS:
            self.abort(then)
        elif is_listed:
            self._give_up_aborting(then)
        else:
            self._note_gone()
            self.upload_id = ""
            self.done.clear()
            then()

    def _give_up_aborting(self, then: Callable[[], None]) -> None:
        self.run.warn_once(
            self.file,
            f"The incomplete upload {self.upload_id} of {self.file.key} could not be dropped; "
            "a lifecycle rule or `twobuckets doctor` can",
        )
        then()


class LargeFile(Large):
    """A file that goes in parts and can be gone on with after an interruption."""

    def __init__(
        self, run: Run, file: File, *, claim: Claim, fd: int, status: os.stat_result, plan: PartPlan
    ) -> None:
        super().__init__(run, file)
        self._claim = claim
        self._fd = fd
        self._status = status
        self._plan = plan
        self._numbers: Iterator[int] = iter(range(1, plan.count + 1))
        self._again: deque[int] = deque()
        # Of an earlier run, not yet compared with the file.
        self._unchecked: deque[KeptPart] = deque()
        self._listed: dict[int, KeptPart] = {}
        self._others: list[Incomplete] = []
        self._is_adopting = False
        self._found_bytes = 0
        self._drops = run.wishes.resume is Resume.IGNORE
        self._is_open = True

    @property
    def is_dropped(self) -> bool:
        """Whether nothing of it is to stay in S3; what is only looked at is not ours to count."""
        return self._drops or self._is_adopting

    def begin(self) -> None:
        """Ask for the first request."""
        if self.run.wishes.overwrite and self.run.tells_crc is True:
            self._find_earlier()
        else:
            # Known before gigabytes were sent for nothing; the condition on complete decides.
            # Endpoints without checksums, such as Ceph's gateway, know no condition there either.
            self.run.head(self.file, self._looked)

    def close(self) -> None:
        """Close the file and let other processes have the journal's entry."""
        if self._is_open:
            self._is_open = False
            os.close(self._fd)
            self._claim.close()

    def _looked(self, outcome: Outcome) -> None:
        is_taken = isinstance(outcome, Response) and outcome.ok
        if is_taken and not self.run.wishes.overwrite:
            self._end(existing(self.file))
            return
        self._was_taken = is_taken
        self._find_earlier()

    # What an earlier run left.

    def _find_earlier(self) -> None:
        begun = self._claim.begun
        resume = self.run.wishes.resume
        if begun is not None and resume is not Resume.IGNORE:
            self.upload_id = begun.upload_id
            if resume is Resume.RESTART or begun.size_bytes != self.file.size_bytes:
                self.abort(self.create)
            else:
                self._list_parts(0)
        elif resume is Resume.CONTINUE:
            self._list_uploads(None)
        else:
            self.create()

    def _list_uploads(self, after: tuple[str, str] | None) -> None:
        self.run.next.append(
            list_uploads(self.run.wishes.bucket, self.file.key, after, tag=self._uploads_listed)
        )

    def _uploads_listed(self, outcome: Outcome) -> None:
        # Without the permission to list there is nothing to go on with, and a new one is right.
        if isinstance(outcome, Response) and outcome.ok:
            found, after = parse_uploads(outcome, self.file.key)
            self._others += found
            if after is not None:
                self._list_uploads(after)
                return
        if self._others:
            ours = self.run.initiator()
            self._others = [
                other
                for other in self._others
                if other.initiator in ours and other.takes_our_checksums
            ]
        self._try_other()

    def _try_other(self) -> None:
        """Look at an upload of ours that the journal does not know, the newest first."""
        self._listed.clear()
        self._unchecked.clear()
        self._hear(-self._found_bytes)
        self._found_bytes = 0
        self.done.clear()
        self._is_adopting = bool(self._others)
        if self._others:
            self.upload_id = self._others.pop().upload_id
            self._list_parts(0)
        else:
            self._plan = plan_parts(self.file.size_bytes, part_bytes=self.run.wishes.part_bytes)
            self._numbers = iter(range(1, self._plan.count + 1))
            self.create()

    def _list_parts(self, after: int) -> None:
        self.run.next.append(
            list_parts(
                self.run.wishes.bucket, self.file.key, self.upload_id, after, tag=self._parts_listed
            )
        )

    def _parts_listed(self, outcome: Outcome) -> None:
        if isinstance(outcome, SendError) or not outcome.ok:
            if self._is_adopting:
                self._try_other()
            elif isinstance(outcome, Response) and outcome.code == "NoSuchUpload":
                # Completed, aborted or expired since.
                self._note_gone()
                self.upload_id = ""
                self._list_uploads(None)
            else:
                self._end(self.run.explain(self.file, outcome, "ListParts"))
            return
        parts, after = parse_parts(outcome)
        self._listed.update((part.number, part) for part in parts)
        self._abort_at = find_abort_at(outcome)
        if after:
            self._list_parts(after)
        else:
            self._go_on_with(self._listed)

    def _go_on_with(self, listed: dict[int, KeptPart]) -> None:
        begun = self._claim.begun
        if self._is_adopting or begun is None:
            part_bytes = find_part_bytes(listed, self.file.size_bytes)
        else:
            part_bytes = begun.part_bytes
        if part_bytes is None:
            self._try_other()
            return
        # S3 goes on with the parts it has, so they decide the size of the others.
        plan = self._plan = PartPlan(self.file.size_bytes, part_bytes)
        fitting = {
            number: part
            for number, part in listed.items()
            if number <= plan.count and part.size_bytes == plan.part(number).length
        }
        self._unchecked.extend(fitting.values())
        self._numbers = (n for n in range(1, plan.count + 1) if n not in fitting)
        # What the journal knows is ours: missing parts go out while the others are compared.
        self._may_send = not self._is_adopting
        if not self._unchecked:
            self._all_checked()

    def check(self, budget_bytes: int) -> int:
        """Compare parts of an earlier run with the file; return what is left of the budget."""
        while self._unchecked and budget_bytes > 0 and self._failure is None:
            part = self._unchecked.popleft()
            budget_bytes -= part.size_bytes
            if self._check(part) and not self._unchecked:
                self._all_checked()
        return budget_bytes

    def _check(self, kept: KeptPart) -> bool:
        """Compare one part; False when this upload is not the one to go on with."""
        part = self._plan.part(kept.number)
        try:
            body = read_body(FileSlice(self._fd, part.offset, part.length))
            if kept.checksum:
                is_same = kept.checksum == checksum.encode(body.crc or 0)
            else:
                is_same = checksum.find_md5(kept.etag) == body.md5.hex()
        except (OSError, FileChangedError):
            self._drops = not self._is_adopting
            self.upload_id = "" if self._is_adopting else self.upload_id
            self._end(self._failed(CHANGED, CHANGED_HINT))
            return False
        if is_same:
            self.done[kept.number] = (kept.etag, body.crc or 0, part.length)
            self._found_bytes += part.length
            self._hear(part.length)
        elif self._is_adopting:
            # Another file's upload of the same key: it stays as it is.
            self._try_other()
            return False
        else:
            self._again.append(kept.number)
        return True

    def _all_checked(self) -> None:
        if self._is_adopting:
            self._is_adopting = False
            self._note_created()
        self._may_send = True
        self._complete_if_done()

    def _hear(self, count: int) -> None:
        if self.run.on_sent is not None and count:
            self.run.on_sent(self.file, count)

    # What differs from streams.

    def _next_body(self) -> tuple[int, Body] | None:
        number = self._again.popleft() if self._again else next(self._numbers, None)
        if number is None:
            return None
        part = self._plan.part(number)
        return number, Body(FileSlice(self._fd, part.offset, part.length))

    def _is_all_sent(self) -> bool:
        return not self._unchecked and len(self.done) == self._plan.count

    def _has_changed(self) -> bool:
        """Tell whether the file was written to, or the path leads to another file now."""
        try:
            return not (
                is_same_file(self._status, os.fstat(self._fd))
                and is_same_file(self._status, os.stat(self.file.path))
            )
        except OSError:
            return True

    def _note_created(self) -> None:
        try:
            self._claim.begin(
                Begun(
                    self.upload_id,
                    self._plan.part_bytes,
                    os.path.abspath(self.file.path),
                    self.file.key,
                    self.file.size_bytes,
                    self._status.st_mtime_ns,
                )
            )
        except OSError as error:
            self.run.warn_once(self.file, f"No journal of uploads can be kept: {error}")

    def _note_gone(self) -> None:
        self._claim.forget()

    def _resumed_bytes(self) -> int:
        return self._found_bytes


class LargeStream(Large):
    """A stream that turned out to be large; nobody can read it again, so nothing is kept of it."""

    def __init__(self, run: Run, file: File, stream: BinaryIO, first: bytes) -> None:
        super().__init__(run, file)
        self._stream = stream
        self._block = first
        self._number = 0
        self._held_bytes = 0
        self._is_at_end = False
        self._drops = True

    def _next_body(self) -> tuple[int, Body] | None:
        if self._is_at_end or (self._in_flight and self._held_bytes >= STREAM_MEMORY_BYTES):
            return None
        block, self._block = self._block, b""
        if not block:
            block = read_block(self._stream, self.run, self._number + 1)
        if not block:
            self._is_at_end = True
            self._complete_if_done()
            return None
        self._number += 1
        if self._number > MOST_PARTS:
            self._end(
                self._failed(
                    f"it is longer than {MOST_PARTS:,} parts",
                    "Give a larger --part-size, or leave it out.",
                )
            )
            return None
        self._held_bytes += len(block)
        return self._number, Body(block)

    def _part_sent(self, number: int, body: Body, outcome: Outcome) -> None:
        self._held_bytes -= body.length
        super()._part_sent(number, body, outcome)

    def _is_all_sent(self) -> bool:
        return self._is_at_end

    def _has_changed(self) -> bool:
        return False


def read_block(stream: BinaryIO, run: Run, number: int) -> bytes:
    """Return what a part of a stream holds; less than a part only at its end."""
    wanted = stream_part_bytes(number, part_bytes=run.wishes.part_bytes)
    blocks = []
    while wanted:
        block = stream.read(wanted)
        if not block:
            break
        blocks.append(block)
        wanted -= len(block)
    return blocks[0] if len(blocks) == 1 else b"".join(blocks)


def open_large(run: Run, file: File) -> LargeFile | None:
    """Open a large file and claim it; None when that can't be: the run has the failure."""
    try:
        claim = run.journal.claim(file.path, file.key)
    except InUseError:
        run.fail(file, IN_USE, IN_USE_HINT)
        return None
    except OSError as error:
        run.warn_once(file, f"No journal of uploads can be kept: {error}")
        claim = Claim(None, None)
    fd = None
    try:
        fd = open_file(file.path)
        status = os.fstat(fd)
        if not stat.S_ISREG(status.st_mode):
            run.fail(file, "it is no regular file any more")
        else:
            plan = plan_parts(status.st_size, part_bytes=run.wishes.part_bytes)
            file = File(file.path, file.key, status.st_size)
            return LargeFile(run, file, claim=claim, fd=fd, status=status, plan=plan)
    except OSError as error:
        run.fail(file, why_unreadable(error, file.path))
    except UsageError as error:
        run.fail(file, error.message, error.hint)
    if fd is not None:
        os.close(fd)
    claim.close()
    return None
