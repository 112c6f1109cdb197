"""Uploads for somebody else to make: signed requests with their terms bound into the signature.

The terms hold for whoever has the URL: another key, content type, size or checksum, a later hour
or an overwriting is refused by S3 itself. Every URL here is a secret.
"""

from __future__ import annotations

import base64
import hashlib
import os
import re
import stat
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace
from datetime import datetime, timedelta
from pathlib import Path
from typing import TYPE_CHECKING, ClassVar, Final

from twobuckets.errors import AccessError, UsageError
from twobuckets.s3.engine import SendError
from twobuckets.s3.keys import require_key
from twobuckets.s3.operations import (
    abort_multipart_upload,
    complete_multipart_upload,
    create_multipart_upload,
    list_parts,
    put_object,
    read_upload_id,
    upload_part,
)
from twobuckets.s3.refusals import explain
from twobuckets.units import format_bytes, format_duration
from twobuckets.upload.content_type import guess_content_type
from twobuckets.upload.curl import Curl
from twobuckets.upload.parts import (
    LEAST_PART_BYTES,
    MOST_PART_BYTES,
    MOST_PARTS,
    PartPlan,
)

if TYPE_CHECKING:
    from twobuckets.s3.engine import Request, Response, Sender, SigV4Signer
    from twobuckets.upload.shell import Shell

LONGEST_LIFE: Final = timedelta(days=7)
"""How long a SigV4 URL may live (Amazon S3 user guide, "Download and upload objects with presigned
URLs")."""
MOST_PUT_BYTES: Final = MOST_PART_BYTES
"""What one PUT or POST can carry (Amazon S3 user guide, "Uploading objects")."""

_HEX_SHA256: Final = re.compile(r"[0-9a-fA-F]{64}")
_FILE: Final = "FILE"
CURL: Final = Curl()


@dataclass(frozen=True, slots=True)
class Terms:
    """What an upload has to be.

    `size_bytes` and `sha256` (base64, as S3 writes it) are None when any will do; `file` is where
    the person has it, for the command line to paste.
    """

    key: str
    content_type: str
    size_bytes: int | None = None
    sha256: str | None = None
    no_overwrite: bool = False
    file: str | None = None


@dataclass(frozen=True, slots=True)
class Life:
    """How long a signature is good for, and until when."""

    expires_in: timedelta
    expires_at: datetime


@dataclass(frozen=True, slots=True)
class PresignedRequest:
    """One request that S3 accepts from anybody until `expires_at`.

    `headers` are to be sent exactly, `fields` are the form's of a POST; `command` is the line that
    does it, None for a form whose key no shell has a word for. The URL, the fields and the line
    are secrets.
    """

    purpose: str
    method: str
    bucket: str
    key: str
    url: str = field(repr=False)
    expires_at: datetime
    command: str | None = field(repr=False)
    headers: Mapping[str, str] = field(default_factory=dict)
    fields: Mapping[str, str] = field(default_factory=dict, repr=False)
    part_number: int | None = None
    size_bytes: int | None = None
    max_bytes: int | None = None


@dataclass(frozen=True, slots=True)
class StartedUpload:
    """An upload that exists from now on and is incomplete until it is completed.

    `part_bytes` is the size of every part but the last, None when that is for the sender to
    choose. `split` is the line that comes before those of the parts, None when there is none.
    """

    type_name: ClassVar[str] = "multipart-upload"

    bucket: str
    key: str
    upload_id: str
    parts: int
    part_bytes: int | None
    split: str | None
    expires_at: datetime


def parse_sha256(text: str) -> str:
    """Return a SHA-256 in base64, as S3 writes it, from hex or base64. Raises ValueError."""
    if _HEX_SHA256.fullmatch(text):
        return base64.b64encode(bytes.fromhex(text)).decode()
    try:
        if len(base64.b64decode(text, validate=True)) == hashlib.sha256().digest_size:
            return text
    except ValueError:
        pass
    raise ValueError(f"{text!r} is not a SHA-256; give 64 hex digits, as sha256sum prints them")


def terms_of(
    key: str,
    *,
    file: Path | None = None,
    content_type: str | None = None,
    size_bytes: int | None = None,
    sha256: str | None = None,
    no_overwrite: bool = False,
    in_parts: bool = False,
) -> Terms:
    """Return an upload's terms; a local file gives the size and checksum that are not given.

    Without a content type it is guessed by the file's or the key's name; an upload in parts has no
    SHA-256 of the whole. Raises UsageError for a key that S3 can't have, and for a file that can't
    be read or is not what was given.
    """
    require_key(key)
    if file is not None:
        found_bytes, found_sha256 = _measure(file, hashed=not in_parts)
        size_bytes = found_bytes if size_bytes is None else size_bytes
        sha256 = found_sha256 if sha256 is None else sha256
        if (size_bytes, sha256) != (found_bytes, found_sha256):
            raise UsageError(
                f"Could not sign for {file}: its size or SHA-256 is not the one given",
                hint="Leave out --size and --sha256: --file binds what the file has.",
            )
    guessed = guess_content_type(key if file is None else file.name)
    shown = None if file is None else str(file)
    return Terms(key, content_type or guessed, size_bytes, sha256, no_overwrite, shown)


