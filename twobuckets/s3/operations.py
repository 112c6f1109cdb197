"""S3's operations, each built and read here and nowhere else: requests out, answers in.

A function has the name of its operation and returns the request for it; `read_…` says what an
answer to it tells. `answers` has the records and the parsers of long lists, `listing` walks whole
buckets, and `deletes` deletes versions by the thousand. Parameters and headers are those of the
Amazon S3 API reference, one page an operation.
"""

import re
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, replace
from datetime import datetime
from functools import partial
from typing import Generic, NamedTuple, TypeVar
from urllib.parse import quote, urlencode

from twobuckets.s3.answers import (
    ListedObject,
    ListedPart,
    ListedUpload,
    ListedVersion,
    Marker,
    decode_key,
    parse_objects,
    parse_parts,
    parse_time,
    parse_uploads,
    parse_versions,
)
from twobuckets.s3.engine import Algorithm, Expects, FileSlice, Request, Response
from twobuckets.s3.xmltext import escape, find_text

LONGEST_COPY_BYTES = 5 * 1024**3
"""CopyObject takes no larger object (S3 API reference, CopyObject)."""
PAGE_KEYS = 1000
"""S3 gives no more on a page (S3 API reference, ListObjectsV2, MaxKeys)."""

Headers = Iterable[tuple[str, str]]
Row = TypeVar("Row", ListedObject, ListedVersion, ListedUpload)

_CHECKSUM = re.compile(rb"<(Checksum[A-Z0-9]+)>([^<]*)</\1>")
_TAG = re.compile(rb"<Tag>(.*?)</Tag>", re.DOTALL)
_IF_NONE_MATCH = ("if-none-match", "*")
_XML = ("content-type", "application/xml")


class ObjectVersion(NamedTuple):
    """One version of an object; without a version id, whichever is current.

    With an `etag` (without quotes), S3 acts only if the version still has it.
    """

    key: str
    version_id: str = ""
    etag: str = ""


class CompletedPart(NamedTuple):
    """A part as CompleteMultipartUpload names it; `crc64nvme` "" where S3 never said it."""

    number: int
    etag: str
    crc64nvme: str = ""


class PartsPage(NamedTuple):
    """A page of ListParts; `next_number` is where the next page begins, "" if this is the last.

    `abort_at` is when a lifecycle rule will abort the upload, and `abort_rule` the rule's id; None
    where no rule applies.
    """

    parts: list[ListedPart]
    next_number: str
    abort_at: datetime | None
    abort_rule: str | None


# Buckets.


def head_bucket(bucket: str) -> Request:
    """Return a HeadBucket."""
    return Request("HEAD", bucket)


def get_bucket_versioning(bucket: str) -> Request:
    """Return a GetBucketVersioning."""
    return Request("GET", bucket, query=(("versioning", ""),), expects=Expects.BODY)


def read_versioning(answer: Response) -> bool:
    """Tell whether a bucket gives every new object a version id of its own."""
    return find_text(answer.body, b"Status") == "Enabled"


# Listings.


@dataclass(frozen=True, slots=True)
class Listing(Generic[Row]):
    """One of S3's listings: how it calls its parameters, and how its pages are read.

    `order` sorts the rows of a page for implementations that do not.
    """

    query: tuple[tuple[str, str], ...]
    most: str
    after_key: str
    after_id: str
    next_id: bytes
    parse: Callable[[bytes], list[Row]]
    order: Callable[[Row], tuple[str, bool]] | None = None
    headers: tuple[tuple[str, str], ...] = ()

    def page(
        self, bucket: str, *, prefix: str = "", after: Marker | None = None, most: int = PAGE_KEYS
    ) -> Request:
        """Return the request for a page of at most `most` rows, `after` where one ended."""
        query = [*self.query, ("encoding-type", "url"), (self.most, str(most))]
        if prefix:
            query.append(("prefix", prefix))
        if after is not None and after.key:
            query.append((self.after_key, after.key))
        if after is not None and after.id:
            query.append((self.after_id, after.id))
        return Request(
            "GET", bucket, query=tuple(query), headers=self.headers, expects=Expects.BODY
        )

    def rows(self, body: bytes) -> list[Row]:
        """Return the rows of a page. Raises AnswerError, KeyError or ValueError for another."""
        rows = self.parse(body)
        if self.order is not None:
            rows.sort(key=self.order)
        return rows

    def following(self, body: bytes, last_key: str = "") -> Marker | None:
        """Return where the next page begins, None after the last; `last_key` ended this one."""
        if b"<IsTruncated>true</IsTruncated>" not in body:
            return None
        if not self.next_id:
            return Marker(last_key)
        encoded = b"<EncodingType>url</EncodingType>" in body
        key = decode_key(find_text(body, b"NextKeyMarker"), encoded=encoded)
        return Marker(key or last_key, find_text(body, self.next_id))


