"""A file that goes in parts, and goes on from what an earlier run left of it."""

from __future__ import annotations

import contextlib
import os
import stat
from collections import deque
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Final

from twobuckets.aws.codes import Meaning
from twobuckets.errors import UsageError
from twobuckets.pipeline.conversation import Meanwhile
from twobuckets.s3.engine import FileChangedError, FileSlice, Response
from twobuckets.s3.operations import list_parts, read_etag
from twobuckets.upload import checksum
from twobuckets.upload.checksum import Body, read_body
from twobuckets.upload.files import Failed, File, changed, existing, open_file, why_unreadable
from twobuckets.upload.journal import BegunFile, Claim, InUseError
from twobuckets.upload.multipart import (
    abort,
    create,
    finish,
    give_up,
    send_part,
    stored,
)
from twobuckets.upload.parts import PartPlan, plan_parts
from twobuckets.upload.resume import find_ours, find_part_bytes, read_kept
from twobuckets.upload.run import Resume, Uploaded, is_same_file, means
from twobuckets.upload.sent import stamp_of
from twobuckets.upload.unfinished import Multipart, StoredPart

if TYPE_CHECKING:
    from collections.abc import Iterator

    from twobuckets.pipeline.conversation import Answer, LongTalk, Talk
    from twobuckets.s3.answers import ListedPart
    from twobuckets.upload.resume import Parts
    from twobuckets.upload.run import UploadRun

IN_USE: Final = "another process is uploading it to the same key right now"
IN_USE_HINT: Final = "Wait for that one, or end it."


def send_large(run: UploadRun, file: File) -> LongTalk[Uploaded | Failed]:
    """Send a file in parts; what an earlier run left of it is compared with it, and kept."""
    with contextlib.ExitStack() as stack:
        try:
            claim = stack.enter_context(run.journal.claim(file.path, file.key))
        except InUseError:
            return Failed(file.path, file.key, IN_USE, IN_USE_HINT)
        except OSError as error:
            _warn_of_journal(run, file, error)
            claim = Claim(None, None)
        try:
            fd = open_file(file.path)
            stack.callback(os.close, fd)
            status = os.fstat(fd)
            if not stat.S_ISREG(status.st_mode):
                return Failed(file.path, file.key, "it is not a regular file any more")
            plan = plan_parts(status.st_size, part_bytes=run.options.part_bytes)
        except OSError as error:
            return Failed(file.path, file.key, why_unreadable(error, file.path))
        except UsageError as error:
            return Failed(file.path, file.key, error.message, error.hint)
        file = File(file.path, file.key, status.st_size)
        upload = Multipart(file, run.options.resume is Resume.IGNORE, claim.forget)
        large = _LargeFile(run, file, claim, fd, status, plan, upload)
        upload.has_changed = large.has_changed
        upload.stamp = stamp_of(status)
        stack.enter_context(run.watching(upload))
        return (yield from large.send())


