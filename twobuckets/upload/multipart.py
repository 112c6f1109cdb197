"""One multipart upload: created, sent in parts, completed, proven; or kept, or aborted.

Whoever creates one does so inside `run.watching`: from the answer that gives it an id until its
conversation ends, an interruption finds it among what is unfinished, and it is told of or aborted.
"""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Final

from twobuckets.s3.answers import parse_time
from twobuckets.s3.engine import FileChangedError, FileSlice, Response, SendError
from twobuckets.s3.operations import (
    CompletedPart,
    abort_multipart_upload,
    complete_multipart_upload,
    create_multipart_upload,
    is_unknown_here,
    list_parts,
    read_abort_rule,
    read_checksums,
    read_etag,
    read_upload_id,
    read_version_id,
    upload_part,
)
from twobuckets.upload import checksum
from twobuckets.upload.files import Failed, differs, existing
from twobuckets.upload.run import Proof, is_change
from twobuckets.upload.unfinished import StoredPart

if TYPE_CHECKING:
    from twobuckets.pipeline.conversation import Answer, Talk
    from twobuckets.s3.engine import Request
    from twobuckets.upload.checksum import Body
    from twobuckets.upload.run import Uploaded, UploadRun
    from twobuckets.upload.unfinished import Multipart

_MOST_ABORTS: Final = 5
_CONFLICT: Final = "ConditionalRequestConflict"
_IN_CONFLICT: Final = "something else writes or deletes its key, so S3 did not complete the upload"
_MOST_LOOKS: Final = 5
_BURIED: Final = (
    "another upload of this key, which was begun later, is what staging shows; S3 takes it for the "
    "newer one"
)
_BURIED_HINT: Final = "Upload it again if this file is the one to be processed."


def create(run: UploadRun, upload: Multipart) -> Talk[Failed | None]:
    """Begin an upload, which `run` is watching; None when that worked."""
    file = upload.file
    upload.upload_id = ""
    while True:
        sends_crc = run.sends_crc
        headers = [("content-type", run.content_type(file))]
        answer = yield from run.ask(
            create_multipart_upload(run.options.bucket, file.key, headers=headers, crc=sends_crc)
        )
        if not run.doubts_crc(answer, was_sent=sends_crc):
            break
    if isinstance(answer, SendError) or not answer.ok:
        return run.explain(file, answer, "CreateMultipartUpload")
    upload.upload_id = read_upload_id(answer)
    upload.abort_at, _ = read_abort_rule(answer)
    if answer.headers.get("x-amz-checksum-algorithm") == "CRC64NVME":
        run.tells_crc = True
    if answer.attempts > 1:
        # Nothing that S3 lists tells an upload without parts from somebody else's.
        run.warn_once(
            file,
            f"Beginning the upload to {file.key} took {answer.attempts} tries; one whose answer "
            "was lost may stay as an incomplete upload without parts, which costs nothing",
        )
    return None


def send_part(run: UploadRun, upload: Multipart, number: int, body: Body) -> Talk[None]:
    """Send one part; it is among the upload's parts then, or the upload has its failure."""
    run.parts_in_flight += 1
    try:
        failure = yield from _send_part(run, upload, number, body)
    finally:
        run.parts_in_flight -= 1
    upload.failure = upload.failure or failure


def _send_part(run: UploadRun, upload: Multipart, number: int, body: Body) -> Talk[Failed | None]:
    while True:
        # Who knows this checksum knows trailers: S3 had them two years before.
        trails = (
            run.tells_crc is True
            and run.has_trailers
            and body.crc is None
            and isinstance(body.content, FileSlice)
        )
        sends_crc = run.sends_crc
        try:
            if not sends_crc and body.crc is None:
                body.crc = checksum.ALGORITHM.compute(body.content)
            headers = run.checksum_headers(body, is_part=True)
        except (OSError, FileChangedError):
            return upload.changed()
        answer = yield from run.ask(
            upload_part(
                run.options.bucket,
                upload.file.key,
                upload.upload_id,
                number,
                body.content,
                headers=headers,
                checksum=checksum.ALGORITHM if body.crc is None else None,
                trails=trails,
                on_sent=run.hears(upload.file),
            )
        )
        is_stored = isinstance(answer, Response) and answer.ok
        proof = run.prove(answer, body) if isinstance(answer, Response) and is_stored else None
        if proof is Proof.UNKNOWN:
            run.warn_unproven(upload.file)
        if isinstance(answer, Response) and proof in (Proof.PROVEN, Proof.UNKNOWN):
            run.sent_bytes += body.length
            upload.parts[number] = StoredPart(read_etag(answer), body.known_crc, body.length)
            return None
        if upload.failure is not None:
            return upload.failure
        if is_change(answer) or upload.has_changed():
            return upload.changed()
        if trails and _is_refusal(answer):
            # Endpoints that are not AWS may know this checksum and no trailers.
            run.has_trailers = False
            continue
        if run.doubts_crc(answer, was_sent=sends_crc):
            continue
        if is_stored:
            return differs(upload.file)
        if isinstance(answer, Response) and answer.code == "NoSuchUpload":
            upload.forget()
        return run.explain(upload.file, answer, "UploadPart")


