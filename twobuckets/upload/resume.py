"""What S3 keeps of incomplete uploads: its lists, read; and which of them a file may go on with."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import TYPE_CHECKING
from urllib.parse import unquote_plus

from twobuckets.s3.engine import Request
from twobuckets.s3.xmltext import unescape
from twobuckets.upload.run import parse_date

if TYPE_CHECKING:
    from collections.abc import Mapping
    from datetime import datetime

    from twobuckets.s3.engine import Response


@dataclass(frozen=True, slots=True)
class Incomplete:
    """An incomplete multipart upload of a key, as ListMultipartUploads shows it."""

    upload_id: str
    initiator: str
    algorithm: str
    checksum_type: str

    @property
    def takes_our_checksums(self) -> bool:
        """Whether parts with CRC64NVME and a checksum of the whole object fit it.

        S3 refuses parts with another checksum than the upload was begun with.
        """
        return self.algorithm in ("", "CRC64NVME") and self.checksum_type in ("", "FULL_OBJECT")


@dataclass(frozen=True, slots=True)
class KeptPart:
    """A part that S3 has, as ListParts shows it; `checksum` is its CRC64NVME, "" if unknown."""

    number: int
    size_bytes: int
    etag: str
    checksum: str


def list_uploads(
    bucket: str, key: str, after: tuple[str, str] | None = None, *, tag: object = None
) -> Request:
    """Return the request for a page of the incomplete uploads of a key."""
    markers = (("key-marker", after[0]), ("upload-id-marker", after[1])) if after else ()
    return Request(
        "GET",
        bucket,
        query=(("uploads", ""), ("prefix", key), ("encoding-type", "url"), *markers),
        tag=tag,
    )


def list_parts(bucket: str, key: str, upload_id: str, after: int = 0, *, tag: object) -> Request:
    """Return the request for a page of an upload's parts."""
    marker = (("part-number-marker", str(after)),) if after else ()
    return Request("GET", bucket, key, query=(("uploadId", upload_id), *marker), tag=tag)


def parse_uploads(answer: Response, key: str) -> tuple[list[Incomplete], tuple[str, str] | None]:
    """Return the uploads of exactly that key on a page, and where the next page begins, if any.

    Other keys that begin with the key come after it, so a page that shows one is the last.
    """
    text = answer.body.decode("utf-8", "replace")
    is_encoded = _text(text, "EncodingType") == "url"
    found = []
    past = False
    for block in re.findall(r"<Upload>(.*?)</Upload>", text, re.DOTALL):
        shown = _text(block, "Key")
        if (unquote_plus(shown) if is_encoded else shown) != key:
            past = True
            continue
        initiator = re.search(r"<Initiator>(.*?)</Initiator>", block, re.DOTALL)
        found.append(
            Incomplete(
                _text(block, "UploadId"),
                _text(initiator.group(1), "ID") if initiator else "",
                _text(block, "ChecksumAlgorithm"),
                _text(block, "ChecksumType"),
            )
        )
    more = _text(text, "IsTruncated") == "true" and not past
    next_key = _text(text, "NextKeyMarker")
    after = (unquote_plus(next_key) if is_encoded else next_key, _text(text, "NextUploadIdMarker"))
    return found, after if more else None


def parse_parts(answer: Response) -> tuple[list[KeptPart], int]:
    """Return the parts on a page, and the number after which the next page begins, 0 if none."""
    text = answer.body.decode("utf-8", "replace")
    parts = [
        KeptPart(
            int(_text(block, "PartNumber")),
            int(_text(block, "Size")),
            _text(block, "ETag"),
            _text(block, "ChecksumCRC64NVME"),
        )
        for block in re.findall(r"<Part>(.*?)</Part>", text, re.DOTALL)
    ]
    if _text(text, "IsTruncated") != "true" or not parts:
        return parts, 0
    return parts, int(_text(text, "NextPartNumberMarker") or parts[-1].number)


def find_part_bytes(parts: Mapping[int, KeptPart], size_bytes: int) -> int | None:
    """Return the part size with which an upload of a file of that size was begun.

    None when no one size explains what was kept: then it is another file's.
    """
    largest = max((part.size_bytes for part in parts.values()), default=0)
    if not largest:
        return None
    candidates = [largest]
    # Only the last part may be there, and it is smaller than the others.
    if len(parts) == 1:
        (only,) = parts.values()
        rest = size_bytes - only.size_bytes
        if only.number > 1 and rest % (only.number - 1) == 0:
            candidates.append(rest // (only.number - 1))
    for part_bytes in candidates:
        if all(
            part.size_bytes == min(part_bytes, size_bytes - (number - 1) * part_bytes)
            for number, part in parts.items()
        ):
            return part_bytes
    return None


def find_abort_at(answer: Response) -> datetime | None:
    """Return when a lifecycle rule will abort the upload that an answer is about, if one will."""
    return parse_date(answer.headers.get("x-amz-abort-date", ""))


def find_element(answer: Response, name: str) -> str:
    """Return the text of the first element of that name; "" if there is none."""
    return _text(answer.body.decode("utf-8", "replace"), name)


def _text(document: str, name: str) -> str:
    match = re.search(rf"<{name}>(.*?)</{name}>", document, re.DOTALL)
    return unescape(match.group(1)) if match else ""
