"""Small files: read, found unchanged, and then sent in one request."""

from __future__ import annotations

import os
import stat
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Final

from twobuckets.s3.engine import FileChangedError, FileSlice, Request, Response
from twobuckets.upload import checksum
from twobuckets.upload.checksum import Body, read_body
from twobuckets.upload.files import File, why_unreadable
from twobuckets.upload.parts import THRESHOLD_BYTES
from twobuckets.upload.run import (
    CHANGED,
    CHANGED_HINT,
    NOT_WHAT_WAS_SENT,
    NOT_WHAT_WAS_SENT_HINT,
    Uploaded,
    existing,
    is_change,
    is_same_file,
    lacks_condition,
)

if TYPE_CHECKING:
    from twobuckets.upload.run import Outcome, Run

IN_MEMORY_BYTES: Final = 512 * 1024
"""Files below this size are read whole; larger ones pass through a small buffer as they go."""


@dataclass(slots=True, eq=False)
class Small:
    """A file, or a short stream, that goes in one request."""

    run: Run
    file: File
    body: Body
    status: os.stat_result | None = None
    replaced: bool = False

    def request(self, *, only_if_new: bool) -> Request:
        """Return the PUT. Raises OSError and FileChangedError."""
        headers = [
            ("content-type", self.run.content_type(self.file)),
            *self.run.checksum_headers(self.body),
        ]
        if only_if_new:
            headers.append(("if-none-match", "*"))
        return Request(
            "PUT",
            self.run.wishes.bucket,
            self.file.key,
            headers=tuple(headers),
            body=self.body.content,
            tag=partial(self._sent, only_if_new),
            on_sent=self.run.hears(self.file),
        )

    def close(self) -> None:
        """Close the file, if it is sent from disk."""
        if isinstance(self.body.content, FileSlice):
            os.close(self.body.content.fd)

    def _sent(self, only_if_new: bool, outcome: Outcome) -> None:
        if isinstance(outcome, Response):
            if outcome.ok:
                self._finish(outcome)
                return
            if only_if_new and outcome.status == 412:
                if outcome.attempts > 1:
                    # The first try may have stored it, and its answer got lost.
                    self.run.head(self.file, self._looked)
                else:
                    self._exists()
                return
            if only_if_new and self.run.wishes.overwrite and lacks_condition(outcome):
                self.run.has_conditions = False
                self._send_anyway()
                return
        changed = is_change(outcome) or self._changed()
        self.close()
        if changed:
            self.run.fail(self.file, CHANGED, CHANGED_HINT)
        else:
            self.run.records.append(self.run.explain(self.file, outcome, "PutObject"))

    def _looked(self, outcome: Outcome) -> None:
        if isinstance(outcome, Response) and outcome.ok and self._is_stored(outcome):
            self._finish(outcome)
        else:
            self._exists()

    def _exists(self) -> None:
        if self.run.wishes.overwrite:
            self.replaced = True
            self._send_anyway()
        else:
            self.close()
            self.run.records.append(existing(self.file))

    def _send_anyway(self) -> None:
        try:
            self.run.next.append(self.request(only_if_new=False))
        except (OSError, FileChangedError):
            self.close()
            self.run.fail(self.file, CHANGED, CHANGED_HINT)

    def _is_stored(self, shown: Response) -> bool:
        if shown.headers.get("content-length") != str(self.body.length):
            return False
        return self.run.is_proven(shown, self.body)

    def _changed(self) -> bool:
        content = self.body.content
        if self.status is None or not isinstance(content, FileSlice):
            return False
        return not is_same_file(self.status, os.fstat(content.fd))

    def _finish(self, answer: Response) -> None:
        is_proven = self.run.is_proven(answer, self.body)
        self.close()
        self.run.sent_bytes += self.body.length
        if not is_proven:
            self.run.fail(self.file, NOT_WHAT_WAS_SENT, NOT_WHAT_WAS_SENT_HINT)
            return
        self.run.store(
            Uploaded(
                self.file.path,
                self.file.key,
                self.body.length,
                answer.headers.get("etag", "").strip('"'),
                answer.headers.get("x-amz-version-id"),
                checksum.encode(self.body.known_crc),
                self.run.answered_at(answer),
                replaced=self.replaced,
            )
        )


def prepare(run: Run, file: File) -> Request | File | None:
    """Read a small file and return its request; the file itself when it has become a large one.

    None when it can't be uploaded: the run has the failure.
    """
    try:
        fd = open_file(file.path)
    except OSError as error:
        run.fail(file, why_unreadable(error, file.path))
        return None
    request = None
    try:
        status = os.fstat(fd)
        if not stat.S_ISREG(status.st_mode):
            run.fail(file, "it is not a regular file any more")
            return None
        if status.st_size >= THRESHOLD_BYTES:
            return File(file.path, file.key, status.st_size)
        in_memory = status.st_size < IN_MEMORY_BYTES
        content = _read(fd, status.st_size) if in_memory else FileSlice(fd, 0, status.st_size)
        small = Small(run, file, read_body(content), status)
        # From here on the checksum stands for what was read: a later write can't get in unseen.
        if is_same_file(status, os.fstat(fd)):
            request = small.request(only_if_new=run.only_if_new)
    except FileChangedError:
        pass
    except OSError as error:
        run.fail(file, why_unreadable(error, file.path))
        return None
    finally:
        if request is None or isinstance(request.body, bytes):
            os.close(fd)
    if request is None:
        run.fail(file, CHANGED, CHANGED_HINT)
    return request


def open_file(path: str) -> int:
    """Open a file for reading, never waiting for the other end of a pipe. Raises OSError."""
    return os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK | os.O_NOCTTY)


def _read(fd: int, length: int) -> bytes:
    """Return exactly that many bytes. Raises FileChangedError when the file has fewer or more."""
    content = os.read(fd, length + 1)
    while len(content) < length:
        more = os.read(fd, length + 1 - len(content))
        if not more:
            break
        content += more
    if len(content) != length:
        raise FileChangedError("the file has another size than a moment ago")
    return content
