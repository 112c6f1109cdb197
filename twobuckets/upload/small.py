"""Small files: read, found unchanged, and then sent in one request."""

from __future__ import annotations

import os
import stat
from typing import TYPE_CHECKING, Final

from twobuckets.s3.engine import FileChangedError, FileSlice, Response, SendError
from twobuckets.s3.operations import is_unknown_here, put_object, read_etag
from twobuckets.upload.checksum import Body, read_body
from twobuckets.upload.files import (
    Failed,
    File,
    changed,
    differs,
    existing,
    open_file,
    why_unreadable,
)
from twobuckets.upload.large import send_large
from twobuckets.upload.parts import THRESHOLD_BYTES
from twobuckets.upload.run import Proof, is_change, is_same_file
from twobuckets.upload.sent import stamp_of

if TYPE_CHECKING:
    from twobuckets.pipeline.conversation import LongTalk, Talk
    from twobuckets.upload.run import Uploaded, UploadRun

IN_MEMORY_BYTES: Final = 512 * 1024
"""Files below this size are read whole; larger ones pass through a small buffer as they go."""


def send_small(run: UploadRun, file: File) -> LongTalk[Uploaded | Failed]:
    """Send a file in one request; in parts when it has become a large one since it was found."""
    read = _read(file)
    if isinstance(read, Failed):
        return read
    if isinstance(read, File):
        return (yield from send_large(run, read))
    body, status = read
    try:
        return (yield from send_body(run, file, body, status))
    finally:
        if isinstance(body.content, FileSlice):
            os.close(body.content.fd)


def send_body(
    run: UploadRun, file: File, body: Body, status: os.stat_result | None = None
) -> Talk[Uploaded | Failed]:
    """Send what was read of a file, or a short stream; `status` is the file's as it was then."""
    if not run.options.overwrite and not run.keeps_conditions:
        # Some endpoints take the condition and store all the same.
        shown = yield from run.head(file)
        if isinstance(shown, Response) and shown.ok:
            return existing(file)
        run.warn_of_gap(file)
    replaced, only_if_new = False, run.only_if_new
    crc_dropped = False
    while True:
        sends_crc = run.sends_crc
        try:
            headers = run.checksum_headers(body)
        except (OSError, FileChangedError):
            return changed(file)
        (answer,) = yield [
            put_object(
                run.options.bucket,
                file.key,
                body.content,
                headers=[("content-type", run.content_type(file)), *headers],
                if_absent=only_if_new,
                on_sent=run.hears(file),
            )
        ]
        if isinstance(answer, SendError) or answer.ok:
            break
        if not only_if_new:
            if run.doubts_crc(answer, was_sent=sends_crc):
                continue
            break
        if answer.status == 412:
            run.keeps_conditions = True
            if answer.attempts > 1:
                # The first try may have stored it, and its answer got lost.
                shown = yield from run.head(file)
                if _is_stored(run, body, shown):
                    assert isinstance(shown, Response)
                    answer = shown
                    break
            if not run.options.overwrite:
                return existing(file)
            replaced, only_if_new = True, False
        elif run.doubts_crc(answer, was_sent=sends_crc):
            crc_dropped = True
        elif run.options.overwrite and is_unknown_here(answer):
            # If it was not the checksum, it is the condition; and once more without both.
            run.has_conditions = only_if_new = False
            run.sends_crc |= crc_dropped
        else:
            break
    if isinstance(answer, SendError) or not answer.ok:
        if is_change(answer) or _has_changed(body, status):
            return changed(file)
        return run.explain(file, answer, "PutObject")
    run.has_contact = True
    run.sent_bytes += body.length
    proof = run.prove(answer, body)
    if proof is Proof.UNKNOWN:
        shown = yield from run.head(file)
        if isinstance(shown, Response) and shown.ok and not _has_length(shown, body):
            proof = Proof.DIFFERS
        else:
            run.warn_unproven(file)
    if proof is Proof.DIFFERS:
        return differs(file)
    return run.uploaded(
        file,
        answer,
        size_bytes=body.length,
        etag=read_etag(answer),
        crc=body.known_crc if proof is Proof.PROVEN else None,
        stamp=None if status is None else stamp_of(status),
        replaced=replaced,
    )


def _is_stored(run: UploadRun, body: Body, shown: Response | SendError) -> bool:
    return (
        isinstance(shown, Response)
        and shown.ok
        and _has_length(shown, body)
        and run.prove(shown, body) is Proof.PROVEN
    )


def _has_length(shown: Response, body: Body) -> bool:
    return shown.headers.get("content-length") == str(body.length)


def _has_changed(body: Body, status: os.stat_result | None) -> bool:
    content = body.content
    return (
        status is not None
        and isinstance(content, FileSlice)
        and not is_same_file(status, os.fstat(content.fd))
    )


def _read(file: File) -> tuple[Body, os.stat_result] | File | Failed:
    """Read a file, and look that it was not written to meanwhile.

    A body that is not in memory keeps the file open. The file itself comes back when it is large.
    """
    stays_open = False
    try:
        fd = open_file(file.path)
    except OSError as error:
        return Failed(file.path, file.key, why_unreadable(error, file.path))
    try:
        status = os.fstat(fd)
        if not stat.S_ISREG(status.st_mode):
            return Failed(file.path, file.key, "it is not a regular file any more")
        if status.st_size >= THRESHOLD_BYTES:
            return File(file.path, file.key, status.st_size)
        in_memory = status.st_size < IN_MEMORY_BYTES
        content = _read_all(fd, status.st_size) if in_memory else FileSlice(fd, 0, status.st_size)
        body = read_body(content)
        # From here on the checksum stands for what was read: a later write can't get in unseen.
        if not is_same_file(status, os.fstat(fd)):
            return changed(file)
        stays_open = not in_memory
    except FileChangedError:
        return changed(file)
    except OSError as error:
        return Failed(file.path, file.key, why_unreadable(error, file.path))
    finally:
        if not stays_open:
            os.close(fd)
    return body, status


def _read_all(fd: int, length: int) -> bytes:
    """Return exactly that many bytes. Raises FileChangedError when the file has fewer or more."""
    content = os.read(fd, length + 1)
    while len(content) < length:
        more = os.read(fd, length + 1 - len(content))
        if not more:
            break
        content += more
    if len(content) != length:
        raise FileChangedError("the file's size changed a moment ago")
    return content