OBJECTS = Listing((("list-type", "2"),), "max-keys", "start-after", "", b"", parse_objects)
"""ListObjectsV2."""
VERSIONS = Listing(
    (("versions", ""),),
    "max-keys",
    "key-marker",
    "version-id-marker",
    b"NextVersionIdMarker",
    parse_versions,
    # Some implementations list all delete markers after all versions.
    lambda row: (row.key, not row.is_latest),
)
"""ListObjectVersions, the newest of a key first."""
VERSIONS_AND_RESTORES = replace(
    VERSIONS, headers=(("x-amz-optional-object-attributes", "RestoreStatus"),)
)
"""ListObjectVersions that tells what of something archived can be read for a time."""
UPLOADS = Listing(
    (("uploads", ""),),
    "max-uploads",
    "key-marker",
    "upload-id-marker",
    b"NextUploadIdMarker",
    parse_uploads,
    lambda row: (row.key, False),
)
"""ListMultipartUploads, the oldest of a key first."""


# Objects.


def head_object(bucket: str, key: str, version_id: str | None = None) -> Request:
    """Return a HeadObject of the current or one exact version, with its checksum if it has one."""
    return Request(
        "HEAD",
        bucket,
        key,
        query=_versioned(version_id),
        headers=(("x-amz-checksum-mode", "ENABLED"),),
        expects=Expects.ETAG,
    )


def get_object(bucket: str, key: str) -> Request:
    """Return a GetObject of all of the current version."""
    return Request("GET", bucket, key, expects=Expects.BODY)


def get_first_byte(bucket: str, key: str, version_id: str | None = None) -> Request:
    """Return a GetObject of one byte of the current or one exact version.

    Where a HEAD is refused, which has no body, this is refused in words.
    """
    headers = (("range", "bytes=0-0"),)
    return Request("GET", bucket, key, query=_versioned(version_id), headers=headers)


def get_object_tagging(bucket: str, key: str, version_id: str | None = None) -> Request:
    """Return a GetObjectTagging of the current or one exact version."""
    return Request(
        "GET", bucket, key, query=(("tagging", ""), *_versioned(version_id)), expects=Expects.BODY
    )


def read_tags(answer: Response) -> str:
    """Return an object's tags in the form of the `x-amz-tagging` header."""
    tags = _TAG.findall(answer.body)
    return urlencode(
        [(find_text(tag, b"Key"), find_text(tag, b"Value")) for tag in tags], quote_via=quote
    )


def put_object(
    bucket: str,
    key: str,
    body: bytes | FileSlice = b"",
    *,
    headers: Headers = (),
    if_absent: bool = False,
    on_sent: Callable[[int], None] | None = None,
) -> Request:
    """Return a PutObject. With `if_absent`, S3 refuses with 412 when the key has an object."""
    condition = (_IF_NONE_MATCH,) if if_absent else ()
    return Request(
        "PUT",
        bucket,
        key,
        headers=(*headers, *condition),
        body=body,
        on_sent=on_sent,
        expects=Expects.ETAG,
    )