def _is_refusal(answer: Answer) -> bool:
    """Tell whether an endpoint might take the same part in another form."""
    return (
        isinstance(answer, Response)
        and (answer.status < 500 or answer.status == 501)
        and answer.code != "NoSuchUpload"
    )


def finish(run: UploadRun, upload: Multipart) -> Talk[Uploaded | Failed]:
    """Complete an upload whose parts were all sent, or end it with what went wrong."""
    if upload.failure is None and upload.has_changed():
        # The object must not appear if what was read is no longer what the file is.
        upload.failure = upload.changed()
    end = upload.failure or (yield from _complete(run, upload))
    if isinstance(end, Failed):
        return (yield from give_up(run, upload, end))
    upload.forget()
    return end


def give_up(run: UploadRun, upload: Multipart, failure: Failed) -> Talk[Failed]:
    """End an upload with a failure: drop what nobody can go on with, and tell what is kept."""
    if upload.upload_id and upload.drops:
        yield from abort(run, upload)
    kept = upload.kept(run.options.prices)
    if kept is None:
        return failure
    return replace(failure, kept_bytes=kept.kept_bytes, upload_id=kept.upload_id)


def _complete(run: UploadRun, upload: Multipart) -> Talk[Uploaded | Failed]:
    only_if_new = run.only_if_new
    replaced = is_forced = False
    while True:
        sends_crc = run.sends_crc
        answer = yield from run.ask(_completing(run, upload, only_if_new=only_if_new))
        if isinstance(answer, Response) and answer.ok:
            etag = read_etag(answer)
            if upload.is_whole(read_checksums(answer).get("ChecksumCRC64NVME"), etag):
                return (yield from _look_at_current(run, upload, etag, answer, replaced=replaced))
        is_open = (
            isinstance(answer, SendError)
            or answer.ok
            or answer.code == _CONFLICT
            or (answer.attempts > 1 and (answer.status == 412 or answer.code == "NoSuchUpload"))
        )
        shown: Answer | None = None
        if is_open:
            # One of the tries may have completed it, and its answer got lost.
            shown = yield from run.head(upload.file)
            if isinstance(shown, Response) and shown.ok and _has_length(upload, shown):
                etag = read_etag(shown)
                if upload.is_whole(shown.headers.get(checksum.HEADER), etag):
                    return stored(run, upload, etag, shown, replaced=replaced)
                is_done = isinstance(answer, Response) and answer.ok and not run.tells_crc
                if is_done and etag:
                    # Its size is right, which proves nothing; and what such an endpoint's ETag is
                    # made of is its own affair, so that another one proves nothing either.
                    run.warn_unproven(upload.file)
                    return stored(run, upload, etag, shown, replaced=replaced, is_proven=False)
        if isinstance(answer, Response) and answer.ok:
            if not read_etag(answer) and not (isinstance(shown, Response) and shown.ok):
                # Ceph's gateway tells nothing of the whole, and these credentials may not look.
                run.warn_unproven(upload.file)
                return stored(run, upload, "", answer, replaced=replaced, is_proven=False)
            upload.forget()
            return differs(upload.file)
        if isinstance(answer, SendError):
            return run.explain(upload.file, answer, "CompleteMultipartUpload")
        if (only_if_new or is_open) and answer.status == 412:
            if not run.options.overwrite:
                upload.drops = True
                return existing(upload.file)
            replaced, only_if_new = True, False
        elif answer.code == _CONFLICT:
            # A condition that only asks whether the key is taken is left out then. One that has to
            # hold wants every part anew (Amazon S3 API reference, CompleteMultipartUpload,
            # If-None-Match).
            if not run.options.overwrite or is_forced:
                upload.drops = True
                hint = "Run the same command again: every part goes anew."
                return upload.failed(_IN_CONFLICT, hint)
            is_forced, only_if_new = True, False
        elif run.doubts_crc(answer, was_sent=sends_crc):
            continue
        elif only_if_new and run.options.overwrite and is_unknown_here(answer):
            run.has_conditions = only_if_new = False
        else:
            if answer.code == "NoSuchUpload":
                upload.forget()
            # What S3 has does not add up: it would not the next time either.
            upload.drops |= answer.code in {"InvalidPart", "InvalidPartOrder", "BadDigest"}
            return run.explain(upload.file, answer, "CompleteMultipartUpload")


