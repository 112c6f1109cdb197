"""S3 in memory: two kinds of buckets, and a client with the calls and errors of boto3's."""

from __future__ import annotations

import base64
import hashlib
import io
import itertools
import zlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import Any

import botocore.session
from botocore.exceptions import ClientError

_SERVICE_MODEL = botocore.session.get_session().get_service_model("s3")


@dataclass(frozen=True, slots=True)
class Stored:
    """One version of an object, or a delete marker.

    `upload` numbers the upload that the content began with, through all copies. `staged` numbers
    the write to staging that this is, or that this was copied from: it orders what the archive
    holds. Neither is visible to the client.
    """

    key: str
    version_id: str
    body: bytes
    headers: dict[str, Any]
    modified_at: datetime
    upload: int
    staged: int
    is_marker: bool = False

    @property
    def etag(self) -> str:
        return hashlib.md5(self.body).hexdigest()


@dataclass(slots=True)
class Bucket:
    """A bucket; `stacks` holds each key's versions, the newest first."""

    name: str
    versioned: bool
    is_staging: bool = False
    stacks: dict[str, list[Stored]] = field(default_factory=dict)

    def current(self, key: str) -> Stored | None:
        stack = self.stacks.get(key)
        return stack[0] if stack and not stack[0].is_marker else None

    def find(self, key: str, version_id: str) -> Stored | None:
        found = (item for item in self.stacks.get(key, ()) if item.version_id == version_id)
        return next(found, None)

    def put(self, stored: Stored) -> None:
        stack = self.stacks.setdefault(stored.key, [])
        if not self.versioned:
            stack.clear()
        stack.insert(0, stored)

    def visible(self) -> list[Stored]:
        return [stack[0] for stack in self.stacks.values() if stack and not stack[0].is_marker]


@dataclass(slots=True)
class Upload:
    """A multipart upload in progress."""

    bucket: str
    key: str
    headers: dict[str, Any]
    parts: dict[int, tuple[bytes, Stored]] = field(default_factory=dict)