def copy_object(
    source_bucket: str,
    source: ObjectVersion,
    bucket: str,
    key: str,
    *,
    if_absent: bool = False,
    headers: Headers = (),
) -> Request:
    """Return a CopyObject of one exact version, up to LONGEST_COPY_BYTES.

    Metadata and content type come along. With `if_absent`, S3 refuses with 412 when the key has
    a current object.
    """
    condition = (_IF_NONE_MATCH,) if if_absent else ()
    return Request(
        "PUT",
        bucket,
        key,
        headers=(*_copied_from(source_bucket, source), *condition, *headers),
        expects=Expects.BODY,
    )


def delete_object(bucket: str, version: ObjectVersion) -> Request:
    """Return a DeleteObject of one exact version."""
    return Request(
        "DELETE",
        bucket,
        version.key,
        query=_versioned(version.version_id or None),
        headers=(("if-match", f'"{version.etag}"'),) if version.etag else (),
    )


def delete_objects(bucket: str, body: bytes, md5: str) -> Request:
    """Return a DeleteObjects of what `body` names; S3 wants its MD5, in base64, or a checksum."""
    return Request(
        "POST",
        bucket,
        query=(("delete", ""),),
        headers=(("content-md5", md5), _XML),
        body=body,
        expects=Expects.BODY,
    )


# Multipart uploads.


def create_multipart_upload(
    bucket: str, key: str, *, headers: Headers = (), crc: bool = True
) -> Request:
    """Return a CreateMultipartUpload, with `crc` one with CRC64NVME of the whole object."""
    algorithm = (
        ("x-amz-checksum-algorithm", "CRC64NVME"),
        ("x-amz-checksum-type", "FULL_OBJECT"),
    )
    return Request(
        "POST",
        bucket,
        key,
        query=(("uploads", ""),),
        headers=(*headers, *(algorithm if crc else ())),
        expects=Expects.BODY,
    )


def read_upload_id(answer: Response) -> str:
    """Return the id of the upload that was created, "" if the answer has none."""
    return find_text(answer.body, b"UploadId")


def upload_part(
    bucket: str,
    key: str,
    upload_id: str,
    number: int,
    body: bytes | FileSlice = b"",
    *,
    headers: Headers = (),
    checksum: Algorithm | None = None,
    trails: bool = False,
    on_sent: Callable[[int], None] | None = None,
) -> Request:
    """Return an UploadPart; `checksum` and `trails` are those of Request."""
    return Request(
        "PUT",
        bucket,
        key,
        query=_part(upload_id, number),
        headers=tuple(headers),
        body=body,
        checksum=checksum,
        trails=trails,
        on_sent=on_sent,
        expects=Expects.ETAG,
    )


def upload_part_copy(
    source_bucket: str,
    source: ObjectVersion,
    bucket: str,
    key: str,
    upload_id: str,
    number: int,
    *,
    offset: int,
    length: int,
) -> Request:
    """Return an UploadPartCopy of `length` bytes of one exact version, from `offset` on."""
    within = ("x-amz-copy-source-range", f"bytes={offset}-{offset + length - 1}")
    return Request(
        "PUT",
        bucket,
        key,
        query=_part(upload_id, number),
        headers=(*_copied_from(source_bucket, source), within),
        expects=Expects.BODY,
    )


def complete_multipart_upload(
    bucket: str,
    key: str,
    upload_id: str,
    parts: Iterable[CompletedPart] = (),
    *,
    if_absent: bool = False,
    headers: Headers = (),
) -> Request:
    """Return a CompleteMultipartUpload of parts in their order; without parts, an empty body.

    With `if_absent`, S3 refuses with 412 when the key has a current object.
    """
    listed = "".join(map(_write_part, parts))
    condition = (_IF_NONE_MATCH,) if if_absent else ()
    return Request(
        "POST",
        bucket,
        key,
        query=(("uploadId", upload_id),),
        headers=(_XML, *headers, *condition),
        body=(
            '<CompleteMultipartUpload xmlns="http://s3.amazonaws.com/doc/2006-03-01/">'
            f"{listed}</CompleteMultipartUpload>"
        ).encode(),
        expects=Expects.BODY,
    )