def _completing(run: UploadRun, upload: Multipart, *, only_if_new: bool) -> Request:
    tells_crc = run.tells_crc is True
    proof = [
        (checksum.HEADER, checksum.encode(upload.whole_crc)),
        ("x-amz-checksum-type", "FULL_OBJECT"),
    ]
    return complete_multipart_upload(
        run.options.bucket,
        upload.file.key,
        upload.upload_id,
        [
            CompletedPart(number, part.etag, checksum.encode(part.crc) if tells_crc else "")
            for number, part in sorted(upload.parts.items())
        ],
        headers=[
            *(proof if run.sends_crc else ()),
            ("x-amz-mp-object-size", str(upload.done_bytes)),
        ],
        if_absent=only_if_new,
    )


def _has_length(upload: Multipart, shown: Response) -> bool:
    return shown.headers.get("content-length") == str(upload.done_bytes)


def _look_at_current(
    run: UploadRun, upload: Multipart, etag: str, answer: Response, *, replaced: bool
) -> Talk[Uploaded | Failed]:
    """Ask whether the completed object is what its key shows.

    S3 orders uploads in parts by when they were begun: what somebody else put meanwhile stays on
    top (S3 user guide, "Uploading and copying objects using multipart upload", concurrent
    operations).
    """
    version_id = read_version_id(answer)
    for _ in range(_MOST_LOOKS):
        shown = yield from run.head(upload.file)
        if isinstance(shown, SendError):
            return stored(run, upload, etag, answer, replaced=replaced)
        if shown.ok and _is_another(run, etag, answer, shown):
            break
        if version_id is None or shown.headers.get("x-amz-delete-marker") != "true":
            return stored(run, upload, etag, answer, replaced=replaced)
        hidden = yield from run.head(upload.file, version_id=version_id)
        if isinstance(hidden, SendError) or not hidden.ok:
            # Processed, and gone for good: the marker covers what is older still.
            return stored(run, upload, etag, answer, replaced=replaced)
        # The processor puts its marker first, and then deletes the version.
    upload.forget()
    return upload.failed(_BURIED, _BURIED_HINT)


def _is_another(run: UploadRun, etag: str, answer: Response, shown: Response) -> bool:
    """Tell whether a key shows another object, which was there before ours was completed."""
    ours = read_version_id(answer)
    is_ours = ours == read_version_id(shown) if ours is not None else etag == read_etag(shown)
    shown_at = parse_time(shown.headers.get("last-modified", ""))
    return not is_ours and shown_at is not None and shown_at <= run.answered_at(answer)


def stored(
    run: UploadRun,
    upload: Multipart,
    etag: str,
    answer: Response,
    *,
    replaced: bool = False,
    is_proven: bool = True,
) -> Uploaded:
    """Return the record of an upload that is complete, as an answer says."""
    return run.uploaded(
        upload.file,
        answer,
        size_bytes=upload.done_bytes,
        etag=etag,
        crc=upload.whole_crc if is_proven else None,
        stamp=upload.stamp,
        resumed_bytes=upload.resumed_bytes,
        replaced=replaced or (upload.was_taken and run.tells_crc is False),
    )


def abort(run: UploadRun, upload: Multipart) -> Talk[None]:
    """Abort an upload, and look whether a part that was on its way landed after that.

    S3 asks for that (Amazon S3 API reference, AbortMultipartUpload).
    """
    bucket, key = run.options.bucket, upload.file.key
    for _ in range(_MOST_ABORTS):
        answer = yield from run.ask(abort_multipart_upload(bucket, key, upload.upload_id))
        if isinstance(answer, SendError) or not (answer.ok or answer.status == 404):
            break
        listed = yield from run.ask(list_parts(bucket, key, upload.upload_id))
        if isinstance(listed, SendError) or not listed.ok:
            upload.forget()
            upload.parts.clear()
            return
    run.warn_once(
        upload.file,
        f"The incomplete upload {upload.upload_id} of {key} could not be dropped; "
        "a lifecycle rule or `twobuckets doctor` can",
    )