class S3:
    """The state of all buckets, and a clock that moves with every write.

    `on_change` is called after each change with the bucket and what was written, or None.
    `corrupt_copies` makes that many copies store other bytes than the source's. `repeated_write`
    is the number of the copy or delete that is made twice, because its first answer got lost.
    `conflicting_write` is the number of the one that answers 409, if it has a condition.
    """

    def __init__(self, *buckets: Bucket, writes_per_second: int = 3, page_size: int = 1000) -> None:
        self.buckets = {bucket.name: bucket for bucket in buckets}
        self.uploads: dict[str, Upload] = {}
        self.page_size = page_size
        self.corrupt_copies = 0
        self.repeated_write = 0
        self.conflicting_write = 0
        self.writes = 0
        self.on_change: Callable[[Bucket, Stored | None], None] = lambda bucket, stored: None
        self._writes_per_second = writes_per_second
        self._count = itertools.count(1)

    def write(
        self,
        bucket: Bucket,
        key: str,
        body: bytes,
        headers: dict[str, Any],
        *,
        upload: int | None = None,
        staged: int | None = None,
        is_marker: bool = False,
    ) -> Stored:
        number = next(self._count)
        stored = Stored(
            key=key,
            version_id=f"v{number}" if bucket.versioned else "null",
            body=body,
            headers=headers,
            modified_at=datetime(2026, 1, 1, tzinfo=UTC)
            + timedelta(seconds=number // self._writes_per_second),
            upload=number if upload is None else upload,
            staged=number if staged is None else staged,
            is_marker=is_marker,
        )
        bucket.put(stored)
        self.on_change(bucket, stored)
        return stored

    def remove(self, bucket: Bucket, stored: Stored) -> None:
        bucket.stacks[stored.key].remove(stored)
        self.on_change(bucket, None)


class _Events:
    """Nothing is called: what a handler adds to a request is not modelled."""

    def register(self, *_: Any, **__: Any) -> None:
        pass


class _Meta:
    service_model = _SERVICE_MODEL
    events = _Events()


class _Versions:
    """The pages of ListObjectVersions."""

    def __init__(self, client: Client) -> None:
        self._client = client

    def paginate(
        self,
        *,
        PaginationConfig: dict[str, int],  # noqa: N803 - boto3's name
        **arguments: Any,
    ) -> Iterator[dict[str, Any]]:
        arguments["MaxKeys"] = PaginationConfig["PageSize"]
        while True:
            page = self._client.list_object_versions(**arguments)
            yield page
            if not page["IsTruncated"]:
                return
            arguments["KeyMarker"] = page["NextKeyMarker"]
            arguments["VersionIdMarker"] = page["NextVersionIdMarker"]


class Client:
    """What the code under test takes for boto3's S3 client.

    `gate(operation, arguments)` is called before each operation: that is where the scheduler
    switches actors, and where it kills them. `unfound_head` is the number of this client's HEAD
    in staging that answers 404, whatever is there.
    """

    meta = _Meta()

    def __init__(self, s3: S3, gate: Callable[[str, dict[str, Any]], None]) -> None:
        self._s3 = s3
        self._gate = gate
        self._heads = 0
        self.unfound_head = 0
        self.on_read: Callable[[Stored], None] = lambda stored: None

    def head_object(self, **arguments: Any) -> dict[str, Any]:
        bucket = self._enter("HeadObject", arguments)
        if bucket.is_staging:
            self._heads += 1
            if self._heads == self.unfound_head:
                raise _error("404", 404, "HeadObject")
        return self._described(bucket, self._found(bucket, arguments, "HeadObject"))

    def get_object(self, **arguments: Any) -> dict[str, Any]:
        bucket = self._enter("GetObject", arguments)
        stored = self._found(bucket, arguments, "GetObject")
        body = stored.body
        if "Range" in arguments:
            first, last = arguments["Range"].removeprefix("bytes=").split("-")
            body = body[int(first) : int(last) + 1]
        self.on_read(stored)
        return {
            **self._described(bucket, stored),
            "Body": io.BytesIO(body),
            "ContentLength": len(body),
        }

    def put_object(self, **arguments: Any) -> dict[str, Any]:
        bucket = self._enter("PutObject", arguments)
        self._require_destination(bucket, arguments, "PutObject")
        headers = _kept(arguments)
        stored = self._s3.write(bucket, arguments["Key"], arguments["Body"], headers)
        return self._written(bucket, stored)

    def copy_object(self, **arguments: Any) -> dict[str, Any]:
        return self._once_or_twice(self._copy_object, arguments)

    def delete_object(self, **arguments: Any) -> dict[str, Any]:
        return self._once_or_twice(self._delete_object, arguments)

    def complete_multipart_upload(self, **arguments: Any) -> dict[str, Any]:
        return self._once_or_twice(self._complete_multipart_upload, arguments)

    def _once_or_twice(
        self, operation: Callable[[dict[str, Any]], dict[str, Any]], arguments: dict[str, Any]
    ) -> dict[str, Any]:
        self._s3.writes += 1
        has_condition = not arguments.keys().isdisjoint(("IfMatch", "IfNoneMatch"))
        if has_condition and self._s3.writes == self._s3.conflicting_write:
            self._gate("Conflict", arguments)
            raise _error("ConditionalRequestConflict", 409, "Conflict")
        if self._s3.writes == self._s3.repeated_write:
            operation(arguments)  # the answer does not arrive, and boto3 asks again
        return operation(arguments)

    def _copy_object(self, arguments: dict[str, Any]) -> dict[str, Any]:
        bucket = self._enter("CopyObject", arguments)
        source = self._source(arguments, "CopyObject")
        self._require_destination(bucket, arguments, "CopyObject")
        kept = arguments.get("MetadataDirective") != "REPLACE"
        headers = dict(source.headers) if kept else _kept(arguments)
        headers["Tags"] = source.headers.get("Tags", ())
        stored = self._copied(bucket, arguments["Key"], source.body, headers, source)
        result = {
            "ETag": f'"{stored.etag}"',
            "ChecksumCRC32": _crc32(stored.body),
            "ChecksumType": "FULL_OBJECT",
        }
        return {**self._written(bucket, stored), "CopyObjectResult": result}

    def _delete_object(self, arguments: dict[str, Any]) -> dict[str, Any]:
        bucket = self._enter("DeleteObject", arguments)
        key, version_id = arguments["Key"], arguments.get("VersionId")
        if version_id is not None:
            # S3 evaluates conditions against the current version only.
            assert "IfMatch" not in arguments, "a condition with a version id means nothing"
            stored = bucket.find(key, version_id)
            if stored is not None:
                self._s3.remove(bucket, stored)
            return {"VersionId": version_id}
        current = bucket.current(key)
        if "IfMatch" in arguments:
            if current is None:
                raise _error("NoSuchKey", 404, "DeleteObject")
            if arguments["IfMatch"].strip('"') != current.etag:
                raise _error("PreconditionFailed", 412, "DeleteObject")
        if bucket.versioned:
            marker = self._s3.write(bucket, key, b"", {}, upload=0, staged=0, is_marker=True)
            return {"DeleteMarker": True, "VersionId": marker.version_id}
        if current is not None:
            self._s3.remove(bucket, current)
        return {}

    def list_object_versions(self, **arguments: Any) -> dict[str, Any]:
        bucket = self._enter("ListObjectVersions", arguments)
        entries = list(_entries(bucket, arguments.get("Prefix", "")))
        if "KeyMarker" in arguments:
            # S3 goes on after the marker's place even when that version is gone by now.
            marker = _rank(arguments["KeyMarker"], arguments["VersionIdMarker"])
            entries = [
                (stored, latest)
                for stored, latest in entries
                if _rank(stored.key, stored.version_id) > marker
            ]
        size = min(self._s3.page_size, arguments.get("MaxKeys", 1000))
        page, rest = entries[:size], entries[size:]
        answer: dict[str, Any] = {
            "IsTruncated": bool(rest),
            "Versions": [
                _listed(stored, latest) for stored, latest in page if not stored.is_marker
            ],
            "DeleteMarkers": [
                _listed(stored, latest) for stored, latest in page if stored.is_marker
            ],
        }
        if rest:
            answer["NextKeyMarker"] = page[-1][0].key
            answer["NextVersionIdMarker"] = page[-1][0].version_id
        return answer

    def get_paginator(self, operation: str) -> _Versions:
        assert operation == "list_object_versions"
        return _Versions(self)

    def list_objects_v2(self, **arguments: Any) -> dict[str, Any]:
        bucket = self._enter("ListObjectsV2", arguments)
        found = [
            item for item in bucket.visible() if item.key.startswith(arguments.get("Prefix", ""))
        ]
        return {"Contents": [_listed(item, latest=True) for item in found], "IsTruncated": False}

    def get_object_tagging(self, **arguments: Any) -> dict[str, Any]:
        bucket = self._enter("GetObjectTagging", arguments)
        stored = self._found(bucket, arguments, "GetObjectTagging")
        return {"TagSet": [{"Key": k, "Value": v} for k, v in stored.headers.get("Tags", ())]}

    def create_multipart_upload(self, **arguments: Any) -> dict[str, Any]:
        bucket = self._enter("CreateMultipartUpload", arguments)
        upload_id = f"upload-{len(self._s3.uploads) + 1}"
        self._s3.uploads[upload_id] = Upload(bucket.name, arguments["Key"], _kept(arguments))
        return {"UploadId": upload_id}

    def upload_part_copy(self, **arguments: Any) -> dict[str, Any]:
        self._enter("UploadPartCopy", arguments)
        upload = self._upload(arguments, "UploadPartCopy")
        source = self._source(arguments, "UploadPartCopy")
        first, last = arguments["CopySourceRange"].removeprefix("bytes=").split("-")
        piece = source.body[int(first) : int(last) + 1]
        upload.parts[arguments["PartNumber"]] = (piece, source)
        return {"CopyPartResult": {"ETag": f'"{hashlib.md5(piece).hexdigest()}"'}}

    def _complete_multipart_upload(self, arguments: dict[str, Any]) -> dict[str, Any]:
        bucket = self._enter("CompleteMultipartUpload", arguments)
        upload = self._upload(arguments, "CompleteMultipartUpload")
        self._require_destination(bucket, arguments, "CompleteMultipartUpload")
        numbers = [part["PartNumber"] for part in arguments["MultipartUpload"]["Parts"]]
        body = b"".join(upload.parts[number][0] for number in numbers)
        sources = [upload.parts[number][1] for number in numbers]
        checksum = arguments.get("ChecksumCRC32")
        if checksum is not None and checksum != _crc32(body):
            raise _error("BadDigest", 400, "CompleteMultipartUpload")
        del self._s3.uploads[arguments["UploadId"]]
        # A copy of parts of several versions is a copy of none: the newest one's number shows it.
        source = max(sources, key=lambda stored: stored.staged)
        stored = self._copied(bucket, upload.key, body, upload.headers, source)
        return self._written(bucket, stored)

    def abort_multipart_upload(self, **arguments: Any) -> dict[str, Any]:
        self._enter("AbortMultipartUpload", arguments)
        self._s3.uploads.pop(arguments["UploadId"], None)
        return {}

    def _enter(self, operation: str, arguments: dict[str, Any]) -> Bucket:
        self._gate(operation, arguments)
        return self._s3.buckets[arguments["Bucket"]]

    def _found(self, bucket: Bucket, arguments: dict[str, Any], operation: str) -> Stored:
        key, version_id = arguments["Key"], arguments.get("VersionId")
        is_head = operation == "HeadObject"
        if version_id is None:
            stored = bucket.current(key)
        else:
            stored = bucket.find(key, version_id)
            if stored is not None and stored.is_marker:
                raise _error("405" if is_head else "MethodNotAllowed", 405, operation)
        if stored is None:
            missing = "NoSuchKey" if version_id is None else "NoSuchVersion"
            raise _error("404" if is_head else missing, 404, operation)
        if "IfMatch" in arguments and arguments["IfMatch"].strip('"') != stored.etag:
            raise _error("412" if is_head else "PreconditionFailed", 412, operation)
        return stored

    def _source(self, arguments: dict[str, Any], operation: str) -> Stored:
        source = arguments["CopySource"]
        bucket = self._s3.buckets[source["Bucket"]]
        stored = self._found(bucket, source, operation)
        expected = arguments.get("CopySourceIfMatch")
        if expected is not None and expected.strip('"') != stored.etag:
            raise _error("PreconditionFailed", 412, operation)
        return stored

    def _require_destination(
        self, bucket: Bucket, arguments: dict[str, Any], operation: str
    ) -> None:
        current = bucket.current(arguments["Key"])
        if "IfNoneMatch" in arguments and current is not None:
            raise _error("PreconditionFailed", 412, operation)
        if "IfMatch" in arguments:
            if current is None:
                raise _error("NoSuchKey", 404, operation)
            if arguments["IfMatch"].strip('"') != current.etag:
                raise _error("PreconditionFailed", 412, operation)

    def _copied(
        self,
        bucket: Bucket,
        key: str,
        body: bytes,
        headers: dict[str, Any],
        source: Stored,
    ) -> Stored:
        if self._s3.corrupt_copies:
            self._s3.corrupt_copies -= 1
            body = b"!" * max(1, len(body))
        staged = None if bucket.is_staging else source.staged
        return self._s3.write(bucket, key, body, headers, upload=source.upload, staged=staged)

    def _upload(self, arguments: dict[str, Any], operation: str) -> Upload:
        upload = self._s3.uploads.get(arguments["UploadId"])
        if upload is None:
            raise _error("NoSuchUpload", 404, operation)
        return upload

    def _described(self, bucket: Bucket, stored: Stored) -> dict[str, Any]:
        answer = {
            "ETag": f'"{stored.etag}"',
            "ContentLength": len(stored.body),
            "LastModified": stored.modified_at,
            "Metadata": dict(stored.headers.get("Metadata", {})),
            "ContentType": stored.headers.get("ContentType", "binary/octet-stream"),
            "ChecksumCRC32": _crc32(stored.body),
            "ChecksumType": "FULL_OBJECT",
        }
        if bucket.versioned:
            answer["VersionId"] = stored.version_id
        return answer

    def _written(self, bucket: Bucket, stored: Stored) -> dict[str, Any]:
        answer: dict[str, Any] = {"ETag": f'"{stored.etag}"'}
        if bucket.versioned:
            answer["VersionId"] = stored.version_id
        return answer


def _kept(arguments: dict[str, Any]) -> dict[str, Any]:
    return {name: arguments[name] for name in ("Metadata", "ContentType") if name in arguments}


def _entries(bucket: Bucket, prefix: str) -> Iterator[tuple[Stored, bool]]:
    for key in sorted(bucket.stacks):
        if key.startswith(prefix):
            for depth, stored in enumerate(bucket.stacks[key]):
                yield stored, depth == 0


def _rank(key: str, version_id: str) -> tuple[str, int]:
    """Return what a listing of versions is sorted by: a key's newest version comes first."""
    return key, -int(version_id.removeprefix("v")) if version_id != "null" else 0


def _listed(stored: Stored, latest: bool) -> dict[str, Any]:
    return {
        "Key": stored.key,
        "VersionId": stored.version_id,
        "IsLatest": latest,
        "LastModified": stored.modified_at,
        "ETag": f'"{stored.etag}"',
        "Size": len(stored.body),
    }


def _crc32(body: bytes) -> str:
    return base64.b64encode(zlib.crc32(body).to_bytes(4, "big")).decode()


def _error(code: str, status: int, operation: str) -> ClientError:
    return ClientError(
        {
            "Error": {"Code": code, "Message": code},
            "ResponseMetadata": {"HTTPStatusCode": status},  # type: ignore[typeddict-item]
        },
        operation,
    )
