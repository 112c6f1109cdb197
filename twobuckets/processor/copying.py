"""Copying one exact version to the archive, in one call or in parts, under conditions."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any, NamedTuple
from urllib.parse import urlencode

from twobuckets.processor.annotations import has_annotations, require_no_annotations
from twobuckets.processor.comparing import ContentFacts, content_of
from twobuckets.processor.contract import ORIGIN
from twobuckets.processor.looking import Archived, Staged, code_of, version_id_of
from twobuckets.processor.proving import composite_crc, find_whole

if TYPE_CHECKING:
    from mypy_boto3_s3 import S3Client
    from mypy_boto3_s3.type_defs import CompletedPartTypeDef

LARGEST_COPY_BYTES = 5 * 1024**3  # CopyObject's limit; above it only UploadPartCopy works
# S3 answers a CopyObject once all is copied, which for gigabytes may take longer than a client
# waits for an answer. Parts are copied side by side, and soon answered each.
LONG_COPY_BYTES = 1024**3
_PART_BYTES = 256 * 1024**2
_LARGEST_PARTS = 10_000
# A copy in parts can have a checksum of the whole in these algorithms only.
_OF_WHOLE = ("CRC64NVME", "CRC32", "CRC32C")
# What CopyObject and CreateMultipartUpload have to be told again once metadata is replaced.
_KEPT = (
    "CacheControl",
    "ContentDisposition",
    "ContentEncoding",
    "ContentLanguage",
    "ContentType",
    "Expires",
    "WebsiteRedirectLocation",
)


@dataclass(frozen=True, slots=True)
class Destination:
    """The archive bucket and how objects are stored there."""

    bucket: str
    storage_class: str | None = None
    part_concurrency: int = 8


def can_restate(staged: Staged) -> bool:
    """Whether the object's headers can be given to CopyObject anew, with the record among them.

    What is not ASCII cannot be signed as it came, and S3 only counts metadata that no header can
    carry (`MissingMeta`): such an object is copied with what it has, and gets no record. An origin
    record that came with it must not pass for ours, and is worth dropping the rest.
    """
    if ORIGIN in staged.head["Metadata"]:
        return True
    kept = (staged.head.get(name, "") for name in _KEPT)
    texts = [*staged.metadata.values(), *(text for text in kept if isinstance(text, str))]
    return all(text.isascii() for text in texts) and not staged.head.get("MissingMeta")


class Copied(NamedTuple):
    """What S3 says of the copy that it made."""

    version_id: str | None
    content: ContentFacts


def copy_version(
    s3: S3Client,
    source: Staged,
    destination: Destination,
    metadata: Mapping[str, str] | None,
    seen: Archived | None,
) -> Copied:
    """Copy under both conditions: the source is the pinned version, the destination is as seen.

    Without metadata the source's headers and metadata are copied by S3 itself.
    """
    written = _headers(source, metadata)
    if destination.storage_class:
        written["StorageClass"] = destination.storage_class
    unchanged: dict[str, Any] = {"IfMatch": f'"{seen.etag}"'} if seen else {"IfNoneMatch": "*"}
    where: dict[str, Any] = {"Bucket": destination.bucket, "Key": source.key}
    tags = _find_tags_for_parts(s3, source, metadata)
    if tags is not None:
        written |= tags
        return _copy_in_parts(s3, source, destination, where, written, unchanged)
    if not has_condition(s3):
        unchanged = {}
    if metadata is None:
        written = {"StorageClass": written["StorageClass"]} if "StorageClass" in written else {}
        written["MetadataDirective"] = "COPY"
    else:
        written["MetadataDirective"] = "REPLACE"
    if algorithm := composite_crc(content_of(source.head)):
        # A copy in one call has a checksum of the whole, and this one can be proven.
        written["ChecksumAlgorithm"] = algorithm
    copied = s3.copy_object(**where, **source.copy_source, **written, **unchanged)
    result: Mapping[str, Any] = copied["CopyObjectResult"]
    return Copied(version_id_of(copied), content_of({**result, **_encryption(copied)}))


def _find_tags_for_parts(
    s3: S3Client, source: Staged, metadata: Mapping[str, str] | None
) -> dict[str, str] | None:
    """Return the tags, as CreateMultipartUpload takes them, of what is to be copied in parts.

    None for what one call copies: what is short, what S3 alone can copy whole (annotations, and
    headers that can't be stated again), what we may not read, and what no checksum proves.
    """
    has_to = source.size_bytes > LARGEST_COPY_BYTES
    if not has_to and (
        source.size_bytes < LONG_COPY_BYTES
        or metadata is None
        or content_of(source.head).whole_checksums().keys().isdisjoint(_OF_WHOLE)
    ):
        return None
    pinned: dict[str, Any] = {"Bucket": source.bucket, "Key": source.key}
    if source.version_id is not None:
        pinned["VersionId"] = source.version_id
    try:
        if has_to:
            require_no_annotations(s3, source)
        elif has_annotations(s3, source):
            return None
        tags = s3.get_object_tagging(**pinned)["TagSet"]
    except Exception as error:
        if has_to or code_of(error) not in ("AccessDenied", "403"):
            raise
        return None
    return {"Tagging": urlencode([(tag["Key"], tag["Value"]) for tag in tags])} if tags else {}


def _encryption(answer: Mapping[str, Any]) -> dict[str, Any]:
    """Return what tells whether the ETag is the MD5 of the bytes."""
    names = ("ServerSideEncryption", "SSECustomerAlgorithm")
    return {name: answer[name] for name in names if name in answer}


def _headers(source: Staged, metadata: Mapping[str, str] | None) -> dict[str, Any]:
    # What is not ASCII is left out where S3 cannot copy it itself: above the limit of CopyObject.
    headers: dict[str, Any] = {name: source.head[name] for name in _KEPT if source.head.get(name)}
    texts = source.metadata if metadata is None else metadata
    if "Expires" not in headers and source.head.get("ExpiresString"):
        # What is no date, such as 0, cannot be said again with boto3, and means one in the past
        # (RFC 9111, section 5.3).
        headers["Expires"] = datetime.fromtimestamp(0, UTC)
    headers["Metadata"] = {name: text for name, text in texts.items() if text.isascii()}
    return {
        name: value
        for name, value in headers.items()
        if not isinstance(value, str) or value.isascii()
    }


def is_of_parts(etag: str) -> bool:
    """Whether a copy with this ETag was made in parts; one that was made in one call has no "-"."""
    return "-" in etag


def has_condition(s3: S3Client) -> bool:
    """Whether this boto3 knows CopyObject's conditions on the destination (since October 2025)."""
    shape = s3.meta.service_model.operation_model("CopyObject").input_shape
    return "IfNoneMatch" in getattr(shape, "members", ())


def _copy_in_parts(
    s3: S3Client,
    source: Staged,
    destination: Destination,
    where: dict[str, Any],
    written: dict[str, Any],
    unchanged: dict[str, Any],
) -> Copied:
    algorithm, checksum = _whole_checksum(s3, source)
    upload = s3.create_multipart_upload(
        **where, **written, ChecksumAlgorithm=algorithm, ChecksumType="FULL_OBJECT"
    )
    where = {**where, "UploadId": upload["UploadId"]}
    try:
        parts = _copy_parts(s3, source, where, destination.part_concurrency)
        given: dict[str, Any] = {f"Checksum{algorithm}": checksum} if checksum else {}
        completed = s3.complete_multipart_upload(
            **where,
            **given,
            **unchanged,
            MultipartUpload={"Parts": parts},
            ChecksumType="FULL_OBJECT",
            MpuObjectSize=source.size_bytes,
        )
    except BaseException:
        s3.abort_multipart_upload(**where)
        raise
    return Copied(version_id_of(completed), content_of(completed))


def _copy_parts(
    s3: S3Client, source: Staged, where: dict[str, Any], concurrency: int
) -> list[CompletedPartTypeDef]:
    from concurrent.futures import ThreadPoolExecutor

    part_bytes = max(_PART_BYTES, -(-source.size_bytes // _LARGEST_PARTS))

    def copy_part(number: int) -> CompletedPartTypeDef:
        first = (number - 1) * part_bytes
        last = min(source.size_bytes, first + part_bytes) - 1
        copied: Any = s3.upload_part_copy(
            **where,
            **source.copy_source,
            PartNumber=number,
            CopySourceRange=f"bytes={first}-{last}",
        )["CopyPartResult"]
        part: Any = {name: text for name, text in copied.items() if name.startswith("Checksum")}
        part |= {"PartNumber": number, "ETag": copied["ETag"]}
        return part  # type: ignore[no-any-return]

    count = -(-source.size_bytes // part_bytes)
    # Leaving the block waits for parts in flight, so that none lands after an abort.
    with ThreadPoolExecutor(min(concurrency, count), thread_name_prefix="twobuckets-copy") as pool:
        futures = [pool.submit(copy_part, number) for number in range(1, count + 1)]
        try:
            return [future.result() for future in futures]
        except BaseException:
            pool.shutdown(wait=False, cancel_futures=True)
            raise


def _whole_checksum(s3: S3Client, source: Staged) -> tuple[Any, str | None]:
    """Return the algorithm for a multipart copy and, if S3 tells it of the source, its value."""
    told = content_of(source.head)
    whole = (find_whole(s3, source.pinned, told) or told).whole_checksums()
    for algorithm in _OF_WHOLE:
        if algorithm in whole:
            return algorithm, whole[algorithm]
    return "CRC64NVME", None
