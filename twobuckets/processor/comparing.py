"""Whether two objects hold the same bytes, as far as what S3 says of them tells.

Three answers, not two: where S3 keeps nothing of both that can be compared, nothing is known, and
nobody may delete one for the other. An equal size proves nothing.
"""

from __future__ import annotations

import enum
import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

_HASH = re.compile(r"[0-9a-f]{32}(-[0-9]+)?")
_PREFIX, _HEADER_PREFIX = "Checksum", "x-amz-checksum-"
_NOT_VALUES = frozenset({"TYPE", "MODE", "ALGORITHM"})


class Likeness(enum.Enum):
    """What is known of two objects' contents."""

    EQUAL = "equal"
    DIFFERENT = "different"
    UNKNOWN = "unknown"


@dataclass(frozen=True, slots=True)
class ContentFacts:
    """What S3 says of an object's bytes; `size_bytes` is None where it says no size.

    `checksums` has every value that S3 told, by its algorithm in capitals, whichever there are: S3
    adds algorithms. `etag` has no quotes; `has_md5` tells that it is the MD5 of the bytes.
    """

    size_bytes: int | None
    etag: str
    checksums: Mapping[str, str]
    is_composite: bool = False
    has_md5: bool = False

    def whole_checksums(self) -> dict[str, str]:
        """Return the checksums over all bytes; a composite one is over the checksums of parts."""
        return {name: text for name, text in self.checksums.items() if not self._is_of_parts(text)}

    def _is_of_parts(self, checksum: str) -> bool:
        # Base64 has no hyphen: it stands before the number of parts.
        return self.is_composite or "-" in checksum


def compare(one: ContentFacts, other: ContentFacts) -> Likeness:
    """Return what two descriptions tell of the bytes, by size, checksums and ETags.

    Parts can be cut in many ways, so composite checksums and the ETags of multipart uploads prove
    that two objects are equal, and never that they differ (Amazon S3 user guide, "Checking object
    integrity").
    """
    if None not in (one.size_bytes, other.size_bytes) and one.size_bytes != other.size_bytes:
        return Likeness.DIFFERENT
    whole, others_whole = one.whole_checksums(), other.whole_checksums()
    if any(whole[name] != others_whole[name] for name in whole.keys() & others_whole.keys()):
        return Likeness.DIFFERENT
    shared = one.checksums.keys() & other.checksums.keys()
    if any(one.checksums[name] == other.checksums[name] for name in shared):
        return Likeness.EQUAL
    # Two ETags of this form are equal for equal bytes only, whatever they are made of.
    if one.etag == other.etag and _HASH.fullmatch(one.etag):
        return Likeness.EQUAL
    return Likeness.DIFFERENT if one.has_md5 and other.has_md5 else Likeness.UNKNOWN


def content_of(head: Mapping[str, Any]) -> ContentFacts:
    """Return what an answer of boto3 says of an object's bytes.

    A boto3 that is older than an algorithm leaves it out, and keeps the answer's headers.
    """
    headers = head.get("ResponseMetadata", {}).get("HTTPHeaders", {})
    fields = {
        name.removeprefix(_PREFIX).upper(): str(value)
        for name, value in head.items()
        if name.startswith(_PREFIX) and value
    }
    told = _told_in(headers) | fields
    return ContentFacts(
        size_bytes=None if "ContentLength" not in head else int(head["ContentLength"]),
        etag=str(head.get("ETag", "")).strip('"'),
        checksums=_values(told),
        is_composite=told.get("TYPE") == "COMPOSITE",
        has_md5=is_md5(head),
    )


def content_in_headers(headers: Mapping[str, str]) -> ContentFacts:
    """Return what the headers of a GET or HEAD, their names in small letters, say of the bytes."""
    told = _told_in(headers)
    etag = headers.get("etag", "").strip('"')
    return ContentFacts(
        size_bytes=int(headers["content-length"]) if "content-length" in headers else None,
        etag=etag,
        checksums=_values(told),
        is_composite=told.get("TYPE") == "COMPOSITE",
        has_md5=_is_md5(
            etag,
            encryption=headers.get("x-amz-server-side-encryption"),
            has_own_key="x-amz-server-side-encryption-customer-algorithm" in headers,
        ),
    )


def content_in_result(headers: Mapping[str, str], elements: Mapping[str, str]) -> ContentFacts:
    """Return what the result of a copy or of a completed upload says of what it made.

    `elements` are the texts of its XML by their names; the headers tell how it is encrypted.
    """
    told = {
        name.removeprefix(_PREFIX).upper(): text
        for name, text in elements.items()
        if name.startswith(_PREFIX) and text
    }
    etag = elements.get("ETag", "").strip('"')
    return ContentFacts(
        size_bytes=None,
        etag=etag,
        checksums=_values(told),
        is_composite=told.get("TYPE") == "COMPOSITE",
        has_md5=_is_md5(etag, encryption=headers.get("x-amz-server-side-encryption")),
    )


def is_md5(head: Mapping[str, Any]) -> bool:
    """Whether an answer's ETag is the MD5 of the object's bytes.

    It is for an object that was not uploaded in parts and whose encryption is S3's own (Amazon S3
    API reference, Object).
    """
    return _is_md5(
        str(head.get("ETag", "")).strip('"'),
        encryption=head.get("ServerSideEncryption"),
        has_own_key=bool(head.get("SSECustomerAlgorithm")),
    )


def _is_md5(etag: str, *, encryption: str | None, has_own_key: bool = False) -> bool:
    is_plain = encryption in (None, "AES256") and not has_own_key
    return is_plain and "-" not in etag and _HASH.fullmatch(etag) is not None


def _told_in(headers: Mapping[str, str]) -> dict[str, str]:
    return {
        name.removeprefix(_HEADER_PREFIX).upper(): text
        for name, text in headers.items()
        if name.startswith(_HEADER_PREFIX) and text
    }


def _values(told: Mapping[str, str]) -> dict[str, str]:
    return {name: text for name, text in told.items() if name not in _NOT_VALUES}
