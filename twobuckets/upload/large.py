"""A file that goes in parts, and goes on from what an earlier run left of it.

Before its upload is created, S3 is asked for what it has:

    (looked →) uploads or parts listed → kept parts compared with the file
"""

from __future__ import annotations

import os
import stat
from collections import deque
from dataclasses import replace
from typing import TYPE_CHECKING, Final

from twobuckets.errors import UsageError
from twobuckets.s3.engine import FileChangedError, FileSlice, Response, SendError
from twobuckets.upload import checksum
from twobuckets.upload.checksum import Body, read_body
from twobuckets.upload.files import File, why_unreadable
from twobuckets.upload.journal import Begun, Claim, InUseError
from twobuckets.upload.multipart import Multipart, StoredPart
from twobuckets.upload.parts import PartPlan, plan_parts
from twobuckets.upload.resume import (
    KeptPart,
    find_abort_at,
    find_part_bytes,
    list_parts,
    list_uploads,
    parse_parts,
    parse_uploads,
)
from twobuckets.upload.run import (
    CHANGED,
    CHANGED_HINT,
    Outcome,
    Resume,
    Run,
    existing,
    is_same_file,
)
from twobuckets.upload.small import open_file

if TYPE_CHECKING:
    from collections.abc import Iterator

    from twobuckets.upload.resume import Incomplete

IN_USE: Final = "another process is uploading it to the same key right now"
IN_USE_HINT: Final = "Wait for that one, or end it."


class LargeFile(Multipart):
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
        # What an earlier run may have completed before it could note that.
        self._completed_earlier: Response | None = None
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
        if is_taken and not self.run.wishes.overwrite and self._claim.begun is None:
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
        self._forget_found()
        self._is_adopting = bool(self._others)
        if self._others:
            self.upload_id = self._others.pop().upload_id
            self._list_parts(0)
        else:
            self._plan = plan_parts(self.file.size_bytes, part_bytes=self.run.wishes.part_bytes)
            self._numbers = iter(range(1, self._plan.count + 1))
            self.create()

    def _forget_found(self) -> None:
        self._hear(-self._found_bytes)
        self._found_bytes = 0
        self.done.clear()

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
                self.upload_id = ""
                self.run.head(self.file, self._looked_for_completed)
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

    def _looked_for_completed(self, outcome: Outcome) -> None:
        """Read the file again if the key's object may be what the last run was completing."""
        begun = self._claim.begun
        assert begun is not None
        self._note_gone()
        if (
            isinstance(outcome, Response)
            and outcome.ok
            and outcome.headers.get("content-length") == str(self.file.size_bytes)
            and begun.mtime_ns == self._status.st_mtime_ns
        ):
            self._completed_earlier = outcome
            plan = self._plan = PartPlan(self.file.size_bytes, begun.part_bytes)
            self._numbers = iter(())
            parts = [plan.part(number) for number in range(1, plan.count + 1)]
            self._unchecked.extend(KeptPart(part.number, part.length, "", "") for part in parts)
        else:
            self._begin_anew()

    def _begin_anew(self) -> None:
        if self._was_taken and not self.run.wishes.overwrite:
            self._end(existing(self.file))
        else:
            self._list_uploads(None)

    def _go_on_with(self, listed: dict[int, KeptPart]) -> None:
        begun = self._claim.begun
        if self._is_adopting or begun is None:
            part_bytes = find_part_bytes(listed, self.file.size_bytes)
        else:
            part_bytes = begun.part_bytes
        if part_bytes is None:
            self._try_other()
            return
        if self._was_taken and not self.run.wishes.overwrite:
            self._end(existing(self.file))
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
            if self._completed_earlier is not None:
                # What counts is the checksum of the whole, or what the parts' MD5s add up to.
                is_same = True
                if not checksum.is_crc(self._completed_earlier.headers.get(checksum.HEADER, "")):
                    kept = replace(kept, etag=body.md5.hex())
            elif kept.checksum:
                is_same = kept.checksum == checksum.encode(body.known_crc)
            else:
                is_same = checksum.find_md5(kept.etag) == body.md5.hex()
        except (OSError, FileChangedError):
            self._drops = not self._is_adopting
            self.upload_id = "" if self._is_adopting else self.upload_id
            self._end(self._failed(CHANGED, CHANGED_HINT))
            return False
        if is_same:
            self.done[kept.number] = StoredPart(kept.etag, body.known_crc, part.length)
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
        if self._completed_earlier is not None:
            answer, self._completed_earlier = self._completed_earlier, None
            said, etag = answer.headers.get(checksum.HEADER), answer.headers.get("etag", "")
            if self._is_whole(said, etag) and not self._has_changed():
                self._finish(etag, answer)
            else:
                self._forget_found()
                self._begin_anew()
            return
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
            run.fail(file, "it is not a regular file any more")
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
