"""One multipart upload: created, sent in parts, completed, proven; or ended, kept or dropped.

Each step is called with the answer of the one before:

    created → parts sent → completed (→ result looked at) → current looked at

and any of them may lead to `_end`, which keeps what S3 has for a resume, or drops it.
"""

from __future__ import annotations

from dataclasses import replace
from functools import partial
from typing import TYPE_CHECKING, Final, NamedTuple

from twobuckets.s3.engine import FileChangedError, FileSlice, Request, Response, SendError
from twobuckets.s3.xmltext import escape
from twobuckets.upload import checksum
from twobuckets.upload.files import Failed, File
from twobuckets.upload.resume import find_abort_at, find_element, list_parts
from twobuckets.upload.run import (
    BURIED,
    BURIED_HINT,
    CHANGED,
    CHANGED_HINT,
    NOT_WHAT_WAS_SENT,
    NOT_WHAT_WAS_SENT_HINT,
    Kept,
    Outcome,
    Run,
    Uploaded,
    existing,
    is_change,
    lacks_condition,
    parse_date,
)

if TYPE_CHECKING:
    from collections.abc import Callable
    from datetime import datetime

    from twobuckets.upload.checksum import Body

_MOST_ABORTS: Final = 5
_CONFLICT: Final = "ConditionalRequestConflict"
_IN_CONFLICT: Final = "something else writes or deletes its key, so S3 did not complete the upload"
_MOST_LOOKS: Final = 5


class StoredPart(NamedTuple):
    """A part that S3 has and was proven to have; `length` is in bytes."""

    etag: str
    crc: int
    length: int


