"""S3's XML answers as records: special code for long lists of rows, a parser for the rest.

A document that declares anything is refused, so that no entity is ever expanded.
"""

import re
import sys
from collections.abc import Iterator, Sequence
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from functools import lru_cache
from typing import TYPE_CHECKING, NamedTuple
from urllib.parse import unquote_plus

from twobuckets.s3.xmltext import FORBIDDEN, unescape

if TYPE_CHECKING:
    from xml.etree import ElementTree as ET


class Marker(NamedTuple):
    """Where a listing goes on: after this key, or after this version or upload of the key."""

    key: str = ""
    id: str = ""


class ListedObject(NamedTuple):
    """A current object as ListObjectsV2 lists it; `etag` is without its quotes."""

    key: str
    size_bytes: int
    modified_at: datetime
    etag: str
    storage_class: str


class ListedVersion(NamedTuple):
    """An object version or a delete marker as ListObjectVersions lists it.

    A delete marker has no size (None) and no ETag (""). The version id is "null" for what was
    written before the bucket was versioned. Only a listing that asks for it tells whether something
    archived `is_restored`, that is, can be read for a time.
    """

    key: str
    version_id: str
    is_latest: bool
    is_delete_marker: bool
    size_bytes: int | None
    modified_at: datetime
    etag: str
    storage_class: str
    is_restored: bool = False


class ListedUpload(NamedTuple):
    """An incomplete multipart upload as ListMultipartUploads lists it.

    `initiator` is the display name or, where AWS gives none, the ARN or id. What checksums it was
    begun with is "" where S3 does not say.
    """

    key: str
    upload_id: str
    initiated_at: datetime
    initiator: str
    storage_class: str
    initiator_id: str = ""
    checksum_algorithm: str = ""
    checksum_type: str = ""


class ListedPart(NamedTuple):
    """A part of an incomplete upload as ListParts lists it; `etag` is without its quotes.

    `crc64nvme` is "" where S3 has none, `modified_at` None where it does not say.
    """

    number: int
    size_bytes: int
    etag: str
    crc64nvme: str
    modified_at: datetime | None


class DeleteResult(NamedTuple):
    """What DeleteObjects says of one key: `code` is "" when it is gone."""

    key: str
    version_id: str
    code: str
    message: str


class AnswerError(Exception):
    """S3 answered with something that is not the document it should be."""


# Compiled when a page is read, and kept by `re`: most commands list nothing, and it takes a while.
# An ETag's quotes are not part of it, however they are written.
_ETAG = r"<ETag>(?:&quot;|&#34;|\")?([^<&\"]*+)(?:&quot;|&#34;|\")?</ETag>"
_CHECKSUMS = r"(?:<Checksum\w++>[^<]*+</Checksum\w++>)*+"
_ROW = (
    rf"<Contents><Key>([^<]*+)</Key><LastModified>([^<]*+)</LastModified>{_ETAG}{_CHECKSUMS}"
    r"<Size>(\d++)</Size>(?:<StorageClass>([^<]*+)</StorageClass>)?+</Contents>"
)
_VERSION_ROW = (
    r"<(Version|DeleteMarker)><Key>([^<]*+)</Key><VersionId>([^<]*+)</VersionId>"
    r"<IsLatest>(true|false)</IsLatest><LastModified>([^<]*+)</LastModified>"
    rf"(?:{_ETAG})?{_CHECKSUMS}(?:<Size>(\d++)</Size>)?+"
    r"(?:<StorageClass>([^<]*+)</StorageClass>)?+"
    r"(?:<Owner>(?:<ID>[^<]*+</ID>|<DisplayName>[^<]*+</DisplayName>)*+</Owner>)?+</\1>"
)
_NOT_PLAIN = re.compile("[%+&]")


def parse_objects(body: bytes) -> list[ListedObject]:
    """Return the rows of a ListObjectsV2 page. Raises AnswerError if it is none."""
    text = body.decode("utf-8", "replace")
    encoded = "<EncodingType>url</EncodingType>" in text
    rows = re.findall(_ROW, text) if encoded else []
    if not rows or len(rows) != text.count("<Contents>"):
        return [_read_object(row, encoded=encoded) for row in _find_rows(body, "Contents")]
    # Column by column costs half of what row by row does.
    keys, modified, etags, sizes, classes = zip(*rows, strict=True)
    return list(
        map(
            ListedObject._make,
            zip(
                _decode_all(keys),
                map(int, sizes),
                map(datetime.fromisoformat, modified),
                etags,
                [storage_class or "STANDARD" for storage_class in classes],
                strict=True,
            ),
        )
    )


def parse_versions(body: bytes) -> list[ListedVersion]:
    """Return the rows of a ListObjectVersions page. Raises AnswerError if it is none."""
    text = body.decode("utf-8", "replace")
    encoded = "<EncodingType>url</EncodingType>" in text
    rows = re.findall(_VERSION_ROW, text) if encoded else []
    if not rows or len(rows) != text.count("<Version>") + text.count("<DeleteMarker>"):
        found = _find_tagged_rows(body, {"Version", "DeleteMarker"})
        return [_read_version(tag, row, encoded=encoded) for tag, row in found]
    tags, keys, ids, latest, modified, etags, sizes, classes = zip(*rows, strict=True)
    return list(
        map(
            ListedVersion._make,
            zip(
                _decode_all(keys),
                ids,
                [said == "true" for said in latest],
                [tag == "DeleteMarker" for tag in tags],
                [int(size) if size else None for size in sizes],
                map(datetime.fromisoformat, modified),
                etags,
                [storage_class or "STANDARD" for storage_class in classes],
                [False] * len(keys),  # a row that tells of a restore has another form
                strict=True,
            ),
        )
    )


