"""Contents of objects, which stay on disk: a read sends the part that was asked for as it goes.

The emulator answers a ranged read of a version with all of it, reads the whole file for every range
and every read, and keeps the contents of every version in memory for as long as it runs.
"""

from __future__ import annotations

import mmap
from contextlib import contextmanager
from contextvars import ContextVar
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Iterator

    from twobuckets.local.server.guard import Receive, Send

Answer = tuple[int, dict[str, str], Any]

# What is larger is sent in pieces of this size.
PIECE_BYTES = 1024 * 1024

_maps_files: ContextVar[bool] = ContextVar("maps_files", default=False)


@contextmanager
def _mapped() -> Iterator[None]:
    token = _maps_files.set(True)
    try:
        yield
    finally:
        _maps_files.reset(token)


def _map(path: str | None) -> mmap.mmap | None:
    """Return a file as something to slice; what was mapped stays when the file is replaced."""
    if path is None:
        return None
    try:
        with open(path, "rb") as file:
            return mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)
    except (OSError, ValueError):
        # Not there, or empty.
        return None


def install() -> None:
    """Put these reads in the place of the emulator's."""
    from ministack.services import s3

    read_body, version_body, persist = s3._read_body, s3._version_body, s3._persist_object
    get_object, upload_part_copy = s3._get_object, s3._upload_part_copy

    def read_or_map(bucket: str, key: str, record: dict[str, Any]) -> Any:
        mapped = None
        if _maps_files.get() and record.get("body") is None:
            mapped = _map(s3._object_disk_path(bucket, key))
        return read_body(bucket, key, record) if mapped is None else mapped

    def read_or_map_version(
        contents: dict[str, Any], bucket: str, key: str, version: dict[str, Any]
    ) -> Any:
        mapped = None
        if _maps_files.get() and version.get("data") is None:
            mapped = _map(s3._version_disk_path(bucket, key, version["version_id"]))
        return version_body(contents, bucket, key, version) if mapped is None else mapped

    def get_in_pieces(
        bucket: str, key: str, headers: dict[str, str], query: dict[str, Any] | None = None
    ) -> Any:
        if query and "partNumber" in query:
            return get_object(bucket, key, headers, query)
        wanted = headers.get("range")
        others = {name: value for name, value in headers.items() if name != "range"}
        with _mapped():
            status, answered, body = get_object(bucket, key, others, query)
        if status != 200:
            return status, answered, body
        if not wanted:
            answered["Content-Length"] = str(len(body))
            return status, answered, _pieces(body, 0, len(body))
        part = s3._parse_range(wanted, len(body))
        if part is None:
            return get_object(bucket, key, headers, query)
        return _answer_part(answered, body, *part)

    def copy_part(bucket: str, key: str, query: dict[str, Any], headers: dict[str, str]) -> Any:
        if not headers.get("x-amz-copy-source-range"):
            return upload_part_copy(bucket, key, query, headers)
        with _mapped():
            return upload_part_copy(bucket, key, query, headers)

    def persist_and_forget(bucket: str, key: str, record: Any) -> None:
        persist(bucket, key, record)
        if not isinstance(record, dict) or record.get("body") is not None:
            # It is not on disk, so memory is all there is.
            return
        for version in s3._object_versions.get((bucket, key)) or []:
            if version["version_id"] == (record.get("version_id") or "null"):
                version["data"] = None

    s3._read_body, s3._version_body = read_or_map, read_or_map_version
    s3._get_object, s3._upload_part_copy = get_in_pieces, copy_part
    s3._persist_object = persist_and_forget


def _answer_part(headers: dict[str, str], body: Any, first: int, last: int) -> Answer:
    # A checksum of the whole object says nothing of a part (API reference, GetObject).
    kept = {
        name: value
        for name, value in headers.items()
        if not name.lower().startswith("x-amz-checksum-")
    }
    kept["Content-Length"] = str(last - first + 1)
    kept["Content-Range"] = f"bytes {first}-{last}/{len(body)}"
    return 206, kept, _pieces(body, first, last + 1)


def _pieces(body: Any, start: int, end: int) -> Any:
    """Return the bytes from start to end in the emulator's form: at once, or as they are sent."""
    from ministack.core.responses import StreamingResponse

    if end - start <= PIECE_BYTES:
        return bytes(body[start:end])

    async def run(send: Send, _: Receive) -> None:
        for offset in range(start, end, PIECE_BYTES):
            piece = body[offset : min(offset + PIECE_BYTES, end)]
            await send({"type": "http.response.body", "body": piece, "more_body": True})
        await send({"type": "http.response.body", "body": b"", "more_body": False})

    return StreamingResponse(run)