class Multipart:
    """What large files and streams have in common: one multipart upload.

    `done` has the parts by their numbers. Once `is_over` the run has the record of how it ended.
    """

    def __init__(self, run: Run, file: File) -> None:
        self.run = run
        self.file = file
        self.upload_id = ""
        self.done: dict[int, StoredPart] = {}
        self.is_over = False
        self._abort_at: datetime | None = None
        self._in_flight = 0
        self._may_send = False
        self._failure: Failed | None = None
        self._drops = False
        self._aborts = 0
        self._looks = 0
        self._replaced = False
        self._is_forced = False
        self._was_taken = False

    @property
    def done_bytes(self) -> int:
        """How many bytes of it S3 has."""
        return sum(part.length for part in self.done.values())

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
            self.run.wishes.prices.month_usd(self.done_bytes),
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
            return self._put_part(*found)
        except (OSError, FileChangedError):
            self._end_changed()
            return None

    def _put_part(self, number: int, body: Body) -> Request:
        headers = self.run.checksum_headers(body, is_part=True)
        # Who knows this checksum knows trailers: S3 had them two years before.
        trails = (
            self.run.tells_crc is True
            and self.run.has_trailers
            and body.crc is None
            and isinstance(body.content, FileSlice)
        )
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
            trails=trails,
            tag=partial(self._part_sent, number, body, trails),
            on_sent=self.run.hears(self.file),
        )

    def _part_sent(self, number: int, body: Body, trailed: bool, outcome: Outcome) -> None:
        self._in_flight -= 1
        self.run.parts_in_flight -= 1
        is_stored = isinstance(outcome, Response) and outcome.ok
        if isinstance(outcome, Response) and is_stored and self.run.is_proven(outcome, body):
            self.run.sent_bytes += body.length
            etag = outcome.headers.get("etag", "")
            self.done[number] = StoredPart(etag, body.known_crc, body.length)
            self._complete_if_done()
        elif self._failure is not None:
            self._end(self._failure)
        elif is_change(outcome) or self._has_changed():
            self._end_changed()
        elif trailed and _is_refusal(outcome):
            # Endpoints that are not AWS may know this checksum and no trailers.
            self.run.has_trailers = False
            try:
                self.run.next.append(self._put_part(number, body))
            except (OSError, FileChangedError):
                self._end_changed()
        elif is_stored:
            self._end(self._failed(NOT_WHAT_WAS_SENT, NOT_WHAT_WAS_SENT_HINT))
        else:
            if isinstance(outcome, Response) and outcome.code == "NoSuchUpload":
                self._note_gone()
                self.upload_id = ""
            self._end(self.run.explain(self.file, outcome, "UploadPart"))

    # Complete.

    @property
    def _whole_crc(self) -> int:
        parts = [part for _, part in sorted(self.done.items())]
        return checksum.ALGORITHM.combine((part.crc, part.length) for part in parts)

    def _is_whole(self, said: str | None, etag: str) -> bool:
        """Tell whether what S3 says of an object proves that it is all the parts, in their order.

        That is their combined checksum, or the ETag that their MD5s add up to.
        """
        if said == checksum.encode(self._whole_crc):
            return True
        expected = checksum.multipart_etag(part.etag for _, part in sorted(self.done.items()))
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
        lines = []
        for number, part in sorted(self.done.items()):
            crc = checksum.encode(part.crc)
            proof = f"<ChecksumCRC64NVME>{crc}</ChecksumCRC64NVME>" if tells_crc else ""
            etag = f"<ETag>{escape(part.etag)}</ETag>"
            lines.append(f"<Part><PartNumber>{number}</PartNumber>{etag}{proof}</Part>")
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
            if self._is_whole(said, etag):
                self._look_at_current(etag, outcome)
            else:
                self._look_at_result(outcome)
        elif (
            isinstance(outcome, SendError)
            or outcome.code == _CONFLICT
            or (outcome.attempts > 1 and (outcome.status == 412 or outcome.code == "NoSuchUpload"))
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

    def _end_conflict(self) -> None:
        """Go on where S3 said, many times, that something else writes or deletes the key.

        A condition that only asks whether the key is taken is left out then. One that has to hold
        wants every part anew (Amazon S3 API reference, CompleteMultipartUpload, If-None-Match).
        """
        if self.run.wishes.overwrite and not self._is_forced:
            self._is_forced = True
            self._complete(only_if_new=False)
            return
        self._drops = True
        self._end(self._failed(_IN_CONFLICT, "Run the same command again: every part goes anew."))

    def _look_at_result(self, because: Outcome) -> None:
        self.run.head(self.file, partial(self._result_looked, because))

    def _result_looked(self, because: Outcome, outcome: Outcome) -> None:
        if isinstance(outcome, Response) and outcome.ok:
            etag = outcome.headers.get("etag", "")
            said = outcome.headers.get(checksum.HEADER)
            is_right_size = outcome.headers.get("content-length") == str(self.done_bytes)
            if is_right_size and self._is_whole(said, etag):
                self._finish(etag, outcome)
                return
        if isinstance(because, Response) and because.ok:
            self._note_gone()
            self.upload_id = ""
            self._end(self._failed(NOT_WHAT_WAS_SENT, NOT_WHAT_WAS_SENT_HINT))
        elif isinstance(because, Response) and because.status == 412:
            self._exists()
        elif isinstance(because, Response) and because.code == _CONFLICT:
            self._end_conflict()
        else:
            self._end_refused(because)

    def _look_at_current(self, etag: str, answer: Response) -> None:
        """Ask whether the completed object is what its key shows.

        S3 orders uploads in parts by when they were begun: what somebody else put meanwhile stays
        on top (S3 user guide, "Uploading and copying objects using multipart upload", concurrent
        operations).
        """
        self.run.head(self.file, partial(self._current_looked, etag, answer))

    def _current_looked(self, etag: str, answer: Response, outcome: Outcome) -> None:
        version_id = _version_id(answer)
        if not isinstance(outcome, Response):
            self._finish(etag, answer)
        elif outcome.ok and self._is_another(etag, answer, outcome):
            self._end_buried()
        elif version_id and outcome.headers.get("x-amz-delete-marker") == "true":
            self.run.head(
                self.file, partial(self._hidden_looked, etag, answer), version_id=version_id
            )
        else:
            self._finish(etag, answer)

    def _is_another(self, etag: str, answer: Response, shown: Response) -> bool:
        """Tell whether a key shows another object, which was there before ours was completed."""
        ours = _version_id(answer)
        if ours is not None:
            is_ours = ours == _version_id(shown)
        else:
            is_ours = etag.strip('"') == shown.headers.get("etag", "").strip('"')
        shown_at = parse_date(shown.headers.get("last-modified", ""))
        return not is_ours and shown_at is not None and shown_at <= self.run.answered_at(answer)

    def _hidden_looked(self, etag: str, answer: Response, outcome: Outcome) -> None:
        self._looks += 1
        if not (isinstance(outcome, Response) and outcome.ok):
            # Processed, and gone for good: the marker covers what is older still.
            self._finish(etag, answer)
        elif self._looks < _MOST_LOOKS:
            # The processor puts its marker first, and then deletes the version.
            self._look_at_current(etag, answer)
        else:
            self._end_buried()

    def _end_buried(self) -> None:
        self._note_gone()
        self.upload_id = ""
        self._end(self._failed(BURIED, BURIED_HINT))

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


def _is_refusal(outcome: Outcome) -> bool:
    """Tell whether an endpoint might take the same part in another form."""
    return (
        isinstance(outcome, Response)
        and (outcome.status < 500 or outcome.status == 501)
        and outcome.code != "NoSuchUpload"
    )


def _version_id(answer: Response) -> str | None:
    """Return the id of the version that an answer is about, None where there are no versions."""
    version_id = answer.headers.get("x-amz-version-id")
    return None if version_id == "null" else version_id