def require_life(expires_in: timedelta, *, keys_expire_at: datetime | None, now: datetime) -> Life:
    """Return the life of what is signed now.

    Raises UsageError above S3's seven days, and AccessError when the credentials that sign it end
    before: the URL would end with them, without a word.
    """
    if not timedelta(seconds=1) <= expires_in <= LONGEST_LIFE:
        raise UsageError(
            f"Could not sign for {format_duration(expires_in)}: S3 accepts a signature for one"
            " second to 7 days",
            hint="Give --expires 7d or less.",
        )
    expires_at = now + expires_in
    if keys_expire_at is not None and expires_at > keys_expire_at:
        left = max(keys_expire_at - now, timedelta())
        raise AccessError(
            f"Could not sign for {format_duration(expires_in)}: the credentials in use expire in"
            f" {format_duration(left)}, and what they sign expires with them",
            hint="Give a shorter --expires, or sign with credentials that live longer.",
        )
    return Life(expires_in, expires_at)


def presign_put(
    signer: SigV4Signer, bucket: str, terms: Terms, life: Life, *, shell: Shell = CURL
) -> PresignedRequest:
    """Sign a PUT with every term bound. Raises UsageError above the 5 GiB of one PUT."""
    _require_one_request(terms.size_bytes)
    bound = [("content-type", terms.content_type)]
    if terms.size_bytes is not None:
        bound.append(("content-length", str(terms.size_bytes)))
    if terms.sha256 is not None:
        bound.append(("x-amz-checksum-sha256", terms.sha256))
    request = put_object(bucket, terms.key, headers=bound, if_absent=terms.no_overwrite)
    url = _presign(signer, request, life)
    headers = dict(request.headers)
    return PresignedRequest(
        "put",
        request.method,
        bucket,
        terms.key,
        url,
        life.expires_at,
        shell.put_line(url, headers, terms.file or _FILE, key=terms.key),
        headers,
        size_bytes=terms.size_bytes,
    )


def presign_post(
    signer: SigV4Signer,
    bucket: str,
    terms: Terms,
    life: Life,
    *,
    max_bytes: int | None,
    shell: Shell = CURL,
) -> PresignedRequest:
    """Sign a browser's form for one key and content type and at most `max_bytes`.

    Raises UsageError for terms that a form can't hold: S3 knows no condition against overwriting
    there, and replaces `${filename}` in a key by the sender's file name (Amazon S3 API reference,
    "POST Object").
    """
    _require_one_request(terms.size_bytes)
    if terms.no_overwrite:
        raise UsageError(
            "Could not sign a form that does not overwrite: S3 has that condition for PUT only",
            hint="Leave out --post, and bind the size with --size or --file instead.",
        )
    if "${filename}" in terms.key:
        raise UsageError(
            "Could not sign a form for this key: S3 replaces ${filename} by the sender's file name",
            hint="Leave out --post.",
        )
    most_bytes = max_bytes if terms.size_bytes is None else terms.size_bytes
    if most_bytes is None:
        raise UsageError(
            "Could not sign a form without a limit on its size", hint="Give --max-size SIZE."
        )
    fields = {"key": terms.key, "Content-Type": terms.content_type}
    if terms.sha256 is not None:
        fields["x-amz-checksum-algorithm"] = "SHA256"
        fields["x-amz-checksum-sha256"] = terms.sha256
    url, form = signer.sign_form(
        bucket,
        fields,
        [["content-length-range", terms.size_bytes or 0, most_bytes]],
        expires_in=life.expires_in,
    )
    return PresignedRequest(
        "post",
        "POST",
        bucket,
        terms.key,
        url,
        life.expires_at,
        shell.form_line(url, form, terms.file or _FILE),
        fields=form,
        size_bytes=terms.size_bytes,
        max_bytes=most_bytes,
    )


def presign_multipart(
    sender: Sender,
    signer: SigV4Signer,
    bucket: str,
    terms: Terms,
    life: Life,
    *,
    parts: int,
    shell: Shell = CURL,
) -> tuple[StartedUpload, list[PresignedRequest]]:
    """Create a multipart upload and sign its requests: each part's, complete, abort, list-parts.

    With a known size every part's length is bound, and the object's to completing. An upload that
    could not be signed for is aborted. Raises UsageError for terms that S3 can't hold in this
    number of parts.
    """
    if terms.sha256 is not None:
        raise UsageError(
            "Could not bind a SHA-256 to a multipart upload: S3 has it for each part only",
            hint="Leave out --sha256 or --multipart.",
        )
    if not 1 <= parts <= MOST_PARTS:
        raise UsageError(f"S3 allows from 1 to {MOST_PARTS:,} parts, not {parts:,}")
    plan = None if terms.size_bytes is None else plan_exactly(terms.size_bytes, parts)
    part_bytes = None if plan is None else plan.part_bytes
    split = shell.cutting_line(terms.file or _FILE, part_bytes)
    creation = create_multipart_upload(
        bucket, terms.key, headers=[("content-type", terms.content_type)], crc=False
    )
    created = _send(sender, creation, "CreateMultipartUpload", f"create an upload of {terms.key}")
    upload_id = read_upload_id(created)
    abortion = abort_multipart_upload(bucket, terms.key, upload_id)
    try:
        signed = [
            _presign_step(signer, bucket, terms, life, step, parts, shell)
            for step in _steps(bucket, terms, upload_id, parts, plan)
        ]
    except BaseException:
        what = f"abort the upload {upload_id} of {terms.key}"
        _send(sender, abortion, "AbortMultipartUpload", what)
        raise
    started = StartedUpload(bucket, terms.key, upload_id, parts, part_bytes, split, life.expires_at)
    return started, signed