@dataclass(slots=True, eq=False)
class _LargeFile:
    """An open file, claimed in the journal, and its upload."""

    run: UploadRun
    file: File
    claim: Claim
    fd: int
    status: os.stat_result
    plan: PartPlan
    upload: Multipart

    def send(self) -> LongTalk[Uploaded | Failed]:
        run, upload = self.run, self.upload
        if not (run.options.overwrite and run.tells_crc is True):
            # Known before gigabytes were sent for nothing; the condition on complete decides.
            # Endpoints without checksums, such as Ceph's gateway, know no condition there either.
            shown = yield from run.head(self.file)
            upload.was_taken = isinstance(shown, Response) and shown.ok
            if self._must_stay and self.claim.begun is None:
                return existing(self.file)
            if not (run.options.overwrite or run.keeps_conditions):
                run.warn_of_gap(self.file)
        kept = yield from self._begin()
        if isinstance(kept, Uploaded | Failed):
            return kept
        again: deque[int] = deque()
        yield Meanwhile(self._parts(kept, again), self._compare(kept, again))
        return (yield from finish(run, upload))

    @property
    def _must_stay(self) -> bool:
        """Whether the key shows an object that must not be replaced."""
        return self.upload.was_taken and not self.run.options.overwrite

    # What an earlier run left.

    def _begin(self) -> LongTalk[Uploaded | Failed | deque[ListedPart]]:
        """Find or create the upload to send parts of; return the parts of it to be compared."""
        run, upload, begun = self.run, self.upload, self.claim.begun
        resume = run.options.resume
        if begun is not None and resume is not Resume.IGNORE:
            upload.upload_id = begun.upload_id
            if resume is Resume.RESTART or begun.size_bytes != self.file.size_bytes:
                yield from abort(run, upload)
                return (yield from self._create())
            kept = yield from read_kept(run, self.file.key, begun.upload_id)
            if isinstance(kept, tuple):
                listed, upload.abort_at = kept
                if self._must_stay:
                    return (yield from give_up(run, upload, existing(self.file)))
                return self._go_on_with(listed, begun.part_bytes)
            if run.is_refused_parts(self.file, kept):
                return (yield from self._begin_anew(kept))
            if not (isinstance(kept, Response) and kept.code == "NoSuchUpload"):
                return (yield from give_up(run, upload, run.explain(self.file, kept, "ListParts")))
            # Completed, aborted or expired since.
            completed = yield from self._find_completed(begun)
            if completed is not None:
                return completed
            if self._must_stay:
                return existing(self.file)
        if resume is Resume.CONTINUE:
            adopted = yield from self._adopt()
            if adopted is not None:
                return adopted
        return (yield from self._create())

    def _begin_anew(self, refused: Answer) -> Talk[Failed | deque[ListedPart]]:
        """Leave, or drop, what S3 does not list the parts of.

        A permission may be given again, and what was sent is worth that; an endpoint that knows no
        ListParts never lists it.
        """
        if isinstance(refused, Response) and means(refused) is Meaning.DENIED:
            hint = "Get s3:ListMultipartUploadParts to go on with it, or begin anew by --restart."
            failure = self.run.explain(self.file, refused, "ListParts")
            return replace(failure, hint=hint)
        yield from abort(self.run, self.upload)
        return (yield from self._create())

    def _create(self) -> Talk[Failed | deque[ListedPart]]:
        self.plan = plan_parts(self.file.size_bytes, part_bytes=self.run.options.part_bytes)
        failure = yield from create(self.run, self.upload)
        if failure is not None:
            return failure
        if self.run.lists_parts is None and not self.upload.drops:
            listed = yield from self.run.ask(
                list_parts(self.run.options.bucket, self.file.key, self.upload.upload_id)
            )
            self.run.is_refused_parts(self.file, listed)
        # Nobody could go on with it.
        self.upload.drops |= self.run.lists_parts is False
        self._note_begun()
        return deque()

    def _find_completed(self, begun: BegunFile) -> LongTalk[Uploaded | Failed | None]:
        """Read the file again if the key's object may be what the last run was completing."""
        run, upload = self.run, self.upload
        upload.forget()
        shown = yield from run.head(self.file)
        if not (
            isinstance(shown, Response)
            and shown.ok
            and shown.headers.get("content-length") == str(self.file.size_bytes)
            and begun.mtime_ns == self.status.st_mtime_ns
        ):
            return None
        self.plan = PartPlan(self.file.size_bytes, begun.part_bytes)
        said = shown.headers.get(checksum.HEADER)
        # What counts is the checksum of the whole, or what the parts' MD5s add up to.
        needs_md5 = not checksum.is_crc(said or "")
        yield Meanwhile(iter(()), self._read_all(needs_md5=needs_md5))
        if upload.failure is not None:
            return upload.failure
        if upload.is_whole(said, read_etag(shown)) and not self.has_changed():
            return stored(run, upload, read_etag(shown), shown)
        self._forget_found()
        return None

    def _adopt(self) -> LongTalk[Failed | deque[ListedPart] | None]:
        """Go on with an upload of ours that the journal does not know, the newest first.

        One of another file, or with other parts, stays as it is. None when there is none.
        """
        run, upload = self.run, self.upload
        others = yield from find_ours(run, self.file)
        while others:
            other = others.pop()
            kept = yield from read_kept(run, self.file.key, other.upload_id)
            if not isinstance(kept, tuple):
                continue
            listed, abort_at = kept
            part_bytes = find_part_bytes(listed, self.file.size_bytes)
            if part_bytes is None:
                continue
            if self._must_stay:
                return existing(self.file)
            parts = self._go_on_with(listed, part_bytes)
            count, others_parts = len(parts), deque[int]()
            yield Meanwhile(iter(()), self._compare(parts, others_parts, stops=True))
            if upload.failure is not None:
                return changed(self.file)
            if len(upload.parts) == count:
                upload.upload_id, upload.abort_at = other.upload_id, abort_at
                self._note_begun()
                return parts
            self._forget_found()
        return None

    def _go_on_with(self, listed: Parts, part_bytes: int) -> deque[ListedPart]:
        """Cut the file as S3 has its parts, which decide the size of the others."""
        plan = self.plan = PartPlan(self.file.size_bytes, part_bytes)
        return deque(
            part
            for number, part in listed.items()
            if number <= plan.count and part.size_bytes == plan.part(number).length
        )

    def _note_begun(self) -> None:
        begun = BegunFile(
            self.upload.upload_id,
            self.plan.part_bytes,
            os.path.abspath(self.file.path),
            self.file.key,
            self.file.size_bytes,
            self.status.st_mtime_ns,
        )
        try:
            self.claim.begin(begun)
        except OSError as error:
            _warn_of_journal(self.run, self.file, error)

    # Work on this machine, a part at a time.

    def _compare(
        self, kept: deque[ListedPart], again: deque[int], *, stops: bool = False
    ) -> Iterator[int]:
        """Compare kept parts with the file; those that differ go `again`, or it stops there."""
        while kept and self.upload.failure is None:
            part = kept.popleft()
            body = self._read(part.number)
            if body is None:
                return
            if part.crc64nvme:
                is_same = part.crc64nvme == checksum.encode(body.known_crc)
            else:
                is_same = checksum.find_md5(part.etag) == body.md5.hex()
            if is_same:
                self._found(part.number, part.etag, body)
            else:
                again.append(part.number)
                if stops:
                    return
            yield body.length

    def _read_all(self, *, needs_md5: bool) -> Iterator[int]:
        """Take the whole file for stored, to compare it with what the key shows."""
        for number in range(1, self.plan.count + 1):
            body = self._read(number, needs_md5=needs_md5)
            if body is None:
                return
            self._found(number, body.md5.hex() if needs_md5 else "", body)
            yield body.length

    def _read(self, number: int, *, needs_md5: bool = True) -> Body | None:
        """Read a part of the file; None when that fails, which the upload has as its failure."""
        try:
            body = read_body(self._slice(number))
            if needs_md5:
                _ = body.md5
        except (OSError, FileChangedError):
            self.upload.failure = self.upload.changed()
            return None
        return body

    def _slice(self, number: int) -> FileSlice:
        part = self.plan.part(number)
        return FileSlice(self.fd, part.offset, part.length)

    def _found(self, number: int, etag: str, body: Body) -> None:
        self.upload.parts[number] = StoredPart(etag, body.known_crc, body.length)
        self.upload.resumed_bytes += body.length
        self._hear(body.length)

    def _forget_found(self) -> None:
        self._hear(-self.upload.resumed_bytes)
        self.upload.resumed_bytes = 0
        self.upload.parts.clear()

    def _hear(self, count: int) -> None:
        if self.run.on_sent is not None and count:
            self.run.on_sent(self.file, count)

    def has_changed(self) -> bool:
        """Tell whether the file was written to, or the path leads to another file now."""
        try:
            return not (
                is_same_file(self.status, os.fstat(self.fd))
                and is_same_file(self.status, os.stat(self.file.path))
            )
        except OSError:
            return True

    # What is sent.

    def _parts(self, kept: deque[ListedPart], again: deque[int]) -> Iterator[Talk[None] | None]:
        """Yield what sends each missing part; those that differ come as they are found."""
        known = self.upload.parts.keys() | {part.number for part in kept}
        missing = iter([n for n in range(1, self.plan.count + 1) if n not in known])
        while self.upload.failure is None:
            number = None
            if self.run.has_room_for_part:
                number = again.popleft() if again else next(missing, None)
                if number is None and not kept and not again:
                    return
            if number is None:
                yield None
            else:
                yield send_part(self.run, self.upload, number, Body(self._slice(number)))


def _warn_of_journal(run: UploadRun, file: File, error: OSError) -> None:
    run.warn_once(file, f"No journal of uploads can be kept: {error}")