def abort_multipart_upload(bucket: str, key: str, upload_id: str) -> Request:
    """Return an AbortMultipartUpload."""
    return Request("DELETE", bucket, key, query=(("uploadId", upload_id),))


def list_parts(bucket: str, key: str, upload_id: str, after: str = "") -> Request:
    """Return the request for a page of an upload's parts, `after` the part where one ended."""
    marker = (("part-number-marker", after),) if after else ()
    return Request(
        "GET",
        bucket,
        key,
        query=(("max-parts", "1000"), ("uploadId", upload_id), *marker),
        expects=Expects.BODY,
    )


def read_parts(answer: Response) -> PartsPage:
    """Return a page of an upload's parts. Raises AnswerError, KeyError or ValueError if not one."""
    parts = parse_parts(answer.body)
    following = ""
    # A page that is cut and empty leads nowhere.
    if parts and b"<IsTruncated>true</IsTruncated>" in answer.body:
        following = find_text(answer.body, b"NextPartNumberMarker") or str(parts[-1].number)
    return PartsPage(parts, following, *read_abort_rule(answer))


def read_abort_rule(answer: Response) -> tuple[datetime | None, str | None]:
    """Return when a lifecycle rule aborts the upload that an answer is about, and the rule's id.

    S3 tells it of CreateMultipartUpload and ListParts.
    """
    at = parse_time(answer.headers.get("x-amz-abort-date", ""))
    return at, answer.headers.get("x-amz-abort-rule-id")


# What answers to several operations have in common.


def read_etag(answer: Response) -> str:
    """Return the ETag, without quotes, of what an answer is about: in its headers or its body."""
    said = answer.headers.get("etag") or find_text(answer.body, b"ETag")
    return said.strip('"')


def read_checksums(answer: Response) -> Mapping[str, str]:
    """Return the checksums of an answer's body by their names, such as `ChecksumCRC64NVME`."""
    return {
        name.decode(): value.decode()
        for name, value in _CHECKSUM.findall(answer.body)
        if name != b"ChecksumType"
    }


def read_version_id(answer: Response) -> str | None:
    """Return the id of the version that an answer is about, None where there are no versions.

    What was written before versions were enabled has the id "null", as has what is written while
    they are suspended: no id of its own.
    """
    version_id = answer.headers.get("x-amz-version-id")
    return None if version_id == "null" else version_id


def read_date(answer: Response) -> datetime | None:
    """Return when an answer was given, by the clock of who gave it; None if it does not say."""
    return parse_time(answer.headers.get("date", ""))


def is_unknown_here(answer: Response | Exception) -> bool:
    """Tell whether a request may have been refused for a header that the endpoint does not know."""
    return isinstance(answer, Response) and (
        answer.status == 501
        or (
            answer.status == 400
            and answer.code in {"NotImplemented", "InvalidArgument", "InvalidRequest"}
        )
    )


def _versioned(version_id: str | None) -> tuple[tuple[str, str], ...]:
    return (("versionId", version_id),) if version_id is not None else ()


def _part(upload_id: str, number: int) -> tuple[tuple[str, str], ...]:
    return (("partNumber", str(number)), ("uploadId", upload_id))


_encode = partial(quote, safe="/-._~")


def _copied_from(bucket: str, source: ObjectVersion) -> Iterable[tuple[str, str]]:
    place = _encode(f"{bucket}/{source.key}")
    if source.version_id:
        place += f"?versionId={quote(source.version_id, safe='-._~')}"
    yield "x-amz-copy-source", place
    if source.etag:
        yield "x-amz-copy-source-if-match", f'"{source.etag}"'


def _write_part(part: CompletedPart) -> str:
    etag = f'<ETag>"{escape(part.etag)}"</ETag>'
    proof = f"<ChecksumCRC64NVME>{part.crc64nvme}</ChecksumCRC64NVME>" if part.crc64nvme else ""
    return f"<Part><PartNumber>{part.number}</PartNumber>{etag}{proof}</Part>"