def plan_exactly(size_bytes: int, parts: int) -> PartPlan:
    """Return the plan that cuts a size into exactly this number of parts, all but the last equal.

    Raises UsageError when S3 would refuse these parts.
    """
    plan = PartPlan(size_bytes, max(1, -(-size_bytes // parts)))
    too_small = parts > 1 and plan.part_bytes < LEAST_PART_BYTES
    if too_small or plan.part_bytes > MOST_PART_BYTES or plan.count != parts:
        raise UsageError(
            f"Could not cut {format_bytes(size_bytes)} into {parts:,} parts: S3 takes parts from"
            " 5 MiB to 5 GiB, the last may be smaller",
            hint="Give --multipart another number.",
        )
    return plan


@dataclass(frozen=True, slots=True)
class _Step:
    """One request of a multipart upload before it is signed."""

    purpose: str
    request: Request
    part_number: int | None = None
    size_bytes: int | None = None


def _steps(
    bucket: str, terms: Terms, upload_id: str, parts: int, plan: PartPlan | None
) -> Iterator[_Step]:
    upload = bucket, terms.key, upload_id
    for number in range(1, parts + 1):
        size_bytes = plan.part(number).length if plan is not None else None
        bound = [] if size_bytes is None else [("content-length", str(size_bytes))]
        yield _Step("part", upload_part(*upload, number, headers=bound), number, size_bytes)
    bound = []
    if terms.size_bytes is not None:
        bound.append(("x-amz-mp-object-size", str(terms.size_bytes)))
    completion = complete_multipart_upload(*upload, if_absent=terms.no_overwrite, headers=bound)
    # The list of parts is for the sender to write, and what type it has for the sender's program.
    bound = [header for header in completion.headers if header[0] != "content-type"]
    yield _Step("complete", replace(completion, headers=tuple(bound)))
    yield _Step("abort", abort_multipart_upload(*upload))
    yield _Step("list-parts", list_parts(*upload))


def _presign_step(
    signer: SigV4Signer,
    bucket: str,
    terms: Terms,
    life: Life,
    step: _Step,
    parts: int,
    shell: Shell,
) -> PresignedRequest:
    method, headers = step.request.method, dict(step.request.headers)
    url = _presign(signer, step.request, life)
    file = terms.file or _FILE
    if step.part_number is not None:
        command = shell.part_line(
            url, headers, file, step.part_number, step.size_bytes, key=terms.key
        )
    elif step.purpose == "complete":
        command = shell.completing_line(url, headers, file, parts, key=terms.key)
    else:
        command = shell.plain_line(url, method, key=terms.key)
    return PresignedRequest(
        step.purpose,
        method,
        bucket,
        terms.key,
        url,
        life.expires_at,
        command,
        headers,
        part_number=step.part_number,
        size_bytes=step.size_bytes,
    )


def _send(sender: Sender, request: Request, operation: str, what: str) -> Response:
    try:
        answer = sender.send(request)
    except SendError as error:
        raise explain(error, operation, what) from error
    if not answer.ok:
        raise explain(answer, operation, what)
    return answer


def _presign(signer: SigV4Signer, request: Request, life: Life) -> str:
    try:
        return signer.presign(request, expires_in=life.expires_in)
    except ValueError as error:
        raise UsageError(f"Could not sign the request: {error}") from error


def _require_one_request(size_bytes: int | None) -> None:
    if size_bytes is not None and size_bytes > MOST_PUT_BYTES:
        raise UsageError(
            f"Could not sign one request for {format_bytes(size_bytes)}: S3 takes"
            f" {format_bytes(MOST_PUT_BYTES)} in one",
            hint="Give --multipart N for N parts.",
        )


def _measure(file: Path, *, hashed: bool) -> tuple[int, str | None]:
    try:
        with file.open("rb") as content:
            if not stat.S_ISREG(os.fstat(content.fileno()).st_mode):
                raise UsageError(f"Could not sign for {file}: it is not a regular file")
            if not hashed:
                return content.seek(0, os.SEEK_END), None
            digest = hashlib.file_digest(content, "sha256").digest()
            return content.tell(), base64.b64encode(digest).decode()
    except OSError as error:
        raise UsageError(
            f"Could not read {file}: {error.strerror}", hint="Check --file."
        ) from error