def _decode_all(keys: Sequence[str]) -> Sequence[str]:
    """Return the keys of a page in its URL encoding as they are."""
    if not _NOT_PLAIN.search("".join(keys)):
        return keys
    return [unquote_plus(unescape(key)) for key in keys]


def parse_uploads(body: bytes) -> list[ListedUpload]:
    """Return the rows of a ListMultipartUploads page. Raises AnswerError if it is none."""
    encoded = _is_encoded(body)
    return [
        ListedUpload(
            decode_key(row["Key"], encoded=encoded),
            row["UploadId"],
            datetime.fromisoformat(row["Initiated"]),
            row.get("Initiator/DisplayName") or row.get("Initiator/ID", ""),
            row.get("StorageClass", "STANDARD"),
            row.get("Initiator/ID", ""),
            row.get("ChecksumAlgorithm", ""),
            row.get("ChecksumType", ""),
        )
        for row in _find_rows(body, "Upload")
    ]


def parse_parts(body: bytes) -> list[ListedPart]:
    """Return the rows of a ListParts page. Raises AnswerError if it is none."""
    return [
        ListedPart(
            int(row["PartNumber"]),
            int(row["Size"]),
            row.get("ETag", "").strip('"'),
            row.get("ChecksumCRC64NVME", ""),
            datetime.fromisoformat(row["LastModified"]) if "LastModified" in row else None,
        )
        for row in _find_rows(body, "Part")
    ]


def parse_delete_results(body: bytes) -> list[DeleteResult]:
    """Return what DeleteObjects did, key by key. Raises AnswerError if it is no such answer."""
    return [
        DeleteResult(
            row.get("Key", ""),
            row.get("VersionId", ""),
            row.get("Code", "") if tag == "Error" else "",
            row.get("Message", ""),
        )
        for tag, row in _find_tagged_rows(body, {"Deleted", "Error"})
    ]


@lru_cache(maxsize=8)
def parse_time(text: str) -> datetime | None:
    """Return the instant that a header names, aware, in UTC; None for anything else."""
    try:
        return parsedate_to_datetime(text).astimezone(UTC)
    except ValueError:
        return None


def _parse(body: bytes) -> "ET.Element":
    # Imported when it is needed: an upload that nothing disturbs parses no document.
    from xml.etree import ElementTree as ET

    # Without entities of its own an XML document can neither grow nor lead anywhere else.
    if b"<!" in body:
        raise AnswerError("the answer declares entities")
    try:
        return ET.fromstring(_CHARACTER.sub(_allowed, body))  # nosec B314  # noqa: S314
    except ET.ParseError as error:
        raise AnswerError(f"the answer is not XML: {error}") from None


_CHARACTER = re.compile(rb"&#(?:x([0-9a-fA-F]+)|([0-9]+));")


def _allowed(reference: re.Match[bytes]) -> bytes:
    """Return a reference as it is, or a replacement character for what XML 1.0 allows none to.

    S3 writes a key with an escape character so, where nothing encodes keys: in ListParts.
    """
    number = int(reference[1], 16) if reference[1] else int(reference[2])
    is_allowed = number <= sys.maxunicode and not FORBIDDEN.fullmatch(chr(number))
    return reference[0] if is_allowed else b"&#xfffd;"


def _local(tag: str) -> str:
    return tag.rpartition("}")[2]


def _find_tagged_rows(body: bytes, tags: set[str]) -> Iterator[tuple[str, dict[str, str]]]:
    for child in _parse(body):
        tag = _local(child.tag)
        if tag in tags:
            yield tag, _read_row(child)


def _find_rows(body: bytes, tag: str) -> Iterator[dict[str, str]]:
    return (row for _, row in _find_tagged_rows(body, {tag}))


def _read_row(element: "ET.Element") -> dict[str, str]:
    row: dict[str, str] = {}
    for child in element:
        name = _local(child.tag)
        row[name] = child.text or ""
        for grandchild in child:
            row[f"{name}/{_local(grandchild.tag)}"] = grandchild.text or ""
    return row


def _read_object(row: dict[str, str], *, encoded: bool) -> ListedObject:
    return ListedObject(
        decode_key(row["Key"], encoded=encoded),
        int(row["Size"]),
        datetime.fromisoformat(row["LastModified"]),
        row.get("ETag", "").strip('"'),
        row.get("StorageClass", "STANDARD"),
    )


def _read_version(tag: str, row: dict[str, str], *, encoded: bool) -> ListedVersion:
    return ListedVersion(
        decode_key(row.get("Key", ""), encoded=encoded),
        row.get("VersionId", "null"),
        row.get("IsLatest") == "true",
        tag == "DeleteMarker",
        int(row["Size"]) if "Size" in row else None,
        datetime.fromisoformat(row["LastModified"]),
        row.get("ETag", "").strip('"'),
        row.get("StorageClass", "STANDARD"),
        row.get("RestoreStatus/IsRestoreInProgress", "").lower() == "false",
    )


def _is_encoded(body: bytes) -> bool:
    return b"<EncodingType>url</EncodingType>" in body


def decode_key(key: str, *, encoded: bool) -> str:
    """Return a key as it is; `encoded` says whether the answer has it in URL encoding."""
    return unquote_plus(key) if encoded else key
