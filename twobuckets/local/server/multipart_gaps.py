"""What the emulator's S3 lacks about multipart uploads, one function a gap."""

from __future__ import annotations

import base64
import re
import threading
from typing import TYPE_CHECKING, Any
from xml.sax.saxutils import escape

from twobuckets.s3.engine import CRC32, CRC64NVME

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

_ALGORITHMS = {algorithm.name: algorithm for algorithm in (CRC32, CRC64NVME)}
_PART_NUMBER = re.compile(rb"<PartNumber>\s*(\d+)\s*</PartNumber>")
_UPLOAD = re.compile(rb"<Upload>.*?</Upload>", re.DOTALL)
_UPLOAD_ID = re.compile(rb"<UploadId>(.*?)</UploadId>")
_INITIATOR = re.compile(rb"(<Initiator><ID>).*?(</ID>)", re.DOTALL)
_completing = threading.local()


def install() -> None:
    """Fill each of the gaps."""
    _compute_crc64nvme_fast()
    _name_the_initiator()
    _keep_checksums_of_whole_objects()


def _compute_crc64nvme_fast() -> None:
    """Gap: the emulator's CRC64NVME takes a minute for a gigabyte."""
    from ministack.services import s3

    s3._crc64nvme = lambda body: CRC64NVME.compute(bytes(body))


def _name_the_initiator() -> None:
    """Gap: ListMultipartUploads names the account, not the ARN of whoever began the upload."""
    from ministack.services import s3, sts

    create, list_uploads = s3._create_multipart_upload, s3._list_multipart_uploads

    def create_and_note(bucket: str, key: str, headers: Mapping[str, str]) -> Any:
        answer = create(bucket, key, headers)
        caller = sts._caller_identity(headers, {})
        if (upload := _find_created(answer)) is not None and isinstance(caller, dict):
            upload["initiator"] = caller["userArn"]
        return answer

    def name_initiator(shown: re.Match[bytes]) -> bytes:
        upload_id = _UPLOAD_ID.search(shown[0])
        upload = s3._multipart_uploads.get(upload_id[1].decode() if upload_id else "", {})
        if "initiator" not in upload:
            return shown[0]
        arn = escape(upload["initiator"]).encode()
        return _INITIATOR.sub(lambda found: found[1] + arn + found[2], shown[0])

    def list_with_initiators(*arguments: Any) -> Any:
        status, answered, body = list_uploads(*arguments)
        return status, answered, _UPLOAD.sub(name_initiator, body)

    s3._create_multipart_upload = create_and_note
    s3._list_multipart_uploads = list_with_initiators


def _find_created(answer: tuple[int, Any, bytes]) -> dict[str, Any] | None:
    """Return the emulator's record of the upload that an answer says was created."""
    from ministack.services import s3

    found = _UPLOAD_ID.search(answer[2])
    upload: dict[str, Any] | None = s3._multipart_uploads.get(found[1].decode() if found else "")
    return upload


def _keep_checksums_of_whole_objects() -> None:
    """Gap: the emulator knows composite checksums only, never `FULL_OBJECT`."""
    from ministack.services import s3

    s3._create_multipart_upload = _creates(s3._create_multipart_upload)
    s3._complete_multipart_upload = _completes(s3._complete_multipart_upload, s3)
    s3._composite_checksum = _combines(s3._composite_checksum)
    s3._upload_part_copy = _copies(s3._upload_part_copy, s3)
    s3._record_object_version = _records(s3._record_object_version)


def _creates(create: Callable[..., Any]) -> Callable[..., Any]:
    """Note that an upload was begun with a checksum of the whole object."""

    def create_with_type(bucket: str, key: str, headers: Mapping[str, str]) -> Any:
        status, answered, body = create(bucket, key, headers)
        upload = _find_created((status, answered, body))
        if (
            upload is not None
            and headers.get("x-amz-checksum-type") == "FULL_OBJECT"
            and "x-amz-checksum-algorithm" in answered
        ):
            upload["checksum_type"] = "FULL_OBJECT"
            answered = {**answered, "x-amz-checksum-type": "FULL_OBJECT"}
        return status, answered, body

    return create_with_type


def _copies(copy: Callable[..., Any], s3: Any) -> Callable[..., Any]:
    """Give a part that is copied the checksum that the upload's algorithm asks for."""

    def copy_with_checksum(
        bucket: str, key: str, query: Mapping[str, Any], headers: Mapping[str, str]
    ) -> Any:
        status, answered, body = copy(bucket, key, query, headers)
        upload = s3._multipart_uploads.get(s3._qp(query, "uploadId"), {})
        name = upload.get("checksum_algorithm")
        algorithm = _ALGORITHMS.get(name)
        if status != 200 or algorithm is None:
            return status, answered, body
        part = upload["parts"][int(s3._qp(query, "partNumber", "1"))]
        checksum = algorithm.encode(algorithm.compute(bytes(part["body"])))
        part["checksums"] = {name: checksum}
        element = f"<Checksum{name}>{checksum}</Checksum{name}></CopyPartResult>"
        return status, answered, body.replace(b"</CopyPartResult>", element.encode())

    return copy_with_checksum


def _completes(complete: Callable[..., Any], s3: Any) -> Callable[..., Any]:
    """Complete an upload with the type of checksum that it was begun with."""

    def complete_with_type(
        bucket: str, key: str, body: bytes, query: Mapping[str, Any], *rest: Any
    ) -> Any:
        upload_id = s3._qp(query, "uploadId")
        upload = s3._multipart_uploads.get(upload_id)
        if upload is None or upload.get("checksum_type") != "FULL_OBJECT":
            return complete(bucket, key, body, query, *rest)
        numbers = sorted(int(number) for number in _PART_NUMBER.findall(body))
        _completing.lengths = [upload["parts"][n]["size"] for n in numbers if n in upload["parts"]]
        try:
            status, answered, said = complete(bucket, key, body, query, *rest)
        finally:
            _completing.lengths = None
        if status == 200:
            said = said.replace(b">COMPOSITE<", b">FULL_OBJECT<")
            s3._completed_multipart_uploads[upload_id]["response"] = (status, answered, said)
        return status, answered, said

    return complete_with_type


def _combines(composite: Callable[..., str | None]) -> Callable[..., str | None]:
    def combine(name: str, digests: list[str | None]) -> str | None:
        lengths = getattr(_completing, "lengths", None)
        algorithm = _ALGORITHMS.get(name)
        if lengths is None or algorithm is None or not all(digests):
            return composite(name, digests)
        crcs = [int.from_bytes(base64.b64decode(digest or ""), "big") for digest in digests]
        return algorithm.encode(algorithm.combine(zip(crcs, lengths, strict=True)))

    return combine


def _records(record: Callable[..., str | None]) -> Callable[..., str | None]:
    def record_with_type(
        bucket: str, key: str, prior: Any, stored: Any, content: Any
    ) -> str | None:
        if getattr(_completing, "lengths", None) is not None and stored.get("checksum_type"):
            stored["checksum_type"] = "FULL_OBJECT"
        return record(bucket, key, prior, stored, content)

    return record_with_type
